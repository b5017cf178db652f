//! Handles a step whose handler was told to stop, or whose execution ends while the step is under way.
//!
//! The answer of a handler that was told to stop never ends the execution. A success or a wait counts, and so
//! does an error by which the handler says that it may run again. After any other error of an effect that is
//! not safe to repeat, the outcome is unknown and the handler is probed.

use std::{borrow::Cow, sync::Arc};

use super::{
    Env,
    draft::Draft,
    step::{self, close, succeeded},
};
use crate::{
    error::{ErrorContext, FailureClass, StepFailure, codes},
    event::EventData,
    i18n::Text,
    observe::LogLevel,
    ports::RunState,
    run::{Activity, DeliveryState, InvalidTransition, Outcome, Phase, Status, StepStatus},
    workflow::{Node, Probe, StepOutcome, StopReason, Wait},
};

/// True if an error after a request to stop leaves the outcome unknown. After its wait a step is safe to
/// repeat: its effect was the request, and the request is done.
pub(crate) fn leaves_doubt(
    state: &RunState,
    env: Env<'_>,
    index: usize,
    class: FailureClass,
) -> bool {
    let node = &state.workflow.nodes[index];
    if super::is_repeatable(env.registry, &state.execution, node) {
        return false;
    }
    match class {
        // The handler says that it may run again.
        FailureClass::Stopped | FailureClass::Retryable => false,
        FailureClass::OutcomeUnknown => true,
        FailureClass::Review | FailureClass::Final => {
            state.steps[index].activity == Activity::Running
        }
    }
}

/// Handles an error from a handler that was told to stop.
pub(super) fn failed(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
    reason: StopReason,
) -> Result<(), InvalidTransition> {
    let in_doubt = leaves_doubt(&draft.state, draft.env, index, failure.class);
    match reason {
        StopReason::Deadline => {
            let failure = timeout(&draft.node(index), failure, in_doubt);
            step::failed_attempt(draft, index, failure)
        }
        StopReason::Shutdown | StopReason::LeaseLost => {
            if in_doubt {
                leave_open(draft, index);
            } else {
                run_again(draft, index);
            }
            Ok(())
        }
        StopReason::Cancel => {
            let effect = if in_doubt {
                Probe::Unknown
            } else {
                Probe::NotDone
            };
            dropped(draft, index, effect, Some(failure))
        }
    }
}

/// Handles a success or a wait that follows a cancel.
pub(super) fn finished_canceled(
    draft: &mut Draft<'_>,
    index: usize,
    outcome: StepOutcome,
) -> Result<(), InvalidTransition> {
    let effect = match outcome {
        StepOutcome::Done(output) => Probe::Done(output),
        StepOutcome::Wait(wait) => Probe::Begun(wait),
    };
    dropped(draft, index, effect, None)
}

/// The failure of a step that has used up its time. The handler's own error goes into the technical text.
fn timeout(node: &Node, failure: StepFailure, in_doubt: bool) -> StepFailure {
    let limit = node.timeout_ms;
    let text = if limit.is_multiple_of(1000) {
        Text::key("error-timeout").with("seconds", limit / 1000)
    } else {
        Text::key("error-timeout-ms").with("millis", limit)
    };
    let text = text.with("label", &node.label);
    let mut timeout = StepFailure::retryable(codes::TIMEOUT, text);
    if in_doubt {
        timeout.class = FailureClass::OutcomeUnknown;
    }
    timeout.retry_after_ms = failure.retry_after_ms;
    let said = match (failure.class, &failure.context.tech) {
        (FailureClass::Stopped, _) => String::new(),
        (_, None) => format!(", then {failure}"),
        (_, Some(tech)) => format!(", then {failure} {tech}"),
    };
    timeout.tech(format!("no result within {limit} ms{said}"))
}

/// Lets another worker run the step again, without counting the attempt. A step that continues after its wait
/// stays open for the next worker instead.
fn run_again(draft: &mut Draft<'_>, index: usize) {
    if draft.state.steps[index].activity != Activity::Running {
        return;
    }
    let node = draft.node(index);
    let step = draft.step(index);
    step.status = StepStatus::Pending;
    step.activity = Activity::Idle;
    step.attempt -= 1;
    draft.rest_phase();
    let text = Text::key("log-step-stopped").with("label", &node.label);
    draft.log_step(LogLevel::Warn, &node, text, None);
}

