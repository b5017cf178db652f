//! Processes die, time out and overtake one another between a commit and its publishing. Whoever
//! publishes next brings what is missing first, so lists, which know nothing but the bus, get every
//! event once and in order; and what is left behind is found by the sweeper.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyBus},
    engine::{
        ControlRequest, Engine, OrganizationFeed, OrganizationItem, Resume, StartRequest,
        WorkerOptions,
    },
    event::{Event, EventData},
    ids::{ExecutionId, OrganizationId, WorkflowId},
    observe::Actor,
    ports::{EventBus, ExecutionReader, ExecutionStore},
    prelude::*,
    query::EventQuery,
    time::{ManualClock, Timestamp},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the processes share. Time stands still unless it is moved, so the sweeper does nothing
/// unless it is wanted.
struct World {
    store: Arc<MemoryStore>,
    bus: Arc<MemoryBus>,
    clock: Arc<ManualClock>,
    organization: OrganizationId,
    workflow: WorkflowId,
}

impl World {
    async fn new(bus: BusConfig) -> Self {
        let world = Self {
            store: Arc::default(),
            bus: Arc::new(MemoryBus::new(bus)),
            clock: Arc::new(ManualClock::new(Timestamp::now())),
            organization: OrganizationId::new(),
            workflow: WorkflowId::new(),
        };
        let draft = json!({"name": "test", "nodes": [{"id": "n", "type": "echo"}]});
        let draft = serde_json::from_value(draft).expect("readable");
        let engine = world.healthy();
        let stored = engine.put_workflow(world.organization, world.workflow, draft, None);
        stored.await.expect("a valid definition");
        world
    }

    fn process(&self, bus: Arc<dyn EventBus>) -> Engine {
        Engine::builder(Arc::clone(&self.store) as _, bus)
            .clock(Arc::clone(&self.clock) as _)
            .step(compute(
                NodeSpec::new("echo", Phase::Trigger),
                |_, p: Value| async move { Ok(p) },
            ))
            .build()
    }

    fn healthy(&self) -> Engine {
        self.process(Arc::clone(&self.bus) as _)
    }

    /// A process whose publishing comes to what the closure says; 1 is the first.
    fn faulty(&self, plan: impl Fn(u64) -> Option<Fault> + Send + Sync + 'static) -> Engine {
        let published = AtomicU64::new(0);
        let bus = FaultyBus::new(Arc::clone(&self.bus) as _, move |call| {
            (call.operation == "publish")
                .then(|| published.fetch_add(1, Ordering::SeqCst) + 1)
                .and_then(&plan)
        });
        self.process(Arc::new(bus))
    }

    /// A process that dies between each commit and its publishing, as far as others can see.
    fn dies(&self) -> Engine {
        self.faulty(|_| Some(Fault::Before))
    }

    async fn start(&self, engine: &Engine) -> ExecutionId {
        let request = StartRequest::new(self.organization, self.workflow, Actor::user("somebody"));
        let started = engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    fn of(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("somebody"))
    }

    async fn stored(&self, execution_id: ExecutionId) -> Vec<Arc<Event>> {
        let query = EventQuery::of(self.organization, execution_id).limit(1_000);
        self.store.events(query).await.expect("reads")
    }

