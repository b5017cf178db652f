//! A server process and a client for it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Nothing here takes longer, on however slow a machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The workflow that comes with the program.
pub(crate) const CONTRACT: &str = "01980000-0000-7000-8000-00005e781ce0";

pub(crate) struct Server {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
    http: reqwest::Client,
}

/// The program with these arguments, without what the environment may hold for it.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reference-server"));
    clean(&mut command).args(arguments);
    command
}

fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let ours = ["DOCG_", "DATABASE_URL", "REDIS_", "RUST_LOG"];
        if ours.iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs the program to its end.
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

    /// With files of at most so many blocks of 512 bytes, which is what a full disk looks like to
    /// a process.
    pub(crate) fn start_with_small_files(blocks: u32, arguments: &[&str]) -> Self {
        let binary = env!("CARGO_BIN_EXE_reference-server");
        // Ignored, the signal becomes an error of the write.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {binary} \"$@\"");
        let mut shell = Command::new("sh");
        clean(&mut shell).args(["-c", &script, "sh"]);
        Self::start_as(shell, arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = std::fs::File::create(folder.path().join("stderr")).expect("a log");
        let mut child = command
            .args(["--bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let lines = lines_of(&mut child);
        let log = || std::fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
        let line = || {
            lines
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|_| panic!("no line: {}", log()))
        };
        let listening = line();
        let url = listening.strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("{listening:?}")).to_owned();
        assert_eq!(line(), "working");
        let log = log();
        let token = log
            .lines()
            .find_map(|line| line.strip_prefix("development token: "));
        let token = token.unwrap_or_default().to_owned();
        reference_server::tls::prepare();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            child,
            folder,
            url,
            token,
            http,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("there is a kill").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
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

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.url)
        };
        self.http
            .request(method, url)
            .bearer_auth(&self.token)
            .timeout(DEADLINE)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self
            .request(Method::GET, path)
            .send()
            .await
            .expect("it answers");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.expect("JSON")
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let response = self
            .request(method, path)
            .json(body)
            .send()
            .await
            .expect("it answers");
        (response.status(), response.json().await.expect("JSON"))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body).await
    }

    /// Without credentials, as a signer's browser does.
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

    /// Starts the contract workflow; the execution's id.
    pub(crate) async fn start_contract(&self, sample: &str) -> String {
        self.start_with_sample(CONTRACT, sample).await
    }

    /// Starts a workflow with one of the samples; the execution's id.
    pub(crate) async fn start_with_sample(&self, workflow: &str, sample: &str) -> String {
        let body = json!({"trigger_data": sample_data(sample)});
        let (status, execution) = self
            .post(&format!("/api/v1/workflows/{workflow}/executions"), &body)
            .await;
        assert_eq!(status, StatusCode::CREATED, "{execution}");
        execution["id"].as_str().expect("an id").to_owned()
    }

    /// Stores and starts a workflow of these nodes; the execution's id.
    pub(crate) async fn start_nodes(&self, nodes: Value) -> String {
        self.start_nodes_with(nodes, &json!({})).await
    }

    pub(crate) async fn start_nodes_with(&self, nodes: Value, trigger_data: &Value) -> String {
        let id = uuid::Uuid::new_v4();
        let path = format!("/api/v1/workflows/{id}");
        let workflow = json!({"name": "Test", "nodes": nodes});
        let (status, answer) = self.send(Method::PUT, &path, &workflow).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let body = json!({"trigger_data": trigger_data});
        let (status, execution) = self.post(&format!("{path}/executions"), &body).await;
        assert_eq!(status, StatusCode::CREATED, "{execution}");
        execution["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn execution(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/executions/{id}")).await
    }

    /// Waits until an execution has one of these statuses.
    pub(crate) async fn until(&self, id: &str, statuses: &[&str]) -> Value {
        let has = |execution: &Value| {
            statuses.contains(&execution["status"].as_str().unwrap_or_default())
        };
        self.until_it(id, has).await
    }

    /// Waits until an execution has asked for signatures.
    pub(crate) async fn until_it_awaits_signatures(&self, id: &str) -> Value {
        self.until_it_awaits(id, "signature").await
    }

    /// Waits until an execution waits for this.
    pub(crate) async fn until_it_awaits(&self, id: &str, kind: &str) -> Value {
        self.until_it(id, |execution| execution["waiting_for"]["kind"] == kind)
            .await
    }

    async fn until_it(&self, id: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let execution = self.execution(id).await;
            if reached(&execution) {
                return execution;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "it stays at {execution:#}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// The mails that were written, by receiver; a mail to several is there for each.
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

    /// The link to such a page in a mail.
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

    /// The event stream after an event, to its end: id, type and data of each event with an id.
    pub(crate) async fn stream(
        &self,
        id: &str,
        after: Option<&str>,
    ) -> Vec<(String, String, Value)> {
        let path = format!("/api/v1/sse/executions/{id}/stream");
        let mut request = self.request(Method::GET, &path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.expect("it answers");
        assert!(response.status().is_success(), "{}", response.status());
        let whole = response.text().await.expect("it ends with the execution");
        let field = |block: &str, name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start().to_owned())
        };
        let event = |block: &str| {
            let data = serde_json::from_str(&field(block, "data:")?).expect("JSON");
            Some((field(block, "id:")?, field(block, "event:")?, data))
        };
        whole.split("\n\n").filter_map(event).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let output = child.stdout.take().expect("it is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody reads more than the first lines.
            let _ = sender.send(line);
        }
    });
    lines
}
