//! The clock is set back while an execution is under way: records never go back, but timers follow the clock.

use serde_json::json;

use super::world::{Options, World};
use crate::{
    engine::machine::{Input, Next},
    error::StepFailure,
    ids::ApprovalId,
    run::{Phase, Status, WaitKind},
    signature::{NewSignatureRequest, NewSigner},
    time::Timestamp,
    workflow::{
        StepOutcome, Wait,
        handler::{NewApproval, OnExpiry},
    },
};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn set_back(world: &mut World) {
    world.now = Timestamp::from_millis(world.now.as_millis() - HOUR.cast_signed());
}

fn later(world: &mut World, millis: u64) {
    world.now = world.now.plus_millis(millis);
    world.apply(Vec::new());
}

#[test]
fn an_approval_lasts_as_long_as_its_handler_says() {
    let mut world = World::new(Options {
        nodes: json!([{"id": "ok", "type": "approval", "phase": "save"}]),
        ..Options::default()
    });
    world.run_to("ok");
    set_back(&mut world);
    let approval = NewApproval {
        id: ApprovalId::new(),
        message: None,
        approvers: vec![("one@example.com".to_owned(), [0; 32])],
        quorum: 1,
        expires_at: Some(world.now.plus_millis(30 * MINUTE)),
        on_expiry: OnExpiry::Fail,
    };
    world.finish_step(Ok(StepOutcome::Wait(Wait::Approval(approval))));
    assert_eq!(world.status(), Status::Paused);
    later(&mut world, 30 * MINUTE - 1);
    assert_eq!(world.status(), Status::Paused);
    later(&mut world, 1);
    assert_eq!(world.status(), Status::Failed);
}

#[test]
fn a_retry_waits_no_longer_than_its_policy_says() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    set_back(&mut world);
    world.finish_step(Err(StepFailure::retryable("timeout", "Slow.")));
    let waiting = world.execution().waiting_for.as_ref().expect("waits");
    assert_eq!(waiting.kind, WaitKind::Retry);
    later(&mut world, 1_000);
    assert!(matches!(world.next, Next::Run { index: 1, .. }));
}

#[test]
fn a_review_lasts_as_long_as_the_workflow_says() {
    let mut world = World::new(Options {
        settings: json!({"review_expires_ms": MINUTE}),
        ..Options::default()
    });
    world.run_to("send");
    set_back(&mut world);
    world.finish_step(Err(StepFailure::review("smtp_refused", "Refused.")));
    later(&mut world, MINUTE - 1);
    assert_eq!(world.status(), Status::NeedsReview);
    later(&mut world, 1);
    assert_eq!(world.status(), Status::Failed);
}

#[test]
fn a_provider_is_asked_as_soon_as_ever() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    set_back(&mut world);
    let request = NewSignatureRequest::new("desk", "envelope", [NewSigner::new("one@example.com")]);
    world.finish_step(Ok(StepOutcome::Wait(Wait::Signatures(request))));
    later(&mut world, 5 * MINUTE);
    assert!(matches!(world.next, Next::CheckSignatures));
}

#[test]
fn checks_take_no_longer_than_they_do() {
    let mut world = World::new(Options::default());
    world.apply(Vec::new());
    assert!(matches!(world.next, Next::Preflight));
    set_back(&mut world);
    world.apply(vec![Input::Preflight {
        issues: Vec::new(),
        started_at: world.now,
    }]);
    let times = world.execution().phase_metrics.get(Phase::Preflight);
    assert_eq!(times.expect("was measured").duration_ms, 0);
}
