//! Runs the commands of the README as a reader would: block after block in one shell.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;

use crate::{
    process::{DEADLINE, Server},
    readme,
};

/// A reader's shell, in the top folder of the repository, beside a server.
struct Terminal {
    shell: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Terminal {
    fn beside(server: &Server) -> Self {
        let folder = server.folder.path();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        symlink(repository.join("examples"), folder.join("examples")).expect("a link");
        symlink(server.data(), folder.join("docg-data")).expect("a link");
        let mut shell = Command::new("bash")
            .args(["-e", "-u"])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a bash");
        let output = shell.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let input = shell.stdin.take().expect("it is piped");
        Self {
            shell,
            input,
            lines,
        }
    }

    /// Runs a block of commands. Returns its output.
    fn run(&mut self, block: &str) -> String {
        const END: &str = "--- end of block ---";
        writeln!(self.input, "{block}\necho; echo '{END}'").expect("the shell reads");
        let mut printed = String::new();
        loop {
            let line = self
                .lines
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|error| panic!("{error} in:\n{block}\nafter:\n{printed}"));
            if line == END {
                return printed;
            }
            printed.push_str(&line);
            printed.push('\n');
        }
    }

    fn variable(&mut self, name: &str) -> String {
        self.run(&format!("echo \"${name}\"")).trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Parses the JSON values in an output.
fn values(printed: &str) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(printed).into_iter();
    values
        .map(|value| value.unwrap_or_else(|error| panic!("{error} in {printed}")))
        .collect()
}

/// The ids of the events in an output.
fn event_ids(printed: &str) -> Vec<&str> {
    let ids = printed.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_s_commands_do_what_it_says() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::beside(&server);
    let mut blocks = readme::blocks("A contract, from data to signatures").into_iter();
    let mut next = || blocks.next().expect("another block");

    let setup = next()
        .replace("dev-…", &server.token)
        .replace("http://127.0.0.1:8080", &server.url);
    terminal.run(&setup);

    let found = values(&terminal.run(&next()));
    assert_eq!(found[0]["can_execute"], false);
    assert_eq!(
        found[1]["recommended_actions"][0]["label"],
        "Corrigir signatários"
    );
    assert_eq!(found.len(), 2);

    terminal.run(&next());
    let run = terminal.variable("RUN");
    server.until_it_awaits_signatures(&run).await;
    let seen = values(&terminal.run(&next()));
    assert_eq!(seen[0]["status"], "signing");
    assert!(seen[1]["steps"].is_array() && seen[2]["logs"].is_array());
    let pdf = |name: &str| {
        let document = std::fs::read(server.folder.path().join(name)).expect("it was downloaded");
        assert!(document.starts_with(b"%PDF-"), "{name}");
        document.len()
    };
    let unsigned = pdf("contract.pdf");

    // Wait for the mails: the next block reads their links.
    for signer in ["signer.one@example.com", "signer.two@example.com"] {
        server.link_for(signer).await;
    }
    let answers = terminal.run(&next());
    assert_eq!(
        answers.split_whitespace().collect::<Vec<_>>(),
        ["200", "200"]
    );
    server.until(&run, &["completed"]).await;
    let seen = values(&terminal.run(&next()));
    assert_eq!((&seen[0]["status"], seen.len()), (&"completed".into(), 1));
    assert!(pdf("signed.pdf") > unsigned);

    let streams = terminal.run(&next());
    let ids = event_ids(&streams);
    let again = ids
        .iter()
        .rposition(|id| *id == "21-0")
        .expect("the second stream");
    let (first, second) = ids.split_at(again);
    assert!(
        first.starts_with(&["1-0", "2-0"]) && first.ends_with(second),
        "{ids:?}"
    );

    let audit = values(&terminal.run(&next()));
    assert!(
        audit[0]["events"]
            .as_array()
            .is_some_and(|events| events.len() > 5)
    );
    assert_eq!(audit[1]["valid"], true);

    terminal.run(&next());
    let parked = terminal.variable("RUN");
    server.until(&parked, &["needs_review"]).await;
    let resumed = values(&terminal.run(&next()));
    assert!(resumed[0]["code"].is_null(), "{}", resumed[0]);
    server.until_it_awaits_signatures(&parked).await;

    terminal.run(&next());
    let asked = terminal.variable("RUN");
    let execution = server.until_it_awaits(&asked, "approval").await;
    assert_eq!(execution["status"], "paused");
    server
        .link_to("contracts@provider.example.com", "/approvals/")
        .await;
    let decided = values(&terminal.run(&next()));
    assert_eq!(decided.len(), 2, "{decided:?}");
    assert!(
        decided.iter().all(|answer| answer["code"].is_null()),
        "{decided:?}"
    );
    server.until(&asked, &["completed"]).await;

    terminal.run(&next());
    let (done, follower) = (terminal.variable("DONE"), terminal.variable("FOLLOWER"));
    let execution = server.until_it_awaits_signatures(&follower).await;
    assert_eq!(execution["follows"], done.as_str());
    server.link_for("auditor@example.com").await;

    assert_eq!(blocks.next(), None, "a block that no test knows");
}
