//! Commits: those that arrive together share one statement, and each succeeds or fails by itself.
//!
//! The first part of the statement updates the executions whose lease, version and sequences match
//! the commit. The ids that it returns decide which other rows are written.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use async_trait::async_trait;
use docg_core::ports::{Commit, Committed, LeaseAfter};
use sqlx::{Postgres, pool::PoolConnection};
use uuid::Uuid;

use super::{
    PgStore,
    children::{Children, Lengths, REQUESTS_COUNT, ROWS_COUNT, Records, insert_children},
};
use crate::{
    batch::BatchItem,
    codec::{
        ExecutionRow, StepRow, Time, field, int, number, row, search_vector, single, time,
        time_column, unnest,
    },
    database::{Database, arguments, waits_briefly},
    error::Error,
};

row! {
    /// The conditions of a commit, and its effect on the lease and the signal inbox.
    FenceRow {
        worker_id: Uuid = "uuid[]",
        fence: i64 = "int8[]",
        expected_version: i64 = "int8[]",
        expected_event_seq: i64 = "int8[]",
        expected_log_seq: i64 = "int8[]",
        expected_audit_seq: i64 = "int8[]",
        organization_id: Uuid = "uuid[]",
        workflow_id: Uuid = "uuid[]",
        created_at: Time = "timestamptz[]",
        changed_steps: i64 = "int8[]",
        published: Option<i64> = "int8[]",
        is_reduced: bool = "bool[]",
        made_progress: bool = "bool[]",
        keep_until: Option<Time> = "timestamptz[]",
        due_at: Option<Time> = "timestamptz[]",
        ends: bool = "bool[]",
    }
}

row! {
    SettledRow {
        execution_id: Uuid = "uuid[]",
        id: Uuid = "uuid[]",
    }
}

row! {
    InputRow {
        execution_id: Uuid = "uuid[]",
        trigger_data: String = "text[]::json[]",
        node_overrides: String = "text[]::json[]",
        kept_events: Option<String> = "text[]::json[]",
        title: Option<String> = "text[]",
        search: String = "text[]::tsvector[]",
    }
}

/// A commit, encoded.
pub(super) struct CommitItem {
    id: Uuid,
    size: usize,
    execution: ExecutionRow,
    fence: FenceRow,
    settled: Vec<SettledRow>,
    inputs: Option<InputRow>,
    children: Children,
}

/// The columns that a commit with [`Commit::is_reduced`] leaves unchanged. Such a commit only cancels. It is
/// decided without steps and definition, so it has no values for these columns.
const NOT_OF_CANCELS: [&str; 11] = [
    "progress",
    "current_step",
    "preflight_summary",
    "delivery_state",
    "signature_state",
    "phase_metrics",
    "attempt",
    "started_at",
    "preflight_due",
    "delivery_confirmed",
    "priority",
];

/// The parts that a statement for commits needs. Each part costs time even if it has nothing to do.
#[derive(Clone, Copy)]
struct Parts {
    /// The batch is one commit.
    is_single: bool,
    /// At least one commit of the batch settles signals, changes the execution's inputs, or stores a signature
    /// request or an approval.
    has_more: bool,
    /// At least one commit of the batch releases its lease.
    releases: bool,
}

/// The statements for all combinations of parts.
static COMMITS: LazyLock<[String; 8]> = LazyLock::new(|| {
    std::array::from_fn(|number| {
        commit(Parts {
            is_single: number & 1 != 0,
            has_more: number & 2 != 0,
            releases: number & 4 != 0,
        })
    })
});

impl Parts {
    fn statement(self) -> &'static str {
        let bits = [self.is_single, self.has_more, self.releases].map(usize::from);
        &COMMITS[bits[0] + 2 * bits[1] + 4 * bits[2]]
    }
}

