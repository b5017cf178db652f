//! The run state during a decision. [`Draft`] is its only writer, and notes what a commit must store.

use std::sync::Arc;

use serde_json::Value;

use super::{Attendance, End, Env, Moment, Notes, Records, Role};
use crate::{
    approval::Approval,
    event::{Event, EventData},
    i18n::Text,
    ids::{AuditId, EventId, IdSource, LogId, SignalId},
    limits,
    observe::{Actor, AuditDraft, AuditEvent, ChainLink, LogDomain, LogDraft, LogEntry, LogLevel},
    ports::RunState,
    run::{Execution, Inputs, Phase, Step},
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Node,
};

pub(super) struct Draft<'a> {
    state: RunState,
    records: Records,
    ids: &'a mut dyn IdSource,
    pub(super) env: Env<'a>,
    /// The time for records and durations. It does not go back when the clock is set back.
    pub(super) now: Timestamp,
    /// The time on the clock. Scheduled times follow it, because claims, handlers and providers use the clock
    /// too.
    pub(super) clock: Timestamp,
    pub(super) role: Role,
    pub(super) attendance: Attendance,
    /// The end of the execution that follows from the inputs, if any. The end is applied after all inputs.
    pub(super) end: Option<End>,
    /// The resolved parameters of a step that this decision has opened.
    pub(super) params: Option<Arc<Value>>,
    /// True if this decision has parked the execution because workers died while they held it.
    pub(super) is_interrupted: bool,
    /// True if a part of the execution cannot be read.
    pub(super) is_unreadable: bool,
    /// True if a probe in this decision has found that the effect has begun.
    pub(super) has_begun: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: RunState, moment: Moment<'a>, env: Env<'a>) -> Self {
        Self {
            now: moment.recorded.max(state.execution.updated_at),
            clock: moment.now,
            role: moment.role,
            attendance: moment.attendance,
            state,
            records: Records::default(),
            ids: moment.ids,
            env,
            end: None,
            params: None,
            is_interrupted: false,
            is_unreadable: false,
            has_begun: false,
        }
    }

    pub(super) fn into_parts(self) -> (RunState, Records) {
        (self.state, self.records)
    }

    pub(super) fn snapshot(&self) -> (RunState, Records) {
        let mut state = self.state.clone();
        if !self.records.settled.is_empty() {
            // This decision has applied a signal. Raise the version, so that another signal for the old
            // version is ignored.
            state.execution.version += 1;
        }
        (state, self.records.clone())
    }

    /// True if the run state has only the execution's own row, and no steps.
    pub(super) fn is_reduced(&self) -> bool {
        self.state.steps.is_empty()
    }

    // --- reading ---

    pub(super) fn state(&self) -> &RunState {
        &self.state
    }

    pub(super) fn execution(&self) -> &Execution {
        &self.state.execution
    }

    pub(super) fn node(&self, index: usize) -> Arc<Node> {
        Arc::clone(&self.state.workflow.nodes[index])
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn new_id(&mut self) -> uuid::Uuid {
        self.ids.next_id()
    }

    pub(super) fn random(&mut self) -> u64 {
        self.ids.next_random().as_u64_pair().0
    }

    // --- writing: each part that is borrowed here is stored by the commit ---

    /// The execution's own row. Every commit stores it, so nothing is noted here.
    pub(super) fn edit(&mut self) -> &mut Execution {
        &mut self.state.execution
    }

    pub(super) fn edit_step(&mut self, index: usize) -> &mut Step {
        self.records.touched.push(index);
        &mut self.state.steps[index]
    }

    pub(super) fn edit_inputs(&mut self) -> &mut Inputs {
        self.records.inputs_changed = true;
        Arc::make_mut(&mut self.state.inputs)
    }

    pub(super) fn edit_signature(&mut self) -> &mut Option<SignatureRequest> {
        self.records.signature_changed = true;
        &mut self.state.signature
    }

    pub(super) fn edit_approval(&mut self) -> &mut Option<Approval> {
        self.records.approval_changed = true;
        &mut self.state.approval
    }

    pub(super) fn settle(&mut self, signal: SignalId) {
        self.records.settled.push(signal);
    }

    /// Marks a settled signal as one that changed nothing.
    pub(super) fn ignore(&mut self, signal: SignalId) {
        self.records.ignored.push(signal);
    }

    // --- records: events, logs and audit rows ---

    pub(super) fn event(&mut self, data: EventData) {
        let execution = &mut self.state.execution;
        execution.heads.event_seq += 1;
        let event = Event {
            event_id: EventId(self.ids.next_id()),
            seq: execution.heads.event_seq,
            timestamp: self.now,
            execution_id: execution.id,
            workflow_id: execution.workflow_id,
            organization_id: execution.organization_id,
            correlation_id: Arc::clone(&execution.correlation_id),
            status: execution.status,
            progress: execution.progress,
            current_step: execution.current_step.clone(),
            data,
        };
        self.records.events.push(Arc::new(event));
    }

    pub(super) fn log(
        &mut self,
        level: LogLevel,
        domain: LogDomain,
        node: Option<&Node>,
        draft: LogDraft,
    ) {
        let execution = &mut self.state.execution;
        execution.heads.log_seq += 1;
        let redaction = self.env.redaction;
        let details = draft
            .details_tech
            .map(|details| redaction.snapshot(&details));
        let tech = draft.message_tech.map(|tech| limits::tech(tech, redaction));
        self.records.logs.push(Arc::new(LogEntry {
            id: LogId(self.ids.next_id()),
            seq: execution.heads.log_seq,
            execution_id: execution.id,
            step_id: node.map(|node| node.id.clone()),
            timestamp: self.now,
            level,
            domain,
            message_human: draft.message_human.printable(redaction),
            message_tech: tech,
            details_tech: details,
            correlation_id: Arc::clone(&execution.correlation_id),
        }));
    }

    /// Logs about the execution as a whole.
    pub(super) fn log_run(&mut self, level: LogLevel, text: Text) {
        let draft = LogDraft::new(level, text);
        self.log(level, LogDomain::Execution, None, draft);
    }

    /// Logs about a step.
    pub(super) fn log_step(
        &mut self,
        level: LogLevel,
        node: &Node,
        text: Text,
        tech: Option<String>,
    ) {
        let mut draft = LogDraft::new(level, text);
        draft.message_tech = tech;
        self.log(level, domain_of(node.phase), Some(node), draft);
    }

    pub(super) fn audit(&mut self, draft: AuditDraft) {
        let execution = &mut self.state.execution;
        let link = ChainLink {
            id: AuditId(self.ids.next_id()),
            seq: execution.heads.audit_seq + 1,
            organization_id: execution.organization_id,
            execution_id: execution.id,
            timestamp: self.now,
            salt: self.ids.next_random(),
            prev_hash: execution.heads.audit_hash,
        };
        let row = AuditEvent::chained(draft, link, self.env.redaction);
        execution.heads.audit_seq = row.seq;
        execution.heads.audit_hash = row.hash;
        self.records.audit.push(Arc::new(row));
    }

    /// Adds an audit row for a person's call that changes no status.
    pub(super) fn audit_call(&mut self, action: &'static str, actor: Actor, metadata: Value) {
        self.audit(AuditDraft::new(action, metadata).by(actor));
    }

    /// Records the logs and audit rows of a handler.
    pub(super) fn take_notes(&mut self, index: usize, notes: Notes) {
        let node = self.node(index);
        for draft in notes.logs {
            let domain = draft.domain.unwrap_or(domain_of(node.phase));
            self.log(draft.level, domain, Some(&node), draft);
        }
        for draft in notes.audit {
            self.audit(draft);
        }
    }
}

fn domain_of(phase: Phase) -> LogDomain {
    match phase {
        Phase::Preflight => LogDomain::Preflight,
        Phase::Trigger | Phase::Render | Phase::Save => LogDomain::Step,
        Phase::Delivery => LogDomain::Delivery,
        Phase::Signature => LogDomain::Signature,
    }
}
