use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    approval::{Approval, Decision},
    event::Event,
    ids::{
        ApprovalId, ExecutionId, NodeId, OrganizationId, SignalId, SignatureRequestId, WorkerId,
        WorkflowId,
    },
    observe::{Actor, AuditEvent, LogDomain, LogEntry, LogLevel},
    run::{Execution, Inputs, Status, Step},
    signature::{SignatureRequest, SignerFact},
    time::Timestamp,
    workflow::Workflow,
};

/// All that the engine needs to decide how a run goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The run state.
    pub execution: Execution,
    /// The definition that it was created with.
    pub workflow: Arc<Workflow>,
    /// What it works on.
    pub inputs: Arc<Inputs>,
    /// One per node, in the workflow's order.
    pub steps: Vec<Step>,
    /// The signature request that it made last.
    pub signature: Option<SignatureRequest>,
    /// The approval that it asked for last.
    pub approval: Option<Approval>,
}

/// A new run, stored whole or not at all.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The run and its first records.
    pub state: RunState,
    /// Its first events.
    pub events: Vec<Arc<Event>>,
    /// Its first log entries.
    pub logs: Vec<Arc<LogEntry>>,
    /// Its first audit rows.
    pub audit: Vec<Arc<AuditEvent>>,
    /// Makes a repeated call give the first run again.
    pub idempotency: Option<Idempotency>,
    /// Who takes it on as it is stored, if anyone.
    pub claim: Option<FirstClaim>,
}

/// A wish to lease a run as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstClaim {
    /// Who.
    pub worker_id: WorkerId,
    /// Until when the lease holds.
    pub lease_until: Timestamp,
    /// At most this many executions of one organization may be leased at once, by any worker, this one
    /// included.
    pub per_organization: usize,
}

/// An idempotency key, bound to the organization of the call and to what the call asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// What the caller sent.
    pub key: String,
    /// SHA-256 of what the call asked for.
    pub fingerprint: [u8; 32],
}

/// What became of a creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// Stored.
    New {
        /// What its [claim](NewRun::claim) has given. Where that is nothing, it waits in line.
        lease: Option<Lease>,
    },
    /// The same key with the same body had made this one before; nothing was written.
    Existing(ExecutionId),
}

/// The right to change one execution, until it runs out or somebody else takes it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What.
    pub execution_id: ExecutionId,
    /// Who.
    pub worker_id: WorkerId,
    /// Grows with each claim of the execution.
    pub fence: u64,
}

/// What came of prolonging leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// Those that are lost.
    pub lost: Vec<Lease>,
    /// Those that were prolonged and have something in their execution's inbox: their holder may
    /// have missed the wake-up.
    pub signaled: Vec<Lease>,
    /// Those of which nothing is known, as of all where the call fails. All others were prolonged.
    pub unknown: Vec<Lease>,
}

impl Renewed {
    /// What came of prolonging leases.
    #[must_use]
    pub const fn new(lost: Vec<Lease>, signaled: Vec<Lease>) -> Self {
        let unknown = Vec::new();
        Self {
            lost,
            signaled,
            unknown,
        }
    }
}

/// A wish to work.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Who.
    pub worker_id: WorkerId,
    /// Which executions.
    pub what: ClaimWhat,
    /// The present.
    pub now: Timestamp,
    /// Until when the lease holds.
    pub lease_until: Timestamp,
}

/// Which executions a worker wants.
#[derive(Debug, Clone)]
pub enum ClaimWhat {
    /// This one, if nobody holds it, due or not, terminal or not.
    One(ExecutionId),
    /// Due ones, in priority then time order.
    Due {
        /// At most this many.
        limit: usize,
        /// At most this many of one organization may be leased at once, by any worker.
        per_organization: usize,
        /// Only executions all of whose node types are among these.
        node_types: Arc<[Arc<str>]>,
    },
}

