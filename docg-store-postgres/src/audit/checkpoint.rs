//! Signed checkpoints of the audit chains. A hash chain alone does not reveal that its last rows were cut
//! off and its head (the number and hash of its last row) was changed to match, or that the database's
//! owner has rebuilt it. A signature reveals both, because its key is not in the database.

use std::fmt;

use docg_core::{ids::OrganizationId, ports::StoreError, time::Timestamp};
use ed25519_dalek::{Signer, SigningKey};
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::{
    export::head,
    record::{Checkpoint, Head},
};
use crate::{
    PgStore,
    codec::{Time, bytes32, int, number},
    database::arguments,
    error::{Error, Meaning},
};

/// An Ed25519 key that signs checkpoints. Keep its seed where the database's administrators cannot
/// read it.
///
/// ```
/// use docg_store_postgres::CheckpointKey;
///
/// let key = CheckpointKey::from_seed([7; 32]); // in production: 32 random bytes
/// let public = key.public_key(); // needed to verify the trail
/// assert_eq!(public.len(), 32);
/// ```
pub struct CheckpointKey(SigningKey);

impl CheckpointKey {
    /// Makes the key from its 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The public key, with which signatures are verified.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

impl fmt::Debug for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckpointKey({})", hex::encode(self.public_key()))
    }
}

/// The result of making a checkpoint. Keep its number and hash outside the database: with both, verifying
/// notices that the checkpoint was removed. See [`AuditTrust::checkpoint`](crate::AuditTrust::checkpoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// The organization whose trail was signed.
    pub organization_id: OrganizationId,
    /// The checkpoint's number within the organization: 1, 2, 3 …
    pub seq: u64,
    /// The number of chains that the checkpoint signs: they have grown since the previous checkpoint, or
    /// were purged.
    pub chains: usize,
    /// The checkpoint's hash, which was signed.
    pub hash: [u8; 32],
}

impl From<&Checkpoint> for CheckpointSummary {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            organization_id: checkpoint.organization_id,
            seq: checkpoint.seq,
            chains: checkpoint.heads.len(),
            hash: checkpoint.hash,
        }
    }
}

/// The maximum number of chains in one checkpoint.
const CHAINS: usize = 10_000;

/// The maximum number of attempts to store a checkpoint whose number other processes keep taking.
pub(super) const ATTEMPTS: u32 = 5;

/// The statement that stores a checkpoint and marks its chains as signed. [`parameters_of`] makes its
/// parameters.
pub(super) const KEEP: &str = "WITH heads AS MATERIALIZED (
        SELECT h.id, h.seq, h.hash
        FROM unnest($9::uuid[], $10::int8[], $11::bytea[]) AS h (id, seq, hash)),
    made AS (
        INSERT INTO docg.audit_checkpoints (organization_id, seq, created_at, prev_hash,
            heads_hash, hash, public_key, signature)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)),
    kept AS (
        INSERT INTO docg.audit_checkpoint_heads (organization_id, checkpoint_seq,
            execution_id, audit_seq, audit_hash)
        SELECT $1, $2, h.id, h.seq, h.hash FROM heads h),
    signed AS (
        DELETE FROM docg.audit_unsigned u USING heads h
        WHERE u.organization_id = $1 AND u.execution_id = h.id)
    UPDATE docg.executions e SET checkpointed = greatest(e.checkpointed, held.seq)
    FROM (
        SELECT x.id, h.seq FROM docg.executions x JOIN heads h ON h.id = x.id
        ORDER BY x.id FOR NO KEY UPDATE OF x
    ) held
    WHERE e.id = held.id";

