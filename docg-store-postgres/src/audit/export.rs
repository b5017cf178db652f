//! Reads the audit trail from the database, to verify or to export it.

use std::{collections::BTreeSet, io};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::StoreError,
    time::Timestamp,
};
use sqlx::postgres::{PgArguments, PgRow};
use uuid::Uuid;

use super::{
    record::{Chain, Checkpoint, Head, Record},
    report::{AuditReport, AuditTrust},
    verify::{Heading, Verifier, WHOLE},
};
use crate::{
    PgStore,
    codec::{audit_event, bytes32, field, int, seq, time},
    database::{Snapshot, arguments},
    error::Error,
};

/// The number of chains that one statement reads.
const CHAINS: i64 = 200;

macro_rules! rows_of {
    ($heads:literal) => {
        concat!(
            "SELECT h.execution_id AS chain, h.organization_id AS chain_organization,
                h.audit_seq AS head_seq, h.audit_hash AS head_hash, h.is_purged, h.is_orphaned,
                h.status,
                a.id, a.seq, a.organization_id, a.execution_id, a.timestamp, a.action,
                a.target_type, a.target_id, a.actor_type, a.actor_id, a.metadata::text, a.salt,
                a.commitment, a.prev_hash, a.hash
            FROM (",
            $heads,
            ") h LEFT JOIN docg.audit_events a ON a.execution_id = h.execution_id
            ORDER BY h.execution_id, a.seq"
        )
    };
}

impl PgStore {
    /// Verifies an organization's audit trail, or that of one of its executions: every chain and every
    /// checkpoint.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Corrupt` if the trail could not be read. An error says nothing about its validity.
    pub async fn verify_audit(
        &self,
        organization: OrganizationId,
        execution: Option<ExecutionId>,
        trust: &AuditTrust,
    ) -> Result<AuditReport, StoreError> {
        let mut verifier = Verifier::of(organization, trust, execution);
        let take = |record| {
            verifier.take(record);
            Ok(())
        };
        match self.records(organization, execution, take).await {
            Ok(()) => Ok(verifier.end()),
            Err(error) => Err(error.at("verify_audit")),
        }
    }

    /// Writes an organization's audit trail, or that of one of its executions, as lines of JSON, which
    /// [`verify_audit_export`](crate::verify_audit_export) verifies without a database. The export shows
    /// the trail at one moment: its transaction stays open until everything is written.
    ///
    /// # Errors
    ///
    /// `Invalid` if writing to `out` fails; `Unavailable`, `Corrupt`.
    pub async fn export_audit(
        &self,
        organization: OrganizationId,
        execution: Option<ExecutionId>,
        mut out: impl io::Write + Send,
    ) -> Result<(), StoreError> {
        let of = if execution.is_some() {
            "execution"
        } else {
            WHOLE
        };
        let heading = Heading {
            docg_audit_export: of.to_owned(),
        };
        let written = async {
            write_line(&mut out, &heading)?;
            let write = |record| write_line(&mut out, &record);
            self.records(organization, execution, write).await?;
            out.flush()
                .map_err(|e| Error::Invalid(format!("the export cannot be written: {e}")))
        };
        written.await.map_err(|e| e.at("export_audit"))
    }

    /// The organizations that have executions, audit rows of removed executions, or checkpoints, which
    /// stay even if everything else was removed.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer.
    pub async fn audited_organizations(&self) -> Result<Vec<OrganizationId>, StoreError> {
        let read = async || {
            let mut found: BTreeSet<_> = self.signed_for().await?.into_iter().collect();
            let mut after = Uuid::nil();
            loop {
                let parameters = arguments![None::<Uuid>, after, CHAINS];
                let orphans = self.database.read(ORPHANS, parameters).await?;
                let Some(last) = orphans.last() else { break };
                after = field(last, "execution_id")?;
                for orphan in &orphans {
                    found.insert(OrganizationId(field(orphan, "organization_id")?));
                }
            }
            Ok(found.into_iter().collect())
        };
        read()
            .await
            .map_err(|e: Error| e.at("audited_organizations"))
    }

    /// The organizations that have executions, purged executions, or checkpoints.
    pub(super) async fn signed_for(&self) -> Result<Vec<OrganizationId>, Error> {
        // The query skips from organization to organization in each index, so its cost does not depend on
        // the rows of each.
        let sql = "WITH RECURSIVE live AS (
                (SELECT e.organization_id FROM docg.executions e ORDER BY e.organization_id LIMIT 1)
                UNION ALL
                SELECT (SELECT e.organization_id FROM docg.executions e
                    WHERE e.organization_id > live.organization_id
                    ORDER BY e.organization_id LIMIT 1)
                FROM live WHERE live.organization_id IS NOT NULL),
            old AS (
                (SELECT h.organization_id FROM docg.audit_heads h ORDER BY h.organization_id LIMIT 1)
                UNION ALL
                SELECT (SELECT h.organization_id FROM docg.audit_heads h
                    WHERE h.organization_id > old.organization_id
                    ORDER BY h.organization_id LIMIT 1)
                FROM old WHERE old.organization_id IS NOT NULL),
            signed AS (
                (SELECT c.organization_id FROM docg.audit_checkpoints c
                    ORDER BY c.organization_id LIMIT 1)
                UNION ALL
                SELECT (SELECT c.organization_id FROM docg.audit_checkpoints c
                    WHERE c.organization_id > signed.organization_id
                    ORDER BY c.organization_id LIMIT 1)
                FROM signed WHERE signed.organization_id IS NOT NULL)
            SELECT organization_id FROM live WHERE organization_id IS NOT NULL
            UNION SELECT organization_id FROM old WHERE organization_id IS NOT NULL
            UNION SELECT organization_id FROM signed WHERE organization_id IS NOT NULL
            ORDER BY organization_id";
        let rows = self.database.read(sql, PgArguments::default()).await?;
        let id = |row| Ok(OrganizationId(field(row, "organization_id")?));
        rows.iter().map(id).collect()
    }

    /// The organization that an execution's audit trail belongs to, also after the execution was purged.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer.
    pub async fn audited_organization(
        &self,
        execution: ExecutionId,
    ) -> Result<Option<OrganizationId>, StoreError> {
        // If the execution was removed by force, its audit rows or a checkpoint may still name it.
        let sql = "SELECT e.organization_id FROM docg.executions e WHERE e.id = $1
            UNION SELECT h.organization_id FROM docg.audit_heads h WHERE h.execution_id = $1
            UNION SELECT c.organization_id FROM docg.audit_checkpoint_heads c
                WHERE c.execution_id = $1
            UNION SELECT a.organization_id FROM docg.audit_events a WHERE a.execution_id = $1
            LIMIT 1";
        let read = async || {
            let rows = self.database.read(sql, arguments![execution.0]).await?;
            let id = |row| Ok(OrganizationId(field(row, "organization_id")?));
            rows.first().map(id).transpose()
        };
        read()
            .await
            .map_err(|e: Error| e.at("audited_organization"))
    }

    async fn records(
        &self,
        organization: OrganizationId,
        execution: Option<ExecutionId>,
        mut take: impl FnMut(Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Read everything from one snapshot. Otherwise rows that are purged meanwhile would seem to be
        // missing: the checkpoint that signs their purge may be stored after the checkpoints were read.
        let mut snapshot = self.database.snapshot().await?;
        let mut seq = 0;
        while let Some(checkpoint) = next_checkpoint(&mut snapshot, organization, seq).await? {
            seq = checkpoint.seq;
            take(Record::Checkpoint(checkpoint))?;
        }
        match execution {
            Some(id) => chains(&mut snapshot, organization, &[id.0], &mut take).await?,
            None => all_chains(&mut snapshot, organization, &mut take).await?,
        }
        snapshot.end().await
    }
}

/// Reads the chains of existing executions, then of purged ones, then of executions that were removed
/// without a purge.
async fn all_chains(
    snapshot: &mut Snapshot,
    organization: OrganizationId,
    take: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after = Uuid::nil();
    loop {
        // The statement looks up `created_at` of the last execution itself, because this program may be
        // unable to decode it.
        let sql = "SELECT e.id FROM docg.executions e
            WHERE e.organization_id = $1 AND (e.created_at, e.id) > (coalesce(
                (SELECT x.created_at FROM docg.executions x WHERE x.id = $2), '-infinity'), $2)
            ORDER BY e.created_at, e.id LIMIT $3";
        let parameters = arguments![organization.0, after, CHAINS];
        let rows = snapshot.read(sql, parameters).await?;
        let Some(last) = rows.last() else { break };
        after = field(last, "id")?;
        let ids: Result<Vec<Uuid>, Error> = rows.iter().map(|row| field(row, "id")).collect();
        chains(snapshot, organization, &ids?, take).await?;
    }
    let mut after = Uuid::nil();
    loop {
        let sql = "SELECT h.execution_id FROM docg.audit_heads h
            WHERE h.organization_id = $1 AND h.execution_id > $2
            ORDER BY h.execution_id LIMIT $3";
        let parameters = arguments![organization.0, after, CHAINS];
        let rows = snapshot.read(sql, parameters).await?;
        let Some(last) = rows.last() else { break };
        after = field(last, "execution_id")?;
        let ids: Result<Vec<Uuid>, Error> =
            rows.iter().map(|row| field(row, "execution_id")).collect();
        chains(snapshot, organization, &ids?, take).await?;
    }
    let mut after = Uuid::nil();
    loop {
        let parameters = arguments![Some(organization.0), after, CHAINS];
        let rows = snapshot.read(ORPHANS, parameters).await?;
        let Some(last) = rows.last() else { break };
        after = field(last, "execution_id")?;
        let ids: Result<Vec<Uuid>, Error> =
            rows.iter().map(|row| field(row, "execution_id")).collect();
        chains(snapshot, organization, &ids?, take).await?;
    }
    Ok(())
}

/// The query for executions that have audit rows but neither exist nor were purged, of one organization or
/// of all. It skips from execution to execution in the index, so its cost does not depend on the rows of
/// each.
pub(super) const ORPHANS: &str = "WITH RECURSIVE trail AS (
        (SELECT a.execution_id, a.organization_id FROM docg.audit_events a
            WHERE a.execution_id > $2 ORDER BY a.execution_id LIMIT 1)
        UNION ALL
        SELECT next.execution_id, next.organization_id FROM trail CROSS JOIN LATERAL (
            SELECT a.execution_id, a.organization_id FROM docg.audit_events a
            WHERE a.execution_id > trail.execution_id ORDER BY a.execution_id LIMIT 1) next)
    SELECT t.execution_id, t.organization_id FROM trail t
    WHERE ($1::uuid IS NULL OR t.organization_id = $1)
        AND NOT EXISTS (SELECT FROM docg.executions e WHERE e.id = t.execution_id OFFSET 0)
        AND NOT EXISTS (
            SELECT FROM docg.audit_heads h WHERE h.execution_id = t.execution_id OFFSET 0)
    LIMIT $3";

