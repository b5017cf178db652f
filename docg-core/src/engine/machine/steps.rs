//! What happens to one step: it opens, ends, fails, is skipped, or is put back.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{End, draft::Draft, phases, requests, status, view};
use crate::{
    error::{ErrorContext, FailureClass, StepFailure, codes},
    event::EventData,
    i18n::Text,
    observe::{AuditDraft, LogLevel, Redaction, actions},
    run::{DeliveryState, Doubt, InvalidTransition, Outcome, Phase, Status, StepState, WaitKind},
    time::Timestamp,
    workflow::{Node, OnError, Wait, param},
};

/// Opens a step and returns its parameters. Once this is committed, the intent to run the step is recorded.
pub(super) fn open(draft: &mut Draft<'_>, index: usize) -> Result<Arc<Value>, StepFailure> {
    let node = draft.node(index);
    let registry = draft.env.registry;
    let Some(handler) = registry.get(&node.node_type) else {
        let text = Text::key("error-unknown-node-type").with("type", &node.node_type);
        return Err(StepFailure::review(codes::UNKNOWN_NODE_TYPE, text));
    };
    let spec = handler.spec();
    let params = view::resolved(draft.env, draft.state(), index)?;
    let is_signed = view::is_signed(draft.state(), index);
    // Completed signatures stand, even if the parameters are no longer valid.
    if let Some(failure) = param::failure(spec, &params, &node.label).filter(|_| !is_signed) {
        return Err(failure);
    }
    status::end_wait(draft);
    let (now, data_in) = (draft.now, draft.env.redaction.snapshot(&params));
    let is_answered = view::is_answered(draft.state(), index);
    let step = draft.edit_step(index);
    // Do not ask people again for what they have signed or approved.
    step.state = if is_answered {
        StepState::Resuming
    } else {
        StepState::Running
    };
    step.attempt += 1;
    step.started_at.get_or_insert(now);
    step.data_in = Some(data_in);
    let (position, attempt) = (step.position, step.attempt);
    phases::set_current(draft, index);
    phases::work(draft, node.phase);
    draft.event(EventData::StepStarted {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        position,
        attempt,
    });
    let text = Text::key("log-step-started").with("label", &node.label);
    draft.log_step(LogLevel::Ok, &node, text, None);
    Ok(params)
}

/// Ends a step with success.
pub(super) fn succeed(draft: &mut Draft<'_>, index: usize, output: Arc<Value>) {
    let node = draft.node(index);
    forget_error(draft, index);
    let snapshot = draft.env.redaction.snapshot(&output);
    let step = draft.edit_step(index);
    step.data_out = Some(snapshot.clone());
    step.output = Some(Arc::clone(&output));
    close(draft, index, StepState::Succeeded);
    let duration_ms = draft.state().steps[index].duration_ms().unwrap_or(0);
    draft.event(EventData::StepCompleted {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        duration_ms,
        // The output of a trigger step is trigger data, which must not appear in events.
        output_preview: (node.phase != Phase::Trigger).then(|| Redaction::preview(&snapshot)),
    });
    let text = Text::key("log-step-completed").with("label", &node.label);
    draft.log_step(LogLevel::Ok, &node, text, None);
    let handler = draft.env.registry.get(&node.node_type);
    let has_document = handler.is_none_or(|handler| handler.spec().has_document);
    let action = match node.phase {
        _ if !has_document => None,
        Phase::Render => Some(actions::DOCUMENT_GENERATED),
        Phase::Save => Some(actions::DOCUMENT_SAVED),
        Phase::Delivery => Some(actions::DOCUMENT_SENT),
        Phase::Preflight | Phase::Trigger | Phase::Signature => None,
    };
    if let Some(action) = action {
        let facts = json!({"node_id": node.id, "node_type": node.node_type, "sha256": output.get("sha256")});
        draft.audit(AuditDraft::new(action, facts).on("document", &node.id));
    }
    phases::update_progress(draft, 0.0);
}

/// Starts the step's wait.
pub(super) fn wait(
    draft: &mut Draft<'_>,
    index: usize,
    wait: Wait,
) -> Result<(), InvalidTransition> {
    forget_error(draft, index);
    requests::begin(draft, index, wait)
}

