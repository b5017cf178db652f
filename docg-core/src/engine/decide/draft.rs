//! The only writer of run state during a decision. Every change leaves its records.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::{BeforeEnd, Decision, Env, Moment, Next, Notes, Records};
use crate::{
    error::ErrorContext,
    event::{Event, EventData},
    i18n::Text,
    ids::{AuditId, EventId, IdSource, LogId, SignalId},
    limits,
    observe::{
        Actor, AuditDraft, AuditEvent, ChainLink, LogDomain, LogDraft, LogEntry, LogLevel, actions,
    },
    ports::RunState,
    run::{
        CurrentStep, DeliveryState, InvalidTransition, Phase, PhaseTimes, SignatureState, Status,
        Step, StepStatus, WaitKind, WaitingFor,
    },
    time::{MAX_DURATION_MS, Timestamp},
    workflow::Node,
};

pub(super) struct Draft<'a> {
    pub(super) state: RunState,
    pub(super) env: Env<'a>,
    /// The time for records and durations. It does not go back when the clock is set back.
    pub(super) now: Timestamp,
    /// The time on the clock. Everything scheduled goes by it, because claims, handlers and providers do.
    pub(super) clock: Timestamp,
    pub(super) opens_steps: bool,
    /// True if too many workers died: nothing is evaluated, and no signal lets the run go on.
    pub(super) is_interrupted: bool,
    ids: &'a mut dyn IdSource,
    records: Records,
    before_end: Option<Box<BeforeEnd>>,
    /// The resolved parameters of the step that was opened or found open.
    pub(super) params: Option<Arc<Value>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: RunState, moment: Moment<'a>, env: Env<'a>) -> Self {
        Self {
            now: moment.recorded.max(state.execution.updated_at),
            clock: moment.now,
            state,
            env,
            opens_steps: moment.opens_steps,
            is_interrupted: false,
            ids: moment.ids,
            records: Records::default(),
            before_end: None,
            params: None,
        }
    }

    pub(super) fn finish(mut self, next: Next) -> Decision {
        let wake_at = match &next {
            Next::Done => None,
            Next::Rest => super::timers::next_wake(&self.state, self.opens_steps, self.clock),
            Next::Preflight
            | Next::Run { .. }
            | Next::Resume { .. }
            | Next::Probe { .. }
            | Next::CheckSignatures
            | Next::Remind => Some(self.clock),
        };
        self.state.execution.wake_at = wake_at;
        if !self.records.is_empty() {
            self.state.execution.version += 1;
            self.state.execution.updated_at = self.now;
        }
        Decision {
            state: self.state,
            records: self.records,
            next,
            before_end: self.before_end,
        }
    }

    /// Undoes an end that the run came to by itself, because a cancel arrived with it and wins.
    pub(super) fn back_before_its_end(&mut self) {
        if let Some(before) = self.before_end.take() {
            (self.state, self.records) = (before.state, before.records);
        }
    }

    /// Keeps the present state, because the run is about to end without a person's request.
    pub(super) fn ends_by_itself(&mut self) {
        self.before_end = Some(Box::new(BeforeEnd {
            state: self.state.clone(),
            records: self.records.clone(),
        }));
    }

    pub(super) fn node(&self, index: usize) -> Arc<Node> {
        Arc::clone(&self.state.workflow.nodes[index])
    }

    /// A step to be changed; it becomes part of the commit.
    pub(super) fn step(&mut self, index: usize) -> &mut Step {
        self.records.touched.push(index);
        &mut self.state.steps[index]
    }

    pub(super) fn new_id(&mut self) -> uuid::Uuid {
        self.ids.next_id()
    }

    pub(super) fn random(&mut self) -> u64 {
        self.ids.next_random().as_u64_pair().0
    }

    // --- records ---

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
        self.log(
            level,
            LogDomain::Execution,
            None,
            LogDraft::new(level, text),
        );
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

    /// True if the decision started at this version and has settled no signal yet.
    pub(super) fn is_at_version(&self, version: u64) -> bool {
        self.records.settled.is_empty() && self.state.execution.version == version
    }

    pub(super) fn settle(&mut self, signal: SignalId) {
        self.records.settled.push(signal);
    }

    /// Marks a settled signal as one that changed nothing.
    pub(super) fn ignore(&mut self, signal: SignalId) {
        self.records.ignored.push(signal);
    }

    pub(super) fn inputs_changed(&mut self) {
        self.records.inputs_changed = true;
    }

    pub(super) fn signature_changed(&mut self) {
        self.records.signature_changed = true;
    }

    pub(super) fn approval_changed(&mut self) {
        self.records.approval_changed = true;
    }

    // --- status ---

    /// Changes the status on docg's own account.
    pub(super) fn transition(
        &mut self,
        to: Status,
        reason: &'static str,
    ) -> Result<(), InvalidTransition> {
        self.transition_by(to, reason, None, Value::Null)
    }

    /// Changes the status on behalf of an actor.
    pub(super) fn transition_by(
        &mut self,
        to: Status,
        reason: &'static str,
        actor: Option<Actor>,
        metadata: Value,
    ) -> Result<(), InvalidTransition> {
        let action = match (self.state.execution.status, to) {
            (Status::Queued, Status::Running) => actions::STARTED,
            (_, Status::Completed) => actions::COMPLETED,
            (_, Status::Failed) => actions::FAILED,
            (_, Status::Canceled) => actions::CANCELED,
            (_, Status::Paused) => actions::PAUSED,
            _ => actions::STATUS_CHANGED,
        };
        self.change_status(to, reason, action, actor, metadata)
    }

    /// Changes the status because a person resumes the run.
    pub(super) fn resume_to(
        &mut self,
        to: Status,
        actor: Actor,
        metadata: Value,
    ) -> Result<(), InvalidTransition> {
        self.change_status(to, "resumed", actions::RESUMED, Some(actor), metadata)
    }

    /// Changes the status, and is the only place that does: checks the table, emits an event, and adds an
    /// audit row.
    fn change_status(
        &mut self,
        to: Status,
        reason: &'static str,
        action: &'static str,
        actor: Option<Actor>,
        metadata: Value,
    ) -> Result<(), InvalidTransition> {
        let execution = &mut self.state.execution;
        let from = execution.status;
        from.check(to, execution.paused_from)?;
        execution.status = to;
        execution.paused_from = (to == Status::Paused).then_some(from);
        match to {
            Status::Running if execution.started_at.is_none() => {
                execution.started_at = Some(self.now)
            }
            Status::Sending => execution.delivery_state = DeliveryState::Sending,
            Status::Signing => execution.signature_state = SignatureState::Signing,
            Status::Completed => execution.progress = 100,
            _ => {}
        }
        if to.is_terminal() {
            execution.completed_at = Some(self.now);
            self.close_metrics();
        }
        self.event(EventData::StatusChanged {
            from,
            to,
            reason: Cow::Borrowed(reason),
        });
        let mut facts = json!({"from": from, "to": to, "reason": reason});
        if let (Some(facts), Value::Object(more)) = (facts.as_object_mut(), metadata) {
            facts.extend(more);
        }
        let mut row = AuditDraft::new(action, facts);
        row.actor = actor;
        self.audit(row);
        Ok(())
    }

    /// True if a person must let the run go on, whatever else it waits for.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(
            self.state.execution.status,
            Status::Paused | Status::NeedsReview
        )
    }

    /// Starts a wait.
    pub(super) fn wait(&mut self, kind: WaitKind, until: Option<Timestamp>, detail: Value) {
        self.state.execution.waiting_for = Some(WaitingFor {
            kind,
            since: self.now,
            until,
            detail: self.env.redaction.redacted(&detail),
        });
        // A handler that is at work when a pause comes continues, and its phase with it.
        if kind.is_for_people() && !self.is_at_work() {
            self.rest_phase();
        }
    }

    /// Ends a wait; time spent waiting for people is counted as such.
    pub(super) fn end_wait(&mut self) {
        if self.state.execution.waiting_for.take().is_none() {
            return;
        }
        let mut waited = 0;
        for times in self.state.execution.phase_metrics.0.iter_mut().flatten() {
            if let Some(since) = times.waiting_since.take() {
                waited = self.now.millis_since(since);
                times.waiting_ms = lengthened(times.waiting_ms, waited);
            }
        }
        // In a review, the waiting step is one that has failed and may run again.
        let in_review = self.state.execution.status == Status::NeedsReview;
        let waits = |step: &Step| {
            let has_failed = in_review && step.status == StepStatus::Failed;
            step.started_at.is_some() && (has_failed || step.completed_at.is_none())
        };
        if let Some(index) = self.current()
            && waited > 0
            && waits(&self.state.steps[index])
        {
            let step = self.step(index);
            step.waiting_ms = lengthened(step.waiting_ms, waited);
        }
    }

    // --- progress and metrics ---

    pub(super) fn set_current(&mut self, index: usize) {
        let step = &self.state.steps[index];
        self.state.execution.current_step = Some(Arc::new(CurrentStep {
            index: step.position,
            label: Arc::clone(&step.label),
            node_id: step.node_id.clone(),
            node_type: Arc::clone(&step.node_type),
        }));
    }

    /// The position of the current step.
    pub(super) fn current(&self) -> Option<usize> {
        self.state
            .execution
            .current_step
            .as_ref()
            .map(|step| step.index as usize)
    }

    fn current_phase(&self) -> Phase {
        self.current()
            .map_or(Phase::Preflight, |index| self.state.steps[index].phase)
    }

    /// True if a handler is at work, or about to be.
    fn is_at_work(&self) -> bool {
        let mut steps = self.state.steps.iter();
        steps.any(|step| step.activity.is_at_work())
    }

    /// Recomputes the progress from the finished steps, and emits an event if it has grown.
    pub(super) fn update_progress(&mut self, fraction_of_current: f32) {
        let ended = self
            .state
            .steps
            .iter()
            .filter(|step| step.status.is_ended())
            .count();
        let preflight = usize::from(!self.state.execution.preflight_due);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage of a few hundred steps"
        )]
        let percent = {
            let done = (ended + preflight) as f32 + fraction_of_current.clamp(0.0, 1.0);
            ((100.0 * done / (self.state.steps.len() + 1) as f32) as u8).min(99)
        };
        let execution = &mut self.state.execution;
        if percent > execution.progress && !execution.status.is_terminal() {
            execution.progress = percent;
            self.event(EventData::Progress { progress: percent });
        }
    }

    pub(super) fn progress_within_step(&mut self, fraction: f32) {
        if self.state.execution.status != Status::Paused {
            self.update_progress(fraction);
        }
    }

    /// Starts to count work time in a phase.
    pub(super) fn work_phase(&mut self, phase: Phase) {
        let now = self.now;
        let times = self.times_of(phase);
        times.completed_at = None;
        times.resumed_at.get_or_insert(now);
    }

    /// Counts work time again for the step under way.
    pub(super) fn work_again(&mut self) {
        if self.is_at_work()
            && let Some(index) = self.current()
        {
            self.work_phase(self.state.steps[index].phase);
        }
    }

    fn times_of(&mut self, phase: Phase) -> &mut PhaseTimes {
        let now = self.now;
        self.state.execution.phase_metrics.0[phase as usize]
            .get_or_insert_with(|| PhaseTimes::new(now))
    }

    /// Stops counting work time. If the run waits for people, waiting time counts from now on.
    pub(super) fn rest_phase(&mut self) {
        for times in self.state.execution.phase_metrics.0.iter_mut().flatten() {
            if let Some(resumed) = times.resumed_at.take() {
                times.duration_ms = lengthened(times.duration_ms, self.now.millis_since(resumed));
            }
        }
        let execution = &self.state.execution;
        let waiting = execution.waiting_for.as_ref();
        // Before a worker has started the run, no phase has begun.
        if execution.started_at.is_some() && waiting.is_some_and(|it| it.kind.is_for_people()) {
            let (now, phase) = (self.now, self.current_phase());
            self.times_of(phase).waiting_since.get_or_insert(now);
        }
    }

    /// Stops all counting of time.
    pub(super) fn close_metrics(&mut self) {
        self.rest_phase();
        for times in self.state.execution.phase_metrics.0.iter_mut().flatten() {
            times.completed_at.get_or_insert(self.now);
        }
    }

    // --- ends ---

    /// Ends the execution with an error.
    pub(super) fn fail(
        &mut self,
        reason: &'static str,
        error: ErrorContext,
        actor: Option<Actor>,
    ) -> Result<(), InvalidTransition> {
        if actor.is_none() {
            self.ends_by_itself();
        }
        self.end_wait();
        super::stop::cut_off_open(self);
        self.close_requests();
        let metadata = json!({"error_code": error.code});
        self.state.execution.error = Some(error.clone());
        self.transition_by(Status::Failed, reason, actor, metadata)?;
        self.event(EventData::Failed {
            error_code: error.code,
            error_human: Box::new(error.human),
        });
        self.log_run(LogLevel::Error, Text::key("log-failed"));
        Ok(())
    }

    /// Parks the execution until a person has repaired it.
    pub(super) fn park(
        &mut self,
        reason: &'static str,
        detail: Value,
    ) -> Result<(), InvalidTransition> {
        self.end_wait();
        self.transition(Status::NeedsReview, reason)?;
        let until = self
            .state
            .workflow
            .settings
            .review_expires_ms
            .map(|ms| self.clock.plus_millis(ms));
        self.wait(WaitKind::Review, until, detail);
        self.log_run(LogLevel::Warn, Text::key("log-needs-review"));
        Ok(())
    }
}

pub(super) fn domain_of(phase: Phase) -> LogDomain {
    match phase {
        Phase::Preflight => LogDomain::Preflight,
        Phase::Trigger | Phase::Render | Phase::Save => LogDomain::Step,
        Phase::Delivery => LogDomain::Delivery,
        Phase::Signature => LogDomain::Signature,
    }
}

/// A duration extended by another, limited to the longest allowed one.
pub(super) fn lengthened(duration_ms: u64, by_ms: u64) -> u64 {
    duration_ms.saturating_add(by_ms).min(MAX_DURATION_MS)
}