/// The SQL for a batch of commits. `expires_at` is when a claim should check whether the lease has expired. It
/// stays unchanged while it lies in the second half of the lease, so that no index is touched. Organization,
/// workflow and creation time are compared with `IS NOT DISTINCT FROM`, which no index serves: with `=`, the
/// planner may take an index of lists in place of the key.
fn commit(parts: Parts) -> String {
    let has_more = parts.has_more;
    let execution_at = 2;
    let fence_at = execution_at + ExecutionRow::COUNT;
    let children_at = fence_at + FenceRow::COUNT;
    let table = if parts.is_single { single } else { unnest };
    let input = table(
        &[ExecutionRow::COLUMNS, FenceRow::COLUMNS],
        execution_at,
        "i",
    );
    let steps = StepRow::unnest(children_at, "r");
    let children = insert_children(children_at, "moved", has_more);
    let settled_at = children_at + ROWS_COUNT + REQUESTS_COUNT;
    let settled = SettledRow::unnest(settled_at, "r");
    let inputs = InputRow::unnest(settled_at + SettledRow::COUNT, "r");
    let if_more = |sql: String| if has_more { sql } else { String::new() };
    let leaving = if_more(format!(
        "settled_input AS MATERIALIZED (SELECT r.execution_id, r.id FROM {settled}),
        leaving AS (
            SELECT r.execution_id, count(*) AS signals
            FROM settled_input r JOIN docg.signals s
                ON s.id = r.id AND s.execution_id = r.execution_id AND NOT s.is_settled
            GROUP BY r.execution_id),"
    ));
    let join_leaving = if_more("LEFT JOIN leaving l ON l.execution_id = i.id".to_owned());
    let count_leaving = if has_more {
        "coalesce(l.signals, 0)"
    } else {
        "0"
    };
    let settle = if_more(format!(
        "settled AS (
            UPDATE docg.signals s SET is_settled = true
            FROM settled_input r JOIN moved m ON m.id = r.execution_id
            WHERE s.id = r.id AND s.execution_id = r.execution_id),
        inputs AS (
            UPDATE docg.execution_data d
            SET trigger_data = r.trigger_data, node_overrides = r.node_overrides,
                kept_events = r.kept_events, title = r.title, search = r.search
            FROM {inputs} JOIN moved m ON m.id = r.execution_id
            WHERE d.execution_id = r.execution_id),"
    ));
    let (awaited, told) = match parts.releases {
        true => (
            // One commit only reports that a claim was held back by this organization's share, and deletes
            // the note of it. A note that another commit has locked is left to that commit.
            "awaited AS (
                DELETE FROM docg.held_back h
                WHERE h.organization_id = ANY (ARRAY(
                    SELECT w.organization_id FROM docg.held_back w
                    WHERE w.organization_id IN (SELECT m.released_by FROM moved m)
                    FOR UPDATE SKIP LOCKED))
                RETURNING h.organization_id),",
            "a.organization_id AS awaited
                FROM moved m LEFT JOIN awaited a ON a.organization_id = m.released_by",
        ),
        false => ("", "NULL::uuid AS awaited FROM moved m"),
    };
    let waits_briefly = waits_briefly!("$1");
    let unless_reduced = NOT_OF_CANCELS.map(|column| {
        format!("{column} = CASE WHEN i.is_reduced THEN e.{column} ELSE i.{column} END")
    });
    let unless_reduced = unless_reduced.join(", ");
    format!(
        "WITH step_input AS MATERIALIZED (SELECT r.* FROM {steps}),
        known AS (
            SELECT r.execution_id, count(*) AS steps
            FROM step_input r JOIN docg.execution_steps s
                ON s.execution_id = r.execution_id AND s.position = r.position AND s.id = r.id
            GROUP BY r.execution_id),
        {leaving}
        checked AS MATERIALIZED (
            SELECT i.*, coalesce(k.steps, 0) AS known_steps, {count_leaving} AS leaving
            FROM {input} LEFT JOIN known k ON k.execution_id = i.id
                {join_leaving}
            WHERE {waits_briefly}),
        moved AS (
            UPDATE docg.executions e
            SET status = i.status, waiting_for = i.waiting_for, error_code = i.error_code,
                last_error_human = i.last_error_human, last_error_tech = i.last_error_tech,
                version = i.version, completed_at = i.completed_at, updated_at = i.updated_at,
                paused_from = i.paused_from, {unless_reduced},
                wake_at = i.wake_at, event_seq = i.event_seq, log_seq = i.log_seq,
                audit_seq = i.audit_seq, audit_hash = i.audit_hash,
                published = CASE WHEN i.published IS NULL THEN e.published
                    ELSE greatest(e.published, least(i.published, i.event_seq)) END,
                takeovers = CASE WHEN i.made_progress THEN 0 ELSE e.takeovers END,
                signals_pending = e.signals_pending - i.leaving::int,
                signaled_at = CASE WHEN e.signals_pending > i.leaving THEN e.signaled_at END,
                worker_id = CASE WHEN i.keep_until IS NOT NULL THEN e.worker_id END,
                lease_until = CASE WHEN i.keep_until IS NOT NULL
                    THEN greatest(e.lease_until, i.keep_until) END,
                expires_at = CASE
                    WHEN e.expires_at <= i.keep_until
                        AND e.expires_at - i.updated_at > (i.keep_until - i.updated_at) / 2
                    THEN e.expires_at ELSE i.keep_until END,
                due_at = CASE
                    WHEN i.keep_until IS NOT NULL THEN NULL
                    WHEN e.signals_pending > i.leaving THEN least(i.due_at, e.signaled_at)
                    ELSE i.due_at END
            FROM checked i
            WHERE e.id = i.id AND e.worker_id = i.worker_id AND e.fence = i.fence
                AND e.version = i.expected_version AND i.version > i.expected_version
                AND e.event_seq = i.expected_event_seq AND e.log_seq = i.expected_log_seq
                AND e.audit_seq = i.expected_audit_seq
                AND (e.organization_id, e.workflow_id, e.created_at)
                    IS NOT DISTINCT FROM (i.organization_id, i.workflow_id, i.created_at)
                AND i.known_steps = i.changed_steps
                AND NOT (i.ends AND e.signals_pending > i.leaving)
            RETURNING e.id, e.signals_pending,
                CASE WHEN i.keep_until IS NULL THEN e.organization_id END AS released_by),
        {awaited}
        steps AS (
            UPDATE docg.execution_steps s
            SET node_id = r.node_id, node_type = r.node_type, label = r.label, phase = r.phase,
                status = r.status, activity = r.activity, attempt = r.attempt,
                attempts_before = r.attempts_before, takeovers = r.takeovers,
                started_at = r.started_at, completed_at = r.completed_at,
                waiting_ms = r.waiting_ms, awaits = r.awaits, error_code = r.error_code, error_human = r.error_human,
                error_tech = r.error_tech, outcome = r.outcome, data_in = r.data_in,
                data_out = r.data_out, output = r.output, reused_from = r.reused_from
            FROM step_input r JOIN moved m ON m.id = r.execution_id
            WHERE s.execution_id = r.execution_id AND s.position = r.position),
        {settle}
        {children}
        SELECT m.id, m.signals_pending, {told}"
    )
}