/// Clears a step's error after a later attempt succeeded. Clears the execution's error too if it is the same
/// error.
fn forget_error(draft: &mut Draft<'_>, index: usize) {
    if draft.state().steps[index].error.is_none() {
        return;
    }
    let error = draft.edit_step(index).error.take();
    if error == draft.execution().error {
        draft.edit().error = view::left_over_error(draft.state());
    }
}

fn close(draft: &mut Draft<'_>, index: usize, state: StepState) {
    let now = draft.now;
    let step = draft.edit_step(index);
    step.state = state;
    step.completed_at = Some(now);
    let phase = step.phase;
    phases::step_ended(draft, phase);
}

/// The reason and the log message for a step that is skipped because its condition is false.
pub(super) const UNWANTED: (&str, &str) = ("condition", "log-step-skipped-condition");

/// Skips a step.
pub(super) fn skip(
    draft: &mut Draft<'_>,
    index: usize,
    (reason, message): (&'static str, &'static str),
) {
    let (now, node) = (draft.now, draft.node(index));
    let step = draft.edit_step(index);
    step.state = StepState::Skipped;
    step.completed_at = Some(now);
    step.data_out = Some(json!({"reason": reason, "phase": node.phase}).into());
    draft.event(EventData::StepSkipped {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        reason: Cow::Borrowed(reason),
    });
    let text = Text::key(message).with("label", &node.label);
    draft.log_step(LogLevel::Ok, &node, text, None);
    phases::update_progress(draft, 0.0);
}

/// Marks the outcome of an open step as unknown, and logs that. The handler is probed before anything else.
pub(super) fn doubt(draft: &mut Draft<'_>, index: usize, doubt: Doubt, log: &'static str) {
    let node = draft.node(index);
    draft.edit_step(index).state = StepState::Probing(doubt);
    let text = Text::key(log).with("label", &node.label);
    draft.log_step(LogLevel::Warn, &node, text, None);
}

/// Marks the outcome of an open step as unknown if it is not marked yet, without a log entry.
pub(super) fn put_in_doubt(draft: &mut Draft<'_>, index: usize) {
    if draft.state().steps[index].state == StepState::Running {
        draft.edit_step(index).state = StepState::Probing(Doubt::LeftOpen);
    }
}

/// Lets another worker run the step again, without counting the attempt. A step that continues after its wait
/// stays open for the next worker instead.
pub(super) fn put_back(draft: &mut Draft<'_>, index: usize) {
    let node = draft.node(index);
    if draft.state().steps[index].state != StepState::Running {
        return;
    }
    let step = draft.edit_step(index);
    step.state = StepState::Pending;
    step.attempt -= 1;
    phases::rest(draft);
    let text = Text::key("log-step-stopped").with("label", &node.label);
    draft.log_step(LogLevel::Warn, &node, text, None);
}

/// Makes a failed step run again, because a person has repaired it.
pub(super) fn reopen(draft: &mut Draft<'_>, index: usize) {
    let step = draft.edit_step(index);
    step.state = StepState::Pending;
    step.completed_at = None;
    step.error = None;
    step.takeovers = 0;
    step.awaits = None;
    step.attempts_before = step.attempt;
}

/// Fails a step that could not be opened.
pub(super) fn fail_unopened(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
) -> Result<(), InvalidTransition> {
    let now = draft.now;
    phases::set_current(draft, index);
    let step = draft.edit_step(index);
    step.started_at.get_or_insert(now);
    step.attempt += 1;
    fail(draft, index, failure, Outcome::Known)
}

/// Hands a step to a person, because too many workers died while it was under way.
pub(super) fn give_up(draft: &mut Draft<'_>, index: usize) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let text = Text::key("error-too-many-takeovers").with("label", &node.label);
    let failure = StepFailure::review(codes::TOO_MANY_TAKEOVERS, text);
    fail(draft, index, failure, Outcome::Unknown)
}

/// Adds to an error the time before which the called system does not want to be called again.
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

