//! An execution runs in one process and is read in another, while Redis is killed, hangs, is emptied and
//! cuts connections. The execution continues, and its readers get every event once and in order.

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, config, open, publish, raw, soon};
use docg_core::{
    engine::{EventFeed, StartRequest, WorkerOptions},
    event::{Event, EventData},
    observe::Actor,
    ports::{EventBus, ExecutionReader},
    prelude::*,
    query::EventQuery,
};
use docg_store_memory::MemoryStore;
use docg_test_servers::redis::PrivateServer;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

const STEPS: usize = 6;

/// The engine of a process on the shared store. Each step reports to `runs` that it runs, and then waits
/// for a permit of the gate.
async fn process(
    store: &Arc<MemoryStore>,
    server: &PrivateServer,
    runs: &mpsc::UnboundedSender<()>,
    gate: &Arc<Semaphore>,
) -> Engine {
    let timeout = Duration::from_millis(300);
    let bus = open(config(&server.url()).timeout(timeout).block(timeout)).await;
    let (runs, gate) = (runs.clone(), Arc::clone(gate));
    let step = move |_: EffectContext, _: Value| {
        let (runs, gate) = (runs.clone(), Arc::clone(&gate));
        async move {
            // The receiver lives as long as the test.
            let _ = runs.send(());
            gate.acquire().await.expect("stays open").forget();
            StepOutcome::done(json!({}))
        }
    };
    let spec = NodeSpec::new("gated", Phase::Save).safe_to_repeat();
    Engine::builder(store.clone(), bus)
        .step(effect(spec, step))
        .build()
}

/// Starts an execution of gated steps, and returns its id.
async fn start(engine: &Engine, organization: OrganizationId) -> ExecutionId {
    let workflow = WorkflowId::new();
    let nodes: Vec<_> = (0..STEPS)
        .map(|index| json!({"id": format!("step{index}"), "type": "gated", "params": {}}))
        .collect();
    let draft = serde_json::from_value(json!({"name": "gated", "nodes": nodes}));
    engine
        .put_workflow(organization, workflow, draft.expect("is a draft"), None)
        .await
        .expect("is a workflow");
    let request = StartRequest::new(organization, workflow, Actor::user("test"));
    let run = engine.start(request).await.expect("starts");
    run.record.execution.id
}