/// Reads the chains of these executions, each with its rows.
pub(super) async fn chains(
    snapshot: &mut Snapshot,
    organization: OrganizationId,
    ids: &[Uuid],
    take: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let sql = rows_of!(
        "SELECT e.id AS execution_id, e.organization_id, e.audit_seq, e.audit_hash,
            false AS is_purged, false AS is_orphaned, e.status
         FROM docg.executions e WHERE e.id = ANY ($2) AND e.organization_id = $1
         UNION ALL
         SELECT o.execution_id, o.organization_id, o.audit_seq, o.audit_hash,
            EXISTS (SELECT FROM docg.audit_purges p WHERE p.execution_id = o.execution_id),
            false, NULL
         FROM docg.audit_heads o
         WHERE o.execution_id = ANY ($2) AND o.organization_id = $1
         UNION ALL
         SELECT last.* FROM unnest($2::uuid[]) AS u (id) CROSS JOIN LATERAL (
            SELECT r.execution_id, r.organization_id, r.seq, r.hash, false, true, NULL
            FROM docg.audit_events r
            WHERE r.execution_id = u.id AND r.organization_id = $1
            ORDER BY r.seq DESC LIMIT 1) last
         WHERE NOT EXISTS (SELECT FROM docg.executions e WHERE e.id = u.id)
            AND NOT EXISTS (SELECT FROM docg.audit_heads o WHERE o.execution_id = u.id)"
    );
    let parameters = arguments![organization.0, ids.to_vec()];
    let mut current = None;
    for row in snapshot.read(sql, parameters).await? {
        let id: Uuid = field(&row, "chain")?;
        if current != Some(id) {
            current = Some(id);
            take(Record::Chain(chain(&row)?))?;
        }
        if field::<Option<Uuid>>(&row, "id")?.is_some() {
            take(Record::Event(audit_event(&row)?.into()))?;
        }
    }
    Ok(())
}

