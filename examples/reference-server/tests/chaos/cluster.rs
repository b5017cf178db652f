//! The cluster under test: three server processes, a database and a Redis. Each can be broken and repaired.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use docg_test_servers::{ports, postgres, redis};

use crate::{program::Running, site::Site};

/// The duration of the workers' leases. It is short, so that takeovers happen within the test.
pub(crate) const LEASE: Duration = Duration::from_millis(1_500);
/// A time limit that even a slow machine meets.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) postgres: postgres::PrivateServer,
    pub(crate) redis: redis::PrivateServer,
    site: Site,
    processes: Vec<Process>,
}

struct Process {
    port: u16,
    running: Mutex<Running>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let (postgres, redis) = (
            postgres::PrivateServer::start().await,
            redis::PrivateServer::start(),
        );
        let lease = LEASE.as_millis().to_string();
        let arguments = [
            "--lease-ms",
            &lease,
            "--cancel-grace-ms",
            "300",
            "--concurrency",
            "32",
            "--heartbeat-ms",
            "500",
            "--enable-test-nodes",
        ];
        let site = Site::new(&postgres.url(), Some(&redis.url()), &arguments);
        let mut cluster = Self {
            postgres,
            redis,
            site,
            processes: Vec::new(),
        };
        for number in 0..3 {
            let port = ports::reserve();
            let running = Mutex::new(cluster.spawn(number, port));
            cluster.processes.push(Process { port, running });
        }
        cluster.all_up().await;
        cluster
    }

    fn spawn(&self, number: usize, port: u16) -> Running {
        let bind = format!("127.0.0.1:{port}");
        self.site
            .spawn(&format!("server-{number}"), &["--bind", &bind])
    }

    /// The effects that happened, each as the ids of its execution and node.
    pub(crate) fn ledger(&self) -> Vec<(String, String)> {
        self.site.ledger()
    }

    pub(crate) fn size(&self) -> usize {
        self.processes.len()
    }

    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.processes[number].port)
    }

    /// Kills a server process without a warning, like a crash, and starts another one in its place.
    pub(crate) fn kill(&self, number: usize) {
        let process = &self.processes[number];
        let mut running = process.running.lock().expect("no test panics in it");
        running.kill();
        *running = self.spawn(number, process.port);
    }

    /// Sends a signal to a server process.
    pub(crate) fn signal(&self, number: usize, name: &str) {
        let running = self.processes[number].running.lock();
        running.expect("no test panics in it").signal(name);
    }

    /// Restarts server processes that have ended, as a supervisor does.
    pub(crate) fn supervise(&self) {
        for (number, process) in self.processes.iter().enumerate() {
            let mut running = process.running.lock().expect("no test panics in it");
            if running.has_ended().is_some() {
                *running = self.spawn(number, process.port);
            }
        }
    }

    /// Resumes all suspended server processes, and waits until every process is ready.
    pub(crate) async fn heal(&self) {
        for number in 0..self.size() {
            self.signal(number, "CONT");
        }
        self.all_up().await;
    }

    /// The last lines of a server process's log.
    fn last_words(&self, number: usize) -> String {
        let running = self.processes[number].running.lock();
        let log = running.expect("no test panics in it").log();
        let skipped = log.lines().count().saturating_sub(20);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
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
                assert!(
                    Instant::now() < patience,
                    "server {number} is not up: {}",
                    self.last_words(number)
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
