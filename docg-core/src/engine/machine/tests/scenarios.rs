//! Whole executions, from their first event to their last.

use serde_json::json;

use super::world::{Options, World, blocking_issue, taken_over};
use crate::{
    actions::ActionCatalogue,
    engine::machine::{Input, Next, Notes, Role},
    error::{StepFailure, codes},
    event::EventData,
    i18n::Locale,
    observe::{AuditDraft, LogDraft, LogLevel, Redaction},
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Phase, Status, StepStatus, WaitKind},
    signature::{NewSignatureRequest, NewSigner, RequestStatus, SignerFact, SignerFactKind},
    time::Timestamp,
    workflow::{
        Probe, StepOutcome, StopReason, Wait,
        handler::{NewApproval, OnExpiry},
    },
};

fn two_signers(expires_at: Option<Timestamp>) -> StepOutcome {
    let signers = [
        NewSigner::new("one@example.com"),
        NewSigner::new("two@example.com"),
    ];
    let mut request = NewSignatureRequest::new("desk", "envelope", signers);
    request.expires_at = expires_at;
    StepOutcome::Wait(Wait::Signatures(request))
}

fn fact(world: &World, email: &str, kind: SignerFactKind) -> SignalKind {
    let request = world.state.signature.as_ref().expect("a request");
    SignalKind::SignatureFacts {
        signature_request_id: request.id,
        facts: vec![SignerFact {
            email: Some(email.to_owned()),
            kind,
            at: world.now,
            reason: None,
        }],
    }
}

/// A handler leaves a secret in every place that keeps its free JSON or text. No such place may show the
/// secret.
#[test]
fn nothing_that_a_handler_leaves_shows_a_secret_or_is_endless() {
    let mut world = World::new(Options::default());
    world.redaction = Redaction::default().key("cpf");
    world.run_to("sign");
    let index = world.open_index().expect("a step is under way");
    let secrets = json!({
        "password": "CANARY", "deep": [{"client_cpf": "CANARY"}],
        "body": r#"{"cpf": "CANARY"}"#, "header": "Authorization: Bearer CANARY",
    });
    let long = json!({"text": "x".repeat(5_000_000)});
    let text = "cpf: CANARY, Cookie: sid=CANARY";
    let log = LogDraft::new(LogLevel::Ok, text).tech(text);
    world.apply(vec![Input::StepFinished {
        index,
        result: Err(StepFailure::fatal("refused", text)
            .tech(text)
            .printable(&world.redaction)),
        notes: Notes {
            logs: vec![
                log.clone().details(secrets.clone()),
                log.details(long.clone()),
            ],
            audit: vec![
                AuditDraft::new("app.called", secrets),
                AuditDraft::new("app.called", long),
            ],
        },
        told: None,
    }]);
    let kept = json!([
        world.logs,
        world.audit,
        world.events,
        world.state.execution.error
    ]);
    let kept = kept.to_string();
    assert!(!kept.contains("CANARY"), "{kept}");
    assert!(kept.contains("[redacted]"));
    assert!(kept.len() < 100_000, "{} bytes", kept.len());
    assert_eq!(kept.matches("\"truncated\":true").count(), 2);
}

#[test]
fn a_run_that_goes_well_passes_through_every_status_of_its_phases() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world.finish_step(Ok(two_signers(None)));
    assert_eq!(world.status(), Status::Signing);
    world.send(fact(&world, "one@example.com", SignerFactKind::Viewed));
    world.send(fact(&world, "one@example.com", SignerFactKind::Signed));
    assert_eq!(
        world
            .execution()
            .waiting_for
            .as_ref()
            .expect("waits")
            .detail["signers"],
        json!(["two@example.com"])
    );
    world.send(fact(&world, "two@example.com", SignerFactKind::Signed));
    assert!(
        matches!(world.next, Next::Resume { .. }),
        "the handler finishes the document"
    );
    world.finish_step(Ok(StepOutcome::Done(json!({"signed_file": "f"}))));
    assert_eq!(
        world.statuses(),
        [
            "running",
            "ready",
            "sending",
            "sent",
            "signing",
            "signed",
            "completed"
        ]
    );
    assert_eq!(world.event_types().last(), Some(&"execution.completed"));
}

