use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    approval::{Approval, Decision},
    event::Event,
    ids::{ApprovalId, ExecutionId, OrganizationId, SignalId, SignatureRequestId, WorkerId},
    observe::{Actor, AuditEvent, LogEntry},
    run::{Execution, Inputs, Step},
    signature::{SignatureRequest, SignerFact},
    time::Timestamp,
    workflow::Workflow,
};

/// Everything that the engine needs to decide how an execution goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The execution's own record, such as its status and progress.
    pub execution: Execution,
    /// The definition that the execution was created with.
    pub workflow: Arc<Workflow>,
    /// The execution's input data.
    pub inputs: Arc<Inputs>,
    /// The steps, one per node, in the workflow's order.
    pub steps: Vec<Step>,
    /// The latest signature request of the execution.
    pub signature: Option<SignatureRequest>,
    /// The latest approval request of the execution.
    pub approval: Option<Approval>,
}

/// A new execution and its first records, which the store creates atomically. The execution has not ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewExecution {
    /// The execution's first run state. Its inputs have no kept events.
    pub state: RunState,
    /// The first events.
    pub events: Vec<Arc<Event>>,
    /// The first log entries.
    pub logs: Vec<Arc<LogEntry>>,
    /// The first audit rows.
    pub audit: Vec<Arc<AuditEvent>>,
    /// When the execution is first due; `None` if only a signal makes it due.
    pub due_at: Option<Timestamp>,
    /// The caller's idempotency key, if any. A repeated call with this key returns the execution already
    /// created.
    pub idempotency: Option<Idempotency>,
    /// A worker's request to lease the execution on creation, if any.
    pub claim: Option<FirstClaim>,
}

/// A request to lease an execution on creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstClaim {
    /// The worker that asks for the lease.
    pub worker_id: WorkerId,
    /// When the lease expires.
    pub lease_until: Timestamp,
    /// The largest number of the organization's executions that all workers together may have leased, this
    /// execution included.
    pub per_organization: usize,
}

/// An idempotency key, and a hash of the call that it belongs to. Each organization has its own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key that the caller sent.
    pub key: String,
    /// SHA-256 of the call's content.
    pub fingerprint: [u8; 32],
}

/// The result of creating an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The execution was stored.
    New {
        /// The lease, if [`claim`](NewExecution::claim) was set and granted. Without a lease, the execution
        /// waits for a claim.
        lease: Option<Lease>,
    },
    /// An earlier call with the same key and body created this execution. This call wrote nothing.
    Existing(ExecutionId),
}

/// A worker's right to change one execution, until the lease expires or another worker takes the execution
/// over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The leased execution.
    pub execution_id: ExecutionId,
    /// The worker that holds the lease.
    pub worker_id: WorkerId,
    /// The fencing token; grows with each claim of the execution.
    pub fence: u64,
}

/// The result of renewing leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// The leases that are lost.
    pub lost: Vec<Lease>,
    /// The renewed leases whose execution has signals in its inbox: the holder may have missed the wake-up.
    pub signaled: Vec<Lease>,
    /// The leases that may or may not have been renewed, because part of the call failed. Leases that are
    /// neither in this list nor in `lost` were renewed.
    pub unknown: Vec<Lease>,
}

impl Renewed {
    /// The result if the store knows the state of every lease.
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

/// A worker's request to claim executions.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker that claims.
    pub worker_id: WorkerId,
    /// The executions to claim.
    pub what: ClaimWhat,
    /// The current time.
    pub now: Timestamp,
    /// When the leases expire.
    pub lease_until: Timestamp,
}

/// Which executions a worker asks for.
#[derive(Debug, Clone)]
pub enum ClaimWhat {
    /// The execution with this id, unless it is leased. It need not be due, and may have ended.
    One(ExecutionId),
    /// Due executions, the highest priority first, then the longest due.
    Due {
        /// At most this many executions.
        limit: usize,
        /// The largest number of one organization's executions that all workers together may have leased.
        per_organization: usize,
        /// Only executions whose node types are all among these.
        node_types: Arc<[Arc<str>]>,
    },
}

/// The result of a claim.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Claim {
    /// The executions that this claim has leased.
    pub claimed: Vec<Claimed>,
    /// The earliest moment at which another execution becomes due, if the store can tell cheaply. The worker
    /// need not claim again before then.
    pub next_due: Option<Timestamp>,
    /// True if a due execution was left out only because its organization has reached `per_organization`
    /// leases. The store then reports when the organization releases one: see [`Committed::share_awaited`].
    pub held_back: bool,
}

