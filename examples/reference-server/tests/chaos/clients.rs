//! Clients of the cluster, which continue despite errors and missing answers. They start and control
//! executions, and read their streams, at random processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{client::frame, cluster::Cluster, random::Random, site::TENANTS};

/// The time within which all executions must end after the last fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const ENDED: [&str; 3] = ["completed", "failed", "canceled"];

/// An execution and the tenant that may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) tenant: usize,
}

/// The executions and calls that the servers have accepted.
#[derive(Debug, Default)]
struct Told {
    runs: Vec<Run>,
    /// The accepted calls, by execution.
    calls: BTreeMap<Uuid, Vec<&'static str>>,
}

pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    http: Client,
    workflow: Uuid,
    told: Mutex<Told>,
}

impl World {
    pub(crate) async fn new(cluster: Arc<Cluster>) -> Self {
        let world = Self {
            cluster,
            http: Client::new(),
            workflow: Uuid::new_v4(),
            told: Mutex::default(),
        };
        let retry = json!({"max_attempts": 3, "initial_ms": 20, "max_ms": 100});
        let nodes = json!([
            {"id": "wait", "type": "test-delay", "phase": "trigger", "params": {"ms": "{{trigger.ms}}"}},
            {"id": "first", "type": "test-effect", "phase": "save", "params": {"ledger": "ledger.tsv"}},
            {"id": "flaky", "type": "test-fail", "phase": "save", "retry": retry,
                "params": {"times": 1, "code": "flaky", "retryable": true}},
            {"id": "rest", "type": "test-delay", "phase": "delivery", "params": {"ms": 30}},
            {"id": "again", "type": "test-repeatable", "phase": "delivery",
                "params": {"ledger": "ledger.tsv", "ms": 50}},
            {"id": "second", "type": "test-effect", "phase": "delivery", "params": {"ledger": "ledger.tsv"}},
        ]);
        let definition = json!({"name": "Chaos", "nodes": nodes});
        for tenant in 0..TENANTS.len() {
            let path = format!("/api/v1/workflows/{}", world.workflow);
            let request = world
                .request(0, tenant, Method::PUT, &path)
                .json(&definition);
            let answer = request.send().await.expect("all is well yet");
            assert_eq!(answer.status(), StatusCode::CREATED);
        }
        world
    }

    pub(crate) fn request(
        &self,
        server: usize,
        tenant: usize,
        method: Method,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.cluster.url(server)))
            .bearer_auth(TENANTS[tenant].0)
            .timeout(Duration::from_secs(5))
    }

    /// Gets a path from the first process that answers.
    pub(crate) async fn get(&self, tenant: usize, path: &str) -> Value {
        let patience = Instant::now() + PATIENCE;
        for server in (0..self.cluster.size()).cycle() {
            let answer = self.request(server, tenant, Method::GET, path).send().await;
            if let Ok(answer) = answer
                && answer.status().is_success()
                && let Ok(body) = answer.json().await
            {
                return body;
            }
            assert!(Instant::now() < patience, "nobody answers {path}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("the cycle does not end")
    }

    /// All events of an execution that has ended, as its stream replays them.
    pub(crate) async fn events(&self, run: Run) -> Vec<Value> {
        let path = format!("/api/v1/sse/executions/{}/stream", run.id);
        let answer = self.request(0, run.tenant, Method::GET, &path).send().await;
        let text = answer
            .expect("all is well again")
            .text()
            .await
            .expect("it ends");
        text.split("\n\n").filter_map(event).collect()
    }

    fn any_run(&self, random: &mut Random) -> Option<Run> {
        let told = self.told.lock().expect("no client panics in it");
        (!told.runs.is_empty()).then(|| told.runs[random.index(told.runs.len())])
    }

    pub(crate) fn calls(&self, run: Run) -> Vec<&'static str> {
        let told = self.told.lock().expect("no client panics in it");
        told.calls.get(&run.id).cloned().unwrap_or_default()
    }

    pub(crate) fn told(&self) -> String {
        let told = self.told.lock().expect("no client panics in it");
        let calls: usize = told.calls.values().map(Vec::len).sum();
        format!("{} runs and {calls} calls were accepted", told.runs.len())
    }

    /// Resumes paused executions, and waits until every accepted execution has ended.
    pub(crate) async fn come_to_rest(&self) -> Vec<Run> {
        let runs = self
            .told
            .lock()
            .expect("no client panics in it")
            .runs
            .clone();
        let patience = Instant::now() + PATIENCE;
        let mut waiting = runs.clone();
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for run in waiting {
                let state = self
                    .get(run.tenant, &format!("/api/v1/executions/{}", run.id))
                    .await;
                let status = state["status"].as_str().expect("a status");
                if ENDED.contains(&status) {
                    continue;
                }
                assert!(Instant::now() < patience, "it is stuck: {state}");
                if status == "paused" {
                    let path = format!("/api/v1/executions/{}/resume", run.id);
                    // A pause that was sent before may be applied after this resume; the loop then resumes
                    // again.
                    let _ = self
                        .request(0, run.tenant, Method::POST, &path)
                        .send()
                        .await;
                }
                still.push(run);
            }
            waiting = still;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        runs
    }
}

