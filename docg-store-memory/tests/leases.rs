//! Leases and time: what a holder hears of, when it has to let go, and clocks that are set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Call, Fault, FaultyBus, FaultyStore},
    engine::{ControlRequest, Engine, StartRequest, WorkerOptions},
    ids::{OrganizationId, WorkerId, WorkflowId},
    observe::Actor,
    ports::{ClaimRequest, ClaimWhat, EventBus, ExecutionReader, ExecutionStore, Store},
    prelude::*,
    run::StepStatus,
    time::{Clock, ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(30);
const MINUTES: Duration = Duration::from_secs(600);

/// What becomes of the effect's handler.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun,
    ToldToStop,
}

struct World {
    clock: ManualClock,
    organization: OrganizationId,
    seen: mpsc::UnboundedReceiver<Seen>,
    sees: mpsc::UnboundedSender<Seen>,
    /// Lets the handler end.
    gate: Arc<Notify>,
}

impl World {
    fn new() -> Self {
        let (sees, seen) = mpsc::unbounded_channel();
        Self {
            clock: ManualClock::new(Timestamp::from_millis(1_700_000_000_000)),
            organization: OrganizationId::new(),
            seen,
            sees,
            gate: Arc::default(),
        }
    }

    fn engine(&self, store: Arc<dyn Store>, bus: Arc<dyn EventBus>) -> Engine {
        let (sees, gate) = (self.sees.clone(), Arc::clone(&self.gate));
        let spec = NodeSpec::new("effect", Phase::Save);
        let handler = move |context: EffectContext, _: Value| {
            let (sees, gate) = (sees.clone(), Arc::clone(&gate));
            async move {
                sees.send(Seen::Begun).expect("the test listens");
                tokio::select! {
                    () = gate.notified() => {}
                    () = context.cancellation.cancelled() => {
                        // The test may have seen enough.
                        let _ = sees.send(Seen::ToldToStop);
                    }
                }
                StepOutcome::done(json!({}))
            }
        };
        Engine::builder(store, bus)
            .clock(Arc::new(self.clock.clone()))
            .step(effect(spec, handler))
            .options(|options| options.lease = LEASE)
            .build()
    }

    /// Starts a run, and returns once its effect has begun.
    async fn begun(&mut self, engine: &Engine) -> ExecutionId {
        let id = self.start(engine).await;
        assert_eq!(self.sees_next().await, Seen::Begun);
        id
    }

    async fn start(&self, engine: &Engine) -> ExecutionId {
        let workflow = WorkflowId::new();
        let node = json!({"id": "a", "type": "effect", "phase": "save", "timeout_ms": 3_600_000});
        let draft = serde_json::from_value(json!({"name": "test", "nodes": [node]}));
        let draft = draft.expect("readable");
        let stored = engine.put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    async fn sees_next(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        next.expect("in time").expect("the handler lives")
    }

    /// Lets time pass in small steps, as it does, until the handler does something.
    async fn time_until_seen(&mut self, most: Duration) -> Seen {
        const STEP: Duration = Duration::from_millis(100);
        let mut passed = Duration::ZERO;
        loop {
            self.settle().await;
            match self.seen.try_recv() {
                Ok(seen) => return seen,
                Err(_) => assert!(passed < most, "nothing within {most:?}"),
            }
            self.clock.advance(STEP);
            passed += STEP;
        }
    }

    /// Lets all that can happen without the clock moving happen.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    async fn passes(&self, time: Duration) {
        const STEP: Duration = Duration::from_secs(1);
        let end = self.clock.elapsed() + time;
        while self.clock.elapsed() < end {
            self.settle().await;
            self.clock.advance(STEP);
        }
        self.settle().await;
    }

