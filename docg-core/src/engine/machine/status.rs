//! The status of the execution, and its wait.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    draft::Draft,
    phases::{self, lengthened},
    view,
};
use crate::{
    event::EventData,
    i18n::Text,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{
        DeliveryState, InvalidTransition, SignatureState, Status, Step, StepState, WaitKind,
        WaitingFor,
    },
    time::Timestamp,
};

/// Changes the status without an actor, because docg itself decided it.
pub(super) fn change(
    draft: &mut Draft<'_>,
    to: Status,
    reason: &'static str,
) -> Result<(), InvalidTransition> {
    change_by(draft, to, reason, None, Value::Null)
}

/// Changes the status on behalf of an actor.
pub(super) fn change_by(
    draft: &mut Draft<'_>,
    to: Status,
    reason: &'static str,
    actor: Option<Actor>,
    metadata: Value,
) -> Result<(), InvalidTransition> {
    let action = match (draft.execution().status, to) {
        (Status::Queued, Status::Running) => actions::STARTED,
        (_, Status::Completed) => actions::COMPLETED,
        (_, Status::Failed) => actions::FAILED,
        (_, Status::Canceled) => actions::CANCELED,
        (_, Status::Paused) => actions::PAUSED,
        _ => actions::STATUS_CHANGED,
    };
    change_as(draft, to, (reason, action), actor, metadata)
}

/// Changes the status because a person resumes the execution.
pub(super) fn resume(
    draft: &mut Draft<'_>,
    to: Status,
    actor: Actor,
    metadata: Value,
) -> Result<(), InvalidTransition> {
    change_as(
        draft,
        to,
        ("resumed", actions::RESUMED),
        Some(actor),
        metadata,
    )
}

/// Changes the status from `queued` to `running`, on behalf of the execution's creator.
pub(super) fn begin(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let actor = (*draft.execution().created_by).clone();
    change_by(draft, Status::Running, "claimed", Some(actor), Value::Null)
}

/// Changes the status: checks the table, emits an event, and adds an audit row. No other function changes
/// the status.
fn change_as(
    draft: &mut Draft<'_>,
    to: Status,
    (reason, action): (&'static str, &'static str),
    actor: Option<Actor>,
    metadata: Value,
) -> Result<(), InvalidTransition> {
    let now = draft.now;
    let execution = draft.edit();
    let from = execution.status;
    from.check(to, execution.paused_from)?;
    execution.status = to;
    execution.paused_from = (to == Status::Paused).then_some(from);
    match to {
        Status::Running if execution.started_at.is_none() => execution.started_at = Some(now),
        Status::Sending => execution.delivery_state = DeliveryState::Sending,
        Status::Signing => execution.signature_state = SignatureState::Signing,
        Status::Completed => execution.progress = 100,
        _ => {}
    }
    if to.is_terminal() {
        execution.completed_at = Some(now);
        phases::close(draft);
    }
    draft.event(EventData::StatusChanged {
        from,
        to,
        reason: Cow::Borrowed(reason),
    });
    let mut facts = json!({"from": from, "to": to, "reason": reason});
    if let (Some(facts), Value::Object(more)) = (facts.as_object_mut(), metadata) {
        facts.extend(more);
    }
    let mut row = AuditDraft::new(action, facts);
    row.actor = actor;
    draft.audit(row);
    Ok(())
}

/// Parks the execution until a person has repaired it.
pub(super) fn park(
    draft: &mut Draft<'_>,
    reason: &'static str,
    detail: Value,
) -> Result<(), InvalidTransition> {
    end_wait(draft);
    change(draft, Status::NeedsReview, reason)?;
    let expires = draft.state().workflow.settings.review_expires_ms;
    let until = expires.map(|ms| draft.clock.plus_millis(ms));
    wait(draft, WaitKind::Review, until, detail);
    draft.log_run(LogLevel::Warn, Text::key("log-needs-review"));
    Ok(())
}

/// Records what the execution waits for, and until when.
pub(super) fn wait(draft: &mut Draft<'_>, kind: WaitKind, until: Option<Timestamp>, detail: Value) {
    let (since, detail) = (draft.now, draft.env.redaction.redacted(&detail));
    draft.edit().waiting_for = Some(WaitingFor {
        kind,
        since,
        until,
        detail,
    });
    // A handler that is at work when a pause comes goes on, so its phase goes on counting work time.
    if kind.is_no_work() && view::open_step(draft.state()).is_none() {
        phases::rest(draft);
    }
}

/// Ends the execution's wait, and counts the time that people took as waiting time.
pub(super) fn end_wait(draft: &mut Draft<'_>) {
    let now = draft.now;
    let execution = draft.edit();
    if execution.waiting_for.take().is_none() {
        return;
    }
    let mut waited = 0;
    for times in execution.phase_metrics.0.iter_mut().flatten() {
        if let Some(since) = times.waiting_since.take() {
            waited = now.millis_since(since);
            times.waiting_ms = lengthened(times.waiting_ms, waited);
        }
    }
    // During a review, the waiting step is the failed step that may run again.
    let in_review = execution.status == Status::NeedsReview;
    let waits = |step: &Step| {
        let has_failed = in_review && matches!(step.state, StepState::Failed(_));
        step.started_at.is_some() && (has_failed || step.completed_at.is_none())
    };
    if let Some(index) = view::current(draft.state())
        && waited > 0
        && waits(&draft.state().steps[index])
    {
        let step = draft.edit_step(index);
        step.waiting_ms = lengthened(step.waiting_ms, waited);
    }
}
