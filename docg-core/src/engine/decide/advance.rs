//! Finds the next thing to do: skips steps that must not run, moves the status along with the phases, and
//! opens the next step.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{Env, Next, draft::Draft, step};
use crate::{
    approval::Decision,
    error::{StepFailure, codes},
    event::EventData,
    i18n::Text,
    observe::LogLevel,
    ports::RunState,
    run::{
        Activity, DeliveryState, InvalidTransition, Phase, SignatureState, Status, Step,
        StepStatus, WaitKind,
    },
    signature::RequestStatus,
    workflow::{
        Node, NodeSpec, Resolution, condition, param,
        variables::{self, Scope, Unresolved},
    },
};

pub(super) fn advance(draft: &mut Draft<'_>) -> Result<Next, InvalidTransition> {
    loop {
        let execution = &draft.state.execution;
        match execution.status {
            Status::Completed | Status::Failed | Status::Canceled => return Ok(Next::Done),
            // If a step was under way when the pause came, its driver lets it end.
            Status::Paused | Status::NeedsReview => return Ok(Next::Rest),
            _ => {}
        }
        if execution.status == Status::Queued {
            if !draft.opens_steps {
                return Ok(Next::Rest);
            }
            let actor = (*draft.state.execution.created_by).clone();
            draft.transition_by(Status::Running, "claimed", Some(actor), Value::Null)?;
            draft.log_run(LogLevel::Ok, Text::key("log-started"));
            continue;
        }
        if let Some(next) = open_step(draft) {
            return Ok(next);
        }
        // Skip preflight while waiting for people: no step is about to start.
        let waits = |step: &Step| step.activity == Activity::Waiting;
        if draft.state.execution.preflight_due && !draft.state.steps.iter().any(waits) {
            return Ok(if draft.opens_steps {
                Next::Preflight
            } else {
                Next::Rest
            });
        }
        settle_status(draft)?;
        let Some(index) = draft
            .state
            .steps
            .iter()
            .position(|step| !step.status.is_ended())
        else {
            complete(draft)?;
            return Ok(Next::Done);
        };
        if draft.state.steps[index].status == StepStatus::Running {
            // The step waits for people; a signal or a timer ends the wait.
            return Ok(Next::Rest);
        }
        if is_waiting_still(draft) || !draft.opens_steps {
            return Ok(Next::Rest);
        }
        let node = draft.node(index);
        if let Some((reason, message)) = reason_to_skip(&draft.state, draft.env, index) {
            skip(draft, index, &node, reason, message);
            continue;
        }
        match wanted(draft, &node) {
            Ok(true) => {}
            Ok(false) => {
                let (reason, message) = UNWANTED;
                skip(draft, index, &node, reason, message);
                continue;
            }
            Err(failure) => {
                step::fail_unopened(draft, index, failure)?;
                continue;
            }
        }
        if !enter_phase(draft, index, node.phase)? {
            return Ok(Next::Rest);
        }
        match open(draft, index, &node) {
            Ok(params) => {
                draft.params = Some(params);
                if let Some(next) = open_step(draft) {
                    return Ok(next);
                }
            }
            Err(failure) => step::fail_unopened(draft, index, failure)?,
        }
    }
}

/// The next thing to do for the step under way; `None` if no step is.
fn open_step(draft: &mut Draft<'_>) -> Option<Next> {
    let mut steps = draft.state.steps.iter();
    let index = steps.position(|step| step.activity.is_at_work())?;
    let params = match draft.params.take() {
        Some(params) => params,
        // An earlier decision opened the step. Its variables were present then and have not changed.
        None => super::params_of(draft.env.registry, &draft.state, index).unwrap_or_default(),
    };
    Some(match draft.state.steps[index].activity {
        Activity::Running => Next::Run { index, params },
        Activity::Resuming => match resolution(draft) {
            Some(resolution) => Next::Resume {
                index,
                params,
                resolution,
            },
            None => Next::Run { index, params },
        },
        _ => Next::Probe { index, params },
    })
}

/// The result of a successful wait, for the handler.
fn resolution(draft: &Draft<'_>) -> Option<Resolution> {
    let index = draft.current()?;
    let node = &draft.state.steps[index].node_id;
    if let Some(request) = draft
        .state
        .signature
        .as_ref()
        .filter(|request| request.node_id == *node && request.status == RequestStatus::Signed)
    {
        return Some(Resolution::Signed(Box::new(request.clone())));
    }
    let approval = draft.state.approval.as_ref().filter(|approval| {
        approval.node_id == *node && approval.decision == Some(Decision::Approved)
    })?;
    Some(Resolution::Approved(json!({
        "decision": approval.decision,
        "decided_by": approval.decided_by,
        "comment": approval.comment(),
    })))
}

