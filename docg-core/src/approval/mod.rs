//! Approvals: who may decide, and what they have decided.
//!
//! The step of an approval gives each approver a token, of which only the hash is kept. Whoever has
//! the token may vote once: see [`Engine::approval`](crate::engine::Engine::approval) and
//! [`Engine::vote`](crate::engine::Engine::vote). As many approvals as the quorum decide, or one
//! refusal. [`node`] is the node type, for every way of bringing tokens to people.

mod node;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use node::{ApprovalNotifier, Invitation, node};

use crate::{
    ids::{ApprovalId, ExecutionId, NodeId, OrganizationId},
    time::Timestamp,
    workflow::handler::OnExpiry,
};

/// A decision that people are asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Unique.
    pub id: ApprovalId,
    /// The run that waits for it.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that asked.
    pub node_id: NodeId,
    /// What the approvers are told.
    #[serde(default)]
    pub message: Option<String>,
    /// Who may decide.
    pub approvers: Vec<Approver>,
    /// How many must agree. One refusal decides.
    pub quorum: u32,
    /// The decision; `None` while it is open.
    pub decision: Option<Decision>,
    /// Who decided last.
    pub decided_by: Option<String>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When it is decided without them.
    pub expires_at: Option<Timestamp>,
    /// What an expiry does.
    pub on_expiry: OnExpiry,
    /// Some of what is stored of it cannot be read, and is left empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// One who may decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approver {
    /// Where the link went.
    pub email: String,
    /// SHA-256 of the token in the link.
    pub token_hash: [u8; 32],
    /// Their vote.
    pub vote: Option<Decision>,
    /// What they said with it.
    pub comment: Option<String>,
    /// When they voted.
    pub voted_at: Option<Timestamp>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Approved,
    /// No.
    Rejected,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Approved, Self::Rejected];
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// Votes are awaited.
    Pending,
    /// As many as are needed have agreed, or its expiry counts as that.
    Approved,
    /// An approver has refused.
    Rejected,
    /// No decision came in time.
    Expired,
    /// The run ended before there was a decision.
    Canceled,
}

impl ApprovalStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Canceled,
    ];
}

impl Approval {
    /// Where it stands at a moment. What has run out counts as expired even before the engine has
    /// dealt with it: nobody can vote any more.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> ApprovalStatus {
        let ended = self.decided_at.unwrap_or(now);
        match self.decision {
            Some(Decision::Approved) => ApprovalStatus::Approved,
            Some(Decision::Rejected) => ApprovalStatus::Rejected,
            None if self.expires_at.is_some_and(|at| at <= ended) => ApprovalStatus::Expired,
            None if self.decided_at.is_some() => ApprovalStatus::Canceled,
            None => ApprovalStatus::Pending,
        }
    }

    /// The approver whose link holds this token.
    #[must_use]
    pub fn approver(&self, token_hash: [u8; 32]) -> Option<&Approver> {
        self.approvers
            .iter()
            .find(|approver| approver.token_hash == token_hash)
    }

    /// What the approvers have said, a line for each that said something.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        let comments: Vec<_> = self
            .approvers
            .iter()
            .filter_map(|approver| approver.comment.as_deref())
            .collect();
        (!comments.is_empty()).then(|| comments.join("\n"))
    }
}

/// What is kept of a token.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
