//! The audit trail as records, one JSON object a line: first the checkpoints, then each chain's head
//! followed by its rows.

use std::{borrow::Cow, sync::Arc};

use docg_core::{
    ids::{AuditId, ExecutionId, OrganizationId},
    observe::{Actor, ActorType, AuditEvent, JsonText, Target},
    time::Timestamp,
};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    Checkpoint(Checkpoint),
    Chain(Chain),
    Event(EventRecord),
}

/// The head of a chain: the number and hash of its last row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) execution_id: ExecutionId,
    pub(super) audit_seq: u64,
    #[serde(with = "hex")]
    pub(super) audit_hash: [u8; 32],
}

impl Head {
    /// The head that records the purge of a chain's rows. Its number is 0, which no chain with rows has.
    pub(super) fn of_purge(execution_id: ExecutionId) -> Self {
        Self {
            execution_id,
            audit_seq: 0,
            audit_hash: [0; 32],
        }
    }

    pub(super) fn is_purge(&self) -> bool {
        self.audit_seq == 0
    }

    /// True if one of `rows` has this head's number and hash.
    pub(super) fn is_of(&self, rows: &[AuditEvent]) -> bool {
        let index = self.audit_seq.checked_sub(1);
        let row = index.and_then(|index| rows.get(usize::try_from(index).ok()?));
        row.is_some_and(|row| row.hash == self.audit_hash)
    }
}

/// A chain without its rows, which follow as records of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Chain {
    pub(super) organization_id: OrganizationId,
    #[serde(flatten)]
    pub(super) head: Head,
    /// True if the rows were purged after their retention time.
    pub(super) is_purged: bool,
    /// True if the execution neither exists nor was purged. Then no head is stored, and the last row stands
    /// for it.
    #[serde(default)]
    pub(super) is_orphaned: bool,
    /// The execution's status; `None` if the execution does not exist.
    #[serde(default)]
    pub(super) status: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) organization_id: OrganizationId,
    pub(super) seq: u64,
    pub(super) created_at: Timestamp,
    #[serde(with = "hex")]
    pub(super) prev_hash: [u8; 32],
    #[serde(with = "hex")]
    pub(super) heads_hash: [u8; 32],
    #[serde(with = "hex")]
    pub(super) hash: [u8; 32],
    #[serde(with = "hex")]
    pub(super) public_key: [u8; 32],
    #[serde(with = "hex")]
    pub(super) signature: [u8; 64],
    /// The heads of the chains that have grown since the checkpoint before, ordered by execution; a purged
    /// chain's head has zeros.
    pub(super) heads: Vec<Head>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EventRecord {
    id: AuditId,
    seq: u64,
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    timestamp: Timestamp,
    actor_type: ActorType,
    actor_id: Arc<str>,
    action: String,
    target_type: String,
    target_id: String,
    metadata: JsonText,
    salt: Option<Uuid>,
    #[serde(with = "hex")]
    commitment: [u8; 32],
    #[serde(with = "hex")]
    prev_hash: [u8; 32],
    #[serde(with = "hex")]
    hash: [u8; 32],
}

impl From<AuditEvent> for EventRecord {
    fn from(row: AuditEvent) -> Self {
        Self {
            id: row.id,
            seq: row.seq,
            organization_id: row.organization_id,
            execution_id: row.execution_id,
            timestamp: row.timestamp,
            actor_type: row.actor.actor_type,
            actor_id: row.actor.actor_id,
            action: row.action.into_owned(),
            target_type: row.target.kind.into_owned(),
            target_id: row.target.id,
            metadata: row.metadata,
            salt: row.salt,
            commitment: row.commitment,
            prev_hash: row.prev_hash,
            hash: row.hash,
        }
    }
}

impl From<EventRecord> for AuditEvent {
    fn from(record: EventRecord) -> Self {
        Self {
            id: record.id,
            seq: record.seq,
            organization_id: record.organization_id,
            execution_id: record.execution_id,
            timestamp: record.timestamp,
            action: Cow::Owned(record.action),
            target: Target {
                kind: Cow::Owned(record.target_type),
                id: record.target_id,
            },
            actor: Actor {
                actor_type: record.actor_type,
                actor_id: record.actor_id,
            },
            metadata: record.metadata,
            salt: record.salt,
            commitment: record.commitment,
            prev_hash: record.prev_hash,
            hash: record.hash,
        }
    }
}

impl Checkpoint {
    /// The hash over all heads. Each part of a head has a fixed length, so two different lists of heads
    /// never yield the same bytes.
    pub(super) fn hash_of_heads(heads: &[Head]) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix("docg.audit.heads.v1");
        for head in heads {
            hasher.update(head.execution_id.0.as_bytes());
            hasher.update(head.audit_seq.to_be_bytes());
            hasher.update(head.audit_hash);
        }
        hasher.finalize().into()
    }

    /// The hash that is signed, computed from the checkpoint's content.
    pub(super) fn computed_hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix("docg.audit.checkpoint.v1");
        hasher.update(self.organization_id.0.as_bytes());
        hasher.update(self.seq.to_be_bytes());
        hasher.update(self.created_at.as_millis().to_be_bytes());
        hasher.update(self.prev_hash);
        hasher.update(self.heads_hash);
        hasher.finalize().into()
    }

    /// True if the checkpoint's hashes match its content and it is signed with a trusted key.
    pub(super) fn is_signed_by(&self, trusted: &[[u8; 32]]) -> bool {
        let holds = || {
            let key = VerifyingKey::from_bytes(&self.public_key).ok()?;
            let signature = Signature::from_bytes(&self.signature);
            key.verify_strict(&self.hash, &signature).ok()
        };
        self.heads_hash == Self::hash_of_heads(&self.heads)
            && self.hash == self.computed_hash()
            && trusted.contains(&self.public_key)
            && holds().is_some()
    }
}
