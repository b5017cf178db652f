//! One execution with its records, and the effect of a commit on it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use docg_core::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignalId, WorkerId},
    observe::{AuditEvent, LogEntry},
    ports::{
        Commit, Lease, LeaseAfter, NewExecution, RunState, Signal, StoreError, StoreErrorKind,
    },
    query::ExecutionRecord,
    run::{Execution, Inputs, Step},
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};

use super::{
    lists::{ListKey, TenantLists},
    packed::Packed,
    queue::Want,
    types::TypeSet,
};
use crate::weight;

/// One execution: fields that never change, and the changing rest behind a lock.
pub(super) struct Entry {
    pub(super) id: ExecutionId,
    pub(super) organization: OrganizationId,
    pub(super) created_at: Timestamp,
    pub(super) workflow: Arc<Workflow>,
    pub(super) types: TypeSet,
    pub(super) key: Option<Box<str>>,
    pub(super) lists: Arc<TenantLists>,
    run: Mutex<Run>,
}

/// The part of an execution that changes.
pub(super) struct Run {
    pub(super) execution: Execution,
    inputs: Arc<Inputs>,
    steps: Vec<Step>,
    /// The values taken out of `inputs` and `steps`, once the execution has ended.
    packed: Option<Packed>,
    /// Oldest first; the last request is the current one.
    pub(super) signatures: Vec<SignatureRequest>,
    /// Oldest first; the last approval is the current one.
    pub(super) approvals: Vec<Approval>,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) logs: Vec<Arc<LogEntry>>,
    pub(super) audit: Vec<Arc<AuditEvent>>,
    pub(super) inbox: Vec<Signal>,
    /// Signals that have left the inbox, so that a repeated signal is recognized.
    settled: BTreeSet<SignalId>,
    pub(super) published: u64,
    /// True if the execution is in its shard's list of those that may have unpublished events.
    pub(super) listed_unpublished: bool,
    pub(super) held: Option<Held>,
    /// True if the current lease is a takeover: the previous holder had not released its lease.
    pub(super) taken_over: bool,
    /// The number of takeovers in a row since the last progress.
    pub(super) takeovers: u32,
    fence: u64,
    has_ended: bool,
    /// The time from which the execution needs a worker, while none holds it.
    due: Option<Timestamp>,
    /// Counts the changes of the execution's place in the queue.
    pub(super) generation: u64,
    /// True if the execution was purged. A caller that still has the entry must not use it.
    pub(super) gone: bool,
    weight: Weight,
}

/// The size of an execution in bytes, in parts that change together. The workflow's definition does not
/// count, because executions share it.
#[derive(Default)]
struct Weight {
    /// Events, log entries and audit rows.
    rows: usize,
    /// Inputs and steps.
    values: usize,
    /// Signature requests and approvals.
    requests: usize,
    inbox: usize,
}

/// The lease that a worker holds on the execution.
pub(super) struct Held {
    pub(super) worker: WorkerId,
    pub(super) fence: u64,
    pub(super) until: Timestamp,
    /// The expiry that the queue has recorded. A renewal does not update the queue.
    queued_until: Timestamp,
    /// True if the lease has expired and the execution is due again. Until a takeover, its holder may still
    /// commit.
    lapsed: bool,
}

/// The size in bytes of the run state and of its places in lists and queues.
const STATE: usize = 1_024;

/// The size in bytes that a new execution will have.
pub(super) fn weight_of(run: &NewExecution) -> usize {
    let state = &run.state;
    let steps = state.steps.iter().map(weight::step);
    let rows = weight::rows(&run.events, &run.logs, &run.audit);
    STATE + rows + weight::inputs(&state.inputs) + steps.sum::<usize>()
}

