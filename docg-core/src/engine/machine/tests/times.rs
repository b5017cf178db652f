//! Time in phases and steps that counts as work, and time that counts as waiting.

use serde_json::json;

use super::world::{Options, World, blocking_issue};
use crate::{
    engine::machine::{Input, Next, Notes},
    error::StepFailure,
    event::EventData,
    ports::{ResumeSignal, SignalKind},
    run::{Phase, Status},
    workflow::StepOutcome,
};

const DAY: u64 = 86_400_000;

/// The work time and waiting time of a phase, in milliseconds.
fn times(world: &World, phase: Phase) -> (u64, u64) {
    let times = world.execution().phase_metrics.get(phase);
    let times = times.expect("it was measured");
    (times.duration_ms, times.waiting_ms)
}

fn later(world: &mut World, millis: u64) {
    world.now = world.now.plus_millis(millis);
}

fn pause(world: &mut World) {
    world.send(SignalKind::Pause { reason: None });
}

fn resume(world: &mut World) {
    world.send(SignalKind::Resume(ResumeSignal::default()));
}

fn done(world: &mut World, index: usize) {
    world.apply(vec![Input::StepFinished {
        index,
        result: Ok(StepOutcome::Done(json!({}))),
        notes: Notes::default(),
        told: None,
    }]);
}

#[test]
fn the_wait_for_a_confirmation_counts_for_the_phase_that_it_lets_begin() {
    let mut world = World::new(Options {
        settings: json!({"confirm_before_delivery": true}),
        ..Options::default()
    });
    world.apply(Vec::new());
    world.run_well();
    later(&mut world, DAY);
    resume(&mut world);
    later(&mut world, 5);
    done(&mut world, 3);
    assert_eq!(times(&world, Phase::Delivery), (5, DAY + 1));
    assert_eq!(world.state.steps[3].duration_ms(), Some(5));
}

#[test]
fn a_handler_that_works_on_during_a_pause_works() {
    // The step ends within the pause.
    let mut world = World::new(Options::default());
    world.run_to("send");
    later(&mut world, 10);
    pause(&mut world);
    later(&mut world, 20);
    done(&mut world, 3);
    later(&mut world, DAY);
    resume(&mut world);
    assert_eq!(times(&world, Phase::Delivery), (30, DAY));
    assert_eq!(world.state.steps[3].duration_ms(), Some(30));
    // The step outlasts the pause.
    let mut world = World::new(Options::default());
    world.run_to("send");
    later(&mut world, 10);
    pause(&mut world);
    later(&mut world, 20);
    resume(&mut world);
    later(&mut world, 30);
    done(&mut world, 3);
    assert_eq!(times(&world, Phase::Delivery), (60, 0));
}

#[test]
fn an_attempt_that_fails_during_a_pause_leaves_the_rest_of_it_to_people() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    pause(&mut world);
    later(&mut world, 20);
    world.apply(vec![Input::StepFinished {
        index: 3,
        result: Err(StepFailure::retryable("timeout", "Too slow.")),
        notes: Notes::default(),
        told: None,
    }]);
    later(&mut world, DAY);
    resume(&mut world);
    assert!(matches!(world.next, Next::Run { index: 3, .. }));
    later(&mut world, 7);
    done(&mut world, 3);
    assert_eq!(times(&world, Phase::Delivery), (27, DAY));
    assert_eq!(world.state.steps[3].duration_ms(), Some(27));
}

#[test]
fn a_step_that_a_person_repaired_took_its_attempts_alone() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    later(&mut world, 3);
    world.finish_step(Err(StepFailure::review("smtp_refused", "Refused.")));
    later(&mut world, DAY);
    resume(&mut world);
    world.pass_preflight();
    later(&mut world, 4);
    done(&mut world, 3);
    assert_eq!(world.state.steps[3].duration_ms(), Some(7));
    assert_eq!(times(&world, Phase::Delivery), (7, DAY));
}

#[test]
fn a_pause_before_the_start_is_no_part_of_the_run() {
    let mut world = World::new(Options::default());
    pause(&mut world);
    later(&mut world, DAY);
    resume(&mut world);
    world.apply(Vec::new());
    world.run_well();
    let Some(EventData::Completed { duration_ms }) = world.events.last().map(|it| &it.data) else {
        panic!("{:?}", world.events.last())
    };
    assert!((1..1_000).contains(duration_ms), "{duration_ms}");
    assert_eq!(times(&world, Phase::Preflight).1, 0);
}

#[test]
fn a_step_that_is_done_did_not_take_the_review_of_what_comes_next() {
    let mut world = World::new(Options::default());
    world.run_to("send");
    later(&mut world, 3);
    // Preflight checks the changes before the next step; a blocking issue parks the execution.
    pause(&mut world);
    let mut changes = ResumeSignal::default();
    changes.trigger_data = json!({"note": 1}).as_object().cloned();
    world.send(SignalKind::Resume(changes));
    done(&mut world, 3);
    world.apply(vec![Input::Preflight {
        issues: vec![blocking_issue()],
        started_at: world.now,
    }]);
    assert_eq!(world.status(), Status::NeedsReview);
    later(&mut world, DAY);
    resume(&mut world);
    assert_eq!(world.state.steps[3].duration_ms(), Some(3));
}
