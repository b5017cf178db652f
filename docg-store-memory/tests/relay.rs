//! Events that did not reach the bus when they were committed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyBus},
    engine::{Engine, StartRequest, WorkerOptions},
    event::EventData,
    ids::{ExecutionId, OrganizationId, WorkflowId},
    observe::Actor,
    ports::EventBus,
    prelude::*,
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn engine(bus: Arc<dyn EventBus>, clock: Arc<dyn Clock>) -> Engine {
    Engine::builder(Arc::new(MemoryStore::default()), bus)
        .clock(clock)
        .step(compute(
            NodeSpec::new("echo", Phase::Trigger),
            |_, p: Value| async move { Ok(p) },
        ))
        .build()
}

async fn run_one(engine: &Engine, organization: OrganizationId) -> ExecutionId {
    let workflow = WorkflowId::new();
    let draft = json!({"name": "test", "nodes": [{"id": "n", "type": "echo"}]});
    let draft = serde_json::from_value(draft).expect("readable");
    engine
        .put_workflow(organization, workflow, draft, None)
        .await
        .expect("a valid definition");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let started = engine.start(request).await.expect("accepted");
    started.record.execution.id
}

/// A bus of another process's own, say: it takes subscriptions and is never told anything.
#[tokio::test(start_paused = true)]
async fn a_reader_whose_bus_stays_silent_gets_everything_from_the_store() {
    let faulty = FaultyBus::new(Arc::<MemoryBus>::default(), |call| {
        (call.operation == "publish").then_some(Fault::Before)
    });
    let engine = engine(Arc::new(faulty), Arc::new(SystemClock));
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    let id = run_one(&engine, organization).await;
    let feed = engine.feed(organization, id, 0).await.expect("a feed");
    let seqs: Vec<_> = feed
        .map(|event| event.expect("readable").seq)
        .collect()
        .await;
    assert!(seqs.len() > 5 && (1..).zip(&seqs).all(|(expected, seq)| *seq == expected));
}

#[tokio::test]
async fn what_the_bus_refused_is_published_later_and_no_reader_misses_it() {
    let bus = Arc::new(MemoryBus::default());
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let faulty = FaultyBus::new(Arc::clone(&bus) as _, move |_| {
        is_down.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let clock = Arc::new(ManualClock::new(Timestamp::now()));
    let engine = engine(Arc::new(faulty), Arc::clone(&clock) as _);
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    let id = run_one(&engine, organization).await;

    // A reader of the feed gets everything all the same: the store has it.
    let feed = engine.feed(organization, id, 0).await.expect("a feed");
    let reading = feed.map(|event| event.expect("readable").seq);
    let seqs: Vec<_> = tokio::time::timeout(PATIENCE, reading.collect())
        .await
        .expect("it ends");
    assert!(seqs.len() > 5 && (1..).zip(&seqs).all(|(expected, seq)| *seq == expected));

    down.store(false, Ordering::SeqCst);
    // Whoever reads the bus alone gets everything, once the sweeper has been there.
    let mut on_the_bus = bus.subscribe(id, 0).await.expect("subscribes");
    let sweeping = async {
        let mut last = 0;
        loop {
            clock.advance(Duration::from_secs(5));
            let next = tokio::time::timeout(Duration::from_millis(20), on_the_bus.next()).await;
            let Ok(next) = next else { continue };
            let event = next.expect("goes on").expect("is an event");
            assert_eq!(event.seq, last + 1);
            last = event.seq;
            if matches!(event.data, EventData::Completed { .. }) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, sweeping)
        .await
        .expect("it is published");
}
