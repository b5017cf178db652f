//! Simulates whole installations, and checks the invariants of every execution. Several processes share a
//! store and a bus, both of which fail. Processes die, the clock is set and people make calls at any moment,
//! and readers watch.
//!
//! Tokio's time is stopped, and moves on at once if every task is idle, so simulated minutes pass in
//! milliseconds. Proptest shrinks a failing schedule; `PROPTEST_CASES` sets how many schedules are tried.

mod clock;
mod faults;
mod invariants;
mod outside;
mod people;
mod plan;
mod process;
mod readers;
mod world;

use std::time::Duration;

use docg_core::{conformance::Fault, run::Status};
use faults::{Planned, Port};
use outside::Late;
use plan::{Move, Plan, Wish};
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(30);
const KINDS: [Fault; 4] = [
    Fault::Before,
    Fault::After,
    Fault::Hang(Duration::from_secs(40)),
    Fault::Slow(Duration::from_secs(40)),
];

/// Plays the plan `calm` once for each call of the port and each kind of fault, with this fault at this call.
fn every_call_of(port: Port, calm: &Plan, least: u64) {
    let calls = world::play(calm).calls_of(port);
    assert!(calls >= least, "{calls} calls are no scenario");
    for number in 1..=calls {
        for kind in KINDS {
            let mut plan = calm.clone();
            *plan.faults_of(port) = vec![Planned {
                after: number - 1,
                kind,
            }];
            let played = std::panic::catch_unwind(|| world::play(&plan));
            assert!(played.is_ok(), "{kind:?} at call {number} of {port:?}");
        }
    }
}

#[test]
fn every_invariant_holds_with_a_fault_at_any_call_of_the_store() {
    every_call_of(Port::Store, &Plan::with_everything(), 20);
    every_call_of(Port::Store, &Plan::with_quick_effects(), 6);
}

#[test]
fn every_invariant_holds_with_a_fault_at_any_call_of_the_bus() {
    every_call_of(Port::Bus, &Plan::with_everything(), 20);
    every_call_of(Port::Bus, &Plan::with_quick_effects(), 6);
}

#[test]
fn every_invariant_holds_with_a_process_that_dies_at_any_moment() {
    let long = (0..10_000).step_by(100);
    let long = long.map(|moment| (moment, Plan::with_everything()));
    let short = (0..60).map(|moment| (moment, Plan::with_quick_effects()));
    for (moment, mut plan) in long.chain(short) {
        plan.moves.insert(1, Move::Wait(moment));
        plan.moves.insert(2, Move::Kill(0));
        let played = std::panic::catch_unwind(|| world::play(&plan));
        assert!(played.is_ok(), "dies after {moment} ms");
    }
}

/// A deployment, a cancel or both interrupt an effect at every moment, and its handler gives every possible
/// answer. Only a person's cancel ends the execution early. If the outcome is unknown, the execution waits
/// for a person.
#[test]
fn no_late_answer_ends_an_execution() {
    let cancel = |process| Move::Ask(0, process, Wish::Cancel);
    let pause = Move::Ask(0, 1, Wish::Pause);
    let deploy = [Move::Replace(0), Move::Replace(1)];
    let interruptions = [
        vec![cancel(0)],
        vec![cancel(1), cancel(0)],
        deploy.to_vec(),
        [&deploy[..], &[cancel(0)]].concat(),
        [&[cancel(1)][..], &deploy].concat(),
        vec![pause, Move::Wait(300), cancel(1)],
    ];
    for (number, interruption) in interruptions.iter().enumerate() {
        let is_canceled = interruption
            .iter()
            .any(|it| matches!(it, Move::Ask(_, _, Wish::Cancel)));
        for node_type in ["repeatable", "probed", "unprobed", "sign"] {
            for (place, late) in Late::ALL.into_iter().enumerate() {
                let on_error = ["fail", "review", "continue"][(number + place) % 3];
                for moment in [0, 1_000, 4_100] {
                    let mut plan = Plan::with_a_late_answer(node_type, late, on_error);
                    plan.moves.push(Move::Wait(moment));
                    plan.moves.extend(interruption.iter().cloned());
                    let played = std::panic::catch_unwind(|| world::play(&plan));
                    let case = format!("{number}, {node_type}, {late:?}, {on_error}, {moment}");
                    let Ok(played) = played else { panic!("{case}") };
                    let status = played.statuses[0];
                    assert_ne!(status, Status::Failed, "{case}");
                    if is_canceled && moment <= 1_000 {
                        assert_eq!(status, Status::Canceled, "{case}");
                    }
                }
            }
        }
    }
}

/// The number of schedules to try. Each simulates about an hour.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.map_or(64, |asked| {
        asked.parse().expect("PROPTEST_CASES is a number")
    })
}

/// Plays a plan with a long effect once for each of its moments (every 3 s), and makes the move at that
/// moment.
fn at_any_moment(planned: &Move) {
    for moment in (0..45_000).step_by(3_000) {
        let mut plan = Plan::with_a_long_effect();
        plan.moves.push(Move::Wait(moment));
        plan.moves.push(planned.clone());
        let played = std::panic::catch_unwind(|| world::play(&plan));
        assert!(played.is_ok(), "{:?}", plan.moves);
    }
}

#[test]
fn every_invariant_holds_with_a_process_that_is_cut_off_at_any_moment() {
    const TIMES: [u64; 3] = [12, 35, 70];
    for (kind, time) in KINDS
        .into_iter()
        .flat_map(|kind| TIMES.map(|time| (kind, time)))
    {
        for process in 0..2 {
            at_any_moment(&Move::CutOff(process, time * 1_000, kind));
        }
    }
}

#[test]
fn every_invariant_holds_with_a_clock_that_is_set_at_any_moment() {
    for millis in [-600_000, 5_000, 600_000] {
        at_any_moment(&Move::SetClock(millis));
    }
}

#[test]
fn every_invariant_holds_with_a_clock_that_is_set_backward_and_forward() {
    for cut_off in 0..3 {
        let mut plan = Plan::with_a_long_effect();
        let acts = serde_json::json!([{"Slow": 20_000}, "Quick"]);
        plan.workflows[0][1]["params"]["acts"] = acts;
        plan.processes = 3;
        plan.moves = vec![
            Move::Wait(40_000),
            Move::SetClock(-131_000),
            Move::Start(0),
            Move::Wait(800),
            Move::CutOff(cut_off, 30_000, Fault::Before),
            Move::Wait(2_500),
            Move::SetClock(55_000),
            Move::Wait(60_000),
        ];
        let played = std::panic::catch_unwind(|| world::play(&plan));
        assert!(played.is_ok(), "{cut_off} is cut off");
    }
}

#[test]
fn no_worker_is_idle_while_an_execution_is_due_that_it_may_claim() {
    for moves in [
        vec![],
        vec![
            Move::Wait(1_000),
            Move::Replace(0),
            Move::Wait(1_000),
            Move::Replace(1),
        ],
    ] {
        let mut plan = Plan::with_a_backlog();
        plan.moves.extend(moves);
        let idle = world::idle_beside_due(&plan);
        assert!(idle < Duration::from_secs(1), "{idle:?} of workers' time");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_invariant_holds_in_any_schedule(plan in plan::plans()) {
        world::play(&plan);
    }
}
