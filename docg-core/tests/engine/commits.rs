//! Counts the commits of an execution, and checks that no record is lost although several steps share a
//! commit.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::FaultyStore,
    event::EventData,
    ids::WorkerId,
    ports::{ClaimRequest, ClaimWhat, ExecutionReader, ExecutionStore},
    prelude::*,
    query::EventQuery,
    run::Step,
    time::Timestamp,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::world::{World, echo};

struct Counted {
    world: World,
    store: Arc<MemoryStore>,
    /// The store's calls that write to executions, in order.
    calls: Arc<Mutex<Vec<&'static str>>>,
    claims: Arc<AtomicUsize>,
    /// Notified by the test to let a `gated` step end.
    gate: Arc<Notify>,
    /// The stored steps at the moment when a step of type `looks` or `sees` began.
    seen: Arc<Mutex<Vec<Step>>>,
}

impl Counted {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let calls: Arc<Mutex<Vec<_>>> = Arc::default();
        let told = Arc::clone(&calls);
        let claims = Arc::<AtomicUsize>::default();
        let counts = Arc::clone(&claims);
        let counted = FaultyStore::new(store.clone(), move |call| {
            match call.operation {
                "create" | "commit" => told.lock().expect("calls").push(call.operation),
                "claim" => drop(counts.fetch_add(1, Ordering::SeqCst)),
                _ => {}
            }
            None
        });
        let spec = |name: &'static str| {
            NodeSpec::new(name, Phase::Trigger)
                .any_phase()
                .param(ParamSpec::optional("in", ParamKind::Json))
        };
        let gate = Arc::<Notify>::default();
        let opened = Arc::clone(&gate);
        let seen: Arc<Mutex<Vec<Step>>> = Arc::default();
        let look = {
            let (seen, store) = (Arc::clone(&seen), Arc::clone(&store));
            move |organization, id| {
                let (seen, store) = (Arc::clone(&seen), Arc::clone(&store));
                async move {
                    let steps = store.steps(organization, id).await;
                    *seen.lock().expect("seen") = steps.expect("reads");
                }
            }
        };
        let sees = look.clone();
        let builder = Engine::builder(Arc::new(counted), Arc::new(MemoryBus::default()))
            .step(echo(spec("echo")))
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
                    let look = look(context.organization_id, context.execution_id);
                    async move {
                        look.await;
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
                    let look = sees(context.organization_id, context.execution_id);
                    async move {
                        look.await;
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
            ));
        Self {
            world: World::new(builder),
            store,
            calls,
            claims,
            gate,
            seen,
        }
    }

    async fn start(&self, types: &[&str]) -> ExecutionId {
        let nodes = (0..).zip(types).map(|(n, node_type)| {
            json!({
                "id": format!("n{n}"), "type": node_type, "phase": "save",
                "retry": {"max_attempts": 2, "initial_ms": 1},
            })
        });
        self.world.start(nodes.collect()).await
    }

    /// Runs an execution with these steps, and returns the store's calls that wrote the execution.
    async fn calls_of(types: &[&str]) -> Vec<&'static str> {
        let it = Self::new();
        let _workers = it.world.workers();
        let id = it.start(types).await;
        it.world.until_completed(id).await;
        it.calls.lock().expect("calls").clone()
    }

    /// The statuses of the steps that a `looks` or `sees` step found in the store.
    fn seen(&self) -> Vec<&'static str> {
        let seen = self.seen.lock().expect("seen");
        seen.iter().map(|step| step.status().as_str()).collect()
    }
}

/// Tokio's time is stopped, so that the steps count as quick even on a busy machine.
#[tokio::test(start_paused = true)]
async fn computing_steps_are_committed_together() {
    let calls = Counted::calls_of(&["echo", "echo", "echo", "effect", "effect"]).await;
    // The three commits: all computing steps with the first effect's intent; the first result with the second
    // intent; the second result and the end.
    assert_eq!(calls, ["create", "commit", "commit", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn the_intent_of_every_effect_is_committed_before_it_begins() {
    let calls = Counted::calls_of(&["effect"; 5]).await;
    // Six commits: the first intent; four results, each with the next intent; the last result and the end.
    let commits = ["commit"; 6];
    assert_eq!(calls, [&["create"], &commits[..]].concat());
}

#[tokio::test(start_paused = true)]
async fn an_effect_begins_after_the_steps_before_it_are_stored() {
    let it = Counted::new();
    let _workers = it.world.workers();
    let id = it.start(&["echo", "sees"]).await;
    it.world.until_completed(id).await;
    assert_eq!(it.seen(), ["success", "running"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_is_committed_before_it_begins() {
    let calls = Counted::calls_of(&["fails_once"]).await;
    // Four commits: the intent of the first attempt; its failure; the intent of the second attempt; the end.
    assert_eq!(calls, ["create", "commit", "commit", "commit", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_with_free_workers_claims_the_execution_that_it_creates() {
    let it = Counted::new();
    let _workers = it.world.workers();
    // Let the workers look for work first, so that they are idle.
    tokio::task::yield_now().await;
    let claims = it.claims.load(Ordering::SeqCst);
    let id = it.start(&["echo"]).await;
    it.world.until_completed(id).await;
    assert_eq!(it.claims.load(Ordering::SeqCst), claims);
}

#[tokio::test(start_paused = true)]
async fn an_execution_waits_in_line_while_no_worker_is_free() {
    let it = Counted::new();
    let _workers = it.world.workers_with(WorkerOptions::concurrency(1));
    tokio::task::yield_now().await;
    let first = it.start(&["gated"]).await;
    let second = it.start(&["gated"]).await;
    assert_eq!(it.world.engine.active_executions(), 1);
    for id in [first, second] {
        it.gate.notify_one();
        it.world.until_completed(id).await;
    }
}

#[tokio::test]
async fn a_long_step_is_published_while_it_runs() {
    let it = Counted::new();
    let _workers = it.world.workers();
    let id = it.start(&["echo", "gated"]).await;
    let begins = |data: &EventData| matches!(data, EventData::StepStarted { node_id, .. } if node_id == "n1");
    it.world.until(id, |event| begins(&event.data)).await;
    it.gate.notify_one();
    it.world.until_completed(id).await;
}

#[tokio::test]
async fn after_a_takeover_each_step_is_committed_before_it_begins() {
    let it = Counted::new();
    let id = it.start(&["looks"]).await;
    // A worker claims the execution and dies: its lease has expired.
    let long_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 60_000);
    let gone = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: long_ago,
        lease_until: long_ago + Duration::from_secs(1),
    };
    let claim = it.store.claim(gone).await.expect("claims");
    assert_eq!(claim.claimed.len(), 1);
    let _workers = it.world.workers();
    it.world.until_completed(id).await;
    assert_eq!(it.seen(), ["running"], "a death in it would be counted");
    let query = EventQuery::of(it.world.organization, id);
    let events = it.store.events(query).await.expect("reads");
    assert!((1..).zip(&events).all(|(seq, event)| event.seq == seq));
}
