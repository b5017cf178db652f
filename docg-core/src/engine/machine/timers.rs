//! The times at which waits expire and follow-ups are due. No function here changes the run state.

use super::{Role, view};
use crate::{
    ports::RunState,
    run::{Status, WaitKind},
    signature::{
        FollowUp, NewSignatureRequest, RequestStatus, SHORTEST_REMINDING_MS, SignatureRequest,
    },
    time::Timestamp,
};

/// The longest time until the provider is first asked about a new request, in milliseconds. It is short,
/// because a webhook may arrive before the request is stored, and be lost.
const FIRST_CHECK_MS: u64 = 5 * 60_000;
/// How long a request waits after its end for a provider that does not answer, in milliseconds. People may
/// have signed, and a lost webhook must not void their signatures.
const GRACE_MS: u64 = 3_600_000;

/// A wait that can expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Review,
    Approval,
    Signatures,
    Awaited,
}

/// The times at which the execution's present waits expire.
fn expiries(state: &RunState) -> impl Iterator<Item = (Expiry, Timestamp)> {
    let waiting = state.execution.waiting_for.as_ref();
    let review = waiting.filter(|waiting| waiting.kind == WaitKind::Review);
    let approval = state.approval.as_ref();
    let approval = approval.filter(|approval| approval.decided_at.is_none());
    let ends = [
        (Expiry::Review, review.and_then(|it| it.until)),
        (Expiry::Approval, approval.and_then(|it| it.expires_at)),
        (Expiry::Signatures, given_up_at(state)),
        (Expiry::Awaited, awaited_until(state)),
    ];
    ends.into_iter()
        .filter_map(|(expiry, at)| Some((expiry, at?)))
}

/// The waits that have expired.
pub(super) fn expired(state: &RunState, now: Timestamp) -> Vec<Expiry> {
    let expired = expiries(state).filter(|(_, at)| *at <= now);
    expired.map(|(expiry, _)| expiry).collect()
}

/// The next time at which a resting execution needs a worker.
pub(super) fn next_wake(state: &RunState, role: Role, now: Timestamp) -> Option<Timestamp> {
    let execution = &state.execution;
    let ends = expiries(state).map(|(_, at)| at);
    let ends = ends.chain(follow_up_at(state)).min();
    if execution.status == Status::Queued
        && let Some(start) = start_at(state, now)
    {
        return Some(start);
    }
    if matches!(execution.status, Status::Paused | Status::NeedsReview) {
        return ends;
    }
    let waiting = execution.waiting_for.as_ref();
    let retry = waiting
        .filter(|waiting| waiting.kind == WaitKind::Retry)
        .and_then(|waiting| waiting.until);
    let rests = waiting.is_some_and(|waiting| {
        waiting.kind.is_no_work()
            && !(waiting.kind == WaitKind::Confirmation && execution.delivery_confirmed)
    });
    if retry.is_none() && !rests && role == Role::SignalApplier {
        // This process only applied signals, so wake a worker now to open the next step.
        return Some(now);
    }
    retry.into_iter().chain(ends).min()
}

/// The time at which the execution may start, if that lies ahead.
pub(super) fn start_at(state: &RunState, now: Timestamp) -> Option<Timestamp> {
    state.inputs.start_at.filter(|start| *start > now)
}

/// The moment that the waiting step waits for, or the end of its wait for an event. While people have stopped the
/// execution, nothing expires.
fn awaited_until(state: &RunState) -> Option<Timestamp> {
    if view::is_stopped(state) {
        return None;
    }
    let index = view::waiting_step(state)?;
    state.steps[index].awaits.as_ref()?.until
}

/// The request whose signatures are awaited. `None` while a person reviews the execution, because the
/// request's timers then rest.
pub(super) fn awaited_request(state: &RunState) -> Option<&SignatureRequest> {
    if state.execution.status == Status::NeedsReview {
        return None;
    }
    view::waiting_step(state)?;
    let request = state.signature.as_ref();
    request.filter(|request| request.status == RequestStatus::Signing)
}

/// The time at which the awaited request is given up.
fn given_up_at(state: &RunState) -> Option<Timestamp> {
    let request = awaited_request(state)?;
    let end = request.expires_at?;
    let follow_up = &request.follow_up;
    let asked = follow_up.checked_at.is_some_and(|at| at >= end);
    if asked || follow_up.check_at.is_none() {
        return Some(end);
    }
    // Give up only after the provider was asked and did not answer. If docg itself was down for long, the
    // provider may know of signatures.
    (follow_up.failed_checks > 0).then(|| end.plus_millis(GRACE_MS))
}

/// The time at which the awaited request's provider is next asked, or its signers are next reminded.
fn follow_up_at(state: &RunState) -> Option<Timestamp> {
    let follow_up = &awaited_request(state)?.follow_up;
    let remind_at = follow_up
        .remind_at
        .filter(|_| state.execution.status != Status::Paused);
    follow_up.check_at.into_iter().chain(remind_at).min()
}

/// The times of the first question and reminder for a new request. `check_ms` is the usual time between
/// questions.
pub(super) fn first_follow_up(
    new: &NewSignatureRequest,
    now: Timestamp,
    check_ms: u64,
) -> FollowUp {
    let reminding = new.remind_every_ms;
    let remind_every_ms = reminding.map(|millis| millis.max(SHORTEST_REMINDING_MS));
    FollowUp {
        remind_every_ms,
        remind_at: remind_every_ms.map(|millis| now.plus_millis(millis)),
        check_at: Some(next_check(
            now,
            new.expires_at,
            check_ms.min(FIRST_CHECK_MS),
        )),
        checked_at: None,
        failed_checks: 0,
    }
}

/// The time of the next question to the provider: after `pause_ms`, but at the request's end at the latest.
/// So the provider is asked before the request is given up.
pub(super) fn next_check(
    now: Timestamp,
    expires_at: Option<Timestamp>,
    pause_ms: u64,
) -> Timestamp {
    let next = now.plus_millis(pause_ms);
    match expires_at {
        Some(end) if end > now => next.min(end),
        Some(end) => next.min(end.plus_millis(GRACE_MS)),
        None => next,
    }
}