#[test]
fn blocking_issues_park_the_run_and_a_repair_is_checked_again() {
    let mut world = World::new(Options::default());
    world.apply(Vec::new());
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(world.status(), Status::NeedsReview);
    let mut change = ResumeSignal::default();
    change.trigger_data = json!({"deal": {"customer": "c"}}).as_object().cloned();
    world.send(SignalKind::Resume(change));
    assert!(
        matches!(world.next, Next::Preflight),
        "what was repaired is checked"
    );
    assert_eq!(
        *world.state.inputs.trigger_data,
        json!({"deal": {"amount": 5, "customer": "c"}})
    );
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(
        world.status(),
        Status::NeedsReview,
        "and does not pass while something blocks"
    );
    world.send(SignalKind::Resume(ResumeSignal::default()));
    world.pass_preflight();
    assert!(matches!(world.next, Next::Run { index: 0, .. }));
}

#[test]
fn a_review_that_is_refused_or_forgotten_ends_the_run() {
    let parked = || {
        let mut world = World::new(Options::default());
        world.apply(Vec::new());
        world.apply(vec![Input::Preflight {
            issues: vec![blocking_issue()],
            started_at: world.now,
        }]);
        world
    };
    let mut refused = parked();
    let mut no = ResumeSignal::default();
    no.approved = Some(false);
    refused.send(SignalKind::Resume(no));
    assert_eq!(
        refused.execution().error.as_ref().expect("an error").code,
        codes::REVIEW_REJECTED
    );
    let mut forgotten = parked();
    forgotten.now = forgotten.execution().wake_at.expect("a review runs out");
    forgotten.apply(Vec::new());
    assert_eq!(forgotten.status(), Status::Failed);
    assert_eq!(
        forgotten.execution().error.as_ref().expect("an error").code,
        codes::REVIEW_EXPIRED
    );
}

#[test]
fn a_retryable_failure_waits_and_tries_again_until_the_policy_is_used_up() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    world.finish_step(Err(StepFailure::retryable("service_unavailable", "Busy.")));
    assert_eq!(
        world.execution().waiting_for.as_ref().expect("waits").kind,
        WaitKind::Retry
    );
    assert_eq!(
        world.status(),
        Status::Running,
        "the status stays what it was"
    );
    world.now = world.execution().wake_at.expect("a moment");
    world.apply(Vec::new());
    assert_eq!(world.state.steps[1].attempt, 2);
    world.finish_step(Err(StepFailure::retryable("service_unavailable", "Busy.")));
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(
        world
            .execution()
            .current_step
            .as_ref()
            .expect("shown")
            .node_id
            .as_str(),
        "render"
    );
}

#[test]
fn what_a_later_attempt_makes_good_is_no_error_of_the_run() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    world.finish_step(Err(StepFailure::retryable("service_unavailable", "Busy.")));
    assert!(world.execution().error.is_some(), "it explains the wait");
    world.now = world.execution().wake_at.expect("a moment");
    world.apply(Vec::new());
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
    assert_eq!(world.execution().error, None);
}

