//! Events that did not reach the bus after their commit: readers get them from the store, and the sweeper
//! publishes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyBus},
    engine::EngineBuilder,
    event::EventData,
    ports::EventBus,
    prelude::*,
    time::{ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::json;

use crate::world::{World, echo, soon};

fn on(bus: FaultyBus) -> EngineBuilder {
    Engine::builder(Arc::<MemoryStore>::default(), Arc::new(bus))
        .step(echo(NodeSpec::new("echo", Phase::Trigger)))
}

async fn start(world: &World) -> ExecutionId {
    world.start(json!([{"id": "n", "type": "echo"}])).await
}

/// Reads the feed of an execution to its end, and fails if an event is missing.
async fn assert_feed_is_whole(world: &World, id: ExecutionId) {
    let feed = world.engine.feed(world.organization, id, 0).await;
    let seqs = feed.expect("a feed").map(|it| it.expect("readable").seq);
    let seqs: Vec<_> = soon(seqs.collect()).await;
    assert!(seqs.len() > 5 && (1..).zip(&seqs).all(|(expected, seq)| *seq == expected));
}

/// The reader's bus accepts subscriptions but brings no event. A `MemoryBus` does so if another process runs
/// the execution.
#[tokio::test(start_paused = true)]
async fn a_reader_whose_bus_stays_silent_gets_everything_from_the_store() {
    let silent = FaultyBus::new(Arc::<MemoryBus>::default(), |call| {
        (call.operation == "publish").then_some(Fault::Before)
    });
    let world = World::new(on(silent));
    let _workers = world.workers();
    let id = start(&world).await;
    assert_feed_is_whole(&world, id).await;
}

#[tokio::test]
async fn events_that_the_bus_refused_are_published_later_and_no_reader_misses_one() {
    let bus = Arc::new(MemoryBus::default());
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let faulty = FaultyBus::new(bus.clone(), move |_| {
        is_down.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let clock = ManualClock::new(Timestamp::now());
    let world = World::new(on(faulty).clock(Arc::new(clock.clone())));
    let _workers = world.workers();
    let id = start(&world).await;

    // While the bus is down, the feed reads from the store.
    assert_feed_is_whole(&world, id).await;

    down.store(false, Ordering::SeqCst);
    // A reader of the bus alone gets everything once the sweeper has published it.
    let mut on_the_bus = bus.subscribe(id, 0).await.expect("subscribes");
    soon(async {
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
    })
    .await;
}
