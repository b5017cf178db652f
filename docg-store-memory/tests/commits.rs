//! How many commits a run takes, and that nothing is lost by their being few.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::FaultyStore,
    engine::{Engine, StartRequest, WorkerOptions},
    event::EventData,
    ids::{ExecutionId, OrganizationId, WorkerId, WorkflowId},
    observe::Actor,
    ports::{ClaimRequest, ClaimWhat, ExecutionReader, ExecutionStore},
    prelude::*,
    query::EventQuery,
    run::Step,
    time::Timestamp,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

type Seen = Arc<Mutex<Vec<Step>>>;

struct World {
    engine: Engine,
    store: Arc<MemoryStore>,
    organization: OrganizationId,
    /// The store's calls that write to runs, in order.
    calls: Arc<Mutex<Vec<&'static str>>>,
    claims: Arc<AtomicUsize>,
    /// Lets a gated step end.
    gate: Arc<Notify>,
    /// The steps as stored when a step began that looks.
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let calls: Arc<Mutex<Vec<_>>> = Arc::default();
        let told = Arc::clone(&calls);
        let claims = Arc::<AtomicUsize>::default();
        let counts = Arc::clone(&claims);
        let counted = FaultyStore::new(Arc::clone(&store) as _, move |call| {
            match call.operation {
                "create" | "commit" => told.lock().expect("calls").push(call.operation),
                "claim" => drop(counts.fetch_add(1, Ordering::SeqCst)),
                _ => {}
            }
            None
        });
        let organization = OrganizationId::new();
        let (gate, seen) = (Arc::<Notify>::default(), Seen::default());
        let spec = |name: &'static str| {
            NodeSpec::new(name, Phase::Trigger)
                .any_phase()
                .param(ParamSpec::optional("in", ParamKind::Json))
        };
        let opened = Arc::clone(&gate);
        let (looked, reader) = (Arc::clone(&seen), Arc::clone(&store));
        let (sees, read) = (Arc::clone(&seen), Arc::clone(&store));
        let engine = Engine::builder(Arc::new(counted), Arc::new(MemoryBus::default()))
            .step(compute(spec("echo"), |_, p: Value| async move { Ok(p) }))
            .step(compute(spec("gated"), move |_, _: Value| {
                let gate = Arc::clone(&opened);
                async move {
                    gate.notified().await;
                    Ok(json!({}))
                }
            }))
            .step(compute(
                spec("looks"),
                move |context: StepContext, _: Value| {
                    let (seen, reader) = (Arc::clone(&looked), Arc::clone(&reader));
                    async move {
                        let steps = reader.steps(context.organization_id, context.execution_id);
                        *seen.lock().expect("seen") = steps.await.expect("reads");
                        Ok(json!({}))
                    }
                },
            ))
            .step(effect(spec("effect"), |_, _: Value| async {
                StepOutcome::done(json!({}))
            }))
            .step(effect(
                spec("sees").safe_to_repeat(),
                move |context: EffectContext, _: Value| {
                    let (seen, reader) = (Arc::clone(&sees), Arc::clone(&read));
                    async move {
                        let steps = reader.steps(context.organization_id, context.execution_id);
                        *seen.lock().expect("seen") = steps.await.expect("reads");
                        StepOutcome::done(json!({}))
                    }
                },
            ))
            .step(effect(
                spec("fails_once"),
                |context: EffectContext, _: Value| async move {
                    match context.attempt {
                        1 => Err(StepFailure::retryable("busy", "It is busy.").retry_after_ms(10)),
                        _ => StepOutcome::done(json!({})),
                    }
                },
            ))
            .build();
        Self {
            engine,
            store,
            organization,
            calls,
            claims,
            gate,
            seen,
        }
    }

    async fn start(&self, types: &[&str]) -> ExecutionId {
        let nodes: Vec<_> = (0..)
            .zip(types)
            .map(|(n, node_type)| {
                json!({
                    "id": format!("n{n}"), "type": node_type, "phase": "save",
                    "retry": {"max_attempts": 2, "initial_ms": 1},
                })
            })
            .collect();
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}));
        let workflow = WorkflowId::new();
        self.engine
            .put_workflow(self.organization, workflow, draft.expect("readable"), None)
            .await
            .expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = self.engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    /// Reads the run's events until one fits.
    async fn until(&self, id: ExecutionId, fits: impl Fn(&EventData) -> bool) {
        let feed = self.engine.feed(self.organization, id, 0).await;
        let mut feed = feed.expect("a feed");
        let reading = async {
            while let Some(event) = feed.next().await {
                if fits(&event.expect("readable").data) {
                    return;
                }
            }
            panic!("it has ended");
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("it happens");
    }

    async fn completed(&self, id: ExecutionId) {
        self.until(id, |data| matches!(data, EventData::Completed { .. }))
            .await;
    }
}

