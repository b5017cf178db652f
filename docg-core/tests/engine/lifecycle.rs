//! The life of an execution: faults of handlers, control calls, retries, takeovers, shutdown, and its records.
//!
//! Tokio's time is stopped, and moves on only if every task is idle, so that no grace time ends early on a
//! busy machine.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    engine::{EngineError, Repair, RetryRequest, StepRef},
    error::codes,
    event::EventData,
    i18n::Locale,
    observe::LogLevel,
    prelude::*,
    query::{AuditQuery, LogQuery},
    run::{Execution, StepStatus, WaitKind},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::world::{World, an_hour_later, applied, builder, echo};

/// The state that a test and its effects' handlers share.
#[derive(Default)]
struct Shared {
    /// How often an effect has begun.
    effects: AtomicUsize,
    /// Notified by the test to let a `gated` handler end.
    gate: Notify,
    /// Notified by an effect's handler when it begins.
    begun: Notify,
}

impl Shared {
    fn effects(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }
}

/// A world with handlers that behave as their node's id says: `panics`, `hangs`, `gated`, `polite`.
fn world(shared: &Arc<Shared>) -> World {
    let spec = |name: &'static str| {
        NodeSpec::new(name, Phase::Render).param(ParamSpec::optional("in", ParamKind::Json))
    };
    let effect_of = |name: &'static str| {
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
    let builder = builder()
        .step(echo(spec("echo")))
        .step(compute(spec("compute-panics"), |_, _: Value| async move {
            if true {
                panic!("a defect with details")
            }
            Ok(json!({}))
        }))
        .step(effect_of("effect"))
        .step(effect_of("probed").probe(|_, _| async { Probe::NotDone }))
        .options(|options| {
            options.cancel_grace = Duration::from_millis(100);
            options.lease = Duration::from_secs(5);
        });
    World::new(builder)
}