#[test]
fn a_step_that_a_person_can_repair_parks_the_run_and_goes_on_from_there() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.finish_step(Err(StepFailure::review(
        "smtp_refused",
        "The address was refused.",
    )));
    assert_eq!(world.status(), Status::NeedsReview);
    world.send(SignalKind::Resume(ResumeSignal::default()));
    world.pass_preflight();
    assert!(
        matches!(world.next, Next::Run { index: 3, .. }),
        "earlier steps are not repeated"
    );
    assert_eq!(world.state.steps[0].attempt, 1);
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn an_effect_that_may_have_happened_is_asked_about_before_it_is_repeated() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.apply(vec![taken_over()]);
    assert!(matches!(world.next, Next::Probe { index: 3, .. }));
    world.apply(vec![Input::Probed {
        index: 3,
        effect: Probe::NotDone,
        notes: Notes::default(),
        told: None,
    }]);
    assert!(
        matches!(world.next, Next::Run { index: 3, .. }),
        "it did not happen: it runs"
    );
    assert_eq!(
        world.state.steps[3].attempt, 1,
        "a dead worker uses up no attempt"
    );
    world.apply(vec![taken_over()]);
    world.apply(vec![Input::Probed {
        index: 3,
        effect: Probe::Done(json!({"message_id": "m"})),
        notes: Notes::default(),
        told: None,
    }]);
    assert_eq!(
        world.state.steps[3].status(),
        StepStatus::Success,
        "it happened: it is not repeated"
    );
}

#[test]
fn an_attempt_that_ended_with_its_server_does_not_count() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    let stopped = Input::StepFinished {
        index: 3,
        result: Err(StepFailure::retryable("canceled", "Stopped.")),
        notes: Notes::default(),
        told: Some(StopReason::Shutdown),
    };
    world.apply_as(vec![stopped], Role::SignalApplier);
    assert_eq!(world.state.steps[3].status(), StepStatus::Pending);
    assert!(world.state.execution.wake_at.is_some(), "it wants a worker");
    assert_eq!(world.state.execution.waiting_for, None);
    world.apply(Vec::new());
    assert!(
        matches!(world.next, Next::Run { index: 3, .. }),
        "its handler has said that nothing happened: it is not asked"
    );
    assert_eq!(world.state.steps[3].attempt, 1);
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
}

#[test]
fn an_outcome_that_nobody_can_tell_is_settled_by_a_person() {
    let unknown = || {
        let mut world = World::new(Options::default());
        world.run_to("send");
        world.finish_step(Err(StepFailure::outcome_unknown(
            "connection_error",
            "The connection broke.",
        )));
        world.apply(vec![Input::Probed {
            index: 3,
            effect: Probe::Unknown,
            notes: Notes::default(),
            told: None,
        }]);
        assert_eq!(world.status(), Status::NeedsReview);
        assert_eq!(
            world.execution().error.as_ref().expect("an error").code,
            codes::OUTCOME_UNKNOWN
        );
        // Resuming without settling the unknown outcome could send twice.
        world.send(SignalKind::Resume(ResumeSignal::default()));
        assert_eq!(world.status(), Status::NeedsReview);
        world
    };
    let settle = |settlement| {
        let mut signal = ResumeSignal::default();
        signal.settlement = Some(settlement);
        SignalKind::Resume(signal)
    };
    let mut done = unknown();
    done.send(settle(Settlement::ConfirmDone(json!({"message_id": "m"}))));
    done.pass_preflight();
    assert!(matches!(done.next, Next::Run { index: 4, .. }));
    assert_eq!(done.state.steps[3].attempt, 1);
    let mut again = unknown();
    again.send(settle(Settlement::RunAgain));
    again.pass_preflight();
    assert!(matches!(again.next, Next::Run { index: 3, .. }));
}

#[test]
fn a_probe_after_a_failure_counts_the_attempt() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    for _ in 0..2 {
        world.finish_step(Err(StepFailure::outcome_unknown(
            "handler_panicked",
            "It broke off.",
        )));
        world.apply(vec![Input::Probed {
            index: 3,
            effect: Probe::NotDone,
            notes: Notes::default(),
            told: None,
        }]);
        if world.execution().wake_at.is_some() {
            world.now = world.execution().wake_at.unwrap_or(world.now);
            world.apply(Vec::new());
        }
    }
    assert_eq!(
        world.status(),
        Status::Failed,
        "a handler that always breaks off does not run for ever"
    );
}

#[test]
fn workers_that_die_too_often_under_a_step_call_for_a_person() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    for _ in 0..19 {
        world.apply(vec![taken_over()]);
        assert!(matches!(world.next, Next::Run { index: 1, .. }));
    }
    world.apply(vec![taken_over()]);
    assert_eq!(world.status(), Status::NeedsReview);
    assert_eq!(
        world.execution().error.as_ref().expect("an error").code,
        codes::TOO_MANY_TAKEOVERS
    );
}

