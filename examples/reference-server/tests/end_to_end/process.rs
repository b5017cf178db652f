//! A server process with its own folder, and the mails that it writes there.

use std::{
    ffi::OsStr,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};

pub(crate) use crate::program::{DEADLINE, program};
use crate::{
    client::Client,
    program::{Running, program_after},
};

/// The id of the contract workflow that comes with the program.
pub(crate) const CONTRACT: &str = "01980000-0000-7000-8000-00005e781ce0";

pub(crate) struct Server {
    running: Running,
    pub(crate) folder: tempfile::TempDir,
    client: Client,
}

/// A server can be used as its own client.
impl Deref for Server {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Runs the program until it ends.
pub(crate) fn output(arguments: &[&str]) -> Output {
    program(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("samples")
        .join(name)
}

pub(crate) fn sample_data(name: &str) -> Value {
    let text = std::fs::read_to_string(sample(name)).expect("a sample");
    serde_json::from_str(&text).expect("JSON")
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_as(program(&[]), arguments)
    }

    /// Starts a server with these environment variables.
    pub(crate) fn start_in<V: AsRef<OsStr>>(variables: &[(&str, V)], arguments: &[&str]) -> Self {
        let mut command = program(&[]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        Self::start_as(command, arguments)
    }

    /// Starts a server whose files may have at most this many blocks of 512 bytes. To the server, this limit
    /// looks like a full disk.
    pub(crate) fn start_with_small_files(blocks: u32, arguments: &[&str]) -> Self {
        Self::start_as(program_after(&format!("ulimit -f {blocks}")), arguments)
    }

    /// Starts a server that may have at most this many open files.
    pub(crate) fn start_with_few_files(files: u32, arguments: &[&str]) -> Self {
        Self::start_as(program_after(&format!("ulimit -n {files}")), arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        command
            .args(["--bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(arguments);
        let running = Running::start(command, folder.path().join("stderr"));
        let url = running.address();
        assert_eq!(running.line(), "working");
        let token = running.development_token().unwrap_or_default();
        let client = Client::new(url, token);
        Self {
            running,
            folder,
            client,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        self.running.log()
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    pub(crate) fn remaining_lines(&self) -> Vec<String> {
        self.running.remaining_lines()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.running.wait()
    }

    /// Gets a page without credentials, as a signer's browser does.
    pub(crate) async fn browse(&self, url: &str) -> (StatusCode, String) {
        let response = self
            .http
            .get(url)
            .timeout(DEADLINE)
            .send()
            .await
            .expect("it answers");
        (response.status(), response.text().await.expect("a page"))
    }

    pub(crate) async fn fill_in(&self, url: &str, form: &str) -> (StatusCode, String) {
        let request = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
            .timeout(DEADLINE);
        let response = request.send().await.expect("it answers");
        (response.status(), response.text().await.expect("a page"))
    }

    /// Starts the contract workflow. Returns the execution's id.
    pub(crate) async fn start_contract(&self, sample: &str) -> String {
        self.start_with_sample(CONTRACT, sample).await
    }

    /// Starts a workflow with one of the samples. Returns the execution's id.
    pub(crate) async fn start_with_sample(&self, workflow: &str, sample: &str) -> String {
        let body = json!({"trigger_data": sample_data(sample)});
        let (status, execution) = self
            .post(&format!("/api/v1/workflows/{workflow}/executions"), &body)
            .await;
        assert_eq!(status, StatusCode::CREATED, "{execution}");
        execution["id"].as_str().expect("an id").to_owned()
    }

    /// Waits for the invitations, and signs for both signers of the contract. Returns the completed
    /// execution.
    pub(crate) async fn sign_all(&self, id: &str) -> Value {
        self.until_it_awaits_signatures(id).await;
        for signer in ["signer.one@example.com", "signer.two@example.com"] {
            let link = self.link_for(signer).await;
            let (status, page) = self.fill_in(&link, "name=Signer&consent=yes").await;
            assert_eq!(status, StatusCode::OK, "{page}");
        }
        self.until(id, &["completed"]).await
    }

    /// The mails to an address. A mail to several recipients is listed for each recipient.
    pub(crate) fn mails_to(&self, address: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.data().join("mail")) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.expect("readable").path());
        let mails = paths.filter(|path| path.extension().is_some_and(|ending| ending == "eml"));
        let mails = mails.map(|path| text(&std::fs::read(path).expect("readable")));
        let is_for = |mail: &String| {
            // A long header is folded (RFC 5322, section 2.2.3).
            let unfolded = mail.replace("\r\n ", " ").replace("\n ", " ");
            let line = unfolded
                .lines()
                .find_map(|line| line.strip_prefix("X-Docg-Recipients: "));
            line.is_some_and(|line| line.split(' ').any(|to| to == address))
        };
        mails.filter(is_for).collect()
    }

    /// The link in the mail to a signer.
    pub(crate) async fn link_for(&self, address: &str) -> String {
        self.link_to(address, "/sign/").await
    }

    /// Waits for a mail to `address`. Returns the link in it to a page of this kind.
    pub(crate) async fn link_to(&self, address: &str, page: &str) -> String {
        let began = Instant::now();
        loop {
            for mail in self.mails_to(address) {
                let link = mail
                    .lines()
                    .find(|line| line.starts_with("http") && line.contains(page));
                if let Some(link) = link {
                    return link.trim().to_owned();
                }
            }
            assert!(
                began.elapsed() < DEADLINE,
                "no mail with a link to {address}"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}
