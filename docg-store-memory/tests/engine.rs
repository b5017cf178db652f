//! The engine on the memory adapters, seen from outside: faults of handlers, control, takeover,
//! shutdown.
//!
//! Tokio's time is stopped, and moves only while nobody has something to do: a busy machine ends no grace.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    engine::{
        ControlAnswer, ControlRequest, EngineBuilder, EngineError, IdempotencyKey, Repair,
        RetryRequest, StartRequest, StepRef, WorkerOptions, Workers,
    },
    error::codes,
    event::{Event, EventData},
    i18n::Locale,
    observe::{Actor, LogLevel},
    prelude::*,
    query::{AuditQuery, ExecutionRecord, LogQuery},
    run::{StepStatus, WaitKind},
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

struct World {
    engine: Engine,
    workers: Option<Workers>,
    organization: OrganizationId,
    actor: Actor,
}

/// What handlers of these tests share.
#[derive(Default)]
struct Shared {
    /// How often an effect has begun.
    effects: AtomicUsize,
    /// Lets a gated handler end.
    gate: Notify,
    /// Says that a gated handler has begun.
    begun: Notify,
}

fn builder(shared: &Arc<Shared>) -> EngineBuilder {
    let spec = |name: &'static str| {
        NodeSpec::new(name, Phase::Render).param(ParamSpec::optional("in", ParamKind::Json))
    };
    let effect_of = |name: &'static str, shared: &Arc<Shared>| {
        let shared = Arc::clone(shared);
        effect(
            spec(name).any_phase(),
            move |context: EffectContext, _: Value| {
                let shared = Arc::clone(&shared);
                async move {
                    shared.effects.fetch_add(1, Ordering::SeqCst);
                    shared.begun.notify_one();
                    match &*context.node_id.to_string() {
                        "panics" => panic!("a defect with details"),
                        "hangs" => std::future::pending().await,
                        "gated" => shared.gate.notified().await,
                        "polite" => context.cancellation.cancelled().await,
                        _ => {}
                    }
                    StepOutcome::done(json!({"done": true}))
                }
            },
        )
    };
    Engine::builder(
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryBus::default()),
    )
    .step(compute(spec("echo"), |_, p: Value| async move { Ok(p) }))
    .step(compute(spec("compute-panics"), |_, _: Value| async move {
        if true {
            panic!("a defect with details")
        }
        Ok(json!({}))
    }))
    .step(effect_of("effect", shared))
    .step(effect_of("probed", shared).probe(|_, _| async { Probe::NotDone }))
    .options(|options| {
        options.cancel_grace = Duration::from_millis(100);
        options.lease = Duration::from_secs(5);
    })
}

impl World {
    fn new(shared: &Arc<Shared>) -> Self {
        let engine = builder(shared).build();
        let workers = Some(
            engine
                .start_workers(WorkerOptions::default())
                .expect("no other workers run"),
        );
        Self {
            engine,
            workers,
            organization: OrganizationId::new(),
            actor: Actor::user("somebody"),
        }
    }