async fn read(mut feed: EventFeed) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Some(event) = feed.next().await {
        seqs.push(event.expect("the store is well").seq);
    }
    seqs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_and_its_readers_miss_and_repeat_nothing() {
    let server = PrivateServer::start();
    let store = Arc::new(MemoryStore::default());
    let (sender, mut runs) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let works = process(&store, &server, &sender, &gate).await;
    let reads = process(&store, &server, &sender, &gate).await;
    let organization = OrganizationId::new();
    let _workers = works
        .start_workers(WorkerOptions::concurrency(4))
        .expect("no other workers run");
    let id = start(&works, organization).await;
    let feed = async || reads.feed(organization, id, 0).await.expect("is there");
    let mut readers = vec![tokio::spawn(read(feed().await))];
    for fault in 0..STEPS {
        soon(runs.recv()).await.expect("it runs");
        // During each fault of Redis, one more reader begins to read.
        match fault {
            0 => gate.add_permits(1),
            1 => {
                server.kill();
                readers.push(tokio::spawn(read(feed().await)));
                gate.add_permits(1);
                // The execution continues without Redis. Only then is Redis started again.
                soon(runs.recv()).await.expect("it goes on");
                server.start_again();
                sender.send(()).expect("is open");
            }
            2 => {
                server.pause();
                readers.push(tokio::spawn(read(feed().await)));
                gate.add_permits(1);
                soon(runs.recv()).await.expect("it goes on");
                server.resume();
                sender.send(()).expect("is open");
            }
            3 => {
                let _: String = ask(&mut raw(&server.url()).await, "FLUSHALL").await;
                readers.push(tokio::spawn(read(feed().await)));
                gate.add_permits(1);
            }
            4 => {
                let kill = "CLIENT KILL TYPE normal SKIPME yes";
                let _: u64 = ask(&mut raw(&server.url()).await, kill).await;
                readers.push(tokio::spawn(read(feed().await)));
                gate.add_permits(1);
            }
            _ => gate.add_permits(1),
        }
    }
    let mut all = Vec::new();
    for reader in readers {
        // Allow time: events that the bus did not take are published again after some seconds.
        let read = tokio::time::timeout(Duration::from_secs(60), reader);
        all.push(read.await.expect("ends in time").expect("does not panic"));
    }
    let last = all[0].len() as u64;
    assert!(last > 2 * STEPS as u64, "{last}");
    for seqs in all {
        assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    }
    // Redis was emptied in the middle. It must get all events of the execution again.
    let mut connection = raw(&server.url()).await;
    let expected: Vec<_> = (1..=last).map(|seq| format!("{seq}-0")).collect();
    let filled = async {
        loop {
            let range = format!("XRANGE docg:exec:{id} - +");
            let entries: Vec<(String, Vec<String>)> = ask(&mut connection, &range).await;
            let ids: Vec<_> = entries.into_iter().map(|(id, _)| id).collect();
            assert!(
                expected.ends_with(&ids) || expected.starts_with(&ids),
                "{ids:?}"
            );
            if ids == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let filled = tokio::time::timeout(Duration::from_secs(60), filled).await;
    filled.expect("nothing is missing");
}

/// Redis is emptied, as after a failover to a replica that was behind. The list events that Redis lost
/// are published again, and readers of the list get them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_took_from_a_run_lists_are_told_again() {
    let server = PrivateServer::start();
    let store = Arc::new(MemoryStore::default());
    let (sender, mut runs) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let works = process(&store, &server, &sender, &gate).await;
    let bus = open(config(&server.url()).block(Duration::from_millis(300))).await;
    let organization = OrganizationId::new();
    let mut before = loop {
        soon(bus.ready()).await;
        if let Ok(list) = bus.subscribe_organization(organization, None).await {
            break list;
        }
    };
    let _workers = works
        .start_workers(WorkerOptions::concurrency(4))
        .expect("no other workers run");
    let id = start(&works, organization).await;
    soon(runs.recv()).await.expect("it runs");
    let stored = async || {
        let query = EventQuery::of(organization, id).limit(1_000);
        store.events(query).await.expect("reads")
    };
    // Wait until the store has the events that were committed when the running step began.
    let started = async {
        loop {
            let stored = stored().await;
            let is_started =
                |event: &Arc<Event>| matches!(event.data, EventData::StepStarted { .. });
            if stored.iter().any(is_started) {
                break stored;
            }
            tokio::task::yield_now().await;
        }
    };
    let there = soon(started).await;
    let listed = there.iter().rfind(|event| event.data.is_for_lists());
    let published = listed.expect("it was created").seq;
    loop {
        let event = soon(before.next()).await.expect("goes on");
        if event.expect("is an event").event.seq == published {
            break;
        }
    }
    let _: String = ask(&mut raw(&server.url()).await, "FLUSHALL").await;
    // A list that was open during the flush ends with an error, and its reader has to open a new one.
    while soon(before.next()).await.is_some_and(|event| event.is_ok()) {}
    let mut list = loop {
        soon(bus.ready()).await;
        publish(&bus, &stored().await[..2]).await;
        if let Ok(list) = bus.subscribe_organization(organization, None).await {
            break list;
        }
    };
    gate.add_permits(STEPS);
    let mut told = Vec::new();
    loop {
        let event = soon(list.next()).await.expect("goes on");
        let event = event.expect("is an event").event;
        told.push(event.seq);
        if matches!(event.data, EventData::Completed { .. }) {
            break;
        }
    }
    let stored = stored().await;
    let lost = stored[2..].iter().filter(|event| event.data.is_for_lists());
    assert_eq!(told, lost.map(|event| event.seq).collect::<Vec<_>>());
}