/// With the time stopped, so that a busy machine does not make the moment end.
#[tokio::test(start_paused = true)]
async fn what_touches_nothing_is_committed_together() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world
        .start(&["echo", "echo", "echo", "effect", "effect"])
        .await;
    world.completed(id).await;
    // All that computes with the first effect's intent; its result with the second's; the end.
    let calls = world.calls.lock().expect("calls").clone();
    assert_eq!(calls, ["create", "commit", "commit", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn the_intent_of_every_effect_is_committed_before_it_begins() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world
        .start(&["effect", "effect", "effect", "effect", "effect"])
        .await;
    world.completed(id).await;
    // The first intent; each result with the next intent; the end.
    let calls = world.calls.lock().expect("calls").clone();
    assert_eq!(
        calls,
        ["create"]
            .into_iter()
            .chain(["commit"; 6])
            .collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn an_effect_finds_stored_what_came_before_it() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&["echo", "sees"]).await;
    world.completed(id).await;
    let seen = world.seen.lock().expect("seen").clone();
    let statuses: Vec<_> = seen.iter().map(|step| step.status().as_str()).collect();
    assert_eq!(statuses, ["success", "running"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_is_told_before_it_begins() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&["fails_once"]).await;
    world.completed(id).await;
    // The intent of the first attempt; its failure; the intent of the second; the end.
    let calls = world.calls.lock().expect("calls").clone();
    assert_eq!(calls, ["create", "commit", "commit", "commit", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn who_has_free_workers_takes_on_what_it_creates() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    // They have looked for work, and wait for it.
    tokio::task::yield_now().await;
    let claims = world.claims.load(Ordering::SeqCst);
    let id = world.start(&["echo"]).await;
    world.completed(id).await;
    assert_eq!(world.claims.load(Ordering::SeqCst), claims);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_free_worker_waits_in_line() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::concurrency(1))
        .expect("no other workers run");
    tokio::task::yield_now().await;
    let first = world.start(&["gated"]).await;
    let second = world.start(&["gated"]).await;
    assert_eq!(world.engine.active_executions(), 1);
    for id in [first, second] {
        world.gate.notify_one();
        world.completed(id).await;
    }
}

#[tokio::test]
async fn what_takes_long_is_told_while_it_is_under_way() {
    let world = World::new();
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&["echo", "gated"]).await;
    let gated = |data: &EventData| matches!(data, EventData::StepStarted { node_id, .. } if node_id == "n1");
    world.until(id, gated).await;
    world.gate.notify_one();
    world.completed(id).await;
}

#[tokio::test]
async fn after_a_takeover_nothing_begins_without_a_trace() {
    let world = World::new();
    let id = world.start(&["looks"]).await;
    // A worker that took it and is gone.
    let long_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 60_000);
    let gone = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: long_ago,
        lease_until: long_ago + Duration::from_secs(1),
    };
    assert_eq!(
        world.store.claim(gone).await.expect("claims").claimed.len(),
        1
    );
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.completed(id).await;
    let seen = world.seen.lock().expect("seen").clone();
    assert_eq!(
        seen[0].status().as_str(),
        "running",
        "a death under it would be counted"
    );
    let query = EventQuery::of(world.organization, id);
    let events = world.store.events(query).await.expect("reads");
    assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
}
