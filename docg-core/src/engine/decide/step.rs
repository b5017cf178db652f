//! Applies a step's result to the run state.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{advance::skip_unwanted, draft::Draft, stop};
use crate::{
    approval::Decision,
    error::{ErrorContext, FailureClass, StepFailure, codes, why_refused},
    event::EventData,
    i18n::Text,
    observe::{AuditDraft, LogLevel, Redaction, actions},
    ports::MAX_TAKEOVERS,
    run::{
        Activity, DeliveryState, InvalidTransition, Outcome, Phase, Status, StepStatus, WaitKind,
    },
    time::Timestamp,
    workflow::{Node, OnError, Probe, StepOutcome, StopReason, Wait},
};

/// True if the step is safe to run twice.
pub(super) fn repeatable(draft: &Draft<'_>, node: &Node) -> bool {
    super::is_repeatable(draft.env.registry, &draft.state.execution, node)
}

pub(super) fn taken_over(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let mut steps = draft.state.steps.iter();
    let Some(index) = steps.position(|step| step.activity.is_at_work()) else {
        return Ok(());
    };
    let node = draft.node(index);
    let may_repeat = repeatable(draft, &node);
    if draft.state.execution.status == Status::Paused {
        // The handler continued during the pause. The rest of the step begins when the pause ends.
        draft.rest_phase();
    }
    let step = draft.step(index);
    step.takeovers += 1;
    if step.takeovers >= MAX_TAKEOVERS {
        return give_up(draft, index);
    }
    let step = draft.step(index);
    // After its wait a step is safe to repeat: its effect was the request, and the request is done.
    if step.activity == Activity::Running && !may_repeat {
        step.activity = Activity::ProbingTakeover;
    }
    draft.log_step(
        LogLevel::Warn,
        &node,
        Text::key("log-step-taken-over").with("label", &node.label),
        None,
    );
    Ok(())
}

/// Hands a step to a person, because too many workers died while it was under way.
pub(super) fn give_up(draft: &mut Draft<'_>, index: usize) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let text = Text::key("error-too-many-takeovers").with("label", &node.label);
    let failure = StepFailure::review(codes::TOO_MANY_TAKEOVERS, text);
    failed(draft, index, failure, Outcome::Unknown)
}

pub(super) fn finished(
    draft: &mut Draft<'_>,
    index: usize,
    result: Result<StepOutcome, StepFailure>,
    told: Option<StopReason>,
) -> Result<(), InvalidTransition> {
    if draft.state.steps[index].status != StepStatus::Running {
        return Ok(());
    }
    // Stale result: a waiting step ends by signal, an unknown outcome by probe.
    if !matches!(
        draft.state.steps[index].activity,
        Activity::Running | Activity::Resuming
    ) {
        return Ok(());
    }
    match (result, told) {
        (Ok(outcome), Some(StopReason::Cancel)) => stop::finished_canceled(draft, index, outcome),
        (Ok(StepOutcome::Done(output)), _) => {
            succeeded(draft, index, Arc::new(output));
            Ok(())
        }
        (Ok(StepOutcome::Wait(wait)), _) => begin_wait(draft, index, wait),
        // The handler answered, but the answer was rejected: the failure is no timeout.
        (Err(failure), Some(StopReason::Deadline))
            if failure.class == FailureClass::OutcomeUnknown
                && why_refused(&failure.context.human).is_some() =>
        {
            failed_attempt(draft, index, failure)
        }
        (Err(failure), Some(reason)) => stop::failed(draft, index, failure, reason),
        (Err(failure), None) => failed_attempt(draft, index, failure),
    }
}

/// Ends a failed attempt. If the outcome is unknown and the effect is not safe to repeat, the handler is
/// probed.
pub(super) fn failed_attempt(
    draft: &mut Draft<'_>,
    index: usize,
    mut failure: StepFailure,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    match failure.class {
        FailureClass::OutcomeUnknown if !repeatable(draft, &node) => {
            let step = draft.step(index);
            step.error = Some(failure.context);
            step.activity = Activity::ProbingFailure;
            let text = Text::key("log-step-probing").with("label", &node.label);
            draft.log_step(LogLevel::Warn, &node, text, None);
            return Ok(());
        }
        // Retry: the effect is safe to repeat, or the handler stopped without being told to.
        FailureClass::OutcomeUnknown | FailureClass::Stopped => {
            failure.class = FailureClass::Retryable;
        }
        FailureClass::Retryable | FailureClass::Review | FailureClass::Final => {}
    }
    failed(draft, index, failure, Outcome::Known)
}

