//! One execution with all that belongs to it, and what a commit does to it.

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
        Commit, ExecutionRecord, Lease, LeaseAfter, NewRun, RunState, Signal, StoreError,
        StoreErrorKind,
    },
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

/// One execution: what never changes, and the rest behind its lock.
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

/// What changes of an execution.
pub(super) struct Run {
    pub(super) execution: Execution,
    inputs: Arc<Inputs>,
    steps: Vec<Step>,
    /// What was taken out of the two above, once the execution has ended.
    packed: Option<Packed>,
    /// Oldest first; the last is the one that the run works with.
    pub(super) signatures: Vec<SignatureRequest>,
    /// Oldest first; the last is the one that the run works with.
    pub(super) approvals: Vec<Approval>,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) logs: Vec<Arc<LogEntry>>,
    pub(super) audit: Vec<Arc<AuditEvent>>,
    pub(super) inbox: Vec<Signal>,
    /// Signals that have left the inbox, so that a repeated one is known.
    settled: BTreeSet<SignalId>,
    pub(super) published: u64,
    /// It is in its shard's list of executions that may have unpublished events.
    pub(super) listed_unpublished: bool,
    pub(super) held: Option<Held>,
    /// The present holder took it from one that had not let go.
    pub(super) taken_over: bool,
    /// Claims in a row that took it so, since it last made progress.
    pub(super) takeovers: u32,
    fence: u64,
    /// When it next wants a worker while nobody holds it.
    due: Option<Timestamp>,
    /// Counts its places in the queue.
    pub(super) generation: u64,
    /// It has been purged; whoever still has the entry has nothing.
    pub(super) gone: bool,
    weight: Weight,
}

/// How many bytes an execution takes, by what of it changes together. Its definition is not in it:
/// executions share it.
#[derive(Default)]
struct Weight {
    /// Events, log and audit trail.
    rows: usize,
    /// Inputs and steps.
    values: usize,
    /// Signature requests and approvals.
    requests: usize,
    inbox: usize,
}

/// A lease, as the entry knows it.
pub(super) struct Held {
    pub(super) worker: WorkerId,
    pub(super) fence: u64,
    pub(super) until: Timestamp,
    /// The end that the queue knows of.
    queued_until: Timestamp,
    /// It has run out and the execution is back in line; its holder may still commit until
    /// somebody takes over.
    lapsed: bool,
}

/// The run state with its places in lists and queues, in bytes.
const STATE: usize = 1_024;

/// How many bytes a new run will take.
pub(super) fn weight_of(run: &NewRun) -> usize {
    let state = &run.state;
    let steps = state.steps.iter().map(weight::step);
    let rows = weight::rows(&run.events, &run.logs, &run.audit);
    STATE + rows + weight::inputs(&state.inputs) + steps.sum::<usize>()
}

