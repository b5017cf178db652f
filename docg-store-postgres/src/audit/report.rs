//! What verifying is given, and what it shows.

use std::collections::HashMap;

use docg_core::ids::{ExecutionId, OrganizationId};

/// What an audit trail is held against: what is known of it from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct AuditTrust {
    pub(super) keys: Vec<[u8; 32]>,
    pub(super) checkpoints: HashMap<OrganizationId, (u64, [u8; 32])>,
}

impl AuditTrust {
    /// The public keys that checkpoints may be signed with.
    #[must_use]
    pub fn keys(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            checkpoints: HashMap::new(),
        }
    }

    /// Also requires an organization's checkpoint of this number and hash: the last that is known to
    /// have been made. Without it nothing shows that the last checkpoints were removed.
    #[must_use]
    pub fn checkpoint(mut self, organization: OrganizationId, seq: u64, hash: [u8; 32]) -> Self {
        self.checkpoints.insert(organization, (seq, hash));
        self
    }
}

/// What verifying an audit trail has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// How many executions' chains there are.
    pub chains: u64,
    /// How many rows they have.
    pub rows: u64,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many rows no checkpoint covers yet: nothing shows if they are cut off together with their head.
    pub unsigned: u64,
    /// How many chains have no rows any more, because their time was over.
    pub purged: u64,
    /// Where the last chain ends: its last row's number and hash.
    pub head: Option<(u64, [u8; 32])>,
    /// All that does not hold.
    pub faults: Vec<AuditFault>,
}

impl AuditReport {
    /// Whether all of it holds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    /// Adds what verifying another organization's trail has shown.
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

/// A place where an audit trail does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// A row was changed, removed, moved or added.
    #[error("the chain of execution {execution_id} breaks at {seq}")]
    Chain {
        /// Whose chain.
        execution_id: ExecutionId,
        /// Where it shows; of a cut tail, the first that is missing.
        seq: u64,
    },
    /// There are rows of an execution that is not there, though nobody purged it.
    #[error("execution {execution_id} has audit rows, and is neither there nor purged")]
    Orphaned {
        /// Whose chain.
        execution_id: ExecutionId,
    },
    /// An execution has another status than its chain leaves it in.
    #[error("execution {execution_id} does not have the status that row {seq} of its chain tells")]
    Status {
        /// Whose chain.
        execution_id: ExecutionId,
        /// The row that tells the status.
        seq: u64,
    },
    /// A chain is not what it was when a checkpoint was signed.
    #[error(
        "the chain of execution {execution_id} is not as checkpoint {checkpoint} has it at {seq}"
    )]
    Rewritten {
        /// Whose chain.
        execution_id: ExecutionId,
        /// The row that the checkpoint names.
        seq: u64,
        /// Which checkpoint.
        checkpoint: u64,
    },
    /// The rows of a chain are gone, and no checkpoint has signed that their time was over.
    #[error("the rows of execution {execution_id} are gone, and no checkpoint has signed that")]
    NotSigned {
        /// Whose chain.
        execution_id: ExecutionId,
    },
    /// A checkpoint has signed that the rows of a chain were let go, and yet there are some, or a
    /// later checkpoint has signed some.
    #[error(
        "the rows of execution {execution_id} were let go in checkpoint {checkpoint}, and are there"
    )]
    NotLetGo {
        /// Whose chain.
        execution_id: ExecutionId,
        /// Which checkpoint.
        checkpoint: u64,
    },
    /// A checkpoint was changed, or signed with another key.
    #[error("checkpoint {seq} of organization {organization_id} is not signed by a trusted key")]
    Signature {
        /// Whose.
        organization_id: OrganizationId,
        /// Which.
        seq: u64,
    },
    /// A checkpoint that is known to have been made is not there, or is another.
    #[error("checkpoint {seq} of organization {organization_id} was made, and is not there")]
    Missing {
        /// Whose.
        organization_id: OrganizationId,
        /// Which.
        seq: u64,
    },
    /// A checkpoint does not follow the one before.
    #[error("checkpoint {seq} of organization {organization_id} does not follow the one before")]
    Checkpoints {
        /// Whose.
        organization_id: OrganizationId,
        /// Which.
        seq: u64,
    },
}

impl AuditFault {
    /// Whether it only says that no trusted key has signed something: without a key everything that
    /// was signed has this fault, which then says nothing about the trail.
    #[must_use]
    pub fn is_of_signature(&self) -> bool {
        match self {
            Self::Signature { .. } => true,
            Self::Chain { .. }
            | Self::Orphaned { .. }
            | Self::Status { .. }
            | Self::Rewritten { .. }
            | Self::NotSigned { .. }
            | Self::NotLetGo { .. }
            | Self::Missing { .. }
            | Self::Checkpoints { .. } => false,
        }
    }
}