impl Entry {
    pub(super) fn new(run: NewExecution, types: TypeSet, lists: Arc<TenantLists>) -> Self {
        let NewExecution {
            state,
            events,
            logs,
            audit,
            idempotency,
            due_at,
            ..
        } = run;
        let RunState {
            execution,
            workflow,
            inputs,
            steps,
            signature,
            approval,
        } = state;
        let mut run = Run {
            due: due_at,
            has_ended: false,
            weight: Weight {
                rows: weight::rows(&events, &logs, &audit),
                ..Weight::default()
            },
            execution,
            inputs,
            steps,
            packed: None,
            signatures: signature.into_iter().collect(),
            approvals: approval.into_iter().collect(),
            events,
            logs,
            audit,
            inbox: Vec::new(),
            settled: BTreeSet::new(),
            published: 0,
            listed_unpublished: false,
            held: None,
            taken_over: false,
            takeovers: 0,
            fence: 0,
            generation: 0,
            gone: false,
        };
        run.weigh_values();
        run.weigh_requests();
        let execution = &run.execution;
        Self {
            id: execution.id,
            organization: execution.organization_id,
            created_at: execution.created_at,
            workflow,
            types,
            key: idempotency.map(|idempotency| idempotency.key.into_boxed_str()),
            lists,
            run: Mutex::new(run),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list_key(&self) -> ListKey {
        (self.created_at, self.id)
    }

    /// The run state, as a worker gets it.
    pub(super) fn state(&self, run: &Run) -> RunState {
        RunState {
            execution: run.execution.clone(),
            workflow: Arc::clone(&self.workflow),
            inputs: run.inputs(),
            steps: run.steps(),
            signature: run.signatures.last().cloned(),
            approval: run.approvals.last().cloned(),
        }
    }
}

impl Run {
    pub(super) fn record(&self) -> ExecutionRecord {
        ExecutionRecord::new(self.execution.clone(), self.inputs())
    }

    fn inputs(&self) -> Arc<Inputs> {
        let mut inputs = Arc::clone(&self.inputs);
        if let Some(packed) = &self.packed {
            packed.put_into_inputs(&mut inputs);
        }
        inputs
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        if let Some(packed) = &self.packed {
            packed.put_into_steps(&mut steps);
        }
        steps
    }

    /// The size in bytes.
    pub(super) fn weight(&self) -> usize {
        let Weight {
            rows,
            values,
            requests,
            inbox,
        } = self.weight;
        STATE + rows + values + requests + inbox
    }

    fn weigh_values(&mut self) {
        self.weight.values = weight::inputs(&self.inputs)
            + self.steps.iter().map(weight::step).sum::<usize>()
            + self.packed.as_ref().map_or(0, Packed::weight);
    }

    pub(super) fn weigh_requests(&mut self) {
        let signatures = self.signatures.iter().map(weight::record);
        let approvals = self.approvals.iter().map(weight::record);
        self.weight.requests = signatures.chain(approvals).sum();
    }

    pub(super) fn put_into_inbox(&mut self, signal: Signal) {
        self.weight.inbox += weight::record(&signal);
        self.inbox.push(signal);
    }

    /// The `seq` of the last event; 0 if there is none.
    pub(super) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// The time when the execution ended, if it has ended.
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        let execution = &self.execution;
        let end = execution.completed_at.unwrap_or(execution.updated_at);
        self.has_ended.then_some(end)
    }

    /// The execution's place in the queue.
    pub(super) fn want(&self, types: TypeSet) -> Want {
        match &self.held {
            Some(held) if !held.lapsed => Want::Leased { until: held.until },
            _ if self.is_over() => Want::Nothing,
            _ => self.due.map_or(Want::Nothing, |at| Want::Worker {
                at,
                priority: self.execution.priority,
                types,
            }),
        }
    }

    pub(super) fn holds(&self, lease: &Lease) -> bool {
        let held = self.held.as_ref();
        !self.gone
            && held.is_some_and(|held| held.worker == lease.worker_id && held.fence == lease.fence)
    }

    /// True if a worker holds the lease at `now`.
    pub(super) fn is_leased(&self, now: Timestamp) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| !held.lapsed && held.until > now)
    }

    /// Leases the execution to a worker. The caller updates the queue.
    pub(super) fn lease(&mut self, id: ExecutionId, worker: WorkerId, until: Timestamp) -> Lease {
        self.fence += 1;
        self.due = None;
        self.taken_over = self.held.is_some();
        self.takeovers += u32::from(self.taken_over);
        self.held = Some(Held {
            worker,
            fence: self.fence,
            until,
            queued_until: until,
            lapsed: false,
        });
        Lease {
            execution_id: id,
            worker_id: worker,
            fence: self.fence,
        }
    }

    /// Extends the lease if it would expire earlier than `until`. Returns `true` if the caller must update
    /// the queue. A lease that has not lapsed needs no update: the store checks it again at the expiry that
    /// the queue has recorded.
    pub(super) fn hold_until(&mut self, until: Timestamp) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        held.until = held.until.max(until);
        let lapsed = std::mem::take(&mut held.lapsed);
        if lapsed {
            held.queued_until = held.until;
            self.due = None;
        }
        lapsed
    }

    /// Ends the lease. The execution needs its next worker at `due`; if `None`, it needs none. The caller
    /// updates the queue.
    fn end_lease(&mut self, due: Option<Timestamp>) {
        self.held = None;
        self.due = due;
    }

    /// Returns `at` if the execution needs a worker. An ended execution needs one only to empty its inbox.
    fn wants_from(&self, at: Timestamp) -> Option<Timestamp> {
        (!self.is_over()).then_some(at)
    }

    fn is_over(&self) -> bool {
        self.has_ended && self.inbox.is_empty()
    }

    /// Releases the lease without a change to the execution.
    pub(super) fn release(&mut self, now: Timestamp) {
        self.end_lease(self.wants_from(now));
    }

    /// Makes the execution due if its lease has expired; else corrects the expiry recorded for the queue.
    pub(super) fn lapse(&mut self, now: Timestamp) {
        let Some(held) = &mut self.held else { return };
        if held.until <= now {
            held.lapsed = true;
            let until = held.until;
            self.due = self.wants_from(until);
        } else {
            held.queued_until = held.until;
        }
    }

    pub(super) fn knows(&self, signal: SignalId) -> bool {
        self.settled.contains(&signal) || self.inbox.iter().any(|known| known.id == signal)
    }

    /// Makes the execution due no later than `at`, if no worker holds it. Returns `true` if the caller must
    /// update the queue.
    pub(super) fn due_by(&mut self, at: Timestamp) -> bool {
        if self.held.as_ref().is_some_and(|held| !held.lapsed) {
            return false;
        }
        // Return `true` even if the time is unchanged, because an ended execution enters the queue here.
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        true
    }

    /// Checks that all of a commit can be applied.
    pub(super) fn check(&self, id: ExecutionId, commit: &Commit) -> Result<(), StoreError> {
        let refuse = |kind, message: String| Err(StoreError::new(kind, "commit", message));
        if !self.holds(&commit.lease) {
            return refuse(
                StoreErrorKind::Conflict,
                format!("the lease of {id} is lost"),
            );
        }
        let version = self.execution.version;
        if version != commit.expected_version {
            let message = format!(
                "{id} has version {version}, not {}",
                commit.expected_version
            );
            return refuse(StoreErrorKind::Conflict, message);
        }
        let execution = &commit.execution;
        if execution.id != id
            || execution.organization_id != self.execution.organization_id
            || execution.workflow_id != self.execution.workflow_id
            || execution.created_at != self.execution.created_at
        {
            return refuse(
                StoreErrorKind::Invalid,
                format!("the commit changes what {id} is"),
            );
        }
        if execution.version <= version {
            return refuse(
                StoreErrorKind::Invalid,
                format!("the version of {id} does not grow"),
            );
        }
        let is_settled = |signal: &Signal| commit.settled.contains(&signal.id);
        if matches!(commit.then, LeaseAfter::End) && !self.inbox.iter().all(is_settled) {
            return refuse(
                StoreErrorKind::Signaled,
                format!("{id} has signals in its inbox"),
            );
        }
        if let Some(step) = commit.steps.iter().find(|step| self.step(step).is_none()) {
            return refuse(
                StoreErrorKind::Invalid,
                format!("{id} has no step {}", step.id),
            );
        }
        let lengths = Lengths {
            events: self.events.len(),
            logs: self.logs.len(),
            audit: self.audit.len(),
        };
        lengths
            .check(execution, &commit.events, &commit.logs, &commit.audit)
            .or_else(|message| refuse(StoreErrorKind::Invalid, message))
    }

    fn step(&self, step: &Step) -> Option<usize> {
        let at_place = step.position as usize;
        if self
            .steps
            .get(at_place)
            .is_some_and(|known| known.id == step.id)
        {
            return Some(at_place);
        }
        self.steps.iter().position(|known| known.id == step.id)
    }

    /// Applies a checked commit, except its signature request and its approval. Returns `true` if the caller
    /// must update the queue.
    pub(super) fn apply(&mut self, commit: Commit) -> bool {
        if let Some(packed) = self.packed.take() {
            packed.put_into_inputs(&mut self.inputs);
            packed.put_into_steps(&mut self.steps);
            self.weigh_values();
        }
        self.execution = commit.execution;
        if let Some(inputs) = commit.inputs {
            self.weight.values -= weight::inputs(&self.inputs);
            self.weight.values += weight::inputs(&inputs);
            self.inputs = inputs;
        }
        for step in commit.steps {
            if let Some(index) = self.step(&step) {
                self.weight.values -= weight::step(&self.steps[index]);
                self.weight.values += weight::step(&step);
                self.steps[index] = step;
            }
        }
        self.weight.rows += weight::rows(&commit.events, &commit.logs, &commit.audit);
        // The expected rows: two events and a status change for each step, one log entry and audit row, and
        // a few rows of the execution itself.
        let steps = self.steps.len();
        append(&mut self.events, commit.events, 3 * steps + 8);
        append(&mut self.logs, commit.logs, steps + 3);
        append(&mut self.audit, commit.audit, steps + 3);
        for id in commit.settled {
            if let Some(index) = self.inbox.iter().position(|signal| signal.id == id) {
                let signal = self.inbox.remove(index);
                self.weight.inbox -= weight::record(&signal);
                self.settled.insert(id);
            }
        }
        if let Some(seq) = commit.published {
            self.mark_published(seq);
        }
        if commit.made_progress {
            self.takeovers = 0;
        }
        match commit.then {
            LeaseAfter::Keep(until) => self.hold_until(until),
            LeaseAfter::Release { due_at } => {
                let signaled = self.inbox.first().map(|signal| signal.received_at);
                self.end_lease(match (due_at, signaled) {
                    (Some(due_at), Some(signaled)) => Some(due_at.min(signaled)),
                    (due_at, signaled) => due_at.or(signaled),
                });
                true
            }
            LeaseAfter::End => {
                self.has_ended = true;
                self.end_lease(None);
                true
            }
        }
    }

    pub(super) fn mark_published(&mut self, seq: u64) {
        self.published = self.published.max(seq.min(self.head()));
    }

    /// Frees memory that an ended execution does not need.
    pub(super) fn pack(&mut self) {
        if self.packed.is_none() {
            self.packed = Some(Packed::take_from(&mut self.inputs, &mut self.steps));
            self.weigh_values();
        }
        self.events.shrink_to_fit();
        self.logs.shrink_to_fit();
        self.audit.shrink_to_fit();
        self.inbox.shrink_to_fit();
    }
}