async fn next_checkpoint(
    snapshot: &mut Snapshot,
    organization: OrganizationId,
    after: u64,
) -> Result<Option<Checkpoint>, Error> {
    let sql = "SELECT c.seq, c.created_at, c.prev_hash, c.heads_hash, c.hash, c.public_key,
            c.signature
        FROM docg.audit_checkpoints c
        WHERE c.organization_id = $1 AND c.seq > $2 ORDER BY c.seq LIMIT 1";
    let parameters = arguments![organization.0, int(after)];
    let rows = snapshot.read(sql, parameters).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let seq = seq(row, "seq")?;
    let sql = "SELECT h.execution_id, h.audit_seq, h.audit_hash
        FROM docg.audit_checkpoint_heads h
        WHERE h.organization_id = $1 AND h.checkpoint_seq = $2 ORDER BY h.execution_id";
    let parameters = arguments![organization.0, int(seq)];
    let heads = snapshot.read(sql, parameters).await?;
    let heads: Result<Vec<Head>, Error> = heads.iter().map(head).collect();
    let signature: &[u8] = field(row, "signature")?;
    // A value that cannot be read becomes zeros. Verifying then reports that the checkpoint does not match
    // its signature.
    Ok(Some(Checkpoint {
        organization_id: organization,
        seq,
        created_at: time(row, "created_at").unwrap_or(Timestamp::from_millis(0)),
        prev_hash: bytes32(row, "prev_hash").unwrap_or_default(),
        heads_hash: bytes32(row, "heads_hash").unwrap_or_default(),
        hash: bytes32(row, "hash").unwrap_or_default(),
        public_key: bytes32(row, "public_key").unwrap_or_default(),
        signature: signature.try_into().unwrap_or([0; 64]),
        heads: heads?,
    }))
}

