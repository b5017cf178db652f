//! The two changes that the triggers on the audit trail allow: erasing personal data, and purging rows
//! after their retention time. Both need a role that may change the table. The role that serves requests
//! should not have that right.

use std::collections::BTreeMap;

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    observe::{AuditEvent, verify_chain},
    ports::StoreError,
    time::Timestamp,
};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    checkpoint::{ATTEMPTS, CheckpointKey, CheckpointSummary, KEEP, parameters_of, taken},
    export::{ORPHANS, chains, head},
    record::{Checkpoint, Head, Record},
};
use crate::{
    PgStore,
    codec::{Time, field, int, number},
    database::arguments,
    error::Error,
};

impl PgStore {
    /// Erases actor and facts from each of an execution's audit rows, with the salt that would prove them.
    /// The chain stays valid. Returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the role lacks the right.
    pub async fn erase_audit(
        &self,
        organization: OrganizationId,
        execution: ExecutionId,
    ) -> Result<u64, StoreError> {
        let erase = async {
            let sql = "WITH erased AS (
                    UPDATE docg.audit_events a
                    SET actor_id = NULL, metadata = NULL, salt = NULL
                    WHERE a.execution_id = $1 AND a.organization_id = $2 AND a.salt IS NOT NULL
                    RETURNING a.seq)
                SELECT count(*) AS rows FROM erased";
            let statements = vec![
                (OPEN_DOOR, arguments!["docg.audit_erasure"]),
                (sql, arguments![execution.0, organization.0]),
            ];
            let rows = self.database.transaction(statements).await?;
            rows.first().map_or(Ok(0), |row| number(row, "rows"))
        };
        erase.await.map_err(|e: Error| e.at("erase_audit"))
    }

    /// Deletes the audit rows of at most `limit` executions that were purged or removed by force, if their
    /// last audit row is from before `before`. An organization's rows are deleted in the transaction that
    /// stores the checkpoint which records their purge. Returns these checkpoints; an empty list means that
    /// nothing is left to delete. A chain that is not valid stays.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the role lacks the right; `Conflict` if other processes keep making checkpoints.
    pub async fn purge_audit(
        &self,
        before: Timestamp,
        limit: usize,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Vec<CheckpointSummary>, StoreError> {
        let purged = self.purge_old_chains(before, limit, key, now).await;
        purged.map_err(|e| e.at("purge_audit"))
    }

    async fn purge_old_chains(
        &self,
        before: Timestamp,
        limit: usize,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Vec<CheckpointSummary>, Error> {
        // The chain does not protect `ended_at`, so it only selects candidates; `old_chains` checks the
        // rows. The rows of most heads are purged already. OFFSET 0 makes PostgreSQL check heads one by
        // one, in the index's order.
        let sql = "SELECT h.execution_id, h.organization_id, h.ended_at FROM docg.audit_heads h
            WHERE h.ended_at < $1 AND (h.ended_at, h.execution_id) > ($2, $3)
                AND NOT EXISTS (
                    SELECT FROM docg.audit_purges p WHERE p.execution_id = h.execution_id OFFSET 0)
                AND NOT EXISTS (
                    SELECT FROM docg.executions e WHERE e.id = h.execution_id OFFSET 0)
            ORDER BY h.ended_at, h.execution_id LIMIT $4";
        let mut after = (Time::UNIX_EPOCH, Uuid::nil());
        loop {
            let parameters = arguments![Time::from(before), after.0, after.1, int(limit as u64)];
            let rows = self.database.read(sql, parameters).await?;
            let Some(last) = rows.last() else { break };
            after = (field(last, "ended_at")?, field(last, "execution_id")?);
            let made = self.purge_candidates(&rows, before, key, now).await?;
            if !made.is_empty() {
                return Ok(made);
            }
        }
        // An execution that was removed by force has no row in `audit_heads`; find it by its audit rows.
        let mut after = Uuid::nil();
        loop {
            let parameters = arguments![None::<Uuid>, after, int(limit as u64)];
            let rows = self.database.read(ORPHANS, parameters).await?;
            let Some(last) = rows.last() else {
                return Ok(Vec::new());
            };
            after = field(last, "execution_id")?;
            let made = self.purge_candidates(&rows, before, key, now).await?;
            if !made.is_empty() {
                return Ok(made);
            }
        }
    }

    /// Purges those candidate chains that are valid and old enough.
    async fn purge_candidates(
        &self,
        rows: &[PgRow],
        before: Timestamp,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Vec<CheckpointSummary>, Error> {
        let mut candidates: BTreeMap<OrganizationId, Vec<Uuid>> = BTreeMap::new();
        for row in rows {
            let organization = OrganizationId(field(row, "organization_id")?);
            let ids = candidates.entry(organization).or_default();
            ids.push(field(row, "execution_id")?);
        }
        let mut made = Vec::new();
        for (organization, ids) in candidates {
            let old = self.old_chains(organization, &ids, before).await?;
            if old.is_empty() {
                continue;
            }
            match self.purge_chains(organization, &old, key, now).await {
                Ok(checkpoint) => made.push(checkpoint),
                // Return the checkpoints that were stored. The next call tries this organization again.
                Err(_) if !made.is_empty() => return Ok(made),
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// The heads of those chains that are valid, match their checkpoints, and have a last row from before
    /// `before`.
    async fn old_chains(
        &self,
        organization: OrganizationId,
        ids: &[Uuid],
        before: Timestamp,
    ) -> Result<Vec<Head>, Error> {
        let mut found: Vec<(Head, Vec<AuditEvent>)> = Vec::new();
        let mut take = |record| {
            match record {
                Record::Chain(chain) => found.push((chain.head, Vec::new())),
                Record::Event(row) => {
                    if let Some((_, rows)) = found.last_mut() {
                        rows.push(row.into());
                    }
                }
                Record::Checkpoint(_) => {}
            }
            Ok(())
        };
        let mut snapshot = self.database.snapshot().await?;
        chains(&mut snapshot, organization, ids, &mut take).await?;
        let sql = "SELECT c.execution_id, c.audit_seq, c.audit_hash
            FROM docg.audit_checkpoint_heads c
            WHERE c.execution_id = ANY ($1) AND c.organization_id = $2";
        let parameters = arguments![ids.to_vec(), organization.0];
        let signed = snapshot.read(sql, parameters).await?;
        snapshot.end().await?;
        let signed = signed.iter().map(head).collect::<Result<Vec<Head>, _>>()?;
        let mut old = Vec::new();
        for (end, rows) in found {
            let id = end.execution_id;
            let holds = verify_chain(&rows, end.audit_seq, end.audit_hash)
                .fault
                .is_none();
            let mut signed = signed.iter().filter(|head| head.execution_id == id);
            if !holds || !signed.all(|head| head.is_of(&rows)) {
                tracing::warn!(execution_id = %id, "audit rows that do not verify are not removed");
            } else if rows.last().is_some_and(|last| last.timestamp < before) {
                old.push(end);
            }
        }
        Ok(old)
    }

    async fn purge_chains(
        &self,
        organization: OrganizationId,
        ends: &[Head],
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<CheckpointSummary, Error> {
        let heads = ends.iter().map(|end| Head::of_purge(end.execution_id));
        let mut heads: Vec<Head> = heads.collect();
        heads.sort_unstable_by_key(|head| head.execution_id);
        let mut attempt = 1;
        loop {
            let last = self.last_checkpoint(organization).await?;
            let checkpoint = key.sign(organization, last, heads.clone(), now);
            match self.purge_with(&checkpoint, ends).await.map_err(taken) {
                Err(Error::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                done => return done.map(|()| CheckpointSummary::from(&checkpoint)),
            }
        }
    }

    async fn purge_with(&self, checkpoint: &Checkpoint, ends: &[Head]) -> Result<(), Error> {
        // Delete no row beyond the head that was verified. Rows with higher numbers were added since;
        // verifying reports them.
        let sql = "WITH noted AS (
                INSERT INTO docg.audit_purges (execution_id, organization_id, purged_at)
                SELECT o.id, $2, $3 FROM unnest($1::uuid[]) AS o (id))
            DELETE FROM docg.audit_events a
            USING unnest($1::uuid[], $4::int8[]) AS o (id, seq)
            WHERE a.execution_id = o.id AND a.seq <= o.seq";
        let parameters = arguments![
            ends.iter()
                .map(|end| end.execution_id.0)
                .collect::<Vec<Uuid>>(),
            checkpoint.organization_id.0,
            Time::from(checkpoint.created_at),
            ends.iter()
                .map(|end| int(end.audit_seq))
                .collect::<Vec<i64>>(),
        ];
        let statements = vec![
            (OPEN_DOOR, arguments!["docg.audit_retention"]),
            (KEEP, parameters_of(checkpoint)?),
            (sql, parameters),
        ];
        self.database.transaction(statements).await.map(|_| ())
    }
}

/// Makes the triggers on the audit trail allow the named change until the transaction ends.
const OPEN_DOOR: &str = "SELECT set_config($1, 'on', true)";
