//! Executions whose workers died too often: they are parked in every state, and nothing in them is evaluated.

use serde_json::json;

use super::{super::*, world::*};
use crate::{
    approval::Decision,
    error::{StepFailure, codes},
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Status, WaitKind},
    signature::{NewSignatureRequest, NewSigner},
    workflow::{Wait, handler::NewApproval},
};

fn signatures() -> Wait {
    let signers = [NewSigner::new("ana@example.com")];
    Wait::Signatures(NewSignatureRequest::new("builtin", "envelope", signers))
}

/// An execution in each state in which workers may die, with the state's name.
fn everywhere() -> Vec<(&'static str, World)> {
    let at = |node: &str| {
        let mut world = World::new(Options::default());
        world.run_to(node);
        world
    };
    let queued = World::new(Options::default());
    let mut preflight = World::new(Options::default());
    preflight.apply(Vec::new());
    let mut retry = at("render");
    let failure = StepFailure::retryable(codes::TIMEOUT, crate::i18n::Text::key("error-timeout"));
    retry.finish_step(Err(failure.clone()));
    let mut probing = at("send");
    probing.apply(vec![taken_over()]);
    let mut signing = at("sign");
    signing.finish_step(Ok(StepOutcome::Wait(signatures())));
    let mut paused = at("render");
    paused.send(SignalKind::Pause { reason: None });
    let mut confirming = World::new(Options {
        settings: json!({"confirm_before_delivery": true}),
        ..Options::default()
    });
    confirming.run_well();
    let mut review = World::new(Options::default());
    review.apply(Vec::new());
    review.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: review.now,
    }]);
    vec![
        ("queued", queued),
        ("preflight", preflight),
        ("computing", at("render")),
        ("an effect", at("send")),
        ("between attempts", retry),
        ("probing", probing),
        ("follow-up of signatures", signing),
        ("paused at work", paused),
        ("waiting for a confirmation", confirming),
        ("in review", review),
    ]
}

#[test]
fn whatever_its_workers_died_at_it_waits_for_a_person() {
    for (place, mut world) in everywhere() {
        world.apply(vec![interrupted()]);
        assert_eq!(world.status(), Status::NeedsReview, "{place}");
        assert!(matches!(world.next, Next::Rest), "{place}");
        let waiting = world.execution().waiting_for.as_ref().expect(place);
        assert_eq!(waiting.kind, WaitKind::Review, "{place}");
        let mut steps = world.state.steps.iter();
        assert!(steps.all(|step| !step.state.is_open()), "{place}");
        let until = waiting.until;
        assert_eq!(
            world.execution().wake_at,
            until,
            "{place}: nobody looks at it"
        );
        if place != "in review" {
            let error = world.execution().error.as_ref().expect(place);
            let codes = [codes::TOO_MANY_INTERRUPTIONS, codes::TOO_MANY_TAKEOVERS];
            assert!(codes.contains(&&*error.code), "{place}: {}", error.code);
        }
    }
}

#[test]
fn whatever_its_workers_died_at_it_can_be_canceled_before_and_after() {
    for after in [false, true] {
        for (place, mut world) in everywhere() {
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            if after {
                world.apply(vec![interrupted()]);
                world.apply_as(vec![cancel], Role::SignalApplier);
            } else {
                world.apply(vec![interrupted(), cancel]);
            }
            assert_eq!(world.status(), Status::Canceled, "{place}, {after}");
            // No handler is probed, because a handler may be what killed the workers.
            assert_eq!(world.probes_to_end, 0, "{place}, {after}");
            assert!(matches!(world.next, Next::Done));
        }
    }
}

#[test]
fn whatever_its_workers_died_at_a_person_can_let_it_go_on() {
    for (place, mut world) in everywhere() {
        world.apply(vec![interrupted()]);
        let is_open = world
            .state
            .steps
            .iter()
            .any(crate::run::Step::is_outcome_open);
        let how = ResumeSignal {
            settlement: is_open.then_some(Settlement::RunAgain),
            ..ResumeSignal::default()
        };
        world.send(SignalKind::Resume(how));
        world.run_well();
        match place {
            "follow-up of signatures" => {
                assert_eq!(world.status(), Status::Signing, "{place}");
                let waiting = world.execution().waiting_for.as_ref().expect(place);
                assert_eq!(waiting.kind, WaitKind::Signature, "{place}");
            }
            "waiting for a confirmation" => assert_eq!(world.status(), Status::Ready, "{place}"),
            _ => assert_eq!(world.status(), Status::Completed, "{place}"),
        }
    }
}

#[test]
fn a_resume_that_its_workers_died_of_is_recorded_as_ignored() {
    for (place, mut world) in everywhere() {
        let resume = world.signal(SignalKind::Resume(ResumeSignal::default()));
        world.apply(vec![interrupted(), resume]);
        assert_eq!(world.status(), Status::NeedsReview, "{place}");
        assert_eq!(
            world.settled,
            if place == "paused at work" { 2 } else { 1 },
            "{place}"
        );
        let last = world.audit.last().expect("a row");
        assert_eq!(
            last.action,
            crate::observe::actions::SIGNAL_IGNORED,
            "{place}"
        );
    }
}

/// An execution that waits for an approval, with the vote that ends the wait.
fn asking() -> (World, SignalKind) {
    let node = json!({"id": "ask", "type": "approval", "phase": "save"});
    let mut world = World::new(Options {
        nodes: json!([node]),
        ..Options::default()
    });
    world.run_to("ask");
    let approval = NewApproval::new(vec![("bia@example.com".to_owned(), [1; 32])]);
    let vote = SignalKind::ApprovalVote {
        approval_id: approval.id,
        email: "bia@example.com".to_owned(),
        decision: Decision::Approved,
        comment: None,
    };
    world.finish_step(Ok(StepOutcome::Wait(Wait::Approval(approval))));
    world.apply(vec![interrupted()]);
    assert_eq!(world.status(), Status::NeedsReview);
    (world, vote)
}

#[test]
fn an_approval_that_was_open_is_waited_for_again() {
    let (mut world, vote) = asking();
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert_eq!(world.status(), Status::Paused);
    let waiting = world.execution().waiting_for.as_ref().expect("waits");
    assert_eq!(waiting.kind, WaitKind::Approval);
    world.send(vote);
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn a_vote_during_the_review_counts_and_does_not_end_it() {
    let (mut world, vote) = asking();
    world.send(vote);
    assert_eq!(world.status(), Status::NeedsReview);
    assert!(world.waits_for_people(), "the review is not over");
    world.send(SignalKind::Resume(ResumeSignal::default()));
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}
