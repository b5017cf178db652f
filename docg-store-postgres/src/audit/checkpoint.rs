//! Signed checkpoints. A chain alone does not show that its tail was cut together with its head,
//! nor that somebody who owns the database has made it anew; a signature does, whose key is not in
//! the database.

use std::fmt;

use docg_core::{ids::OrganizationId, ports::StoreError, time::Timestamp};
use ed25519_dalek::{Signer, SigningKey};
use uuid::Uuid;

use super::record::{Checkpoint, Head};
use crate::{
    PgStore,
    codec::{Time, bytes32, field, int, number},
    database::arguments,
    error::{Error, Meaning},
};

/// An Ed25519 key that checkpoints are signed with. Keep its seed where the database's
/// administrators cannot read it.
///
/// ```
/// use docg_store_postgres::CheckpointKey;
///
/// let key = CheckpointKey::from_seed([7; 32]); // 32 random bytes, in earnest
/// let public = key.public_key(); // what verifying needs
/// assert_eq!(public.len(), 32);
/// ```
pub struct CheckpointKey(SigningKey);

impl CheckpointKey {
    /// From the key's 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// What verifying needs.
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

/// A checkpoint that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSummary {
    /// 1, 2, 3 … within the organization.
    pub seq: u64,
    /// How many chains had moved, or were let go, since the one before.
    pub chains: usize,
    /// What was signed. Published elsewhere, it dates the checkpoint.
    pub hash: [u8; 32],
}

/// So many chains go in one checkpoint.
const CHAINS: i64 = 10_000;

impl PgStore {
    /// Signs where an organization's chains have come to, those that have moved since the last
    /// checkpoint, purged executions' too, and which have been let go since; at most 10,000. `None`
    /// where there is none. To be called from time to time, by any
    /// process.
    ///
    /// # Errors
    ///
    /// `Conflict` where another process makes one at the same moment; `Unavailable`.
    pub async fn checkpoint_audit(
        &self,
        organization: OrganizationId,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Option<CheckpointSummary>, StoreError> {
        let made = self.make_checkpoint(organization, key, now).await;
        made.map_err(|e| e.at("checkpoint_audit"))
    }

    async fn make_checkpoint(
        &self,
        organization: OrganizationId,
        key: &CheckpointKey,
        now: Timestamp,
    ) -> Result<Option<CheckpointSummary>, Error> {
        let sql = "(SELECT e.id, e.audit_seq, e.audit_hash FROM docg.executions e
                WHERE e.organization_id = $1 AND NOT e.is_checkpointed
                ORDER BY e.id LIMIT $2)
            UNION ALL
            (SELECT u.execution_id, u.audit_seq, u.audit_hash FROM docg.audit_unsigned u
                WHERE u.organization_id = $1
                ORDER BY u.execution_id LIMIT $2)
            ORDER BY id LIMIT $2";
        let rows = self
            .database
            .read(sql, arguments![organization.0, CHAINS])
            .await?;
        let heads: Result<Vec<Head>, Error> = rows
            .iter()
            .map(|row| {
                Ok(Head {
                    execution_id: field::<Uuid>(row, "id")?.into(),
                    audit_seq: number(row, "audit_seq")?,
                    audit_hash: bytes32(row, "audit_hash")?,
                })
            })
            .collect();
        let heads = heads?;
        if heads.is_empty() {
            return Ok(None);
        }
        let sql = "SELECT seq, hash FROM docg.audit_checkpoints
            WHERE organization_id = $1 ORDER BY seq DESC LIMIT 1";
        let last = self.database.read(sql, arguments![organization.0]).await?;
        let (seq, prev_hash) = match last.first() {
            Some(row) => (number::<u64>(row, "seq")? + 1, bytes32(row, "hash")?),
            None => (1, [0; 32]),
        };
        let mut checkpoint = Checkpoint {
            organization_id: organization,
            seq,
            created_at: now,
            prev_hash,
            heads_hash: Checkpoint::hash_of_heads(&heads),
            hash: [0; 32],
            public_key: key.public_key(),
            signature: [0; 64],
            heads,
        };
        checkpoint.hash = checkpoint.computed_hash();
        checkpoint.signature = key.0.sign(&checkpoint.hash).to_bytes();
        self.keep_checkpoint(&checkpoint).await?;
        Ok(Some(CheckpointSummary {
            seq,
            chains: checkpoint.heads.len(),
            hash: checkpoint.hash,
        }))
    }

    async fn keep_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let sql = "WITH heads AS MATERIALIZED (
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
                WHERE u.organization_id = $1 AND u.execution_id = h.id AND u.audit_seq = h.seq)
            UPDATE docg.executions e SET checkpointed = greatest(e.checkpointed, held.seq)
            FROM (
                SELECT x.id, h.seq FROM docg.executions x JOIN heads h ON h.id = x.id
                ORDER BY x.id FOR NO KEY UPDATE OF x
            ) held
            WHERE e.id = held.id";
        let ids: Vec<Uuid> = checkpoint
            .heads
            .iter()
            .map(|head| head.execution_id.0)
            .collect();
        let seqs: Vec<i64> = checkpoint
            .heads
            .iter()
            .map(|head| int(head.audit_seq))
            .collect();
        let hashes: Vec<Vec<u8>> = checkpoint
            .heads
            .iter()
            .map(|head| head.audit_hash.to_vec())
            .collect();
        let parameters = arguments![
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
        ];
        match self.database.write(sql, parameters).await {
            Err(error) if error.meaning() == Some(Meaning::Duplicate) => Err(Error::Conflict(
                "another process has just made this checkpoint".to_owned(),
            )),
            other => other.map(|_| ()),
        }
    }
}
