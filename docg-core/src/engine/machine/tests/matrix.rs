//! Every input is applied in every status. After each input, [`World`] checks the transition table.

use std::sync::Arc;

use serde_json::json;

use super::world::{Options, World, blocking_issue, taken_over};
use crate::{
    approval::Decision,
    engine::machine::{Command, Input, Next, Notes, Role, Verdict, allowed_commands, judge},
    error::StepFailure,
    ids::ApprovalId,
    ports::{ResumeSignal, Settlement, SignalKind},
    run::Status,
    signature::{NewSignatureRequest, NewSigner, SignerFact},
    workflow::{
        Probe, StepOutcome, StopReason, Wait,
        handler::{NewApproval, OnExpiry},
    },
};

/// An execution in every status, several for some statuses, each with a name.
fn worlds() -> Vec<(&'static str, World)> {
    let at = |node: &str| {
        let mut world = World::new(Options::default());
        world.run_to(node);
        world
    };
    let done = || Ok(StepOutcome::Done(json!({})));
    let request = || {
        StepOutcome::Wait(Wait::Signatures(NewSignatureRequest::new(
            "p",
            "e",
            [NewSigner::new("a@example.com")],
        )))
    };
    let mut worlds = vec![("queued", World::new(Options::default()))];
    let mut add = |name, world| worlds.push((name, world));
    let mut checking = World::new(Options::default());
    checking.apply(Vec::new());
    add("running, checks due", checking);
    add("running, step open", at("render"));
    let mut review = World::new(Options::default());
    review.apply(Vec::new());
    review.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: review.now,
    }]);
    add("needs_review by checks", review);
    let mut review = at("send");
    review.finish_step(Err(StepFailure::review("x", "X.")));
    add("needs_review by step", review);
    let mut unknown = at("send");
    unknown.finish_step(Err(StepFailure::outcome_unknown("x", "X.")));
    unknown.apply(vec![Input::Probed {
        index: 3,
        effect: Probe::Unknown,
        notes: Notes::default(),
        told: None,
    }]);
    add("needs_review, outcome unknown", unknown);
    let mut ready = World::new(Options {
        settings: json!({"confirm_before_delivery": true}),
        ..Options::default()
    });
    ready.apply(Vec::new());
    ready.run_well();
    add("ready, confirmation due", ready);
    add("sending", at("send"));
    let mut probing = at("send");
    probing.apply(vec![taken_over()]);
    add("sending, asked about", probing);
    let mut retrying = at("send");
    retrying.finish_step(Err(StepFailure::retryable("x", "X.")));
    add("sending, between attempts", retrying);
    let mut sent = at("send");
    sent.apply_as(
        vec![Input::StepFinished {
            index: 3,
            result: done(),
            notes: Notes::default(),
            told: None,
        }],
        Role::SignalApplier,
    );
    add("sent", sent);
    add("signing", at("sign"));
    let mut signing = at("sign");
    signing.finish_step(Ok(request()));
    add("signing, waiting", signing);
    let mut signed = World::new(Options {
        nodes: json!([{"id": "sign", "type": "sign"}, {"id": "send", "type": "send"}]),
        ..Options::default()
    });
    signed.run_to("sign");
    signed.apply_as(
        vec![Input::StepFinished {
            index: 0,
            result: done(),
            notes: Notes::default(),
            told: None,
        }],
        Role::SignalApplier,
    );
    add("signed", signed);
    for node in ["render", "send", "sign"] {
        let mut paused = at(node);
        paused.send(SignalKind::Pause { reason: None });
        add("paused, step open", paused);
    }
    let mut paused = World::new(Options::default());
    paused.send(SignalKind::Pause { reason: None });
    add("paused from queued", paused);
    let mut approval = World::new(Options {
        nodes: json!([{"id": "ok", "type": "approval", "phase": "save"}]),
        ..Options::default()
    });
    approval.run_to("ok");
    approval.finish_step(Ok(StepOutcome::Wait(Wait::Approval(NewApproval {
        id: ApprovalId(uuid::Uuid::nil()),
        message: None,
        approvers: vec![("a@example.com".to_owned(), [0; 32])],
        quorum: 1,
        expires_at: None,
        on_expiry: OnExpiry::Fail,
    }))));
    let later = approval.now.plus_millis(60_000);
    add("paused, approval", approval);
    for (name, wait) in [
        ("running, waiting for a moment", Wait::Until(later)),
        ("running, waiting for an event", Wait::event("paid")),
    ] {
        let mut waiting = at("save");
        waiting.finish_step(Ok(StepOutcome::Wait(wait)));
        add(name, waiting);
    }
    let mut completed = World::new(Options::default());
    completed.apply(Vec::new());
    completed.run_well();
    add("completed", completed);
    let mut failed = at("render");
    failed.finish_step(Err(StepFailure::fatal("x", "X.")));
    add("failed", failed);
    let mut canceled = at("render");
    canceled.send(SignalKind::Cancel { reason: None });
    add("canceled", canceled);
    worlds
}

