//! Random sequences of all inputs. [`World`] checks the invariants after each input.

use proptest::prelude::*;
use serde_json::json;

use super::world::{Options, World, blocking_issue, taken_over};
use crate::{
    approval::Decision,
    engine::machine::{Attendance, Checked, Input, Next, Notes, Role},
    error::StepFailure,
    ids::ApprovalId,
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Phase, Status},
    signature::{NewSignatureRequest, NewSigner, ProviderError, SignerFact, SignerFactKind},
    workflow::{
        Probe, StepOutcome, StopReason, Wait,
        handler::{NewApproval, OnExpiry},
    },
};

#[derive(Debug, Clone)]
enum Move {
    /// The driver's next action ends. The number picks one of several answers.
    Work(u8),
    Pause,
    Resume(u8),
    /// A person cancels the execution. With a number, the handler is at work, and the number picks the answer
    /// that the handler gives when it is told to stop.
    Cancel(Option<u8>),
    Facts(u8),
    Vote(bool),
    /// The event that a step waits for, or may wait for later.
    Event,
    TakenOver,
    /// The worker shuts down, and its handler stops.
    Stopped,
    Progress(f32),
    /// A caller that is no worker applies signals.
    SignalFromElsewhere(bool),
    Time(u32),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => (0u8..11).prop_map(Move::Work),
        1 => Just(Move::Pause),
        2 => (0u8..5).prop_map(Move::Resume),
        1 => (prop::bool::weighted(0.2), prop::option::of(0u8..9))
            .prop_filter_map("rarely", |(yes, how)| yes.then_some(Move::Cancel(how))),
        3 => (0u8..8).prop_map(Move::Facts),
        1 => any::<bool>().prop_map(Move::Vote),
        1 => Just(Move::Event),
        1 => Just(Move::TakenOver),
        1 => Just(Move::Stopped),
        1 => (0f32..1.0).prop_map(Move::Progress),
        1 => any::<bool>().prop_map(Move::SignalFromElsewhere),
        2 => (0u32..200_000).prop_map(Move::Time),
    ]
}

fn nodes() -> impl Strategy<Value = serde_json::Value> {
    let node = (
        prop::sample::select(vec![
            "extract", "render", "save", "send", "sign", "approval",
        ]),
        prop::sample::select(vec!["fail", "review", "continue"]),
        prop::option::of(prop::sample::select(vec![
            "trigger.deal.amount > 1",
            "trigger.deal.amount > 9",
        ])),
    );
    prop::collection::vec(node, 1..6).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate().map(|(index, (node_type, on_error, when))| {
            let mut node = json!({
                "id": format!("n{index}"), "type": node_type, "on_error": on_error, "when": when,
                "retry": {"max_attempts": 2, "initial_ms": 10},
            });
            if node_type == "approval" {
                node["phase"] = json!("save");
            }
            node
        });
        nodes.collect()
    })
}

fn play(world: &mut World, step: Move) {
    match step {
        Move::Work(how) => work(world, how),
        Move::Pause => world.send(SignalKind::Pause { reason: None }),
        Move::Cancel(how) => {
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            match (how, answer(world, how.unwrap_or(0))) {
                (Some(_), Some(answer)) if world.open_index().is_some() => {
                    world.decide(vec![cancel], Role::Worker, Attendance::AtWork);
                    let Next::Stop { signals } = &mut world.next else {
                        panic!("{:?}", world.next)
                    };
                    let signals = Input::Arrived(std::mem::take(signals));
                    world.apply(vec![told_to_cancel(answer), signals]);
                    assert_eq!(world.status(), Status::Canceled);
                }
                _ => world.apply(vec![cancel]),
            }
        }
        Move::Resume(how) => {
            let mut signal = ResumeSignal::default();
            match how {
                0 => signal.approved = Some(false),
                1 => signal.settlement = Some(Settlement::RunAgain),
                2 => signal.settlement = Some(Settlement::ConfirmDone(json!({}))),
                3 => signal.trigger_data = json!({"deal": {"amount": 7}}).as_object().cloned(),
                _ => {}
            }
            world.send(SignalKind::Resume(signal));
        }
        Move::Facts(which) => {
            let Some(request) = &world.state.signature else {
                return;
            };
            let kinds = [
                SignerFactKind::Viewed,
                SignerFactKind::Signed,
                SignerFactKind::Declined,
                SignerFactKind::Bounced,
            ];
            let fact = SignerFact {
                email: Some(
                    if which < 4 {
                        "a@example.com"
                    } else {
                        "b@example.com"
                    }
                    .to_owned(),
                ),
                kind: kinds[usize::from(which % 4)],
                at: world.now,
                reason: None,
            };
            let kind = SignalKind::SignatureFacts {
                signature_request_id: request.id,
                facts: vec![fact],
            };
            world.send(kind);
        }
        Move::Event => world.send(SignalKind::Event {
            name: "paid".to_owned(),
            key: None,
            payload: std::sync::Arc::default(),
        }),
        Move::Vote(yes) => {
            let Some(approval) = &world.state.approval else {
                return;
            };
            let kind = SignalKind::ApprovalVote {
                approval_id: approval.id,
                email: "a@example.com".to_owned(),
                decision: if yes {
                    Decision::Approved
                } else {
                    Decision::Rejected
                },
                comment: None,
            };
            world.send(kind);
        }
        Move::TakenOver => world.apply(vec![taken_over()]),
        Move::Stopped => {
            if let Next::Run { index, .. } | Next::Resume { index, .. } = world.next {
                let notes = Notes::default();
                world.apply_as(
                    vec![Input::StepFinished {
                        index,
                        notes,
                        result: Err(StepFailure::stopped()),
                        told: Some(StopReason::Shutdown),
                    }],
                    Role::SignalApplier,
                );
                world.apply(Vec::new());
            }
        }
        Move::Progress(fraction) => world.apply(vec![Input::Progress(fraction)]),
        Move::SignalFromElsewhere(pause) => {
            let kind = if pause {
                SignalKind::Pause { reason: None }
            } else {
                SignalKind::Resume(ResumeSignal::default())
            };
            let signal = world.signal(kind);
            world.apply_as(vec![signal], Role::SignalApplier);
            world.apply(Vec::new());
        }
        Move::Time(millis) => {
            world.now = world.now.plus_millis(millis.into());
            world.apply(Vec::new());
        }
    }
}

