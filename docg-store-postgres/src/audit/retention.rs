//! The two doors in the guards: erasing a person's data, and letting go what is kept no longer.
//! Both need a role that may change the table; the one that serves requests should not.

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::StoreError,
    time::Timestamp,
};
use sqlx::{Connection, PgConnection};

use crate::{
    PgStore,
    codec::{Time, field, int},
    error::Error,
};

impl PgStore {
    /// Erases who acted and the facts from an execution's audit rows, with the salts that would
    /// prove them. The chain still verifies. Returns how many rows had something to erase.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the role may not do it.
    pub async fn erase_audit(
        &self,
        organization: OrganizationId,
        execution: ExecutionId,
    ) -> Result<u64, StoreError> {
        let erase = async {
            let mut connection = self.database.connection().await?;
            let mut transaction = connection.begin().await?;
            open_door(&mut transaction, "docg.audit_erasure").await?;
            let sql = "UPDATE docg.audit_events a
                SET actor_id = NULL, metadata = NULL, salt = NULL
                WHERE a.execution_id = $1 AND a.organization_id = $2 AND a.salt IS NOT NULL";
            let done = sqlx::query(sql)
                .bind(execution.0)
                .bind(organization.0)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(done.rows_affected())
        };
        erase.await.map_err(|e: Error| e.at("erase_audit"))
    }

    /// Removes the audit rows of executions that were purged and had ended before `before`, of at
    /// most `limit` executions. Returns of how many. That they were removed stays on record, and is
    /// signed by the organization's next checkpoint: until then verifying says that it is not.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the role may not do it.
    pub async fn purge_audit(
        &self,
        before: Timestamp,
        limit: usize,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let purge = async {
            let mut connection = self.database.connection().await?;
            let mut transaction = connection.begin().await?;
            open_door(&mut transaction, "docg.audit_retention").await?;
            let sql = "WITH old AS MATERIALIZED (
                    SELECT h.execution_id, h.organization_id FROM docg.audit_heads h
                    WHERE h.ended_at < $1 AND NOT EXISTS (
                        SELECT FROM docg.audit_purges p WHERE p.execution_id = h.execution_id)
                    ORDER BY h.ended_at LIMIT $2 FOR UPDATE OF h SKIP LOCKED),
                noted AS (
                    INSERT INTO docg.audit_purges (execution_id, organization_id, purged_at)
                    SELECT old.execution_id, old.organization_id, $3 FROM old
                    RETURNING execution_id, organization_id),
                unsigned AS (
                    INSERT INTO docg.audit_unsigned (organization_id, execution_id, audit_seq,
                        audit_hash)
                    SELECT noted.organization_id, noted.execution_id, 0,
                        decode(repeat('00', 32), 'hex')
                    FROM noted
                    ON CONFLICT (organization_id, execution_id) DO UPDATE
                    SET audit_seq = excluded.audit_seq, audit_hash = excluded.audit_hash),
                gone AS (
                    DELETE FROM docg.audit_events a USING old
                    WHERE a.execution_id = old.execution_id)
                SELECT count(*) AS purged FROM noted";
            let row = sqlx::query(sql)
                .bind(Time::from(before))
                .bind(int(limit as u64))
                .bind(Time::from(now))
                .fetch_one(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(usize::try_from(field::<i64>(&row, "purged")?).unwrap_or(0))
        };
        purge.await.map_err(|e: Error| e.at("purge_audit"))
    }
}

async fn open_door(connection: &mut PgConnection, door: &str) -> Result<(), Error> {
    sqlx::query("SELECT set_config($1, 'on', true)")
        .bind(door)
        .execute(connection)
        .await?;
    Ok(())
}