    async fn completes(&self, store: &MemoryStore, id: ExecutionId) {
        self.gate.notify_one();
        let reading = async {
            loop {
                let record = store.execution(self.organization, id).await.expect("reads");
                if record.expect("is there").execution.status == Status::Completed {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let completed = tokio::time::timeout(PATIENCE, reading).await;
        completed.expect("the run completes");
    }
}

#[tokio::test]
async fn a_cancel_reaches_a_holder_elsewhere_though_its_wake_up_is_lost() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let deaf = FaultyBus::new(Arc::new(MemoryBus::default()), |call: Call| {
        (call.operation == "wake").then_some(Fault::Before)
    });
    let bus: Arc<dyn EventBus> = Arc::new(deaf);
    let holder = world.engine(store.clone(), Arc::clone(&bus));
    let workers = holder
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.begun(&holder).await;

    let other = world.engine(store.clone(), bus);
    let request = ControlRequest::new(world.organization, id, Actor::user("somebody"));
    other.cancel(request, None).await.expect("is accepted");
    // The holder's last renewal may have been at any time.
    let told = world.time_until_seen(LEASE / 3 + Duration::from_secs(1));
    assert_eq!(told.await, Seen::ToldToStop);
    workers.shutdown().await;
}

#[tokio::test]
async fn a_handler_is_told_to_stop_at_the_end_of_its_lease_though_the_store_does_not_answer() {
    let mut world = World::new();
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), move |_| {
        let hangs = is_hanging.load(Ordering::SeqCst);
        hangs.then_some(Fault::Hang(Duration::MAX))
    });
    let engine = world.engine(Arc::new(store), Arc::new(MemoryBus::default()));
    // Dropped without grace: nothing can be handed back.
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.begun(&engine).await;
    world.passes(3 * LEASE).await;
    assert!(world.seen.is_empty(), "it is renewed as long as it can be");

    hangs.store(true, Ordering::SeqCst);
    assert_eq!(world.time_until_seen(LEASE).await, Seen::ToldToStop);
}

/// A store that tells of each renewal.
fn tapped(inner: Arc<dyn Store>) -> (Arc<dyn Store>, mpsc::UnboundedReceiver<()>) {
    let (tell, renewals) = mpsc::unbounded_channel();
    let store = FaultyStore::new(inner, move |call| {
        if call.operation == "renew" {
            let _ = tell.send(());
        }
        None
    });
    (Arc::new(store), renewals)
}

#[tokio::test]
async fn a_commit_that_is_tried_again_keeps_the_lease_from_then_on() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let (clock, begins) = (world.clock.clone(), world.clock.now());
    let has_waited = AtomicBool::new(false);
    let faulty = FaultyStore::new(store.clone(), move |call: Call| match call.operation {
        "renew" => Some(Fault::Before),
        "commit" if !has_waited.swap(true, Ordering::SeqCst) => {
            clock.advance(LEASE / 2);
            Some(Fault::Before)
        }
        _ => None,
    });
    let engine = world.engine(Arc::new(faulty), Arc::new(MemoryBus::default()));
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.begun(&engine).await;
    // What was decided before is committed while the effect is under way.
    let is_told = async || {
        let steps = store.steps(world.organization, id).await;
        steps.expect("reads")[0].status() == StepStatus::Running
    };
    let told = async {
        while !is_told().await {
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    told.expect("it is committed");
    let other = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: begins + LEASE * 5 / 4,
        lease_until: begins + 2 * LEASE,
    };
    let claim = store.claim(other).await.expect("claims");
    assert!(claim.claimed.is_empty(), "it is held");
}