    /// All that the list is told until the run completes is what was stored for lists; and the bus
    /// has the whole run for whoever comes later.
    async fn assert_told(&self, mut list: OrganizationFeed, id: ExecutionId) {
        let mut told = Vec::new();
        while !told
            .last()
            .is_some_and(|event: &Arc<Event>| completes(event))
        {
            let item = tokio::time::timeout(PATIENCE, list.next()).await;
            match item.expect("it is published").expect("goes on") {
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
        let replay = tokio::time::timeout(PATIENCE, replay.collect::<Vec<_>>()).await;
        assert_eq!(replay.expect("all is there"), stored);
    }

    /// How many executions have events that are not known to be on the bus.
    async fn left(&self) -> usize {
        let end = Timestamp::from_millis(i64::MAX / 2);
        let left = self.store.unpublished(end, None, 1_000).await;
        left.expect("reads").len()
    }

    /// Lets a second go by, and everybody do what is due then.
    async fn tick(&self) {
        self.clock.advance(Duration::from_secs(1));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Whether everything is published within so many seconds.
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

fn completes(event: &Event) -> bool {
    matches!(event.data, EventData::Completed { .. })
}

#[tokio::test]
async fn what_a_dead_process_has_committed_is_published_before_what_follows() {
    let world = World::new(BusConfig::default()).await;
    let (dies, lives) = (world.dies(), world.healthy());
    let list = lives.organization_feed(world.organization, None).await;
    let id = world.start(&lives).await;
    dies.pause(world.of(id), None).await.expect("paused");
    let unpublished = world.stored(id).await;
    assert!(unpublished.len() > 1);
    let _workers = lives
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let resumed = lives.resume(world.of(id), Resume::default());
    resumed.await.expect("goes on");
    world.assert_told(list, id).await;
}

#[tokio::test]
async fn what_one_publish_did_not_bring_or_not_for_sure_the_next_one_brings() {
    for fault in [Fault::Before, Fault::After] {
        for failing in 1..=4 {
            let world = World::new(BusConfig::default()).await;
            let engine = world.faulty(move |number| (number == failing).then_some(fault));
            let list = engine.organization_feed(world.organization, None).await;
            let id = world.start(&engine).await;
            let workers = engine
                .start_workers(WorkerOptions::default())
                .expect("no other workers run");
            let ended = engine
                .feed(world.organization, id, 0)
                .await
                .expect("a feed");
            tokio::time::timeout(PATIENCE, ended.count())
                .await
                .expect("it ends");
            // Where the very last was lost, it is the sweeper who brings it.
            assert!(world.is_published_within(12).await);
            world.assert_told(list, id).await;
            workers.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_run_whose_beginning_is_published_late_is_told_of_from_its_beginning() {
    let world = World::new(BusConfig::default()).await;
    let (accepts, works) = (world.dies(), world.healthy());
    let list = works.organization_feed(world.organization, None).await;
    let id = world.start(&accepts).await;
    let _workers = works
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.assert_told(list, id).await;
    // It was only slow.
    let first = world.stored(id).await.remove(0);
    world.bus.publish(&[first]).await.expect("is known");
    let stored = world.stored(id).await;
    world.assert_has(id, &stored).await;
}

/// Lists have been told of it, and are not told again.
#[tokio::test]
async fn a_bus_that_has_forgotten_a_run_gets_it_back_in_silence() {
    let world = World::new(BusConfig::default().max_executions(1)).await;
    let engine = world.healthy();
    let list = engine.organization_feed(world.organization, None).await;
    let id = world.start(&engine).await;
    engine.pause(world.of(id), None).await.expect("paused");
    let other = WorkflowId::new();
    let elsewhere = OrganizationId::new();
    let draft = json!({"name": "test", "nodes": [{"id": "n", "type": "echo"}]});
    let draft = serde_json::from_value(draft).expect("readable");
    let stored = engine.put_workflow(elsewhere, other, draft, None);
    stored.await.expect("a valid definition");
    for _ in 0..3 {
        let request = StartRequest::new(elsewhere, other, Actor::user("somebody"));
        engine.start(request).await.expect("accepted");
    }
    let resumed = engine.resume(world.of(id), Resume::default());
    resumed.await.expect("goes on");
    let stored = world.stored(id).await;
    world.assert_has(id, &stored).await;
    let for_lists: Vec<_> = stored
        .into_iter()
        .filter(|event| event.data.is_for_lists())
        .collect();
    let told = list.take(for_lists.len()).map(|item| match item {
        OrganizationItem::Event(listed) => listed.event,
        OrganizationItem::Gap => panic!("nothing is missing"),
    });
    let told = tokio::time::timeout(PATIENCE, told.collect::<Vec<_>>()).await;
    assert_eq!(told.expect("is told"), for_lists);
}

/// Of many executions that were left behind the bus refuses one: the others do not wait.
#[tokio::test]
async fn one_look_of_the_sweeper_brings_all_but_what_the_bus_refuses() {
    let world = World::new(BusConfig::default()).await;
    let dies = world.dies();
    for _ in 0..250 {
        world.start(&dies).await;
    }
    let sweeps = world.faulty(|number| (number == 7).then_some(Fault::Before));
    let _workers = sweeps
        .start_workers(WorkerOptions::concurrency(0))
        .expect("no other workers run");
    while world.left().await == 250 {
        world.tick().await;
    }
    assert_eq!(world.left().await, 1);
    assert!(world.is_published_within(6).await, "it is tried again soon");
}

/// Who has found something looks again soon, though it has committed nothing itself.
#[tokio::test]
async fn a_sweeper_that_has_found_something_does_not_wait_a_minute() {
    let world = World::new(BusConfig::default()).await;
    let (dies, idle) = (world.dies(), world.healthy());
    let _workers = idle
        .start_workers(WorkerOptions::concurrency(0))
        .expect("no other workers run");
    world.start(&dies).await;
    assert!(world.is_published_within(66).await);
    world.start(&dies).await;
    assert!(world.is_published_within(11).await, "it looks again");
}

/// A bus that takes nothing is not asked for everything that was left behind.
#[tokio::test]
async fn a_bus_that_is_down_ends_a_sweep() {
    let world = World::new(BusConfig::default()).await;
    let dies = world.dies();
    for _ in 0..100 {
        world.start(&dies).await;
    }
    let down = Arc::new(AtomicBool::new(true));
    let (is_down, asked) = (Arc::clone(&down), Arc::new(AtomicU64::new(0)));
    let asks = Arc::clone(&asked);
    let sweeps = world.faulty(move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        is_down.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let _workers = sweeps
        .start_workers(WorkerOptions::concurrency(0))
        .expect("no other workers run");
    while asked.load(Ordering::SeqCst) == 0 {
        world.tick().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    down.store(false, Ordering::SeqCst);
    // It goes on where it stopped, and then from the first.
    assert!(world.is_published_within(12).await);
}
