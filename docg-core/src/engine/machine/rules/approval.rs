//! What happens to an approval: votes, the decision, and expiry.

use std::collections::HashSet;

use serde_json::json;

use super::super::{draft::Draft, phases, status, steps, view};
use crate::{
    address::AddressKey,
    approval::{ApprovalStatus, Decision},
    error::{StepFailure, codes},
    event::EventData,
    i18n::Text,
    ids::ApprovalId,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{InvalidTransition, Outcome, Status, StepState},
    time::Timestamp,
    workflow::handler::OnExpiry,
};

/// A vote from the inbox.
pub(in super::super) struct Vote<'v> {
    pub(in super::super) approval_id: ApprovalId,
    pub(in super::super) email: &'v str,
    pub(in super::super) decision: Decision,
    pub(in super::super) comment: Option<&'v String>,
    pub(in super::super) received_at: Timestamp,
}

/// Counts a vote. Returns false if the vote came too late, or its sender is no approver or has voted before.
pub(in super::super) fn voted(
    draft: &mut Draft<'_>,
    vote: Vote<'_>,
) -> Result<bool, InvalidTransition> {
    let now = draft.now;
    let approval = draft.state().approval.as_ref();
    let counts = view::is_stopped(draft.state())
        && approval.is_some_and(|approval| {
            let is_open = approval.status(vote.received_at) == ApprovalStatus::Pending;
            let mut approvers = approval.approvers.iter();
            let has_vote = approvers.any(|it| it.email == vote.email && it.vote.is_none());
            approval.id == vote.approval_id && is_open && has_vote
        });
    if !counts {
        return Ok(false);
    }
    let Some(approval) = draft.edit_approval() else {
        return Ok(false);
    };
    let mut approvers = approval.approvers.iter_mut();
    if let Some(approver) = approvers.find(|it| it.email == vote.email && it.vote.is_none()) {
        approver.vote = Some(vote.decision);
        approver.comment = vote.comment.cloned();
        approver.voted_at = Some(now);
    }
    // A person who was asked at two spellings of an address counts once.
    let agreed = approval
        .approvers
        .iter()
        .filter(|it| it.vote == Some(Decision::Approved))
        .map(|it| AddressKey::of(&it.email))
        .collect::<HashSet<_>>()
        .len();
    let (decided, name) = match vote.decision {
        Decision::Rejected => (true, "rejected"),
        Decision::Approved => (agreed >= approval.quorum as usize, "approved"),
    };
    let facts = json!({"vote": vote.decision, "by": vote.email, "comment": vote.comment, "decides": decided});
    draft.audit(
        AuditDraft::new(actions::APPROVAL_DECIDED, facts)
            .on("approval", vote.approval_id)
            .by(Actor::user(vote.email)),
    );
    let text = Text::key("log-approval-vote")
        .with("email", vote.email)
        .with("decision", name);
    draft.log_run(LogLevel::Ok, text);
    if decided {
        decide(draft, vote.decision, vote.email)?;
    }
    Ok(true)
}

fn decide(draft: &mut Draft<'_>, decision: Decision, by: &str) -> Result<(), InvalidTransition> {
    let now = draft.now;
    let (Some(index), Some(approval)) = (
        view::waiting_step(draft.state()),
        draft.edit_approval().as_mut(),
    ) else {
        return Ok(());
    };
    approval.decision = Some(decision);
    approval.decided_by = Some(by.to_owned());
    approval.decided_at = Some(now);
    let approval_id = approval.id;
    let (name, text) = match decision {
        Decision::Approved => ("approved", Text::key("log-approved")),
        Decision::Rejected => ("rejected", Text::key("log-rejected")),
    };
    draft.event(EventData::ApprovalDecided {
        approval_id,
        decision: name.into(),
        decided_by: by.to_owned(),
    });
    draft.log_run(LogLevel::Ok, text);
    let in_review = draft.execution().status == Status::NeedsReview;
    if !in_review {
        status::end_wait(draft);
    }
    if decision == Decision::Rejected {
        let text = Text::key("error-approval-rejected").with("by", by);
        let failure = StepFailure::fatal(codes::APPROVAL_REJECTED, text);
        return steps::fail(draft, index, failure, Outcome::Decided);
    }
    // End the pause that the approval caused, unless it has ended already.
    if draft.execution().status == Status::Paused
        && let Some(from) = draft.execution().paused_from
    {
        status::change(draft, from, "approval_decided")?;
    }
    if !in_review {
        phases::work(draft, draft.state().steps[index].phase);
    }
    draft.edit_step(index).state = StepState::Resuming;
    Ok(())
}

/// Ends an approval that was not decided in time.
pub(in super::super) fn expired(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let Some(approval) = draft.state().approval.as_ref() else {
        return Ok(());
    };
    let (now, id, on_expiry) = (draft.now, approval.id, approval.on_expiry);
    draft.log_run(LogLevel::Warn, Text::key("log-approval-expired"));
    let audit = |draft: &mut Draft<'_>, vote: &str| {
        let facts = json!({"vote": vote, "by": "expiry"});
        draft.audit(AuditDraft::new(actions::APPROVAL_DECIDED, facts).on("approval", id));
    };
    if on_expiry == OnExpiry::Approve {
        audit(draft, "approved");
        return decide(draft, Decision::Approved, "expiry");
    }
    if let Some(approval) = draft.edit_approval() {
        approval.decided_at = Some(now);
    }
    let Some(index) = view::waiting_step(draft.state()) else {
        return Ok(());
    };
    draft.event(EventData::ApprovalDecided {
        approval_id: id,
        decision: "expired".into(),
        decided_by: "expiry".to_owned(),
    });
    audit(draft, "expired");
    if draft.execution().status != Status::NeedsReview {
        status::end_wait(draft);
    }
    let text = Text::key("error-approval-expired");
    let failure = match on_expiry {
        OnExpiry::Review => StepFailure::review(codes::APPROVAL_EXPIRED, text),
        OnExpiry::Fail | OnExpiry::Approve => StepFailure::fatal(codes::APPROVAL_EXPIRED, text),
    };
    steps::fail(draft, index, failure, Outcome::Decided)
}