#[tokio::test(start_paused = true)]
async fn what_was_leased_as_it_was_created_is_renewed_while_the_bus_is_slow() {
    let mut world = World::new();
    let (store, mut renewals) = tapped(Arc::new(MemoryStore::default()));
    let slow = AtomicBool::new(true);
    let bus = FaultyBus::new(Arc::new(MemoryBus::default()), move |call: Call| {
        let is_slow = call.operation == "publish" && slow.swap(false, Ordering::SeqCst);
        is_slow.then_some(Fault::Slow(Duration::from_millis(500)))
    });
    let engine = world.engine(store, Arc::new(bus));
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.settle().await;
    let time_passes = async {
        world.passes(LEASE).await;
        assert!(world.seen.is_empty(), "it is still being published");
        assert!(renewals.try_recv().is_ok());
    };
    tokio::join!(world.start(&engine), time_passes);
    assert_eq!(world.sees_next().await, Seen::Begun);
    world.gate.notify_one();
    workers.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_lease_from_being_renewed() {
    let mut world = World::new();
    let memory = Arc::new(MemoryStore::default());
    let (store, mut renewals) = tapped(memory.clone());
    let engine = world.engine(store, Arc::new(MemoryBus::default()));
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.begun(&engine).await;
    world.settle().await;

    let back = world.clock.now().as_millis() - i64::try_from(MINUTES.as_millis()).expect("fits");
    world.clock.set(Timestamp::from_millis(back));
    while renewals.try_recv().is_ok() {}
    world.passes(LEASE).await;
    assert!(
        renewals.len() >= 2,
        "{} renewals in a lease",
        renewals.len()
    );
    assert!(world.seen.is_empty(), "the handler works on");

    world.completes(&memory, id).await;
    let query = docg_core::query::EventQuery::of(world.organization, id);
    let events = memory.events(query).await.expect("reads");
    assert!(
        events.is_sorted_by_key(|event| event.timestamp),
        "nor does time run backwards within the run"
    );
    workers.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_is_set_forth_takes_nobodys_lease() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let bus = Arc::new(MemoryBus::default());
    let (holder, other) = (
        world.engine(store.clone(), bus.clone()),
        world.engine(store.clone(), bus),
    );
    let workers = holder
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.begun(&holder).await;
    let others = other
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.settle().await;

    world.clock.set(world.clock.now() + MINUTES);
    world.passes(2 * LEASE).await;
    assert!(world.seen.is_empty(), "it neither stops nor begins again");
    world.completes(&store, id).await;
    workers.shutdown().await;
    others.shutdown().await;
}

#[tokio::test]
async fn who_claims_nothing_because_of_its_clock_wakes_others() {
    let world = World::new();
    let (wakes, mut woken) = mpsc::unbounded_channel();
    let bus = FaultyBus::new(Arc::new(MemoryBus::default()), move |call: Call| {
        if call.operation == "wake" {
            let _ = wakes.send(());
        }
        None
    });
    let engine = world.engine(Arc::new(MemoryStore::default()), Arc::new(bus));
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.settle().await;
    world.clock.set(world.clock.now() + MINUTES);
    // With the first it learns of it at the latest.
    for _ in 0..2 {
        world.start(&engine).await;
        world.settle().await;
    }
    assert!(woken.try_recv().is_ok(), "others may do it at once");
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_its_grace_though_its_lease_is_lost_as_its_worker_shuts_down() {
    let store = Arc::new(MemoryStore::default());
    let (sees, mut seen) = mpsc::unbounded_channel();
    // What only computes begins before its intent is committed: the shutdown commits it.
    let handler = move |context: StepContext, _: Value| {
        let sees = sees.clone();
        async move {
            let _ = sees.send(Seen::Begun);
            context.cancellation.cancelled().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            let _ = sees.send(Seen::ToldToStop);
            Ok(json!({}))
        }
    };
    let engine = Engine::builder(store.clone(), Arc::new(MemoryBus::default()))
        .step(compute(NodeSpec::new("compute", Phase::Render), handler))
        .build();
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "compute"}]});
    let draft = serde_json::from_value(draft).expect("readable");
    let stored = engine.put_workflow(organization, workflow, draft, None);
    stored.await.expect("a valid definition");
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let started = engine.start(request).await.expect("accepted");
    assert_eq!(seen.recv().await, Some(Seen::Begun));

    let later = Timestamp::now() + MINUTES;
    let takeover = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(started.record.execution.id),
        now: later,
        lease_until: later + LEASE,
    };
    let taken = store.claim(takeover).await.expect("claims");
    assert_eq!(taken.claimed.len(), 1);
    workers.shutdown().await;
    assert_eq!(seen.try_recv(), Ok(Seen::ToldToStop));
}