/// What came of a wish to work.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// What the worker now holds.
    pub claimed: Vec<Claimed>,
    /// The earliest moment at which another execution becomes due, where the store knows it
    /// cheaply: the worker need not ask again before.
    pub next_due: Option<Timestamp>,
    /// Something that is due was left only because its organization has its share of leases. The
    /// store remembers that: see [`Committed::share_awaited`].
    pub held_back: bool,
}

/// Takeovers in a row after which an execution is given to a person, before anything of it is
/// evaluated again.
pub const MAX_TAKEOVERS: u32 = 20;

/// An execution that a worker now holds.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to change it.
    pub lease: Lease,
    /// The holder before had not let go: its lease ran out.
    pub taken_over: bool,
    /// How many claims in a row have taken the execution over, this one included, since a commit
    /// last [made progress](Commit::made_progress).
    pub takeovers: u32,
    /// Something of the run cannot be read: see [`ExecutionRecord::unreadable`]. Such a one is claimed
    /// by name only, so that it can be canceled.
    pub unreadable: bool,
    /// The run. Of an unreadable one, the steps and the definition may be missing.
    pub state: RunState,
    /// Its inbox, oldest first.
    pub signals: Vec<Signal>,
    /// The last event that is known to be on the bus; 0 for none.
    pub published: u64,
}

/// Everything that one decision changes, applied whole or not at all.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Who changes it. A lost lease refuses the commit.
    pub lease: Lease,
    /// The version that the decision was made on. Any other refuses the commit.
    pub expected_version: u64,
    /// The run state, with its new version.
    pub execution: Execution,
    /// Something of the run could not be read when this was decided: what a cancel does not change stays
    /// as it is stored.
    pub is_reduced: bool,
    /// What it works on, where that changed.
    pub inputs: Option<Arc<Inputs>>,
    /// The steps that changed.
    pub steps: Vec<Step>,
    /// New events, contiguous with those stored.
    pub events: Vec<Arc<Event>>,
    /// New log entries.
    pub logs: Vec<Arc<LogEntry>>,
    /// New audit rows.
    pub audit: Vec<Arc<AuditEvent>>,
    /// Signals that were applied or ignored; they leave the inbox.
    pub settled: Vec<SignalId>,
    /// The signature request, where it changed.
    pub signature: Option<SignatureRequest>,
    /// The approval, where it changed.
    pub approval: Option<Approval>,
    /// The last event that is known to be on the bus.
    pub published: Option<u64>,
    /// Refuse the commit where a signal is in the inbox that it does not settle: the run would end
    /// without having seen it.
    pub unless_signaled: bool,
    /// Whether the execution is further than before: its count of takeovers begins anew.
    pub made_progress: bool,
    /// What becomes of the lease.
    pub then: LeaseAfter,
}

/// What becomes of a lease with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAfter {
    /// The worker goes on until then, or until the lease's end where that is later: a commit may
    /// arrive after a renewal that was sent later.
    Keep(Timestamp),
    /// The worker lets go; the execution is due at its `wake_at`, or at once where its inbox is
    /// not empty.
    Release,
}

/// What a commit's maker learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Signals are in the inbox that this commit did not settle.
    pub signals_pending: bool,
    /// The commit has released a lease that a claim was [held back](Claim::held_back) for: workers
    /// must be woken. Told once for each organization, until a claim is held back again.
    pub share_awaited: bool,
}

/// A message to an execution. Only its holder applies it, in order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Unique; time-ordered.
    pub id: SignalId,
    /// To whom.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// From whom.
    pub actor: Actor,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Ignore it if the execution's version is another when its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// What it asks.
    pub kind: SignalKind,
}

/// What a signal asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SignalKind {
    /// Stop before the next step.
    Pause {
        /// For people.
        reason: Option<String>,
    },
    /// Go on.
    Resume(ResumeSignal),
    /// End.
    Cancel {
        /// For people.
        reason: Option<String>,
    },
    /// An approver has voted.
    ApprovalVote {
        /// Which approval.
        approval_id: ApprovalId,
        /// Whose vote.
        email: String,
        /// Yes or no.
        decision: Decision,
        /// What they said with it.
        comment: Option<String>,
    },
    /// A provider has reported on signers.
    SignatureFacts {
        /// Which request.
        signature_request_id: SignatureRequestId,
        /// What became of signers.
        facts: Vec<SignerFact>,
    },
    /// The execution is due, and no worker that has its node types has claimed it.
    NoWorker {
        /// The node types that the process that noticed does not have.
        node_types: Vec<String>,
    },
}

