//! The feed of an organization's executions, if the bus drops events or is down.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use docg_core::{
    conformance::{Fault, FaultyBus, fixtures::events_of},
    engine::OrganizationItem,
    ports::EventBus,
    prelude::*,
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};
use futures::{FutureExt, StreamExt};

use crate::world::{World, soon};

struct OverBus {
    world: World,
    bus: Arc<MemoryBus>,
    is_down: Arc<AtomicBool>,
}

impl OverBus {
    /// A bus on which a reader may be 8 events behind, and which keeps 20 events.
    fn new() -> Self {
        let bus = Arc::new(MemoryBus::new(
            BusConfig::default()
                .subscriber_buffer(8)
                .events_per_organization(20),
        ));
        let is_down = Arc::new(AtomicBool::new(false));
        let down = Arc::clone(&is_down);
        let faulty = FaultyBus::new(bus.clone(), move |_| {
            down.load(Ordering::SeqCst).then_some(Fault::Before)
        });
        let store = Arc::<MemoryStore>::default();
        Self {
            world: World::new(Engine::builder(store, Arc::new(faulty))),
            bus,
            is_down,
        }
    }

    async fn publish(&self, count: u64) {
        let events = events_of(self.world.organization, count);
        self.bus.publish(&events).await.expect("publishes");
    }
}

fn is_event(item: Option<OrganizationItem>) -> bool {
    matches!(item, Some(OrganizationItem::Event(_)))
}

#[tokio::test]
async fn a_reader_that_fell_behind_goes_on_where_it_was() {
    let it = OverBus::new();
    let mut feed = it.world.organization_feed().await;
    it.publish(1).await;
    assert!(is_event(soon(feed.next()).await));
    // Publish more events than the reader's buffer takes (8), but fewer than the bus keeps (20).
    it.publish(15).await;
    for seq in 1..=15 {
        match soon(feed.next()).await {
            Some(OrganizationItem::Event(listed)) => assert_eq!(listed.event.seq, seq),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_that_missed_events_gets_a_gap() {
    let it = OverBus::new();
    let mut feed = it.world.organization_feed().await;
    it.publish(1).await;
    soon(feed.next()).await;
    // Publish more events than the bus keeps (20).
    it.publish(40).await;
    assert_eq!(soon(feed.next()).await, Some(OrganizationItem::Gap));
    it.publish(1).await;
    assert!(is_event(soon(feed.next()).await));
    assert!(feed.next().now_or_never().is_none(), "nothing twice");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_was_down_gives_a_gap_when_it_is_back() {
    let it = OverBus::new();
    it.is_down.store(true, Ordering::SeqCst);
    let mut feed = it.world.organization_feed().await;
    it.is_down.store(false, Ordering::SeqCst);
    assert_eq!(soon(feed.next()).await, Some(OrganizationItem::Gap));
    it.publish(1).await;
    assert!(is_event(soon(feed.next()).await));
}
