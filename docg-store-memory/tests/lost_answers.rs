//! Commits that are applied, and whose answer is lost.

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
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

/// Less than the sweeper takes to publish what was left behind.
const PATIENCE: Duration = Duration::from_secs(4);

struct World {
    engine: Engine,
    bus: Arc<MemoryBus>,
    organization: OrganizationId,
    effects: Arc<AtomicUsize>,
    /// How many commits from now on are applied before one loses its answer; `None` for no loss.
    loses: Arc<Mutex<Option<usize>>>,
}

impl World {
    fn new() -> Self {
        let bus = Arc::new(MemoryBus::default());
        let loses = Arc::new(Mutex::new(None));
        let plan = Arc::clone(&loses);
        let store = FaultyStore::new(Arc::new(MemoryStore::default()), move |call| {
            if call.operation != "commit" {
                return None;
            }
            let mut left = plan.lock().expect("no panic");
            let (fault, next) = match *left {
                Some(0) => (Some(Fault::After), None),
                other => (None, other.map(|left| left - 1)),
            };
            *left = next;
            fault
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
            loses,
        }
    }

    fn lose_answer_of_commit(&self, after: usize) {
        *self.loses.lock().expect("no panic") = Some(after);
    }

    async fn start(&self) -> ExecutionId {
        let workflow = WorkflowId::new();
        let draft = serde_json::from_value(json!({
            "name": "test",
            "nodes": [{"id": "a", "type": "effect", "phase": "save"}],
        }));
        let draft = draft.expect("readable");
        let stored = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = self.engine.start(request).await.expect("accepted");
        started.record.execution.id
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

#[tokio::test]
async fn a_commit_that_keeps_or_lets_go_is_known_as_made_though_its_answer_is_lost() {
    // One run of this workflow takes the intent of its effect, and its end.
    for lost in 0..2 {
        let world = World::new();
        world.lose_answer_of_commit(lost);
        let workers = world.engine.start_workers(WorkerOptions::default());
        let id = world.start().await;
        world.published_until(id, ends(Status::Completed)).await;
        assert_eq!(world.effects.load(Ordering::SeqCst), 1);
        assert!(
            world.loses.lock().expect("no panic").is_none(),
            "the answer of commit {lost} was lost"
        );
        workers.shutdown().await;
    }
}

#[tokio::test]
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