pub use resume::{ResumeSignal, Settlement};

mod resume {
    use super::*;
    use serde_json::Map;

    /// How to go on.
    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    pub struct ResumeSignal {
        /// `Some(false)` ends a review with a refusal.
        pub approved: Option<bool>,
        /// Merged into the trigger data.
        pub trigger_data: Option<Map<String, Value>>,
        /// Node parameters to set, by node.
        pub nodes: Map<String, Value>,
        /// Settles an outcome that is unknown.
        pub settlement: Option<Settlement>,
    }

    /// What a person knows of an unknown outcome.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Settlement {
        /// It happened, with this output.
        ConfirmDone(Value),
        /// It did not; run it again.
        RunAgain,
    }
}

/// An execution as readers get it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionRecord {
    /// The run state.
    pub execution: Execution,
    /// What it works on.
    pub inputs: Arc<Inputs>,
    /// Something of it cannot be read, by damage or because another version wrote it. Its ids and its
    /// status are right; the rest is what could be read, and it can only be canceled.
    pub unreadable: bool,
}

/// Which executions a reader wants, newest first.
#[derive(Debug, Clone)]
pub struct ExecutionQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Only of this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Only with this status.
    pub status: Option<Status>,
    /// Only those that come after this one in the list.
    pub after: Option<(Timestamp, ExecutionId)>,
    /// At most this many.
    pub limit: usize,
}

/// Which events a reader wants, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct EventQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The run.
    pub execution_id: ExecutionId,
    /// Only those with a greater `seq`.
    pub after: u64,
    /// At most this many.
    pub limit: usize,
}

/// Which log entries a reader wants, oldest first.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The run.
    pub execution_id: ExecutionId,
    /// Only of this level.
    pub level: Option<LogLevel>,
    /// Only of this domain.
    pub domain: Option<LogDomain>,
    /// Only of this node's step.
    pub step_id: Option<NodeId>,
    /// Only those with a greater `seq`.
    pub after: u64,
    /// At most this many.
    pub limit: usize,
}

/// Which audit rows a reader wants, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct AuditQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The run.
    pub execution_id: ExecutionId,
    /// Only those with a greater `seq`.
    pub after: u64,
    /// At most this many.
    pub limit: usize,
}

/// Which workflows a reader wants, newest first.
#[derive(Debug, Clone, Copy)]
pub struct WorkflowQuery {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Only those that come after this one in the list.
    pub after: Option<(Timestamp, WorkflowId)>,
    /// At most this many.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// Events that the bus may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpublished {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The run.
    pub execution_id: ExecutionId,
    /// The last event that is known to be on the bus.
    pub published: u64,
    /// The last event there is.
    pub head: u64,
}

/// Executions that a worker without their node types leaves alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// All that they need, in order.
    pub node_types: Vec<Arc<str>>,
    /// Since when the first of them is due.
    pub due_since: Timestamp,
    /// The executions, with their organizations: those due longest first, at most [`MOST`](Self::MOST).
    pub executions: Vec<(OrganizationId, ExecutionId)>,
}

impl Unserved {
    /// How many executions are named at most.
    pub const MOST: usize = 100;
}

/// Names a [`Memo`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemoKey {
    /// The tenant; `None` for what belongs to none, such as a webhook's delivery.
    pub organization_id: Option<OrganizationId>,
    /// What it is for, such as `sse_token`.
    pub kind: &'static str,
    /// Which one.
    pub key: String,
}

/// A small fact that is remembered for a while: an answer to be given again, a delivery that was
/// seen, a token's hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Memo {
    /// Its name.
    pub key: MemoKey,
    /// The fact.
    pub value: Value,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}
