//! Applies signals from the inbox. A signal that no longer applies is recorded as ignored.

use serde_json::{Value, json};

use super::{
    approval,
    calls::{Call, Verdict, judge},
    draft::Draft,
    resume, signature, stop,
};
use crate::{
    event::EventData,
    i18n::Text,
    observe::{Actor, AuditDraft, LogLevel, actions},
    ports::{Signal, SignalKind},
    run::{InvalidTransition, Status, WaitKind},
    signature::RequestStatus,
};

pub(super) fn apply(draft: &mut Draft<'_>, signal: Signal) -> Result<(), InvalidTransition> {
    // Of several signals that were sent on the same version, only the first applies.
    let if_version = signal.if_version;
    let is_expected = if_version.is_none_or(|version| draft.is_at_version(version));
    if is_expected && matches!(signal.kind, SignalKind::Cancel { .. }) {
        draft.back_before_its_end();
    }
    draft.settle(signal.id);
    let Signal {
        id,
        actor,
        received_at,
        kind,
        ..
    } = signal;
    let name = name_of(&kind);
    let applied = match kind {
        _ if !is_expected => false,
        SignalKind::Pause { reason } => {
            allowed(draft, Call::Pause) && pause(draft, actor.clone(), reason)?
        }
        SignalKind::Cancel { reason } => {
            allowed(draft, Call::Cancel) && cancel(draft, actor.clone(), reason)?
        }
        SignalKind::Resume(request) => {
            // A resume that was sent before the execution was parked may be what killed its workers.
            !draft.is_interrupted
                && allowed(draft, Call::Resume)
                && resume::apply(draft, actor.clone(), request)?
        }
        SignalKind::ApprovalVote {
            approval_id,
            email,
            decision,
            comment,
        } => {
            let vote = approval::Vote {
                approval_id,
                email,
                decision,
                comment,
                received_at,
            };
            approval::voted(draft, vote)?
        }
        SignalKind::SignatureFacts {
            signature_request_id,
            facts,
        } => signature::reported(draft, signature_request_id, &facts, &actor)?,
        SignalKind::NoWorker { node_types } => {
            if !draft.state.execution.status.is_terminal() {
                let text = Text::key("log-no-worker").with("types", node_types.join(", "));
                draft.log_run(LogLevel::Warn, text);
            }
            true
        }
    };
    if !applied {
        draft.ignore(id);
        ignored(draft, name, actor);
    }
    Ok(())
}

fn allowed(draft: &Draft<'_>, call: Call) -> bool {
    judge(&draft.state.execution, call) == Verdict::Apply
}

fn name_of(kind: &SignalKind) -> &'static str {
    match kind {
        SignalKind::Pause { .. } => "pause",
        SignalKind::Resume(_) => "resume",
        SignalKind::Cancel { .. } => "cancel",
        SignalKind::ApprovalVote { .. } => "approval_vote",
        SignalKind::SignatureFacts { .. } => "signature_facts",
        SignalKind::NoWorker { .. } => "no_worker",
    }
}

fn ignored(draft: &mut Draft<'_>, name: &'static str, actor: Actor) {
    let status = draft.state.execution.status;
    draft.audit(
        AuditDraft::new(
            actions::SIGNAL_IGNORED,
            json!({"signal": name, "status": status}),
        )
        .by(actor),
    );
    draft.log_run(
        LogLevel::Warn,
        Text::key("log-signal-ignored").with("signal", name),
    );
}

fn pause(
    draft: &mut Draft<'_>,
    actor: Actor,
    reason: Option<String>,
) -> Result<bool, InvalidTransition> {
    draft.end_wait();
    let by = actor.actor_id.to_string();
    draft.transition_by(
        Status::Paused,
        "paused_by_person",
        Some(actor),
        json!({"note": reason}),
    )?;
    draft.wait(
        WaitKind::Pause,
        None,
        json!({"paused_by": by, "reason": reason, "action": "resume"}),
    );
    let waiting_for = draft.state.execution.waiting_for.clone().map(Box::new);
    draft.event(EventData::Paused {
        reason,
        waiting_for,
    });
    draft.log_run(LogLevel::Ok, Text::key("log-paused").with("by", by));
    Ok(true)
}

fn cancel(
    draft: &mut Draft<'_>,
    actor: Actor,
    reason: Option<String>,
) -> Result<bool, InvalidTransition> {
    draft.end_wait();
    stop::cut_off_open(draft);
    draft.close_requests();
    // The steps show their own errors; none of them is why the execution ended.
    draft.state.execution.error = None;
    let by = actor.actor_id.to_string();
    let mut facts = json!({"note": reason});
    // An unreadable execution has no steps here; any other has some.
    if draft.state.steps.is_empty() {
        facts["unreadable"] = true.into();
    }
    draft.transition_by(Status::Canceled, "canceled_by_person", Some(actor), facts)?;
    draft.event(EventData::Canceled {
        canceled_by: by.clone(),
        reason,
    });
    draft.log_run(LogLevel::Ok, Text::key("log-canceled").with("by", by));
    Ok(true)
}

impl Draft<'_> {
    /// Closes the open requests to people, because the execution ends.
    pub(super) fn close_requests(&mut self) {
        let now = self.now;
        if let Some(request) = self
            .state
            .signature
            .as_mut()
            .filter(|r| r.status == RequestStatus::Signing)
        {
            request.status = RequestStatus::Canceled;
            request.completed_at = Some(now);
            self.signature_changed();
        }
        if let Some(approval) = self
            .state
            .approval
            .as_mut()
            .filter(|approval| approval.decided_at.is_none())
        {
            approval.decided_at = Some(now);
            self.approval_changed();
        }
    }

    /// Records a call that changes no status.
    pub(super) fn audit_call(&mut self, action: &'static str, actor: Actor, metadata: Value) {
        self.audit(AuditDraft::new(action, metadata).by(actor));
    }
}
