//! Signature requests: created, reported on, completed, declined, expired.

use serde_json::json;

use super::{draft::Draft, follow_up, step};
use crate::{
    error::{StepFailure, codes},
    event::EventData,
    i18n::Text,
    ids::SignatureRequestId,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{Activity, InvalidTransition, Outcome, Phase, SignatureState, Status, WaitKind},
    signature::{
        NewSignatureRequest, RequestStatus, SignatureRequest, Signer, SignerChange, SignerFact,
        SignerFactKind, SignerStatus, merge,
    },
};

pub(super) fn requested(draft: &mut Draft<'_>, index: usize, new: NewSignatureRequest) {
    let node = draft.node(index);
    let signers: Vec<_> = new
        .signers
        .iter()
        .map(|signer| signer.email.clone())
        .collect();
    let follow_up = follow_up::begin(draft, &new);
    let request = SignatureRequest {
        id: SignatureRequestId(draft.new_id()),
        execution_id: draft.state.execution.id,
        organization_id: draft.state.execution.organization_id,
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
    draft.step(index).activity = Activity::Waiting;
    draft.state.execution.signature_state = SignatureState::Signing;
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
    draft.state.signature = Some(request);
    draft.signature_changed();
    match draft.state.execution.status {
        // The handler has ended; the run now waits for a person to resume it.
        Status::Paused | Status::NeedsReview => draft.rest_phase(),
        _ => wait_again(draft),
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

/// Waits for the signatures that are still missing, if any.
pub(super) fn wait_again(draft: &mut Draft<'_>) {
    let waits = draft
        .state
        .steps
        .iter()
        .any(|step| step.activity == Activity::Waiting);
    let Some(request) = draft
        .state
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
        .state
        .execution
        .waiting_for
        .as_mut()
        .filter(|w| w.kind == WaitKind::Signature)
    {
        waiting.detail = detail;
    } else {
        draft.wait(WaitKind::Signature, until, detail);
    }
}

/// Merges a provider's report; returns true if its request is still open.
pub(super) fn reported(
    draft: &mut Draft<'_>,
    id: SignatureRequestId,
    facts: &[SignerFact],
    actor: &Actor,
) -> Result<bool, InvalidTransition> {
    if draft.state.execution.status.is_terminal() {
        return Ok(false);
    }
    let Some(request) = draft
        .state
        .signature
        .as_mut()
        .filter(|r| r.id == id && r.status == RequestStatus::Signing)
    else {
        return Ok(false);
    };
    let before = request.clone();
    let changes = merge(request, facts);
    let is_repeat = *request == before;
    warn_of_unconfirmed(draft, facts);
    if is_repeat {
        // A repeat counts as applied and changes nothing.
        return Ok(true);
    }
    draft.signature_changed();
    for change in &changes {
        tell(draft, id, change, actor);
    }
    close(draft, &changes, facts, actor)?;
    Ok(true)
}

/// Logs a warning for each signer whose invitation may not have arrived.
fn warn_of_unconfirmed(draft: &mut Draft<'_>, facts: &[SignerFact]) {
    let Some(index) = waiting_step(draft) else {
        return;
    };
    let node = draft.node(index);
    let is_unconfirmed = |fact: &&SignerFact| fact.kind == SignerFactKind::Unconfirmed;
    for email in facts
        .iter()
        .filter(is_unconfirmed)
        .filter_map(|fact| fact.email.as_ref())
    {
        let text = Text::key("log-invitation-unclear").with("email", email);
        draft.log_step(LogLevel::Warn, &node, text, None);
    }
}

fn tell(draft: &mut Draft<'_>, id: SignatureRequestId, change: &SignerChange, actor: &Actor) {
    let email = change.email.clone();
    let (action, key) = match change.status {
        SignerStatus::Viewed => {
            draft.event(EventData::SignerViewed {
                signature_request_id: id,
                signer_email: email.clone(),
            });
            (actions::SIGNATURE_VIEWED, "log-signer-viewed")
        }
        SignerStatus::Signed => {
            draft.event(EventData::SignerSigned {
                signature_request_id: id,
                signer_email: email.clone(),
                signed_at: change.at,
            });
            (actions::SIGNATURE_SIGNED, "log-signer-signed")
        }
        SignerStatus::Declined => {
            draft.event(EventData::SignerDeclined {
                signature_request_id: id,
                signer_email: email.clone(),
                reason: change.reason.clone(),
            });
            (actions::SIGNATURE_DECLINED, "log-signer-declined")
        }
        SignerStatus::Expired => (actions::SIGNATURE_EXPIRED, "log-signature-expired"),
        SignerStatus::Bounced => ("signature.bounced", "log-signer-bounced"),
        SignerStatus::Pending => return,
    };
    let facts = json!({"signer": email, "at": change.at, "reason": change.reason});
    draft.audit(
        AuditDraft::new(action, facts)
            .on("signature_request", id)
            .by(actor.clone()),
    );
    let level = if change.status >= SignerStatus::Signed || change.status == SignerStatus::Viewed {
        LogLevel::Ok
    } else {
        LogLevel::Warn
    };
    let text = Text::Key {
        key: key.into(),
        params: Vec::new(),
    }
    .with("email", &email);
    if let Some(index) = waiting_step(draft) {
        let node = draft.node(index);
        draft.log_step(level, &node, text, None);
    }
}

/// True if all signatures that a step requested are there, so that the step only has to finish.
pub(super) fn is_signed(draft: &Draft<'_>, index: usize) -> bool {
    let node = &draft.state.steps[index].node_id;
    draft
        .state
        .signature
        .as_ref()
        .is_some_and(|request| request.node_id == *node && request.status == RequestStatus::Signed)
}

fn waiting_step(draft: &Draft<'_>) -> Option<usize> {
    draft
        .state
        .steps
        .iter()
        .position(|step| step.activity == Activity::Waiting)
}

/// Ends the request if its signers have decided it.
fn close(
    draft: &mut Draft<'_>,
    changes: &[SignerChange],
    facts: &[SignerFact],
    actor: &Actor,
) -> Result<(), InvalidTransition> {
    let (now, Some(index)) = (draft.now, waiting_step(draft)) else {
        return Ok(());
    };
    let Some(request) = draft.state.signature.as_mut() else {
        return Ok(());
    };
    let (id, envelope_id) = (request.id, request.envelope_id.clone());
    match request.status {
        RequestStatus::Signing => {
            if !draft.is_stopped() {
                wait_again(draft);
            }
            Ok(())
        }
        RequestStatus::Signed => {
            let signed_at = request
                .signers
                .iter()
                .filter_map(|signer| signer.signed_at)
                .max()
                .unwrap_or(now);
            request.completed_at = Some(signed_at);
            draft.state.execution.signature_state = SignatureState::Signed;
            draft.event(EventData::SignatureCompleted {
                signature_request_id: id,
                envelope_id,
                signed_at,
            });
            let node = draft.node(index);
            draft.log_step(
                LogLevel::Ok,
                &node,
                Text::key("log-signatures-complete"),
                None,
            );
            draft.step(index).activity = Activity::Resuming;
            if !draft.is_stopped() {
                draft.end_wait();
                draft.work_phase(Phase::Signature);
            }
            Ok(())
        }
        RequestStatus::Declined => {
            request.completed_at = Some(now);
            draft.state.execution.signature_state = SignatureState::Declined;
            let text = match changes
                .iter()
                .find(|change| change.status == SignerStatus::Declined)
            {
                Some(change) => why(
                    "error-signature-declined",
                    "error-signature-declined-reason",
                    change.reason.as_deref(),
                )
                .with("email", &change.email),
                None => declined_by_somebody(draft, id, facts, actor),
            };
            let failure = StepFailure::fatal(codes::SIGNATURE_DECLINED, text);
            end_step(draft, index, failure)
        }
        RequestStatus::Expired => expired(draft, actor.clone()),
        RequestStatus::Canceled => {
            let failure = StepFailure::fatal(
                codes::SIGNATURE_CANCELED,
                Text::key("error-signature-canceled"),
            );
            give_up(
                draft,
                RequestStatus::Canceled,
                "log-signature-canceled",
                failure,
                actor.clone(),
            )
        }
    }
}

/// A text with the reason, if one was given.
fn why(without: &'static str, with: &'static str, reason: Option<&str>) -> Text {
    match reason {
        Some(reason) => Text::key(with).with("reason", reason),
        None => Text::key(without),
    }
}

/// Audits a refusal on the request itself, because the provider does not say who refused.
fn declined_by_somebody(
    draft: &mut Draft<'_>,
    id: SignatureRequestId,
    facts: &[SignerFact],
    actor: &Actor,
) -> Text {
    let fact = facts
        .iter()
        .find(|fact| fact.kind == SignerFactKind::Declined && fact.email.is_none());
    let reason = fact.and_then(|fact| fact.reason.clone());
    let at = fact.map(|fact| fact.at);
    let metadata = json!({"signer": null, "at": at, "reason": reason});
    draft.audit(
        AuditDraft::new(actions::SIGNATURE_DECLINED, metadata)
            .on("signature_request", id)
            .by(actor.clone()),
    );
    why(
        "error-signature-declined-somebody",
        "error-signature-declined-somebody-reason",
        reason.as_deref(),
    )
}

/// Ends a request that was not signed in time, as `actor` has found.
pub(super) fn expired(draft: &mut Draft<'_>, actor: Actor) -> Result<(), InvalidTransition> {
    let failure = StepFailure::fatal(
        codes::SIGNATURE_EXPIRED,
        Text::key("error-signature-expired"),
    );
    give_up(
        draft,
        RequestStatus::Expired,
        "log-signature-expired",
        failure,
        actor,
    )
}

/// Ends the request without all signatures.
fn give_up(
    draft: &mut Draft<'_>,
    status: RequestStatus,
    log: &'static str,
    failure: StepFailure,
    actor: Actor,
) -> Result<(), InvalidTransition> {
    let (now, Some(index)) = (draft.now, waiting_step(draft)) else {
        return Ok(());
    };
    let Some(request) = draft.state.signature.as_mut() else {
        return Ok(());
    };
    request.status = status;
    request.completed_at = Some(now);
    for signer in request
        .signers
        .iter_mut()
        .filter(|signer| signer.status < SignerStatus::Expired)
    {
        signer.status = SignerStatus::Expired;
    }
    let (id, envelope_id, expires_at) =
        (request.id, request.envelope_id.clone(), request.expires_at);
    draft.signature_changed();
    draft.state.execution.signature_state = SignatureState::Expired;
    draft.event(EventData::SignatureExpired {
        signature_request_id: id,
        envelope_id,
        expires_at,
    });
    let facts = json!({"expires_at": expires_at, "status": status});
    draft.audit(
        AuditDraft::new(actions::SIGNATURE_EXPIRED, facts)
            .on("signature_request", id)
            .by(actor),
    );
    let node = draft.node(index);
    let text = Text::Key {
        key: log.into(),
        params: Vec::new(),
    };
    draft.log_step(LogLevel::Warn, &node, text, None);
    end_step(draft, index, failure)
}

fn end_step(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
) -> Result<(), InvalidTransition> {
    if !draft.is_stopped() {
        draft.end_wait();
    }
    step::failed(draft, index, failure, Outcome::Decided)
}
