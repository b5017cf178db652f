//! Follows up an open signature request: asks its provider for facts whose webhooks may be lost, and has the
//! signers reminded.

use super::super::{
    Checked, Next, Role,
    draft::Draft,
    timers::{awaited_request, next_check},
    view,
};
use crate::{
    i18n::Text,
    observe::LogLevel,
    run::Status,
    signature::{FollowUp, ProviderError},
    time::Timestamp,
    workflow::validate::MAX_PAUSE_MS,
};

/// The pause after the provider first failed to answer, in milliseconds. With each further failure it
/// doubles, up to the usual pause.
const FIRST_PAUSE_MS: u64 = 60_000;

/// If a question to the provider or a reminder is due, returns it in place of a rest.
pub(in super::super) fn before_rest(draft: &mut Draft<'_>, next: Next) -> Next {
    if !matches!(next, Next::Rest) || draft.role != Role::Worker {
        return next;
    }
    let now = draft.clock;
    let paused = draft.execution().status == Status::Paused;
    let Some(request) = awaited_request(draft.state()) else {
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
    // Record the reminder before it is sent. A crash in between loses the reminder, but never sends it twice.
    change(draft, |follow_up| {
        follow_up.remind_at = remind_every_ms.map(|millis| now.plus_millis(millis));
    });
    Next::Remind
}

fn change(draft: &mut Draft<'_>, change: impl FnOnce(&mut FollowUp)) {
    if let Some(request) = draft.edit_signature() {
        change(&mut request.follow_up);
    }
}

/// Records the provider's answer or failure, and the time of the next question about the awaited request.
pub(in super::super) fn checked(draft: &mut Draft<'_>, checked: &Checked) {
    let Some(request) = awaited_request(draft.state()) else {
        // The request was closed while the provider was asked.
        return;
    };
    let (expires_at, failed) = (request.expires_at, request.follow_up.failed_checks);
    let (now, usual) = (draft.clock, draft.env.signature_check_ms);
    match checked {
        Checked::Answered(_) => {
            // Vary the pause, so that requests made together are not all checked together.
            let pause = usual - draft.random() % (usual / 10).max(1);
            change(draft, |follow_up| {
                follow_up.check_at = Some(next_check(now, expires_at, pause));
                follow_up.checked_at = Some(now);
                follow_up.failed_checks = 0;
            });
        }
        Checked::Failed(error) => {
            let pause = FIRST_PAUSE_MS
                .saturating_mul(1 << failed.min(10))
                .min(usual)
                .max(error.retry_after_ms().unwrap_or(0).min(MAX_PAUSE_MS));
            change(draft, |follow_up| {
                follow_up.check_at = Some(next_check(now, expires_at, pause));
                follow_up.failed_checks = failed.saturating_add(1);
            });
            if failed == 0 {
                log(draft, Text::key("log-signature-check-failed"), Some(error));
            }
        }
        Checked::Nobody => change(draft, |follow_up| follow_up.check_at = None),
    }
}

/// Logs the result of a reminder.
pub(in super::super) fn reminded(draft: &mut Draft<'_>, result: Result<(), ProviderError>) {
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
    let Some(index) = view::current(draft.state()) else {
        return;
    };
    let node = draft.node(index);
    let level = match error {
        Some(_) => LogLevel::Warn,
        None => LogLevel::Ok,
    };
    draft.log_step(level, &node, text, error.map(ToString::to_string));
}
