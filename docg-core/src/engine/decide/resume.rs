//! Applies a resume: a person lets the execution go on.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{draft::Draft, interrupted, signature, step};
use crate::{
    error::{ErrorContext, codes},
    event::EventData,
    i18n::Text,
    observe::{Actor, LogLevel, actions},
    ports::{ResumeSignal, Settlement},
    run::{Activity, InvalidTransition, Outcome, Status, StepStatus},
};

pub(super) fn apply(
    draft: &mut Draft<'_>,
    actor: Actor,
    request: ResumeSignal,
) -> Result<bool, InvalidTransition> {
    let status = draft.state.execution.status;
    if request.approved == Some(false) {
        let human = Text::key("error-review-rejected");
        let error = ErrorContext {
            code: codes::REVIEW_REJECTED.into(),
            human,
            tech: None,
        };
        draft.fail("review_rejected", error, Some(actor))?;
        return Ok(true);
    }
    let failed = draft.current().filter(|index| {
        status == Status::NeedsReview && draft.state.steps[*index].status == StepStatus::Failed
    });
    // If the outcome is unknown, the person must settle it, because going on could repeat the effect. If the
    // outcome is known, the person must not settle it.
    let is_open = failed.is_some_and(|index| draft.state.steps[index].is_outcome_open());
    if is_open != request.settlement.is_some() {
        return Ok(false);
    }
    let changed = change_inputs(draft, &request);
    draft.end_wait();
    let by = actor.actor_id.to_string();
    let facts = json!({"changed": changed, "settlement": request.settlement.as_ref().map(|s| match s {
        Settlement::ConfirmDone(_) => "confirm_done",
        Settlement::RunAgain => "run_again",
    })});
    match status {
        Status::NeedsReview => {
            draft.resume_to(Status::Running, actor, facts)?;
            draft.state.execution.preflight_due = true;
            if let Some(index) = failed {
                settle_failed_step(draft, index, request.settlement);
            }
            draft.state.execution.error = step::left_over_error(draft);
            interrupted::wait_as_before(draft)?;
        }
        Status::Paused => {
            let to = draft.state.execution.paused_from.unwrap_or(Status::Running);
            draft.resume_to(to, actor, facts)?;
            if changed {
                draft.state.execution.preflight_due = true;
            }
            signature::wait_again(draft);
            draft.work_again();
        }
        _ => {
            draft.state.execution.delivery_confirmed = true;
            if changed {
                draft.state.execution.preflight_due = true;
            }
            draft.audit_call(actions::RESUMED, actor, facts);
        }
    }
    draft.event(EventData::Resumed {
        resumed_by: by.clone(),
    });
    draft.log_run(LogLevel::Ok, Text::key("log-resumed").with("by", by));
    Ok(true)
}

fn settle_failed_step(draft: &mut Draft<'_>, index: usize, settlement: Option<Settlement>) {
    if let Some(Settlement::ConfirmDone(output)) = settlement {
        step::succeeded(draft, index, Arc::new(output));
        return;
    }
    let step = draft.step(index);
    step.status = StepStatus::Pending;
    step.activity = Activity::Idle;
    step.completed_at = None;
    step.error = None;
    step.outcome = Outcome::Known;
    step.takeovers = 0;
    step.attempts_before = step.attempt;
}

/// Applies a person's changes; returns true if there were any.
fn change_inputs(draft: &mut Draft<'_>, request: &ResumeSignal) -> bool {
    let data = request
        .trigger_data
        .as_ref()
        .filter(|data| !data.is_empty());
    if data.is_none() && request.nodes.is_empty() {
        return false;
    }
    let inputs = Arc::make_mut(&mut draft.state.inputs);
    if let Some(data) = data {
        merge(Arc::make_mut(&mut inputs.trigger_data), data);
    }
    for (node, params) in &request.nodes {
        let overrides = inputs
            .node_overrides
            .entry(node.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        // A parameter is replaced as a whole; its old value is not merged.
        if let (Value::Object(overrides), Value::Object(params)) = (overrides, params) {
            overrides.extend(params.clone());
        }
    }
    draft.inputs_changed();
    true
}

/// Merges objects at every depth and replaces anything else. Unlike in RFC 7396, `null` is a value, because
/// trigger data may need one.
fn merge(target: &mut Value, changes: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, change) in changes {
        match (target.get_mut(key), change) {
            (Some(old @ Value::Object(_)), Value::Object(change)) => merge(old, change),
            _ => {
                target.insert(key.clone(), change.clone());
            }
        }
    }
}