/// Appends a commit's rows. A growing vector copies its rows, so the first call reserves memory for the
/// `expected` number of rows of an execution without failures.
fn append<T>(rows: &mut Vec<T>, more: Vec<T>, expected: usize) {
    let needed = rows.len() + more.len();
    if needed > rows.capacity() && needed <= expected {
        rows.reserve_exact(expected - rows.len());
    }
    rows.extend(more);
}

/// Checks that a new execution's events, log entries and audit rows are numbered from 1, and that `heads`
/// names the last number of each.
pub(super) fn check_new(run: &NewExecution) -> Result<(), String> {
    let none = Lengths {
        events: 0,
        logs: 0,
        audit: 0,
    };
    none.check(&run.state.execution, &run.events, &run.logs, &run.audit)
}

/// The numbers of stored events, log entries and audit rows of an execution.
struct Lengths {
    events: usize,
    logs: usize,
    audit: usize,
}

impl Lengths {
    /// Checks that new records follow the stored ones without a gap, and that `heads` names the last number
    /// of each kind.
    fn check(
        &self,
        execution: &Execution,
        events: &[Arc<Event>],
        logs: &[Arc<LogEntry>],
        audit: &[Arc<AuditEvent>],
    ) -> Result<(), String> {
        let (id, heads) = (execution.id, &execution.heads);
        contiguous(
            id,
            "event",
            self.events,
            heads.event_seq,
            events.iter().map(|event| event.seq),
        )?;
        contiguous(
            id,
            "log entry",
            self.logs,
            heads.log_seq,
            logs.iter().map(|entry| entry.seq),
        )?;
        contiguous(
            id,
            "audit row",
            self.audit,
            heads.audit_seq,
            audit.iter().map(|row| row.seq),
        )
    }
}

fn contiguous(
    id: ExecutionId,
    what: &str,
    length: usize,
    head: u64,
    seqs: impl Iterator<Item = u64>,
) -> Result<(), String> {
    let mut last = length as u64;
    for seq in seqs {
        if seq != last + 1 {
            return Err(format!("{what} {seq} of {id} after {last}"));
        }
        last = seq;
    }
    if last == head {
        Ok(())
    } else {
        Err(format!(
            "the last {what} of {id} is {last}, its head says {head}"
        ))
    }
}
