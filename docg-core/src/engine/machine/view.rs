//! Answers questions about a run state, without changing it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Env;
use crate::{
    approval::Decision,
    error::{ErrorContext, FailureClass, StepFailure, codes},
    i18n::Text,
    ports::RunState,
    programs,
    run::{AwaitedThing, Execution, Phase, Status, StepState},
    signature::{RequestStatus, Signer, SignerStatus},
    workflow::{
        EffectClass, Handler, Node, Registry, Resolution, condition,
        variables::{self, Scope, Unresolved},
    },
};

/// The position of the step whose handler is at work, or is about to be called.
pub(super) fn open_step(state: &RunState) -> Option<usize> {
    state.steps.iter().position(|step| step.state.is_open())
}

/// The position of the step that waits for the answer to its request.
pub(super) fn waiting_step(state: &RunState) -> Option<usize> {
    let mut steps = state.steps.iter();
    steps.position(|step| step.state == StepState::Waiting)
}

/// The position of the step in progress, or of the next step.
pub(super) fn current(state: &RunState) -> Option<usize> {
    let current = state.execution.current_step.as_ref()?;
    Some(current.index as usize)
}

pub(super) fn current_phase(state: &RunState) -> Phase {
    current(state).map_or(Phase::Preflight, |index| state.steps[index].phase)
}

/// True if the execution is paused or in review, so that only people can let it go on.
pub(super) fn is_stopped(state: &RunState) -> bool {
    matches!(state.execution.status, Status::Paused | Status::NeedsReview)
}

/// True if everybody has signed the request of a step, so that the step only has to finish.
pub(super) fn is_signed(state: &RunState, index: usize) -> bool {
    let node = &state.steps[index].node_id;
    let request = state.signature.as_ref();
    request.is_some_and(|it| it.node_id == *node && it.status == RequestStatus::Signed)
}

/// The number of signatures given to a step's request that not everybody has signed. If the step runs again, it
/// asks for them anew.
pub(super) fn signatures_given(state: &RunState, index: usize) -> Option<usize> {
    let node = &state.steps[index].node_id;
    let request = state.signature.as_ref()?;
    let is_lost = request.node_id == *node && request.status != RequestStatus::Signed;
    let signed = |signer: &&Signer| signer.status == SignerStatus::Signed;
    let given = request.signers.iter().filter(signed).count();
    (is_lost && given > 0).then_some(given)
}

fn is_approved(state: &RunState, index: usize) -> bool {
    let node = &state.steps[index].node_id;
    let approval = state.approval.as_ref();
    approval.is_some_and(|it| it.node_id == *node && it.decision == Some(Decision::Approved))
}

/// True if the step's wait has ended well: people have approved or signed what it requested, the moment has come, or
/// the event has arrived. The step then only has to finish, and does not wait again.
pub(super) fn is_answered(state: &RunState, index: usize) -> bool {
    let awaits = state.steps[index].awaits.as_ref();
    awaits.is_some_and(|it| it.is_over) || is_approved(state, index) || is_signed(state, index)
}

/// The result of a step's successful wait, which its handler receives.
pub(super) fn resolution(state: &RunState, index: usize) -> Option<Resolution> {
    if is_signed(state, index) {
        let request = state.signature.clone()?;
        return Some(Resolution::Signed(Box::new(request)));
    }
    if let Some(awaited) = state.steps[index].awaits.as_ref().filter(|it| it.is_over) {
        return match &awaited.what {
            AwaitedThing::Timer => awaited.until.map(Resolution::Elapsed),
            AwaitedThing::Event { name, .. } => Some(Resolution::Event {
                name: name.clone(),
                payload: Arc::clone(&awaited.payload),
            }),
        };
    }
    let approval = state.approval.as_ref();
    let approval = approval.filter(|_| is_approved(state, index))?;
    Some(Resolution::Approved(json!({
        "decision": approval.decision,
        "decided_by": approval.decided_by,
        "comment": approval.comment(),
    })))
}

/// The error of the last failed step that the execution continued past.
pub(super) fn left_over_error(state: &RunState) -> Option<ErrorContext> {
    let mut steps = state.steps.iter();
    let failed = steps.rfind(|step| matches!(step.state, StepState::Failed(_)))?;
    failed.error.clone()
}

/// True if the retry policy allows another attempt.
pub(super) fn has_attempts_left(state: &RunState, index: usize) -> bool {
    attempts(state, index) < state.workflow.nodes[index].retry.max_attempts
}

