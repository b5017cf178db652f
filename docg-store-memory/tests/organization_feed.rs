//! The list feed where the bus fails it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyBus, fixtures::events_of},
    engine::{Engine, OrganizationItem},
    ids::OrganizationId,
    ports::EventBus,
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};
use futures::{FutureExt, StreamExt};

struct World {
    engine: Engine,
    bus: Arc<MemoryBus>,
    is_down: Arc<AtomicBool>,
    organization: OrganizationId,
}

impl World {
    /// A reader may be eight events behind.
    fn new() -> Self {
        let bus = Arc::new(MemoryBus::new(
            BusConfig::default()
                .subscriber_buffer(8)
                .events_per_organization(20),
        ));
        let is_down = Arc::new(AtomicBool::new(false));
        let down = Arc::clone(&is_down);
        let faulty = FaultyBus::new(Arc::clone(&bus) as _, move |_| {
            down.load(Ordering::SeqCst).then_some(Fault::Before)
        });
        Self {
            engine: Engine::builder(Arc::new(MemoryStore::default()), Arc::new(faulty)).build(),
            bus,
            is_down,
            organization: OrganizationId::new(),
        }
    }

    async fn publish(&self, count: u64) {
        let events = events_of(self.organization, count);
        self.bus.publish(&events).await.expect("publishes");
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it comes")
}

#[tokio::test]
async fn a_reader_that_fell_behind_goes_on_where_it_was() {
    let world = World::new();
    let mut feed = world
        .engine
        .organization_feed(world.organization, None)
        .await;
    world.publish(1).await;
    assert!(matches!(
        soon(feed.next()).await,
        Some(OrganizationItem::Event(_))
    ));
    // More than its buffer takes, and less than the bus keeps.
    world.publish(15).await;
    for seq in 1..=15 {
        match soon(feed.next()).await {
            Some(OrganizationItem::Event(listed)) => assert_eq!(listed.event.seq, seq),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_that_missed_something_is_told() {
    let world = World::new();
    let mut feed = world
        .engine
        .organization_feed(world.organization, None)
        .await;
    world.publish(1).await;
    soon(feed.next()).await;
    // More than the bus keeps.
    world.publish(40).await;
    assert_eq!(soon(feed.next()).await, Some(OrganizationItem::Gap));
    world.publish(1).await;
    assert!(matches!(
        soon(feed.next()).await,
        Some(OrganizationItem::Event(_))
    ));
    assert!(feed.next().now_or_never().is_none(), "nothing twice");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_was_down_gives_a_gap_when_it_is_back() {
    let world = World::new();
    world.is_down.store(true, Ordering::SeqCst);
    let mut feed = world
        .engine
        .organization_feed(world.organization, None)
        .await;
    world.is_down.store(false, Ordering::SeqCst);
    assert_eq!(soon(feed.next()).await, Some(OrganizationItem::Gap));
    world.publish(1).await;
    assert!(matches!(
        soon(feed.next()).await,
        Some(OrganizationItem::Event(_))
    ));
}
