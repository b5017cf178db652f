//! Leases executions to workers, and renews and releases leases.

use std::{collections::HashMap, sync::Arc};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::{Claim, ClaimRequest, ClaimWhat, Claimed, Lease, Renewed, Signal, Unserved},
    time::Timestamp,
};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PgStore,
    sql::{
        approval_record, execution_columns, run_state_columns, signature_record, step_record,
        steps_of_execution,
    },
};
use crate::{
    codec::{
        Time, bytes32, field, int, number, optional_time, reduced_state, run_state, signals, time,
    },
    database::{arguments, waits_briefly},
    error::{Error, Meaning},
};

/// SQL for the largest valid number in a column of execution `e`'s rows in a table.
macro_rules! last {
    ($table:literal, $number:literal) => {
        concat!(
            "(SELECT max(r.",
            $number,
            ") FROM docg.",
            $table,
            " r WHERE r.execution_id = e.id AND r.",
            $number,
            " <= 2305843009213693952)"
        )
    };
}

/// SQL that is true if the sequence counters of execution `e` are lower than the numbers of its rows, so
/// that a commit would reuse numbers.
macro_rules! counters_lag {
    () => {
        concat!(
            "(",
            last!("journal", "last_event"),
            " > e.event_seq OR ",
            last!("journal", "last_log"),
            " > e.log_seq OR ",
            last!("audit_events", "seq"),
            " > e.audit_seq) IS TRUE"
        )
    };
}

/// The stored size in bytes from which an execution is large.
macro_rules! large {
    () => {
        "32768"
    };
}

/// The maximum stored size, in bytes, of the large executions that one claim loads. The execution that
/// exceeds the limit is still loaded; later large ones are not.
macro_rules! most_loaded {
    () => {
        "1048576"
    };
}

/// The statements of a claim. `with_state` also returns the run state of the claimed executions, except of
/// those beyond `most_loaded`. The SQL function sees and changes the rows as of its own run; the rest of
/// the statement sees them as of the statement's start. If an execution differs between the two, its state
/// is read again.
macro_rules! claim {
    ($function:literal, counters_checked: $checked:literal) => {
        ClaimSql {
            with_state: concat!(
                "SELECT c.id AS claimed, c.fence, c.taken_over, c.takeovers,
                    c.version AS claimed_version, c.signals_pending AS claimed_signals, c.next_due,
                    c.held_back, c.is_too_much, ",
                $checked,
                " AND ",
                counters_lag!(),
                " AS counters_lag, ",
                run_state_columns!(),
                " FROM (
                    SELECT c.*, size.stored >= ",
                large!(),
                " AND coalesce(sum(size.stored) FILTER (WHERE size.stored >= ",
                large!(),
                ") OVER (ORDER BY c.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) >= ",
                most_loaded!(),
                " AS is_too_much
                    FROM ",
                $function,
                " c CROSS JOIN LATERAL (
                        SELECT coalesce(sum(bytes), 0) AS stored FROM (
                            SELECT pg_column_size(d.trigger_data) AS bytes
                            FROM docg.execution_data d WHERE d.execution_id = c.id
                            UNION ALL
                            SELECT coalesce(pg_column_size(s.output), 0)
                                + coalesce(pg_column_size(s.data_in), 0)
                                + coalesce(pg_column_size(s.data_out), 0)
                            FROM docg.execution_steps s WHERE s.execution_id = c.id
                        ) part
                    ) size
                ) c LEFT JOIN docg.executions e ON e.id = c.id AND NOT c.is_too_much
                    LEFT JOIN docg.execution_data d ON d.execution_id = e.id
                ORDER BY c.place"
            ),
            alone: concat!(
                "SELECT c.id AS claimed, c.fence, c.taken_over, c.takeovers, c.next_due, c.held_back
                FROM ",
                $function,
                " c ORDER BY c.place"
            ),
        }
    };
}

