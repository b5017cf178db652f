//! Checks the guarantees that must hold in spite of all faults.

use std::{collections::BTreeMap, fmt};

use docg_core::run::Status;
use serde_json::Value;
use sqlx::Connection;
use uuid::Uuid;

use crate::{
    clients::{Read, Run, World},
    lists::{Lists, listed},
};

/// The numbers that a successful check reports.
#[derive(Debug, Default)]
pub(crate) struct Report {
    runs: BTreeMap<String, usize>,
    events: usize,
    effects: usize,
    repeated: usize,
    readers: usize,
    list_readers: usize,
    gaps: usize,
    takeovers: u64,
    signals: usize,
    ignored: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            events,
            effects,
            repeated,
            readers,
            list_readers,
            gaps,
            takeovers,
            signals,
            ignored,
        } = self;
        write!(
            f,
            "all holds: runs {runs:?}, {events} events, {effects} effects of which {repeated} ran \
             more than once, all of them safe to repeat, {readers} readers, {list_readers} readers of \
             lists with {gaps} gaps, {takeovers} steps taken over, {signals} signals, {ignored} of \
             them ignored"
        )
    }
}

pub(crate) async fn everything(world: &World, runs: &[Run], read: &[Read], lists: Lists) -> Report {
    let ledger = ledger(world);
    let mut report = Report {
        readers: read.len(),
        list_readers: lists.readers(),
        effects: ledger.len(),
        repeated: ledger.values().filter(|ran| **ran > 1).count(),
        ..Report::default()
    };
    let mut database = sqlx::PgConnection::connect(&world.cluster.postgres.url())
        .await
        .expect("the database is up");
    let (mut heads, mut of_lists) = (BTreeMap::new(), Vec::new());
    for run in runs {
        let path = format!("/api/v1/executions/{}", run.id);
        let state = world.get(run.tenant, &path).await;
        let events = world.events(*run).await;
        events_hold(&state, &events);
        let steps = world.get(run.tenant, &format!("{path}/steps")).await;
        steps_hold(&state, &events, &steps["steps"], &ledger);
        let audit = audit(world, *run).await;
        audit_holds(&state, &events, &audit);
        let signals = signals(&mut database, *run).await;
        calls_hold(world, *run, &signals, &audit);
        report.signals += signals.values().sum::<usize>();
        let ignored = |row: &&Value| row["action"] == "execution.signal_ignored";
        report.ignored += audit.iter().filter(ignored).count();
        let verdict = world.get(run.tenant, &format!("{path}/audit/verify")).await;
        assert_eq!(verdict["valid"], true, "{state}: {verdict}");
        heads.insert(run.id, events.len() as u64);
        of_lists.push((*run, listed(&events)));
        report.events += events.len();
        *report.runs.entry(text(&state["status"])).or_default() += 1;
    }
    // Every reader of an execution's stream saw every event once, in order.
    for (run, seen) in read {
        assert_eq!(*seen, (1..=heads[&run.id]).collect::<Vec<_>>(), "{run:?}");
    }
    report.gaps = lists.check(&of_lists).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM docg.signals WHERE NOT is_settled")
        .fetch_one(&mut database)
        .await
        .expect("reads");
    assert_eq!(left, 0, "every accepted signal was applied or ignored");
    let takeovers: Option<i64> =
        sqlx::query_scalar("SELECT sum(takeovers)::bigint FROM docg.execution_steps")
            .fetch_one(&mut database)
            .await
            .expect("reads");
    report.takeovers = takeovers.unwrap_or_default().unsigned_abs();
    report
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

fn status(value: &Value) -> Status {
    text(value).parse().expect("a status")
}

/// Asserts that sequence numbers have no gap, that transitions are allowed, that progress never falls, and
/// that no event follows the execution's end. The events must add up to the stored state.
fn events_hold(state: &Value, events: &[Value]) {
    let (mut at, mut paused_from, mut progress, mut ended) = (Status::Queued, None, 0, false);
    for (number, event) in (1..).zip(events) {
        assert_eq!(event["seq"], number, "{state}");
        assert!(!ended, "after the end of {state}: {event}");
        if event["event_type"] == "execution.status_changed" {
            let (from, to) = (status(&event["data"]["from"]), status(&event["data"]["to"]));
            assert_eq!(from, at, "{event}");
            from.check(to, paused_from).expect("the table allows it");
            paused_from = (to == Status::Paused).then_some(from);
            at = to;
        }
        assert_eq!(status(&event["status"]), at, "{event}");
        let now = event["progress"].as_u64().expect("a number");
        assert!(now >= progress, "{event}");
        assert_eq!(now == 100, at == Status::Completed, "{event}");
        progress = now;
        ended = [
            "execution.completed",
            "execution.failed",
            "execution.canceled",
        ]
        .iter()
        .any(|end| event["event_type"] == *end);
    }
    assert!(ended, "the stream of {state} has no end");
    let last = events.last().expect("there is one");
    for field in ["status", "progress", "current_step"] {
        assert_eq!(last[field], state[field], "{field} of {state}");
    }
}

/// Asserts that the events of the steps add up to the stored steps, and that no step has two results. An
/// effect with a result happened, and only effects that are safe to repeat happened more than once.
fn steps_hold(
    state: &Value,
    events: &[Value],
    steps: &Value,
    ledger: &BTreeMap<(Uuid, String), usize>,
) {
    let id: Uuid = text(&state["id"]).parse().expect("an id");
    let steps = steps.as_array().expect("a list");
    let nodes: Vec<_> = steps.iter().map(|step| text(&step["node_id"])).collect();
    assert_eq!(nodes, ["wait", "first", "flaky", "rest", "again", "second"]);
    for (step, node) in steps.iter().zip(&nodes) {
        let of_step = |event: &&Value| event["data"]["node_id"] == **node;
        let told = events
            .iter()
            .filter(of_step)
            .fold("pending", |status, event| {
                match (event["event_type"].as_str(), &event["data"]["will_retry"]) {
                    (Some("step.started"), _) => "running",
                    (Some("step.completed"), _) => "success",
                    (Some("step.failed"), Value::Bool(true)) => "pending",
                    (Some("step.failed"), _) => "failure",
                    (Some("step.skipped"), _) => "skipped",
                    _ => status,
                }
            });
        assert_eq!(step["status"], told, "{node} of {state}");
    }
    for node in &nodes {
        let of = |kind: &str| {
            let is =
                |event: &&Value| event["event_type"] == kind && event["data"]["node_id"] == **node;
            events.iter().filter(is).count()
        };
        let completed = of("step.completed");
        assert!(completed <= 1, "{node} of {state} has two results");
        let ran = ledger.get(&(id, node.clone())).copied().unwrap_or(0);
        let may_repeat = node == "again";
        assert!(
            ran <= 1 || may_repeat,
            "the effect {node} of {state} ran {ran} times"
        );
        if ["first", "again", "second"].contains(&node.as_str()) {
            assert!(
                completed <= ran,
                "{node} of {state} has a result and did not happen"
            );
        }
        if state["status"] == "completed" {
            assert_eq!(completed, 1, "{node} of {state}");
        }
    }
}

/// Asserts that each change of status has its audit row.
fn audit_holds(state: &Value, events: &[Value], rows: &[Value]) {
    let changes: Vec<_> = events
        .iter()
        .filter(|event| event["event_type"] == "execution.status_changed")
        .map(|event| (event["data"]["from"].clone(), event["data"]["to"].clone()))
        .collect();
    let recorded: Vec<_> = rows
        .iter()
        .filter(|row| !row["metadata"]["to"].is_null())
        .map(|row| {
            (
                row["metadata"]["from"].clone(),
                row["metadata"]["to"].clone(),
            )
        })
        .collect();
    assert_eq!(changes, recorded, "{state}");
}

/// The calls that control an execution, and the actions in their audit rows.
const CALLS: [(&str, &str); 3] = [
    ("pause", "execution.paused"),
    ("resume", "execution.resumed"),
    ("cancel", "execution.canceled"),
];

/// Asserts that each signal left exactly one audit row: applied, or ignored. Each accepted call stored a
/// signal, unless the execution already was in the requested state.
fn calls_hold(world: &World, run: Run, signals: &BTreeMap<String, usize>, rows: &[Value]) {
    for (call, action) in CALLS {
        let sent = signals.get(call).copied().unwrap_or(0);
        let traces = rows.iter().filter(|row| {
            let applied = row["action"] == action && row["actor_type"] == "user";
            let ignored = row["action"] == "execution.signal_ignored";
            applied || ignored && row["metadata"]["signal"] == call
        });
        assert_eq!(traces.count(), sent, "each {call} of {run:?}: {rows:?}");
        let accepted = world.calls(run).iter().filter(|it| **it == call).count();
        // A second pause or cancel may find the execution in the requested state; then the earlier call
        // stored a signal.
        let least = if call == "resume" {
            accepted
        } else {
            accepted.min(1)
        };
        assert!(
            sent >= least,
            "{accepted} times {call} of {run:?}, {sent} signals"
        );
    }
}

/// The number of accepted signals of each kind.
async fn signals(database: &mut sqlx::PgConnection, run: Run) -> BTreeMap<String, usize> {
    let sql = "SELECT kind, count(*) FROM docg.signals WHERE execution_id = $1 GROUP BY kind";
    let counted: Vec<(String, i64)> = sqlx::query_as(sql)
        .bind(run.id)
        .fetch_all(database)
        .await
        .expect("reads");
    let count = |count: i64| usize::try_from(count).expect("is a count");
    counted
        .into_iter()
        .map(|(kind, n)| (kind, count(n)))
        .collect()
}

async fn audit(world: &World, run: Run) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/executions/{}/audit?limit=100{cursor}", run.id);
        let mut page = world.get(run.tenant, &path).await;
        match page["events"].take() {
            Value::Array(more) => rows.extend(more),
            other => panic!("{other} is no page"),
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// The number of times that each effect ran, by execution and node.
fn ledger(world: &World) -> BTreeMap<(Uuid, String), usize> {
    let mut ran = BTreeMap::new();
    for (id, node) in world.cluster.ledger() {
        *ran.entry((id.parse().expect("an id"), node)).or_default() += 1;
    }
    ran
}
