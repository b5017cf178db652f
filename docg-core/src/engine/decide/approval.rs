//! Approvals: requested, voted on, expired.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{draft::Draft, step};
use crate::{
    address::AddressKey,
    approval::{Approval, ApprovalStatus, Approver, Decision},
    error::{StepFailure, codes},
    event::EventData,
    i18n::Text,
    ids::ApprovalId,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{Activity, InvalidTransition, Outcome, Status, WaitKind},
    time::Timestamp,
    workflow::handler::{NewApproval, OnExpiry},
};

pub(super) fn requested(
    draft: &mut Draft<'_>,
    index: usize,
    new: NewApproval,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let emails: Vec<_> = new
        .approvers
        .iter()
        .map(|(email, _)| email.clone())
        .collect();
    let people: HashSet<_> = emails.iter().map(|email| AddressKey::of(email)).collect();
    let count = people.len();
    let approval = Approval {
        id: new.id,
        execution_id: draft.state.execution.id,
        organization_id: draft.state.execution.organization_id,
        node_id: node.id.clone(),
        message: new.message,
        approvers: new
            .approvers
            .into_iter()
            .map(|(email, token_hash)| Approver {
                email,
                token_hash,
                vote: None,
                comment: None,
                voted_at: None,
            })
            .collect(),
        quorum: new.quorum,
        decision: None,
        decided_by: None,
        created_at: draft.now,
        decided_at: None,
        expires_at: new.expires_at,
        on_expiry: new.on_expiry,
        unreadable: false,
    };
    draft.step(index).activity = Activity::Waiting;
    // If a person has paused the run meanwhile, the approval takes over the pause.
    if draft.state.execution.status != Status::Paused {
        draft.transition(Status::Paused, "approval")?;
    } else {
        draft.end_wait();
    }
    draft.wait(WaitKind::Approval, approval.expires_at, detail(&approval));
    draft.event(EventData::ApprovalRequested {
        approval_id: approval.id,
        approvers: emails.clone(),
    });
    let waiting_for = draft.state.execution.waiting_for.clone().map(Box::new);
    draft.event(EventData::Paused {
        reason: Some("approval".to_owned()),
        waiting_for,
    });
    let facts =
        json!({"approvers": emails, "quorum": approval.quorum, "expires_at": approval.expires_at});
    draft.audit(AuditDraft::new(actions::APPROVAL_REQUESTED, facts).on("approval", approval.id));
    draft.log_step(
        LogLevel::Ok,
        &node,
        Text::key("log-waiting-approval").with("count", count),
        None,
    );
    draft.state.approval = Some(approval);
    draft.approval_changed();
    Ok(())
}

fn detail(approval: &Approval) -> Value {
    let emails = approval.approvers.iter().map(|approver| &approver.email);
    let emails: Vec<_> = emails.collect();
    json!({"approval_id": approval.id, "approvers": emails, "quorum": approval.quorum})
}

/// Waits again for the execution's approval, if there is one.
pub(super) fn wait_again(draft: &mut Draft<'_>) {
    let Some(approval) = &draft.state.approval else {
        return;
    };
    let (until, detail) = (approval.expires_at, detail(approval));
    draft.wait(WaitKind::Approval, until, detail);
}

/// A vote from the inbox.
pub(super) struct Vote {
    pub(super) approval_id: ApprovalId,
    pub(super) email: String,
    pub(super) decision: Decision,
    pub(super) comment: Option<String>,
    pub(super) received_at: Timestamp,
}

/// Counts a vote. Returns true if it came in time and is the first of one of the approvers.
pub(super) fn voted(draft: &mut Draft<'_>, vote: Vote) -> Result<bool, InvalidTransition> {
    let Vote {
        approval_id: id,
        email,
        decision,
        comment,
        received_at,
    } = vote;
    let now = draft.now;
    if !draft.is_stopped() {
        return Ok(false);
    }
    let Some(approval) = draft
        .state
        .approval
        .as_mut()
        .filter(|a| a.id == id && a.status(received_at) == ApprovalStatus::Pending)
    else {
        return Ok(false);
    };
    let Some(approver) = approval
        .approvers
        .iter_mut()
        .find(|a| a.email == email && a.vote.is_none())
    else {
        return Ok(false);
    };
    approver.vote = Some(decision);
    approver.comment.clone_from(&comment);
    approver.voted_at = Some(now);
    // A person who was asked at two spellings of an address counts once.
    let agreed = approval
        .approvers
        .iter()
        .filter(|a| a.vote == Some(Decision::Approved))
        .map(|a| AddressKey::of(&a.email))
        .collect::<HashSet<_>>()
        .len();
    let decided = match decision {
        Decision::Rejected => true,
        Decision::Approved => agreed >= approval.quorum as usize,
    };
    draft.approval_changed();
    let facts = json!({"vote": decision, "by": email, "comment": comment, "decides": decided});
    let actor = Actor::user(email.as_str());
    draft.audit(
        AuditDraft::new(actions::APPROVAL_DECIDED, facts)
            .on("approval", id)
            .by(actor),
    );
    let decision_text = match decision {
        Decision::Approved => "approved",
        Decision::Rejected => "rejected",
    };
    let text = Text::key("log-approval-vote")
        .with("email", &email)
        .with("decision", decision_text);
    draft.log_run(LogLevel::Ok, text);
    if decided {
        decide(draft, decision, email)?;
    }
    Ok(true)
}