/// How the previous lease holder left an execution.
struct Before {
    taken_over: bool,
    takeovers: u32,
}

struct ClaimSql {
    with_state: &'static str,
    /// The claim without run states, for use if the server cannot read all of them: each is then read by
    /// itself.
    alone: &'static str,
}

/// SQL that renews leases. It locks rows in the same order as commits, which prevents deadlocks. It waits
/// only briefly for a locked row: the engine abandons executions if it does not learn in time that their
/// leases are renewed.
macro_rules! prolong {
    ($of_held_rows:literal) => {
        concat!(
            "UPDATE docg.executions e
            SET lease_until = greatest(e.lease_until, $4),
                expires_at = greatest(e.lease_until, $4), due_at = NULL
            FROM (
                SELECT x.id, x.fence FROM docg.executions x
                JOIN unnest($1::uuid[], $2::uuid[], $3::int8[]) AS l (id, worker_id, fence)
                    ON l.id = x.id AND l.worker_id = x.worker_id AND l.fence = x.fence
                WHERE ",
            waits_briefly!("$5"),
            " ORDER BY x.id FOR NO KEY UPDATE OF x ",
            $of_held_rows,
            ") held
            WHERE e.id = held.id
            RETURNING e.id, e.fence, e.signals_pending > 0 AS is_signaled"
        )
    };
}

impl PgStore {
    pub(super) async fn claim_some(&self, request: &ClaimRequest) -> Result<Claim, Error> {
        let (worker, now) = (request.worker_id, Time::from(request.now));
        let until = Time::from(request.lease_until);
        let (sql, parameters) = match &request.what {
            ClaimWhat::One(id) => (
                claim!("docg.claim_one($1, $2, $3, $4)", counters_checked: "true"),
                arguments![id.0, worker.0, now, until],
            ),
            ClaimWhat::Due {
                limit,
                per_organization,
                node_types,
            } => {
                let types: Vec<String> = node_types.iter().map(ToString::to_string).collect();
                let parameters = arguments![
                    worker.0,
                    now,
                    until,
                    int(*limit as u64),
                    int(*per_organization as u64),
                    types,
                ];
                let sql = claim!(
                    "docg.claim_due($1, $2, $3, $4, $5, $6)",
                    counters_checked: "c.taken_over"
                );
                (sql, parameters)
            }
        };
        match self
            .database
            .write(sql.with_state, parameters.clone())
            .await
        {
            Err(error) if error.is_unreadable() => {
                let rows = self.database.write(sql.alone, parameters).await?;
                self.claim_of(rows, request, false).await
            }
            rows => self.claim_of(rows?, request, true).await,
        }
    }

    pub(super) async fn left(
        &self,
        node_types: &[Arc<str>],
        before: Timestamp,
    ) -> Result<Vec<Unserved>, Error> {
        let sql = "SELECT s.node_types, min(first.due_at) AS due_since,
                (array_agg(first.id ORDER BY first.due_at, first.id))[:$3::bigint::int] AS executions,
                (array_agg(lines.organization_id ORDER BY first.due_at, first.id))[:$3::bigint::int] AS organizations
            FROM docg.lines
            JOIN docg.node_type_sets s ON s.id = lines.type_set
            CROSS JOIN LATERAL (
                SELECT e.id, e.due_at
                FROM docg.executions e
                WHERE e.priority = lines.priority
                    AND e.organization_id = lines.organization_id
                    AND e.type_set = lines.type_set
                    AND e.due_at < $2
                ORDER BY e.due_at LIMIT $3::bigint
            ) first
            WHERE NOT s.node_types <@ $1
            GROUP BY s.node_types";
        let known: Vec<String> = node_types.iter().map(ToString::to_string).collect();
        let parameters = arguments![known, Time::from(before), int(Unserved::MOST as u64)];
        let rows = self.database.read(sql, parameters).await?;
        rows.iter()
            .map(|row| {
                let types: Vec<String> = field(row, "node_types")?;
                let executions: Vec<Uuid> = field(row, "executions")?;
                let organizations: Vec<Uuid> = field(row, "organizations")?;
                let organizations = organizations.into_iter().map(OrganizationId);
                Ok(Unserved {
                    node_types: types.into_iter().map(Arc::from).collect(),
                    due_since: time(row, "due_since")?,
                    executions: organizations
                        .zip(executions.into_iter().map(ExecutionId))
                        .collect(),
                })
            })
            .collect()
    }

    async fn claim_of(
        &self,
        rows: Vec<PgRow>,
        request: &ClaimRequest,
        with_state: bool,
    ) -> Result<Claim, Error> {
        let mut claim = Claim::default();
        let mut taken = Vec::with_capacity(rows.len());
        let mut unreadable = Vec::new();
        let mut too_much = Vec::new();
        for row in rows {
            if let Some(id) = field::<Option<Uuid>>(&row, "claimed")? {
                let lease = Lease {
                    execution_id: id.into(),
                    worker_id: request.worker_id,
                    fence: number(&row, "fence")?,
                };
                let takeovers: i32 = field(&row, "takeovers")?;
                let before = Before {
                    taken_over: field(&row, "taken_over")?,
                    takeovers: takeovers.unsigned_abs(),
                };
                if with_state && field(&row, "is_too_much")? {
                    too_much.push((lease, before.taken_over));
                    continue;
                }
                let counters_lag = !with_state || field(&row, "counters_lag")?;
                if counters_lag {
                    self.mend_counters(lease).await?;
                }
                let state = if !counters_lag && is_current(&row).unwrap_or(false) {
                    Some(row)
                } else {
                    match self.state_row(id).await {
                        Err(error) if error.is_unreadable() => match &request.what {
                            ClaimWhat::One(_) => self.bare_row(id).await?,
                            ClaimWhat::Due { .. } => {
                                unreadable.push((lease, error));
                                None
                            }
                        },
                        state => state?,
                    }
                };
                // No row: the execution was purged in the meantime, so there is nothing to work on.
                taken.extend(state.map(|state| (lease, before, state)));
            } else {
                claim.held_back |= field::<bool>(&row, "held_back")?;
                // Ignore a time that cannot be read: it is so far away that no worker waits for it.
                if let Some(due) = optional_time(&row, "next_due").unwrap_or(None) {
                    claim.next_due = Some(claim.next_due.map_or(due, |known| known.min(due)));
                }
            }
        }
        // If a hash cannot be read, zeros stand for it; no definition has that hash.
        let hashes: Vec<_> = taken
            .iter()
            .map(|(_, _, state)| bytes32(state, "definition_hash").unwrap_or_default())
            .collect();
        let workflows = self.definitions.find(&self.database, &hashes).await?;
        let by_name = matches!(request.what, ClaimWhat::One(_));
        for ((lease, before, state), workflow) in taken.into_iter().zip(workflows) {
            let read = || {
                let run = run_state(&state, workflow.clone()?)?;
                Ok::<_, Error>((run, number(&state, "published")?))
            };
            let (run, published, is_unreadable) = match read() {
                Ok((run, published)) => (run, published, false),
                Err(_) if by_name => {
                    // The claim may have repaired the row, so read it again.
                    let id = lease.execution_id.0;
                    let row = match self.state_row(id).await {
                        Err(error) if error.is_unreadable() => self.bare_row(id).await?,
                        row => row?,
                    };
                    let state = row.as_ref().unwrap_or(&state);
                    (reduced_state(state)?, 0, true)
                }
                Err(error) => {
                    unreadable.push((lease, error));
                    continue;
                }
            };
            let signals = match inbox(&state) {
                Ok(signals) => signals,
                // Read the signals one by one, so that the readable ones are returned.
                Err(_) => self.inbox(lease.execution_id).await?,
            };
            let mut claimed = Claimed::new(lease, run);
            claimed.taken_over = before.taken_over;
            claimed.takeovers = before.takeovers;
            claimed.unreadable = is_unreadable;
            claimed.signals = signals;
            claimed.published = published;
            claim.claimed.push(claimed);
        }
        if !unreadable.is_empty() {
            self.put_off(&unreadable).await?;
        }
        if !too_much.is_empty() {
            self.put_back(&too_much, request.now).await?;
        }
        if !unreadable.is_empty() || !too_much.is_empty() {
            // No worker holds these executions now. Claim again at once: others may be due in their place.
            claim.next_due = Some(request.now);
        }
        Ok(claim)
    }

    /// Gives up the leases of executions that cannot be read. They are due again when their leases would
    /// have expired; after a plain release they would be due at once. Until then they have no holder, so
    /// they do not count towards their organization's share of leases. Unless this was an execution's first
    /// lease, `worker_id` stays set, so that the next claim is a takeover. No worker has died, so the
    /// takeover count does not grow.
    async fn put_off(&self, unreadable: &[(Lease, Error)]) -> Result<(), Error> {
        let why: Vec<_> = unreadable
            .iter()
            .map(|(lease, error)| format!("{}: {error}", lease.execution_id))
            .collect();
        tracing::error!(
            "{} of the executions that were claimed cannot be read: {}",
            why.len(),
            why.join("; ")
        );
        let sql = "UPDATE docg.executions e
            SET worker_id = CASE WHEN e.fence > 1 THEN e.worker_id END, expires_at = NULL,
                takeovers = greatest(e.takeovers - 1, 0),
                due_at = CASE
                    WHEN e.ended_at IS NULL OR e.signals_pending > 0 THEN e.lease_until END
            FROM (
                SELECT x.id FROM docg.executions x
                JOIN unnest($1::uuid[], $2::uuid[], $3::int8[]) AS l (id, worker_id, fence)
                    ON l.id = x.id AND l.worker_id = x.worker_id AND l.fence = x.fence
                ORDER BY x.id FOR NO KEY UPDATE OF x
            ) held
            WHERE e.id = held.id";
        let leases: Vec<Lease> = unreadable.iter().map(|(lease, _)| *lease).collect();
        for lease in &leases {
            self.damaged.note(lease.execution_id.0, true);
        }
        let (ids, workers, fences) = columns(&leases);
        let parameters = arguments![ids, workers, fences];
        self.database.write(sql, parameters).await.map(|_| ())
    }

    /// Gives up the leases of executions that this claim did not load. They are due at once, as if they had
    /// not been claimed. Their next claim is a takeover only if this claim was a takeover.
    async fn put_back(&self, leases: &[(Lease, bool)], now: Timestamp) -> Result<(), Error> {
        let sql = "UPDATE docg.executions e
            SET worker_id = CASE WHEN held.taken_over THEN e.worker_id END,
                lease_until = CASE WHEN held.taken_over THEN e.lease_until END, expires_at = NULL,
                takeovers = e.takeovers - held.taken_over::integer,
                due_at = CASE WHEN e.ended_at IS NULL OR e.signals_pending > 0 THEN $5 END
            FROM (
                SELECT x.id, l.taken_over FROM docg.executions x
                JOIN unnest($1::uuid[], $2::uuid[], $3::int8[], $4::bool[])
                        AS l (id, worker_id, fence, taken_over)
                    ON l.id = x.id AND l.worker_id = x.worker_id AND l.fence = x.fence
                ORDER BY x.id FOR NO KEY UPDATE OF x
            ) held
            WHERE e.id = held.id";
        let (leases, taken_over): (Vec<Lease>, Vec<bool>) = leases.iter().copied().unzip();
        let (ids, workers, fences) = columns(&leases);
        let parameters = arguments![ids, workers, fences, taken_over, Time::from(now)];
        self.database.write(sql, parameters).await.map(|_| ())
    }

    /// Repairs sequence counters that are lower than the numbers of the execution's rows: they continue
    /// from the last row.
    async fn mend_counters(&self, lease: Lease) -> Result<(), Error> {
        let sql = concat!(
            "WITH mended AS (
                SELECT e.id, ",
            last!("journal", "last_event"),
            " AS event_seq, ",
            last!("journal", "last_log"),
            " AS log_seq, last.seq AS audit_seq, last.hash AS audit_hash
                FROM docg.executions e LEFT JOIN LATERAL (
                    SELECT r.seq, r.hash FROM docg.audit_events r
                    WHERE r.execution_id = e.id AND r.seq <= 2305843009213693952
                    ORDER BY r.seq DESC LIMIT 1) last ON true
                WHERE e.id = $1 AND e.fence = $2 AND ",
            counters_lag!(),
            ")
            UPDATE docg.executions e
            SET event_seq = greatest(e.event_seq, m.event_seq),
                log_seq = greatest(e.log_seq, m.log_seq),
                audit_seq = greatest(e.audit_seq, m.audit_seq),
                audit_hash = CASE WHEN m.audit_seq > e.audit_seq
                    THEN m.audit_hash ELSE e.audit_hash END
            FROM mended m WHERE e.id = m.id AND e.fence = $2
            RETURNING e.id"
        );
        let id = lease.execution_id;
        let parameters = arguments![id.0, int(lease.fence)];
        if !self.database.write(sql, parameters).await?.is_empty() {
            tracing::error!(execution_id = %id, "its counters were behind its rows and were mended");
        }
        Ok(())
    }

    pub(super) async fn state_row(&self, id: Uuid) -> Result<Option<PgRow>, Error> {
        let sql = concat!(
            "SELECT ",
            run_state_columns!(),
            " FROM docg.executions e LEFT JOIN docg.execution_data d ON d.execution_id = e.id
             WHERE e.id = $1"
        );
        Ok(self.database.read(sql, arguments![id]).await?.pop())
    }

    /// The columns that a cancel needs, if the server cannot read the whole execution.
    async fn bare_row(&self, id: Uuid) -> Result<Option<PgRow>, Error> {
        let sql = "SELECT e.id, e.organization_id, e.workflow_id, e.workflow_version, e.status,
                e.progress, e.delivery_state, e.signature_state, e.correlation_id, e.trigger_type,
                e.dry_run, e.attempt, e.version, e.created_at, e.started_at, e.updated_at,
                e.preflight_due, e.delivery_confirmed, e.priority, e.event_seq, e.log_seq,
                e.audit_seq, e.audit_hash,
                (SELECT json_agg(s.signal ORDER BY s.arrival)::text FROM docg.signals s
                 WHERE s.execution_id = e.id AND NOT s.is_settled) AS signals
            FROM docg.executions e WHERE e.id = $1";
        Ok(self.database.read(sql, arguments![id]).await?.pop())
    }

    pub(super) async fn prolong(
        &self,
        leases: &[Lease],
        until: Timestamp,
    ) -> Result<Renewed, Error> {
        let (mut held, mut is_known) = (HashMap::new(), true);
        // First renew the leases whose rows are not locked, so that a locked row costs no other execution
        // its lease.
        self.prolong_some(prolong!("SKIP LOCKED"), leases, until, &mut held)
            .await?;
        // A lease that is not renewed yet is lost, or a commit has locked its row. Wait for the row.
        let waited = self.prolong_some(prolong!(""), leases, until, &mut held);
        if let Err(mut error) = waited.await {
            if error.meaning() == Some(Meaning::Held) {
                // The locked row made the statement fail for other leases too. Renew those whose rows are
                // free.
                let beside = self.prolong_some(prolong!("SKIP LOCKED"), leases, until, &mut held);
                error = beside.await.err().unwrap_or(error);
            }
            // Some leases are renewed. The others may be lost, or their rows are locked for long.
            if held.is_empty() {
                return Err(error);
            }
            tracing::warn!("not all leases could be prolonged: {error}");
            is_known = false;
        }
        let mut renewed = Renewed::default();
        for lease in leases {
            match held.get(&(lease.execution_id.0, lease.fence)) {
                Some(false) => {}
                Some(true) => renewed.signaled.push(*lease),
                None if is_known => renewed.lost.push(*lease),
                None => renewed.unknown.push(*lease),
            }
        }
        Ok(renewed)
    }

    /// Renews the leases that are not in `held` yet. Adds each renewed lease to `held`, with true if its
    /// execution has pending signals.
    async fn prolong_some(
        &self,
        sql: &'static str,
        leases: &[Lease],
        until: Timestamp,
        held: &mut HashMap<(Uuid, u64), bool>,
    ) -> Result<(), Error> {
        let is_left = |lease: &&Lease| !held.contains_key(&(lease.execution_id.0, lease.fence));
        let left: Vec<Lease> = leases.iter().filter(is_left).copied().collect();
        if left.is_empty() {
            return Ok(());
        }
        let (ids, workers, fences) = columns(&left);
        let wait = self.database.row_wait();
        let parameters = arguments![ids, workers, fences, Time::from(until), wait];
        for row in self.database.write(sql, parameters).await? {
            let lease = (field(&row, "id")?, number(&row, "fence")?);
            held.insert(lease, field(&row, "is_signaled")?);
        }
        Ok(())
    }

    pub(super) async fn release_leases(
        &self,
        leases: &[Lease],
        now: Timestamp,
    ) -> Result<(), Error> {
        if leases.is_empty() {
            return Ok(());
        }
        let sql = "UPDATE docg.executions e
            SET worker_id = NULL, lease_until = NULL, expires_at = NULL,
                due_at = CASE WHEN e.ended_at IS NULL OR e.signals_pending > 0 THEN $4 END
            FROM (
                SELECT x.id FROM docg.executions x
                JOIN unnest($1::uuid[], $2::uuid[], $3::int8[]) AS l (id, worker_id, fence)
                    ON l.id = x.id AND l.worker_id = x.worker_id AND l.fence = x.fence
                ORDER BY x.id FOR NO KEY UPDATE OF x
            ) held
            WHERE e.id = held.id";
        let (ids, workers, fences) = columns(leases);
        let parameters = arguments![ids, workers, fences, Time::from(now)];
        self.database.write(sql, parameters).await.map(|_| ())
    }
}

fn columns(leases: &[Lease]) -> (Vec<Uuid>, Vec<Uuid>, Vec<i64>) {
    let leases = leases.iter();
    let ids = leases.clone().map(|lease| lease.execution_id.0).collect();
    let workers = leases.clone().map(|lease| lease.worker_id.0).collect();
    (ids, workers, leases.map(|lease| int(lease.fence)).collect())
}

/// True if the state in the row is that of the claim: the same version, and the same number of pending
/// signals.
fn is_current(row: &PgRow) -> Result<bool, Error> {
    let same_version =
        field::<Option<i64>>(row, "version")? == field::<Option<i64>>(row, "claimed_version")?;
    let pending = pending(row)?;
    // An inbox that cannot be read here is read signal by signal later.
    let same_inbox = |signals: Vec<Signal>| signals.len() as u64 == u64::from(pending);
    Ok(same_version && inbox(row).map_or(true, same_inbox))
}

fn pending(row: &PgRow) -> Result<u32, Error> {
    let pending: i32 = field(row, "claimed_signals")?;
    u32::try_from(pending).map_err(|_| Error::Corrupt(format!("signals_pending is {pending}")))
}

fn inbox(row: &PgRow) -> Result<Vec<Signal>, Error> {
    signals(field(row, "signals")?)
}
