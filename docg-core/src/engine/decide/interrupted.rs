//! An execution whose workers died too often, whatever they were at: it may be what kills them.

use serde_json::{Value, json};

use super::{draft::Draft, step};
use crate::{
    error::{ErrorContext, codes},
    i18n::Text,
    observe::LogLevel,
    ports::RunState,
    run::{Activity, InvalidTransition, Status},
};

/// Parks the execution without a look at what its tenant has written. A step that was under way fails
/// for that reason; of one that may have begun it stays open whether it has.
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

/// Whether an execution is parked because its workers died. Its handlers are not asked then before it
/// is canceled: that may be what has killed them.
pub(crate) fn is_interrupted(state: &RunState) -> bool {
    let error = state.execution.error.as_ref();
    state.execution.status == Status::NeedsReview
        && error.is_some_and(|error| {
            [codes::TOO_MANY_INTERRUPTIONS, codes::TOO_MANY_TAKEOVERS].contains(&&*error.code)
        })
}

/// Goes back to what was waited for when the execution was parked, if it waited for people.
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
