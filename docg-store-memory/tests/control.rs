//! Calls that meet one another, and what handlers, people and later runs get to see.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    engine::{
        ControlAnswer, ControlRequest, EngineError, Repair, Resume, RetryRequest, StartRequest,
        StepRef, WorkerOptions, Workers,
    },
    ids::OrganizationId,
    observe::{Actor, REDACTED, actions},
    ports::Settlement,
    preflight::PreflightLimits,
    prelude::*,
    query::AuditQuery,
    run::Execution,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

struct World {
    engine: Engine,
    organization: OrganizationId,
    /// What the first step was given.
    given: Arc<Mutex<Vec<Value>>>,
    _workers: Workers,
}

impl World {
    /// Of its `send`s every other one needs a repair, beginning with the first.
    fn new() -> Self {
        let given = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&given);
        let calls = AtomicUsize::new(0);
        let spec = |name: &'static str, phase| {
            NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
        };
        let engine = Engine::builder(
            Arc::new(MemoryStore::default()),
            Arc::new(MemoryBus::default()),
        )
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
        .step(compute(
            NodeSpec::new("render", Phase::Render)
                .param(ParamSpec::required("template", ParamKind::Template)),
            |_, p: Value| async move { Ok(p) },
        ))
        .preflight_limits(PreflightLimits {
            large_template_bytes: 0,
            ..PreflightLimits::default()
        })
        .build();
        let workers = engine
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        Self {
            engine,
            organization: OrganizationId::new(),
            given,
            _workers: workers,
        }
    }

    async fn start(&self, nodes: Value, data: Value) -> ExecutionId {
        let workflow = WorkflowId::new();
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}));
        let draft = draft.expect("a readable definition");
        let put = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        put.await.expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = self.engine.start(request.trigger_data(data)).await;
        started.expect("accepted").record.execution.id
    }

    fn control(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("somebody"))
    }

    async fn until(&self, id: ExecutionId, status: Status) -> Execution {
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("a feed");
        let reading = async {
            while let Some(event) = feed.next().await {
                if event.expect("readable").status == status {
                    return;
                }
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        read.expect("it comes to it");
        let record = self.engine.execution(self.organization, id).await;
        record.expect("stored").execution
    }

    /// A run that waits for a repair.
    async fn in_review(&self) -> Execution {
        let nodes = json!([{"id": "echo", "type": "echo"}, {"id": "send", "type": "send"}]);
        let id = self.start(nodes, json!({})).await;
        self.until(id, Status::NeedsReview).await
    }

    async fn audit(&self, id: ExecutionId) -> Vec<String> {
        let query = AuditQuery::of(self.organization, id);
        let page = self.engine.audit(query).await.expect("readable");
        page.items
            .iter()
            .map(|row| row.action.to_string())
            .collect()
    }
}

#[tokio::test]
async fn of_two_calls_on_one_version_only_the_first_does_something() {
    let world = World::new();
    let execution = world.in_review().await;
    let call = || {
        let mut request = world.control(execution.id);
        request.if_version = Some(execution.version);
        world.engine.cancel(request, None)
    };
    let resumed = {
        let mut request = world.control(execution.id);
        request.if_version = Some(execution.version);
        world.engine.resume(request, Resume::default())
    };
    let (resumed, canceled) = tokio::join!(resumed, call());
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
    // Who comes later is told at once.
    assert!(is_refused(&call().await));
}

#[tokio::test]
async fn a_cancel_on_the_right_version_reaches_a_running_handler_and_no_other_does() {
    let world = World::new();
    let id = world
        .start(json!([{"id": "n", "type": "polite"}]), json!({}))
        .await;
    let version = world.until(id, Status::Sending).await.version;
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
    let Ok(ControlAnswer::Applied(record)) = cancel(version).await else {
        panic!("it is the version")
    };
    assert_eq!(record.execution.status, Status::Canceled);
}

#[tokio::test]
async fn what_is_known_needs_no_resolution() {
    let world = World::new();
    let execution = world.in_review().await;
    let done = Repair::default().settlement(Settlement::ConfirmDone(json!({"sent": true})));
    let resumed = world
        .engine
        .resume(world.control(execution.id), done.into());
    let refused = resumed.await;
    let Err(EngineError::InvalidInput(faults)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(faults[0].pointer, "/resolution");
    let steps = world.engine.steps(world.organization, execution.id).await;
    assert_eq!(steps.expect("steps")[1].output, None);
}

#[tokio::test]
async fn what_people_do_is_found_in_the_trail_by_its_name() {
    let world = World::new();
    let execution = world.in_review().await;
    let resumed = world
        .engine
        .resume(world.control(execution.id), Resume::default());
    resumed.await.expect("allowed");
    world.until(execution.id, Status::Completed).await;
    let audit = world.audit(execution.id).await;
    for action in [actions::STARTED, actions::STATUS_CHANGED, actions::RESUMED] {
        assert!(audit.iter().any(|it| it == action), "{action}: {audit:?}");
    }
    let retried = world
        .engine
        .retry(world.control(execution.id), RetryRequest::default());
    let retried = retried.await.expect("it has ended").record.execution;
    world.until(retried.id, Status::NeedsReview).await;
    let audit = world.audit(retried.id).await;
    assert_eq!(audit[0], actions::RETRIED);
}

#[tokio::test]
async fn steps_get_the_trigger_data_as_they_came_and_readers_do_not() {
    let world = World::new();
    let nodes = json!([{"id": "echo", "type": "echo", "params": {"in": "{{trigger}}"}}]);
    let id = world.start(nodes, json!({"api_key": "k-123"})).await;
    world.until(id, Status::Completed).await;
    let given = world.given.lock().expect("not poisoned").clone();
    assert_eq!(given, [json!({"in": {"api_key": "k-123"}})]);
    let steps = world
        .engine
        .steps(world.organization, id)
        .await
        .expect("steps");
    for shown in [&steps[0].data_in, &steps[0].data_out] {
        let shown = shown.as_ref().expect("a snapshot").to_value();
        assert_eq!(shown["in"]["api_key"], REDACTED);
    }
}

#[tokio::test]
async fn a_retry_of_a_retry_names_the_run_that_did_the_work() {
    let world = World::new();
    let first = world.in_review().await.id;
    let cancel = world.engine.cancel(world.control(first), None);
    cancel.await.expect("allowed");
    let mut id = first;
    for retry in 0..2 {
        let mut how = RetryRequest::default();
        how.from_step = Some(StepRef::Node("send".to_owned()));
        let retried = world.engine.retry(world.control(id), how).await;
        id = retried.expect("it has ended").record.execution.id;
        let steps = world
            .engine
            .steps(world.organization, id)
            .await
            .expect("steps");
        assert_eq!((steps[0].reused_from, steps[0].attempt), (Some(first), 0));
        if retry == 0 {
            world.until(id, Status::Completed).await;
        }
    }
    assert_eq!(world.given.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn a_retry_has_the_correlation_id_of_the_old_execution_unless_it_brings_its_own() {
    let world = World::new();
    let old = world.in_review().await;
    let cancel = world.engine.cancel(world.control(old.id), None);
    cancel.await.expect("allowed");
    for (retry, expected) in [
        (RetryRequest::default(), &*old.correlation_id),
        (RetryRequest::default().correlation_id("mine"), "mine"),
    ] {
        let retried = world.engine.retry(world.control(old.id), retry).await;
        let retried = retried.expect("it has ended").record.execution;
        assert_eq!(&*retried.correlation_id, expected);
    }
}

#[tokio::test]
async fn an_application_sets_the_bounds_of_preflight() {
    let world = World::new();
    let nodes = json!([{"id": "r", "type": "render", "params": {"template": "contract"}}]);
    let id = world.start(nodes, json!({})).await;
    let execution = world.until(id, Status::Completed).await;
    let found = &execution.preflight.as_ref().expect("it was checked").issues;
    let codes: Vec<_> = found.iter().map(|issue| &*issue.code).collect();
    assert_eq!(codes, ["template.large_file"]);
}
