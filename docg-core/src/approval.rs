//! Approvals: who may decide, and what they have decided.

use serde::{Deserialize, Serialize};

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