/// Starts the step's wait for the signatures or the approval that it has requested.
pub(super) fn begin_wait(
    draft: &mut Draft<'_>,
    index: usize,
    wait: Wait,
) -> Result<(), InvalidTransition> {
    forget_error(draft, index);
    match wait {
        Wait::Signatures(request) => {
            super::signature::requested(draft, index, request);
            Ok(())
        }
        Wait::Approval(request) => super::approval::requested(draft, index, request),
    }
}

/// True if the retry policy allows another attempt.
fn has_attempts_left(draft: &Draft<'_>, index: usize) -> bool {
    let step = &draft.state.steps[index];
    step.attempt - step.attempts_before < draft.node(index).retry.max_attempts
}

pub(super) fn probed(
    draft: &mut Draft<'_>,
    index: usize,
    effect: Probe,
    told: Option<StopReason>,
) -> Result<(), InvalidTransition> {
    if !matches!(
        draft.state.steps[index].activity,
        Activity::ProbingTakeover | Activity::ProbingFailure
    ) {
        return Ok(());
    }
    match told {
        Some(StopReason::Cancel) => return stop::dropped(draft, index, effect, None),
        // The probe was interrupted; another worker may get an answer.
        Some(StopReason::Shutdown | StopReason::LeaseLost) if effect == Probe::Unknown => {
            return Ok(());
        }
        Some(StopReason::Shutdown | StopReason::LeaseLost | StopReason::Deadline) | None => {}
    }
    let node = draft.node(index);
    let after_failure = draft.state.steps[index].activity == Activity::ProbingFailure;
    let is_answered = is_answered(draft, index);
    match effect {
        Probe::Done(output) => {
            let text = Text::key("log-step-probed-done").with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            succeeded(draft, index, Arc::new(output));
            Ok(())
        }
        // No attempt is left to pick up the begun request, so wait for it as it is.
        Probe::Begun(wait) if after_failure && !is_answered && !has_attempts_left(draft, index) => {
            let text = Text::key("log-step-probed-done").with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            begin_wait(draft, index, wait)
        }
        Probe::Begun(_) | Probe::NotDone => {
            let runs_again = !after_failure || has_attempts_left(draft, index);
            let key = match (&effect, runs_again) {
                (Probe::Begun(_), true) => "log-step-probed-begun",
                (Probe::Begun(_), false) => "log-step-probed-done",
                (_, true) => "log-step-probed-not-done",
                (_, false) => "log-step-probed-not-done-last",
            };
            let text = Text::key(key).with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            // After a failed attempt the retry policy decides; a takeover uses up no attempt.
            match draft.state.steps[index]
                .error
                .clone()
                .filter(|_| after_failure)
            {
                Some(context) => {
                    let failure = StepFailure {
                        class: FailureClass::Retryable,
                        context,
                        retry_after_ms: None,
                    };
                    failed(draft, index, failure, Outcome::Known)
                }
                None => {
                    if is_answered {
                        draft.step(index).activity = Activity::Resuming;
                        return Ok(());
                    }
                    draft.step(index).activity = Activity::Running;
                    // The step may be open only because its outcome was unknown, so check its condition
                    // again.
                    skip_unwanted(draft, index, &node);
                    Ok(())
                }
            }
        }
        Probe::Unknown => {
            let error = draft.state.steps[index].error.clone();
            let why = error.as_ref().filter(|_| after_failure);
            let why = why.and_then(|error| why_refused(&error.human)).cloned();
            let text = match why {
                Some(ref why) => Text::key("error-answer-not-kept").with_text("why", why.clone()),
                None => Text::key("error-outcome-unknown"),
            };
            let text = text.with("label", &node.label);
            let mut failure = StepFailure::review(codes::OUTCOME_UNKNOWN, text);
            if let Some(error) = error {
                failure.context.tech = error.tech;
                // A rejected answer has its own code, which tells the person what to confirm.
                if why.is_some() {
                    failure.context.code = error.code;
                }
            }
            failed(draft, index, failure, Outcome::Unknown)
        }
    }
}