fn decide(draft: &mut Draft<'_>, decision: Decision, by: String) -> Result<(), InvalidTransition> {
    let now = draft.now;
    let Some(index) = draft
        .state
        .steps
        .iter()
        .position(|step| step.activity == Activity::Waiting)
    else {
        return Ok(());
    };
    let Some(approval) = draft.state.approval.as_mut() else {
        return Ok(());
    };
    approval.decision = Some(decision);
    approval.decided_by = Some(by.clone());
    approval.decided_at = Some(now);
    let approval_id = approval.id;
    draft.approval_changed();
    let (name, text) = match decision {
        Decision::Approved => ("approved", Text::key("log-approved")),
        Decision::Rejected => ("rejected", Text::key("log-rejected")),
    };
    draft.event(EventData::ApprovalDecided {
        approval_id,
        decision: name.into(),
        decided_by: by.clone(),
    });
    draft.log_run(LogLevel::Ok, text);
    let in_review = draft.state.execution.status == Status::NeedsReview;
    if !in_review {
        draft.end_wait();
    }
    match decision {
        Decision::Approved => {
            back_to_work(draft)?;
            if !in_review {
                draft.work_phase(draft.state.steps[index].phase);
            }
            draft.step(index).activity = Activity::Resuming;
            Ok(())
        }
        Decision::Rejected => {
            let failure = StepFailure::fatal(
                codes::APPROVAL_REJECTED,
                Text::key("error-approval-rejected").with("by", by),
            );
            step::failed(draft, index, failure, Outcome::Decided)?;
            back_to_work(draft)
        }
    }
}

/// Leaves the pause for the approval, unless the run has already left it.
fn back_to_work(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    match (
        draft.state.execution.status,
        draft.state.execution.paused_from,
    ) {
        (Status::Paused, Some(from)) => draft.transition(from, "approval_decided"),
        _ => Ok(()),
    }
}

/// Ends an approval that was not decided in time.
pub(super) fn expired(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let Some(approval) = draft.state.approval.as_ref() else {
        return Ok(());
    };
    let (id, on_expiry) = (approval.id, approval.on_expiry);
    draft.log_run(LogLevel::Warn, Text::key("log-approval-expired"));
    if on_expiry == OnExpiry::Approve {
        draft.audit(
            AuditDraft::new(
                actions::APPROVAL_DECIDED,
                json!({"vote": "approved", "by": "expiry"}),
            )
            .on("approval", id),
        );
        return decide(draft, Decision::Approved, "expiry".to_owned());
    }
    let now = draft.now;
    if let Some(approval) = draft.state.approval.as_mut() {
        approval.decided_at = Some(now);
    }
    draft.approval_changed();
    let Some(index) = draft
        .state
        .steps
        .iter()
        .position(|step| step.activity == Activity::Waiting)
    else {
        return Ok(());
    };
    draft.event(EventData::ApprovalDecided {
        approval_id: id,
        decision: "expired".into(),
        decided_by: "expiry".to_owned(),
    });
    draft.audit(
        AuditDraft::new(
            actions::APPROVAL_DECIDED,
            json!({"vote": "expired", "by": "expiry"}),
        )
        .on("approval", id),
    );
    if draft.state.execution.status != Status::NeedsReview {
        draft.end_wait();
    }
    let text = Text::key("error-approval-expired");
    let failure = match on_expiry {
        OnExpiry::Review => StepFailure::review(codes::APPROVAL_EXPIRED, text),
        OnExpiry::Fail | OnExpiry::Approve => StepFailure::fatal(codes::APPROVAL_EXPIRED, text),
    };
    step::failed(draft, index, failure, Outcome::Decided)?;
    back_to_work(draft)
}
