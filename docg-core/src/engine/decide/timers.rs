//! Timers: ends what has expired, and finds the next time at which a resting run needs a worker.

use super::{approval, draft::Draft, follow_up, signature};
use crate::{
    error::{ErrorContext, codes},
    i18n::Text,
    observe::Actor,
    ports::RunState,
    run::{InvalidTransition, Status, WaitKind},
    time::Timestamp,
};

/// The time at which the open approval expires.
fn approval_expiry(state: &RunState) -> Option<Timestamp> {
    state
        .approval
        .as_ref()
        .filter(|approval| approval.decided_at.is_none())?
        .expires_at
}

/// The time at which the review expires.
fn review_expiry(state: &RunState) -> Option<Timestamp> {
    state
        .execution
        .waiting_for
        .as_ref()
        .filter(|waiting| waiting.kind == WaitKind::Review)?
        .until
}

/// Ends the review, approval or signature request that has expired.
pub(super) fn expire(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    if draft.state.execution.status.is_terminal() {
        return Ok(());
    }
    let now = draft.clock;
    let due = move |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
    if due(review_expiry(&draft.state)) {
        let human = Text::key("error-review-expired");
        let error = ErrorContext {
            code: codes::REVIEW_EXPIRED.into(),
            human,
            tech: None,
        };
        return draft.fail("review_expired", error, None);
    }
    if due(approval_expiry(&draft.state)) {
        approval::expired(draft)?;
    }
    if due(follow_up::given_up_at(&draft.state)) {
        signature::expired(draft, Actor::system())?;
    }
    Ok(())
}

/// The next time at which a resting run needs a worker.
pub(super) fn next_wake(state: &RunState, opens_steps: bool, now: Timestamp) -> Option<Timestamp> {
    let execution = &state.execution;
    let people = [
        review_expiry(state),
        approval_expiry(state),
        follow_up::given_up_at(state),
        follow_up::due_at(state),
    ]
    .into_iter()
    .flatten()
    .min();
    if matches!(execution.status, Status::Paused | Status::NeedsReview) {
        return people;
    }
    let waiting = execution.waiting_for.as_ref();
    let retry = waiting
        .filter(|waiting| waiting.kind == WaitKind::Retry)
        .and_then(|waiting| waiting.until);
    let waits_for_people = waiting.is_some_and(|waiting| {
        waiting.kind.is_for_people()
            && !(waiting.kind == WaitKind::Confirmation && execution.delivery_confirmed)
    });
    if retry.is_none() && !waits_for_people && !opens_steps {
        // This decision only applied signals; a worker opens the next step.
        return Some(now);
    }
    retry.into_iter().chain(people).min()
}
