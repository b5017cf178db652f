//! Handlers that were told to stop: every answer, for every reason, kind of step, place of the step,
//! `on_error` and number of attempts left. Loops make these cases, called cells. The expected results come
//! from a short second copy of the rule in this file.

use std::fmt;

use serde_json::{Value, json};

use super::world::{Options, World, taken_over};
use crate::{
    approval::Decision,
    engine::machine::{Attendance, Input, Next, Notes, Role},
    error::{StepFailure, codes},
    i18n::Locale,
    ports::{ResumeSignal, Settlement, SignalKind},
    run::{Phase, Status, Step, StepState, StepStatus, WaitKind},
    signature::{NewSignatureRequest, NewSigner, RequestStatus, SignerFact},
    workflow::{Probe, StepOutcome, StopReason, Wait, handler::NewApproval},
};

const SOMEBODY: &str = "somebody@example.com";

/// The kind of the step. A step of kind `Signed` or `Approved` goes on after its wait for people.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Compute,
    Repeatable,
    Effect,
    Asking,
    Signed,
    Approved,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Compute,
        Self::Repeatable,
        Self::Effect,
        Self::Asking,
        Self::Signed,
        Self::Approved,
    ];

    fn node_type(self) -> (&'static str, Phase) {
        match self {
            Self::Compute => ("render", Phase::Render),
            Self::Repeatable => ("save", Phase::Save),
            Self::Effect => ("send", Phase::Delivery),
            Self::Asking | Self::Signed => ("sign", Phase::Signature),
            Self::Approved => ("approval", Phase::Save),
        }
    }

    fn follows_wait(self) -> bool {
        matches!(self, Self::Signed | Self::Approved)
    }

    fn may_repeat(self) -> bool {
        matches!(self, Self::Compute | Self::Repeatable)
    }

    fn wait(self) -> Wait {
        match self.node_type().1 {
            Phase::Signature => {
                let signers = [NewSigner::new(SOMEBODY)];
                Wait::Signatures(NewSignatureRequest::new("desk", "envelope", signers))
            }
            _ => Wait::Approval(NewApproval::new(vec![(SOMEBODY.to_owned(), [0; 32])])),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Done,
    Wait,
    Stopped,
    Retryable,
    Review,
    Final,
    Unknown,
}

impl Answer {
    const ALL: [Self; 7] = [
        Self::Done,
        Self::Wait,
        Self::Stopped,
        Self::Retryable,
        Self::Review,
        Self::Final,
        Self::Unknown,
    ];

    fn result(self, kind: Kind) -> Result<StepOutcome, StepFailure> {
        match self {
            Self::Done => Ok(StepOutcome::Done(json!({"file": "f"}))),
            Self::Wait => Ok(StepOutcome::Wait(kind.wait())),
            Self::Stopped => Err(StepFailure::stopped()),
            Self::Retryable => Err(StepFailure::retryable("own", "Busy.")),
            Self::Review => Err(StepFailure::review("own", "Unclear.")),
            Self::Final => Err(StepFailure::fatal("own", "Impossible.")),
            Self::Unknown => Err(StepFailure::outcome_unknown("own", "Lost.")),
        }
    }

    fn is_error(self) -> bool {
        !matches!(self, Self::Done | Self::Wait)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Last,
    First,
    LastOfUntil,
    Paused,
}

#[derive(Clone, Copy)]
struct Cell {
    kind: Kind,
    answer: Answer,
    on_error: &'static str,
    attempts: u32,
    place: Place,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            answer,
            on_error,
            attempts,
            place,
        } = self;
        write!(
            f,
            "{answer:?} of {kind:?} ({place:?}, {on_error}, {attempts} attempts)"
        )
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in Kind::ALL {
        for answer in Answer::ALL {
            for on_error in ["fail", "review", "continue"] {
                for attempts in [1, 2] {
                    for place in [Place::Last, Place::First, Place::LastOfUntil, Place::Paused] {
                        cells.push(Cell {
                            kind,
                            answer,
                            on_error,
                            attempts,
                            place,
                        });
                    }
                }
            }
        }
    }
    // A computing step cannot wait.
    cells.retain(|cell| cell.kind != Kind::Compute || cell.answer != Answer::Wait);
    cells
}

impl Cell {
    /// An execution whose step is under way.
    fn world(&self) -> World {
        let (node_type, phase) = self.kind.node_type();
        let mut node = json!({
            "id": "a", "type": node_type, "on_error": self.on_error,
            "retry": {"max_attempts": self.attempts, "initial_ms": 10},
        });
        if self.kind == Kind::Approved {
            node["phase"] = json!("save");
        }
        let mut nodes = vec![node];
        if self.place != Place::Last {
            nodes.push(json!({"id": "b", "type": "sign"}));
        }
        let mut world = World::new(Options {
            nodes: Value::Array(nodes),
            until_phase: (self.place == Place::LastOfUntil).then_some(phase),
            ..Options::default()
        });
        world.run_to("a");
        if self.kind.follows_wait() {
            world.finish_step(Ok(StepOutcome::Wait(self.kind.wait())));
            people_agree(&mut world);
            assert!(matches!(world.next, Next::Resume { index: 0, .. }));
        }
        if self.place == Place::Paused {
            world.send(SignalKind::Pause { reason: None });
        }
        world
    }

    fn finished(&self, told: Option<StopReason>) -> Input {
        Input::StepFinished {
            index: 0,
            result: self.answer.result(self.kind),
            notes: Notes::default(),
            told,
        }
    }

    /// True if the answer leaves the outcome unknown.
    fn leaves_doubt(&self) -> bool {
        let is_doubtful = match self.answer {
            Answer::Unknown => true,
            Answer::Review | Answer::Final => !self.kind.follows_wait(),
            // With these errors the handler itself says that the step may run again.
            Answer::Stopped | Answer::Retryable => false,
            Answer::Done | Answer::Wait => false,
        };
        is_doubtful && !self.kind.may_repeat()
    }
}

fn people_agree(world: &mut World) {
    let signal = match (&world.state.signature, &world.state.approval) {
        (Some(request), _) => SignalKind::SignatureFacts {
            signature_request_id: request.id,
            facts: vec![SignerFact::signed(SOMEBODY, world.now)],
        },
        (None, Some(approval)) => SignalKind::ApprovalVote {
            approval_id: approval.id,
            email: SOMEBODY.to_owned(),
            decision: Decision::Approved,
            comment: None,
        },
        (None, None) => panic!("nobody was asked"),
    };
    world.send(signal);
}

fn step(world: &World) -> &Step {
    &world.state.steps[0]
}

/// The part of the execution and its step that a reader sees.
fn seen(world: &World) -> impl PartialEq + fmt::Debug + use<> {
    let (execution, step) = (world.execution(), step(world));
    let code = step.error.as_ref().map(|error| error.code.clone());
    (
        (
            execution.status,
            execution.error.as_ref().map(|error| error.code.clone()),
        ),
        execution.waiting_for.as_ref().map(|it| it.kind),
        (step.state, step.attempt),
        (code, step.output.clone()),
    )
}

/// The execution is canceled and has no error; requests to people are withdrawn.
fn is_canceled(world: &World, cell: Cell) {
    assert_eq!(world.status(), Status::Canceled, "{cell}");
    assert_eq!(world.execution().error, None, "{cell}");
    assert!(matches!(world.next, Next::Done));
    assert_eq!(step(world).attempt, 1, "{cell}");
    let request = world.state.signature.as_ref();
    assert!(request.is_none_or(|it| it.status != RequestStatus::Signing));
    let approval = world.state.approval.as_ref();
    assert!(approval.is_none_or(|it| it.decided_at.is_some()));
    let after = world.state.steps.get(1);
    assert!(after.is_none_or(|step| step.started_at.is_none()), "{cell}");
}

fn is_said_to_be_unknown(world: &World) -> bool {
    let error = step(world).error.as_ref().expect("an error");
    error.human.render(Locale::En).contains("not known")
}

#[test]
fn a_cancel_wins_over_whatever_the_handler_answers() {
    for cell in cells() {
        for role in [Role::Worker, Role::SignalApplier] {
            let mut world = cell.world();
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            let answer = cell.finished(Some(StopReason::Cancel));
            world.apply_as(vec![answer, cancel], role);
            is_canceled(&world, cell);
            if cell.answer == Answer::Done {
                assert_eq!(step(&world).status(), StepStatus::Success, "{cell}");
                assert!(step(&world).output.is_some(), "{cell}");
            } else {
                assert_eq!(step(&world).status(), StepStatus::Failed, "{cell}");
                let is_open = cell.leaves_doubt();
                assert_eq!(is_said_to_be_unknown(&world), is_open, "{cell}");
            }
        }
    }
}

#[test]
fn what_a_probe_finds_after_a_cancel_is_recorded() {
    let doubts = cells().into_iter().filter(Cell::leaves_doubt);
    for cell in doubts {
        for effect in [
            Probe::Done(json!({"file": "f"})),
            Probe::Begun(cell.kind.wait()),
            Probe::NotDone,
            Probe::Unknown,
        ] {
            let mut world = cell.world();
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            world.effect = effect.clone();
            let answer = cell.finished(Some(StopReason::Cancel));
            world.apply(vec![answer, cancel]);
            assert_eq!(world.probes_to_end, 1, "{cell}");
            is_canceled(&world, cell);
            let step = step(&world);
            let code = step.error.as_ref().map(|error| &*error.code);
            match effect {
                Probe::Done(_) => assert_eq!(step.status(), StepStatus::Success, "{cell}"),
                Probe::Begun(_) => assert_eq!(code, Some(codes::CANCELED), "{cell}"),
                Probe::NotDone if cell.answer == Answer::Unknown => {
                    assert_eq!(code, Some(codes::CANCELED), "{cell}");
                }
                Probe::NotDone => assert_eq!(code, Some("own"), "{cell}"),
                Probe::Unknown => assert!(is_said_to_be_unknown(&world), "{cell}"),
            }
        }
    }
}

#[test]
fn a_cancel_for_a_version_counts_although_a_probe_comes_first() {
    let unknown = |it: &Cell| it.kind == Kind::Effect && it.answer == Answer::Unknown;
    for cell in cells().into_iter().filter(unknown) {
        for lags in [0, 1] {
            let mut world = cell.world();
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            let Input::Signal(mut cancel) = cancel else {
                unreachable!("it is a signal")
            };
            cancel.if_version = Some(world.execution().version - lags);
            let told = (lags == 0).then_some(StopReason::Cancel);
            world.apply(vec![cell.finished(told), Input::Signal(cancel)]);
            assert_eq!(world.probes_to_end, usize::from(lags == 0), "{cell}");
            assert_eq!(world.status() == Status::Canceled, lags == 0, "{cell}");
        }
    }
}

#[test]
fn a_step_that_has_started_and_is_not_yet_called_is_called_in_spite_of_a_pause_and_after_a_shutdown()
 {
    for kind in [Kind::Compute, Kind::Repeatable, Kind::Effect] {
        let cell = Cell {
            kind,
            answer: Answer::Done,
            on_error: "fail",
            attempts: 1,
            place: Place::First,
        };
        let mut world = cell.world();
        let pause = world.signal(SignalKind::Pause { reason: None });
        world.decide(vec![pause], Role::Worker, Attendance::NotBegun);
        assert_eq!(world.status(), Status::Paused, "{cell}");
        assert!(matches!(world.next, Next::Run { index: 0, .. }), "{cell}");
        let mut world = cell.world();
        world.decide(Vec::new(), Role::SignalApplier, Attendance::NotBegun);
        assert!(matches!(world.next, Next::Rest), "{cell}");
        assert_eq!(step(&world).state, StepState::Pending, "{cell}");
        world.apply(Vec::new());
        assert!(matches!(world.next, Next::Run { index: 0, .. }), "{cell}");
        assert_eq!(step(&world).attempt, 1, "{cell}");
    }
}

#[test]
fn a_rejection_wins_over_whatever_the_handler_answers() {
    for cell in cells().into_iter().filter(|it| it.place == Place::Paused) {
        let mut world = cell.world();
        let mut rejected = ResumeSignal::default();
        rejected.approved = Some(false);
        let rejected = world.signal(SignalKind::Resume(rejected));
        let answer = cell.finished(Some(StopReason::Cancel));
        // With this answer the step waits for an approval. Such an execution cannot be resumed, so a resume
        // that rejects does not apply.
        if cell.answer == Answer::Wait && cell.kind.node_type().1 != Phase::Signature {
            continue;
        }
        world.apply(vec![answer, rejected]);
        assert_eq!(world.status(), Status::Failed, "{cell}");
        let error = world.execution().error.as_ref().expect("an error");
        assert_eq!(error.code, codes::REVIEW_REJECTED, "{cell}");
    }
}

#[test]
fn a_success_or_a_wait_counts_as_always_unless_the_execution_is_canceled() {
    for cell in cells().into_iter().filter(|it| !it.answer.is_error()) {
        for reason in [
            StopReason::Shutdown,
            StopReason::LeaseLost,
            StopReason::Deadline,
        ] {
            for role in [Role::Worker, Role::SignalApplier] {
                let [told, not_told] = [Some(reason), None].map(|told| {
                    let mut world = cell.world();
                    world.apply_as(vec![cell.finished(told)], role);
                    world
                });
                assert_eq!(seen(&told), seen(&not_told), "{cell}, {reason:?}");
            }
        }
    }
}

#[test]
fn an_error_after_a_shutdown_ends_nothing_and_uses_up_no_attempt() {
    for cell in cells().into_iter().filter(|it| it.answer.is_error()) {
        for reason in [StopReason::Shutdown, StopReason::LeaseLost] {
            let mut world = cell.world();
            let status = world.status();
            world.apply_as(vec![cell.finished(Some(reason))], Role::SignalApplier);
            assert_eq!(world.status(), status, "{cell}");
            assert_eq!(world.execution().error, None, "{cell}");
            if cell.place == Place::Paused {
                world.send(SignalKind::Resume(ResumeSignal::default()));
            } else {
                world.apply(Vec::new());
            }
            let is_asked = matches!(world.next, Next::Probe { index: 0, .. });
            assert_eq!(is_asked, cell.leaves_doubt(), "{cell}");
            if is_asked {
                world.apply(vec![probed(Probe::NotDone, None)]);
            }
            match world.next {
                Next::Resume { index: 0, .. } => assert!(cell.kind.follows_wait(), "{cell}"),
                Next::Run { index: 0, .. } => assert!(!cell.kind.follows_wait(), "{cell}"),
                ref other => panic!("{cell}: {other:?}"),
            }
            assert_eq!(step(&world).attempt, 1, "{cell}");
            assert_eq!(step(&world).takeovers, 0, "{cell}");
            world.finish_step(Ok(StepOutcome::Done(json!({}))));
            world.run_well();
            assert_eq!(world.status(), Status::Completed, "{cell}");
            assert_eq!(step(&world).attempt, 1, "{cell}");
        }
    }
}

#[test]
fn whoever_takes_over_after_a_lost_lease_asks_about_an_effect_and_repeats_the_rest() {
    for cell in cells().into_iter().filter(|it| it.answer.is_error()) {
        if cell.place == Place::Paused {
            continue;
        }
        // The worker lost its lease, so nothing of the handler's answer has reached the store.
        let mut world = cell.world();
        world.apply(vec![taken_over()]);
        let is_asked = matches!(world.next, Next::Probe { index: 0, .. });
        let may_be_repeated = cell.kind.may_repeat() || cell.kind.follows_wait();
        assert_eq!(is_asked, !may_be_repeated, "{cell}");
        assert_eq!(step(&world).attempt, 1, "{cell}");
    }
}

#[test]
fn an_error_at_the_deadline_is_a_timeout_whatever_the_handler_calls_it() {
    for cell in cells().into_iter().filter(|it| it.answer.is_error()) {
        let mut world = cell.world();
        world.apply(vec![cell.finished(Some(StopReason::Deadline))]);
        let mut timed_out = cell.world();
        let failure = match cell.leaves_doubt() {
            true => StepFailure::outcome_unknown(codes::TIMEOUT, "Too late."),
            false => StepFailure::retryable(codes::TIMEOUT, "Too late."),
        };
        timed_out.apply(vec![Input::StepFinished {
            index: 0,
            result: Err(failure),
            notes: Notes::default(),
            told: None,
        }]);
        assert_eq!(seen(&world), seen(&timed_out), "{cell}");
        let error = step(&world).error.as_ref().expect("an error");
        assert_eq!(error.code, codes::TIMEOUT, "{cell}");
    }
}

#[test]
fn who_was_not_told_to_stop_and_says_so_is_tried_again() {
    for cell in cells()
        .into_iter()
        .filter(|it| it.answer == Answer::Stopped)
    {
        let mut world = cell.world();
        world.apply(vec![cell.finished(None)]);
        let mut retryable = cell.world();
        retryable.apply(vec![Input::StepFinished {
            index: 0,
            result: Err(StepFailure::retryable(codes::STOPPED, "Stopped.")),
            notes: Notes::default(),
            told: None,
        }]);
        assert_eq!(seen(&world), seen(&retryable), "{cell}");
    }
}

fn probed(effect: Probe, told: Option<StopReason>) -> Input {
    Input::Probed {
        index: 0,
        effect,
        notes: Notes::default(),
        told,
    }
}

/// Executions whose handler is probed: after a takeover, after a failure, and after a stop.
fn asked(kind: Kind) -> Vec<World> {
    let cell = |answer| Cell {
        kind,
        answer,
        on_error: "fail",
        attempts: 1,
        place: Place::First,
    };
    let mut worlds = Vec::new();
    if !kind.follows_wait() {
        let mut world = cell(Answer::Done).world();
        world.apply(vec![taken_over()]);
        worlds.push(world);
    }
    for told in [None, Some(StopReason::Shutdown)] {
        let unknown = cell(Answer::Unknown);
        let mut world = unknown.world();
        world.apply(vec![unknown.finished(told)]);
        worlds.push(world);
    }
    let is_asked = |world: &World| matches!(world.next, Next::Probe { index: 0, .. });
    assert!(worlds.iter().all(is_asked));
    worlds
}

#[test]
fn what_a_probe_answers_after_it_was_told_to_stop_is_heeded_unless_it_cannot_tell() {
    let kinds = [Kind::Effect, Kind::Asking, Kind::Signed, Kind::Approved];
    for kind in kinds {
        for effect in [
            Probe::Done(json!({})),
            Probe::Begun(kind.wait()),
            Probe::NotDone,
            Probe::Unknown,
        ] {
            for mut world in asked(kind) {
                let cancel = world.signal(SignalKind::Cancel { reason: None });
                let answer = probed(effect.clone(), Some(StopReason::Cancel));
                world.apply(vec![answer, cancel]);
                assert_eq!(world.status(), Status::Canceled);
                assert_eq!(world.execution().error, None);
            }
            for reason in [StopReason::Shutdown, StopReason::Deadline] {
                for (mut told, mut not_told) in asked(kind).into_iter().zip(asked(kind)) {
                    let before = seen(&told);
                    told.apply_as(
                        vec![probed(effect.clone(), Some(reason))],
                        Role::SignalApplier,
                    );
                    not_told.apply_as(vec![probed(effect.clone(), None)], Role::SignalApplier);
                    if effect == Probe::Unknown && reason == StopReason::Shutdown {
                        assert_eq!(seen(&told), before, "another may be able to tell");
                    } else {
                        assert_eq!(seen(&told), seen(&not_told));
                    }
                }
            }
        }
    }
}

/// Sends a resume; returns true if it was applied.
fn resumes(world: &mut World, settlement: Option<Settlement>) -> bool {
    let mut signal = ResumeSignal::default();
    signal.settlement = settlement;
    world.send(SignalKind::Resume(signal));
    world.status() != Status::NeedsReview
}

#[test]
fn an_outcome_that_is_unknown_is_settled_by_a_person_wherever_and_however_it_is_called() {
    let unknown = cells().into_iter();
    for cell in unknown.filter(|it| it.answer == Answer::Unknown && it.place != Place::Paused) {
        let parked = || {
            let mut world = cell.world();
            world.apply(vec![cell.finished(None)]);
            world
        };
        if cell.kind.may_repeat() {
            let world = parked();
            let waits = world.execution().waiting_for.as_ref().map(|it| it.kind);
            let is_retried = waits == Some(WaitKind::Retry);
            assert_eq!(is_retried, cell.attempts == 2, "{cell}");
            assert!(!step(&world).is_outcome_open(), "{cell}");
            continue;
        }
        let parked = || {
            let mut world = parked();
            assert!(matches!(world.next, Next::Probe { index: 0, .. }), "{cell}");
            world.apply(vec![probed(Probe::Unknown, None)]);
            assert_eq!(world.status(), Status::NeedsReview, "{cell}");
            assert!(step(&world).is_outcome_open(), "{cell}");
            world
        };
        let mut world = parked();
        assert!(!resumes(&mut world, None), "{cell}");
        assert!(resumes(&mut world, Some(Settlement::RunAgain)), "{cell}");
        assert!(!step(&world).is_outcome_open(), "{cell}");
        world.pass_preflight();
        let goes_on = match world.next {
            Next::Resume { index: 0, .. } => cell.kind.follows_wait(),
            Next::Run { index: 0, .. } => !cell.kind.follows_wait(),
            _ => false,
        };
        assert!(goes_on, "{cell}: {:?}", world.next);
        let mut world = parked();
        let done = Some(Settlement::ConfirmDone(json!({})));
        assert!(resumes(&mut world, done), "{cell}");
        assert_eq!(step(&world).status(), StepStatus::Success, "{cell}");
    }
}

#[test]
fn no_code_that_a_handler_chooses_makes_an_outcome_unknown_or_decided() {
    let chosen = [
        codes::OUTCOME_UNKNOWN,
        codes::TOO_MANY_TAKEOVERS,
        codes::APPROVAL_REJECTED,
        codes::SIGNATURE_DECLINED,
        codes::CANCELED,
        codes::STOPPED,
    ];
    for code in chosen {
        let cell = |on_error| Cell {
            kind: Kind::Effect,
            answer: Answer::Done,
            on_error,
            attempts: 1,
            place: Place::First,
        };
        let mut world = cell("fail").world();
        world.finish_step(Err(StepFailure::review(code, "Unclear.")));
        assert!(!step(&world).is_outcome_open(), "{code}");
        assert!(resumes(&mut world, None), "{code}");
        let mut world = cell("continue").world();
        world.finish_step(Err(StepFailure::fatal(code, "Impossible.")));
        assert!(matches!(world.next, Next::Run { index: 1, .. }), "{code}");
    }
}

#[test]
fn what_people_have_approved_they_are_not_asked_for_again_after_a_failure() {
    let cell = Cell {
        kind: Kind::Approved,
        answer: Answer::Retryable,
        on_error: "fail",
        attempts: 2,
        place: Place::Last,
    };
    let mut world = cell.world();
    world.apply(vec![cell.finished(None)]);
    world.now = world.execution().wake_at.expect("tried again");
    world.apply(Vec::new());
    assert!(matches!(world.next, Next::Resume { index: 0, .. }));
    assert_eq!(step(&world).state, StepState::Resuming);
}
