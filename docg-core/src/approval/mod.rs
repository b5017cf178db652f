//! Approvals: requests to people for a decision, with their votes.
//!
//! The approval step gives each approver a token and stores only its hash. Each approver can vote once with
//! the token: see [`Engine::approval`](crate::engine::Engine::approval) and
//! [`Engine::vote`](crate::engine::Engine::vote). The approval is decided once the quorum has approved, or by
//! one refusal. [`node`] makes the handler of the node type; the application decides how tokens are
//! delivered.

mod node;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use node::{ApprovalNotifier, Invitation, node};

use crate::{
    ids::{ApprovalId, ExecutionId, NodeId, OrganizationId},
    time::Timestamp,
    workflow::handler::OnExpiry,
};

/// A decision requested from approvers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// The approval's id.
    pub id: ApprovalId,
    /// The execution that waits for the decision.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that asked for the decision.
    pub node_id: NodeId,
    /// The message to the approvers.
    #[serde(default)]
    pub message: Option<String>,
    /// The approvers.
    pub approvers: Vec<Approver>,
    /// The number of approvals needed. One refusal rejects the request.
    pub quorum: u32,
    /// The decision; `None` while votes are awaited, and if the approval closed without a decision.
    pub decision: Option<Decision>,
    /// The approver who voted last.
    pub decided_by: Option<String>,
    /// When the approval was requested.
    pub created_at: Timestamp,
    /// When the approval was decided, or closed without a decision.
    pub decided_at: Option<Timestamp>,
    /// When the approval expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The consequence if the approval expires.
    pub on_expiry: OnExpiry,
    /// True if some stored data of the approval cannot be read. The fields concerned are empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// A person who may vote on an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approver {
    /// The address that the link went to.
    pub email: String,
    /// SHA-256 of the token in the link.
    pub token_hash: [u8; 32],
    /// The vote; `None` if the approver has not voted.
    pub vote: Option<Decision>,
    /// The comment given with the vote.
    pub comment: Option<String>,
    /// When the approver voted.
    pub voted_at: Option<Timestamp>,
}

/// An approver's vote, or the decision that the votes result in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The vote or decision is in favour.
    Approved,
    /// The vote or decision is against.
    Rejected,
}

impl Decision {
    /// All variants.
    pub const ALL: [Self; 2] = [Self::Approved, Self::Rejected];
}

/// The status of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// Votes are awaited.
    Pending,
    /// The quorum has approved, or the approval expired and its expiry counts as approval.
    Approved,
    /// An approver has rejected.
    Rejected,
    /// The approvers did not decide in time.
    Expired,
    /// The execution ended before there was a decision.
    Canceled,
}

impl ApprovalStatus {
    /// All variants.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Canceled,
    ];
}

impl Approval {
    /// The status at the time `now`. An approval past its expiry counts as expired even before the engine has
    /// handled the expiry: nobody can vote any more.
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

    /// The approvers' comments, one per line; `None` if there are none.
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

/// The SHA-256 of a token. Stores hold this hash instead of the token.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
