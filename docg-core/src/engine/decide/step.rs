//! What a step's result does to the run.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{
    advance::{open, skip_unwanted},
    draft::Draft,
};
use crate::{
    error::{ErrorContext, FailureClass, StepFailure, codes},
    event::EventData,
    i18n::Text,
    observe::{AuditDraft, LogLevel, Redaction, actions},
    ports::MAX_TAKEOVERS,
    run::{Activity, DeliveryState, InvalidTransition, Phase, Status, StepStatus, WaitKind},
    workflow::{Node, OnError, Probe, StepOutcome, Wait},
};

/// What people have decided, or have not in their time.
const DECISIONS: [&str; 5] = [
    codes::APPROVAL_REJECTED,
    codes::APPROVAL_EXPIRED,
    codes::SIGNATURE_DECLINED,
    codes::SIGNATURE_EXPIRED,
    codes::SIGNATURE_CANCELED,
];

/// Whether running the step twice does no harm.
pub(super) fn repeatable(draft: &Draft<'_>, node: &Node) -> bool {
    super::is_repeatable(draft.env.registry, &draft.state.execution, node)
}

pub(super) fn taken_over(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    if draft.state.execution.status == Status::Queued {
        for index in super::first_effects(&draft.state, draft.env) {
            draft.step(index).activity = Activity::InDoubt;
        }
        return Ok(());
    }
    let mut steps = draft.state.steps.iter();
    let Some(index) = steps.position(|step| step.activity.is_at_work()) else {
        return Ok(());
    };
    let node = draft.node(index);
    let may_repeat = repeatable(draft, &node);
    if draft.state.execution.status == Status::Paused {
        // It worked on during the pause. What is left of it begins when the pause ends.
        draft.rest_phase();
    }
    let step = draft.step(index);
    step.takeovers += 1;
    if step.takeovers >= MAX_TAKEOVERS {
        return give_up(draft, index);
    }
    let step = draft.step(index);
    // What follows a wait may be repeated: the effect was the asking, and that is known to be done.
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

/// Hands a step to a person under which too many workers have died.
pub(super) fn give_up(draft: &mut Draft<'_>, index: usize) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let text = Text::key("error-too-many-takeovers").with("label", &node.label);
    let failure = StepFailure::review(codes::TOO_MANY_TAKEOVERS, text);
    failed(draft, index, failure)
}

pub(super) fn finished(
    draft: &mut Draft<'_>,
    index: usize,
    result: Result<StepOutcome, StepFailure>,
) -> Result<(), InvalidTransition> {
    if draft.state.steps[index].status != StepStatus::Running {
        return Ok(());
    }
    // It was heard of before: a wait is ended by signals, a doubt by a probe.
    if !matches!(
        draft.state.steps[index].activity,
        Activity::Running | Activity::Resuming
    ) {
        return Ok(());
    }
    match result {
        Ok(StepOutcome::Done(output)) => {
            succeeded(draft, index, Arc::new(output));
            Ok(())
        }
        Ok(StepOutcome::Wait(wait)) => begin_wait(draft, index, wait),
        Err(mut failure) => {
            let node = draft.node(index);
            // What may be repeated leaves nothing in doubt.
            if failure.class == FailureClass::OutcomeUnknown && repeatable(draft, &node) {
                failure.class = FailureClass::Retryable;
            }
            // The handler is asked before anything is repeated that cannot be taken back.
            if failure.class == FailureClass::OutcomeUnknown
                && draft.state.steps[index].activity == Activity::Running
            {
                let step = draft.step(index);
                step.error = Some(failure.context);
                step.activity = Activity::ProbingFailure;
                let text = Text::key("error-outcome-unknown").with("label", &node.label);
                draft.log_step(LogLevel::Warn, &node, text, None);
                return Ok(());
            }
            failed(draft, index, failure)
        }
    }
}

/// The step goes on when what it has asked for has come.
fn begin_wait(draft: &mut Draft<'_>, index: usize, wait: Wait) -> Result<(), InvalidTransition> {
    match wait {
        Wait::Signatures(request) => super::signature::requested(draft, index, request),
        Wait::Approval(request) => super::approval::requested(draft, index, request),
    }
}

/// Whether the retry policy lets the step begin once more.
fn has_attempts_left(draft: &Draft<'_>, index: usize) -> bool {
    let step = &draft.state.steps[index];
    step.attempt - step.attempts_before < draft.node(index).retry.max_attempts
}

pub(super) fn probed(
    draft: &mut Draft<'_>,
    index: usize,
    effect: Probe,
) -> Result<(), InvalidTransition> {
    if !matches!(
        draft.state.steps[index].activity,
        Activity::ProbingTakeover | Activity::ProbingFailure
    ) {
        return Ok(());
    }
    let node = draft.node(index);
    let after_failure = draft.state.steps[index].activity == Activity::ProbingFailure;
    match effect {
        Probe::Done(output) => {
            let text = Text::key("log-step-probed-done").with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            succeeded(draft, index, Arc::new(output));
            Ok(())
        }
        // No attempt is left that could pick it up: it is awaited as it is.
        Probe::Begun(wait) if after_failure && !has_attempts_left(draft, index) => {
            let text = Text::key("log-step-probed-done").with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            begin_wait(draft, index, wait)
        }
        Probe::Begun(_) | Probe::NotDone => {
            let key = match effect {
                Probe::Begun(_) => "log-step-probed-begun",
                _ => "log-step-probed-not-done",
            };
            let text = Text::key(key).with("label", &node.label);
            draft.log_step(LogLevel::Ok, &node, text, None);
            // After a failed attempt the retry policy decides; a worker's death uses up none.
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
                    failed(draft, index, failure)
                }
                None => {
                    draft.step(index).activity = Activity::Running;
                    // It may have been opened only because it was in doubt.
                    skip_unwanted(draft, index, &node);
                    Ok(())
                }
            }
        }
        Probe::Unknown => {
            let tech = draft.state.steps[index]
                .error
                .as_ref()
                .and_then(|error| error.tech.clone());
            let text = Text::key("error-outcome-unknown").with("label", &node.label);
            let mut failure = StepFailure::review(codes::OUTCOME_UNKNOWN, text);
            failure.context.tech = tech;
            failed(draft, index, failure)
        }
    }
}

