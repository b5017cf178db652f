//! The facts that a claim reports: whether workers died while they held the execution, and whether all of it
//! can be read.

use std::sync::Arc;

use serde_json::json;

use super::super::{ClaimFacts, Input, Role, draft::Draft, phases, status, steps, view};
use crate::{
    error::{ErrorContext, codes},
    i18n::Text,
    observe::LogLevel,
    ports::{Claimed, MAX_TAKEOVERS, RunState, SignalKind},
    run::{InvalidTransition, Status, StepState},
};

/// The inputs with which the driver of a claimed execution begins, and whether steps, definition and requests
/// were removed from the run state, because they cannot be read or workers keep dying. Then only a cancel works.
pub(crate) struct TakenApart {
    pub(crate) inputs: Vec<Input>,
    pub(crate) is_reduced: bool,
}

/// Turns a claim into inputs. `None` if a part of the execution cannot be read and no cancel is in the inbox,
/// since only a cancel works without that part.
pub(crate) fn take_apart(claimed: &mut Claimed) -> Option<TakenApart> {
    let mut signals = std::mem::take(&mut claimed.signals);
    let cancels = |kind: &SignalKind| matches!(kind, SignalKind::Cancel { .. });
    // At `MAX_TAKEOVERS` takeovers a worker makes the execution wait for a person (it parks the execution). A
    // higher count means that a worker died of that. From then on, a cancel uses only the execution's own row,
    // as if the rest were unreadable.
    let killed_its_parkers = claimed.takeovers > MAX_TAKEOVERS;
    let is_reduced = claimed.unreadable
        || killed_its_parkers && signals.iter().any(|signal| cancels(&signal.kind));
    if is_reduced {
        reduce(&mut claimed.state);
        signals.retain(|signal| cancels(&signal.kind));
        if signals.is_empty() {
            return None;
        }
    }
    let facts = Input::Claimed(ClaimFacts {
        taken_over: claimed.taken_over,
        takeovers: claimed.takeovers,
        unreadable: claimed.unreadable,
    });
    let signals = signals.into_iter().map(Input::Signal);
    Some(TakenApart {
        inputs: [facts].into_iter().chain(signals).collect(),
        is_reduced,
    })
}

/// Reduces a run state to the execution's own row.
fn reduce(state: &mut RunState) {
    state.steps.clear();
    Arc::make_mut(&mut state.workflow).nodes.clear();
    state.execution.current_step = None;
    state.signature = None;
    state.approval = None;
}

/// Applies the facts of the claim. Only a worker goes on with a step that an earlier worker left open.
pub(in super::super) fn claimed(
    draft: &mut Draft<'_>,
    facts: ClaimFacts,
) -> Result<(), InvalidTransition> {
    draft.is_unreadable = facts.unreadable;
    if draft.execution().status.is_terminal() || draft.is_reduced() {
        return Ok(());
    }
    if facts.takeovers >= MAX_TAKEOVERS {
        return park(draft);
    }
    let Some(index) = view::open_step(draft.state()) else {
        return Ok(());
    };
    let is_abandoned = match draft.state().steps[index].state {
        // The step's worker died, because no worker releases its lease with a running step. If the last
        // lease was released, its holder came after that death and only applied signals.
        StepState::Running => true,
        // The step is to be resumed or probed. If the last holder released its lease, it did so in good
        // order, before it called the handler.
        _ => facts.taken_over,
    };
    if draft.role == Role::Worker && is_abandoned {
        take_over(draft, index)?;
    }
    Ok(())
}

/// Goes on with a step whose worker died.
fn take_over(draft: &mut Draft<'_>, index: usize) -> Result<(), InvalidTransition> {
    if draft.execution().status == Status::Paused {
        // The handler went on during the pause, so its phase counted work time. The step goes on when the
        // pause ends.
        phases::rest(draft);
    }
    let step = draft.edit_step(index);
    step.takeovers += 1;
    if step.takeovers >= MAX_TAKEOVERS {
        return steps::give_up(draft, index);
    }
    if view::effect_in_doubt(draft.state(), draft.env).is_some() {
        steps::put_in_doubt(draft, index);
    }
    let node = draft.node(index);
    let text = Text::key("log-step-taken-over").with("label", &node.label);
    draft.log_step(LogLevel::Warn, &node, text, None);
    Ok(())
}

/// Parks the execution, because it may itself be what kills its workers. None of its expressions is
/// evaluated. A step under way fails; if its effect may have begun, the outcome is unknown.
fn park(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    draft.is_interrupted = true;
    draft.log_run(LogLevel::Error, Text::key("log-too-many-interruptions"));
    if draft.execution().status == Status::Queued {
        status::begin(draft)?;
    }
    if let Some(index) = view::open_step(draft.state()) {
        steps::give_up(draft, index)?;
    }
    if draft.execution().status == Status::NeedsReview || draft.end.is_some() {
        return Ok(());
    }
    let code = codes::TOO_MANY_INTERRUPTIONS;
    draft.edit().error = Some(ErrorContext {
        code: code.into(),
        human: Text::key("error-too-many-interruptions"),
        tech: None,
    });
    status::park(draft, code, json!({"error_code": code}))
}
