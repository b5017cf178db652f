//! Three server processes, a database and a Redis, each of which can be broken and mended.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use docg_test_servers::{postgres, redis};
use serde_json::json;

/// How long a worker holds an execution: short, so that takeovers happen within the test.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);
/// Nothing takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// One for each of two organizations, and all of their rights.
pub(crate) const TENANTS: [(&str, &str); 2] = [
    (
        "chaos-token-of-the-first-tenant",
        "00000000-0000-7000-8000-0000000000a1",
    ),
    (
        "chaos-token-of-the-second-tenant",
        "00000000-0000-7000-8000-0000000000a2",
    ),
];

pub(crate) struct Cluster {
    pub(crate) postgres: postgres::PrivateServer,
    pub(crate) redis: redis::PrivateServer,
    pub(crate) folder: tempfile::TempDir,
    processes: Vec<Process>,
}

struct Process {
    port: u16,
    child: Mutex<Child>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let (postgres, redis) = (
            postgres::PrivateServer::start().await,
            redis::PrivateServer::start(),
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tokens: Vec<_> = TENANTS
            .iter()
            .map(|(token, organization)| {
                json!({"token": token, "actor": "chaos", "organizations": [organization],
                    "scopes": ["executions:read", "executions:write", "executions:debug",
                        "audit:read", "workflows:write"]})
            })
            .collect();
        let auth = json!({"tokens": tokens}).to_string();
        std::fs::write(folder.path().join("auth.json"), auth).expect("the folder is ours");
        let mut cluster = Self {
            postgres,
            redis,
            folder,
            processes: Vec::new(),
        };
        for number in 0..3 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
            let port = free.expect("the loopback has a free port").port();
            let child = Mutex::new(cluster.spawn(number, port));
            cluster.processes.push(Process { port, child });
        }
        cluster.all_up().await;
        cluster
    }

    fn spawn(&self, number: usize, port: u16) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(number))
            .expect("the folder is ours");
        Command::new(env!("CARGO_BIN_EXE_reference-server"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--bind", &format!("127.0.0.1:{port}")])
            .args(["--database-url", &self.postgres.url()])
            .args(["--redis-url", &self.redis.url()])
            .arg("--auth-file")
            .arg(self.folder.path().join("auth.json"))
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--lease-ms", &LEASE.as_millis().to_string()])
            .args(["--cancel-grace-ms", "300", "--concurrency", "32"])
            .args(["--heartbeat-ms", "500", "--enable-test-nodes"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts")
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("server-{number}.log"))
    }

    pub(crate) fn size(&self) -> usize {
        self.processes.len()
    }

    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.processes[number].port)
    }

    /// Kills a process as a crash does, and starts another in its place.
    pub(crate) fn kill(&self, number: usize) {
        let mut child = self.processes[number]
            .child
            .lock()
            .expect("no test panics in it");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        *child = self.spawn(number, self.processes[number].port);
    }

    /// Sends a process a signal.
    pub(crate) fn signal(&self, number: usize, name: &str) {
        let child = self.processes[number]
            .child
            .lock()
            .expect("no test panics in it");
        let status = Command::new("kill")
            .args(["-s", name, &child.id().to_string()])
            .status();
        assert!(status.expect("there is a kill").success());
    }

    /// Starts what has ended, as a supervisor does.
    pub(crate) fn supervise(&self) {
        for (number, process) in self.processes.iter().enumerate() {
            let mut child = process.child.lock().expect("no test panics in it");
            if child.try_wait().expect("it is ours").is_some() {
                *child = self.spawn(number, process.port);
            }
        }
    }

    /// Everything is up again.
    pub(crate) async fn heal(&self) {
        for number in 0..self.size() {
            self.signal(number, "CONT");
        }
        self.all_up().await;
    }

    async fn all_up(&self) {
        let http = reqwest::Client::new();
        let patience = Instant::now() + PATIENCE;
        for number in 0..self.size() {
            let url = format!("{}/readyz", self.url(number));
            loop {
                self.supervise();
                let answer = http.get(&url).timeout(Duration::from_secs(2)).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    break;
                }
                let log = || std::fs::read_to_string(self.log(number)).unwrap_or_default();
                assert!(
                    Instant::now() < patience,
                    "server {number} is not up:\n{}",
                    log()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (number, process) in self.processes.iter().enumerate() {
            if let Ok(mut child) = process.child.lock() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(40).collect();
                let tail: Vec<_> = tail.into_iter().rev().collect();
                eprintln!("--- server {number}\n{}", tail.join("\n"));
            }
        }
    }
}
