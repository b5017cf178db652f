//! Follows up an open signature request: asks its provider for facts whose webhooks may be lost, and has the
//! signers reminded.

use super::{Checked, Next, draft::Draft, signature};
use crate::{
    i18n::Text,
    observe::{Actor, LogLevel},
    ports::RunState,
    run::{Activity, InvalidTransition, Status},
    signature::{
        FollowUp, NewSignatureRequest, ProviderError, RequestStatus, SHORTEST_REMINDING_MS,
        SignatureRequest,
    },
    time::Timestamp,
    workflow::validate::MAX_PAUSE_MS,
};

/// The first question comes earlier than the others, because a webhook may arrive before the request is
/// stored.
const FIRST_CHECK_MS: u64 = 5 * 60_000;
/// The first pause after the provider did not answer; it doubles up to the usual one.
const FIRST_PAUSE_MS: u64 = 60_000;
/// How long after its end a request still waits for a provider that does not answer. People may have signed,
/// and a lost webhook must not void their signatures.
const GRACE_MS: u64 = 3_600_000;

/// The follow-up of a new request.
pub(super) fn begin(draft: &Draft<'_>, new: &NewSignatureRequest) -> FollowUp {
    let remind_every_ms = new
        .remind_every_ms
        .map(|millis| millis.max(SHORTEST_REMINDING_MS));
    FollowUp {
        remind_every_ms,
        remind_at: remind_every_ms.map(|millis| draft.clock.plus_millis(millis)),
        check_at: Some(next_check(
            draft.clock,
            new.expires_at,
            draft.env.signature_check_ms.min(FIRST_CHECK_MS),
        )),
        checked_at: None,
        failed_checks: 0,
    }
}

/// The next question comes after a pause, but not after the request's end, so that it is asked before it is
/// given up.
fn next_check(now: Timestamp, expires_at: Option<Timestamp>, pause_ms: u64) -> Timestamp {
    let next = now.plus_millis(pause_ms);
    match expires_at {
        Some(end) if end > now => next.min(end),
        Some(end) => next.min(end.plus_millis(GRACE_MS)),
        None => next,
    }
}

/// The request whose signatures are awaited. `None` while a person reviews the execution, because nothing is
/// done then.
fn open(state: &RunState) -> Option<&SignatureRequest> {
    if state.execution.status == Status::NeedsReview {
        return None;
    }
    let waits = state
        .steps
        .iter()
        .any(|step| step.activity == Activity::Waiting);
    state
        .signature
        .as_ref()
        .filter(|request| waits && request.status == RequestStatus::Signing)
}

/// The time at which the open request is given up.
pub(super) fn given_up_at(state: &RunState) -> Option<Timestamp> {
    let request = open(state)?;
    let end = request.expires_at?;
    let follow_up = &request.follow_up;
    let asked = follow_up.checked_at.is_some_and(|at| at >= end);
    if asked || follow_up.check_at.is_none() {
        return Some(end);
    }
    // Give up only after a failed question. After a long outage on this side, the provider may know of
    // signatures.
    (follow_up.failed_checks > 0).then(|| end.plus_millis(GRACE_MS))
}

/// The time of the next question or reminder for the open request.
pub(super) fn due_at(state: &RunState) -> Option<Timestamp> {
    let follow_up = &open(state)?.follow_up;
    let remind_at = follow_up
        .remind_at
        .filter(|_| state.execution.status != Status::Paused);
    follow_up.check_at.into_iter().chain(remind_at).min()
}

/// The question or reminder that is due, instead of a rest.
pub(super) fn before_rest(draft: &mut Draft<'_>, next: Next) -> Next {
    if !matches!(next, Next::Rest) || !draft.opens_steps {
        return next;
    }
    let now = draft.clock;
    let paused = draft.state.execution.status == Status::Paused;
    let Some(request) = open(&draft.state) else {
        return next;
    };
    let due = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
    let FollowUp {
        check_at,
        remind_at,
        remind_every_ms,
        ..
    } = request.follow_up;
    if due(check_at) {
        return Next::CheckSignatures;
    }
    if paused || !due(remind_at) {
        return next;
    }
    // Record the reminder before it is sent: a crash then loses one, and sends none twice.
    change(draft, |follow_up| {
        follow_up.remind_at = remind_every_ms.map(|millis| now.plus_millis(millis));
    });
    Next::Remind
}

fn change(draft: &mut Draft<'_>, change: impl FnOnce(&mut FollowUp)) {
    if let Some(request) = draft.state.signature.as_mut() {
        change(&mut request.follow_up);
        draft.signature_changed();
    }
}

/// Applies the provider's answer about the open request.
pub(super) fn checked(draft: &mut Draft<'_>, checked: Checked) -> Result<(), InvalidTransition> {
    let Some(request) = open(&draft.state) else {
        // The request was closed while the provider was asked.
        return Ok(());
    };
    let (id, expires_at) = (request.id, request.expires_at);
    let (now, usual) = (draft.clock, draft.env.signature_check_ms);
    match checked {
        Checked::Answered(facts) => {
            // Vary the pause, so that requests made together are not all checked together.
            let pause = usual - draft.random() % (usual / 10).max(1);
            change(draft, |follow_up| {
                follow_up.check_at = Some(next_check(now, expires_at, pause));
                follow_up.checked_at = Some(now);
                follow_up.failed_checks = 0;
            });
            signature::reported(draft, id, &facts, &Actor::system()).map(|_| ())
        }
        Checked::Failed(error) => {
            let failed = request.follow_up.failed_checks;
            let pause = FIRST_PAUSE_MS
                .saturating_mul(1 << failed.min(10))
                .min(usual)
                .max(error.retry_after_ms().unwrap_or(0).min(MAX_PAUSE_MS));
            change(draft, |follow_up| {
                follow_up.check_at = Some(next_check(now, expires_at, pause));
                follow_up.failed_checks = failed.saturating_add(1);
            });
            if failed == 0 {
                log(draft, Text::key("log-signature-check-failed"), Some(&error));
            }
            Ok(())
        }
        Checked::Nobody => {
            change(draft, |follow_up| follow_up.check_at = None);
            Ok(())
        }
    }
}

/// Logs the result of a reminder.
pub(super) fn reminded(draft: &mut Draft<'_>, result: Result<(), ProviderError>) {
    match result {
        Ok(()) => log(draft, Text::key("log-signature-reminded"), None),
        Err(error) => log(
            draft,
            Text::key("log-signature-remind-failed"),
            Some(&error),
        ),
    }
}

fn log(draft: &mut Draft<'_>, text: Text, error: Option<&ProviderError>) {
    let Some(index) = draft.current() else { return };
    let node = draft.node(index);
    let level = match error {
        Some(_) => LogLevel::Warn,
        None => LogLevel::Ok,
    };
    draft.log_step(level, &node, text, error.map(ToString::to_string));
}
