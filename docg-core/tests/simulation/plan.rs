//! The plan of a simulation: workflows, faults and moves. Proptest chooses it, or a test gives a fixed one.

use std::time::Duration;

use docg_core::conformance::Fault;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use crate::{
    faults::{Planned, Port},
    outside::{APPROVER, Act, Late},
};

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The nodes of each workflow.
    pub(crate) workflows: Vec<Value>,
    pub(crate) processes: usize,
    pub(crate) store_faults: Vec<Planned>,
    pub(crate) bus_faults: Vec<Planned>,
    pub(crate) moves: Vec<Move>,
}

/// A move in a plan. A `usize` chooses among the executions, processes or workflows that exist at the time
/// of the move.
#[derive(Debug, Clone)]
pub(crate) enum Move {
    /// So many milliseconds pass.
    Wait(u64),
    /// Somebody starts this workflow.
    Start(usize),
    /// Somebody begins to watch this execution, from the event after this number on.
    Watch(usize, u64),
    /// Somebody makes a call about an execution (the first number) through a process (the second).
    Ask(usize, usize, Wish),
    /// A process is cut off from the store for so many milliseconds: all its calls of the store have this
    /// fault.
    CutOff(usize, u64, Fault),
    /// A process dies, and another is started in its place.
    Kill(usize),
    /// A process shuts down in good order, and another is started in its place.
    Replace(usize),
    /// The wall clock is set forward or backward by so many milliseconds.
    SetClock(i64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    Pause,
    Resume,
    Cancel,
    Vote(bool),
    Sign,
}

impl Plan {
    pub(crate) fn faults_of(&mut self, port: Port) -> &mut Vec<Planned> {
        match port {
            Port::Store => &mut self.store_faults,
            Port::Bus => &mut self.bus_faults,
        }
    }

    /// One execution that uses every node type. People pause and resume it, approve and sign. No fault is
    /// injected into the store or the bus.
    pub(crate) fn with_everything() -> Self {
        let nodes = json!([
            node(0, "compute", &[], "fail"),
            node(1, "repeatable", &[Act::Retry], "fail"),
            node(2, "probed", &[], "fail"),
            node(3, "approval", &[], "fail"),
            node(4, "unprobed", &[], "fail"),
            node(5, "sign", &[], "fail"),
        ]);
        let ask = |wish| Move::Ask(0, 1, wish);
        Self {
            workflows: vec![nodes],
            processes: 2,
            store_faults: Vec::new(),
            bus_faults: Vec::new(),
            moves: vec![
                Move::Start(0),
                Move::Watch(0, 0),
                Move::Wait(100),
                ask(Wish::Pause),
                Move::Wait(1_000),
                ask(Wish::Resume),
                Move::Wait(4_000),
                ask(Wish::Vote(true)),
                Move::Watch(0, 5),
                Move::Wait(2_000),
                ask(Wish::Sign),
                Move::Wait(1_000),
            ],
        }
    }
}

impl Plan {
    /// An execution whose effects end before the event of their start is published.
    pub(crate) fn with_quick_effects() -> Self {
        let quick = |index, node_type| node(index, node_type, &[Act::Quick, Act::Quick], "fail");
        let nodes = ["probed", "repeatable", "probed", "unprobed"];
        let nodes = nodes.into_iter().enumerate();
        Self {
            workflows: vec![nodes.map(|(index, it)| quick(index, it)).collect()],
            processes: 2,
            store_faults: Vec::new(),
            bus_faults: Vec::new(),
            moves: vec![Move::Start(0), Move::Watch(0, 0), Move::Wait(1_000)],
        }
    }

    /// A plan that starts more executions at once than the organization's share of leases.
    pub(crate) fn with_a_backlog() -> Self {
        let slow = node(0, "repeatable", &[Act::Slow(2_000)], "fail");
        Self {
            workflows: vec![json!([slow])],
            processes: 2,
            store_faults: Vec::new(),
            bus_faults: Vec::new(),
            moves: vec![Move::Start(0); 60],
        }
    }

