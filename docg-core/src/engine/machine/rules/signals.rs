//! Signals from the inbox: a person's pause and cancel, and what all signals have in common.

use serde_json::json;

use super::super::{
    Arrived,
    commands::{Command, allows},
    draft::Draft,
    end, status,
};
use crate::{
    event::EventData,
    i18n::Text,
    observe::{Actor, LogLevel, actions},
    ports::{RunState, Signal, SignalKind},
    run::{InvalidTransition, Status, WaitKind},
};

/// Marks signals that were just read from the inbox as expected or not. A signal that was sent for a version
/// is expected if it is the first in the inbox and the execution has that version.
pub(in super::super) fn arrived(
    state: &RunState,
    signals: impl IntoIterator<Item = Signal>,
) -> impl Iterator<Item = Arrived> {
    let version = state.execution.version;
    let signals = signals.into_iter().enumerate();
    signals.map(move |(place, signal)| {
        let for_version = signal.if_version;
        let is_expected = for_version.is_none_or(|it| place == 0 && it == version);
        Arrived {
            signal,
            is_expected,
        }
    })
}

/// True if one of the signals, read from the inbox in this state, ends the execution on a person's behalf.
pub(crate) fn ends(state: &RunState, signals: &[Signal]) -> bool {
    let arrived: Vec<_> = arrived(state, signals.iter().cloned()).collect();
    ended_by_person(state, &arrived)
}

/// True if one of the signals ends the execution on a person's behalf: a cancel, or a resume that rejects the
/// execution.
pub(in super::super) fn ended_by_person(state: &RunState, signals: &[Arrived]) -> bool {
    signals.iter().any(|arrived| {
        let command = match &arrived.signal.kind {
            SignalKind::Cancel { .. } => Command::Cancel,
            SignalKind::Resume(how) if how.rejects() => Command::Resume,
            _ => return false,
        };
        arrived.is_expected && allows(&state.execution, command)
    })
}

fn name_of(kind: &SignalKind) -> &'static str {
    match kind {
        SignalKind::Pause { .. } => "pause",
        SignalKind::Resume(_) => "resume",
        SignalKind::Cancel { .. } => "cancel",
        SignalKind::ApprovalVote { .. } => "approval_vote",
        SignalKind::SignatureFacts { .. } => "signature_facts",
        SignalKind::Event { .. } => "event",
        SignalKind::NoWorker { .. } => "no_worker",
    }
}

/// Records that a signal changed nothing.
pub(in super::super) fn ignore(draft: &mut Draft<'_>, signal: &Signal) {
    draft.ignore(signal.id);
    let name = name_of(&signal.kind);
    let facts = json!({"signal": name, "status": draft.execution().status});
    draft.audit_call(actions::SIGNAL_IGNORED, signal.actor.clone(), facts);
    let text = Text::key("log-signal-ignored").with("signal", name);
    draft.log_run(LogLevel::Warn, text);
}

pub(in super::super) fn pause(
    draft: &mut Draft<'_>,
    actor: &Actor,
    reason: Option<&String>,
) -> Result<bool, InvalidTransition> {
    if !allows(draft.execution(), Command::Pause) {
        return Ok(false);
    }
    status::end_wait(draft);
    let by = actor.actor_id.to_string();
    let (reason, actor) = (reason.cloned(), Some(actor.clone()));
    let facts = json!({"note": reason});
    status::change_by(draft, Status::Paused, "paused_by_person", actor, facts)?;
    let detail = json!({"paused_by": by, "reason": reason, "action": "resume"});
    status::wait(draft, WaitKind::Pause, None, detail);
    let waiting_for = draft.execution().waiting_for.clone().map(Box::new);
    draft.event(EventData::Paused {
        reason,
        waiting_for,
    });
    draft.log_run(LogLevel::Ok, Text::key("log-paused").with("by", by));
    Ok(true)
}

pub(in super::super) fn cancel(
    draft: &mut Draft<'_>,
    actor: &Actor,
    reason: Option<&String>,
) -> Result<bool, InvalidTransition> {
    if !allows(draft.execution(), Command::Cancel) {
        return Ok(false);
    }
    end::cancel(draft, actor.clone(), reason.cloned())?;
    Ok(true)
}

/// Logs that no running worker knows all node types of the execution.
pub(in super::super) fn no_worker(draft: &mut Draft<'_>, node_types: &[String]) {
    if !draft.execution().status.is_terminal() {
        let text = Text::key("log-no-worker").with("types", node_types.join(", "));
        draft.log_run(LogLevel::Warn, text);
    }
}
