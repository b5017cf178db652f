//! Runs the real program as a process, which is killed when its value is dropped.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// A time limit that even a slow machine meets.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The number of log lines that a failing test shows.
const LAST_LINES: usize = 60;

/// A command that runs the program with these arguments, without the settings in this process's environment.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reference-server"));
    clean(&mut command).args(arguments);
    command
}

/// A shell that runs a script and then replaces itself by the program.
pub(crate) fn program_after(script: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_reference-server");
    let mut shell = Command::new("sh");
    let script = format!("{script}; exec {binary} \"$@\"");
    clean(&mut shell).args(["-c", &script, "sh"]);
    shell
}

/// A shell that runs these commands. If they run the server with `cargo`, the program replaces the shell.
pub(crate) fn shell(commands: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_reference-server");
    let cargo = "cargo() {
        [[ \"$1 $2 $3\" == 'run -p reference-server' ]]
        shift 3
        [[ $# == 0 || $1 == -- ]]
        exec \"$BINARY\" \"${@:2}\"
    }";
    let mut shell = Command::new("bash");
    clean(&mut shell).env("BINARY", binary).args([
        "-e",
        "-u",
        "-c",
        &format!("{cargo}\n{commands}"),
    ]);
    shell
}

fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let ours = ["DOCG_", "DATABASE_URL", "REDIS_", "RUST_LOG", "AWS_"];
        if ours.iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The running program.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Running {
    /// Starts the program. Its log is appended to a file.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file.expect("the folder is ours"))
            .spawn()
            .expect("the program starts");
        let lines = lines_of(&mut child);
        Self { child, lines, log }
    }

    /// The next line of the program's standard output.
    pub(crate) fn line(&self) -> String {
        self.lines
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("no line: {}", self.log()))
    }

    /// The remaining lines of standard output, after the program has ended.
    pub(crate) fn remaining_lines(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// The URL that the program listens on, from its first line.
    pub(crate) fn address(&self) -> String {
        let line = self.line();
        let url = line.strip_prefix("listening on ");
        url.unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    /// The development token in the program's output, if it printed one.
    pub(crate) fn development_token(&self) -> Option<String> {
        let log = self.log();
        let mut lines = log.lines();
        lines.find_map(|line| Some(line.strip_prefix("development token: ")?.to_owned()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log contains this text.
    pub(crate) async fn until_logged(&self, text: &str) {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < DEADLINE, "it does not log {text:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("there is a kill").success());
    }

    /// Kills the program, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// Waits until the program ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "it does not end: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let skipped = log.lines().count().saturating_sub(LAST_LINES);
            let tail: Vec<_> = log.lines().skip(skipped).collect();
            eprintln!("--- {}\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take().expect("it is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // An error means that nobody reads the lines any more.
            let _ = sender.send(line);
        }
    });
    lines
}
