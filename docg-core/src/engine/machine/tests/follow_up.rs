//! An open signature request: the engine asks its provider, has its signers reminded, and gives the request
//! up.

use serde_json::json;

use super::world::{Options, World};
use crate::{
    engine::machine::{Checked, Input, Next, Role},
    error::{StepFailure, codes},
    i18n::Locale,
    observe::LogLevel,
    ports::{ResumeSignal, SignalKind},
    run::{SignatureState, Status, StepState, WaitKind},
    signature::{
        NewSignatureRequest, NewSigner, ProviderError, RequestStatus, SignerFact, SignerFactKind,
        SignerStatus,
    },
    time::Timestamp,
    workflow::{StepOutcome, Wait},
};

const HOUR: u64 = 3_600_000;
const ONE: &str = "one@example.com";
const TWO: &str = "two@example.com";

/// An execution that waits for two signatures. `change` adapts the request.
fn waiting(change: impl FnOnce(NewSignatureRequest, Timestamp) -> NewSignatureRequest) -> World {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    let signers = [NewSigner::new(ONE), NewSigner::new(TWO)];
    let request = NewSignatureRequest::new("desk", "envelope", signers);
    let request = change(request, world.now);
    world.finish_step(Ok(StepOutcome::Wait(Wait::Signatures(request))));
    assert!(matches!(world.next, Next::Rest));
    world
}

fn at(world: &mut World, moment: Timestamp) {
    world.now = moment;
    world.apply(Vec::new());
}

/// Moves the clock to the time at which the execution needs a worker.
fn wake(world: &mut World) {
    let moment = world.execution().wake_at.expect("it wakes");
    at(world, moment);
}

fn checked(world: &mut World, checked: Checked) {
    assert!(matches!(world.next, Next::CheckSignatures));
    world.apply(vec![Input::SignaturesChecked(checked)]);
}

fn down() -> Checked {
    Checked::Failed(ProviderError::Unavailable("down".to_owned()))
}

#[test]
fn a_mail_that_may_not_have_arrived_is_named_in_the_log_and_changes_nothing() {
    let mut world = waiting(|request, _| request);
    let before = world.state.signature.clone();
    let id = before.as_ref().expect("a request").id;
    let fact = SignerFact::new(ONE, SignerFactKind::Unconfirmed, world.now);
    world.send(SignalKind::SignatureFacts {
        signature_request_id: id,
        facts: vec![fact],
    });
    assert_eq!(
        (world.status(), &world.state.signature),
        (Status::Signing, &before)
    );
    let last = world.logs.last().expect("a log entry");
    assert_eq!(last.level, LogLevel::Warn);
    let human = last.message_human.render(Locale::En);
    assert!(human.contains(ONE), "{human}");
}

fn code(world: &World) -> &str {
    &world.execution().error.as_ref().expect("an error").code
}

fn signed(world: &World) -> Vec<SignerFact> {
    [ONE, TWO]
        .map(|email| SignerFact::signed(email, world.now))
        .into()
}

#[test]
fn what_webhooks_lost_is_found_by_asking_the_provider() {
    let mut world = waiting(|request, _| request);
    wake(&mut world);
    let facts = vec![SignerFact::signed(ONE, world.now)];
    checked(&mut world, Checked::Answered(facts));
    assert!(world.event_types().contains(&"signature.signer.signed"));
    assert!(matches!(world.next, Next::Rest));
    let next = world.execution().wake_at.expect("asked again");
    let pause = next.millis_since(world.now);
    assert!((HOUR * 9 / 10..=HOUR).contains(&pause), "{pause}");
    wake(&mut world);
    let facts = signed(&world);
    checked(&mut world, Checked::Answered(facts));
    assert!(matches!(world.next, Next::Resume { .. }));
}

#[test]
fn a_provider_that_is_unknown_here_is_asked_once() {
    let mut world = waiting(|request, _| request);
    wake(&mut world);
    checked(&mut world, Checked::Nobody);
    assert!(matches!(world.next, Next::Rest));
    assert_eq!(world.execution().wake_at, None);
}

#[test]
fn pauses_grow_while_the_provider_does_not_answer_and_it_is_logged_once() {
    let mut world = waiting(|request, _| request);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        wake(&mut world);
        checked(&mut world, down());
        let next = world.execution().wake_at.expect("asked again");
        pauses.push(next.millis_since(world.now) / 60_000);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60], "minutes");
    let logged = |world: &World| {
        let logs = world.logs.iter();
        let keys = logs.map(|entry| format!("{:?}", entry.message_human));
        keys.filter(|key| key.contains("log-signature-check-failed"))
            .count()
    };
    assert_eq!(logged(&world), 1);
    wake(&mut world);
    let limited = ProviderError::RateLimited {
        retry_after_ms: Some(2 * HOUR),
        tech: "429".to_owned(),
    };
    checked(&mut world, Checked::Failed(limited));
    let next = world.execution().wake_at.expect("asked again");
    assert_eq!(next.millis_since(world.now), 2 * HOUR);
}

#[test]
fn signatures_that_do_not_come_in_time_expire_after_the_provider_was_asked() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(5_000)));
    let end = world.now.plus_millis(5_000);
    assert_eq!(world.execution().wake_at, Some(end));
    wake(&mut world);
    checked(&mut world, Checked::Answered(Vec::new()));
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(code(&world), codes::SIGNATURE_EXPIRED);
    assert!(world.event_types().contains(&"signature.expired"));
}

#[test]
fn who_signed_in_time_counts_even_if_it_is_learned_at_the_end() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(5_000)));
    wake(&mut world);
    let facts = signed(&world);
    checked(&mut world, Checked::Answered(facts));
    assert!(matches!(world.next, Next::Resume { .. }));
}