fn is_waiting_still(draft: &Draft<'_>) -> bool {
    draft
        .state
        .execution
        .waiting_for
        .as_ref()
        .is_some_and(|waiting| match waiting.kind {
            WaitKind::Retry => waiting.until.is_some_and(|until| until > draft.clock),
            WaitKind::Confirmation => !draft.state.execution.delivery_confirmed,
            WaitKind::Review | WaitKind::Approval | WaitKind::Signature | WaitKind::Pause => true,
        })
}

/// Leaves `sending` or `signing` when its step ends; between two attempts the status stays.
fn settle_status(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let under_way =
        |phase| {
            draft.state.steps.iter().any(|step| {
                step.phase == phase && !step.status.is_ended() && step.started_at.is_some()
            })
        };
    let succeeded = |phase| {
        let last = draft
            .state
            .steps
            .iter()
            .rfind(|step| step.phase == phase && step.started_at.is_some());
        last.is_some_and(|step| step.status == StepStatus::Success)
    };
    match draft.state.execution.status {
        Status::Sending if !under_way(Phase::Delivery) => {
            let state = if succeeded(Phase::Delivery) {
                DeliveryState::Sent
            } else {
                DeliveryState::Failed
            };
            draft.state.execution.delivery_state = state;
            draft.transition(Status::Sent, "delivered")
        }
        Status::Signing if !under_way(Phase::Signature) => {
            if succeeded(Phase::Signature) {
                draft.state.execution.signature_state = SignatureState::Signed;
            }
            draft.transition(Status::Signed, "signed")
        }
        _ => Ok(()),
    }
}

/// The reason and the log message for a step that is skipped because its condition is false.
const UNWANTED: (&str, &str) = ("condition", "log-step-skipped-condition");

/// Skips a step whose condition is false, if the step is known not to have begun.
pub(super) fn skip_unwanted(draft: &mut Draft<'_>, index: usize, node: &Node) {
    if matches!(wanted(draft, node), Ok(false)) {
        let (reason, message) = UNWANTED;
        draft.rest_phase();
        skip(draft, index, node, reason, message);
    }
}

/// The reason and the log message for a step that must not run at all.
pub(super) fn reason_to_skip(
    state: &RunState,
    env: Env<'_>,
    index: usize,
) -> Option<(&'static str, &'static str)> {
    let (node, execution) = (&state.workflow.nodes[index], &state.execution);
    // A step that has begun is not skipped for these reasons.
    if state.steps[index].started_at.is_some() {
        return None;
    }
    if execution
        .until_phase
        .is_some_and(|until| node.phase > until)
    {
        return Some(("until_phase", "log-step-skipped-until-phase"));
    }
    let runs_dry = node.phase.runs_dry() && env.dry.get(&node.node_type).is_some();
    if execution.dry_run && !runs_dry {
        return Some(("dry_run", "log-step-skipped-dry-run"));
    }
    None
}

fn wanted(draft: &Draft<'_>, node: &Node) -> Result<bool, StepFailure> {
    let Some(expression) = &node.when else {
        return Ok(true);
    };
    condition::evaluate(expression, &scope(draft)).map_err(|e| {
        StepFailure::review(
            codes::INVALID_CONDITION,
            Text::key("error-condition-failed"),
        )
        .tech(e)
    })
}

fn scope<'s>(draft: &'s Draft<'_>) -> Scope<'s> {
    Scope {
        trigger: &draft.state.inputs.trigger_data,
        steps: &draft.state.steps,
        execution: &draft.state.execution,
    }
}

fn resolved(draft: &Draft<'_>, node: &Node, spec: &NodeSpec) -> Result<Value, StepFailure> {
    let params = variables::effective_params(node, &draft.state.inputs.node_overrides);
    let mut params = variables::resolve(&params, &scope(draft)).map_err(|unresolved| {
        let (code, text) = match &unresolved {
            Unresolved::Absent(paths) => (
                codes::UNRESOLVED_VARIABLES,
                Text::key("error-unresolved-variables").with("paths", paths.join(", ")),
            ),
            Unresolved::TooLarge(_) => (
                codes::PARAMETERS_TOO_LARGE,
                Text::key("issue-parameters-too-large").with("label", &node.label),
            ),
        };
        StepFailure::review(code, text).tech(unresolved)
    })?;
    if let Value::Object(given) = &mut params {
        spec.drop_blanks(given);
    }
    Ok(params)
}

