//! The answers of handlers: to a call, to a probe, and after they were told to stop.
//!
//! If a handler was told to stop, its success or its wait counts as always. Its error never counts as the
//! step's own failure. If the error leaves the outcome unknown (`view::leaves_doubt`), the handler is probed.
//! Otherwise the step runs again, has timed out, or ends with its execution.

use std::sync::Arc;

use super::super::{draft::Draft, phases, steps, view};
use crate::{
    error::{FailureClass, StepFailure, codes},
    i18n::Text,
    observe::LogLevel,
    run::{DeliveryState, Doubt, InvalidTransition, Outcome, Phase, Status, StepState},
    workflow::{Node, Probe, StepOutcome, StopReason, Wait},
};

/// Applies a handler's result. `told` is the reason if the handler was told to stop before that.
pub(in super::super) fn finished(
    draft: &mut Draft<'_>,
    index: usize,
    result: Result<StepOutcome, StepFailure>,
    told: Option<StopReason>,
) -> Result<(), InvalidTransition> {
    // In any other state the result is stale: a waiting step ends by signal, an unknown outcome by probe.
    if !matches!(
        draft.state().steps[index].state,
        StepState::Running | StepState::Resuming
    ) {
        return Ok(());
    }
    match (result, told) {
        (Ok(StepOutcome::Done(output)), Some(StopReason::Cancel)) => {
            settle(draft, index, Probe::Done(output))
        }
        (Ok(StepOutcome::Wait(wait)), Some(StopReason::Cancel)) => {
            settle(draft, index, Probe::Begun(wait))
        }
        (Ok(StepOutcome::Done(output)), _) => {
            steps::succeed(draft, index, Arc::new(output));
            Ok(())
        }
        (Ok(StepOutcome::Wait(wait)), _) => steps::wait(draft, index, wait),
        (Err(failure), None) => attempt_failed(draft, index, failure),
        (Err(failure), Some(reason)) => stopped(draft, index, failure, reason),
    }
}

/// Ends a failed attempt. If the outcome is unknown and the effect is not safe to repeat, the handler is
/// probed.
fn attempt_failed(
    draft: &mut Draft<'_>,
    index: usize,
    mut failure: StepFailure,
) -> Result<(), InvalidTransition> {
    match failure.class {
        FailureClass::OutcomeUnknown | FailureClass::AnswerRefused
            if !view::may_repeat(draft.state(), draft.env, index) =>
        {
            let doubt = match failure.class {
                FailureClass::AnswerRefused => Doubt::AnswerRefused,
                _ => Doubt::AttemptFailed,
            };
            draft.edit_step(index).error = Some(failure.context);
            steps::doubt(draft, index, doubt, "log-step-probing");
            return Ok(());
        }
        // Retry: the effect is safe to repeat, or the handler stopped without being told to.
        FailureClass::OutcomeUnknown | FailureClass::AnswerRefused | FailureClass::Stopped => {
            failure.class = FailureClass::Retryable;
        }
        FailureClass::Retryable | FailureClass::Review | FailureClass::Final => {}
    }
    steps::fail(draft, index, failure, Outcome::Known)
}

