//! Deletes executions that ended long ago, and definitions that no execution uses any more.

use docg_core::time::Timestamp;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::PgStore;
use crate::{
    codec::{Time, bytes32, field, int, run_state},
    database::arguments,
    error::Error,
};

/// Logs that a part of a purge failed, and returns `None` for it. A later purge repeats that part.
fn left_for_later<T>(done: Result<T, Error>) -> Option<T> {
    done.inspect_err(|error| tracing::warn!("not all that is old was purged: {error}"))
        .ok()
}

/// The maximum number of executions with unsettled signals that one call examines.
const LOOKED_AT: u64 = 100;

impl PgStore {
    /// Purges executions that ended before `before`. An execution with unsettled signals stays, unless it
    /// cannot be read. If a later part of the purge fails, the earlier parts stay done, and the next call
    /// repeats the failed part.
    pub(super) async fn purge_some(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let mut purged = self.purge_settled(before, limit).await?;
        if purged < limit {
            // Also delete definitions that an earlier purge could not delete.
            left_for_later(self.purge_left_over().await);
            // Every old execution that is left is locked by another session or has unsettled signals. If such an
            // execution cannot be read, no worker will ever settle its signals: settle them here.
            let more = self.purge_unreadable(before, limit - purged).await;
            purged += left_for_later(more).unwrap_or(0);
        }
        Ok(purged)
    }

    async fn purge_left_over(&self) -> Result<(), Error> {
        self.purge_definitions(self.left_over().await?).await
    }

    async fn purge_unreadable(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        match self.settle_unreadable(before).await? {
            true => self.purge_settled(before, limit).await,
            false => Ok(0),
        }
    }

