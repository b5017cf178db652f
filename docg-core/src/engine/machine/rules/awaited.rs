//! Waits of steps for moments and events: how they end.

use std::sync::Arc;

use serde_json::json;

use super::super::{draft::Draft, requests, status, steps, view};
use crate::{
    error::{StepFailure, codes},
    i18n::Text,
    limits,
    observe::{Actor, AuditDraft, LogLevel, actions},
    run::{AwaitedThing, InvalidTransition, KeptEvent, Outcome},
};

/// Gives an event to the step that waits for it, or keeps it until a step does. Returns false if the execution has
/// ended, or keeps too many events already.
pub(in super::super) fn received(draft: &mut Draft<'_>, actor: &Actor, event: KeptEvent) -> bool {
    if draft.execution().status.is_terminal() || draft.is_reduced() {
        return false;
    }
    let index = view::waiting_step(draft.state());
    let index = index.filter(|index| {
        let awaits = draft.state().steps[*index].awaits.as_ref();
        awaits.is_some_and(|it| it.is_met_by(&event.name, event.key.as_deref()))
    });
    if index.is_none() && draft.state().inputs.events.len() >= limits::KEPT_EVENTS {
        return false;
    }
    let facts = json!({"name": event.name, "key": event.key, "kept": index.is_none()});
    draft.audit(
        AuditDraft::new(actions::EVENT_RECEIVED, facts)
            .on("event", &event.name)
            .by(actor.clone()),
    );
    let text = Text::key("log-event-received").with("name", &event.name);
    draft.log_run(LogLevel::Ok, text);
    match index {
        Some(index) => requests::resume_waiting(draft, index, event.payload, "event"),
        None => draft.edit_inputs().events.push(event),
    }
    true
}

/// Ends the step's wait because its time is over: a moment has come, or an event has not arrived.
pub(in super::super) fn elapsed(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let Some(index) = view::waiting_step(draft.state()) else {
        return Ok(());
    };
    let Some(awaited) = &draft.state().steps[index].awaits else {
        return Ok(());
    };
    match &awaited.what {
        AwaitedThing::Timer => {
            requests::resume_waiting(draft, index, Arc::default(), "timer");
            Ok(())
        }
        AwaitedThing::Event { name, .. } => {
            let text = Text::key("error-event-expired").with("name", name);
            status::end_wait(draft);
            let failure = StepFailure::fatal(codes::EVENT_EXPIRED, text);
            steps::fail(draft, index, failure, Outcome::Known)
        }
    }
}