fn skip(
    draft: &mut Draft<'_>,
    index: usize,
    node: &Node,
    reason: &'static str,
    message: &'static str,
) {
    let now = draft.now;
    let step = draft.step(index);
    step.status = StepStatus::Skipped;
    step.activity = Activity::Idle;
    step.completed_at = Some(now);
    step.data_out = Some(json!({"reason": reason, "phase": node.phase}).into());
    draft.event(EventData::StepSkipped {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        reason: Cow::Borrowed(reason),
    });
    let text = Text::Key {
        key: Cow::Borrowed(message),
        params: Vec::new(),
    }
    .with("label", &node.label);
    draft.log_step(LogLevel::Ok, node, text, None);
    draft.update_progress(0.0);
}

/// Moves the status to that of the phase; returns `false` if a person must confirm first.
fn enter_phase(
    draft: &mut Draft<'_>,
    index: usize,
    phase: Phase,
) -> Result<bool, InvalidTransition> {
    let target = match phase {
        Phase::Delivery => Status::Sending,
        Phase::Signature => Status::Signing,
        Phase::Preflight | Phase::Trigger | Phase::Render | Phase::Save => Status::Running,
    };
    if draft.state.execution.status == target {
        return Ok(true);
    }
    if target == Status::Running {
        draft.transition(Status::Running, "phase")?;
        return Ok(true);
    }
    if draft.state.execution.status == Status::Running {
        draft.transition(Status::Ready, "documents_ready")?;
    }
    let execution = &draft.state.execution;
    if draft.state.workflow.settings.confirm_before_delivery && !execution.delivery_confirmed {
        if execution.status != Status::Ready {
            draft.transition(Status::Ready, "documents_ready")?;
        }
        draft.set_current(index);
        draft.wait(WaitKind::Confirmation, None, json!({"action": "resume"}));
        draft.log_run(LogLevel::Ok, Text::key("log-waiting-confirmation"));
        return Ok(false);
    }
    draft.transition(target, "phase")?;
    Ok(true)
}

/// Opens a step. Once this is committed, the intent to run the step is recorded.
pub(super) fn open(
    draft: &mut Draft<'_>,
    index: usize,
    node: &Node,
) -> Result<Arc<Value>, StepFailure> {
    let registry = draft.env.registry;
    let Some(handler) = registry.get(&node.node_type) else {
        let text = Text::key("error-unknown-node-type").with("type", &node.node_type);
        return Err(StepFailure::review(codes::UNKNOWN_NODE_TYPE, text));
    };
    let spec = handler.spec();
    let params = resolved(draft, node, spec)?;
    let is_signed = super::signature::is_signed(draft, index);
    // Completed signatures stand, even if the parameters are no longer valid.
    if let Some(failure) = param::failure(spec, &params, &node.label).filter(|_| !is_signed) {
        return Err(failure);
    }
    let params = Arc::new(params);
    draft.end_wait();
    let (now, data_in) = (draft.now, draft.env.redaction.snapshot(&params));
    let is_answered = step::is_answered(draft, index);
    let step = draft.step(index);
    step.status = StepStatus::Running;
    // Do not ask people again for what they have signed or approved.
    step.activity = if is_answered {
        Activity::Resuming
    } else {
        Activity::Running
    };
    step.attempt += 1;
    step.started_at.get_or_insert(now);
    step.data_in = Some(data_in);
    let (position, attempt) = (step.position, step.attempt);
    draft.set_current(index);
    draft.work_phase(node.phase);
    draft.event(EventData::StepStarted {
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        position,
        attempt,
    });
    draft.log_step(
        LogLevel::Ok,
        node,
        Text::key("log-step-started").with("label", &node.label),
        None,
    );
    Ok(params)
}

fn complete(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    draft.ends_by_itself();
    draft.end_wait();
    draft.state.execution.current_step = None;
    draft.transition(Status::Completed, "all_steps_done")?;
    let execution = &draft.state.execution;
    let began = execution.started_at.unwrap_or(execution.created_at);
    let waited: u64 = execution
        .phase_metrics
        .iter()
        .map(|(_, times)| times.waiting_ms)
        .sum();
    let duration_ms = draft.now.millis_since(began).saturating_sub(waited);
    draft.event(EventData::Completed { duration_ms });
    draft.log_run(LogLevel::Ok, Text::key("log-completed"));
    Ok(())
}
