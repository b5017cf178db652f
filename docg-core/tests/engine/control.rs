//! Control calls that are made at the same time, and the data that handlers, people and later executions get.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use docg_core::{
    engine::{ControlAnswer, EngineError, Repair, Resume, RetryRequest, StepRef, Workers},
    observe::{REDACTED, actions},
    ports::Settlement,
    preflight::PreflightLimits,
    prelude::*,
    query::AuditQuery,
    run::Execution,
};
use serde_json::{Value, json};

use crate::world::{World, applied, builder, echo};

struct Office {
    world: World,
    /// The parameters that `echo` steps got.
    given: Arc<Mutex<Vec<Value>>>,
    _workers: Workers,
}

impl Office {
    /// Starts workers. Of the calls to `send` steps, the first, third, fifth and so on need a repair by a
    /// person.
    fn new() -> Self {
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&given);
        let calls = AtomicUsize::new(0);
        let spec = |name: &'static str, phase| {
            NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
        };
        let template = ParamSpec::required("template", ParamKind::Template);
        let builder = builder()
            .step(compute(spec("echo", Phase::Render), move |_, p: Value| {
                seen.lock().expect("not poisoned").push(p.clone());
                async move { Ok(p) }
            }))
            .step(effect(spec("send", Phase::Delivery), move |_, _: Value| {
                let fails = calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                async move {
                    match fails {
                        true => Err(StepFailure::review("smtp_refused", "Refused.")),
                        false => StepOutcome::done(json!({"sent": true})),
                    }
                }
            }))
            .step(effect(
                spec("polite", Phase::Delivery),
                |context: EffectContext, _: Value| async move {
                    context.cancellation.cancelled().await;
                    StepOutcome::done(json!({}))
                },
            ))
            .step(echo(NodeSpec::new("render", Phase::Render).param(template)))
            .preflight_limits(PreflightLimits {
                large_template_bytes: 0,
                ..PreflightLimits::default()
            });
        let world = World::new(builder);
        Self {
            _workers: world.workers(),
            world,
            given,
        }
    }

    /// Starts an execution and waits until it is in `needs_review`.
    async fn in_review(&self) -> Execution {
        let nodes = json!([{"id": "echo", "type": "echo"}, {"id": "send", "type": "send"}]);
        let id = self.world.start(nodes).await;
        self.world.until_status(id, Status::NeedsReview).await
    }

    async fn resume(&self, id: ExecutionId, resume: Resume) -> Result<ControlAnswer, EngineError> {
        let world = &self.world;
        world.engine.resume(world.control(id), resume).await
    }

    /// Retries an execution that has ended.
    async fn retry(&self, id: ExecutionId, retry: RetryRequest) -> Execution {
        let world = &self.world;
        let retried = world.engine.retry(world.control(id), retry).await;
        retried.expect("it has ended").record.execution
    }

    /// The names of the actions in the audit trail.
    async fn audit(&self, id: ExecutionId) -> Vec<String> {
        let query = AuditQuery::of(self.world.organization, id);
        let page = self.world.engine.audit(query).await.expect("readable");
        let actions = page.items.iter().map(|row| row.action.to_string());
        actions.collect()
    }
}

#[tokio::test]
async fn of_two_calls_on_one_version_only_the_first_is_applied() {
    let office = Office::new();
    let execution = office.in_review().await;
    let world = &office.world;
    let on_version = || {
        let mut request = world.control(execution.id);
        request.if_version = Some(execution.version);
        request
    };
    let cancel = || world.engine.cancel(on_version(), None);
    let resume = world.engine.resume(on_version(), Resume::default());
    let (resumed, canceled) = tokio::join!(resume, cancel());
    let is_refused = |answer: &Result<ControlAnswer, EngineError>| {
        matches!(answer, Err(EngineError::VersionMismatch { expected, actual })
            if *expected == execution.version && actual > expected)
    };
    let refused = [&resumed, &canceled].map(is_refused);
    assert_eq!(
        refused.iter().filter(|it| **it).count(),
        1,
        "{resumed:?} {canceled:?}"
    );
    // A later call that expects the old version is refused at once.
    assert!(is_refused(&cancel().await));
}