/// Turns an answer into that of a handler that was told to stop because of a cancel.
fn told_to_cancel(mut answer: Input) -> Input {
    if let Input::StepFinished { told, .. } | Input::Probed { told, .. } = &mut answer {
        *told = Some(StopReason::Cancel);
    }
    answer
}

fn work(world: &mut World, how: u8) {
    world.now = world.now.plus_millis(3);
    let input = answer(world, how);
    world.apply(input.into_iter().collect());
}

/// The input that answers the driver's next action. `how` picks one of several answers.
fn answer(world: &World, how: u8) -> Option<Input> {
    let notes = Notes::default;
    Some(match (&world.next, how) {
        (Next::Preflight, 0) => Input::Preflight {
            issues: vec![blocking_issue()],
            started_at: world.now,
        },
        (Next::Preflight, _) => Input::Preflight {
            issues: Vec::new(),
            started_at: world.now,
        },
        (Next::Probe { index, .. }, how) => {
            let effect = match how % 3 {
                0 => Probe::NotDone,
                1 => Probe::Unknown,
                _ => Probe::Done(json!({})),
            };
            Input::Probed {
                index: *index,
                effect,
                notes: notes(),
                told: None,
            }
        }
        (Next::Run { index, .. } | Next::Resume { index, .. }, how) => {
            let result = match how {
                0 => Err(StepFailure::retryable("x", "X.")),
                1 => Err(StepFailure::review("x", "X.")),
                2 => Err(StepFailure::fatal("x", "X.")),
                3 => Err(StepFailure::outcome_unknown("x", "X.")),
                4 => {
                    let signers = [
                        NewSigner::new("a@example.com"),
                        NewSigner::new("b@example.com"),
                    ];
                    let request = NewSignatureRequest::new("p", "e", signers);
                    Ok(StepOutcome::Wait(Wait::Signatures(
                        request
                            .expires_at(world.now.plus_millis(100_000))
                            .remind_every_ms(60_000),
                    )))
                }
                5 => Ok(StepOutcome::Wait(Wait::Approval(NewApproval {
                    id: ApprovalId::new(),
                    message: None,
                    approvers: vec![("a@example.com".to_owned(), [0; 32])],
                    quorum: 1,
                    expires_at: Some(world.now.plus_millis(100_000)),
                    on_expiry: OnExpiry::Review,
                }))),
                6 => Ok(StepOutcome::Wait(Wait::Until(
                    world.now.plus_millis(100_000),
                ))),
                7 => Ok(StepOutcome::Wait(Wait::event("paid"))),
                _ => Ok(StepOutcome::Done(json!({"amount": 1}))),
            };
            Input::StepFinished {
                index: *index,
                result,
                notes: notes(),
                told: None,
            }
        }
        (Next::CheckSignatures, how) => Input::SignaturesChecked(match how {
            0 => Checked::Failed(ProviderError::Unavailable("down".to_owned())),
            1 => Checked::Nobody,
            2 => Checked::Answered(vec![SignerFact::of_all(
                SignerFactKind::Canceled,
                world.now,
            )]),
            3 => Checked::Answered(vec![
                SignerFact::signed("a@example.com", world.now),
                SignerFact::signed("b@example.com", world.now),
            ]),
            _ => Checked::Answered(vec![SignerFact::signed("a@example.com", world.now)]),
        }),
        (Next::Remind, 0) => Input::Reminded(Err(ProviderError::Refused("no".to_owned()))),
        (Next::Remind, _) => Input::Reminded(Ok(())),
        (_, _) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_the_run_comes_to_rest(
        nodes in nodes(),
        steps in prop::collection::vec(moves(), 0..60),
        confirm in any::<bool>(),
        dry_run in prop::bool::weighted(0.15),
        until in prop::option::weighted(0.2, prop::sample::select(Phase::ALL.to_vec())),
    ) {
        let settings = json!({"confirm_before_delivery": confirm});
        let mut world = World::new(Options { nodes, settings, dry_run, until_phase: until });
        world.apply(Vec::new());
        for step in steps {
            play(&mut world, step);
        }
        // From here on every action succeeds, so the execution must end, or wait for people or for an event.
        world.run_well();
        let waiting = world.execution().waiting_for.as_ref();
        let waits = waiting.is_some_and(|it| it.kind.is_no_work());
        let rests = world.status().is_terminal() || waits;
        prop_assert!(rests, "{:#?}", world.execution());
        prop_assert!(world.status() != Status::Queued);
    }
}
