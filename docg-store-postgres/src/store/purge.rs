//! Removing what has ended long ago.

use docg_core::time::Timestamp;

use super::PgStore;
use crate::{
    codec::{Time, field, int},
    database::arguments,
    error::Error,
};

impl PgStore {
    /// Passes over what somebody is at, so that it never waits and nobody waits for it. Audit rows
    /// stay, and with them where their chain ended.
    pub(super) async fn purge_some(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let sql = "WITH old AS MATERIALIZED (
                SELECT e.id, e.organization_id, e.audit_seq, e.audit_hash, e.ended_at,
                    d.definition_hash
                FROM docg.executions e JOIN docg.execution_data d ON d.execution_id = e.id
                WHERE e.ended_at < $1
                ORDER BY e.ended_at LIMIT $2
                FOR UPDATE OF e SKIP LOCKED),
            kept_heads AS (
                INSERT INTO docg.audit_heads (execution_id, organization_id, audit_seq,
                    audit_hash, ended_at)
                SELECT old.id, old.organization_id, old.audit_seq, old.audit_hash, old.ended_at
                FROM old WHERE old.audit_seq > 0),
            steps AS (DELETE FROM docg.execution_steps r USING old WHERE r.execution_id = old.id),
            events AS (DELETE FROM docg.execution_events r USING old WHERE r.execution_id = old.id),
            logs AS (DELETE FROM docg.execution_logs r USING old WHERE r.execution_id = old.id),
            inbox AS (DELETE FROM docg.signals r USING old WHERE r.execution_id = old.id),
            signatures AS (
                DELETE FROM docg.signature_requests r USING old WHERE r.execution_id = old.id),
            approvals AS (DELETE FROM docg.approvals r USING old WHERE r.execution_id = old.id),
            keys AS (DELETE FROM docg.idempotency_keys r USING old WHERE r.execution_id = old.id),
            data AS (DELETE FROM docg.execution_data r USING old WHERE r.execution_id = old.id),
            gone AS (DELETE FROM docg.executions e USING old WHERE e.id = old.id RETURNING e.id),
            memos AS (
                DELETE FROM docg.memos m WHERE (m.organization_id, m.kind, m.key) IN (
                    SELECT x.organization_id, x.kind, x.key FROM docg.memos x
                    WHERE x.expires_at < $1 ORDER BY x.expires_at LIMIT $2
                    FOR UPDATE SKIP LOCKED))
            SELECT count(*) AS purged FROM gone";
        let parameters = arguments![Time::from(before), int(limit as u64)];
        let rows = self.database.write(sql, parameters).await?;
        let purged: i64 = rows.first().map_or(Ok(0), |row| field(row, "purged"))?;
        if purged > 0 {
            self.purge_definitions(limit).await?;
        }
        Ok(usize::try_from(purged).unwrap_or(0))
    }

    /// Definitions that no execution has any more. One that a new run takes up at this moment is
    /// kept by its foreign key, and whichever of the two comes second is tried again.
    async fn purge_definitions(&self, limit: usize) -> Result<(), Error> {
        let sql = "DELETE FROM docg.definitions WHERE hash IN (
            SELECT f.hash FROM docg.definitions f
            WHERE NOT EXISTS (
                SELECT FROM docg.execution_data d WHERE d.definition_hash = f.hash)
            LIMIT $1 FOR UPDATE SKIP LOCKED)";
        self.database
            .write(sql, arguments![int(limit as u64)])
            .await
            .map(|_| ())
    }
}