pub(super) fn head(row: &PgRow) -> Result<Head, Error> {
    Ok(Head {
        execution_id: field::<Uuid>(row, "execution_id")?.into(),
        audit_seq: seq(row, "audit_seq")?,
        audit_hash: bytes32(row, "audit_hash")?,
    })
}

fn chain(row: &PgRow) -> Result<Chain, Error> {
    Ok(Chain {
        organization_id: field::<Uuid>(row, "chain_organization")?.into(),
        head: Head {
            execution_id: field::<Uuid>(row, "chain")?.into(),
            audit_seq: seq(row, "head_seq")?,
            // A hash that cannot be read becomes zeros, which is no row's hash, so the chain is not valid.
            audit_hash: bytes32(row, "head_hash").unwrap_or_default(),
        },
        is_purged: field(row, "is_purged")?,
        is_orphaned: field(row, "is_orphaned")?,
        status: field(row, "status")?,
    })
}

fn write_line(out: &mut impl io::Write, record: &impl serde::Serialize) -> Result<(), Error> {
    let fails =
        |e: &dyn std::fmt::Display| Error::Invalid(format!("the export cannot be written: {e}"));
    serde_json::to_writer(&mut *out, record).map_err(|e| fails(&e))?;
    out.write_all(b"\n").map_err(|e| fails(&e))
}
