//! Readers of organization streams, which reconnect at random as an EventSource does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use tokio::{sync::Barrier, task::JoinSet};
use uuid::Uuid;

use crate::{
    client::frame,
    clients::{PATIENCE, Run, World},
    random::Random,
    site::TENANTS,
};

/// The number of readers of each tenant's stream.
const EACH: usize = 3;

/// The types of events in organization streams.
const LISTED: [&str; 6] = [
    "execution.created",
    "execution.status_changed",
    "execution.progress",
    "execution.completed",
    "execution.failed",
    "execution.canceled",
];

/// The sequence numbers of the events that belong in organization streams.
pub(crate) fn listed(events: &[Value]) -> Vec<u64> {
    let is_listed = |event: &&Value| LISTED.iter().any(|it| event["event_type"] == *it);
    let seq = |event: &Value| event["seq"].as_u64().expect("a number");
    events.iter().filter(is_listed).map(seq).collect()
}

/// The events that a reader received between two gaps: their sequence numbers by execution.
type Stretch = BTreeMap<Uuid, Vec<u64>>;

/// The events that one reader received.
struct Seen {
    tenant: usize,
    /// The events between gaps. The first stretch begins before any execution is started.
    stretches: Vec<Stretch>,
    last_id: Option<String>,
}

impl Seen {
    fn gap(&mut self) {
        self.stretches.push(Stretch::new());
    }

    fn stretch(&mut self) -> &mut Stretch {
        self.stretches.last_mut().expect("there is always one")
    }

    fn frame(&mut self, block: &str) {
        if block.contains("event: gap") {
            self.gap();
        } else if let Some((id, _, event)) = frame(block) {
            let execution = event["execution_id"]
                .as_str()
                .and_then(|id| id.parse().ok());
            let seq = event["seq"].as_u64().expect("a number");
            let of_one = self.stretch().entry(execution.expect("an id"));
            of_one.or_default().push(seq);
            self.last_id = Some(id);
        }
    }

    /// True if the reader has seen the end of an execution, or a gap may have hidden the end.
    fn is_through(&self, run: Run, listed: &[u64]) -> bool {
        let last = self.stretches.last().and_then(|it| it.get(&run.id));
        match last {
            Some(seen) => seen.last() == listed.last(),
            None => self.stretches.len() > 1,
        }
    }

    /// Asserts that within a stretch no event of an execution is missing, repeated or out of order. The first
    /// stretch must not lack its first event, nor the last stretch its last event.
    fn check(&self, run: Run, listed: &[u64]) {
        let last = self.stretches.len() - 1;
        for (index, stretch) in self.stretches.iter().enumerate() {
            let Some(seen) = stretch.get(&run.id) else {
                assert!(last > 0, "{run:?} is not in the list, and no gap was told");
                continue;
            };
            let beginning = listed.iter().position(|seq| Some(seq) == seen.first());
            let told = &listed[beginning.expect("it is one of the run's")..];
            assert!(told.starts_with(seen), "{run:?}: {seen:?} of {listed:?}");
            assert!(
                index > 0 || beginning == Some(0),
                "{run:?}: {seen:?} of {listed:?}"
            );
            assert!(
                index < last || told == seen,
                "{run:?}: {seen:?} of {listed:?}"
            );
        }
    }
}

/// The readers of all organization streams.
pub(crate) struct Lists {
    seen: Vec<Arc<Mutex<Seen>>>,
    tasks: JoinSet<()>,
}

impl Lists {
    /// Starts the readers, and returns once all of them are connected.
    pub(crate) async fn read(world: &Arc<World>, random: &mut Random) -> Self {
        let reads = Arc::new(Barrier::new(TENANTS.len() * EACH + 1));
        let mut lists = Self {
            seen: Vec::new(),
            tasks: JoinSet::new(),
        };
        for tenant in (0..TENANTS.len()).flat_map(|tenant| [tenant; EACH]) {
            let seen = Arc::new(Mutex::new(Seen {
                tenant,
                stretches: vec![Stretch::new()],
                last_id: None,
            }));
            lists.seen.push(Arc::clone(&seen));
            let (world, reads) = (Arc::clone(world), Arc::clone(&reads));
            lists.tasks.spawn(read(world, seen, random.fork(), reads));
        }
        reads.wait().await;
        lists
    }

    /// Waits until all readers have seen the ends of the executions, and checks the events that they
    /// received. Returns the number of gaps.
    pub(crate) async fn check(self, runs: &[(Run, Vec<u64>)]) -> usize {
        let patience = Instant::now() + PATIENCE;
        let mut gaps = 0;
        for seen in &self.seen {
            let tenant = seen.lock().expect("no reader panics in it").tenant;
            let runs = runs.iter().filter(|(run, _)| run.tenant == tenant);
            let is_through = || {
                let seen = seen.lock().expect("no reader panics in it");
                runs.clone()
                    .all(|(run, listed)| seen.is_through(*run, listed))
            };
            while !is_through() && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let seen = seen.lock().expect("no reader panics in it");
            runs.clone()
                .for_each(|(run, listed)| seen.check(*run, listed));
            gaps += seen.stretches.len() - 1;
        }
        gaps
    }

    pub(crate) fn readers(&self) -> usize {
        self.seen.len()
    }
}

/// Reads an organization stream at random processes until the task is dropped. Disconnects at random times.
async fn read(world: Arc<World>, seen: Arc<Mutex<Seen>>, mut random: Random, reads: Arc<Barrier>) {
    let tenant = seen.lock().expect("no reader panics in it").tenant;
    let mut is_first = true;
    loop {
        let server = random.index(world.cluster.size());
        let path = "/api/v1/sse/executions/stream";
        let mut request = world.request(server, tenant, Method::GET, path);
        let last_id = seen.lock().expect("no reader panics in it").last_id.clone();
        match last_id {
            Some(id) => request = request.header("Last-Event-ID", id),
            // Without an id, the stream starts at the present, so the reader may have missed events.
            None if !is_first => seen.lock().expect("no reader panics in it").gap(),
            None => {}
        }
        let request = request.timeout(Duration::from_millis(200) + random.millis(3_000));
        if let Ok(answer) = request.send().await
            && answer.status().is_success()
        {
            if std::mem::take(&mut is_first) {
                reads.wait().await;
            }
            let mut text = String::new();
            let mut body = answer.bytes_stream();
            while let Some(Ok(bytes)) = body.next().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((block, rest)) = text.split_once("\n\n") {
                    seen.lock().expect("no reader panics in it").frame(block);
                    text = rest.to_owned();
                }
            }
        }
        tokio::time::sleep(random.millis(100)).await;
    }
}