/// Applies the error of a handler that was told to stop.
fn stopped(
    draft: &mut Draft<'_>,
    index: usize,
    failure: StepFailure,
    reason: StopReason,
) -> Result<(), InvalidTransition> {
    let in_doubt = view::leaves_doubt(draft.state(), draft.env, index, failure.class);
    match reason {
        // The handler did answer, and its answer was rejected: that is no timeout.
        StopReason::Deadline if failure.class == FailureClass::AnswerRefused => {
            attempt_failed(draft, index, failure)
        }
        StopReason::Deadline => {
            let failure = timeout(&draft.node(index), failure, in_doubt);
            attempt_failed(draft, index, failure)
        }
        StopReason::Shutdown | StopReason::LeaseLost if in_doubt => {
            // The next worker continues this attempt with a probe.
            steps::doubt(draft, index, Doubt::LeftOpen, "log-step-left-open");
            if draft.execution().status == Status::Paused {
                phases::rest(draft);
            }
            Ok(())
        }
        StopReason::Shutdown | StopReason::LeaseLost => {
            steps::put_back(draft, index);
            Ok(())
        }
        StopReason::Cancel if in_doubt => {
            let mut error = failure.context;
            if matches!(
                failure.class,
                FailureClass::OutcomeUnknown | FailureClass::AnswerRefused
            ) {
                // Do not call the outcome unknown in the error, because the probe may find it out.
                let tech = error.tech.take();
                error = steps::canceled(Text::key("error-canceled"));
                error.tech = tech;
            }
            draft.edit_step(index).error = Some(error);
            steps::doubt(draft, index, Doubt::Canceled, "log-step-probing");
            Ok(())
        }
        StopReason::Cancel => {
            let error = match failure.class {
                FailureClass::Stopped
                | FailureClass::OutcomeUnknown
                | FailureClass::AnswerRefused => steps::canceled(Text::key("error-canceled")),
                _ => failure.context,
            };
            steps::cut_off(draft, index, error);
            Ok(())
        }
    }
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

/// Applies the answer to a probe. `told` is the reason if the handler was told to stop before that.
pub(in super::super) fn probed(
    draft: &mut Draft<'_>,
    index: usize,
    effect: Probe,
    told: Option<StopReason>,
) -> Result<(), InvalidTransition> {
    let StepState::Probing(doubt) = draft.state().steps[index].state else {
        return Ok(());
    };
    match told {
        Some(StopReason::Cancel) => return settle(draft, index, effect),
        // The probe was interrupted; another worker may get an answer.
        Some(StopReason::Shutdown | StopReason::LeaseLost) if effect == Probe::Unknown => {
            return Ok(());
        }
        Some(StopReason::Shutdown | StopReason::LeaseLost | StopReason::Deadline) | None => {}
    }
    // After a failed attempt the retry policy decides whether the step runs again. A takeover uses up no
    // attempt.
    let failed = draft.state().steps[index].error.clone();
    let failed = failed.filter(|_| doubt != Doubt::LeftOpen);
    let runs_again = failed.is_none() || view::has_attempts_left(draft.state(), index);
    let key = match (&effect, runs_again) {
        (Probe::Unknown, _) => {
            let failure = outcome_unknown(draft, index, doubt);
            return steps::fail(draft, index, failure, Outcome::Unknown);
        }
        (Probe::Begun(_), true) => "log-step-probed-begun",
        (Probe::Done(_), _) | (Probe::Begun(_), false) => "log-step-probed-done",
        (Probe::NotDone, true) => "log-step-probed-not-done",
        (Probe::NotDone, false) => "log-step-probed-not-done-last",
    };
    let node = draft.node(index);
    let text = Text::key(key).with("label", &node.label);
    draft.log_step(LogLevel::Ok, &node, text, None);
    let is_answered = view::is_answered(draft.state(), index);
    match effect {
        Probe::Done(output) => {
            steps::succeed(draft, index, Arc::new(output));
            return Ok(());
        }
        // The effect is a request to people, and no attempt is left to pick it up: wait for its answer.
        Probe::Begun(wait) if !runs_again && !is_answered => {
            return steps::wait(draft, index, wait);
        }
        Probe::Begun(_) => draft.has_begun = true,
        Probe::NotDone | Probe::Unknown => {}
    }
    if let Some(context) = failed {
        let failure = StepFailure {
            class: FailureClass::Retryable,
            context,
            retry_after_ms: None,
        };
        return steps::fail(draft, index, failure, Outcome::Known);
    }
    if is_answered {
        draft.edit_step(index).state = StepState::Resuming;
        return Ok(());
    }
    draft.edit_step(index).state = StepState::Running;
    // The step may have been open for its unknown outcome only, and runs again now. If its condition has become
    // false meanwhile, skip it.
    if matches!(view::is_wanted(draft.state(), index), Ok(false)) {
        phases::rest(draft);
        steps::skip(draft, index, steps::UNWANTED);
    }
    Ok(())
}

/// The failure of a step whose outcome stays unknown. A person must settle it.
fn outcome_unknown(draft: &Draft<'_>, index: usize, doubt: Doubt) -> StepFailure {
    let step = &draft.state().steps[index];
    let label = &step.label;
    let text = Text::key("error-outcome-unknown").with("label", label);
    let mut failure = StepFailure::review(codes::OUTCOME_UNKNOWN, text);
    if let Some(error) = step.error.clone() {
        failure.context.tech = error.tech;
        // A rejected answer has its own code, which tells the person what to confirm.
        if doubt == Doubt::AnswerRefused {
            failure.context.human = Text::key("error-answer-not-kept")
                .with_text("why", error.human)
                .with("label", label);
            failure.context.code = error.code;
        }
    }
    failure
}

/// Ends a step under way, because a person ends the execution. `effect` is what is known of the step's
/// effect.
fn settle(draft: &mut Draft<'_>, index: usize, effect: Probe) -> Result<(), InvalidTransition> {
    let (node, step) = (draft.node(index), &draft.state().steps[index]);
    let is_of_attempt = step.state == StepState::Probing(Doubt::Canceled);
    let error = step.error.clone().filter(|_| is_of_attempt);
    let effect_done = || Text::key("error-canceled-effect-done").with("label", &node.label);
    let error = match effect {
        Probe::Done(output) => {
            draft.log_step(LogLevel::Warn, &node, effect_done(), None);
            steps::succeed(draft, index, Arc::new(output));
            if node.phase == Phase::Delivery {
                draft.edit().delivery_state = DeliveryState::Sent;
            }
            return Ok(());
        }
        // The status `needs_review` cannot turn into a wait for an approval. The approval request ends with
        // the execution.
        Probe::Begun(Wait::Approval(_)) if draft.execution().status == Status::NeedsReview => {
            steps::canceled(effect_done())
        }
        // Record the request, so that the end of the execution withdraws it.
        Probe::Begun(wait) => {
            draft.log_step(LogLevel::Warn, &node, effect_done(), None);
            return steps::wait(draft, index, wait);
        }
        Probe::NotDone => error.unwrap_or_else(|| steps::canceled(Text::key("error-canceled"))),
        Probe::Unknown => {
            let text = Text::key("error-canceled-outcome-unknown").with("label", &node.label);
            let mut canceled = steps::canceled(text);
            canceled.tech = error.and_then(|error| error.tech);
            canceled
        }
    };
    steps::cut_off(draft, index, error);
    Ok(())
}
