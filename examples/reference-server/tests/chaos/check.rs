//! What must hold, whatever failed.

use std::{collections::BTreeMap, fmt};

use docg_core::run::Status;
use serde_json::Value;
use sqlx::Connection;
use uuid::Uuid;

use crate::clients::{Read, Run, World};

/// What was seen, where everything holds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    runs: BTreeMap<String, usize>,
    events: usize,
    effects: usize,
    readers: usize,
    takeovers: u64,
    ignored: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            events,
            effects,
            readers,
            takeovers,
            ignored,
        } = self;
        write!(
            f,
            "all holds: runs {runs:?}, {events} events, {effects} effects of which none ran twice, \
             {readers} readers, {takeovers} steps taken over, {ignored} signals ignored"
        )
    }
}

pub(crate) async fn everything(world: &World, runs: &[Run], read: &[Read]) -> Report {
    let mut report = Report {
        readers: read.len(),
        ..Report::default()
    };
    let ledger = ledger(world);
    report.effects = ledger.values().sum();
    let mut heads = BTreeMap::new();
    for run in runs {
        let path = format!("/api/v1/executions/{}", run.id);
        let state = world.get(run.tenant, &path).await;
        let events = world.events(*run).await;
        events_hold(&state, &events);
        steps_hold(&state, &events, &ledger);
        let audit = audit(world, *run).await;
        audit_holds(&state, &events, &audit);
        report.ignored += calls_hold(world, *run, &state, &audit);
        let verdict = world.get(run.tenant, &format!("{path}/audit/verify")).await;
        assert_eq!(verdict["valid"], true, "{state}: {verdict}");
        heads.insert(run.id, events.len() as u64);
        report.events += events.len();
        *report.runs.entry(text(&state["status"])).or_default() += 1;
    }
    // Every subscriber saw every event once, in order.
    for (run, seen) in read {
        assert_eq!(*seen, (1..=heads[&run.id]).collect::<Vec<_>>(), "{run:?}");
    }
    let mut database = sqlx::PgConnection::connect(&world.cluster.postgres.url())
        .await
        .expect("the database is up");
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

/// Numbers without a hole, changes that the table allows, progress that never falls, an end that
/// is the end; and what they add up to is the stored state.
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

/// No result twice; an effect that has a result happened, and none happened twice.
fn steps_hold(state: &Value, events: &[Value], ledger: &BTreeMap<(Uuid, String), usize>) {
    let id: Uuid = text(&state["id"]).parse().expect("an id");
    for node in ["wait", "first", "flaky", "rest", "second"] {
        let of = |kind: &str| {
            let is =
                |event: &&Value| event["event_type"] == kind && event["data"]["node_id"] == node;
            events.iter().filter(is).count()
        };
        let completed = of("step.completed");
        assert!(completed <= 1, "{node} of {state} has two results");
        let ran = ledger.get(&(id, node.to_owned())).copied().unwrap_or(0);
        assert!(ran <= 1, "the effect {node} of {state} ran {ran} times");
        if ["first", "second"].contains(&node) {
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

/// Each change of status has its row.
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

/// What was accepted has left its trace: applied, or ignored and recorded as that.
fn calls_hold(world: &World, run: Run, state: &Value, rows: &[Value]) -> usize {
    let count = |action: &str| rows.iter().filter(|row| row["action"] == action).count();
    let ignored = count("execution.signal_ignored");
    let canceled = world.calls(run).contains(&"cancel");
    assert!(
        !canceled || state["status"] == "canceled" || ignored > 0,
        "a cancel of {state} was accepted and left no trace"
    );
    ignored
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

/// How often each effect ran.
fn ledger(world: &World) -> BTreeMap<(Uuid, String), usize> {
    let mut ran = BTreeMap::new();
    for (id, node) in world.cluster.ledger() {
        *ran.entry((id.parse().expect("an id"), node)).or_default() += 1;
    }
    ran
}