#[test]
fn a_pause_lets_the_running_step_end_and_begins_no_other() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    world.send(SignalKind::Pause { reason: None });
    assert_eq!(world.status(), Status::Paused);
    world.apply(vec![Input::StepFinished {
        index: 3,
        result: Ok(StepOutcome::Done(json!({}))),
        notes: Notes::default(),
        told: None,
    }]);
    assert_eq!(world.status(), Status::Paused);
    assert!(matches!(world.next, Next::Rest));
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert!(
        world
            .statuses()
            .ends_with(&["paused", "sending", "sent", "signing"]),
        "{:?}",
        world.statuses()
    );
}

#[test]
fn a_failed_attempt_during_a_pause_is_repeated_when_the_pause_ends() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    world.send(SignalKind::Pause { reason: None });
    let failure = StepFailure::retryable("timeout", "Too slow.");
    world.apply(vec![Input::StepFinished {
        index: 1,
        result: Err(failure),
        notes: Notes::default(),
        told: None,
    }]);
    assert_eq!(
        world.execution().waiting_for.as_ref().expect("waits").kind,
        WaitKind::Pause
    );
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert!(matches!(world.next, Next::Run { index: 1, .. }));
}

#[test]
fn a_cancel_ends_what_waits_and_says_what_became_of_the_step() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world.finish_step(Ok(two_signers(None)));
    world.send(SignalKind::Cancel {
        reason: Some("wrong customer".to_owned()),
    });
    assert_eq!(world.status(), Status::Canceled);
    assert_eq!(
        world.state.signature.as_ref().expect("a request").status,
        RequestStatus::Canceled
    );
    assert_eq!(world.state.steps[4].status(), StepStatus::Failed);
    let late = fact(&world, "one@example.com", SignerFactKind::Signed);
    world.send(late);
    assert_eq!(
        world.audit.last().expect("a row").action,
        "execution.signal_ignored",
        "a late report is not lost"
    );
}

#[test]
fn a_signer_who_declines_ends_the_wait_at_once() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world.finish_step(Ok(two_signers(None)));
    world.send(fact(&world, "two@example.com", SignerFactKind::Declined));
    assert_eq!(world.status(), Status::Failed);
    assert_eq!(
        world.execution().error.as_ref().expect("an error").code,
        codes::SIGNATURE_DECLINED
    );
    assert_eq!(
        world.execution().signature_state,
        crate::run::SignatureState::Declined
    );
}

#[test]
fn time_that_people_take_is_not_counted_as_work() {
    let mut world = World::new(Options::default());
    world.run_to("sign");
    world.now = world.now.plus_millis(10);
    world.finish_step(Ok(two_signers(None)));
    world.now = world.now.plus_millis(86_400_000);
    world.send(fact(&world, "one@example.com", SignerFactKind::Signed));
    world.send(fact(&world, "two@example.com", SignerFactKind::Signed));
    world.now = world.now.plus_millis(5);
    world.finish_step(Ok(StepOutcome::Done(json!({}))));
    let times = *world
        .execution()
        .phase_metrics
        .get(Phase::Signature)
        .expect("measured");
    assert_eq!((times.duration_ms, times.waiting_ms), (15, 86_400_000));
    assert_eq!(world.state.steps[4].duration_ms(), Some(15));
    let told: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::StepCompleted { duration_ms, .. } | EventData::Completed { duration_ms } => {
                Some(*duration_ms)
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [0, 0, 0, 0, 15, 15], "each step, and the run");
}

