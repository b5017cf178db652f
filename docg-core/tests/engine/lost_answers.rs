//! Creations and commits that the store applies, but whose answer is lost or comes after the caller has left.
//!
//! Tokio's time is stopped, and moves on only if every task is idle, so that no time limit ends early on a
//! busy machine.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyStore},
    event::EventData,
    ports::EventBus,
    prelude::*,
    query::ExecutionQuery,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::world::{World, applied, settle, time_passes};

/// A time limit that is shorter than the sweeper's wait before it publishes events that were left behind.
const BEFORE_THE_SWEEPER: Duration = Duration::from_secs(4);

/// A planned fault of one call of the store.
#[derive(Clone, Copy)]
struct Trouble {
    operation: &'static str,
    /// How many calls of the same operation succeed before the fault.
    after: usize,
    fault: Fault,
}

struct Unreliable {
    world: World,
    bus: Arc<MemoryBus>,
    effects: Arc<AtomicUsize>,
    /// The planned fault, if it has not happened yet.
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Unreliable {
    fn new() -> Self {
        let bus = Arc::new(MemoryBus::default());
        let trouble = Arc::<Mutex<Option<Trouble>>>::default();
        let plan = Arc::clone(&trouble);
        let store = FaultyStore::new(Arc::new(MemoryStore::default()), move |call| {
            let mut plan = plan.lock().expect("no panic");
            let trouble = plan.as_mut().filter(|it| it.operation == call.operation)?;
            if trouble.after > 0 {
                trouble.after -= 1;
                return None;
            }
            plan.take().map(|trouble| trouble.fault)
        });
        let effects = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&effects);
        let spec = NodeSpec::new("effect", Phase::Save);
        let handler = effect(spec, move |_, _: Value| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { StepOutcome::done(json!({})) }
        });
        Self {
            world: World::new(Engine::builder(Arc::new(store), bus.clone()).step(handler)),
            bus,
            effects,
            trouble,
        }
    }

    fn fail(&self, operation: &'static str, after: usize, fault: Fault) {
        *self.trouble.lock().expect("no panic") = Some(Trouble {
            operation,
            after,
            fault,
        });
    }

    async fn request(&self) -> StartRequest {
        let nodes = json!([{"id": "a", "type": "effect"}, {"id": "b", "type": "effect"}]);
        self.world.request(self.world.put(nodes).await)
    }

    async fn start(&self) -> ExecutionId {
        self.world.accept(self.request().await).await
    }

    /// Waits until the organization's only execution is stored, and returns its id.
    async fn only_execution(&self) -> ExecutionId {
        in_time(async {
            loop {
                let query = ExecutionQuery::of(self.world.organization).limit(2);
                let page = self.world.engine.executions(query).await.expect("reads");
                if let [record] = &page.items[..] {
                    return record.execution.id;
                }
                time_passes().await;
            }
        })
        .await
    }

    /// Reads the bus until this status is published.
    async fn published_until(&self, id: ExecutionId, status: Status) {
        in_time(async {
            let mut events = self.bus.subscribe(id, 0).await.expect("subscribes");
            while let Some(event) = events.next().await {
                if matches!(event.expect("reads").data, EventData::StatusChanged { to, .. } if to == status)
                {
                    return;
                }
            }
        })
        .await;
    }
}

/// Waits for an event that has to happen before the sweeper could help.
async fn in_time<T>(event: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(BEFORE_THE_SWEEPER, event).await;
    happened.expect("it happens without the sweeper")
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_recognized_as_made() {
    // Each execution makes two commits, with its second effect's intent and with its end. Lose the answer to
    // either.
    for lost in 0..2 {
        let it = Unreliable::new();
        it.fail("commit", lost, Fault::After);
        let workers = it.world.workers();
        let id = it.start().await;
        it.published_until(id, Status::Completed).await;
        assert_eq!(it.effects.load(Ordering::SeqCst), 2);
        assert!(
            it.trouble.lock().expect("no panic").is_none(),
            "the answer of commit {lost} was lost"
        );
        workers.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_gets_its_answer_if_the_answer_to_its_commit_is_lost() {
    let it = Unreliable::new();
    let id = it.start().await;
    // No worker runs, so the call itself claims the execution, applies the pause, and releases the lease.
    it.fail("commit", 0, Fault::After);
    let answer = in_time(it.world.engine.pause(it.world.control(id), None)).await;
    let execution = applied(answer.expect("is accepted"));
    assert_eq!(execution.status, Status::Paused);
    it.published_until(id, Status::Paused).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_no_lease_behind() {
    let it = Unreliable::new();
    let workers = it.world.workers();
    // Let the workers look for work first, so that they are idle.
    settle().await;
    let request = it.request().await;
    let slow = Duration::from_millis(200);
    it.fail("create", 0, Fault::Slow(slow));
    let started = it.world.engine.start(request);
    let gone = tokio::time::timeout(slow / 2, started).await;
    assert!(gone.is_err(), "it is being stored");
    let id = it.only_execution().await;
    it.published_until(id, Status::Completed).await;
    workers.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_an_execution_that_is_being_stored_and_releases_it() {
    let it = Unreliable::new();
    let workers = it.world.workers();
    settle().await;
    let request = it.request().await;
    it.fail("create", 0, Fault::Slow(Duration::from_millis(200)));
    let world = it.world.clone();
    let starting = tokio::spawn(async move { world.accept(request).await });
    let id = it.only_execution().await;
    workers.shutdown().await;
    assert_eq!(starting.await.expect("does not panic"), id);
    assert_eq!(it.effects.load(Ordering::SeqCst), 0);
    let workers = it.world.workers();
    it.published_until(id, Status::Completed).await;
    workers.shutdown().await;
}