/// The number of consecutive takeovers after which an execution waits for a person. Until the person acts, no
/// expression or step of the execution is evaluated, because the execution may be what kills its workers.
pub const MAX_TAKEOVERS: u32 = 20;

/// An execution that a worker has just leased.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Claimed {
    /// The worker's lease on the execution.
    pub lease: Lease,
    /// True if the previous holder did not release its lease: the lease expired.
    pub taken_over: bool,
    /// The number of consecutive takeovers, this one included, since a commit last [made
    /// progress](Commit::made_progress).
    pub takeovers: u32,
    /// True if part of the execution cannot be read: see [`ExecutionRecord::unreadable`](crate::query::ExecutionRecord::unreadable). Such an execution
    /// is claimed only by id, so that it can be canceled.
    pub unreadable: bool,
    /// The run state. If the execution is unreadable, steps and definition may be missing.
    pub state: RunState,
    /// The signal inbox, oldest first.
    pub signals: Vec<Signal>,
    /// The `seq` of the last event known to be on the bus; 0 for none.
    pub published: u64,
}

impl Claimed {
    /// A new execution that was leased on creation.
    #[must_use]
    pub const fn new(lease: Lease, state: RunState) -> Self {
        Self {
            lease,
            taken_over: false,
            takeovers: 0,
            unreadable: false,
            state,
            signals: Vec::new(),
            published: 0,
        }
    }
}

/// Everything that one decision changes, applied atomically.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Commit {
    /// The lease of the committing worker. If the lease is lost, the store refuses the commit.
    pub lease: Lease,
    /// The version that the decision was based on. If the stored version differs, the store refuses the
    /// commit.
    pub expected_version: u64,
    /// The run state, with its new version.
    pub execution: Execution,
    /// True if the decision was made without steps and definition, because they cannot be read or workers
    /// died too often. The store then writes only the fields that a cancel changes.
    pub is_reduced: bool,
    /// The execution's input data, if it changed. Its `start_at` never changes, and a store need not write it.
    pub inputs: Option<Arc<Inputs>>,
    /// The steps that changed.
    pub steps: Vec<Step>,
    /// New events, numbered on from the last one stored.
    pub events: Vec<Arc<Event>>,
    /// New log entries.
    pub logs: Vec<Arc<LogEntry>>,
    /// New audit rows.
    pub audit: Vec<Arc<AuditEvent>>,
    /// The signals that the decision applied or ignored. The store removes them from the inbox.
    pub settled: Vec<SignalId>,
    /// The signature request, if it changed.
    pub signature: Option<SignatureRequest>,
    /// The approval, if it changed.
    pub approval: Option<Approval>,
    /// The `seq` of the last event known to be on the bus; `None` leaves the stored one.
    pub published: Option<u64>,
    /// True if the execution advanced: its count of takeovers restarts at 0.
    pub made_progress: bool,
    /// The lease after this commit, and when the execution is due next.
    pub then: LeaseAfter,
}

/// The lease after a commit, and when the execution is due next. The engine derives both from the run state,
/// so that a store interprets neither status nor `wake_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAfter {
    /// The execution has not ended, and the worker keeps the lease until this moment or the lease's current
    /// end, whichever is later. A renewal sent after the commit may have reached the store before the commit.
    Keep(Timestamp),
    /// The worker releases the lease.
    Release {
        /// When the execution is due; `None` if only a signal makes it due. If the inbox is not empty, the
        /// execution is due at once.
        due_at: Option<Timestamp>,
    },
    /// The execution has ended, by this commit or an earlier one, and the worker releases the lease. The store
    /// refuses the commit if the inbox holds a signal that the commit does not settle: the execution would
    /// end without having seen that signal. After the end, only a signal makes the execution due.
    End,
}

impl LeaseAfter {
    /// The release of an execution's lease: the end if its status is terminal, else due at its `wake_at`.
    #[must_use]
    pub const fn release(execution: &Execution) -> Self {
        if execution.status.is_terminal() {
            Self::End
        } else {
            let due_at = execution.wake_at;
            Self::Release { due_at }
        }
    }
}

/// The store's answer to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// True if the inbox holds signals that this commit did not settle.
    pub signals_pending: bool,
    /// True if the commit released a lease of an organization whose due executions a claim left out, because it
    /// had its share of leases (see [`Claim::held_back`]). Workers must be woken to claim them. Reported once per
    /// organization, until a claim leaves some out again.
    pub share_awaited: bool,
}

/// A message to an execution. Only the lease holder applies signals, in order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's id, unique and time-ordered.
    pub id: SignalId,
    /// The execution that receives the signal.
    pub execution_id: ExecutionId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The sender.
    pub actor: Actor,
    /// When the engine accepted the signal.
    pub received_at: Timestamp,
    /// The execution's version that the signal requires; at any other version the signal is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// The request that the signal makes.
    pub kind: SignalKind,
}