#[test]
fn a_dry_run_skips_every_effect() {
    let mut world = World::new(Options {
        dry_run: true,
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    assert_eq!(world.status(), Status::Completed);
    for step in &world.state.steps[2..] {
        assert_eq!(step.status(), StepStatus::Skipped);
        assert_eq!(
            step.data_out.as_ref().expect("a reason").to_value()["reason"],
            "dry_run"
        );
    }
}

#[test]
fn until_phase_is_inclusive() {
    let mut world = World::new(Options {
        until_phase: Some(Phase::Save),
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    let statuses: Vec<_> = world
        .state
        .steps
        .iter()
        .map(|step| step.status().as_str())
        .collect();
    assert_eq!(
        statuses,
        ["success", "success", "success", "skipped", "skipped"]
    );
}

#[test]
fn delivery_waits_for_a_person_where_the_workflow_says_so() {
    let mut world = World::new(Options {
        settings: json!({"confirm_before_delivery": true}),
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    assert_eq!(world.status(), Status::Ready);
    assert_eq!(
        world.execution().waiting_for.as_ref().expect("waits").kind,
        WaitKind::Confirmation
    );
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert!(matches!(world.next, Next::Run { index: 3, .. }));
    assert_eq!(world.status(), Status::Sending);
}

#[test]
fn what_is_changed_with_the_confirmation_is_checked_before_anything_is_sent() {
    let mut world = World::new(Options {
        settings: json!({"confirm_before_delivery": true}),
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    let mut change = ResumeSignal::default();
    change.trigger_data = json!({"deal": {"customer": "d"}}).as_object().cloned();
    world.send(SignalKind::Resume(change));
    assert!(matches!(world.next, Next::Preflight));
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(world.status(), Status::NeedsReview);
}

#[test]
fn an_approval_pauses_the_run_and_goes_on_with_its_quorum() {
    let nodes = json!([
        {"id": "render", "type": "render"},
        {"id": "ok", "type": "approval", "phase": "save"},
        {"id": "send", "type": "send"},
    ]);
    let ask = |world: &mut World, on_expiry| {
        world.run_to("ok");
        let id = crate::ids::ApprovalId::new();
        let approvers = ["a@example.com", "b@example.com", "c@example.com"]
            .map(|a| (a.to_owned(), [0; 32]))
            .to_vec();
        let expires_at = Some(world.now.plus_millis(1_000));
        let approval = NewApproval {
            id,
            message: None,
            approvers,
            quorum: 2,
            expires_at,
            on_expiry,
        };
        world.finish_step(Ok(StepOutcome::Wait(Wait::Approval(approval))));
        id
    };
    let vote = |id, email: &str, decision| SignalKind::ApprovalVote {
        approval_id: id,
        email: email.to_owned(),
        decision,
        comment: None,
    };
    use crate::approval::Decision::{Approved, Rejected};
    let mut world = World::new(Options {
        nodes: nodes.clone(),
        ..Options::default()
    });
    let id = ask(&mut world, OnExpiry::Fail);
    assert_eq!(world.status(), Status::Paused);
    world.send(SignalKind::Resume(ResumeSignal::default()));
    assert_eq!(
        world.status(),
        Status::Paused,
        "an approval is not resumed by hand"
    );
    world.send(vote(id, "a@example.com", Approved));
    world.send(vote(id, "a@example.com", Approved));
    assert_eq!(world.status(), Status::Paused, "nobody counts twice");
    world.send(vote(id, "c@example.com", Approved));
    assert!(matches!(world.next, Next::Resume { .. }));
    world.run_well();
    assert_eq!(world.status(), Status::Completed);

    let mut world = World::new(Options {
        nodes: nodes.clone(),
        ..Options::default()
    });
    let id = ask(&mut world, OnExpiry::Fail);
    world.send(vote(id, "b@example.com", Rejected));
    assert_eq!(
        world.execution().error.as_ref().expect("an error").code,
        codes::APPROVAL_REJECTED
    );

    for (on_expiry, status) in [
        (OnExpiry::Fail, Status::Failed),
        (OnExpiry::Review, Status::NeedsReview),
        (OnExpiry::Approve, Status::Running),
    ] {
        let mut world = World::new(Options {
            nodes: nodes.clone(),
            ..Options::default()
        });
        ask(&mut world, on_expiry);
        world.now = world.execution().wake_at.expect("it runs out");
        world.apply(Vec::new());
        assert_eq!(world.status(), status, "{on_expiry:?}");
    }

    // A vote counts if it was received in time, however late it is applied.
    for (late, status) in [(0, Status::Failed), (1, Status::Running)] {
        let mut world = World::new(Options {
            nodes: nodes.clone(),
            ..Options::default()
        });
        let id = ask(&mut world, OnExpiry::Fail);
        world.send(vote(id, "a@example.com", Approved));
        let end = world.execution().wake_at.expect("it runs out");
        world.now = Timestamp::from_millis(end.as_millis() - late);
        let signal = world.signal(vote(id, "b@example.com", Approved));
        world.now = end;
        world.apply(vec![signal]);
        assert_eq!(world.status(), status, "{late} ms before the end");
    }
}

#[test]
fn a_node_whose_condition_is_false_is_left_out() {
    let nodes = json!([
        {"id": "render", "type": "render"},
        {"id": "send", "type": "send", "when": "trigger.deal.amount > 10"},
        {"id": "sign", "type": "sign", "when": "trigger.deal.amount > 1"},
    ]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("sign");
    assert_eq!(world.state.steps[1].status(), StepStatus::Skipped);
    assert!(!world.statuses().contains(&"sending"));
}

#[test]
fn on_error_continue_goes_on_without_the_step() {
    let nodes = json!([
        {"id": "render", "type": "render"},
        {"id": "send", "type": "send", "on_error": "continue", "retry": {"max_attempts": 1}},
        {"id": "sign", "type": "sign"},
    ]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("send");
    world.finish_step(Err(StepFailure::fatal("smtp_refused", "Refused.")));
    assert_eq!(world.status(), Status::Signing);
    assert_eq!(
        world.execution().delivery_state,
        crate::run::DeliveryState::Failed
    );
    assert!(world.execution().error.is_some(), "it is still shown");
    let actions = ActionCatalogue::default();
    let at_the_end = |world: &World| {
        let mut ended = world.execution().clone();
        ended.status = Status::Completed;
        actions.for_execution(&ended, &world.state.steps).len()
    };
    assert_eq!(at_the_end(&world), 1, "no failed step is without an action");
}

#[test]
fn on_error_continue_does_not_pass_over_what_may_have_happened() {
    let nodes = json!([
        {"id": "send", "type": "send", "on_error": "continue", "retry": {"max_attempts": 1}},
    ]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("send");
    world.finish_step(Err(StepFailure::outcome_unknown(
        "handler_panicked",
        "It broke off.",
    )));
    world.apply(vec![Input::Probed {
        index: 0,
        effect: Probe::Unknown,
        notes: Notes::default(),
        told: None,
    }]);
    assert_eq!(world.status(), Status::NeedsReview);
}

#[test]
fn variables_that_are_not_there_when_a_step_begins_park_the_run() {
    let nodes = json!([
        {"id": "extract", "type": "extract"},
        {"id": "send", "type": "send", "params": {"in": "{{steps.extract.missing}}"}},
    ]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    assert_eq!(world.status(), Status::NeedsReview);
    let error = world.execution().error.as_ref().expect("an error");
    assert_eq!(error.code, codes::UNRESOLVED_VARIABLES);
    assert!(
        error
            .human
            .render(crate::i18n::Locale::En)
            .contains("steps.extract.missing")
    );
}

#[test]
fn a_repair_names_the_steps_that_keep_what_they_made_from_earlier_data() {
    let param = |name: &str, value| json!({"nodes": {name: {"in": value}}});
    for (change, named) in [
        (json!({}), &[][..]),
        (json!({"trigger_data": {"other": 1}}), &[]),
        (param("send", json!(1)), &[]),
        (param("save", json!(1)), &["save"]),
        (param("render", json!(1)), &["render"]),
        (param("extract", json!({"amount": 5})), &[]),
        (
            param("extract", json!("{{trigger.nothing}}")),
            &["extract", "render"],
        ),
        // The document was made from the first step's output, which was made from the trigger data.
        (
            json!({"trigger_data": {"deal": {"amount": 6}}}),
            &["extract", "render"],
        ),
    ] {
        let mut world = World::new(Options::default());
        world.run_to("send");
        let text = crate::i18n::Text::key("error-timeout");
        world.finish_step(Err(StepFailure::review("refused", text)));
        assert_eq!(world.status(), Status::NeedsReview);
        let mut resume = ResumeSignal::default();
        resume.trigger_data = change["trigger_data"].as_object().cloned();
        resume.nodes = change["nodes"].as_object().cloned().unwrap_or_default();
        let before = world.logs.len();
        world.send(SignalKind::Resume(resume.clone()));
        world.pass_preflight();
        let summary = world.execution().preflight.clone().expect("checked");
        let nodes = summary
            .issues
            .iter()
            .filter_map(|issue| issue.node_id.as_ref());
        let nodes: Vec<_> = nodes.map(|node| node.as_str()).collect();
        assert_eq!(nodes, named, "{change}");
        assert_eq!(summary.blocking_count, 0, "{change}");
        let texts = |world: &World, from: usize| -> Vec<_> {
            let logs = world.logs[from..].iter().map(|entry| &entry.message_human);
            let of_kind = |text: &&crate::i18n::Text| {
                format!("{text:?}").contains("issue-made-from-earlier-data")
            };
            logs.filter(of_kind).cloned().collect()
        };
        let logged = texts(&world, before);
        let warned: Vec<_> = summary
            .issues
            .iter()
            .map(|it| it.message_human.clone())
            .collect();
        assert_eq!(logged, warned, "{change}");
        // The warning stays in the summary, and is logged only once.
        let before = world.logs.len();
        let text = crate::i18n::Text::key("error-timeout");
        world.finish_step(Err(StepFailure::review("refused", text)));
        world.send(SignalKind::Resume(ResumeSignal::default()));
        world.pass_preflight();
        let summary = world.execution().preflight.clone().expect("checked");
        assert_eq!(summary.issues.len(), named.len(), "{change}");
        assert_eq!(texts(&world, before), [], "{change}");
    }
}

#[test]
fn a_pause_that_outlasts_the_policy_is_told_with_its_end() {
    let mut world = World::new(Options::default());
    world.run_to("render");
    let asked = StepFailure::retryable("x", "It is busy.").tech("503");
    world.finish_step(Err(asked.retry_after_ms(3_600_000)));
    assert_eq!(world.status(), Status::NeedsReview);
    let until = world.now.plus_millis(3_600_000);
    let error = world.execution().error.as_ref().expect("an error");
    for locale in Locale::ALL {
        let human = error.human.render(locale);
        assert!(
            human.contains("It is busy.") && human.contains(" UTC"),
            "{human}"
        );
        assert!(human.contains(&until.to_the_minute()), "{human}");
    }
    let tech = error.tech.as_deref().expect("a text for technicians");
    assert!(
        tech.starts_with("503") && tech.contains(&until.to_string()),
        "{tech}"
    );
}

#[test]
fn a_step_whose_parameters_can_no_longer_be_resolved_after_a_takeover_is_left_to_a_person() {
    let params = json!({"in": "{{trigger.deal.amount}}"});
    let nodes = json!([{"id": "save", "type": "save", "params": params}]);
    let mut world = World::new(Options {
        nodes,
        ..Options::default()
    });
    world.run_to("save");
    world.send(SignalKind::Pause { reason: None });
    let mut change = ResumeSignal::default();
    change.trigger_data = json!({"deal": "gone"}).as_object().cloned();
    world.send(SignalKind::Resume(change));
    world.apply(vec![taken_over()]);
    assert_eq!(world.status(), Status::NeedsReview);
    let error = world.execution().error.as_ref().expect("an error");
    assert_eq!(error.code, codes::UNRESOLVED_VARIABLES);
}