impl PgStore {
    /// Makes a checkpoint: signs the last row of each chain of an organization that has grown since its
    /// last checkpoint, also of purged executions; at most 10,000 chains. Returns `None` if no chain has
    /// grown. Call this regularly, from any process.
    ///
    /// # Errors
    ///
    /// `Conflict` if other processes keep making checkpoints; `Unavailable` if the database does not answer.
    pub async fn checkpoint_audit(
        &self,
        organization: OrganizationId,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Option<CheckpointSummary>, StoreError> {
        let mut attempt = 1;
        loop {
            match self.make_checkpoint(organization, key, now).await {
                // Another process was faster. Its checkpoint covers most of the same chains; try to sign
                // the rest.
                Err(Error::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
                made => return made.map_err(|e| e.at("checkpoint_audit")),
            }
        }
    }

    /// Makes checkpoints for all organizations, as many for each as it needs, as
    /// [`checkpoint_audit`](Self::checkpoint_audit) does. Calls `made` with each checkpoint once it is
    /// stored. Returns the organizations that failed, with their errors; a failure does not stop the other
    /// organizations.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the organizations cannot be listed.
    pub async fn checkpoint_audits(
        &self,
        key: &CheckpointKey,
        now: Timestamp,
        mut made: impl FnMut(CheckpointSummary) + Send,
    ) -> Result<Vec<(OrganizationId, StoreError)>, StoreError> {
        let mut failed = Vec::new();
        let organizations = self.signed_for().await;
        for organization in organizations.map_err(|e| e.at("checkpoint_audits"))? {
            // Stop after a checkpoint that is not full. On a busy system some chains have always grown
            // again; they are left to the next call.
            let mut is_full = true;
            while is_full {
                match self.checkpoint_audit(organization, key, now).await {
                    Ok(checkpoint) => {
                        is_full = checkpoint.is_some_and(|it| it.chains == CHAINS);
                        checkpoint.into_iter().for_each(&mut made);
                    }
                    Err(error) => {
                        failed.push((organization, error));
                        break;
                    }
                }
            }
        }
        Ok(failed)
    }

    async fn make_checkpoint(
        &self,
        organization: OrganizationId,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Option<CheckpointSummary>, Error> {
        // Read the last checkpoint before the chains. If another process stores a checkpoint meanwhile,
        // this checkpoint has the same number and is refused.
        let last = self.last_checkpoint(organization).await?;
        // The role that serves may write to `audit_unsigned`, but cannot change a row of `audit_heads`. So
        // `audit_unsigned` only says which purged executions to sign; what is signed comes from
        // `audit_heads`. Chains in `audit_purges` are left out: `purge_audit` signs their removal itself.
        let sql = "(SELECT e.id AS execution_id, e.audit_seq, e.audit_hash FROM docg.executions e
                WHERE e.organization_id = $1 AND NOT e.is_checkpointed AND e.audit_seq > 0
                ORDER BY e.id LIMIT $2)
            UNION ALL
            (SELECT h.execution_id, h.audit_seq, h.audit_hash
                FROM docg.audit_unsigned u
                JOIN docg.audit_heads h ON h.execution_id = u.execution_id
                WHERE u.organization_id = $1 AND h.organization_id = $1 AND h.audit_seq > 0
                    AND NOT EXISTS (
                        SELECT FROM docg.executions e WHERE e.id = u.execution_id)
                    AND NOT EXISTS (
                        SELECT FROM docg.audit_purges p WHERE p.execution_id = u.execution_id)
                ORDER BY u.execution_id LIMIT $2)
            ORDER BY execution_id LIMIT $2";
        let parameters = arguments![organization.0, int(CHAINS as u64)];
        let rows = self.database.read(sql, parameters).await?;
        let heads = rows.iter().map(head).collect::<Result<Vec<Head>, _>>()?;
        if heads.is_empty() {
            return Ok(None);
        }
        let checkpoint = key.sign(organization, last, heads, now);
        let kept = self.database.write(KEEP, parameters_of(&checkpoint)?).await;
        kept.map_err(taken)?;
        Ok(Some(CheckpointSummary::from(&checkpoint)))
    }

    /// The number and hash of an organization's last checkpoint; zeros if there is none.
    pub(super) async fn last_checkpoint(
        &self,
        organization: OrganizationId,
    ) -> Result<(u64, [u8; 32]), Error> {
        let sql = "SELECT c.seq, c.hash FROM docg.audit_checkpoints c
            WHERE c.organization_id = $1 ORDER BY c.seq DESC LIMIT 1";
        let rows = self.database.read(sql, arguments![organization.0]).await?;
        match rows.first() {
            Some(row) => Ok((number(row, "seq")?, bytes32(row, "hash")?)),
            None => Ok((0, [0; 32])),
        }
    }
}

impl CheckpointKey {
    /// Makes and signs the checkpoint after the one with number and hash `last`.
    pub(super) fn sign(
        &self,
        organization_id: OrganizationId,
        last: (u64, [u8; 32]),
        heads: Vec<Head>,
        created_at: Timestamp,
    ) -> Checkpoint {
        let (last, prev_hash) = last;
        let mut checkpoint = Checkpoint {
            organization_id,
            seq: last + 1,
            created_at,
            prev_hash,
            heads_hash: Checkpoint::hash_of_heads(&heads),
            hash: [0; 32],
            public_key: self.public_key(),
            signature: [0; 64],
            heads,
        };
        checkpoint.hash = checkpoint.computed_hash();
        checkpoint.signature = self.0.sign(&checkpoint.hash).to_bytes();
        checkpoint
    }
}

/// The parameters of [`KEEP`].
pub(super) fn parameters_of(checkpoint: &Checkpoint) -> Result<PgArguments, Error> {
    let heads = checkpoint.heads.iter();
    let ids: Vec<Uuid> = heads.clone().map(|head| head.execution_id.0).collect();
    let seqs: Vec<i64> = heads.clone().map(|head| int(head.audit_seq)).collect();
    let hashes: Vec<Vec<u8>> = heads.map(|head| head.audit_hash.to_vec()).collect();
    Ok(arguments![
        checkpoint.organization_id.0,
        int(checkpoint.seq),
        Time::from(checkpoint.created_at),
        checkpoint.prev_hash.to_vec(),
        checkpoint.heads_hash.to_vec(),
        checkpoint.hash.to_vec(),
        checkpoint.public_key.to_vec(),
        checkpoint.signature.to_vec(),
        ids,
        seqs,
        hashes,
    ])
}

/// Turns the error of a duplicate checkpoint number into a `Conflict`.
pub(super) fn taken(error: Error) -> Error {
    match error.meaning() {
        Some(Meaning::Duplicate) => {
            Error::Conflict("another process has just made this checkpoint".to_owned())
        }
        _ => error,
    }
}