async fn pause(world: &World, id: ExecutionId) -> Result<Execution, EngineError> {
    let answer = world.engine.pause(world.control(id), None).await;
    answer.map(applied)
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_ends_in_an_error_context_and_the_engine_goes_on() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let node = json!({"id": "n", "type": "compute-panics", "retry": {"max_attempts": 1}});
    let id = world.start(json!([node])).await;
    world.until_rest(id).await;
    let execution = world.execution(id).await;
    assert_eq!(execution.status, Status::Failed);
    let error = execution.error.clone().expect("an error");
    assert_eq!(error.code, codes::HANDLER_PANICKED);
    assert!(
        !error.human.render(Locale::En).contains("defect"),
        "people see no technical text"
    );
    assert_eq!(error.tech.as_deref(), Some("a defect with details"));
    let steps = world.steps(id).await;
    let actions = world.engine.recommended_actions(&execution, &steps);
    assert!(!actions.is_empty(), "never without an action");
    let next = world.start(json!([{"id": "n", "type": "echo"}])).await;
    world.until_rest(next).await;
    assert_eq!(world.execution(next).await.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_panics_is_probed_and_repeated_only_as_often_as_the_policy_says() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let node = |node_type: &str| {
        let retry = json!({"max_attempts": 2, "initial_ms": 1});
        json!([{"id": "panics", "type": node_type, "phase": "delivery", "retry": retry}])
    };
    let id = world.start(node("probed")).await;
    world.until_rest(id).await;
    assert_eq!(world.execution(id).await.status, Status::Failed);
    assert_eq!(shared.effects(), 2);
    // The effect has no probe, so the outcome stays unknown and a person has to decide.
    let id = world.start(node("effect")).await;
    world.until_rest(id).await;
    let execution = world.execution(id).await;
    assert_eq!(execution.status, Status::NeedsReview);
    let error = execution.error.expect("an error");
    assert_eq!(error.code, codes::OUTCOME_UNKNOWN);
    assert_eq!(shared.effects(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_times_out_at_its_deadline() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let retry = json!({"max_attempts": 1});
    let node =
        json!({"id": "hangs", "type": "probed", "phase": "save", "timeout_ms": 50, "retry": retry});
    let id = world.start(json!([node])).await;
    world.until_rest(id).await;
    let error = world.execution(id).await.error;
    assert_eq!(error.expect("an error").code, codes::TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_running_handler_at_once() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let polite = json!({"id": "polite", "type": "effect", "phase": "delivery"});
    let id = world
        .start(json!([polite, {"id": "n", "type": "echo"}]))
        .await;
    shared.begun.notified().await;
    let reason = Some("wrong".to_owned());
    let canceled = world.engine.cancel(world.control(id), reason).await;
    let execution = applied(canceled.expect("allowed"));
    assert_eq!(execution.status, Status::Canceled);
    let steps = world.steps(id).await;
    assert_eq!(
        steps[0].status(),
        StepStatus::Success,
        "it ended in its grace time, and that is recorded"
    );
    assert_eq!(steps[1].status(), StepStatus::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_cancellation_is_dropped_after_the_grace_time() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    for (node_type, human) in [("effect", "not known"), ("probed", "cancel")] {
        let node = json!({"id": "hangs", "type": node_type, "phase": "delivery"});
        let id = world.start(json!([node])).await;
        shared.begun.notified().await;
        assert_eq!(world.cancel(id).await.status, Status::Canceled);
        let steps = world.steps(id).await;
        let error = steps[0].error.clone().expect("an error");
        assert_eq!(error.code, codes::CANCELED);
        let text = error.human.render(Locale::En).to_lowercase();
        assert!(text.contains(human), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_applied_after_a_cancel_is_refused() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let node = json!({"id": "hangs", "type": "effect", "phase": "delivery"});
    let id = world.start(json!([node])).await;
    shared.begun.notified().await;
    // The pause enters the inbox while the cancel waits for the handler's grace time.
    let (canceled, paused) = tokio::join!(world.cancel(id), pause(&world, id));
    assert_eq!(canceled.status, Status::Canceled);
    let refused = paused.expect_err("it has ended");
    assert!(
        matches!(refused, EngineError::InvalidTransition { from, .. } if from == Status::Canceled),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn canceling_a_canceled_execution_and_pausing_a_paused_one_change_nothing() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let node = json!({"id": "gated", "type": "effect", "phase": "delivery"});
    let id = world.start(json!([node])).await;
    shared.begun.notified().await;
    for _ in 0..2 {
        let execution = pause(&world, id).await.expect("allowed");
        assert_eq!(execution.status, Status::Paused);
        let waiting_for = execution.waiting_for.expect("a reason");
        assert_eq!(waiting_for.kind, WaitKind::Pause);
    }
    shared.gate.notify_one();
    world.until_event(id, "step.completed").await;
    assert_eq!(
        world.execution(id).await.status,
        Status::Paused,
        "no other step begins"
    );
    world.cancel(id).await;
    let before = world.execution(id).await;
    world.cancel(id).await;
    assert_eq!(world.execution(id).await, before);
    let refused = pause(&world, id).await.expect_err("ended");
    let EngineError::InvalidTransition { from, allowed } = refused else {
        panic!("{refused}")
    };
    let allowed: Vec<_> = allowed.iter().map(|call| call.as_str()).collect();
    assert_eq!((from, allowed), (Status::Canceled, vec!["retry"]));
}

#[tokio::test(start_paused = true)]
async fn a_call_on_an_outdated_version_is_refused() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let node = json!({"id": "n", "type": "echo", "params": {"in": "{{trigger.missing}}"}});
    let id = world.start(json!([node])).await;
    world.until_rest(id).await;
    let mut request = world.control(id);
    request.if_version = Some(0);
    let canceled = world.engine.cancel(request, None).await;
    let error = canceled.expect_err("changed since");
    assert!(
        matches!(error, EngineError::VersionMismatch { expected: 0, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_preflight_issue_is_repaired_through_resume() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let node = json!({"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}});
    let id = world.start(json!([node])).await;
    world.until_rest(id).await;
    let execution = world.execution(id).await;
    assert_eq!(execution.status, Status::NeedsReview);
    let actions = world.engine.recommended_actions(&execution, &[]);
    assert_eq!(actions[0].action, "map_fields");
    let resume = |repair: Repair| world.engine.resume(world.control(id), repair.into());
    let mut unknown = Repair::default();
    unknown.nodes = [("other".to_owned(), json!({}))].into_iter().collect();
    let error = resume(unknown).await.expect_err("no such node");
    assert!(
        matches!(error, EngineError::InvalidInput(faults) if faults[0].pointer == "/changes/nodes/other")
    );
    let change = Repair::default().trigger_data("customer", json!("c"));
    applied(resume(change).await.expect("allowed"));
    world.until_completed(id).await;
    let steps = world.steps(id).await;
    let shown = steps[0].data_out.clone().expect("shown");
    assert_eq!(shown, json!({"in": "c"}));
}

#[tokio::test(start_paused = true)]
async fn a_retry_from_a_step_reuses_the_outputs_before_it() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let nodes = json!([
        {"id": "first", "type": "effect", "phase": "save"},
        {"id": "panics", "type": "compute-panics", "retry": {"max_attempts": 1}},
    ]);
    let id = world.start(nodes).await;
    world.until_rest(id).await;
    let retry = |from| {
        let retry = RetryRequest::default().from_step(from);
        world.engine.retry(world.control(id), retry)
    };
    let retried = retry(StepRef::Node("panics".to_owned())).await;
    let retried = retried.expect("allowed").record.execution;
    assert_eq!((retried.retry_of, retried.attempt), (Some(id), 2));
    world.until_rest(retried.id).await;
    let steps = world.steps(retried.id).await;
    assert_eq!(
        (steps[0].status(), steps[0].attempt, steps[0].reused_from),
        (StepStatus::Success, 0, Some(id))
    );
    assert_eq!(shared.effects(), 1, "the effect is not repeated");
    let beyond = retry(StepRef::Position(9)).await;
    assert!(matches!(beyond, Err(EngineError::InvalidInput(_))));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_calls_no_effect() {
    let shared = Arc::default();
    let world = world(&shared);
    let _workers = world.workers();
    let nodes = json!([
        {"id": "a", "type": "echo"},
        {"id": "b", "type": "effect", "phase": "render"},
        {"id": "c", "type": "effect", "phase": "delivery"},
    ]);
    let workflow = world.put(nodes).await;
    let id = world.accept(world.request(workflow).dry_run()).await;
    world.until_rest(id).await;
    assert_eq!(world.execution(id).await.status, Status::Completed);
    assert_eq!(shared.effects(), 0);
}

#[tokio::test]
async fn the_successor_of_a_dead_worker_probes_the_effect() {
    let shared = Arc::<Shared>::default();
    let (store, bus) = (Arc::<MemoryStore>::default(), Arc::<MemoryBus>::default());
    let probes = Arc::new(AtomicUsize::new(0));
    let process = || {
        let (shared, probes) = (Arc::clone(&shared), Arc::clone(&probes));
        let quick = NodeSpec::new("quick", Phase::Delivery);
        let handler = effect(
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
        );
        Engine::builder(store.clone(), bus.clone())
            .step(effect(quick, |_, _: Value| async {
                StepOutcome::done(json!({}))
            }))
            .step(handler.probe(move |_, _| {
                probes.fetch_add(1, Ordering::SeqCst);
                async { Probe::NotDone }
            }))
    };
    // The first process has its own runtime. Dropping the runtime kills the process.
    let doomed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let first = World::new(process());
    let second = first.beside(process().clock(an_hour_later()));
    let started = doomed.spawn(async move {
        let nodes = json!([{"id": "first", "type": "quick"}, {"id": "send", "type": "effect"}]);
        let id = first.start(nodes).await;
        std::mem::forget(first.workers());
        id
    });
    let id = started.await.expect("started");
    shared.begun.notified().await;
    doomed.shutdown_background();
    let _workers = second.workers();
    second.until_rest(id).await;
    assert_eq!(second.execution(id).await.status, Status::Completed);
    let steps = second.steps(id).await;
    assert_eq!(
        (steps[1].attempt, steps[1].takeovers),
        (1, 1),
        "a dead worker uses up no attempt"
    );
    assert_eq!(probes.load(Ordering::SeqCst), 1);
    let output = steps[1].data_out.clone().expect("shown").to_value();
    assert!(
        output["fence"].as_u64() > Some(1),
        "the successor's fencing token is higher"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_handlers_within_their_grace_time_and_releases_every_lease() {
    let shared = Arc::default();
    let world = world(&shared);
    let workers = world.workers();
    let polite = json!({"id": "polite", "type": "effect", "phase": "save"});
    let polite = world
        .start(json!([polite, {"id": "next", "type": "echo"}]))
        .await;
    shared.begun.notified().await;
    let hangs = json!({"id": "hangs", "type": "probed", "phase": "save", "timeout_ms": 60000});
    let hangs = world.start(json!([hangs])).await;
    shared.begun.notified().await;
    workers.shutdown().await;
    let steps = world.steps(polite).await;
    assert_eq!(
        (steps[0].status(), steps[1].status()),
        (StepStatus::Success, StepStatus::Pending),
        "no other step begins"
    );
    assert_eq!(world.execution(hangs).await.status, Status::Running);
    // The released executions are due at once, for any worker.
    let _workers = world.workers();
    world.until_completed(polite).await;
    shared.begun.notified().await;
    world.cancel(hangs).await;
}

#[tokio::test(start_paused = true)]
async fn the_records_of_an_execution_are_complete() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let nodes = json!([
        {"id": "a", "type": "echo", "params": {"in": {"api_key": "canary", "total": "{{trigger.amount}}"}}},
        {"id": "b", "type": "effect", "phase": "delivery"},
    ]);
    let id = world.start_with(nodes, json!({"amount": 5})).await;
    let events = world.until_rest(id).await;
    let execution = world.execution(id).await;
    // The events have no gap, and the last one shows the execution's status and progress.
    assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    assert_eq!(
        events.last().map(|event| (event.status, event.progress)),
        Some((execution.status, execution.progress))
    );
    // A feed that starts after event 4 brings the remaining events and ends.
    let rest = world.engine.feed(world.organization, id, 4).await;
    let rest: Vec<_> = rest.expect("a feed").collect().await;
    assert_eq!(rest.len(), events.len() - 4);
    // Every log entry has a text for people.
    let query = LogQuery::of(world.organization, id);
    let logs = world.engine.logs(query).await.expect("logs").items;
    assert!(logs.iter().all(|entry| entry.level == LogLevel::Ok));
    assert!(
        logs.iter()
            .all(|entry| !entry.message_human.render(Locale::PtBr).contains("log-")),
        "every text has words"
    );
    // The audit trail verifies and has a row for each change of status.
    let report = world.engine.verify_audit(world.organization, id).await;
    let report = report.expect("readable");
    assert_eq!(
        (report.fault, report.head_hash),
        (None, execution.heads.audit_hash)
    );
    let query = AuditQuery::of(world.organization, id);
    let rows = world.engine.audit(query).await.expect("rows").items;
    let rows = rows.iter().map(|row| row.metadata.to_value());
    let changes = events
        .iter()
        .filter(|event| matches!(event.data, EventData::StatusChanged { .. }));
    assert_eq!(
        rows.filter(|row| row.get("from").is_some()).count(),
        changes.count()
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
    // Secrets are hidden from every reader.
    let steps = world.steps(id).await;
    let texts: Vec<_> = events
        .iter()
        .map(|event| event.encode(Locale::En))
        .collect();
    let shown = json!([steps[0].data_in, steps[0].data_out, texts]);
    assert!(!shown.to_string().contains("canary"), "{shown:#}");
}

#[tokio::test(start_paused = true)]
async fn another_organization_finds_nothing() {
    let world = world(&Arc::default());
    let _workers = world.workers();
    let id = world.start(json!([{"id": "a", "type": "echo"}])).await;
    world.until_rest(id).await;
    let other = world.elsewhere();
    let (engine, organization) = (&other.engine, other.organization);
    for refused in [
        engine.execution(organization, id).await.map(drop),
        engine.steps(organization, id).await.map(drop),
        engine.feed(organization, id, 0).await.map(drop),
        engine.verify_audit(organization, id).await.map(drop),
        engine.cancel(other.control(id), None).await.map(drop),
    ] {
        assert!(matches!(refused, Err(EngineError::NotFound(_))));
    }
}