    /// Purges old executions without unsettled signals. It skips locked rows, so it never waits for another
    /// session, and none waits for it. The audit rows stay, and `audit_heads` keeps the chain's head. If no
    /// checkpoint has signed the head, `audit_unsigned` names the execution for the next checkpoint. Rows
    /// with the same keys that somebody added to these tables do not stop the purge; verifying reports them
    /// if they are wrong.
    async fn purge_settled(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let sql = "WITH old AS MATERIALIZED (
                SELECT e.id, e.organization_id, e.audit_seq, e.audit_hash, e.is_checkpointed,
                    e.ended_at, d.definition_hash
                FROM docg.executions e LEFT JOIN docg.execution_data d ON d.execution_id = e.id
                WHERE e.ended_at < $1 AND e.signals_pending = 0
                ORDER BY e.ended_at LIMIT $2
                FOR UPDATE OF e SKIP LOCKED),
            kept_heads AS (
                INSERT INTO docg.audit_heads (execution_id, organization_id, audit_seq,
                    audit_hash, ended_at)
                SELECT old.id, old.organization_id, old.audit_seq, old.audit_hash, old.ended_at
                FROM old WHERE old.audit_seq > 0
                ON CONFLICT DO NOTHING),
            unsigned AS (
                INSERT INTO docg.audit_unsigned (execution_id, organization_id)
                SELECT old.id, old.organization_id FROM old WHERE NOT old.is_checkpointed
                ON CONFLICT DO NOTHING),
            steps AS (DELETE FROM docg.execution_steps r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            journal AS (DELETE FROM docg.journal r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            inbox AS (DELETE FROM docg.signals r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            signatures AS (
                DELETE FROM docg.signature_requests r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            approvals AS (DELETE FROM docg.approvals r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            names AS (DELETE FROM docg.request_names r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            keys AS (DELETE FROM docg.idempotency_keys r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            data AS (DELETE FROM docg.execution_data r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            gone AS (DELETE FROM docg.executions e WHERE e.id = ANY (ARRAY(SELECT old.id FROM old)) RETURNING e.id),
            memos AS (
                DELETE FROM docg.memos m WHERE m.ctid = ANY (ARRAY(
                    SELECT x.ctid FROM docg.memos x
                    WHERE x.expires_at < $1 ORDER BY x.expires_at LIMIT $2
                    FOR UPDATE SKIP LOCKED)))
            SELECT (SELECT count(*) FROM gone) AS purged,
                ARRAY(SELECT DISTINCT old.definition_hash FROM old
                    WHERE old.definition_hash IS NOT NULL) AS definitions";
        let parameters = arguments![Time::from(before), int(limit as u64)];
        let rows = self.database.write(sql, parameters).await?;
        let Some(row) = rows.first() else {
            return Err(Error::Corrupt("a statement without an answer".to_owned()));
        };
        let definitions: Vec<Vec<u8>> = field(row, "definitions")?;
        left_for_later(self.purge_definitions(definitions).await);
        Ok(usize::try_from(field::<i64>(row, "purged")?).unwrap_or(0))
    }

    /// Deletes those definitions that no execution uses any more. If a new execution starts to use a
    /// definition at this moment, its foreign key keeps the definition; the later of the two transactions
    /// is retried.
    async fn purge_definitions(&self, hashes: Vec<Vec<u8>>) -> Result<(), Error> {
        if hashes.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM docg.definitions f WHERE f.hash = ANY (ARRAY(
                SELECT x.hash FROM docg.definitions x
                WHERE x.hash = ANY ($1) AND NOT EXISTS (
                    SELECT FROM docg.execution_data d WHERE d.definition_hash = x.hash)
                FOR UPDATE SKIP LOCKED))";
        self.database
            .write(sql, arguments![hashes])
            .await
            .map(|_| ())
    }

    /// Definitions that no execution uses, left because an earlier purge failed to delete them. Each call
    /// examines another sample of at most 200 definitions.
    async fn left_over(&self) -> Result<Vec<Vec<u8>>, Error> {
        let sql = "WITH start AS (SELECT sha256(random()::text::bytea) AS hash)
            SELECT x.hash FROM (
                (SELECT f.hash FROM docg.definitions f
                    WHERE f.hash > (SELECT s.hash FROM start s) ORDER BY f.hash LIMIT 100)
                UNION ALL
                (SELECT f.hash FROM docg.definitions f
                    WHERE f.hash <= (SELECT s.hash FROM start s) ORDER BY f.hash LIMIT 100)) x
            WHERE (SELECT d.execution_id FROM docg.execution_data d
                WHERE d.definition_hash = x.hash LIMIT 1) IS NULL";
        let rows = self.database.read(sql, PgArguments::default()).await?;
        rows.iter().map(|row| field(row, "hash")).collect()
    }

    /// Settles pending signals of ended executions that cannot be read, because no worker can load these
    /// executions to settle them. Only signals from before `before` are settled. Before a signal is that
    /// old, somebody may repair the execution, or a newer version may read it. Returns true if any signal
    /// was settled.
    async fn settle_unreadable(&self, before: Timestamp) -> Result<bool, Error> {
        // Choose at random. Otherwise the same executions, which stay, could use up the limit on every
        // call.
        let sql = "SELECT e.id FROM docg.executions e
            WHERE e.ended_at < $1 AND e.signals_pending > 0 AND e.signaled_at < $1
                AND e.expires_at IS NULL
            ORDER BY random() LIMIT $2";
        let parameters = arguments![Time::from(before), int(LOOKED_AT)];
        let rows = self.database.read(sql, parameters).await?;
        let mut found = false;
        let mut stay = Vec::new();
        for row in &rows {
            let id = field(row, "id")?;
            match self.settle_one(id, before).await {
                Ok(Some(ignored)) => found |= ignored,
                Ok(None) => stay.push(id.to_string()),
                Err(error) => {
                    tracing::warn!(execution = %id, "whether it can be read is not known: {error}");
                    break;
                }
            }
        }
        if !stay.is_empty() {
            tracing::warn!(
                "{} executions ended long ago and stay, for no worker has settled their signals: {}",
                stay.len(),
                stay.join(", ")
            );
        }
        Ok(found)
    }

    /// Settles the old signals of an execution that cannot be read, without applying them. Returns true if
    /// there were any; `None` if the execution can be read.
    async fn settle_one(&self, id: Uuid, before: Timestamp) -> Result<Option<bool>, Error> {
        match self.unreadable(id).await? {
            Some(why) => self.ignore_signals(id, before, &why).await.map(Some),
            None => Ok(None),
        }
    }

    /// The reason why no worker can load an execution; `None` if it can be read.
    pub(super) async fn unreadable(&self, id: Uuid) -> Result<Option<Error>, Error> {
        let why = match self.read_whole(id).await {
            Ok(()) => None,
            Err(error) if error.is_unreadable() => Some(error),
            Err(error) => return Err(error),
        };
        self.damaged.note(id, why.is_some());
        Ok(why)
    }

    /// Reads the execution's state and definition as a worker does. Fails if they cannot be read; succeeds if the
    /// execution does not exist.
    async fn read_whole(&self, id: Uuid) -> Result<(), Error> {
        let Some(row) = self.state_row(id).await? else {
            return Ok(());
        };
        let hash = bytes32(&row, "definition_hash")?;
        for workflow in self.definitions.find(&self.database, &[hash]).await? {
            run_state(&row, workflow?)?;
        }
        Ok(())
    }

    async fn ignore_signals(
        &self,
        execution: Uuid,
        before: Timestamp,
        why: &Error,
    ) -> Result<bool, Error> {
        // Lock the execution's row first, as adding and settling signals do. Skip the row if it is locked:
        // another session may be adding or settling a signal.
        let sql = "WITH held AS MATERIALIZED (
                SELECT x.id FROM docg.executions x
                WHERE x.id = $1 AND x.ended_at < $2 AND x.expires_at IS NULL
                FOR NO KEY UPDATE SKIP LOCKED),
            ignored AS (
                UPDATE docg.signals s SET is_settled = true FROM held
                WHERE s.execution_id = held.id AND NOT s.is_settled AND s.received_at < $2
                RETURNING s.id, s.kind),
            counted AS (
                UPDATE docg.executions e
                SET signals_pending = e.signals_pending - n.n,
                    signaled_at = CASE WHEN e.signals_pending > n.n THEN e.signaled_at END
                FROM (SELECT count(*)::integer AS n FROM ignored) n
                WHERE e.id = $1 AND n.n > 0)
            SELECT i.id, i.kind FROM ignored i";
        let parameters = arguments![execution, Time::from(before)];
        let rows = self.database.write(sql, parameters).await?;
        let mut ignored = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, kind) = (field::<Uuid>(row, "id")?, field::<String>(row, "kind")?);
            ignored.push(format!("{kind} {id}"));
        }
        if !ignored.is_empty() {
            tracing::warn!(
                %execution,
                "{} signals are ignored, for their execution ended long ago and cannot be read \
                 ({why}): {}",
                ignored.len(),
                ignored.join(", ")
            );
        }
        Ok(!ignored.is_empty())
    }
}
