//! Creations and commits that are applied, and whose answer is lost or not waited for.
//!
//! Tokio's time is stopped, and moves only while nobody has something to do: a busy machine takes no time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyStore},
    engine::{ControlAnswer, ControlRequest, Engine, StartRequest, WorkerOptions},
    event::EventData,
    ids::{OrganizationId, WorkflowId},
    observe::Actor,
    ports::EventBus,
    prelude::*,
    query::ExecutionQuery,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

/// Less than the sweeper takes to publish what was left behind.
const PATIENCE: Duration = Duration::from_secs(4);

/// A call that is made and goes wrong.
#[derive(Clone, Copy)]
struct Trouble {
    operation: &'static str,
    /// How many calls of its kind are made before.
    after: usize,
    fault: Fault,
}

struct World {
    engine: Engine,
    bus: Arc<MemoryBus>,
    organization: OrganizationId,
    effects: Arc<AtomicUsize>,
    /// The call that goes wrong next, if any.
    goes_wrong: Arc<Mutex<Option<Trouble>>>,
}

impl World {
    fn new() -> Self {
        let bus = Arc::new(MemoryBus::default());
        let goes_wrong = Arc::<Mutex<Option<Trouble>>>::default();
        let plan = Arc::clone(&goes_wrong);
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
        let engine = Engine::builder(Arc::new(store), bus.clone())
            .step(effect(
                NodeSpec::new("effect", Phase::Save),
                move |_, _: Value| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async { StepOutcome::done(json!({})) }
                },
            ))
            .build();
        Self {
            engine,
            bus,
            organization: OrganizationId::new(),
            effects,
            goes_wrong,
        }
    }

    fn lose_answer_of_commit(&self, after: usize) {
        self.make_go_wrong("commit", after, Fault::After);
    }

    fn make_go_wrong(&self, operation: &'static str, after: usize, fault: Fault) {
        *self.goes_wrong.lock().expect("no panic") = Some(Trouble {
            operation,
            after,
            fault,
        });
    }

    async fn start(&self) -> ExecutionId {
        let started = self.engine.start(self.request().await);
        started.await.expect("accepted").record.execution.id
    }

    async fn request(&self) -> StartRequest {
        let workflow = WorkflowId::new();
        let draft = serde_json::from_value(json!({
            "name": "test",
            "nodes": [{"id": "a", "type": "effect"}, {"id": "b", "type": "effect"}],
        }));
        let draft = draft.expect("readable");
        let stored = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        StartRequest::new(self.organization, workflow, Actor::user("somebody"))
    }

    /// Returns once workers have found nothing, and wait for work.
    async fn workers_wait(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// The one run that there is, once it is.
    async fn only_run(&self) -> ExecutionId {
        let reading = async {
            loop {
                let query = ExecutionQuery::of(self.organization).limit(2);
                let page = self.engine.executions(query).await.expect("reads");
                if let [run] = &page.items[..] {
                    return run.execution.id;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("it is there")
    }

    /// What the bus brings, up to the event that is looked for.
    async fn published_until(&self, id: ExecutionId, is_last: impl Fn(&EventData) -> bool) {
        let reading = async {
            let mut events = self.bus.subscribe(id, 0).await.expect("subscribes");
            while let Some(event) = events.next().await {
                if is_last(&event.expect("reads").data) {
                    return;
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("it is published without the sweeper");
    }
}

fn ends(status: Status) -> impl Fn(&EventData) -> bool {
    move |data| matches!(data, EventData::StatusChanged { to, .. } if *to == status)
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_keeps_or_lets_go_is_known_as_made_though_its_answer_is_lost() {
    // One run of this workflow takes the intent of its second effect, and its end.
    for lost in 0..2 {
        let world = World::new();
        world.lose_answer_of_commit(lost);
        let workers = world
            .engine
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        let id = world.start().await;
        world.published_until(id, ends(Status::Completed)).await;
        assert_eq!(world.effects.load(Ordering::SeqCst), 2);
        assert!(
            world.goes_wrong.lock().expect("no panic").is_none(),
            "the answer of commit {lost} was lost"
        );
        workers.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_call_is_answered_though_the_answer_to_its_commit_is_lost() {
    let world = World::new();
    let id = world.start().await;
    // Nobody works: the call takes the run, applies itself, and lets go.
    world.lose_answer_of_commit(0);
    let request = ControlRequest::new(world.organization, id, Actor::user("somebody"));
    let answer = tokio::time::timeout(PATIENCE, world.engine.pause(request, None));
    let answer = answer.await.expect("in time").expect("is accepted");
    let ControlAnswer::Applied(record) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(record.execution.status, Status::Paused);
    world.published_until(id, ends(Status::Paused)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_no_lease_behind() {
    let world = World::new();
    let workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.workers_wait().await;
    let request = world.request().await;
    let slow = Duration::from_millis(200);
    world.make_go_wrong("create", 0, Fault::Slow(slow));
    let started = world.engine.start(request);
    let gone = tokio::time::timeout(slow / 2, started).await;
    assert!(gone.is_err(), "it is being stored");
    let id = world.only_run().await;
    world.published_until(id, ends(Status::Completed)).await;
    workers.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_being_stored_and_hands_it_back() {
    let world = World::new();
    let workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.workers_wait().await;
    let request = world.request().await;
    world.make_go_wrong("create", 0, Fault::Slow(Duration::from_millis(200)));
    let engine = world.engine.clone();
    let starting = tokio::spawn(async move { engine.start(request).await });
    let id = world.only_run().await;
    workers.shutdown().await;
    let started = starting.await.expect("does not panic").expect("accepted");
    assert_eq!(started.record.execution.id, id);
    assert_eq!(world.effects.load(Ordering::SeqCst), 0);
    let workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.published_until(id, ends(Status::Completed)).await;
    workers.shutdown().await;
}
