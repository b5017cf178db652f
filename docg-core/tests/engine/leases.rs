//! Leases and time: signals that reach the lease holder, leases that expire, and clocks that are set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Call, Fault, FaultyBus, FaultyStore},
    ids::WorkerId,
    ports::{ClaimRequest, ClaimWhat, EventBus, ExecutionReader, ExecutionStore, Store},
    prelude::*,
    run::StepStatus,
    time::{Clock, ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::world::{World, settle, soon};

const LEASE: Duration = Duration::from_secs(30);
const MINUTES: Duration = Duration::from_secs(600);

/// The events of the effect's handler that a test sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun,
    ToldToStop,
}

struct Watched {
    clock: ManualClock,
    organization: OrganizationId,
    seen: mpsc::UnboundedReceiver<Seen>,
    sees: mpsc::UnboundedSender<Seen>,
    /// Notified by the test to let the handler end.
    gate: Arc<Notify>,
}

impl Watched {
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

    fn process(&self, store: Arc<dyn Store>, bus: Arc<dyn EventBus>) -> World {
        let (sees, gate) = (self.sees.clone(), Arc::clone(&self.gate));
        let spec = NodeSpec::new("effect", Phase::Save);
        let handler = move |context: EffectContext, _: Value| {
            let (sees, gate) = (sees.clone(), Arc::clone(&gate));
            async move {
                sees.send(Seen::Begun).expect("the test listens");
                tokio::select! {
                    () = gate.notified() => {}
                    () = context.cancellation.cancelled() => {
                        // The test may have dropped the receiver.
                        let _ = sees.send(Seen::ToldToStop);
                    }
                }
                StepOutcome::done(json!({}))
            }
        };
        let builder = Engine::builder(store, bus)
            .clock(Arc::new(self.clock.clone()))
            .step(effect(spec, handler))
            .options(|options| options.lease = LEASE);
        World::of(self.organization, builder)
    }

    /// Starts an execution, and returns once its effect has begun.
    async fn begun(&mut self, world: &World) -> ExecutionId {
        let id = start(world).await;
        assert_eq!(self.sees_next().await, Seen::Begun);
        id
    }

    async fn sees_next(&mut self) -> Seen {
        soon(self.seen.recv()).await.expect("the handler lives")
    }

    /// Lets time pass in small steps, at most `most`, until the handler reports something.
    async fn time_until_seen(&mut self, most: Duration) -> Seen {
        const STEP: Duration = Duration::from_millis(100);
        let mut passed = Duration::ZERO;
        loop {
            settle().await;
            match self.seen.try_recv() {
                Ok(seen) => return seen,
                Err(_) => assert!(passed < most, "nothing within {most:?}"),
            }
            self.clock.advance(STEP);
            passed += STEP;
        }
    }

    async fn passes(&self, time: Duration) {
        const STEP: Duration = Duration::from_secs(1);
        let end = self.clock.elapsed() + time;
        while self.clock.elapsed() < end {
            settle().await;
            self.clock.advance(STEP);
        }
        settle().await;
    }

    async fn completes(&self, world: &World, id: ExecutionId) {
        self.gate.notify_one();
        world.until_status(id, Status::Completed).await;
    }
}

async fn start(world: &World) -> ExecutionId {
    let node = json!({"id": "a", "type": "effect", "phase": "save", "timeout_ms": 3_600_000});
    world.start(json!([node])).await
}

#[tokio::test]
async fn a_cancel_reaches_a_holder_elsewhere_if_its_wake_up_is_lost() {
    let mut it = Watched::new();
    let store = Arc::new(MemoryStore::default());
    let deaf = FaultyBus::new(Arc::new(MemoryBus::default()), |call: Call| {
        (call.operation == "wake").then_some(Fault::Before)
    });
    let bus: Arc<dyn EventBus> = Arc::new(deaf);
    let holder = it.process(store.clone(), Arc::clone(&bus));
    let workers = holder.workers();
    let id = it.begun(&holder).await;

    let other = it.process(store.clone(), bus);
    let canceled = other.engine.cancel(other.control(id), None).await;
    canceled.expect("is accepted");
    // The holder finds the cancel at its next renewal, which is at most a third of the lease away.
    let told = it.time_until_seen(LEASE / 3 + Duration::from_secs(1));
    assert_eq!(told.await, Seen::ToldToStop);
    workers.shutdown().await;
}

#[tokio::test]
async fn a_handler_is_told_to_stop_at_the_end_of_its_lease_if_the_store_does_not_answer() {
    let mut it = Watched::new();
    let hangs = Arc::new(AtomicBool::new(false));
    let is_hanging = Arc::clone(&hangs);
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), move |_| {
        let hangs = is_hanging.load(Ordering::SeqCst);
        hangs.then_some(Fault::Hang(Duration::MAX))
    });
    let world = it.process(Arc::new(store), Arc::new(MemoryBus::default()));
    // The test ends by dropping the workers. It cannot shut them down: the store hangs by then, so they
    // could not release the lease.
    let _workers = world.workers();
    it.begun(&world).await;
    it.passes(3 * LEASE).await;
    assert!(
        it.seen.is_empty(),
        "the lease is renewed as long as the store answers"
    );

    hangs.store(true, Ordering::SeqCst);
    assert_eq!(it.time_until_seen(LEASE).await, Seen::ToldToStop);
}