/// True if people have given all that the step requested. The step only has to finish, and does not ask them
/// again.
pub(super) fn is_answered(draft: &Draft<'_>, index: usize) -> bool {
    let node = &draft.state.steps[index].node_id;
    let approval = draft.state.approval.as_ref();
    let is_approved = approval.is_some_and(|approval| {
        approval.node_id == *node && approval.decision == Some(Decision::Approved)
    });
    is_approved || super::signature::is_signed(draft, index)
}

/// The error of the last failed step that the run continued past.
pub(super) fn left_over_error(draft: &Draft<'_>) -> Option<ErrorContext> {
    let mut steps = draft.state.steps.iter();
    steps
        .rfind(|step| step.status == StepStatus::Failed)?
        .error
        .clone()
}

/// Clears a step's error after a later attempt succeeded, and the execution's error if it is the same.
fn forget_error(draft: &mut Draft<'_>, index: usize) {
    if draft.state.steps[index].error.is_none() {
        return;
    }
    let error = draft.step(index).error.take();
    if error == draft.state.execution.error {
        draft.state.execution.error = left_over_error(draft);
    }
}

pub(super) fn succeeded(draft: &mut Draft<'_>, index: usize, output: Arc<Value>) {
    let node = draft.node(index);
    forget_error(draft, index);
    let snapshot = draft.env.redaction.snapshot(&output);
    {
        let step = draft.step(index);
        step.data_out = Some(snapshot.clone());
        step.output = Some(Arc::clone(&output));
    }
    close(draft, index, StepStatus::Success, None, Outcome::Known);
    let duration_ms = draft.state.steps[index].duration_ms().unwrap_or(0);
    draft.event(EventData::StepCompleted {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        duration_ms,
        // The output of a trigger step is trigger data, which must not appear in events.
        output_preview: (node.phase != Phase::Trigger).then(|| Redaction::preview(&snapshot)),
    });
    draft.log_step(
        LogLevel::Ok,
        &node,
        Text::key("log-step-completed").with("label", &node.label),
        None,
    );
    // An approval neither makes nor sends a document, whatever its phase.
    let is_approval = draft
        .state
        .approval
        .as_ref()
        .is_some_and(|approval| approval.node_id == node.id);
    let action = match node.phase {
        _ if is_approval => None,
        Phase::Render => Some(actions::DOCUMENT_GENERATED),
        Phase::Save => Some(actions::DOCUMENT_SAVED),
        Phase::Delivery => Some(actions::DOCUMENT_SENT),
        Phase::Preflight | Phase::Trigger | Phase::Signature => None,
    };
    if let Some(action) = action {
        let facts = json!({"node_id": node.id, "node_type": node.node_type, "sha256": output.get("sha256")});
        draft.audit(AuditDraft::new(action, facts).on("document", &node.id));
    }
    draft.update_progress(0.0);
}

pub(super) fn close(
    draft: &mut Draft<'_>,
    index: usize,
    status: StepStatus,
    error: Option<ErrorContext>,
    outcome: Outcome,
) {
    let now = draft.now;
    let step = draft.step(index);
    step.status = status;
    step.activity = Activity::Idle;
    step.completed_at = Some(now);
    step.error = error;
    step.outcome = outcome;
    draft.rest_phase();
    let phase = draft.state.steps[index].phase;
    if let Some(times) = &mut draft.state.execution.phase_metrics.0[phase as usize] {
        times.completed_at = Some(now);
    }
}

/// Fails a step that could not be opened.
pub(super) fn fail_unopened(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
) -> Result<(), InvalidTransition> {
    let now = draft.now;
    draft.set_current(index);
    let step = draft.step(index);
    step.started_at.get_or_insert(now);
    step.attempt += 1;
    failed(draft, index, failure, Outcome::Known)
}