#[tokio::test]
async fn a_cancel_on_the_right_version_reaches_a_running_handler_and_no_other_does() {
    let office = Office::new();
    let world = &office.world;
    let id = world.start(json!([{"id": "n", "type": "polite"}])).await;
    let version = world.until_status(id, Status::Sending).await.version;
    let cancel = async |version| {
        let mut request = world.control(id);
        request.if_version = Some(version);
        world.engine.cancel(request, None).await
    };
    let refused = cancel(version - 1).await;
    assert!(
        matches!(refused, Err(EngineError::VersionMismatch { .. })),
        "{refused:?}"
    );
    let canceled = applied(cancel(version).await.expect("it is the version"));
    assert_eq!(canceled.status, Status::Canceled);
}

#[tokio::test]
async fn a_settlement_of_a_known_outcome_is_refused() {
    let office = Office::new();
    let id = office.in_review().await.id;
    let done = Repair::default().settlement(Settlement::ConfirmDone(json!({"sent": true})));
    let refused = office.resume(id, done.into()).await;
    let Err(EngineError::InvalidInput(faults)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(faults[0].pointer, "/resolution");
    assert_eq!(office.world.steps(id).await[1].output, None);
}

#[tokio::test]
async fn the_audit_trail_names_each_call_of_a_person() {
    let office = Office::new();
    let id = office.in_review().await.id;
    let resumed = office.resume(id, Resume::default()).await;
    resumed.expect("allowed");
    office.world.until_completed(id).await;
    let audit = office.audit(id).await;
    for action in [actions::STARTED, actions::STATUS_CHANGED, actions::RESUMED] {
        assert!(audit.iter().any(|it| it == action), "{action}: {audit:?}");
    }
    let retried = office.retry(id, RetryRequest::default()).await.id;
    office
        .world
        .until_status(retried, Status::NeedsReview)
        .await;
    assert_eq!(office.audit(retried).await[0], actions::RETRIED);
}

#[tokio::test]
async fn steps_get_the_trigger_data_as_they_came_and_readers_do_not() {
    let office = Office::new();
    let world = &office.world;
    let nodes = json!([{"id": "echo", "type": "echo", "params": {"in": "{{trigger}}"}}]);
    let id = world.start_with(nodes, json!({"api_key": "k-123"})).await;
    world.until_completed(id).await;
    let given = office.given.lock().expect("not poisoned").clone();
    assert_eq!(given, [json!({"in": {"api_key": "k-123"}})]);
    let steps = world.steps(id).await;
    for shown in [&steps[0].data_in, &steps[0].data_out] {
        let shown = shown.as_ref().expect("a snapshot").to_value();
        assert_eq!(shown["in"]["api_key"], REDACTED);
    }
}

#[tokio::test]
async fn a_retry_of_a_retry_names_the_execution_that_did_the_work() {
    let office = Office::new();
    let first = office.in_review().await.id;
    office.world.cancel(first).await;
    let mut id = first;
    for retry in 0..2 {
        let from = RetryRequest::default().from_step(StepRef::Node("send".to_owned()));
        id = office.retry(id, from).await.id;
        let steps = office.world.steps(id).await;
        assert_eq!((steps[0].reused_from, steps[0].attempt), (Some(first), 0));
        if retry == 0 {
            office.world.until_completed(id).await;
        }
    }
    assert_eq!(office.given.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn a_retry_has_the_correlation_id_of_the_old_execution_unless_it_brings_its_own() {
    let office = Office::new();
    let old = office.in_review().await;
    office.world.cancel(old.id).await;
    for (retry, expected) in [
        (RetryRequest::default(), &*old.correlation_id),
        (RetryRequest::default().correlation_id("mine"), "mine"),
    ] {
        let retried = office.retry(old.id, retry).await;
        assert_eq!(&*retried.correlation_id, expected);
    }
}

#[tokio::test]
async fn an_application_sets_the_bounds_of_preflight() {
    let office = Office::new();
    let nodes = json!([{"id": "r", "type": "render", "params": {"template": "contract"}}]);
    let id = office.world.start(nodes).await;
    let execution = office.world.until_status(id, Status::Completed).await;
    let found = &execution.preflight.as_ref().expect("it was checked").issues;
    let codes: Vec<_> = found.iter().map(|issue| &*issue.code).collect();
    assert_eq!(codes, ["template.large_file"]);
}