/// The number of attempts that count against the retry policy. After a person's repair they count from 0.
pub(super) fn attempts(state: &RunState, index: usize) -> u32 {
    let step = &state.steps[index];
    step.attempt - step.attempts_before
}

/// True if a step is safe to run twice: it has no effect, or its handler says so.
pub(crate) fn is_repeatable(registry: &Registry, execution: &Execution, node: &Node) -> bool {
    execution.dry_run
        || match registry.get(&node.node_type) {
            Some(Handler::Compute(_)) => true,
            Some(Handler::Effect(handler)) => handler.spec().effect == EffectClass::Repeatable,
            // Unknown node type: assume it is not repeatable.
            None => false,
        }
}

/// True if the step at this position is safe to run twice.
pub(super) fn may_repeat(state: &RunState, env: Env<'_>, index: usize) -> bool {
    let node = &state.workflow.nodes[index];
    is_repeatable(env.registry, &state.execution, node)
}

/// True if a step only computes.
pub(super) fn computes(state: &RunState, env: Env<'_>, index: usize) -> bool {
    let handler = env.registry.get(&state.workflow.nodes[index].node_type);
    state.execution.dry_run || matches!(handler, Some(Handler::Compute(_)))
}

/// The open step whose effect may have happened and is not safe to repeat. `None` for a step that goes on
/// after its wait: its effect was the request, and the request is known to be done.
pub(super) fn effect_in_doubt(state: &RunState, env: Env<'_>) -> Option<usize> {
    let index = open_step(state)?;
    let in_doubt = match state.steps[index].state {
        StepState::Probing(_) => true,
        StepState::Running => !may_repeat(state, env, index),
        _ => false,
    };
    in_doubt.then_some(index)
}

/// True if the error of a handler that was told to stop leaves the outcome unknown.
pub(super) fn leaves_doubt(
    state: &RunState,
    env: Env<'_>,
    index: usize,
    class: FailureClass,
) -> bool {
    if may_repeat(state, env, index) {
        return false;
    }
    match class {
        // With these errors the handler itself says that the step may run again.
        FailureClass::Stopped | FailureClass::Retryable => false,
        FailureClass::OutcomeUnknown | FailureClass::AnswerRefused => true,
        FailureClass::Review | FailureClass::Final => {
            state.steps[index].state == StepState::Running
        }
    }
}

pub(super) fn scope(state: &RunState) -> Scope<'_> {
    Scope {
        trigger: &state.inputs.trigger_data,
        steps: &state.steps,
        execution: &state.execution,
    }
}

/// The parameters that a step's handler gets.
pub(super) fn resolved(
    env: Env<'_>,
    state: &RunState,
    index: usize,
) -> Result<Arc<Value>, StepFailure> {
    let node = &state.workflow.nodes[index];
    let params = variables::effective_params(node, &state.inputs.node_overrides);
    let mut params = variables::resolve(&params, &scope(state)).map_err(|unresolved| {
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
    if let (Some(handler), Value::Object(given)) = (env.registry.get(&node.node_type), &mut params)
    {
        handler.spec().drop_blanks(given);
    }
    Ok(Arc::new(params))
}

/// The parameters of a step for a probe of its handler. If a variable is missing by now, the handler gets the
/// redacted parameters that people see.
pub(super) fn params_to_probe(env: Env<'_>, state: &RunState, index: usize) -> Arc<Value> {
    let shown = || {
        let data = state.steps[index].data_in.as_ref()?;
        Some(Arc::new(data.to_value()))
    };
    let resolved = resolved(env, state, index).ok();
    resolved.or_else(shown).unwrap_or_default()
}

/// True unless the step's condition is false.
pub(super) fn is_wanted(state: &RunState, index: usize) -> Result<bool, StepFailure> {
    let Some(expression) = &state.workflow.nodes[index].when else {
        return Ok(true);
    };
    condition::evaluate(expression, &scope(state)).map_err(|e| {
        let text = Text::key("error-condition-failed");
        StepFailure::review(codes::INVALID_CONDITION, text).tech(e)
    })
}

/// True if a decision is cheap to evaluate: the conditions and variables of the steps that have not ended are
/// small.
pub(crate) fn is_small(state: &RunState) -> bool {
    let outputs = state.steps.iter().filter_map(|step| step.output.as_deref());
    let nodes = state.steps.iter().zip(&state.workflow.nodes);
    let open = nodes.filter(|(step, _)| !step.state.is_ended());
    programs::is_small(
        outputs.chain([&*state.inputs.trigger_data]),
        open.map(|(_, node)| &**node),
        &state.inputs.node_overrides,
    )
}