/// The request that a signal makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SignalKind {
    /// Pauses the execution before its next step.
    Pause {
        /// The reason, for people.
        reason: Option<String>,
    },
    /// Resumes the execution.
    Resume(ResumeSignal),
    /// Cancels the execution.
    Cancel {
        /// The reason, for people.
        reason: Option<String>,
    },
    /// Records an approver's vote.
    ApprovalVote {
        /// The approval that the vote belongs to.
        approval_id: ApprovalId,
        /// The approver's e-mail address.
        email: String,
        /// The vote.
        decision: Decision,
        /// The approver's comment.
        comment: Option<String>,
    },
    /// Records a provider's report on signers.
    SignatureFacts {
        /// The signature request that the report is about.
        signature_request_id: SignatureRequestId,
        /// The reported facts about signers.
        facts: Vec<SignerFact>,
    },
    /// Reports an event from outside.
    Event {
        /// The event's name.
        name: String,
        /// The event's key.
        key: Option<String>,
        /// The event's content.
        payload: Arc<Value>,
    },
    /// Reports that the execution is due, and that no worker with its node types has claimed it.
    NoWorker {
        /// The node types that the reporting process does not have.
        node_types: Vec<String>,
    },
}

pub use resume::{ResumeSignal, Settlement};

mod resume {
    use super::*;
    use serde_json::Map;

    /// A person's answer to a waiting execution, which resumes or ends it.
    #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
    pub struct ResumeSignal {
        /// `Some(false)` ends the execution; any other value lets it go on.
        pub approved: Option<bool>,
        /// A JSON Merge Patch (RFC 7396) of the trigger data.
        pub trigger_data: Option<Map<String, Value>>,
        /// A JSON Merge Patch of the changed node parameters, by node id.
        pub nodes: Map<String, Value>,
        /// The operations of a JSON Patch (RFC 6902) over `{"trigger_data": …, "nodes": …}`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub patch: Vec<Value>,
        /// The person's answer about a step whose outcome is unknown.
        pub settlement: Option<Settlement>,
    }

    impl ResumeSignal {
        /// True if the person ends the execution instead of letting it go on.
        pub(crate) fn rejects(&self) -> bool {
            self.approved == Some(false)
        }
    }

    /// A person's answer about a step whose outcome is unknown.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Settlement {
        /// The effect happened, with this output.
        ConfirmDone(Value),
        /// The effect did not happen; run the step again.
        RunAgain,
    }
}

/// An execution whose last events may be missing on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpublished {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The `seq` of the last event known to be on the bus.
    pub published: u64,
    /// The `seq` of the last event stored.
    pub head: u64,
}

/// Unclaimable executions with the same set of node types: due, but the asking worker lacks a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The node types of each of these executions, sorted.
    pub node_types: Vec<Arc<str>>,
    /// When the first of these executions became due.
    pub due_since: Timestamp,
    /// The executions with their organizations, longest due first, at most [`MOST`](Self::MOST).
    pub executions: Vec<(OrganizationId, ExecutionId)>,
}

impl Unserved {
    /// The largest number of executions listed.
    pub const MOST: usize = 100;
}

/// The key of a [`TtlEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TtlKey {
    /// The tenant; `None` for facts without a tenant, such as a webhook's delivery.
    pub organization_id: Option<OrganizationId>,
    /// The purpose, such as `sse_token`.
    pub kind: &'static str,
    /// The fact's name, unique within kind and organization.
    pub key: String,
}

/// A small fact kept until it expires: an HTTP answer to repeat, a webhook's delivery already seen, the hash
/// of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct TtlEntry {
    /// The key.
    pub key: TtlKey,
    /// The fact.
    pub value: Value,
    /// When the fact expires.
    pub expires_at: Timestamp,
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::{
        conformance::fixtures::{RunFixture, at},
        run::Status,
    };

    #[test]
    fn a_released_execution_is_due_at_its_wake_at_until_it_has_ended() {
        let state = RunFixture::of(OrganizationId::new()).build().state;
        for status in Status::ALL {
            for wake_at in [None, Some(at(7))] {
                let execution = Execution {
                    status,
                    wake_at,
                    ..state.execution.clone()
                };
                let expected = match status {
                    Status::Completed | Status::Failed | Status::Canceled => LeaseAfter::End,
                    _ => LeaseAfter::Release { due_at: wake_at },
                };
                assert_eq!(LeaseAfter::release(&execution), expected, "{status}");
            }
        }
    }
}
