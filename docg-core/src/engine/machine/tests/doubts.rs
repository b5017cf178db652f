//! Steps whose outcome is unknown: the handler is probed, a signature request that the lost attempt made is
//! taken over in place of a new one, or a person settles the outcome.

use serde_json::json;

use super::world::{Options, World, taken_over};
use crate::{
    engine::machine::{Input, Next, Notes},
    error::{StepFailure, codes},
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Status, StepState, StepStatus, WaitKind},
    signature::{NewSignatureRequest, NewSigner, RequestStatus},
    workflow::{Probe, StepOutcome, Wait},
};

const SIGN: usize = 4;

fn at_sign() -> World {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world
}

/// The answer of a probe: the attempt whose answer was lost has requested a signature.
fn begun() -> Probe {
    let signers = [NewSigner::new("one@example.com")];
    let request = NewSignatureRequest::new("desk", "envelope", signers);
    Probe::Begun(Wait::Signatures(request))
}

fn probed(world: &mut World, index: usize, effect: Probe) {
    assert!(matches!(world.next, Next::Probe { .. }));
    let notes = Notes::default();
    world.apply(vec![Input::Probed {
        index,
        effect,
        notes,
        told: None,
    }]);
}

fn lost_answer() -> StepFailure {
    StepFailure::outcome_unknown("desk.service_unavailable", "The answer was lost.")
}

fn resume(settlement: Option<Settlement>) -> SignalKind {
    let mut signal = ResumeSignal::default();
    signal.settlement = settlement;
    SignalKind::Resume(signal)
}

#[test]
fn what_a_canceled_attempt_has_asked_for_is_noted_and_withdrawn() {
    let mut world = at_sign();
    world.effect = begun();
    world.send(SignalKind::Cancel { reason: None });
    assert_eq!(world.probes_to_end, 1);
    assert_eq!(world.status(), Status::Canceled);
    let request = world.state.signature.as_ref().expect("it is known");
    assert_eq!(request.envelope_id, "envelope");
    assert_eq!(
        request.status,
        RequestStatus::Canceled,
        "which withdraws it at its provider"
    );
    let log = format!("{:?}", world.logs);
    assert!(log.contains("error-canceled-effect-done"));
}

#[test]
fn what_has_begun_is_picked_up_without_using_an_attempt() {
    let mut world = at_sign();
    world.apply(vec![taken_over()]);
    probed(&mut world, SIGN, begun());
    assert!(matches!(world.next, Next::Run { index: SIGN, .. }));
    assert_eq!(world.state.steps[SIGN].attempt, 1);
}

#[test]
fn what_the_last_attempt_has_asked_for_is_awaited() {
    let mut world = at_sign();
    world.finish_step(Err(lost_answer()));
    probed(&mut world, SIGN, begun());
    world.now = world.execution().wake_at.expect("tried again");
    world.apply(Vec::new());
    assert_eq!(world.state.steps[SIGN].attempt, 2);
    world.finish_step(Err(lost_answer()));
    probed(&mut world, SIGN, begun());
    assert_eq!(world.status(), Status::Signing);
    assert_eq!(world.state.steps[SIGN].state, StepState::Waiting);
    let waiting = world.execution().waiting_for.as_ref().expect("waits");
    assert_eq!(waiting.kind, WaitKind::Signature);
}

#[test]
fn what_may_be_repeated_is_never_in_doubt() {
    for (node, index) in [("render", 1), ("save", 2)] {
        let mut world = World::new(Options::default());
        world.run_to(node);
        world.finish_step(Err(lost_answer()));
        assert_eq!(world.state.steps[index].status(), StepStatus::Pending);
        let waiting = world.execution().waiting_for.as_ref().expect("waits");
        assert_eq!(waiting.kind, WaitKind::Retry);
    }
}

/// An execution whose step `send` was taken over `times` times.
fn after_takeovers(times: u32) -> World {
    let mut world = World::new(Options::default());
    world.run_to("send");
    for _ in 0..times {
        world.apply(vec![taken_over()]);
        if matches!(world.next, Next::Probe { .. }) {
            probed(&mut world, 3, Probe::NotDone);
        }
    }
    world
}

#[test]
fn the_twentieth_takeover_of_a_step_calls_for_a_person() {
    assert!(matches!(
        after_takeovers(19).next,
        Next::Run { index: 3, .. }
    ));
    let world = after_takeovers(20);
    assert_eq!(world.status(), Status::NeedsReview);
    let error = world.execution().error.as_ref().expect("an error");
    assert_eq!(error.code, codes::TOO_MANY_TAKEOVERS);
}

#[test]
fn a_question_that_kills_its_workers_is_not_asked_for_ever() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.finish_step(Err(lost_answer()));
    for _ in 0..19 {
        world.apply(vec![taken_over()]);
        assert!(matches!(world.next, Next::Probe { index: 3, .. }));
    }
    world.apply(vec![taken_over()]);
    assert_eq!(world.status(), Status::NeedsReview);
}

#[test]
fn an_effect_whose_workers_died_too_often_is_repeated_only_if_a_person_says_so() {
    let mut world = after_takeovers(20);
    world.send(resume(None));
    assert_eq!(world.status(), Status::NeedsReview);
    world.send(resume(Some(Settlement::RunAgain)));
    world.pass_preflight();
    assert!(matches!(world.next, Next::Run { index: 3, .. }));
    let mut world = after_takeovers(20);
    world.send(resume(Some(Settlement::ConfirmDone(json!({})))));
    assert_eq!(world.state.steps[3].status(), StepStatus::Success);
}

#[test]
fn what_is_known_cannot_be_declared_otherwise() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.finish_step(Err(StepFailure::review("smtp_refused", "Refused.")));
    for settlement in [Settlement::ConfirmDone(json!({})), Settlement::RunAgain] {
        world.send(resume(Some(settlement)));
        assert_eq!(world.status(), Status::NeedsReview);
        assert_eq!(world.state.steps[3].status(), StepStatus::Failed);
    }
    world.send(resume(None));
    assert_eq!(world.status(), Status::Running);
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.send(SignalKind::Pause { reason: None });
    world.send(resume(Some(Settlement::RunAgain)));
    assert_eq!(world.status(), Status::Paused);
    // The handler itself reports that the step is done, so no person has to confirm it.
    world.send(resume(None));
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    assert_eq!(world.state.steps[3].status(), StepStatus::Success);
}