impl Entry {
    pub(super) fn new(run: NewRun, types: TypeSet, lists: Arc<TenantLists>) -> Self {
        let NewRun {
            state,
            events,
            logs,
            audit,
            idempotency,
            claim: _,
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
            due: execution.wake_at,
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

    /// The whole run, as a worker gets it.
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
        ExecutionRecord {
            execution: self.execution.clone(),
            inputs: self.inputs(),
            unreadable: false,
        }
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

    /// How many bytes it takes.
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

    /// The last event's `seq`.
    pub(super) fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// When it counts as ended, where it has.
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        let execution = &self.execution;
        execution
            .status
            .is_terminal()
            .then(|| execution.completed_at.unwrap_or(execution.updated_at))
    }

    /// Where the queue should have it.
    pub(super) fn want(&self, types: TypeSet) -> Want {
        match &self.held {
            Some(held) if !held.lapsed => Want::Leased { until: held.until },
            _ if self.execution.status.is_terminal() && self.inbox.is_empty() => Want::Nothing,
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

    /// Whether somebody holds it at `now`.
    pub(super) fn is_leased(&self, now: Timestamp) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| !held.lapsed && held.until > now)
    }

    /// Gives it to a worker. The caller sees to the queue.
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

    /// Prolongs the lease, where it would end before; `true` where the queue must know. It need not
    /// know of a later end: it asks when the one that it knows has come.
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

    /// Ends the lease; the execution is due at `due`. The caller sees to the queue.
    fn let_go(&mut self, due: Option<Timestamp>) {
        self.held = None;
        self.due = due;
    }

    /// Gives back what a worker has never learned of, and tells whether there was something. Only its
    /// first lease has nothing before it. An execution whose lease has expired is due already.
    pub(super) fn give_back_of(&mut self, worker: WorkerId, now: Timestamp) -> bool {
        if !self.is_leased(now) {
            return false;
        }
        match &mut self.held {
            Some(held) if held.worker == worker && held.fence == 1 => self.held = None,
            Some(held) if held.worker == worker => {
                held.lapsed = true;
                // Nobody has died: the next claim takes over and counts no more than this one did.
                self.takeovers = self.takeovers.saturating_sub(1);
            }
            _ => return false,
        }
        self.due = self.wants_from(now);
        true
    }

    /// When it is due, where it wants a worker from `at` on. One that has ended does only for its inbox.
    fn wants_from(&self, at: Timestamp) -> Option<Timestamp> {
        let is_over = self.execution.status.is_terminal() && self.inbox.is_empty();
        (!is_over).then_some(at)
    }

    /// Ends the lease without a change.
    pub(super) fn give_back(&mut self, now: Timestamp) {
        self.let_go(self.wants_from(now));
    }

    /// Puts an execution whose lease has run out back in line; also tells the queue's mistakes.
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

    /// Makes it due no later than `at`, where nobody holds it; `true` where the queue must know.
    pub(super) fn due_by(&mut self, at: Timestamp) -> bool {
        if self.held.as_ref().is_some_and(|held| !held.lapsed) {
            return false;
        }
        // Equal is told as well: an ended execution comes back in line only now.
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        true
    }

    /// Checks that a commit can be applied whole.
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
        if commit.unless_signaled && !self.inbox.iter().all(is_settled) {
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

    /// Applies a commit that was checked, but for its signature request and its approval; `true`
    /// where the queue must know what became of the lease.
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
        // Begun, ended and the status between for each step; a word and a row for each.
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
            LeaseAfter::Release => {
                let wake_at = self.execution.wake_at;
                let signaled = self.inbox.first().map(|signal| signal.received_at);
                self.let_go(match (wake_at, signaled) {
                    (Some(wake_at), Some(signaled)) => Some(wake_at.min(signaled)),
                    (wake_at, signaled) => wake_at.or(signaled),
                });
                true
            }
        }
    }

    pub(super) fn mark_published(&mut self, seq: u64) {
        self.published = self.published.max(seq.min(self.head()));
    }

    /// Gives back memory that an execution that has ended will not need.
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

/// Adds a commit's rows. Growing copies, so the first time there is made room for all that a run
/// without trouble is `expected` to leave.
fn append<T>(rows: &mut Vec<T>, more: Vec<T>, expected: usize) {
    let needed = rows.len() + more.len();
    if needed > rows.capacity() && needed <= expected {
        rows.reserve_exact(expected - rows.len());
    }
    rows.extend(more);
}

/// Checks that the first records of a run start their sequences and agree with its heads.
pub(super) fn check_new(run: &NewRun) -> Result<(), String> {
    let none = Lengths {
        events: 0,
        logs: 0,
        audit: 0,
    };
    none.check(&run.state.execution, &run.events, &run.logs, &run.audit)
}

/// How long an execution's sequences are.
struct Lengths {
    events: usize,
    logs: usize,
    audit: usize,
}

impl Lengths {
    /// Checks that new records follow those that are there, and that the execution says so.
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