    /// A plan with an effect that must not be repeated and takes longer than a lease.
    pub(crate) fn with_a_long_effect() -> Self {
        let long = node(1, "probed", &[Act::Slow(40_000), Act::Slow(40_000)], "fail");
        Self {
            workflows: vec![json!([node(0, "compute", &[], "fail"), long])],
            processes: 2,
            store_faults: Vec::new(),
            bus_faults: Vec::new(),
            moves: vec![Move::Start(0), Move::Watch(0, 0)],
        }
    }
}

impl Plan {
    /// A plan with an effect of four seconds, whose handler gives this answer after it is told to stop.
    pub(crate) fn with_a_late_answer(node_type: &str, late: Late, on_error: &str) -> Self {
        let mut first = node(0, node_type, &[Act::Slow(4_000)], on_error);
        first["params"]["late"] = json!(late);
        Self {
            workflows: vec![json!([first, node(1, "compute", &[], "fail")])],
            processes: 2,
            store_faults: Vec::new(),
            bus_faults: Vec::new(),
            moves: vec![Move::Start(0), Move::Watch(0, 0)],
        }
    }
}

fn node(index: usize, node_type: &str, acts: &[Act], on_error: &str) -> Value {
    let mut node = json!({
        "id": format!("n{index}"), "type": node_type, "on_error": on_error,
        "retry": {"max_attempts": 3, "initial_ms": 300}, "timeout_ms": 60_000,
    });
    match node_type {
        "compute" => {}
        "approval" => {
            node["phase"] = json!("save");
            node["params"] = json!({"approvers": [APPROVER], "expires_in_ms": 60_000});
        }
        _ => node["params"] = json!({"acts": acts}),
    }
    node
}

fn nodes() -> impl Strategy<Value = Value> {
    use Act::{Done, DonePanic, Fatal, Hang, Panic, Quick, Retry, Review, UnknownDone, UnknownNot};
    let node_types = vec![
        "compute",
        "repeatable",
        "probed",
        "unprobed",
        "approval",
        "sign",
    ];
    let acts = prop_oneof![
        4 => Just(Done),
        4 => Just(Quick),
        5 => (0..59_000u64).prop_map(Act::Slow),
        2 => Just(Retry),
        5 => select(vec![Hang, Review, Fatal, Panic, UnknownDone, UnknownNot, DonePanic]),
    ];
    let one = (
        select(node_types),
        prop::collection::vec(acts, 0..4),
        select(vec!["fail", "review", "continue"]),
        select(Late::ALL.to_vec()),
    );
    prop::collection::vec(one, 1..6).prop_map(|nodes| {
        let nodes = nodes.into_iter().enumerate();
        nodes
            .map(|(index, (node_type, acts, on_error, late))| {
                let mut node = node(index, node_type, &acts, on_error);
                if node["params"]["acts"].is_array() {
                    node["params"]["late"] = json!(late);
                }
                node
            })
            .collect()
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::Before),
        4 => Just(Fault::After),
        1 => (1..60u64).prop_map(|seconds| Fault::Hang(Duration::from_secs(seconds))),
        1 => (1..60_000u64).prop_map(|millis| Fault::Slow(Duration::from_millis(millis))),
    ]
}

fn faults(most: usize) -> impl Strategy<Value = Vec<Planned>> {
    let planned = (0..12u64, fault()).prop_map(|(after, kind)| Planned { after, kind });
    prop::collection::vec(planned, 0..most)
}

fn moves() -> impl Strategy<Value = Move> {
    let wish = prop_oneof![
        3 => Just(Wish::Pause),
        5 => Just(Wish::Resume),
        2 => Just(Wish::Cancel),
        3 => prop::bool::weighted(0.8).prop_map(Wish::Vote),
        3 => Just(Wish::Sign),
    ];
    prop_oneof![
        6 => (0..3_000u64).prop_map(Move::Wait),
        3 => (3_000..60_000u64).prop_map(Move::Wait),
        3 => any::<usize>().prop_map(Move::Start),
        2 => (any::<usize>(), 0..20u64).prop_map(|(run, after)| Move::Watch(run, after)),
        6 => (any::<usize>(), any::<usize>(), wish)
            .prop_map(|(run, process, wish)| Move::Ask(run, process, wish)),
        2 => (any::<usize>(), 0..60_000u64, fault())
            .prop_map(|(process, millis, kind)| Move::CutOff(process, millis, kind)),
        1 => any::<usize>().prop_map(Move::Kill),
        1 => any::<usize>().prop_map(Move::Replace),
        1 => (-600_000..600_000i64).prop_map(Move::SetClock),
    ]
}

pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    (
        prop::collection::vec(nodes(), 1..3),
        1..4usize,
        faults(30),
        faults(15),
        prop::collection::vec(moves(), 0..40),
    )
        .prop_map(
            |(workflows, processes, store_faults, bus_faults, mut moves)| {
                moves.insert(0, Move::Start(0));
                moves.insert(1, Move::Watch(0, 0));
                Plan {
                    workflows,
                    processes,
                    store_faults,
                    bus_faults,
                    moves,
                }
            },
        )
}
