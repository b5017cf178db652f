//! Removing what has ended long ago.

use docg_core::time::Timestamp;

use super::PgStore;
use crate::{
    codec::{Time, field, int},
    database::arguments,
    error::Error,
};

impl PgStore {
    /// Passes over what somebody is at, so that it never waits and nobody waits for it, and over
    /// what has signals that are not settled. Audit rows stay, and with them where their chain
    /// ended; what no checkpoint has signed of that waits for the next. Rows that somebody has put
    /// there before hold up no purge: where they are wrong, verifying shows it.
    pub(super) async fn purge_some(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let sql = "WITH old AS MATERIALIZED (
                SELECT e.id, e.organization_id, e.audit_seq, e.audit_hash, e.is_checkpointed,
                    e.ended_at, d.definition_hash
                FROM docg.executions e JOIN docg.execution_data d ON d.execution_id = e.id
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
            events AS (DELETE FROM docg.execution_events r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            logs AS (DELETE FROM docg.execution_logs r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            inbox AS (DELETE FROM docg.signals r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            signatures AS (
                DELETE FROM docg.signature_requests r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            approvals AS (DELETE FROM docg.approvals r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            keys AS (DELETE FROM docg.idempotency_keys r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            data AS (DELETE FROM docg.execution_data r WHERE r.execution_id = ANY (ARRAY(SELECT old.id FROM old))),
            gone AS (DELETE FROM docg.executions e WHERE e.id = ANY (ARRAY(SELECT old.id FROM old)) RETURNING e.id),
            memos AS (
                DELETE FROM docg.memos m WHERE m.ctid = ANY (ARRAY(
                    SELECT x.ctid FROM docg.memos x
                    WHERE x.expires_at < $1 ORDER BY x.expires_at LIMIT $2
                    FOR UPDATE SKIP LOCKED)))
            SELECT (SELECT count(*) FROM gone) AS purged,
                ARRAY(SELECT DISTINCT old.definition_hash FROM old) AS definitions";
        let parameters = arguments![Time::from(before), int(limit as u64)];
        let rows = self.database.write(sql, parameters).await?;
        let Some(row) = rows.first() else {
            return Err(Error::Corrupt("a statement without an answer".to_owned()));
        };
        let definitions: Vec<Vec<u8>> = field(row, "definitions")?;
        if !definitions.is_empty() {
            self.purge_definitions(definitions).await?;
        }
        Ok(usize::try_from(field::<i64>(row, "purged")?).unwrap_or(0))
    }

    /// Removes those of these definitions that no execution has any more. One that a new run takes
    /// up at this moment is kept by its foreign key, and whichever of the two comes second is
    /// tried again.
    async fn purge_definitions(&self, hashes: Vec<Vec<u8>>) -> Result<(), Error> {
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
}