#[test]
fn at_the_end_a_provider_that_does_not_answer_is_waited_for_and_then_no_longer() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(5_000)));
    let end = world.now.plus_millis(5_000);
    let mut asked = 0;
    while world.status() == Status::Signing {
        wake(&mut world);
        if matches!(world.next, Next::CheckSignatures) {
            asked += 1;
            checked(&mut world, down());
        }
    }
    assert_eq!(code(&world), codes::SIGNATURE_EXPIRED);
    assert_eq!(world.now, end.plus_millis(HOUR));
    assert!((3..20).contains(&asked), "{asked}");
}

#[test]
fn after_a_long_outage_the_provider_is_asked_before_anything_is_given_up() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(HOUR)));
    let long_after = world.now.plus_millis(100 * HOUR);
    at(&mut world, long_after);
    let facts = signed(&world);
    checked(&mut world, Checked::Answered(facts));
    assert!(matches!(world.next, Next::Resume { .. }));
}

#[test]
fn an_expiry_during_a_pause_is_asked_about_too() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(5_000)));
    world.send(SignalKind::Pause { reason: None });
    wake(&mut world);
    checked(&mut world, Checked::Answered(Vec::new()));
    assert_eq!(code(&world), codes::SIGNATURE_EXPIRED);
}

#[test]
fn whoever_only_applies_signals_leaves_the_asking_to_a_worker() {
    let mut world = waiting(|request, now| request.expires_at(now.plus_millis(5_000)));
    world.now = world.now.plus_millis(6_000);
    world.apply_as(Vec::new(), Role::SignalApplier);
    assert!(matches!(world.next, Next::Rest));
    assert!(world.execution().wake_at.is_some_and(|at| at <= world.now));
    assert_eq!(world.status(), Status::Signing);
}

#[test]
fn reminders_are_noted_before_they_are_sent_and_rest_during_a_pause() {
    let mut world = waiting(|request, _| request.remind_every_ms(90_000));
    let begun = world.now;
    wake(&mut world);
    assert_eq!(world.now, begun.plus_millis(90_000));
    assert!(matches!(world.next, Next::Remind));
    let request = world.state.signature.as_ref().expect("a request");
    let next = begun.plus_millis(180_000);
    assert_eq!(request.follow_up.remind_at, Some(next));
    let refused = ProviderError::Refused("no".to_owned());
    world.apply(vec![Input::Reminded(Err(refused))]);
    assert!(matches!(world.next, Next::Rest), "the run goes on");
    world.send(SignalKind::Pause { reason: None });
    at(&mut world, next.plus_millis(1));
    assert!(matches!(world.next, Next::Rest));
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert!(matches!(world.next, Next::Remind));
}

#[test]
fn a_refusal_that_names_nobody_ends_the_wait_and_is_held_against_no_signer() {
    let mut world = waiting(|request, _| request);
    let fact = SignerFact::of_all(SignerFactKind::Declined, world.now);
    let id = world.state.signature.as_ref().expect("a request").id;
    world.send(SignalKind::SignatureFacts {
        signature_request_id: id,
        facts: vec![fact.because(Some("too expensive".to_owned()))],
    });
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(code(&world), codes::SIGNATURE_DECLINED);
    assert_eq!(world.execution().signature_state, SignatureState::Declined);
    let request = world.state.signature.as_ref().expect("a request");
    assert_eq!(request.status, RequestStatus::Declined);
    let pending = |signer: &crate::signature::Signer| signer.status == SignerStatus::Pending;
    assert!(request.signers.iter().all(pending));
    let human = &world.execution().error.as_ref().expect("an error").human;
    let human = human.render(Locale::En);
    assert_eq!(human, "A signer declined to sign: too expensive");
    let mut rows = world.audit.iter();
    assert!(rows.any(|row| row.action == "signature.declined"));
}

#[test]
fn a_request_that_is_withdrawn_at_the_provider_ends_the_wait() {
    let mut world = waiting(|request, _| request);
    wake(&mut world);
    let fact = SignerFact::of_all(SignerFactKind::Canceled, world.now);
    checked(&mut world, Checked::Answered(vec![fact]));
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(code(&world), codes::SIGNATURE_CANCELED);
    let request = world.state.signature.as_ref().expect("a request");
    assert_eq!(request.status, RequestStatus::Canceled);
}

#[test]
fn what_all_have_signed_is_finished_later_and_not_asked_for_again() {
    let mut world = waiting(|request, _| request);
    wake(&mut world);
    let facts = signed(&world);
    checked(&mut world, Checked::Answered(facts));
    let mut attempts = 0;
    while world.status() != Status::NeedsReview {
        assert!(matches!(world.next, Next::Resume { .. }));
        attempts += 1;
        world.finish_step(Err(StepFailure::retryable("document_not_ready", "Later.")));
        if world.status() != Status::NeedsReview {
            wake(&mut world);
        }
    }
    assert!(attempts > 1);
    world.send(SignalKind::Resume(ResumeSignal::default()));
    if matches!(world.next, Next::Preflight) {
        world.pass_preflight();
    }
    assert!(matches!(world.next, Next::Resume { .. }));
    world.finish_step(Ok(StepOutcome::Done(json!({"signed_file": 1}))));
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
    let asked = world.event_types();
    let asked = asked.iter().filter(|name| **name == "signature.requested");
    assert_eq!(asked.count(), 1);
    let mut steps = world.state.steps.iter();
    assert!(steps.all(|step| step.state.is_ended() || step.state == StepState::Pending));
    let waits = world.execution().waiting_for.as_ref();
    assert!(waits.is_none_or(|waiting| waiting.kind != WaitKind::Signature));
}