/// Leaves the step open: the next worker probes it before anything else. The attempt continues.
fn leave_open(draft: &mut Draft<'_>, index: usize) {
    let node = draft.node(index);
    draft.step(index).activity = Activity::ProbingTakeover;
    if draft.state.execution.status == Status::Paused {
        draft.rest_phase();
    }
    let text = Text::key("log-step-left-open").with("label", &node.label);
    draft.log_step(LogLevel::Warn, &node, text, None);
}

/// Drops a step under way, because a person ends the execution. `effect` is the known state of its effect,
/// and `failure` is the handler's error.
pub(super) fn dropped(
    draft: &mut Draft<'_>,
    index: usize,
    effect: Probe,
    failure: Option<StepFailure>,
) -> Result<(), InvalidTransition> {
    let node = draft.node(index);
    if draft.state.steps[index].status != StepStatus::Running {
        return Ok(());
    }
    let effect_done = || Text::key("error-canceled-effect-done").with("label", &node.label);
    match effect {
        Probe::Done(output) => {
            draft.log_step(LogLevel::Warn, &node, effect_done(), None);
            succeeded(draft, index, Arc::new(output));
            if node.phase == Phase::Delivery {
                draft.state.execution.delivery_state = DeliveryState::Sent;
            }
        }
        // A review cannot turn into a wait for an approval. The request ends with the execution.
        Probe::Begun(Wait::Approval(_)) if draft.state.execution.status == Status::NeedsReview => {
            cut_off(draft, index, canceled(effect_done()));
        }
        // Record the request, so that the end of the execution withdraws it.
        Probe::Begun(wait) => {
            draft.log_step(LogLevel::Warn, &node, effect_done(), None);
            step::begin_wait(draft, index, wait)?;
        }
        Probe::NotDone => {
            let said = failure.filter(|failure| {
                !matches!(
                    failure.class,
                    FailureClass::Stopped | FailureClass::OutcomeUnknown
                )
            });
            let error = said.map_or_else(
                || canceled(Text::key("error-canceled")),
                |failure| failure.context,
            );
            cut_off(draft, index, error);
        }
        Probe::Unknown => {
            let text = Text::key("error-canceled-outcome-unknown").with("label", &node.label);
            let mut error = canceled(text);
            error.tech = failure.and_then(|failure| failure.context.tech);
            cut_off(draft, index, error);
        }
    }
    Ok(())
}

fn canceled(human: Text) -> ErrorContext {
    ErrorContext {
        code: Cow::Borrowed(codes::CANCELED),
        human,
        tech: None,
    }
}

/// Fails a step that was under way when its execution was ended.
fn cut_off(draft: &mut Draft<'_>, index: usize, error: ErrorContext) {
    let node = draft.node(index);
    close(
        draft,
        index,
        StepStatus::Failed,
        Some(error.clone()),
        Outcome::Known,
    );
    draft.event(EventData::StepFailed {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        error_code: error.code,
        error_human: Box::new(error.human.clone()),
        will_retry: false,
        next_attempt_at: None,
    });
    draft.log_step(LogLevel::Warn, &node, error.human, error.tech);
}

/// Cuts off the steps that are under way or waiting, before the execution ends.
pub(super) fn cut_off_open(draft: &mut Draft<'_>) {
    for index in 0..draft.state.steps.len() {
        let step = &draft.state.steps[index];
        if step.status == StepStatus::Running {
            let text = cut_off_text(draft, index);
            cut_off(draft, index, canceled(text));
        }
    }
}

/// The error text of a step that is cut off, when nobody can probe its effect any more.
fn cut_off_text(draft: &Draft<'_>, index: usize) -> Text {
    let node = draft.node(index);
    let is_known = match draft.state.steps[index].activity {
        Activity::Idle | Activity::Waiting | Activity::Resuming => true,
        Activity::Running | Activity::ProbingTakeover | Activity::ProbingFailure => {
            step::repeatable(draft, &node)
        }
    };
    if is_known {
        Text::key("error-canceled")
    } else {
        Text::key("error-canceled-outcome-unknown").with("label", &node.label)
    }
}
