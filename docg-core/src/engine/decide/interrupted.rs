//! Executions whose workers died too often: the execution itself may be the cause.

use serde_json::{Value, json};

use super::{draft::Draft, step};
use crate::{
    error::{ErrorContext, codes},
    i18n::Text,
    observe::LogLevel,
    ports::RunState,
    run::{Activity, InvalidTransition, Status},
};

/// Parks the execution without evaluating anything that its tenant wrote. A step under way fails. If its
/// effect may have begun, the outcome is unknown.
pub(super) fn park(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    draft.is_interrupted = true;
    if draft.state.execution.status.is_terminal() {
        return Ok(());
    }
    draft.log_run(LogLevel::Error, Text::key("log-too-many-interruptions"));
    if draft.state.execution.status == Status::Queued {
        let actor = (*draft.state.execution.created_by).clone();
        draft.transition_by(Status::Running, "claimed", Some(actor), Value::Null)?;
    }
    let mut steps = draft.state.steps.iter();
    if let Some(index) = steps.position(|step| step.activity.is_at_work()) {
        step::give_up(draft, index)?;
    }
    if draft.state.execution.status == Status::NeedsReview
        || draft.state.execution.status.is_terminal()
    {
        return Ok(());
    }
    let code = codes::TOO_MANY_INTERRUPTIONS;
    draft.state.execution.error = Some(ErrorContext {
        code: code.into(),
        human: Text::key("error-too-many-interruptions"),
        tech: None,
    });
    draft.park(code, json!({"error_code": code}))
}

/// True if an execution is parked because its workers died. A cancel then probes no handler, because a
/// handler may have killed the workers.
pub(crate) fn is_interrupted(state: &RunState) -> bool {
    let error = state.execution.error.as_ref();
    state.execution.status == Status::NeedsReview
        && error.is_some_and(|error| {
            [codes::TOO_MANY_INTERRUPTIONS, codes::TOO_MANY_TAKEOVERS].contains(&&*error.code)
        })
}

/// Returns to the wait for people that was under way when the execution was parked, if there was one.
pub(super) fn wait_as_before(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let mut steps = draft.state.steps.iter();
    let Some(index) = steps.position(|step| step.activity == Activity::Waiting) else {
        return Ok(());
    };
    let node = &draft.state.steps[index].node_id;
    let approval = draft.state.approval.as_ref();
    if approval.is_some_and(|it| it.node_id == *node && it.decided_at.is_none()) {
        draft.transition(Status::Paused, "approval")?;
        super::approval::wait_again(draft);
    } else {
        draft.transition(Status::Ready, "documents_ready")?;
        draft.transition(Status::Signing, "phase")?;
        super::signature::wait_again(draft);
    }
    Ok(())
}
