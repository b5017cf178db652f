//! The calls of approvers, who need nothing but the token in their link.

use std::fmt;

use super::{
    control::{Delivery, refusal},
    start::refuse_faults,
};
use crate::{
    approval::{Approval, ApprovalStatus, Decision, token_hash},
    engine::{Engine, EngineError},
    ids::SignalId,
    limits,
    observe::Actor,
    ports::{Signal, SignalKind, StoreErrorKind},
    time::Timestamp,
};

/// An approval, opened by one of its approvers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenApproval {
    /// The approval.
    pub approval: Approval,
    /// The approval's present status.
    pub status: ApprovalStatus,
    /// The e-mail address of the token's approver; empty if it cannot be read.
    pub approver: String,
    /// The name of the workflow whose execution waits; empty if it cannot be read.
    pub workflow_name: String,
}

/// The result of a vote.
#[derive(Debug, Clone)]
pub enum VoteAnswer {
    /// The vote counts. Holds the approval after the vote.
    Counted(Box<OpenApproval>),
    /// The vote is stored, but not yet counted. The worker that holds the execution counts it if the approval
    /// is still open then. Open the approval again to see whether the vote counted.
    Pending,
}

/// A vote that does not count.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VoteRefusal {
    /// Why the vote does not count.
    pub reason: RefusedVote,
    /// The e-mail address of the approver.
    pub approver: String,
    /// The approval in its present state.
    pub approval: Approval,
}

/// Why a vote does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedVote {
    /// The approval was decided before this vote.
    Decided,
    /// This approver had voted before. The approval is still open for the others.
    AlreadyVoted,
    /// The time to decide had expired before this vote.
    Expired,
    /// The execution had ended before this vote.
    Canceled,
}

impl RefusedVote {
    /// The reason's code in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "approval_decided",
            Self::AlreadyVoted => "already_voted",
            Self::Expired => "approval_expired",
            Self::Canceled => "approval_canceled",
        }
    }
}

impl fmt::Display for RefusedVote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Engine {
    /// The approval that a token opens.
    ///
    /// # Errors
    ///
    /// `NotFound` for an unknown token, and for a token whose execution was purged.
    pub async fn approval(&self, token: &str) -> Result<OpenApproval, EngineError> {
        let (approval, approver) = self.find_approval(token).await?;
        self.open(approval, approver).await
    }

    /// Votes as the approver to whom the token belongs. The approver's address and comment go into the audit
    /// trail. The approval is decided by one rejection, or by as many approvals as its quorum.
    ///
    /// # Errors
    ///
    /// `NotFound` as for [`approval`](Self::approval); `VoteRefused` if the vote does not count;
    /// `InvalidInput` if the comment breaks its [limit](crate::limits::COMMENT); `Unreadable` if the
    /// approval or its execution cannot be read.
    pub async fn vote(
        &self,
        token: &str,
        decision: Decision,
        comment: Option<String>,
    ) -> Result<VoteAnswer, EngineError> {
        // A form sends an empty comment if nothing was written.
        let comment = comment
            .map(|comment| comment.trim().to_owned())
            .filter(|comment| !limits::is_blank(comment));
        refuse_faults(limits::COMMENT.of_field(comment.as_deref()))?;
        let (approval, approver) = self.find_approval(token).await?;
        if approval.unreadable {
            let (organization, execution) = (approval.organization_id, approval.execution_id);
            let record = self.execution(organization, execution).await?;
            return Err(refusal(&record.execution, true));
        }
        let now = self.inner.now();
        if let Some(reason) = why_closed(&approval, &approver, now) {
            return Err(refused(reason, approver, approval));
        }
        let (organization, execution) = (approval.organization_id, approval.execution_id);
        let record = self.execution(organization, execution).await?;
        self.check_readable(&record).await?;
        let signal = Signal {
            id: SignalId::new(),
            execution_id: approval.execution_id,
            organization_id: approval.organization_id,
            actor: Actor::user(approver.as_str()),
            received_at: now,
            if_version: None,
            kind: SignalKind::ApprovalVote {
                approval_id: approval.id,
                email: approver,
                decision,
                comment,
            },
        };
        let delivery = self.send(signal).await?;
        if delivery == Delivery::Pending {
            return Ok(VoteAnswer::Pending);
        }
        let (approval, approver) = self.find_approval(token).await?;
        if delivery == Delivery::Ignored {
            // Another vote was faster, or the execution ended.
            let reason = why_closed(&approval, &approver, self.inner.now());
            let reason = reason.unwrap_or(RefusedVote::Canceled);
            return Err(refused(reason, approver, approval));
        }
        let open = self.open(approval, approver).await?;
        Ok(VoteAnswer::Counted(Box::new(open)))
    }

    async fn find_approval(&self, token: &str) -> Result<(Approval, String), EngineError> {
        let hash = token_hash(token);
        let approval = self.inner.store.approval_by_token(hash).await?;
        let found = approval.and_then(|approval| {
            let approver = match approval.approver(hash) {
                Some(approver) => approver.email.clone(),
                None if approval.unreadable => String::new(),
                None => return None,
            };
            Some((approval, approver))
        });
        found.ok_or(EngineError::NotFound("approval"))
    }

    async fn open(
        &self,
        approval: Approval,
        approver: String,
    ) -> Result<OpenApproval, EngineError> {
        let (organization, execution) = (approval.organization_id, approval.execution_id);
        let workflow_name = match self.inner.store.snapshot(organization, execution).await {
            Err(e) if e.kind == StoreErrorKind::Corrupt => String::new(),
            found => {
                let workflow = found?.ok_or(EngineError::NotFound("approval"))?;
                workflow.name.to_string()
            }
        };
        Ok(OpenApproval {
            status: approval.status(self.inner.now()),
            approval,
            approver,
            workflow_name,
        })
    }
}

/// Why an approver cannot vote; `None` if they can.
fn why_closed(approval: &Approval, approver: &str, now: Timestamp) -> Option<RefusedVote> {
    let voted = |email: &str| {
        let mut approvers = approval.approvers.iter();
        approvers.any(|known| known.email == email && known.vote.is_some())
    };
    match approval.status(now) {
        ApprovalStatus::Pending => voted(approver).then_some(RefusedVote::AlreadyVoted),
        ApprovalStatus::Approved | ApprovalStatus::Rejected => Some(RefusedVote::Decided),
        ApprovalStatus::Expired => Some(RefusedVote::Expired),
        ApprovalStatus::Canceled => Some(RefusedVote::Canceled),
    }
}

fn refused(reason: RefusedVote, approver: String, approval: Approval) -> EngineError {
    EngineError::VoteRefused(Box::new(VoteRefusal {
        reason,
        approver,
        approval,
    }))
}
