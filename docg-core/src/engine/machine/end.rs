//! How an execution ends. An end that no person asked for yields to a cancel that arrived before it.

use serde_json::json;

use super::{Attendance, End, draft::Draft, requests, status, steps, view};
use crate::{
    error::ErrorContext,
    event::EventData,
    i18n::Text,
    observe::{Actor, LogLevel},
    run::{InvalidTransition, Status, StepState},
};

/// Completes the execution, or fails it without a person's request.
pub(super) fn by_itself(draft: &mut Draft<'_>, end: End) -> Result<(), InvalidTransition> {
    match end {
        End::Completed => complete(draft),
        End::Failed(reason, error) => fail(draft, reason, error, None),
    }
}

/// Ends the execution with an error.
pub(super) fn fail(
    draft: &mut Draft<'_>,
    reason: &'static str,
    error: ErrorContext,
    actor: Option<Actor>,
) -> Result<(), InvalidTransition> {
    cut_short(draft);
    let metadata = json!({"error_code": error.code});
    draft.edit().error = Some(error.clone());
    status::change_by(draft, Status::Failed, reason, actor, metadata)?;
    draft.event(EventData::Failed {
        error_code: error.code,
        error_human: Box::new(error.human),
    });
    draft.log_run(LogLevel::Error, Text::key("log-failed"));
    Ok(())
}

/// Cancels the execution on a person's behalf.
pub(super) fn cancel(
    draft: &mut Draft<'_>,
    actor: Actor,
    reason: Option<String>,
) -> Result<(), InvalidTransition> {
    cut_short(draft);
    // No step's error is the reason for this end, so the execution shows none.
    draft.edit().error = None;
    let by = actor.actor_id.to_string();
    let mut facts = json!({"note": reason});
    if draft.is_unreadable {
        facts["unreadable"] = true.into();
    }
    status::change_by(
        draft,
        Status::Canceled,
        "canceled_by_person",
        Some(actor),
        facts,
    )?;
    draft.event(EventData::Canceled {
        canceled_by: by.clone(),
        reason,
    });
    draft.log_run(LogLevel::Ok, Text::key("log-canceled").with("by", by));
    Ok(())
}

fn complete(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    status::end_wait(draft);
    draft.edit().current_step = None;
    status::change(draft, Status::Completed, "all_steps_done")?;
    let execution = draft.execution();
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

/// Ends the execution's wait, its steps that are under way or waiting, and its requests to people.
fn cut_short(draft: &mut Draft<'_>) {
    status::end_wait(draft);
    for index in 0..draft.state().steps.len() {
        let state = draft.state().steps[index].state;
        if state.is_open() || state == StepState::Waiting {
            let text = cut_off_text(draft, index);
            steps::cut_off(draft, index, steps::canceled(text));
        }
    }
    requests::close(draft);
}

/// The error text of a step that is cut off. The step's effect can no longer be probed.
fn cut_off_text(draft: &Draft<'_>, index: usize) -> Text {
    let in_doubt = view::effect_in_doubt(draft.state(), draft.env) == Some(index);
    if in_doubt && draft.attendance != Attendance::NotBegun {
        let label = &draft.state().steps[index].label;
        Text::key("error-canceled-outcome-unknown").with("label", label)
    } else {
        Text::key("error-canceled")
    }
}