/// Adds to an error the time before which the other side does not want to be called.
fn not_before(context: ErrorContext, moment: Timestamp) -> ErrorContext {
    let human = Text::key("error-not-before")
        .with_text("why", context.human)
        .with("moment", moment.to_the_minute());
    let asks = format!("it asks not to be called before {moment}");
    let tech = match context.tech {
        Some(tech) => format!("{tech}; {asks}"),
        None => asks,
    };
    ErrorContext {
        code: context.code,
        human,
        tech: Some(tech),
    }
}

pub(super) fn failed(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
    outcome: Outcome,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let StepFailure {
        mut class,
        mut context,
        retry_after_ms,
    } = failure;
    let retry_after_ms = retry_after_ms.unwrap_or(0);
    // The other side asks for a longer pause than the policy allows: let a person decide when to go on.
    if class == FailureClass::Retryable
        && retry_after_ms > node.retry.max_ms
        && has_attempts_left(draft, index)
    {
        class = FailureClass::Review;
        context = not_before(context, draft.clock.plus_millis(retry_after_ms));
    }
    let attempts = draft.state.steps[index].attempt - draft.state.steps[index].attempts_before;
    let next_attempt_at = (class == FailureClass::Retryable && has_attempts_left(draft, index))
        .then(|| {
            let delay = node.retry.delay_ms(attempts, draft.random());
            draft.clock.plus_millis(delay.max(retry_after_ms))
        });
    if let Some(at) = next_attempt_at {
        let step = draft.step(index);
        step.status = StepStatus::Pending;
        step.activity = Activity::Idle;
        step.error = Some(context.clone());
        // While the run is paused, the retry waits for a person and not for the backoff.
        if draft.state.execution.status == Status::Paused {
            draft.rest_phase();
        } else {
            draft.wait(
                WaitKind::Retry,
                Some(at),
                json!({"node_id": node.id, "attempt": attempts + 1}),
            );
        }
    } else {
        close(
            draft,
            index,
            StepStatus::Failed,
            Some(context.clone()),
            outcome,
        );
    }
    draft.event(EventData::StepFailed {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        error_code: context.code.clone(),
        error_human: Box::new(context.human.clone()),
        will_retry: next_attempt_at.is_some(),
        next_attempt_at,
    });
    let text = if next_attempt_at.is_some() {
        Text::key("log-step-will-retry")
            .with("attempt", attempts)
            .with("max", node.retry.max_attempts)
    } else {
        Text::key("log-step-failed")
    };
    let level = if next_attempt_at.is_some() {
        LogLevel::Warn
    } else {
        LogLevel::Error
    };
    let text = text
        .with("label", &node.label)
        .with_text("error", context.human.clone());
    draft.log_step(level, &node, text, context.tech.clone());
    if next_attempt_at.is_some() {
        draft.state.execution.error = Some(context);
        return Ok(());
    }
    if node.phase == Phase::Delivery {
        draft.state.execution.delivery_state = DeliveryState::Failed;
    }
    let status = draft.state.execution.status;
    // Once people have signed, a later error does not fail the execution: a person reviews it.
    let reviews = class == FailureClass::Review
        || node.on_error == OnError::Review
        || super::signature::is_signed(draft, index);
    // Whatever `on_error` says, never continue past a step that needs a review, past an unknown outcome, or
    // past a decision of people.
    let may_continue = class != FailureClass::Review && outcome == Outcome::Known;
    match node.on_error {
        OnError::Continue if may_continue => {
            draft.state.execution.error = Some(context);
            draft.update_progress(0.0);
            Ok(())
        }
        // If a signal has ended the execution meanwhile, the step's end changes nothing more.
        _ if status.is_terminal() => Ok(()),
        _ if reviews && status != Status::NeedsReview => {
            let detail = json!({"node_id": node.id, "error_code": context.code});
            draft.state.execution.error = Some(context);
            draft.park("step_failed", detail)
        }
        OnError::Fail | OnError::Review | OnError::Continue => {
            draft.fail("step_failed", context, None)
        }
    }
}