#[async_trait]
impl BatchItem for CommitItem {
    /// `None` if the commit was refused.
    type Answer = Option<Committed>;

    fn mark(&self) -> Uuid {
        self.id
    }

    fn size(&self) -> usize {
        self.size
    }

    async fn send(
        items: &[Self],
        database: &Database,
        connection: &mut PoolConnection<Postgres>,
    ) -> Result<Vec<Result<Option<Committed>, Error>>, Error> {
        let parts = Parts {
            is_single: items.len() == 1,
            has_more: items.iter().any(|item| {
                item.children.has_requests() || !item.settled.is_empty() || item.inputs.is_some()
            }),
            releases: items.iter().any(|item| item.fence.keep_until.is_none()),
        };
        let all = items.iter();
        let mut arguments = arguments![database.row_wait()];
        ExecutionRow::bind(all.clone().map(|item| &item.execution), &mut arguments)?;
        FenceRow::bind(all.clone().map(|item| &item.fence), &mut arguments)?;
        let children = all.clone().map(|item| &item.children);
        Children::bind(children, &mut arguments, parts.has_more)?;
        if parts.has_more {
            SettledRow::bind(all.clone().flat_map(|item| &item.settled), &mut arguments)?;
            InputRow::bind(all.filter_map(|item| item.inputs.as_ref()), &mut arguments)?;
        }
        let sql = parts.statement();
        let mut moved = HashMap::with_capacity(items.len());
        let mut told = HashSet::new();
        for row in database.write_on(connection, sql, arguments).await? {
            let pending: i32 = field(&row, "signals_pending")?;
            let awaited: Option<Uuid> = field(&row, "awaited")?;
            let committed = Committed {
                signals_pending: pending > 0,
                share_awaited: awaited.is_some_and(|organization| told.insert(organization)),
            };
            moved.insert(field::<Uuid>(&row, "id")?, committed);
        }
        Ok(items
            .iter()
            .map(|item| Ok(moved.remove(&item.id)))
            .collect())
    }
}

fn records(commit: &Commit) -> Records<'_> {
    Records {
        execution: &commit.execution,
        steps: &commit.steps,
        events: &commit.events,
        logs: &commit.logs,
        audit: &commit.audit,
        signature: commit.signature.as_ref(),
        approval: commit.approval.as_ref(),
    }
}

impl PgStore {
    pub(super) async fn commit_one(&self, commit: &Commit) -> Result<Committed, Error> {
        let item = match self.write_commit_down(commit) {
            Ok(item) => item,
            // If the lease is also lost, the version changed or signals unread, report that instead.
            Err(Error::Invalid(message)) => {
                return Err(match self.why_refused(commit).await? {
                    Some(refused @ (Error::Conflict(_) | Error::Signaled(_))) => refused,
                    _ => Error::Invalid(message),
                });
            }
            Err(error) => return Err(error),
        };
        match self.commits.send(item).await? {
            Some(committed) => Ok(committed),
            None => {
                let id = commit.lease.execution_id;
                let why = self.why_refused(commit).await?;
                Err(why.unwrap_or_else(|| match commit.steps.is_empty() {
                    true => Error::Conflict(format!("{id} has changed meanwhile")),
                    false => {
                        let message = "has not all of the steps that the commit changes";
                        Error::Invalid(format!("{id} {message}"))
                    }
                }))
            }
        }
    }