/// The handler has stopped because its process does. That is no failure and uses up no attempt: the
/// step begins anew elsewhere.
pub(super) fn stopped(draft: &mut Draft<'_>, index: usize) {
    // What goes on after a wait stays open for the next.
    if draft.state.steps[index].activity != Activity::Running {
        return;
    }
    let node = draft.node(index);
    let step = draft.step(index);
    step.status = StepStatus::Pending;
    step.activity = Activity::Idle;
    step.attempt -= 1;
    draft.rest_phase();
    draft.log_step(
        LogLevel::Warn,
        &node,
        Text::key("log-step-stopped").with("label", &node.label),
        None,
    );
}

/// The execution is being canceled, and the handler did not return in time or may have begun unseen.
pub(super) fn dropped(
    draft: &mut Draft<'_>,
    index: usize,
    effect: Probe,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    match (draft.state.steps[index].activity, &effect) {
        (Activity::InDoubt, Probe::NotDone) => {
            draft.step(index).activity = Activity::Idle;
            return Ok(());
        }
        // Where it cannot even be opened, the end of the run says that nothing is known.
        (Activity::InDoubt, _) if open(draft, index, &node).is_err() => return Ok(()),
        _ if draft.state.steps[index].status != StepStatus::Running => return Ok(()),
        _ => {}
    }
    let effect_done = Text::key("error-canceled-effect-done").with("label", &node.label);
    match effect {
        Probe::Done(output) => {
            draft.log_step(LogLevel::Warn, &node, effect_done, None);
            succeeded(draft, index, Arc::new(output));
        }
        // No review goes over into a wait for approval. What was asked ends with the run.
        Probe::Begun(Wait::Approval(_)) if draft.state.execution.status == Status::NeedsReview => {
            cut_off(draft, index, effect_done);
        }
        // Noted, so that the end of the execution withdraws it.
        Probe::Begun(wait) => {
            draft.log_step(LogLevel::Warn, &node, effect_done, None);
            return begin_wait(draft, index, wait);
        }
        Probe::NotDone => cut_off(draft, index, Text::key("error-canceled")),
        Probe::Unknown => {
            cut_off(
                draft,
                index,
                Text::key("error-canceled-outcome-unknown").with("label", &node.label),
            );
        }
    }
    Ok(())
}

/// A step that was under way when its execution was canceled has not succeeded.
fn cut_off(draft: &mut Draft<'_>, index: usize, human: Text) {
    let node = draft.node(index);
    let error = ErrorContext {
        code: Cow::Borrowed(codes::CANCELED),
        human,
        tech: None,
    };
    close(draft, index, StepStatus::Failed, Some(error.clone()));
    draft.event(EventData::StepFailed {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        error_code: error.code,
        error_human: Box::new(error.human.clone()),
        will_retry: false,
        next_attempt_at: None,
    });
    draft.log_step(LogLevel::Warn, &node, error.human, None);
}

/// Cuts off what is under way, waits, or may have begun, before the run ends.
pub(super) fn cut_off_open(draft: &mut Draft<'_>) {
    for index in 0..draft.state.steps.len() {
        let step = &draft.state.steps[index];
        if step.status == StepStatus::Running || step.activity == Activity::InDoubt {
            let text = cut_off_text(draft, index);
            cut_off(draft, index, text);
        }
    }
}

