//! A step's waits: its requests to people, which are closed with the execution, and moments and events.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use serde_json::{Value, json};

use super::{draft::Draft, phases, status, timers, view};
use crate::{
    address::AddressKey,
    approval::{Approval, Approver},
    event::EventData,
    i18n::Text,
    ids::SignatureRequestId,
    observe::{AuditDraft, LogLevel, actions},
    run::{
        Awaited, AwaitedThing, InvalidTransition, Phase, SignatureState, Status, StepState,
        WaitKind,
    },
    signature::{NewSignatureRequest, RequestStatus, SignatureRequest, Signer, SignerStatus},
    workflow::{
        Wait,
        handler::{NewApproval, NewEventWait},
    },
};

/// Starts the step's wait.
pub(super) fn begin(
    draft: &mut Draft<'_>,
    index: usize,
    wait: Wait,
) -> Result<(), InvalidTransition> {
    match wait {
        Wait::Signatures(request) => {
            signatures_requested(draft, index, request);
            Ok(())
        }
        Wait::Approval(request) => approval_requested(draft, index, request),
        Wait::Until(moment) => {
            let awaited = Awaited {
                what: AwaitedThing::Timer,
                until: Some(moment),
                is_over: moment <= draft.clock,
                payload: Arc::default(),
            };
            await_something(draft, index, awaited);
            Ok(())
        }
        Wait::Event(NewEventWait {
            name,
            key,
            expires_at,
        }) => {
            let awaited = Awaited {
                what: AwaitedThing::Event { name, key },
                until: expires_at,
                is_over: false,
                payload: Arc::default(),
            };
            await_something(draft, index, awaited);
            Ok(())
        }
    }
}

fn signatures_requested(draft: &mut Draft<'_>, index: usize, new: NewSignatureRequest) {
    let node = draft.node(index);
    let signers: Vec<_> = new
        .signers
        .iter()
        .map(|signer| signer.email.clone())
        .collect();
    let follow_up = timers::first_follow_up(&new, draft.clock, draft.env.signature_check_ms);
    let request = SignatureRequest {
        id: SignatureRequestId(draft.new_id()),
        execution_id: draft.execution().id,
        organization_id: draft.execution().organization_id,
        node_id: node.id.clone(),
        provider: new.provider,
        envelope_id: new.envelope_id,
        status: RequestStatus::Signing,
        signers: new.signers.into_iter().map(unsigned).collect(),
        file: new.file,
        created_at: draft.now,
        expires_at: new.expires_at,
        completed_at: None,
        details: new.details,
        follow_up,
        unreadable: false,
    };
    draft.edit_step(index).state = StepState::Waiting;
    draft.edit().signature_state = SignatureState::Signing;
    draft.event(EventData::SignatureRequested {
        signature_request_id: request.id,
        envelope_id: request.envelope_id.clone(),
        provider: request.provider.clone(),
        signers: signers.clone(),
    });
    let facts = json!({"provider": request.provider, "envelope_id": request.envelope_id, "signers": signers});
    draft.audit(
        AuditDraft::new(actions::SIGNATURE_REQUESTED, facts).on("signature_request", request.id),
    );
    let text = Text::key("log-signature-requested").with("count", signers.len());
    draft.log_step(LogLevel::Ok, &node, text, None);
    *draft.edit_signature() = Some(request);
    if view::is_stopped(draft.state()) {
        // The handler has returned, and the execution now waits for a person to resume it.
        phases::rest(draft);
    } else {
        await_signatures(draft);
    }
}

fn unsigned(signer: crate::signature::NewSigner) -> Signer {
    Signer {
        email: signer.email,
        name: signer.name,
        order: signer.order,
        status: SignerStatus::Pending,
        viewed_at: None,
        signed_at: None,
        declined_at: None,
        reason: None,
    }
}

/// Starts the step's wait for a moment or an event. If the event has arrived before, the step takes it.
fn await_something(draft: &mut Draft<'_>, index: usize, awaited: Awaited) {
    let mut events = draft.state().inputs.events.iter();
    let arrived = events.position(|it| awaited.is_met_by(&it.name, it.key.as_deref()));
    let is_over = awaited.is_over;
    let step = draft.edit_step(index);
    step.state = StepState::Waiting;
    step.awaits = Some(awaited);
    if let Some(place) = arrived {
        let event = draft.edit_inputs().events.remove(place);
        resume_waiting(draft, index, event.payload, "event");
    } else if is_over {
        resume_waiting(draft, index, Arc::default(), "timer");
    } else if view::is_stopped(draft.state()) {
        phases::rest(draft);
    } else {
        await_again(draft);
        let node = draft.node(index);
        let waiting_for = draft.execution().waiting_for.clone().map(Box::new);
        draft.event(EventData::StepWaiting {
            node_id: node.id.clone(),
            node_type: Arc::clone(&node.node_type),
            waiting_for,
        });
        let text = Text::key("log-step-waiting").with("label", &node.label);
        draft.log_step(LogLevel::Ok, &node, text, None);
    }
}

/// Lets a step continue after its wait for a moment or an event.
pub(super) fn resume_waiting(
    draft: &mut Draft<'_>,
    index: usize,
    payload: Arc<Value>,
    reason: &'static str,
) {
    let node = draft.node(index);
    // While people have stopped the execution, its wait is for them.
    if !view::is_stopped(draft.state()) {
        status::end_wait(draft);
        phases::work(draft, node.phase);
    }
    let step = draft.edit_step(index);
    step.state = StepState::Resuming;
    if let Some(awaited) = &mut step.awaits {
        awaited.is_over = true;
        awaited.payload = payload;
    }
    draft.event(EventData::StepResumed {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        reason: Cow::Borrowed(reason),
    });
    let text = Text::key("log-step-continues").with("label", &node.label);
    draft.log_step(LogLevel::Ok, &node, text, None);
}

