//! Applies a person's resume of an execution.

use std::sync::Arc;

use serde_json::json;

use super::super::{
    commands::{Command, allows},
    create,
    draft::Draft,
    end, phases, requests, status, steps, view,
};
use crate::{
    error::{ErrorContext, codes},
    event::EventData,
    i18n::Text,
    observe::{Actor, LogLevel, actions},
    ports::{ResumeSignal, Settlement},
    repair::Changes,
    run::{InvalidTransition, Outcome, Status, StepState},
};

/// Applies a person's resume. Returns false if the resume does not fit the execution's state.
pub(in super::super) fn apply(
    draft: &mut Draft<'_>,
    actor: &Actor,
    request: &ResumeSignal,
) -> Result<bool, InvalidTransition> {
    // If this decision has parked the execution, the resume was sent before that, and may be what killed
    // the workers: ignore it.
    if draft.is_interrupted || !allows(draft.execution(), Command::Resume) {
        return Ok(false);
    }
    if request.rejects() {
        return reject(draft, actor.clone());
    }
    // If the outcome is unknown, the person must settle it, because going on could repeat the effect. If the
    // outcome is known, the person must not settle it.
    let failed = failed_step(draft);
    let is_open = failed == Some(Outcome::Unknown);
    if is_open != request.settlement.is_some() {
        return Ok(false);
    }
    // A patch was checked when it was sent, but the inputs may have changed since.
    let Some(changed) = change_inputs(draft, request) else {
        return Ok(false);
    };
    status::end_wait(draft);
    let settlement = request.settlement.as_ref();
    let facts = json!({"changed": changed, "settlement": settlement.map(name_of)});
    let by = actor.actor_id.to_string();
    let actor = actor.clone();
    match draft.execution().status {
        Status::NeedsReview => {
            status::resume(draft, Status::Running, actor, facts)?;
            draft.edit().preflight_due = true;
            if let (Some(_), Some(index)) = (failed, view::current(draft.state())) {
                match settlement {
                    Some(Settlement::ConfirmDone(output)) => {
                        steps::succeed(draft, index, Arc::new(output.clone()));
                    }
                    Some(Settlement::RunAgain) | None => steps::reopen(draft, index),
                }
            }
            draft.edit().error = view::left_over_error(draft.state());
            requests::await_as_before(draft)?;
        }
        Status::Paused => {
            let to = draft.execution().paused_from.unwrap_or(Status::Running);
            status::resume(draft, to, actor, facts)?;
            draft.edit().preflight_due |= changed;
            requests::await_again(draft);
            phases::work_again(draft);
        }
        // `ready`: the person confirms the delivery.
        _ => {
            draft.edit().delivery_confirmed = true;
            draft.edit().preflight_due |= changed;
            draft.audit_call(actions::RESUMED, actor, facts);
        }
    }
    draft.event(EventData::Resumed {
        resumed_by: by.clone(),
    });
    draft.log_run(LogLevel::Ok, Text::key("log-resumed").with("by", by));
    Ok(true)
}

fn reject(draft: &mut Draft<'_>, actor: Actor) -> Result<bool, InvalidTransition> {
    let error = ErrorContext {
        code: codes::REVIEW_REJECTED.into(),
        human: Text::key("error-review-rejected"),
        tech: None,
    };
    end::fail(draft, "review_rejected", error, Some(actor))?;
    Ok(true)
}

/// The outcome of the failed step that a person reviews; `None` if the review is about no step.
fn failed_step(draft: &Draft<'_>) -> Option<Outcome> {
    let index = view::current(draft.state())?;
    match draft.state().steps[index].state {
        StepState::Failed(outcome) if draft.execution().status == Status::NeedsReview => {
            Some(outcome)
        }
        _ => None,
    }
}

fn name_of(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::ConfirmDone(_) => "confirm_done",
        Settlement::RunAgain => "run_again",
    }
}

/// Applies a person's changes. Returns true if there were any, and `None` if they cannot be applied.
fn change_inputs(draft: &mut Draft<'_>, request: &ResumeSignal) -> Option<bool> {
    let changes = Changes {
        trigger_data: request.trigger_data.as_ref(),
        nodes: &request.nodes,
        operations: &request.patch,
    };
    if changes.is_empty() {
        return Some(false);
    }
    let state = draft.state();
    let changed = changes.apply(&state.inputs, &state.workflow.nodes).ok()?;
    let title = create::title(&state.workflow, &changed, draft.env.redaction);
    *draft.edit_inputs() = changed;
    draft.edit().title = title;
    Some(true)
}
