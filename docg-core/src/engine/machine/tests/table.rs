//! Makes the tables of `docs/state-machine.md` with the machine itself, and compares them with that page.

use std::fmt::Write;

use serde_json::json;

use super::world::{Options, World, taken_over};
use crate::{
    engine::machine::{Attendance, Input, Next, Notes, Role},
    error::{FailureClass, StepFailure},
    ports::SignalKind,
    run::{Doubt, Status, StepState},
    signature::{NewSignatureRequest, NewSigner, SignerFact},
    workflow::{Probe, StepOutcome, StopReason, Wait},
};

fn wait() -> Wait {
    let signers = [NewSigner::new("a@example.com")];
    Wait::Signatures(NewSignatureRequest::new("desk", "envelope", signers))
}

/// An execution whose only step is of this type and is under way.
fn at(node_type: &str) -> World {
    let retry = json!({"max_attempts": 2, "initial_ms": 10});
    let mut world = World::new(Options {
        nodes: json!([{"id": "step", "type": node_type, "retry": retry}]),
        ..Options::default()
    });
    world.run_to("step");
    world
}

fn finished(result: Result<StepOutcome, StepFailure>, told: Option<StopReason>) -> Input {
    Input::StepFinished {
        index: 0,
        result,
        notes: Notes::default(),
        told,
    }
}

fn probed(effect: Probe) -> Input {
    Input::Probed {
        index: 0,
        effect,
        notes: Notes::default(),
        told: None,
    }
}

fn unknown() -> StepFailure {
    StepFailure::outcome_unknown("lost", "Lost.")
}

/// The driver's report of a call without an answer. If the call began an effect that is not safe to repeat,
/// the outcome is unknown; else the failure is `otherwise`.
fn cut_off(world: &World, otherwise: StepFailure) -> StepFailure {
    let begins = world.state.steps[0].state == StepState::Running;
    if begins && &*world.state.steps[0].node_type == "sign" {
        unknown()
    } else {
        otherwise
    }
}

fn unanswered(world: &World, told: StopReason) -> Input {
    finished(Err(cut_off(world, StepFailure::stopped())), Some(told))
}

fn waiting() -> World {
    let mut world = at("sign");
    world.apply(vec![finished(Ok(StepOutcome::Wait(wait())), None)]);
    world
}

fn resuming() -> World {
    let mut world = waiting();
    let request = world.state.signature.as_ref().expect("a request");
    let kind = SignalKind::SignatureFacts {
        signature_request_id: request.id,
        facts: vec![SignerFact::signed("a@example.com", world.now)],
    };
    world.send(kind);
    world
}

fn probing(doubt: Doubt) -> World {
    let mut world = at("sign");
    match doubt {
        Doubt::LeftOpen => world.apply(vec![taken_over()]),
        Doubt::AttemptFailed => world.apply(vec![finished(Err(unknown()), None)]),
        Doubt::AnswerRefused => {
            let mut failure = unknown();
            failure.class = FailureClass::AnswerRefused;
            world.apply(vec![finished(Err(failure), None)]);
        }
        // The driver has stopped the handler without an answer, and has not probed yet.
        Doubt::Canceled => {
            let answer = unanswered(&world, StopReason::Cancel);
            let cancel = world.signal(SignalKind::Cancel { reason: None });
            world.decide(vec![answer, cancel], Role::Worker, Attendance::Nobody);
        }
    }
    world
}

fn name(state: StepState) -> String {
    let name = match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Resuming => "resuming",
        StepState::Probing(_) => "probing",
        StepState::Waiting => "waiting",
        StepState::Succeeded => "succeeded",
        StepState::Failed(_) => "failed",
        StepState::Skipped => "skipped",
    };
    name.to_owned()
}

/// A cell of the tables: the state of the step, and the execution's status if a person must act or the
/// execution failed or was canceled.
fn result(world: &World) -> String {
    let step = &world.state.steps[0];
    let mut text = name(step.state);
    if step.state == StepState::Pending && step.error.is_some() {
        text += ", retry";
    }
    let told = [Status::NeedsReview, Status::Failed, Status::Canceled];
    if told.contains(&world.status()) {
        let _ = write!(text, "; `{}`", world.status());
    }
    text
}