/// Records what the waiting step waits for, after the execution was stopped or its signers changed.
pub(super) fn await_again(draft: &mut Draft<'_>) {
    let Some(index) = view::waiting_step(draft.state()) else {
        return;
    };
    let Some(awaited) = draft.state().steps[index].awaits.as_ref() else {
        await_signatures(draft);
        return;
    };
    let kind = match awaited.what {
        AwaitedThing::Timer => WaitKind::Timer,
        AwaitedThing::Event { .. } => WaitKind::Event,
    };
    let (until, detail) = (awaited.until, awaited.detail());
    status::wait(draft, kind, until, detail);
}

/// Records that the execution waits for the signatures that are still missing, if any.
pub(super) fn await_signatures(draft: &mut Draft<'_>) {
    let waits = view::waiting_step(draft.state()).is_some();
    let Some(request) = draft
        .state()
        .signature
        .as_ref()
        .filter(|r| waits && r.status == RequestStatus::Signing)
    else {
        return;
    };
    let open: Vec<_> = request
        .signers
        .iter()
        .filter(|s| s.status != SignerStatus::Signed)
        .map(|s| s.email.clone())
        .collect();
    let detail =
        json!({"signature_request_id": request.id, "provider": request.provider, "signers": open});
    let until = request.expires_at;
    // A report that changes the awaited signers does not restart the wait.
    if let Some(waiting) = draft
        .edit()
        .waiting_for
        .as_mut()
        .filter(|w| w.kind == WaitKind::Signature)
    {
        waiting.detail = detail;
    } else {
        status::wait(draft, WaitKind::Signature, until, detail);
    }
}

fn approval_requested(
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
    let asked = |(email, token_hash)| Approver {
        email,
        token_hash,
        vote: None,
        comment: None,
        voted_at: None,
    };
    let approval = Approval {
        id: new.id,
        execution_id: draft.execution().id,
        organization_id: draft.execution().organization_id,
        node_id: node.id.clone(),
        message: new.message,
        approvers: new.approvers.into_iter().map(asked).collect(),
        quorum: new.quorum,
        decision: None,
        decided_by: None,
        created_at: draft.now,
        decided_at: None,
        expires_at: new.expires_at,
        on_expiry: new.on_expiry,
        unreadable: false,
    };
    draft.edit_step(index).state = StepState::Waiting;
    // If a person has paused the execution meanwhile, the pause now lasts until the approval is decided.
    if draft.execution().status == Status::Paused {
        status::end_wait(draft);
    } else {
        status::change(draft, Status::Paused, "approval")?;
    }
    status::wait(
        draft,
        WaitKind::Approval,
        approval.expires_at,
        detail(&approval),
    );
    draft.event(EventData::ApprovalRequested {
        approval_id: approval.id,
        approvers: emails.clone(),
    });
    let waiting_for = draft.execution().waiting_for.clone().map(Box::new);
    draft.event(EventData::Paused {
        reason: Some("approval".to_owned()),
        waiting_for,
    });
    let facts =
        json!({"approvers": emails, "quorum": approval.quorum, "expires_at": approval.expires_at});
    draft.audit(AuditDraft::new(actions::APPROVAL_REQUESTED, facts).on("approval", approval.id));
    let text = Text::key("log-waiting-approval").with("count", count);
    draft.log_step(LogLevel::Ok, &node, text, None);
    *draft.edit_approval() = Some(approval);
    Ok(())
}

fn detail(approval: &Approval) -> Value {
    let emails = approval.approvers.iter().map(|approver| &approver.email);
    let emails: Vec<_> = emails.collect();
    json!({"approval_id": approval.id, "approvers": emails, "quorum": approval.quorum})
}

/// Returns to the wait for people that was under way when the execution was parked, if there was one.
pub(super) fn await_as_before(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let Some(index) = view::waiting_step(draft.state()) else {
        return Ok(());
    };
    let step = &draft.state().steps[index];
    if step.awaits.is_some() {
        let status = match step.phase {
            Phase::Delivery => Status::Sending,
            Phase::Signature => Status::Signing,
            Phase::Preflight | Phase::Trigger | Phase::Render | Phase::Save => Status::Running,
        };
        if status != Status::Running {
            status::change(draft, Status::Ready, "documents_ready")?;
            status::change(draft, status, "phase")?;
        }
        await_again(draft);
        return Ok(());
    }
    let node = &step.node_id;
    let approval = draft.state().approval.as_ref();
    let approval = approval.filter(|it| it.node_id == *node && it.decided_at.is_none());
    if let Some((until, detail)) = approval.map(|it| (it.expires_at, detail(it))) {
        status::change(draft, Status::Paused, "approval")?;
        status::wait(draft, WaitKind::Approval, until, detail);
    } else {
        status::change(draft, Status::Ready, "documents_ready")?;
        status::change(draft, Status::Signing, "phase")?;
        await_signatures(draft);
    }
    Ok(())
}

/// Closes the open requests to people, because the execution ends.
pub(super) fn close(draft: &mut Draft<'_>) {
    let now = draft.now;
    let is_open = |request: &SignatureRequest| request.status == RequestStatus::Signing;
    if draft.state().signature.as_ref().is_some_and(is_open)
        && let Some(request) = draft.edit_signature()
    {
        request.status = RequestStatus::Canceled;
        request.completed_at = Some(now);
    }
    let is_open = |approval: &Approval| approval.decided_at.is_none();
    if draft.state().approval.as_ref().is_some_and(is_open)
        && let Some(approval) = draft.edit_approval()
    {
        approval.decided_at = Some(now);
    }
}
