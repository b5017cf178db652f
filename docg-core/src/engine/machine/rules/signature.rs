//! What happens to a signature request: reports, completion, refusal and expiry.

use serde_json::json;

use super::super::{draft::Draft, phases, requests, status, steps, view};
use crate::{
    error::{StepFailure, codes},
    event::EventData,
    i18n::Text,
    ids::SignatureRequestId,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{InvalidTransition, Outcome, Phase, SignatureState, StepState},
    signature::{
        RequestStatus, SignatureRequest, SignerChange, SignerFact, SignerFactKind, SignerStatus,
        merge,
    },
};

/// Merges a provider's report on a request. Returns false if that request is no longer open.
pub(in super::super) fn reported(
    draft: &mut Draft<'_>,
    id: SignatureRequestId,
    facts: &[SignerFact],
    actor: &Actor,
) -> Result<bool, InvalidTransition> {
    if draft.execution().status.is_terminal() {
        return Ok(false);
    }
    let is_open =
        |request: &&SignatureRequest| request.id == id && request.status == RequestStatus::Signing;
    let Some(before) = draft.state().signature.as_ref().filter(is_open) else {
        return Ok(false);
    };
    let mut request = before.clone();
    let changes = merge(&mut request, facts);
    let is_repeat = request == *before;
    warn_of_unconfirmed(draft, facts);
    if is_repeat {
        // A report of known facts counts as applied and changes nothing.
        return Ok(true);
    }
    *draft.edit_signature() = Some(request);
    for change in &changes {
        tell(draft, id, change, actor);
    }
    close(draft, &changes, facts, actor)?;
    Ok(true)
}

/// Logs a warning for each signer whose invitation may not have arrived.
fn warn_of_unconfirmed(draft: &mut Draft<'_>, facts: &[SignerFact]) {
    let Some(index) = view::waiting_step(draft.state()) else {
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
    let text = Text::key(key).with("email", &email);
    if let Some(index) = view::waiting_step(draft.state()) {
        let node = draft.node(index);
        draft.log_step(level, &node, text, None);
    }
}

/// Ends the request if its signers have decided it.
fn close(
    draft: &mut Draft<'_>,
    changes: &[SignerChange],
    facts: &[SignerFact],
    actor: &Actor,
) -> Result<(), InvalidTransition> {
    let (now, Some(index)) = (draft.now, view::waiting_step(draft.state())) else {
        return Ok(());
    };
    let is_stopped = view::is_stopped(draft.state());
    let Some(request) = draft.edit_signature() else {
        return Ok(());
    };
    let (id, envelope_id) = (request.id, request.envelope_id.clone());
    match request.status {
        RequestStatus::Signing => {
            if !is_stopped {
                requests::await_signatures(draft);
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
            draft.edit().signature_state = SignatureState::Signed;
            draft.event(EventData::SignatureCompleted {
                signature_request_id: id,
                envelope_id,
                signed_at,
            });
            let node = draft.node(index);
            let text = Text::key("log-signatures-complete");
            draft.log_step(LogLevel::Ok, &node, text, None);
            draft.edit_step(index).state = StepState::Resuming;
            if !is_stopped {
                status::end_wait(draft);
                phases::work(draft, Phase::Signature);
            }
            Ok(())
        }
        RequestStatus::Declined => {
            request.completed_at = Some(now);
            draft.edit().signature_state = SignatureState::Declined;
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

/// If there is a reason, the text with the key `with` and the reason; else the text with the key `without`.
fn why(without: &'static str, with: &'static str, reason: Option<&str>) -> Text {
    match reason {
        Some(reason) => Text::key(with).with("reason", reason),
        None => Text::key(without),
    }
}

/// Adds an audit row for a refusal by an unknown signer, and returns the error's text. The row's subject is the
/// signature request, because the provider does not say who refused.
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

/// Ends a request that was not signed in time. `actor` is the provider that reported this, or the system.
pub(in super::super) fn expired(
    draft: &mut Draft<'_>,
    actor: Actor,
) -> Result<(), InvalidTransition> {
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
    let (now, Some(index)) = (draft.now, view::waiting_step(draft.state())) else {
        return Ok(());
    };
    let Some(request) = draft.edit_signature() else {
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
    draft.edit().signature_state = SignatureState::Expired;
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
    draft.log_step(LogLevel::Warn, &node, Text::key(log), None);
    end_step(draft, index, failure)
}

fn end_step(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
) -> Result<(), InvalidTransition> {
    if !view::is_stopped(draft.state()) {
        status::end_wait(draft);
    }
    steps::fail(draft, index, failure, Outcome::Decided)
}