/// A column's head, and the input that it stands for.
type Column = (&'static str, fn(&mut World));
/// A row's head, and an execution whose step is in its state.
type Row<'r> = (&'r str, &'r dyn Fn() -> World);

fn table(head: &str, columns: &[Column], rows: &[Row<'_>]) -> String {
    let mut table = format!("| {head} |");
    for (column, _) in columns {
        let _ = write!(table, " {column} |");
    }
    table += "\n|---|";
    table += &"---|".repeat(columns.len());
    table.push('\n');
    for (row, world) in rows {
        let _ = write!(table, "| {row} |");
        for (_, input) in columns {
            let mut world = world();
            let before = (world.state.steps[0].clone(), world.status());
            input(&mut world);
            let after = (world.state.steps[0].clone(), world.status());
            let cell = if after == before {
                "–".to_owned()
            } else {
                result(&world)
            };
            let _ = write!(table, " {cell} |");
        }
        table.push('\n');
    }
    table
}

fn answers() -> String {
    table(
        "state of the step",
        &[
            ("success", |world| {
                world.apply(vec![finished(Ok(StepOutcome::Done(json!({}))), None)]);
            }),
            ("wait", |world| {
                world.apply(vec![finished(Ok(StepOutcome::Wait(wait())), None)]);
            }),
            ("retryable", |world| {
                let failure = StepFailure::retryable("busy", "Busy.");
                world.apply(vec![finished(Err(failure), None)]);
            }),
            ("review", |world| {
                let failure = StepFailure::review("wrong", "Wrong.");
                world.apply(vec![finished(Err(failure), None)]);
            }),
            ("final", |world| {
                let failure = StepFailure::fatal("impossible", "Impossible.");
                world.apply(vec![finished(Err(failure), None)]);
            }),
            ("outcome unknown", |world| {
                world.apply(vec![finished(Err(unknown()), None)]);
            }),
            ("panic", |world| {
                let panicked = StepFailure::fatal("handler_panicked", "Panicked.");
                let failure = cut_off(world, panicked);
                world.apply(vec![finished(Err(failure), None)]);
            }),
        ],
        &[
            ("running, safe to repeat", &|| at("save")),
            ("running, not safe to repeat", &|| at("sign")),
            ("resuming", &resuming),
            ("waiting", &waiting),
        ],
    )
}

fn interruptions() -> String {
    table(
        "state of the step",
        &[
            ("worker died", |world| world.apply(vec![taken_over()])),
            ("shutdown, handler stopped", |world| {
                let answer = finished(Err(StepFailure::stopped()), Some(StopReason::Shutdown));
                world.apply_as(vec![answer], Role::SignalApplier);
            }),
            ("shutdown, no answer", |world| {
                let answer = unanswered(world, StopReason::Shutdown);
                world.apply_as(vec![answer], Role::SignalApplier);
            }),
            ("deadline, handler stopped", |world| {
                let told = Some(StopReason::Deadline);
                world.apply(vec![finished(Err(StepFailure::stopped()), told)]);
            }),
            ("deadline, no answer", |world| {
                let answer = unanswered(world, StopReason::Deadline);
                world.apply(vec![answer]);
            }),
            ("cancel, handler stopped", |world| {
                let cancel = world.signal(SignalKind::Cancel { reason: None });
                let answer = finished(Err(StepFailure::stopped()), Some(StopReason::Cancel));
                world.apply(vec![answer, cancel]);
            }),
            ("cancel, no answer", |world| {
                let cancel = world.signal(SignalKind::Cancel { reason: None });
                let answer = unanswered(world, StopReason::Cancel);
                world.decide(vec![answer, cancel], Role::Worker, Attendance::Nobody);
            }),
        ],
        &[
            ("running, safe to repeat", &|| at("save")),
            ("running, not safe to repeat", &|| at("sign")),
            ("resuming", &resuming),
            ("waiting", &waiting),
        ],
    )
}

fn probes() -> String {
    fn answer(world: &mut World, effect: Probe) {
        if let Next::ProbeToEnd { signals, .. } = &mut world.next {
            let signals = Input::Arrived(std::mem::take(signals));
            let answer = Input::Probed {
                index: 0,
                effect,
                notes: Notes::default(),
                told: Some(StopReason::Cancel),
            };
            world.apply(vec![answer, signals]);
        } else {
            world.apply(vec![probed(effect)]);
        }
    }
    table(
        "probing, because",
        &[
            ("done", |world| answer(world, Probe::Done(json!({})))),
            ("begun", |world| answer(world, Probe::Begun(wait()))),
            ("not done", |world| answer(world, Probe::NotDone)),
            ("unknown", |world| answer(world, Probe::Unknown)),
        ],
        &[
            ("its worker died", &|| probing(Doubt::LeftOpen)),
            ("the attempt failed", &|| probing(Doubt::AttemptFailed)),
            ("its answer was refused", &|| probing(Doubt::AnswerRefused)),
            ("the execution is canceled", &|| probing(Doubt::Canceled)),
        ],
    )
}

#[test]
fn the_tables_in_the_documentation_are_what_the_machine_does() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/state-machine.md");
    let page = std::fs::read_to_string(page).expect("the page");
    for table in [answers(), interruptions(), probes()] {
        assert!(
            page.contains(&table),
            "docs/state-machine.md lacks:\n{table}"
        );
    }
}