/// One input of every kind, as it could arrive in any status.
fn inputs(world: &mut World) -> Vec<Vec<Input>> {
    let index = world.open_index().unwrap_or(0);
    let finished = |result| Input::StepFinished {
        index,
        result,
        notes: Notes::default(),
        told: None,
    };
    let mut rejected = ResumeSignal::default();
    rejected.approved = Some(false);
    let mut confirmed = ResumeSignal::default();
    confirmed.settlement = Some(Settlement::ConfirmDone(json!({})));
    let mut changed = ResumeSignal::default();
    changed.trigger_data = json!({"deal": {"amount": 1}}).as_object().cloned();
    let request_id = world
        .state
        .signature
        .as_ref()
        .map_or(uuid::Uuid::nil().into(), |request| request.id);
    let facts = vec![SignerFact::signed("a@example.com", world.now)];
    let signals = [
        SignalKind::Pause { reason: None },
        SignalKind::Cancel { reason: None },
        SignalKind::Resume(ResumeSignal::default()),
        SignalKind::Resume(rejected),
        SignalKind::Resume(confirmed),
        SignalKind::Resume(changed),
        SignalKind::SignatureFacts {
            signature_request_id: request_id,
            facts,
        },
        SignalKind::ApprovalVote {
            approval_id: ApprovalId(uuid::Uuid::nil()),
            email: "a@example.com".to_owned(),
            decision: Decision::Approved,
            comment: None,
        },
        SignalKind::Event {
            name: "paid".to_owned(),
            key: None,
            payload: Arc::default(),
        },
    ];
    let mut inputs: Vec<Vec<Input>> = signals
        .into_iter()
        .map(|kind| vec![world.signal(kind)])
        .collect();
    inputs.extend([
        vec![],
        vec![taken_over()],
        vec![Input::Preflight {
            issues: vec![],
            started_at: world.now,
        }],
        vec![Input::Preflight {
            issues: vec![blocking_issue()],
            started_at: world.now,
        }],
        vec![Input::Progress(0.5)],
        vec![finished(Ok(StepOutcome::Done(json!({}))))],
        vec![finished(Err(StepFailure::retryable("x", "X.")))],
        vec![finished(Err(StepFailure::review("x", "X.")))],
        vec![finished(Err(StepFailure::fatal("x", "X.")))],
        vec![finished(Err(StepFailure::outcome_unknown("x", "X.")))],
        vec![Input::StepFinished {
            index,
            notes: Notes::default(),
            result: Err(StepFailure::stopped()),
            told: Some(StopReason::Shutdown),
        }],
        vec![Input::Probed {
            index,
            effect: Probe::Done(json!({})),
            notes: Notes::default(),
            told: None,
        }],
        vec![Input::Probed {
            index,
            effect: Probe::NotDone,
            notes: Notes::default(),
            told: None,
        }],
        vec![Input::Probed {
            index,
            effect: Probe::Unknown,
            notes: Notes::default(),
            told: None,
        }],
    ]);
    inputs
}

#[test]
fn every_status_takes_every_input_without_breaking_the_table() {
    let mut seen = std::collections::BTreeSet::new();
    let count = inputs(&mut World::new(Options::default())).len();
    for choice in 0..count {
        for (name, mut world) in worlds() {
            seen.insert(world.status());
            let input = inputs(&mut world).swap_remove(choice);
            let was_terminal = world.status().is_terminal();
            world.apply(input);
            assert!(!was_terminal || matches!(world.next, Next::Done), "{name}");
        }
    }
    assert_eq!(
        seen.len(),
        Status::ALL.len(),
        "every status was tried: {seen:?}"
    );
}

#[test]
fn a_call_that_is_allowed_is_applied_and_any_other_is_ignored() {
    for (name, world) in worlds() {
        for (call, kind) in [
            (Command::Pause, SignalKind::Pause { reason: None }),
            (Command::Cancel, SignalKind::Cancel { reason: None }),
            (Command::Resume, SignalKind::Resume(ResumeSignal::default())),
        ] {
            let unsettled = name == "needs_review, outcome unknown" && call == Command::Resume;
            let (mut world, allowed) = (
                worlds_by_name(name, &world),
                allowed_commands(world.execution()).contains(&call),
            );
            assert_eq!(allowed, judge(world.execution(), call) == Verdict::Apply);
            let audited = world.audit.len();
            world.send(kind);
            let ignored = world.audit[audited..]
                .iter()
                .any(|row| row.action == "execution.signal_ignored");
            assert_eq!(ignored, !allowed || unsettled, "{name}: {call}");
        }
    }
}

fn worlds_by_name(name: &str, like: &World) -> World {
    worlds()
        .into_iter()
        .find(|(other, world)| {
            *other == name && world.execution().paused_from == like.execution().paused_from
        })
        .map(|(_, world)| world)
        .expect("a world of this name")
}
