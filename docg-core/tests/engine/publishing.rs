//! Processes die, time out and overtake one another between a commit and the publishing of its events. The
//! next process that publishes first publishes the missing events. An organization's feed reads only the bus,
//! and so still brings every event once and in order. The sweeper finds events that were left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyBus},
    engine::{OrganizationFeed, OrganizationItem, Resume},
    event::{Event, EventData},
    ports::{EventBus, ExecutionReader, ExecutionStore},
    prelude::*,
    query::EventQuery,
    time::{ManualClock, Timestamp},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::world::{World, echo, settle, soon};

/// Processes on one store and one bus. The clock stands still until the test moves it, so that the sweeper
/// does nothing before.
struct Installation {
    store: Arc<MemoryStore>,
    bus: Arc<MemoryBus>,
    clock: ManualClock,
    organization: OrganizationId,
}

impl Installation {
    fn new(bus: BusConfig) -> Self {
        Self {
            store: Arc::default(),
            bus: Arc::new(MemoryBus::new(bus)),
            clock: ManualClock::new(Timestamp::now()),
            organization: OrganizationId::new(),
        }
    }

    fn process(&self, bus: Arc<dyn EventBus>) -> World {
        let builder = Engine::builder(self.store.clone(), bus)
            .clock(Arc::new(self.clock.clone()))
            .step(echo(NodeSpec::new("echo", Phase::Trigger)));
        World::of(self.organization, builder)
    }

    fn healthy(&self) -> World {
        self.process(self.bus.clone())
    }

    /// A process whose calls to publish fail as the closure says. The closure gets the call's number, from 1.
    fn faulty(&self, plan: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) -> World {
        let published = AtomicU64::new(0);
        let bus = FaultyBus::new(self.bus.clone(), move |call| {
            (call.operation == "publish")
                .then(|| published.fetch_add(1, Ordering::SeqCst) + 1)
                .and_then(&plan)
        });
        self.process(Arc::new(bus))
    }

    /// A process that publishes nothing: to other processes it seems to die after each commit.
    fn dies(&self) -> World {
        self.faulty(|_| Some(Fault::Before))
    }

    async fn stored(&self, execution_id: ExecutionId) -> Vec<Arc<Event>> {
        let query = EventQuery::of(self.organization, execution_id).limit(1_000);
        self.store.events(query).await.expect("reads")
    }

    /// Checks that the feed brings every stored event for lists until the execution completes, and that the
    /// bus has all events for later readers.
    async fn assert_told(&self, mut feed: OrganizationFeed, id: ExecutionId) {
        let mut told = Vec::new();
        while !told
            .last()
            .is_some_and(|event: &Arc<Event>| matches!(event.data, EventData::Completed { .. }))
        {
            match soon(feed.next()).await.expect("goes on") {
                OrganizationItem::Event(listed) => told.push(listed.event),
                OrganizationItem::Gap => panic!("after {told:?}"),
            }
        }
        let stored = self.stored(id).await;
        let for_lists = stored.iter().filter(|event| event.data.is_for_lists());
        assert_eq!(told, for_lists.cloned().collect::<Vec<_>>());
        self.assert_has(id, &stored).await;
    }

    async fn assert_has(&self, id: ExecutionId, stored: &[Arc<Event>]) {
        let on_the_bus = self.bus.subscribe(id, 0).await.expect("subscribes");
        let replay = on_the_bus
            .take(stored.len())
            .map(|event| event.expect("is an event"));
        assert_eq!(soon(replay.collect::<Vec<_>>()).await, stored);
    }

    /// The number of executions with events that the store does not know to be published.
    async fn left(&self) -> usize {
        let end = Timestamp::from_millis(i64::MAX / 2);
        let left = self.store.unpublished(end, None, 1_000).await;
        left.expect("reads").len()
    }

    /// Advances the clock by a second, and lets every task do the work that is due then.
    async fn tick(&self) {
        self.clock.advance(Duration::from_secs(1));
        settle().await;
    }

    /// True if all events are published within so many seconds.
    async fn is_published_within(&self, seconds: usize) -> bool {
        for _ in 0..seconds {
            self.tick().await;
            if self.left().await == 0 {
                return true;
            }
        }
        false
    }
}

fn nodes() -> Value {
    json!([{"id": "n", "type": "echo"}])
}

async fn pause(world: &World, id: ExecutionId) {
    let paused = world.engine.pause(world.control(id), None).await;
    paused.expect("paused");
}

async fn resume(world: &World, id: ExecutionId) {
    let resumed = world.engine.resume(world.control(id), Resume::default());
    resumed.await.expect("goes on");
}

#[tokio::test]
async fn events_of_a_dead_process_are_published_before_later_events() {
    let installation = Installation::new(BusConfig::default());
    let (dies, lives) = (installation.dies(), installation.healthy());
    let feed = lives.organization_feed().await;
    let id = lives.start(nodes()).await;
    pause(&dies, id).await;
    let unpublished = installation.stored(id).await;
    assert!(unpublished.len() > 1);
    let _workers = lives.workers();
    resume(&lives, id).await;
    installation.assert_told(feed, id).await;
}