    async fn start(&self, nodes: Value) -> ExecutionId {
        let workflow = WorkflowId::new();
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}))
            .expect("a readable definition");
        self.engine
            .put_workflow(self.organization, workflow, draft, None)
            .await
            .expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, self.actor.clone());
        self.engine
            .start(request.trigger_data(json!({"amount": 5})))
            .await
            .expect("accepted")
            .record
            .execution
            .id
    }

    fn control(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, self.actor.clone())
    }

    async fn record(&self, id: ExecutionId) -> ExecutionRecord {
        self.engine
            .execution(self.organization, id)
            .await
            .expect("stored")
    }

    /// Reads the feed until an event fits.
    async fn until(&self, id: ExecutionId, fits: impl Fn(&Event) -> bool) -> Vec<Arc<Event>> {
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("a feed");
        let mut events = Vec::new();
        let reading = async {
            while let Some(event) = feed.next().await {
                let event = event.expect("readable");
                let found = fits(&event);
                events.push(event);
                if found {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("it happens");
        events
    }

    async fn until_rest(&self, id: ExecutionId) -> Vec<Arc<Event>> {
        self.until(id, |event| {
            event.status.is_terminal() && !matches!(event.data, EventData::StatusChanged { .. })
                || matches!(
                    event.data,
                    EventData::StatusChanged {
                        to: Status::NeedsReview,
                        ..
                    }
                )
        })
        .await
    }
}

fn applied(answer: ControlAnswer) -> ExecutionRecord {
    match answer {
        ControlAnswer::Applied(record) => *record,
        ControlAnswer::Pending => panic!("this process holds it and applies the call"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_ends_in_an_error_context_and_the_engine_goes_on() {
    let world = World::new(&Arc::default());
    let id = world
        .start(json!([{"id": "n", "type": "compute-panics", "retry": {"max_attempts": 1}}]))
        .await;
    world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    assert_eq!(execution.status, Status::Failed);
    let error = execution.error.clone().expect("an error");
    assert_eq!(error.code, codes::HANDLER_PANICKED);
    assert!(
        !error.human.render(Locale::En).contains("defect"),
        "people see no technical text"
    );
    assert_eq!(error.tech.as_deref(), Some("a defect with details"));
    let steps = world
        .engine
        .steps(world.organization, id)
        .await
        .expect("steps");
    assert!(
        !world
            .engine
            .recommended_actions(&execution, &steps)
            .is_empty(),
        "never without an action"
    );
    let next = world.start(json!([{"id": "n", "type": "echo"}])).await;
    world.until_rest(next).await;
    assert_eq!(world.record(next).await.execution.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_panics_is_probed_and_repeated_only_as_often_as_the_policy_says() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let retry = json!({"max_attempts": 2, "initial_ms": 1});
    let id = world
        .start(json!([{"id": "panics", "type": "probed", "phase": "delivery", "retry": retry}]))
        .await;
    world.until_rest(id).await;
    assert_eq!(world.record(id).await.execution.status, Status::Failed);
    assert_eq!(shared.effects.load(Ordering::SeqCst), 2);
    // Without a probe nobody knows, and a person is asked.
    let id = world
        .start(json!([{"id": "panics", "type": "effect", "phase": "delivery", "retry": retry}]))
        .await;
    world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    assert_eq!(
        (
            execution.status,
            execution.error.expect("an error").code.as_ref()
        ),
        (Status::NeedsReview, codes::OUTCOME_UNKNOWN)
    );
    assert_eq!(shared.effects.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_is_given_up_at_its_deadline() {
    let world = World::new(&Arc::default());
    let node = json!({"id": "hangs", "type": "probed", "phase": "save", "timeout_ms": 50, "retry": {"max_attempts": 1}});
    let id = world.start(json!([node])).await;
    world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    assert_eq!(execution.error.expect("an error").code, codes::TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_running_handler_at_once() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let id = world.start(json!([{"id": "polite", "type": "effect", "phase": "delivery"}, {"id": "n", "type": "echo"}])).await;
    shared.begun.notified().await;
    let record = applied(
        world
            .engine
            .cancel(world.control(id), Some("wrong".to_owned()))
            .await
            .expect("allowed"),
    );
    assert_eq!(record.execution.status, Status::Canceled);
    let steps = world
        .engine
        .steps(world.organization, id)
        .await
        .expect("steps");
    assert_eq!(
        steps[0].status(),
        StepStatus::Success,
        "it ended in its grace time, and that is recorded"
    );
    assert_eq!(steps[1].status(), StepStatus::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_cancellation_is_dropped_after_the_grace_time() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    for (node_type, code, human) in [
        ("effect", codes::CANCELED, "not known"),
        ("probed", codes::CANCELED, "cancel"),
    ] {
        let id = world
            .start(json!([{"id": "hangs", "type": node_type, "phase": "delivery"}]))
            .await;
        shared.begun.notified().await;
        let record = applied(
            world
                .engine
                .cancel(world.control(id), None)
                .await
                .expect("allowed"),
        );
        assert_eq!(record.execution.status, Status::Canceled);
        let steps = world
            .engine
            .steps(world.organization, id)
            .await
            .expect("steps");
        let error = steps[0].error.clone().expect("what became of it");
        assert_eq!(error.code, code);
        let text = error.human.render(Locale::En).to_lowercase();
        assert!(text.contains(human), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_too_late_is_refused_though_it_was_right_when_it_was_made() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let id = world
        .start(json!([{"id": "hangs", "type": "effect", "phase": "delivery"}]))
        .await;
    shared.begun.notified().await;
    // The pause is let in while the cancel gives the handler its time.
    let (canceled, paused) = tokio::join!(
        world.engine.cancel(world.control(id), None),
        world.engine.pause(world.control(id), None),
    );
    let record = applied(canceled.expect("allowed"));
    assert_eq!(record.execution.status, Status::Canceled);
    let refused = paused.expect_err("it has ended");
    assert!(
        matches!(refused, EngineError::InvalidTransition { from, .. } if from == Status::Canceled),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn canceling_what_is_canceled_and_pausing_what_is_paused_change_nothing() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let id = world
        .start(json!([{"id": "gated", "type": "effect", "phase": "delivery"}]))
        .await;
    shared.begun.notified().await;
    for _ in 0..2 {
        let record = applied(
            world
                .engine
                .pause(world.control(id), None)
                .await
                .expect("allowed"),
        );
        assert_eq!(record.execution.status, Status::Paused);
        assert_eq!(
            record.execution.waiting_for.expect("a reason").kind,
            WaitKind::Pause
        );
    }
    shared.gate.notify_one();
    world
        .until(id, |event| {
            matches!(event.data, EventData::StepCompleted { .. })
        })
        .await;
    assert_eq!(
        world.record(id).await.execution.status,
        Status::Paused,
        "no other step begins"
    );
    applied(
        world
            .engine
            .cancel(world.control(id), None)
            .await
            .expect("allowed"),
    );
    let before = world.record(id).await.execution;
    applied(
        world
            .engine
            .cancel(world.control(id), None)
            .await
            .expect("no change"),
    );
    assert_eq!(world.record(id).await.execution, before);
    let refused = world
        .engine
        .pause(world.control(id), None)
        .await
        .expect_err("ended");
    let EngineError::InvalidTransition { from, allowed } = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (
            from,
            allowed.iter().map(|call| call.as_str()).collect::<Vec<_>>()
        ),
        (Status::Canceled, vec!["retry"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_version_that_is_gone_is_refused() {
    let world = World::new(&Arc::default());
    let id = world
        .start(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.missing}}"}}]))
        .await;
    world.until_rest(id).await;
    let mut request = world.control(id);
    request.if_version = Some(0);
    let error = world
        .engine
        .cancel(request, None)
        .await
        .expect_err("changed since");
    assert!(
        matches!(error, EngineError::VersionMismatch { expected: 0, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_preflight_finds_is_repaired_through_resume() {
    let world = World::new(&Arc::default());
    let id = world
        .start(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]))
        .await;
    world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    assert_eq!(execution.status, Status::NeedsReview);
    let actions = world.engine.recommended_actions(&execution, &[]);
    assert_eq!(actions[0].action, "map_fields");
    let mut unknown = Repair::default();
    unknown.nodes = json!({"other": {}})
        .as_object()
        .cloned()
        .unwrap_or_default();
    let error = world
        .engine
        .resume(world.control(id), unknown.into())
        .await
        .expect_err("no such node");
    assert!(
        matches!(error, EngineError::InvalidInput(faults) if faults[0].pointer == "/changes/nodes/other")
    );
    let change = Repair::default().trigger_data("customer", json!("c"));
    applied(
        world
            .engine
            .resume(world.control(id), change.into())
            .await
            .expect("allowed"),
    );
    world
        .until(id, |event| {
            matches!(event.data, EventData::Completed { .. })
        })
        .await;
    let steps = world
        .engine
        .steps(world.organization, id)
        .await
        .expect("steps");
    assert_eq!(
        steps[0].data_out.clone().expect("shown"),
        json!({"in": "c"})
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_from_a_step_reuses_the_outputs_before_it() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let nodes = json!([
        {"id": "first", "type": "effect", "phase": "save"},
        {"id": "panics", "type": "compute-panics", "retry": {"max_attempts": 1}},
    ]);
    let id = world.start(nodes).await;
    world.until_rest(id).await;
    let mut how = RetryRequest::default();
    how.from_step = Some(StepRef::Node("panics".to_owned()));
    let retried = world
        .engine
        .retry(world.control(id), how)
        .await
        .expect("allowed")
        .record
        .execution;
    assert_eq!((retried.retry_of, retried.attempt), (Some(id), 2));
    world.until_rest(retried.id).await;
    let steps = world
        .engine
        .steps(world.organization, retried.id)
        .await
        .expect("steps");
    assert_eq!(
        (steps[0].status(), steps[0].attempt, steps[0].reused_from),
        (StepStatus::Success, 0, Some(id))
    );
    assert_eq!(
        shared.effects.load(Ordering::SeqCst),
        1,
        "the effect is not repeated"
    );
    let mut beyond = RetryRequest::default();
    beyond.from_step = Some(StepRef::Position(9));
    assert!(matches!(
        world.engine.retry(world.control(id), beyond).await,
        Err(EngineError::InvalidInput(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_calls_no_effect() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let workflow = WorkflowId::new();
    let nodes = json!([{"id": "a", "type": "echo"}, {"id": "b", "type": "effect", "phase": "render"}, {"id": "c", "type": "effect", "phase": "delivery"}]);
    let draft = serde_json::from_value(json!({"name": "t", "nodes": nodes})).expect("readable");
    world
        .engine
        .put_workflow(world.organization, workflow, draft, None)
        .await
        .expect("valid");
    let mut request = StartRequest::new(world.organization, workflow, world.actor.clone());
    request.dry_run = true;
    let id = world
        .engine
        .start(request)
        .await
        .expect("accepted")
        .record
        .execution
        .id;
    world.until_rest(id).await;
    assert_eq!(world.record(id).await.execution.status, Status::Completed);
    assert_eq!(shared.effects.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_request_with_the_same_idempotency_key_gives_the_same_execution() {
    let world = World::new(&Arc::default());
    let workflow = WorkflowId::new();
    let draft =
        serde_json::from_value(json!({"name": "t", "nodes": [{"id": "a", "type": "echo"}]}))
            .expect("readable");
    world
        .engine
        .put_workflow(world.organization, workflow, draft, None)
        .await
        .expect("valid");
    let request = || {
        StartRequest::new(world.organization, workflow, world.actor.clone())
            .trigger_data(json!({"a": 1, "b": {"c": 2, "d": 3}}))
    };
    let start = |request: StartRequest| world.engine.start(request.idempotency_key("k"));
    let first = start(request()).await.expect("accepted");
    let id = first.record.execution.id;
    assert!(first.created);
    // Who asks, and for which chain of calls, is no part of the request. The order of fields is none either.
    let mut other = request().correlation_id("other").traceparent("other");
    other.actor = Actor::user("other");
    let reordered = request().trigger_data(json!({"b": {"d": 3, "c": 2}, "a": 1}));
    for same in [request(), other, reordered] {
        let again = start(same).await.expect("the same");
        assert_eq!((again.created, again.record.execution.id), (false, id));
    }
    let of = |workflow| StartRequest::new(world.organization, workflow, world.actor.clone());
    for another in [
        of(workflow),
        request().trigger_data(json!({"a": 1})),
        request().trigger_type("other"),
        request().dry_run(),
        request().until_phase(Phase::Render),
    ] {
        let refused = start(another.clone()).await;
        assert!(
            matches!(refused, Err(EngineError::KeyReused)),
            "{another:?}"
        );
    }

    // A retry has its own content, also under a key of its own.
    world.until_rest(id).await;
    let retry = |how: RetryRequest| world.engine.retry(world.control(id), how);
    let taken = retry(RetryRequest::default().idempotency_key("k")).await;
    assert!(matches!(taken, Err(EngineError::KeyReused)));
    let keyed = || RetryRequest::default().idempotency_key("r");
    let first = retry(keyed()).await.expect("it has ended");
    let again = retry(keyed().correlation_id("other")).await.expect("again");
    assert_eq!((first.created, again.created), (true, false));
    assert_eq!(first.record.execution.id, again.record.execution.id);
    for another in [
        keyed().trigger_data(json!({})),
        keyed().from_step(StepRef::Position(0)),
        keyed().dry_run(true),
        keyed().until_phase(Phase::Render),
    ] {
        let refused = retry(another.clone()).await;
        assert!(
            matches!(refused, Err(EngineError::KeyReused)),
            "{another:?}"
        );
    }

    // A caller may give the content to compare.
    let start = |content: &str, data| {
        let key = IdempotencyKey::of_content("c", content);
        world
            .engine
            .start(of(workflow).trigger_data(data).idempotency_key(key))
    };
    assert!(
        start("same", json!({"a": 1}))
            .await
            .expect("accepted")
            .created
    );
    assert!(
        !start("same", json!({"a": 2}))
            .await
            .expect("the first")
            .created
    );
    let other = start("other", json!({"a": 1})).await;
    assert!(matches!(other, Err(EngineError::KeyReused)));
}

/// For whom the lease of a process that died has expired.
fn an_hour_later() -> Arc<dyn Clock> {
    let later = Timestamp::now() + Duration::from_secs(3_600);
    Arc::new(ManualClock::new(later))
}

#[tokio::test]
async fn a_worker_that_disappears_is_taken_over_and_the_effect_is_asked_about() {
    let shared = Arc::new(Shared::default());
    let store = Arc::new(MemoryStore::default());
    let bus = Arc::new(MemoryBus::default());
    let asked = Arc::new(AtomicUsize::new(0));
    let engine = |shared: &Arc<Shared>, clock: Arc<dyn Clock>| {
        let (shared, asked) = (Arc::clone(shared), Arc::clone(&asked));
        let quick = NodeSpec::new("quick", Phase::Delivery);
        Engine::builder(Arc::clone(&store) as _, Arc::clone(&bus) as _)
            .step(effect(quick, |_, _: Value| async {
                StepOutcome::done(json!({}))
            }))
            .step(
                effect(
                    NodeSpec::new("effect", Phase::Delivery),
                    move |context: EffectContext, _: Value| {
                        let shared = Arc::clone(&shared);
                        async move {
                            let first = shared.effects.fetch_add(1, Ordering::SeqCst) == 0;
                            shared.begun.notify_one();
                            if first {
                                std::future::pending::<()>().await;
                            }
                            StepOutcome::done(json!({"fence": context.fencing_token()}))
                        }
                    },
                )
                .probe(move |_, _| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    async { Probe::NotDone }
                }),
            )
            .clock(clock)
            .build()
    };
    // The first process lives in a runtime of its own, which is dropped with everything in it.
    let doomed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let first = engine(&shared, Arc::new(SystemClock));
    let id = doomed
        .spawn(async move {
            let draft = serde_json::from_value(json!({"name": "t", "nodes": [
                {"id": "first", "type": "quick"}, {"id": "send", "type": "effect"},
            ]}))
            .expect("readable");
            first
                .put_workflow(organization, workflow, draft, None)
                .await
                .expect("valid");
            let id = first
                .start(StartRequest::new(organization, workflow, Actor::system()))
                .await
                .expect("accepted")
                .record
                .execution
                .id;
            std::mem::forget(
                first
                    .start_workers(WorkerOptions::default())
                    .expect("no other workers run"),
            );
            id
        })
        .await
        .expect("started");
    shared.begun.notified().await;
    doomed.shutdown_background();
    let second = engine(&shared, an_hour_later());
    let workers = second
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let world = World {
        engine: second,
        workers: Some(workers),
        organization,
        actor: Actor::system(),
    };
    world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    assert_eq!(execution.status, Status::Completed);
    let steps = world.engine.steps(organization, id).await.expect("steps");
    assert_eq!(
        (steps[1].attempt, steps[1].takeovers),
        (1, 1),
        "a dead worker uses up no attempt"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(
        steps[1].data_out.clone().expect("shown").to_value()["fence"].as_u64() > Some(1),
        "the new holder's fence is higher"
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_handlers_within_their_grace_and_hands_the_rest_back() {
    let shared = Arc::new(Shared::default());
    let mut world = World::new(&shared);
    let polite = world.start(json!([{"id": "polite", "type": "effect", "phase": "save"}, {"id": "next", "type": "echo"}])).await;
    shared.begun.notified().await;
    let hangs = world
        .start(json!([{"id": "hangs", "type": "probed", "phase": "save", "timeout_ms": 60000}]))
        .await;
    shared.begun.notified().await;
    world.workers.take().expect("running").shutdown().await;
    let steps = world
        .engine
        .steps(world.organization, polite)
        .await
        .expect("steps");
    assert_eq!(
        (steps[0].status(), steps[1].status()),
        (StepStatus::Success, StepStatus::Pending),
        "nothing new begins"
    );
    assert_eq!(world.record(hangs).await.execution.status, Status::Running);
    // What was handed back is due at once, for whoever comes.
    let _workers = world
        .engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world
        .until(polite, |event| {
            matches!(event.data, EventData::Completed { .. })
        })
        .await;
    shared.begun.notified().await;
    applied(
        world
            .engine
            .cancel(world.control(hangs), None)
            .await
            .expect("allowed"),
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_run_leaves_behind_is_whole() {
    let shared = Arc::new(Shared::default());
    let world = World::new(&shared);
    let nodes = json!([
        {"id": "a", "type": "echo", "params": {"in": {"api_key": "canary", "total": "{{trigger.amount}}"}}},
        {"id": "b", "type": "effect", "phase": "delivery"},
    ]);
    let id = world.start(nodes).await;
    let events = world.until_rest(id).await;
    let execution = world.record(id).await.execution;
    // Events are contiguous and fold to the state.
    assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    assert_eq!(
        events.last().map(|event| (event.status, event.progress)),
        Some((execution.status, execution.progress))
    );
    // Replaying from the middle gives the rest and ends.
    let rest: Vec<_> = world
        .engine
        .feed(world.organization, id, 4)
        .await
        .expect("a feed")
        .collect()
        .await;
    assert_eq!(rest.len(), events.len() - 4);
    // Logs say in plain words what happened.
    let query = LogQuery::of(world.organization, id);
    let logs = world.engine.logs(query).await.expect("logs").items;
    assert!(logs.iter().all(|entry| entry.level == LogLevel::Ok));
    assert!(
        logs.iter()
            .all(|entry| !entry.message_human.render(Locale::PtBr).contains("log-")),
        "every text has words"
    );
    // The audit trail verifies and names each change of status.
    let report = world
        .engine
        .verify_audit(world.organization, id)
        .await
        .expect("readable");
    assert_eq!(
        (report.fault, report.head_hash),
        (None, execution.heads.audit_hash)
    );
    let query = AuditQuery::of(world.organization, id);
    let rows = world.engine.audit(query).await.expect("rows").items;
    let changes = events
        .iter()
        .filter(|event| matches!(event.data, EventData::StatusChanged { .. }))
        .count();
    assert_eq!(
        rows.iter()
            .filter(|row| row.metadata.to_value().get("from").is_some())
            .count(),
        changes
    );
    // Each phase has its metrics.
    let phases: BTreeMap<_, _> = execution
        .phase_metrics
        .iter()
        .map(|(phase, times)| (phase.as_str(), times.completed_at))
        .collect();
    assert_eq!(
        phases.keys().copied().collect::<Vec<_>>(),
        ["delivery", "preflight", "render"]
    );
    assert!(phases.values().all(Option::is_some));
    // Secrets are hidden wherever a reader looks.
    let steps = world
        .engine
        .steps(world.organization, id)
        .await
        .expect("steps");
    let shown = json!([
        steps[0].data_in,
        steps[0].data_out,
        events
            .iter()
            .map(|e| e.encode(Locale::En))
            .collect::<Vec<_>>()
    ]);
    assert!(!shown.to_string().contains("canary"), "{shown:#}");
}

#[tokio::test(start_paused = true)]
async fn another_organization_finds_nothing() {
    let world = World::new(&Arc::default());
    let id = world.start(json!([{"id": "a", "type": "echo"}])).await;
    world.until_rest(id).await;
    let other = OrganizationId::new();
    let not_found =
        |result: Result<(), EngineError>| assert!(matches!(result, Err(EngineError::NotFound(_))));
    not_found(world.engine.execution(other, id).await.map(|_| ()));
    not_found(world.engine.steps(other, id).await.map(|_| ()));
    not_found(world.engine.feed(other, id, 0).await.map(|_| ()));
    not_found(world.engine.verify_audit(other, id).await.map(|_| ()));
    not_found(
        world
            .engine
            .cancel(ControlRequest::new(other, id, world.actor.clone()), None)
            .await
            .map(|_| ()),
    );
}