    fn write_commit_down(&self, commit: &Commit) -> Result<CommitItem, Error> {
        let encoder = self.encoder;
        let execution = &commit.execution;
        let id = commit.lease.execution_id;
        if execution.id != id {
            return Err(Error::Invalid(format!("the commit changes what {id} is")));
        }
        let records = records(commit);
        let before = Lengths::before(&records);
        before.check(&records)?;
        let children = Children::of(&records, encoder)?;
        let mut inputs = None;
        if let Some(changed) = &commit.inputs {
            let events = (!changed.events.is_empty()).then_some(&changed.events);
            inputs = Some(InputRow {
                execution_id: id.0,
                trigger_data: encoder.json("trigger_data", &changed.trigger_data)?,
                node_overrides: encoder.json("node_overrides", &changed.node_overrides)?,
                kept_events: encoder.optional_json("kept_events", events)?,
                title: encoder.optional_text("title", commit.execution.title.as_deref())?,
                search: encoder.text("search", &search_vector(&commit.execution))?,
            });
        }
        let settled = commit.settled.iter().map(|signal| SettledRow {
            execution_id: id.0,
            id: signal.0,
        });
        let (keep_until, due_at) = match commit.then {
            LeaseAfter::Keep(until) => (Some(until), None),
            LeaseAfter::Release { due_at } => (None, due_at),
            LeaseAfter::End => (None, None),
        };
        Ok(CommitItem {
            id: id.0,
            size: children.size() + 1_000,
            execution: ExecutionRow::of(execution, encoder)?,
            fence: FenceRow {
                worker_id: commit.lease.worker_id.0,
                fence: int(commit.lease.fence),
                expected_version: int(commit.expected_version),
                expected_event_seq: int(before.events),
                expected_log_seq: int(before.logs),
                expected_audit_seq: int(before.audit),
                organization_id: execution.organization_id.0,
                workflow_id: execution.workflow_id.0,
                created_at: execution.created_at.into(),
                changed_steps: int(commit.steps.len() as u64),
                published: commit.published.map(int),
                is_reduced: commit.is_reduced,
                made_progress: commit.made_progress,
                keep_until: time_column(keep_until),
                due_at: time_column(due_at),
                ends: matches!(commit.then, LeaseAfter::End),
            },
            settled: settled.collect(),
            inputs,
            children,
        })
    }

    /// Finds why a commit was refused, as far as the execution's row shows it.
    async fn why_refused(&self, commit: &Commit) -> Result<Option<Error>, Error> {
        let conflict = |message: String| Ok(Some(Error::Conflict(message)));
        let invalid = |message: String| Ok(Some(Error::Invalid(message)));
        let id = commit.lease.execution_id;
        let sql = "SELECT organization_id, workflow_id, created_at, worker_id, fence, version,
                event_seq, log_seq, audit_seq,
                EXISTS (SELECT FROM docg.signals s
                    WHERE s.execution_id = e.id AND NOT s.is_settled AND s.id <> ALL ($2))
                    AS is_signaled
            FROM docg.executions e WHERE id = $1";
        let settled: Vec<Uuid> = commit.settled.iter().map(|signal| signal.0).collect();
        let rows = self.database.read(sql, arguments![id.0, settled]).await?;
        let Some(row) = rows.first() else {
            return conflict(format!("{id} is not there"));
        };
        let worker: Option<Uuid> = field(row, "worker_id")?;
        let fence: u64 = number(row, "fence")?;
        if worker != Some(commit.lease.worker_id.0) || fence != commit.lease.fence {
            return conflict(format!("the lease of {id} is lost"));
        }
        let version: u64 = number(row, "version")?;
        let expected = commit.expected_version;
        if version != expected {
            return conflict(format!("{id} has version {version}, not {expected}"));
        }
        let execution = &commit.execution;
        if execution.organization_id.0 != field::<Uuid>(row, "organization_id")?
            || execution.workflow_id.0 != field::<Uuid>(row, "workflow_id")?
            || execution.created_at != time(row, "created_at")?
        {
            return invalid(format!("the commit changes what {id} is"));
        }
        if execution.version <= version {
            return invalid(format!("the version of {id} does not grow"));
        }
        if matches!(commit.then, LeaseAfter::End) && field(row, "is_signaled")? {
            let message = format!("{id} has signals in its inbox");
            return Ok(Some(Error::Signaled(message)));
        }
        let lengths = Lengths {
            events: number(row, "event_seq")?,
            logs: number(row, "log_seq")?,
            audit: number(row, "audit_seq")?,
        };
        Ok(lengths.check(&records(commit)).err())
    }
}