/// Tokio's time is stopped, so that a feed whose bus is silent reads the store at once.
#[tokio::test(start_paused = true)]
async fn a_publish_brings_the_events_of_one_that_failed_or_whose_answer_was_lost() {
    for fault in [Fault::Before, Fault::After] {
        for failing in 1..=4 {
            let installation = Installation::new(BusConfig::default());
            let world = installation.faulty(move |number| (number == failing).then_some(fault));
            let feed = world.organization_feed().await;
            let id = world.start(nodes()).await;
            let workers = world.workers();
            world.until_completed(id).await;
            // If the last publish of the execution failed, the sweeper publishes its events.
            assert!(installation.is_published_within(12).await);
            installation.assert_told(feed, id).await;
            workers.shutdown().await;
        }
    }
}

#[tokio::test]
async fn an_execution_that_is_published_late_is_published_from_its_first_event() {
    let installation = Installation::new(BusConfig::default());
    let (accepts, works) = (installation.dies(), installation.healthy());
    let feed = works.organization_feed().await;
    let id = accepts.start(nodes()).await;
    let _workers = works.workers();
    installation.assert_told(feed, id).await;
    // The first process was only slow: it now publishes its event, which the bus already has.
    let first = installation.stored(id).await.remove(0);
    installation.bus.publish(&[first]).await.expect("is known");
    let stored = installation.stored(id).await;
    installation.assert_has(id, &stored).await;
}

#[tokio::test]
async fn a_bus_that_forgot_an_execution_gets_its_events_back_and_feeds_bring_none_twice() {
    let installation = Installation::new(BusConfig::default().max_executions(1));
    let world = installation.healthy();
    let feed = world.organization_feed().await;
    let id = world.start(nodes()).await;
    pause(&world, id).await;
    let elsewhere = world.elsewhere();
    for _ in 0..3 {
        elsewhere.start(nodes()).await;
    }
    resume(&world, id).await;
    let stored = installation.stored(id).await;
    installation.assert_has(id, &stored).await;
    let for_lists: Vec<_> = stored
        .into_iter()
        .filter(|event| event.data.is_for_lists())
        .collect();
    let told = feed.take(for_lists.len()).map(|item| match item {
        OrganizationItem::Event(listed) => listed.event,
        OrganizationItem::Gap => panic!("nothing is missing"),
    });
    assert_eq!(soon(told.collect::<Vec<_>>()).await, for_lists);
}

/// Many executions have unpublished events, and the bus refuses those of one execution. The other executions
/// are published in the same sweep.
#[tokio::test]
async fn one_sweep_publishes_everything_except_what_the_bus_refuses() {
    let installation = Installation::new(BusConfig::default());
    let dies = installation.dies();
    for _ in 0..250 {
        dies.start(nodes()).await;
    }
    let sweeps = installation.faulty(|number| (number == 7).then_some(Fault::Before));
    let _workers = sweeps.workers_with(WorkerOptions::concurrency(0));
    while installation.left().await == 250 {
        installation.tick().await;
    }
    assert_eq!(installation.left().await, 1);
    assert!(
        installation.is_published_within(6).await,
        "it is tried again soon"
    );
}

/// After a sweep that found events, the next sweep follows within seconds, even if the sweeper's own process
/// commits nothing.
#[tokio::test]
async fn a_sweeper_that_found_events_does_not_wait_a_minute_for_its_next_sweep() {
    let installation = Installation::new(BusConfig::default());
    let (dies, idle) = (installation.dies(), installation.healthy());
    let _workers = idle.workers_with(WorkerOptions::concurrency(0));
    dies.start(nodes()).await;
    assert!(installation.is_published_within(66).await);
    dies.start(nodes()).await;
    assert!(installation.is_published_within(11).await, "it looks again");
}

/// If the bus refuses everything, the sweep ends after a few executions instead of trying all.
#[tokio::test]
async fn a_bus_that_is_down_ends_a_sweep() {
    let installation = Installation::new(BusConfig::default());
    let dies = installation.dies();
    for _ in 0..100 {
        dies.start(nodes()).await;
    }
    let down = Arc::new(AtomicBool::new(true));
    let (is_down, asked) = (Arc::clone(&down), Arc::new(AtomicU64::new(0)));
    let asks = Arc::clone(&asked);
    let sweeps = installation.faulty(move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        is_down.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let _workers = sweeps.workers_with(WorkerOptions::concurrency(0));
    while asked.load(Ordering::SeqCst) == 0 {
        installation.tick().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    down.store(false, Ordering::SeqCst);
    // The next sweep goes on where the last one stopped, and then starts over from the first execution.
    assert!(installation.is_published_within(12).await);
}