/// Wraps a store, and reports each renewal of a lease to the receiver.
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
async fn a_commit_that_is_tried_again_extends_the_lease_from_then_on() {
    let mut it = Watched::new();
    let store = Arc::new(MemoryStore::default());
    let (clock, begins) = (it.clock.clone(), it.clock.now());
    let has_waited = AtomicBool::new(false);
    let faulty = FaultyStore::new(store.clone(), move |call: Call| match call.operation {
        "renew" => Some(Fault::Before),
        "commit" if !has_waited.swap(true, Ordering::SeqCst) => {
            clock.advance(LEASE / 2);
            Some(Fault::Before)
        }
        _ => None,
    });
    let world = it.process(Arc::new(faulty), Arc::new(MemoryBus::default()));
    let _workers = world.workers();
    let id = it.begun(&world).await;
    // Wait until the step is stored as running, which may be after the effect has begun.
    let is_committed = async || {
        let steps = store.steps(it.organization, id).await;
        steps.expect("reads")[0].status() == StepStatus::Running
    };
    soon(async {
        while !is_committed().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
async fn a_lease_that_a_creation_claimed_is_renewed_while_the_bus_is_slow() {
    let mut it = Watched::new();
    let (store, mut renewals) = tapped(Arc::new(MemoryStore::default()));
    let slow = AtomicBool::new(true);
    let bus = FaultyBus::new(Arc::new(MemoryBus::default()), move |call: Call| {
        let is_slow = call.operation == "publish" && slow.swap(false, Ordering::SeqCst);
        is_slow.then_some(Fault::Slow(Duration::from_millis(500)))
    });
    let world = it.process(store, Arc::new(bus));
    let workers = world.workers();
    settle().await;
    let time_passes = async {
        it.passes(LEASE).await;
        assert!(it.seen.is_empty(), "it is still being published");
        assert!(renewals.try_recv().is_ok());
    };
    tokio::join!(start(&world), time_passes);
    assert_eq!(it.sees_next().await, Seen::Begun);
    it.gate.notify_one();
    workers.shutdown().await;
}

#[tokio::test]
async fn leases_are_renewed_after_the_clock_is_set_back() {
    let mut it = Watched::new();
    let memory = Arc::new(MemoryStore::default());
    let (store, mut renewals) = tapped(memory.clone());
    let world = it.process(store, Arc::new(MemoryBus::default()));
    let workers = world.workers();
    let id = it.begun(&world).await;
    settle().await;

    let back = it.clock.now().as_millis() - i64::try_from(MINUTES.as_millis()).expect("fits");
    it.clock.set(Timestamp::from_millis(back));
    while renewals.try_recv().is_ok() {}
    it.passes(LEASE).await;
    assert!(
        renewals.len() >= 2,
        "{} renewals in a lease",
        renewals.len()
    );
    assert!(it.seen.is_empty(), "the handler works on");

    it.completes(&world, id).await;
    let query = docg_core::query::EventQuery::of(it.organization, id);
    let events = memory.events(query).await.expect("reads");
    assert!(
        events.is_sorted_by_key(|event| event.timestamp),
        "nor does time run backwards within the execution"
    );
    workers.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_is_set_forward_expires_no_lease() {
    let mut it = Watched::new();
    let store = Arc::new(MemoryStore::default());
    let bus = Arc::new(MemoryBus::default());
    let (holder, other) = (
        it.process(store.clone(), bus.clone()),
        it.process(store.clone(), bus),
    );
    let workers = holder.workers();
    let id = it.begun(&holder).await;
    let others = other.workers();
    settle().await;

    it.clock.set(it.clock.now() + MINUTES);
    it.passes(2 * LEASE).await;
    assert!(it.seen.is_empty(), "it neither stops nor begins again");
    it.completes(&holder, id).await;
    workers.shutdown().await;
    others.shutdown().await;
}

#[tokio::test]
async fn a_process_that_claims_nothing_because_of_its_clock_wakes_others() {
    let it = Watched::new();
    let (wakes, mut woken) = mpsc::unbounded_channel();
    let bus = FaultyBus::new(Arc::new(MemoryBus::default()), move |call: Call| {
        if call.operation == "wake" {
            let _ = wakes.send(());
        }
        None
    });
    let world = it.process(Arc::new(MemoryStore::default()), Arc::new(bus));
    let _workers = world.workers();
    settle().await;
    it.clock.set(it.clock.now() + MINUTES);
    // When it starts the first execution, at the latest, the process notices that its clock jumped.
    for _ in 0..2 {
        start(&world).await;
        settle().await;
    }
    assert!(woken.try_recv().is_ok(), "others may claim it at once");
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_its_grace_time_if_its_lease_is_lost_during_shutdown() {
    let store = Arc::new(MemoryStore::default());
    let (sees, mut seen) = mpsc::unbounded_channel();
    // The step only computes, so it begins before its intent is committed. The shutdown makes the driver
    // commit the intent.
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
    let compute = compute(NodeSpec::new("compute", Phase::Render), handler);
    let bus = Arc::<MemoryBus>::default();
    let world = World::new(Engine::builder(store.clone(), bus).step(compute));
    let workflow = world.put(json!([{"id": "a", "type": "compute"}])).await;
    let workers = world.workers();
    let id = world.accept(world.request(workflow)).await;
    assert_eq!(seen.recv().await, Some(Seen::Begun));

    let later = Timestamp::now() + MINUTES;
    let takeover = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: later,
        lease_until: later + LEASE,
    };
    let taken = store.claim(takeover).await.expect("claims");
    assert_eq!(taken.claimed.len(), 1);
    workers.shutdown().await;
    assert_eq!(seen.try_recv(), Ok(Seen::ToldToStop));
}
