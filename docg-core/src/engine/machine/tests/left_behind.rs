//! Failed steps past which the execution went on (`on_error: continue`), and failures past which it must not.

use serde_json::{Value, json};

use super::world::{Options, World};
use crate::{
    approval::Decision,
    engine::machine::Input,
    error::{StepFailure, codes},
    observe::{Actor, ActorType, actions},
    ports::{ResumeSignal, SignalKind},
    run::Status,
    signature::{NewSignatureRequest, NewSigner, SignerFact, SignerFactKind},
    workflow::{
        StepOutcome, Wait,
        handler::{NewApproval, OnExpiry},
    },
};

/// An execution that went on past its failed first step. Its second step is under way.
fn left_behind() -> World {
    let nodes = json!([
        {"id": "save", "type": "save", "on_error": "continue"},
        {"id": "send", "type": "send", "retry": {"max_attempts": 2, "initial_ms": 10}},
    ]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("save");
    world.finish_step(Err(StepFailure::fatal("storage_full", "Full.")));
    world
}

fn code(world: &World) -> &str {
    &world.execution().error.as_ref().expect("an error").code
}

#[test]
fn what_a_person_is_to_repair_is_not_left_behind() {
    let nodes = json!([{"id": "save", "type": "save", "on_error": "continue"}]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("save");
    world.finish_step(Err(StepFailure::review("storage_refused", "Refused.")));
    assert_eq!(world.status(), Status::NeedsReview);
}

#[test]
fn a_later_success_does_not_hide_a_step_that_was_left_behind() {
    let mut world = left_behind();
    world.finish_step(Err(StepFailure::retryable("timeout", "Slow.")));
    assert_eq!(code(&world), "timeout");
    world.now = world.execution().wake_at.expect("a moment");
    world.apply(Vec::new());
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
    assert_eq!(code(&world), "storage_full");
}

#[test]
fn a_repair_does_not_hide_a_step_that_was_left_behind() {
    let mut world = left_behind();
    world.finish_step(Err(StepFailure::review("smtp_refused", "Refused.")));
    assert_eq!(code(&world), "smtp_refused");
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert_eq!(code(&world), "storage_full");
}

/// An execution whose first step, `node`, waits for people. Callers set its `on_error` to
/// `continue`, so that its failure does not stop the execution.
fn waiting(node: Value, wait: Wait) -> World {
    let nodes = json!([node, {"id": "send", "type": "send"}]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("first");
    world.finish_step(Ok(StepOutcome::Wait(wait)));
    world
}

fn approval(on_expiry: OnExpiry) -> World {
    let node = json!({"id": "first", "type": "approval", "phase": "save", "on_error": "continue"});
    let mut approval = NewApproval::new(vec![("a@example.com".to_owned(), [0; 32])]);
    approval.expires_at = Some(crate::time::Timestamp::from_millis(9_000_000));
    approval.on_expiry = on_expiry;
    waiting(node, Wait::Approval(approval))
}

fn signatures() -> World {
    let node = json!({"id": "first", "type": "sign", "on_error": "continue"});
    let signers = [NewSigner::new("one@example.com")];
    waiting(
        node,
        Wait::Signatures(NewSignatureRequest::new("desk", "envelope", signers)),
    )
}

/// Applies a webhook that reports this kind of fact about all signers.
fn reported(world: &mut World, kind: SignerFactKind) {
    let request = world.state.signature.as_ref().expect("a request");
    let kind = SignalKind::SignatureFacts {
        signature_request_id: request.id,
        facts: vec![SignerFact::of_all(kind, world.now)],
    };
    let Input::Signal(mut signal) = world.signal(kind) else {
        unreachable!("it is a signal")
    };
    signal.actor = Actor::webhook("desk");
    world.apply(vec![Input::Signal(signal)]);
}

#[test]
fn what_people_have_decided_is_not_stepped_over() {
    let mut rejected = approval(OnExpiry::Fail);
    let id = rejected.state.approval.as_ref().expect("asked").id;
    rejected.send(SignalKind::ApprovalVote {
        approval_id: id,
        email: "a@example.com".to_owned(),
        decision: Decision::Rejected,
        comment: None,
    });
    assert_eq!(rejected.status(), Status::Failed);
    assert_eq!(code(&rejected), codes::APPROVAL_REJECTED);
    let mut forgotten = approval(OnExpiry::Fail);
    forgotten.now = forgotten.execution().wake_at.expect("it runs out");
    forgotten.apply(Vec::new());
    assert_eq!(forgotten.status(), Status::Failed);
    for (kind, expected) in [
        (SignerFactKind::Declined, codes::SIGNATURE_DECLINED),
        (SignerFactKind::Expired, codes::SIGNATURE_EXPIRED),
        (SignerFactKind::Canceled, codes::SIGNATURE_CANCELED),
    ] {
        let mut world = signatures();
        reported(&mut world, kind);
        assert_eq!(world.status(), Status::Failed);
        assert_eq!(code(&world), expected);
    }
}

#[test]
fn what_a_webhook_reports_is_recorded_as_the_webhooks() {
    for (kind, action) in [
        (SignerFactKind::Declined, actions::SIGNATURE_DECLINED),
        (SignerFactKind::Expired, actions::SIGNATURE_EXPIRED),
        (SignerFactKind::Canceled, actions::SIGNATURE_EXPIRED),
    ] {
        let mut world = signatures();
        reported(&mut world, kind);
        let rows: Vec<_> = world
            .audit
            .iter()
            .filter(|it| it.action == action)
            .collect();
        assert!(!rows.is_empty(), "{kind:?}");
        let by_webhook = |row: &&std::sync::Arc<crate::observe::AuditEvent>| {
            row.actor.actor_type == ActorType::Webhook
        };
        assert!(rows.iter().all(by_webhook), "{kind:?}: {rows:#?}");
    }
}

#[test]
fn what_people_do_to_a_run_is_recorded_by_its_name() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.send(SignalKind::Pause { reason: None });
    world.send(SignalKind::Resume(ResumeSignal::default()));
    world.finish_step(Err(StepFailure::fatal("smtp_refused", "Refused.")));
    let rows = world.audit.iter().map(|row| &*row.action);
    let named: Vec<_> = rows
        .filter(|action| action.starts_with("execution."))
        .collect();
    assert_eq!(
        named,
        [
            actions::STARTED,
            actions::STATUS_CHANGED,
            actions::STATUS_CHANGED,
            actions::PAUSED,
            actions::RESUMED,
            actions::FAILED,
        ],
        "running, ready, sending, and what people did"
    );
}

#[test]
fn texts_for_technicians_go_into_no_event() {
    let mut world = World::new(Options::default());
    world.apply(Vec::new());
    let issue = super::world::blocking_issue().tech("a detail of the machine");
    world.apply(vec![Input::Preflight {
        issues: vec![issue],
        started_at: world.now,
    }]);
    let summary = world.execution().preflight.as_ref().expect("it was kept");
    assert!(format!("{summary:?}").contains("a detail of the machine"));
    assert!(!format!("{:?}", world.events).contains("a detail of the machine"));
    let mut world = World::new(Options::default());
    world.run_to("send");
    let failure = StepFailure::fatal("smtp_refused", "Refused.").tech("a detail of the machine");
    world.finish_step(Err(failure));
    assert!(!format!("{:?}", world.events).contains("a detail of the machine"));
}