/// What is said of a step whose effect may have happened when nobody can ask any more.
fn cut_off_text(draft: &Draft<'_>, index: usize) -> Text {
    let node = draft.node(index);
    let step = &draft.state.steps[index];
    if step.activity == Activity::Waiting || repeatable(draft, &node) {
        Text::key("error-canceled")
    } else {
        Text::key("error-canceled-outcome-unknown").with("label", &node.label)
    }
}

/// What went wrong last with a step that was left behind.
pub(super) fn left_over_error(draft: &Draft<'_>) -> Option<ErrorContext> {
    let mut steps = draft.state.steps.iter();
    steps
        .rfind(|step| step.status == StepStatus::Failed)?
        .error
        .clone()
}

pub(super) fn succeeded(draft: &mut Draft<'_>, index: usize, output: Arc<Value>) {
    let node = draft.node(index);
    // What a later attempt has made good is not what went wrong with the run.
    let error = &draft.state.steps[index].error;
    if error.is_some() && *error == draft.state.execution.error {
        draft.state.execution.error = left_over_error(draft);
    }
    let snapshot = draft.env.redaction.snapshot(&output);
    {
        let step = draft.step(index);
        step.data_out = Some(snapshot.clone());
        step.output = Some(Arc::clone(&output));
    }
    close(draft, index, StepStatus::Success, None);
    let duration_ms = draft.state.steps[index].duration_ms().unwrap_or(0);
    draft.event(EventData::StepCompleted {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        duration_ms,
        // What a trigger step gives out is trigger data, which goes into no event.
        output_preview: (node.phase != Phase::Trigger).then(|| Redaction::preview(&snapshot)),
    });
    draft.log_step(
        LogLevel::Ok,
        &node,
        Text::key("log-step-completed").with("label", &node.label),
        None,
    );
    // An approval has neither made nor sent a document, wherever it stands.
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

fn close(draft: &mut Draft<'_>, index: usize, status: StepStatus, error: Option<ErrorContext>) {
    let now = draft.now;
    let step = draft.step(index);
    step.status = status;
    step.activity = Activity::Idle;
    step.completed_at = Some(now);
    step.error = error;
    draft.rest_phase();
    let phase = draft.state.steps[index].phase;
    if let Some(times) = &mut draft.state.execution.phase_metrics.0[phase as usize] {
        times.completed_at = Some(now);
    }
}

/// A step that could not even be opened.
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
    failed(draft, index, failure)
}

pub(super) fn failed(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    let StepFailure {
        class,
        context,
        retry_after_ms,
    } = failure;
    let attempts = draft.state.steps[index].attempt - draft.state.steps[index].attempts_before;
    let next_attempt_at = (class == FailureClass::Retryable && has_attempts_left(draft, index))
        .then(|| {
            let delay = node.retry.delay_ms(attempts, draft.random());
            draft
                .clock
                .plus_millis(delay.max(retry_after_ms.unwrap_or(0)))
        });
    if let Some(at) = next_attempt_at {
        let step = draft.step(index);
        step.status = StepStatus::Pending;
        step.activity = Activity::Idle;
        step.error = Some(context.clone());
        // A pause outlasts the backoff: the next attempt comes when a person lets it.
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
        close(draft, index, StepStatus::Failed, Some(context.clone()));
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
    draft.state.execution.error = Some(context.clone());
    if next_attempt_at.is_some() {
        return Ok(());
    }
    if node.phase == Phase::Delivery {
        draft.state.execution.delivery_state = DeliveryState::Failed;
    }
    let status = draft.state.execution.status;
    // What people have signed is not given up because of what comes after it.
    let reviews = class == FailureClass::Review
        || node.on_error == OnError::Review
        || super::signature::is_signed(draft, index);
    // Neither what a person is to see to, what may have happened in the world, nor what people have
    // decided is passed over, whatever the node says.
    let may_continue = class != FailureClass::Review
        && !context.leaves_outcome_open()
        && !DECISIONS.contains(&&*context.code);
    match node.on_error {
        OnError::Continue if may_continue => {
            draft.update_progress(0.0);
            Ok(())
        }
        // A terminal step of an execution that a signal has ended meanwhile changes nothing more.
        _ if status.is_terminal() => Ok(()),
        _ if reviews && status != Status::NeedsReview => draft.park(
            "step_failed",
            json!({"node_id": node.id, "error_code": context.code}),
        ),
        OnError::Fail | OnError::Review | OnError::Continue => {
            draft.fail("step_failed", context, None)
        }
    }
}
