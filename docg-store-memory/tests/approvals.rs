//! The node type `approval` on the memory adapters: what approvers are given when asking them is
//! interrupted, and what is found out only when the step runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use docg_core::{
    approval::{self, ApprovalNotifier, ApprovalStatus, Decision, Invitation},
    engine::{ControlAnswer, ControlRequest, EngineError, RefusedVote, StartRequest, VoteAnswer},
    error::codes,
    prelude::*,
    run::StepStatus,
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";

/// What happens to the first invitation for Ben.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// It fails, and may be tried again.
    Fails,
    /// It does not end.
    Hangs,
}

struct Inbox {
    fault: Fault,
    sent: Mutex<Vec<Invitation>>,
    hangs: Notify,
}

impl Inbox {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            sent: Mutex::default(),
            hangs: Notify::new(),
        })
    }

    fn to(&self, email: &str) -> Vec<Invitation> {
        let sent = self.sent.lock().expect("not poisoned");
        sent.iter().filter(|i| i.email == email).cloned().collect()
    }
}

#[async_trait::async_trait]
impl ApprovalNotifier for Inbox {
    async fn invite(&self, _: &EffectContext, invitation: Invitation) -> Result<(), StepFailure> {
        let first = invitation.email == BEN && self.to(BEN).is_empty();
        self.sent.lock().expect("not poisoned").push(invitation);
        match self.fault {
            Fault::Fails if first => Err(StepFailure::retryable(
                codes::SERVICE_UNAVAILABLE,
                "The mail server is away.",
            )),
            Fault::Hangs if first => {
                self.hangs.notify_one();
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

/// One process: several may share a store and an inbox.
fn engine(store: &Arc<MemoryStore>, bus: &Arc<MemoryBus>, inbox: &Arc<Inbox>) -> Engine {
    engine_at(store, bus, inbox, Arc::new(SystemClock))
}

fn engine_at(
    store: &Arc<MemoryStore>,
    bus: &Arc<MemoryBus>,
    inbox: &Arc<Inbox>,
    clock: Arc<dyn Clock>,
) -> Engine {
    let echo =
        NodeSpec::new("echo", Phase::Trigger).param(ParamSpec::optional("people", ParamKind::Json));
    Engine::builder(Arc::clone(store) as _, Arc::clone(bus) as _)
        .step(compute(echo, |_, p: Value| async move { Ok(p) }))
        .step(approval::node([3; 32], Arc::clone(inbox) as _))
        .clock(clock)
        .build()
}

async fn start(engine: &Engine, organization: OrganizationId, nodes: Value) -> ExecutionId {
    let workflow = WorkflowId::new();
    let draft = serde_json::from_value(json!({"name": "Leave", "nodes": nodes}));
    engine
        .put_workflow(organization, workflow, draft.expect("readable"), None)
        .await
        .expect("valid");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let started = engine.start(request).await.expect("accepted");
    started.record.execution.id
}

fn asking(params: Value) -> Value {
    json!([{"id": "ok", "type": "approval", "phase": "save", "params": params,
        "retry": {"max_attempts": 2, "initial_ms": 1, "max_ms": 1, "multiplier": 1.0}}])
}

/// Waits until the run has an event of this type.
async fn until(engine: &Engine, organization: OrganizationId, id: ExecutionId, event_type: &str) {
    let mut feed = engine.feed(organization, id, 0).await.expect("a feed");
    let reading = async {
        while let Some(event) = feed.next().await {
            if event.expect("readable").event_type() == event_type {
                return;
            }
        }
        panic!("it ended without {event_type}");
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("it happens");
}

/// All that Ann and Ben got, each several times, opens the same approval.
async fn first_links_still_open(engine: &Engine, inbox: &Inbox) {
    for email in [ANN, BEN] {
        let sent = inbox.to(email);
        assert_eq!(sent.len(), 2, "{email} was asked again");
        assert_eq!(sent[0].token, sent[1].token);
        assert_eq!(sent[0].idempotency_key, sent[1].idempotency_key);
        let open = engine.approval(&sent[0].token).await.expect("it opens");
        assert_eq!(
            (open.approver.as_str(), open.status),
            (email, ApprovalStatus::Pending)
        );
        assert_eq!(open.workflow_name, "Leave");
    }
    let (ann, ben) = (inbox.to(ANN).remove(0), inbox.to(BEN).remove(0));
    assert_ne!(ann.token, ben.token);
    assert_ne!(ann.idempotency_key, ben.idempotency_key);
    let voted = engine.vote(&ann.token, Decision::Approved, None).await;
    assert!(
        matches!(voted, Ok(VoteAnswer::Counted(open)) if open.status == ApprovalStatus::Approved)
    );
}

#[tokio::test]
async fn asking_again_after_a_failure_gives_out_the_same_links() {
    let (store, bus) = (Arc::default(), Arc::default());
    let inbox = Inbox::new(Fault::Fails);
    let engine = engine(&store, &bus, &inbox);
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    let id = start(
        &engine,
        organization,
        asking(json!({"approvers": [ANN, BEN]})),
    )
    .await;
    until(&engine, organization, id, "approval.requested").await;
    first_links_still_open(&engine, &inbox).await;
    until(&engine, organization, id, "execution.completed").await;
}

/// For whom the lease of a process that died has expired.
fn an_hour_later() -> Arc<dyn Clock> {
    let later = Timestamp::now() + Duration::from_secs(3_600);
    Arc::new(ManualClock::new(later))
}

#[tokio::test]
async fn whoever_takes_over_from_a_worker_that_died_gives_out_the_same_links() {
    let (store, bus) = (Arc::default(), Arc::default());
    let inbox = Inbox::new(Fault::Hangs);
    // The first process lives in a runtime of its own, which is dropped with everything in it.
    let doomed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let organization = OrganizationId::new();
    let first = engine(&store, &bus, &inbox);
    let begun = doomed.spawn(async move {
        let nodes = asking(json!({"approvers": [ANN, BEN]}));
        let id = start(&first, organization, nodes).await;
        std::mem::forget(
            first
                .start_workers(WorkerOptions::default())
                .expect("no other workers run"),
        );
        id
    });
    let id = begun.await.expect("started");
    inbox.hangs.notified().await;
    doomed.shutdown_background();
    let second = engine_at(&store, &bus, &inbox, an_hour_later());
    let _workers = second
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    until(&second, organization, id, "approval.requested").await;
    first_links_still_open(&second, &inbox).await;
    until(&second, organization, id, "execution.completed").await;
    let steps = second.steps(organization, id).await.expect("steps");
    assert_eq!(steps[0].attempt, 1, "a dead worker uses up no attempt");
}

#[tokio::test]
async fn approvers_that_an_earlier_step_gives_are_checked_before_anybody_is_asked() {
    let (store, bus) = (Arc::default(), Arc::default());
    let inbox = Inbox::new(Fault::None);
    let engine = engine(&store, &bus, &inbox);
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    for (people, code) in [
        (json!([ANN]), codes::INVALID_QUORUM),
        (json!([ANN, "ANN@example.com"]), codes::DUPLICATE_APPROVER),
        (
            json!(["ana@exämple.com", "ana@xn--exmple-cua.com"]),
            codes::DUPLICATE_APPROVER,
        ),
        (json!([ANN, "ben"]), codes::INVALID_EMAIL_FORMAT),
        (json!({"ann": ANN}), codes::INVALID_FIELD_FORMAT),
    ] {
        let nodes = json!([
            {"id": "who", "type": "echo", "params": {"people": people}},
            {"id": "ok", "type": "approval", "phase": "save",
                "params": {"approvers": "{{steps.who.people}}", "quorum": 2}},
        ]);
        let id = start(&engine, organization, nodes).await;
        until(&engine, organization, id, "step.failed").await;
        let execution = engine
            .execution(organization, id)
            .await
            .expect("stored")
            .execution;
        assert_eq!(execution.status, Status::NeedsReview, "{people}");
        let error = execution.error.as_ref().expect("an error");
        assert_eq!(error.code, code, "{people}");
        let steps = engine.steps(organization, id).await.expect("steps");
        assert_eq!(steps[1].status(), StepStatus::Failed);
        let actions = engine.recommended_actions(&execution, &steps);
        assert!(!actions.is_empty(), "{people}");
    }
    assert!(inbox.to(ANN).is_empty(), "nobody was asked");
}

#[tokio::test]
async fn nobody_is_asked_for_a_decision_that_would_be_due_at_once() {
    let (store, bus) = (Arc::default(), Arc::default());
    let inbox = Inbox::new(Fault::None);
    let engine = engine(&store, &bus, &inbox);
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    for on_expiry in ["fail", "approve", "review"] {
        let nodes = json!([
            {"id": "when", "type": "echo", "params": {"people": 0}},
            {"id": "ok", "type": "approval", "phase": "save", "params": {"approvers": [ANN],
                "expires_in_ms": "{{steps.when.people}}", "on_expiry": on_expiry}},
        ]);
        let id = start(&engine, organization, nodes).await;
        until(&engine, organization, id, "step.failed").await;
        let execution = engine.execution(organization, id).await.expect("stored");
        let execution = execution.execution;
        assert_eq!(execution.status, Status::NeedsReview, "{on_expiry}");
        let error = execution.error.as_ref().expect("an error");
        assert_eq!(error.code, codes::INVALID_FIELD_FORMAT, "{on_expiry}");
    }
    assert!(inbox.to(ANN).is_empty(), "nobody was asked");
}

#[tokio::test]
async fn a_vote_that_does_not_count_says_why() {
    let (store, bus) = (Arc::default(), Arc::default());
    let inbox = Inbox::new(Fault::None);
    let engine = engine(&store, &bus, &inbox);
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let organization = OrganizationId::new();
    let params = json!({"approvers": [ANN, BEN], "quorum": 2});
    let id = start(&engine, organization, asking(params)).await;
    until(&engine, organization, id, "approval.requested").await;
    let token = inbox.to(ANN).remove(0).token;
    let vote = || engine.vote(&token, Decision::Approved, None);
    assert!(matches!(vote().await, Ok(VoteAnswer::Counted(_))));
    let refused = |vote: Result<VoteAnswer, EngineError>| match vote {
        Err(EngineError::VoteRefused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    let again = refused(vote().await);
    assert_eq!(
        (again.reason, again.approver.as_str()),
        (RefusedVote::AlreadyVoted, ANN)
    );
    let control = ControlRequest::new(organization, id, Actor::user("somebody"));
    let canceled = engine.cancel(control, None).await.expect("allowed");
    assert!(matches!(canceled, ControlAnswer::Applied(_)));
    assert_eq!(refused(vote().await).reason, RefusedVote::Canceled);
    let unknown = engine.vote("unknown", Decision::Approved, None).await;
    assert!(matches!(unknown, Err(EngineError::NotFound(_))));
}
