//! The node type `approval`: if an interrupted step asks its approvers again, they get the same links.
//! Parameters that are known only when the step runs are checked then.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use docg_core::{
    approval::{self, ApprovalNotifier, ApprovalStatus, Decision, Invitation},
    engine::{EngineBuilder, EngineError, RefusedVote, VoteAnswer},
    error::codes,
    ids::SignalId,
    observe::{Actor, actions},
    ports::{
        ExecutionReader, ExecutionStore, Intercepted, Interceptor, Signal, SignalKind, Store,
        StoreError,
    },
    prelude::*,
    query::AuditQuery,
    run::StepStatus,
    time::Timestamp,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::world::{World, an_hour_later, builder, echo};

const ANN: &str = "ann@example.com";
const BEN: &str = "ben@example.com";

/// What goes wrong when the test's notifier sends the first invitation to Ben.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Sending fails, and may be retried.
    Fails,
    /// Sending does not end.
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

/// Adds the node types of these tests.
fn with_nodes(builder: EngineBuilder, inbox: &Arc<Inbox>) -> EngineBuilder {
    let spec = NodeSpec::new("echo", Phase::Trigger);
    builder
        .step(echo(
            spec.param(ParamSpec::optional("people", ParamKind::Json)),
        ))
        .step(approval::node([3; 32], Arc::clone(inbox) as _))
}

fn asking(params: Value) -> Value {
    json!([{"id": "ok", "type": "approval", "phase": "save", "params": params,
        "retry": {"max_attempts": 2, "initial_ms": 1, "max_ms": 1, "multiplier": 1.0}}])
}

/// Checks that Ann and Ben each got two invitations with one token, which opens the approval.
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
        assert_eq!(open.workflow_name, "test");
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
async fn an_invitation_that_is_repeated_after_a_failure_has_the_same_link() {
    let inbox = Inbox::new(Fault::Fails);
    let world = World::new(with_nodes(builder(), &inbox));
    let _workers = world.workers();
    let id = world.start(asking(json!({"approvers": [ANN, BEN]}))).await;
    world.until_event(id, "approval.requested").await;
    first_links_still_open(&world.engine, &inbox).await;
    world.until_completed(id).await;
}

#[tokio::test]
async fn an_invitation_that_is_repeated_after_a_takeover_has_the_same_link() {
    let (store, bus) = (Arc::<MemoryStore>::default(), Arc::<MemoryBus>::default());
    let inbox = Inbox::new(Fault::Hangs);
    let process = || with_nodes(Engine::builder(store.clone(), bus.clone()), &inbox);
    // The first process has its own runtime. Dropping the runtime kills the process.
    let doomed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let first = World::new(process());
    let second = first.beside(process().clock(an_hour_later()));
    let begun = doomed.spawn(async move {
        let id = first.start(asking(json!({"approvers": [ANN, BEN]}))).await;
        std::mem::forget(first.workers());
        id
    });
    let id = begun.await.expect("started");
    inbox.hangs.notified().await;
    doomed.shutdown_background();
    let _workers = second.workers();
    second.until_event(id, "approval.requested").await;
    first_links_still_open(&second.engine, &inbox).await;
    second.until_completed(id).await;
    let steps = second.steps(id).await;
    assert_eq!(steps[0].attempt, 1, "a dead worker uses up no attempt");
}

#[tokio::test]
async fn approvers_that_an_earlier_step_gives_are_checked_before_anybody_is_asked() {
    let inbox = Inbox::new(Fault::None);
    let world = World::new(with_nodes(builder(), &inbox));
    let _workers = world.workers();
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
        let id = world.start(nodes).await;
        world.until_event(id, "step.failed").await;
        let execution = world.execution(id).await;
        assert_eq!(execution.status, Status::NeedsReview, "{people}");
        let error = execution.error.as_ref().expect("an error");
        assert_eq!(error.code, code, "{people}");
        let steps = world.steps(id).await;
        assert_eq!(steps[1].status(), StepStatus::Failed);
        let actions = world.engine.recommended_actions(&execution, &steps);
        assert!(!actions.is_empty(), "{people}");
    }
    assert!(inbox.to(ANN).is_empty(), "nobody was asked");
}

