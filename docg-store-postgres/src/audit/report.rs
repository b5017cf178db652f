//! The input and the result of verifying an audit trail.

use std::collections::HashMap;

use docg_core::ids::{ExecutionId, OrganizationId};

/// Facts about an audit trail that were kept outside the database. The trail is verified against them.
#[derive(Debug, Clone, Default)]
pub struct AuditTrust {
    pub(super) keys: Vec<[u8; 32]>,
    pub(super) checkpoints: HashMap<OrganizationId, (u64, [u8; 32])>,
}

impl AuditTrust {
    /// Trusts checkpoints that are signed with one of these public keys.
    #[must_use]
    pub fn keys(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            checkpoints: HashMap::new(),
        }
    }

    /// Also requires that the organization has a checkpoint with this number and hash. Pass the last
    /// checkpoint that is known to have been made: otherwise verifying does not notice if the last
    /// checkpoints were removed.
    #[must_use]
    pub fn checkpoint(mut self, organization: OrganizationId, seq: u64, hash: [u8; 32]) -> Self {
        self.checkpoints.insert(organization, (seq, hash));
        self
    }
}

/// The result of verifying an audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// The number of executions with a chain.
    pub chains: u64,
    /// The number of rows in all chains.
    pub rows: u64,
    /// The number of checkpoints.
    pub checkpoints: u64,
    /// The number of rows that no checkpoint covers yet. If these rows are removed and the chain's head is
    /// changed to match, verifying does not notice.
    pub unsigned: u64,
    /// The number of chains whose rows were purged after their retention time.
    pub purged: u64,
    /// The number and hash of the last row of the chain that was verified last. Meant for reports on one
    /// execution; `None` if no chain was verified.
    pub head: Option<(u64, [u8; 32])>,
    /// The faults found; empty if the trail is valid.
    pub faults: Vec<AuditFault>,
}

impl AuditReport {
    /// True if no fault was found.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds the report on another organization's trail to this one.
    pub fn merge(&mut self, other: Self) {
        self.chains += other.chains;
        self.rows += other.rows;
        self.checkpoints += other.checkpoints;
        self.unsigned += other.unsigned;
        self.purged += other.purged;
        self.head = other.head.or(self.head);
        self.faults.extend(other.faults);
    }
}

/// A fault that makes an audit trail invalid, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// A row was changed, removed, moved or added.
    #[error("the chain of execution {execution_id} breaks at {seq}")]
    Chain {
        /// The execution whose chain breaks.
        execution_id: ExecutionId,
        /// The number of the row at which the chain breaks; if the last rows are missing, of the first
        /// missing row.
        seq: u64,
    },
    /// Audit rows belong to an execution that does not exist and was never purged.
    #[error("execution {execution_id} has audit rows, and is neither there nor purged")]
    Orphaned {
        /// The execution whose rows are orphaned.
        execution_id: ExecutionId,
    },
    /// An execution's status differs from the last status that its chain records.
    #[error("execution {execution_id} does not have the status that row {seq} of its chain tells")]
    Status {
        /// The execution whose status differs.
        execution_id: ExecutionId,
        /// The number of the row that records the last status.
        seq: u64,
    },
    /// A chain differs from its state at the time when a checkpoint was signed.
    #[error(
        "the chain of execution {execution_id} is not as checkpoint {checkpoint} has it at {seq}"
    )]
    Rewritten {
        /// The execution whose chain differs.
        execution_id: ExecutionId,
        /// The number of the row that the checkpoint signed as the chain's last.
        seq: u64,
        /// The number of the checkpoint.
        checkpoint: u64,
    },
    /// A chain's rows are missing, and no checkpoint has signed that they were purged.
    #[error("the rows of execution {execution_id} are gone, and no checkpoint has signed that")]
    NotSigned {
        /// The execution whose rows are missing.
        execution_id: ExecutionId,
    },
    /// A checkpoint has signed that a chain's rows were purged, but the chain has rows, or a later
    /// checkpoint has signed rows of it.
    #[error(
        "the rows of execution {execution_id} were purged in checkpoint {checkpoint}, and are there"
    )]
    NotPurged {
        /// The execution whose rows still exist.
        execution_id: ExecutionId,
        /// The number of the checkpoint that signed the purge.
        checkpoint: u64,
    },
    /// A checkpoint was changed, or signed with a key that is not trusted.
    #[error("checkpoint {seq} of organization {organization_id} is not signed by a trusted key")]
    Signature {
        /// The organization of the checkpoint.
        organization_id: OrganizationId,
        /// The number of the checkpoint.
        seq: u64,
    },
    /// The checkpoint that [`AuditTrust::checkpoint`] requires is missing, or has another hash.
    #[error("checkpoint {seq} of organization {organization_id} was made, and is not there")]
    Missing {
        /// The organization of the checkpoint.
        organization_id: OrganizationId,
        /// The number of the checkpoint.
        seq: u64,
    },
    /// A checkpoint does not follow the one before it by number and hash, or comes after a chain in an
    /// export.
    #[error("checkpoint {seq} of organization {organization_id} does not follow the one before")]
    Checkpoints {
        /// The organization of the checkpoint.
        organization_id: OrganizationId,
        /// The number of the checkpoint.
        seq: u64,
    },
}

impl AuditFault {
    /// True if the fault is that a checkpoint has no valid signature by a trusted key. If no key is
    /// trusted, every checkpoint has this fault, and it then says nothing about the trail.
    #[must_use]
    pub fn is_of_signature(&self) -> bool {
        match self {
            Self::Signature { .. } => true,
            Self::Chain { .. }
            | Self::Orphaned { .. }
            | Self::Status { .. }
            | Self::Rewritten { .. }
            | Self::NotSigned { .. }
            | Self::NotPurged { .. }
            | Self::Missing { .. }
            | Self::Checkpoints { .. } => false,
        }
    }
}