/// Ends an attempt with an error. Either the step runs again later, or it fails. Then the execution goes on,
/// waits for a person, or comes to its end.
pub(super) fn fail(
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
    let has_attempts_left = view::has_attempts_left(draft.state(), index);
    // The called system asks for a longer pause than the policy allows: let a person decide when to go on.
    if class == FailureClass::Retryable && retry_after_ms > node.retry.max_ms && has_attempts_left {
        class = FailureClass::Review;
        context = not_before(context, draft.clock.plus_millis(retry_after_ms));
    }
    if class == FailureClass::Retryable && has_attempts_left {
        retry_later(draft, index, context, retry_after_ms);
        return Ok(());
    }
    end_failed(draft, index, context.clone(), outcome, LogLevel::Error);
    if node.phase == Phase::Delivery {
        draft.edit().delivery_state = DeliveryState::Failed;
    }
    // Once people have signed, a later error does not fail the execution: a person reviews it.
    let reviews = class == FailureClass::Review
        || node.on_error == OnError::Review
        || view::is_signed(draft.state(), index);
    // Whatever `on_error` says, never continue past a step that needs a review, past an unknown outcome, or
    // past a decision of people.
    let may_continue = class != FailureClass::Review && outcome == Outcome::Known;
    if node.on_error == OnError::Continue && may_continue {
        draft.edit().error = Some(context);
        phases::update_progress(draft, 0.0);
    } else if reviews && draft.execution().status != Status::NeedsReview {
        let mut detail = json!({"node_id": node.id, "error_code": context.code});
        if let Some(given) = view::signatures_given(draft.state(), index) {
            detail["signatures_given"] = given.into();
        }
        draft.edit().error = Some(context);
        status::park(draft, "step_failed", detail)?;
    } else {
        draft.end = Some(End::Failed("step_failed", context));
    }
    Ok(())
}

/// Schedules the step's next attempt.
fn retry_later(draft: &mut Draft<'_>, index: usize, context: ErrorContext, retry_after_ms: u64) {
    let node = draft.node(index);
    let attempts = view::attempts(draft.state(), index);
    let delay = node.retry.delay_ms(attempts, draft.random());
    let at = draft.clock.plus_millis(delay.max(retry_after_ms));
    let step = draft.edit_step(index);
    step.state = StepState::Pending;
    step.error = Some(context.clone());
    // While the execution is paused, the retry waits for a person and not for the backoff.
    if draft.execution().status == Status::Paused {
        phases::rest(draft);
    } else {
        let detail = json!({"node_id": node.id, "attempt": attempts + 1});
        status::wait(draft, WaitKind::Retry, Some(at), detail);
    }
    tell_failed(draft, &node, &context, Some(at));
    let text = Text::key("log-step-will-retry")
        .with("attempt", attempts)
        .with("max", node.retry.max_attempts)
        .with("label", &node.label)
        .with_text("error", context.human.clone());
    draft.log_step(LogLevel::Warn, &node, text, context.tech.clone());
    draft.edit().error = Some(context);
}

fn end_failed(
    draft: &mut Draft<'_>,
    index: usize,
    context: ErrorContext,
    outcome: Outcome,
    level: LogLevel,
) {
    let node = draft.node(index);
    draft.edit_step(index).error = Some(context.clone());
    close(draft, index, StepState::Failed(outcome));
    tell_failed(draft, &node, &context, None);
    let text = match level {
        LogLevel::Error => Text::key("log-step-failed")
            .with("label", &node.label)
            .with_text("error", context.human),
        _ => context.human,
    };
    draft.log_step(level, &node, text, context.tech);
}

fn tell_failed(
    draft: &mut Draft<'_>,
    node: &Node,
    context: &ErrorContext,
    next_attempt_at: Option<Timestamp>,
) {
    draft.event(EventData::StepFailed {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        error_code: context.code.clone(),
        error_human: Box::new(context.human.clone()),
        will_retry: next_attempt_at.is_some(),
        next_attempt_at,
    });
}

/// The error of a step that is cut off with its execution.
pub(super) fn canceled(human: Text) -> ErrorContext {
    ErrorContext {
        code: Cow::Borrowed(codes::CANCELED),
        human,
        tech: None,
    }
}

/// Fails a step that was under way when its execution was ended.
pub(super) fn cut_off(draft: &mut Draft<'_>, index: usize, error: ErrorContext) {
    end_failed(draft, index, error, Outcome::Known, LogLevel::Warn);
}