#[tokio::test]
async fn nobody_is_asked_for_a_decision_that_would_be_due_at_once() {
    let inbox = Inbox::new(Fault::None);
    let world = World::new(with_nodes(builder(), &inbox));
    let _workers = world.workers();
    for on_expiry in ["fail", "approve", "review"] {
        let nodes = json!([
            {"id": "when", "type": "echo", "params": {"people": 0}},
            {"id": "ok", "type": "approval", "phase": "save", "params": {"approvers": [ANN],
                "expires_in_ms": "{{steps.when.people}}", "on_expiry": on_expiry}},
        ]);
        let id = world.start(nodes).await;
        world.until_event(id, "step.failed").await;
        let execution = world.execution(id).await;
        assert_eq!(execution.status, Status::NeedsReview, "{on_expiry}");
        let error = execution.error.as_ref().expect("an error");
        assert_eq!(error.code, codes::INVALID_FIELD_FORMAT, "{on_expiry}");
    }
    assert!(inbox.to(ANN).is_empty(), "nobody was asked");
}

#[tokio::test]
async fn a_vote_that_does_not_count_is_refused_with_the_reason() {
    let inbox = Inbox::new(Fault::None);
    let world = World::new(with_nodes(builder(), &inbox));
    let engine = &world.engine;
    let _workers = world.workers();
    let params = json!({"approvers": [ANN, BEN], "quorum": 2});
    let id = world.start(asking(params)).await;
    world.until_event(id, "approval.requested").await;
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
    world.cancel(id).await;
    assert_eq!(refused(vote().await).reason, RefusedVote::Canceled);
    let unknown = engine.vote("unknown", Decision::Approved, None).await;
    assert!(matches!(unknown, Err(EngineError::NotFound(_))));
}

/// A store that receives a cancel just before the next commit, so that the committed decision has not seen
/// the cancel.
#[derive(Clone, Default)]
struct CancelAtCommit {
    inner: Arc<MemoryStore>,
    cancel: Arc<Mutex<Option<Signal>>>,
}

impl Interceptor<StoreError> for CancelAtCommit {
    async fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let cancel = match operation {
            "commit" => self.cancel.lock().expect("not poisoned").take(),
            _ => None,
        };
        if let Some(cancel) = cancel {
            self.inner.signal(cancel).await?;
        }
        call.await
    }
}

#[tokio::test]
async fn a_rejection_that_meets_a_cancel_at_its_commit_is_counted_once() {
    let (inbox, hook) = (Inbox::new(Fault::None), CancelAtCommit::default());
    let store = Arc::new(Intercepted::wrap(
        hook.inner.clone() as Arc<dyn Store>,
        hook.clone(),
    ));
    let engine = Engine::builder(store, Arc::<MemoryBus>::default());
    let world = World::new(with_nodes(engine, &inbox));
    let workers = world.workers();
    let id = world.start(asking(json!({"approvers": [ANN, BEN]}))).await;
    world.until_event(id, "approval.requested").await;
    workers.shutdown().await;
    let cancel = Signal {
        id: SignalId::new(),
        execution_id: id,
        organization_id: world.organization,
        actor: Actor::user("somebody"),
        received_at: Timestamp::now(),
        if_version: None,
        kind: SignalKind::Cancel { reason: None },
    };
    *hook.cancel.lock().expect("not poisoned") = Some(cancel);
    let token = inbox.to(ANN).remove(0).token;
    let voted = world.engine.vote(&token, Decision::Rejected, None).await;
    assert!(matches!(voted, Ok(VoteAnswer::Counted(_))), "{voted:?}");
    assert_eq!(world.execution(id).await.status, Status::Canceled);
    let audit = AuditQuery::of(world.organization, id);
    let rows = hook.inner.audit(audit).await.expect("reads").items;
    let count = |action| rows.iter().filter(|row| row.action == action).count();
    assert_eq!(count(actions::APPROVAL_DECIDED), 1);
    assert_eq!(count(actions::SIGNAL_IGNORED), 0);
}