/// The envelope in an SSE block, if the block is an event.
fn event(block: &str) -> Option<Value> {
    frame(block).map(|(_, _, event)| event)
}

/// Starts executions. Each start is retried until a process accepts it.
pub(crate) async fn start_runs(world: Arc<World>, mut random: Random, end: CancellationToken) {
    while !end.is_cancelled() {
        let tenant = random.index(TENANTS.len());
        let path = format!("/api/v1/workflows/{}/executions", world.workflow);
        let key = Uuid::new_v4().to_string();
        let body = json!({"trigger_data": {"ms": random.below(100)}});
        loop {
            let server = random.index(world.cluster.size());
            let request = world.request(server, tenant, Method::POST, &path);
            let answer = request
                .header("Idempotency-Key", &key)
                .json(&body)
                .send()
                .await;
            if let Ok(answer) = answer
                && answer.status().is_success()
                && let Ok(execution) = answer.json::<Value>().await
            {
                let id = execution["id"].as_str().and_then(|id| id.parse().ok());
                let run = Run {
                    id: id.expect("an id"),
                    tenant,
                };
                world
                    .told
                    .lock()
                    .expect("no client panics in it")
                    .runs
                    .push(run);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            if end.is_cancelled() {
                // No process has answered, so it is unknown whether the start was accepted.
                return;
            }
        }
        tokio::time::sleep(random.millis(60)).await;
    }
}

/// Pauses, resumes and cancels executions, and notes the accepted calls.
pub(crate) async fn control_runs(world: Arc<World>, mut random: Random, end: CancellationToken) {
    while !end.is_cancelled() {
        tokio::time::sleep(random.millis(100)).await;
        let Some(run) = world.any_run(&mut random) else {
            continue;
        };
        let call = ["pause", "resume", "resume", "cancel"][random.index(4)];
        let path = format!("/api/v1/executions/{}/{call}", run.id);
        let server = random.index(world.cluster.size());
        let request = world.request(server, run.tenant, Method::POST, &path);
        if let Ok(answer) = request.send().await
            && answer.status().is_success()
        {
            let mut told = world.told.lock().expect("no client panics in it");
            told.calls.entry(run.id).or_default().push(call);
        }
    }
}

/// An execution, and the sequence numbers of its events in the order in which a reader saw them.
pub(crate) type Read = (Run, Vec<u64>);

/// The number of executions that are read at once: as many as a slow machine can bear during the faults.
const READERS: usize = 100;

/// The tasks that read executions, and the limit of their number.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Mutex<JoinSet<Read>>>, Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::default(), Arc::new(Semaphore::new(READERS)))
    }
}

impl Readers {
    /// Waits until all readers have reached the end of their streams.
    pub(crate) async fn finish(self) -> Vec<Read> {
        let tasks = std::mem::take(&mut *self.0.lock().expect("no client panics in it"));
        tokio::time::timeout(PATIENCE, tasks.join_all())
            .await
            .expect("every stream ends with its run")
    }
}

/// Starts readers of random executions until `end` is canceled.
pub(crate) async fn read_runs(
    world: Arc<World>,
    readers: Readers,
    mut random: Random,
    end: CancellationToken,
) {
    while !end.is_cancelled() {
        tokio::time::sleep(random.millis(200)).await;
        if let Some(run) = world.any_run(&mut random)
            && let Ok(place) = Arc::clone(&readers.1).try_acquire_owned()
        {
            let (world, random) = (Arc::clone(&world), random.fork());
            let reading = async move {
                let read = read(world, run, random).await;
                drop(place);
                read
            };
            readers
                .0
                .lock()
                .expect("no client panics in it")
                .spawn(reading);
        }
    }
}

/// Reads one execution to its end, as an EventSource does: after every break it reconnects with the last id,
/// at a random process. It also disconnects at random times.
async fn read(world: Arc<World>, run: Run, mut random: Random) -> Read {
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let server = random.index(world.cluster.size());
        let path = format!("/api/v1/sse/executions/{}/stream", run.id);
        let request = world.request(server, run.tenant, Method::GET, &path);
        let last = format!("{}-0", seen.last().copied().unwrap_or(0));
        let request = request
            .header("Last-Event-ID", last)
            .timeout(Duration::from_millis(200) + random.millis(3_000));
        if let Ok(answer) = request.send().await {
            if answer.status() == StatusCode::NO_CONTENT {
                return (run, seen);
            }
            let mut text = String::new();
            let mut body = answer.bytes_stream();
            while let Some(Ok(bytes)) = body.next().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((block, rest)) = text.split_once("\n\n") {
                    assert!(!block.contains("event: gap"), "nothing was purged: {block}");
                    seen.extend(event(block).and_then(|event| event["seq"].as_u64()));
                    text = rest.to_owned();
                }
            }
        }
        tokio::time::sleep(random.millis(100)).await;
    }
}
