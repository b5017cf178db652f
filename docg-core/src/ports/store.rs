use std::sync::Arc;

use async_trait::async_trait;

use super::{
    error::StoreError,
    model::{
        AuditQuery, Claim, ClaimRequest, Commit, Committed, Created, EventQuery, ExecutionQuery,
        ExecutionRecord, Lease, LogQuery, Memo, MemoKey, NewRun, Page, Renewed, Signal,
        Unpublished, Unserved, WorkflowQuery,
    },
};
use crate::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditEvent, LogEntry},
    run::Step,
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};

/// Everything that the engine keeps. One type implements all four parts.
///
/// Every call may fail with [`Unavailable`](super::StoreErrorKind::Unavailable), and one that reads
/// with [`Corrupt`](super::StoreErrorKind::Corrupt); methods name what else they fail with.
pub trait Store: RunStore + RunReader + WorkflowStore + MemoStore {}

impl<T: RunStore + RunReader + WorkflowStore + MemoStore> Store for T {}

/// What changes runs. All writing to a run goes through its holder's [`commit`](Self::commit).
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Stores a new run whole, leased where it comes with a claim and its organization has not got its
    /// share of leases, as of the time of its creation; a store may also leave it to a later claim.
    ///
    /// # Errors
    ///
    /// `KeyReused` where the idempotency key came with another body before; `Conflict` where the
    /// id is taken; `Full`; `Invalid`, also where the events are not 1, 2, 3 ….
    async fn create(&self, run: NewRun) -> Result<Created, StoreError>;
    /// Leases executions: those that are due, or one by name. Each claim of an execution has a
    /// higher fence than the one before. One that is leased and not run out is never given. One
    /// that cannot be read is leased, so that it is not due at once again, and left out.
    /// A claim counts a lease that has run out as gone. One that has ended is due only while its
    /// inbox is not empty. Within equal priority, organizations may take turns.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError>;
    /// Prolongs leases, and tells which are lost, which have signals waiting, and of which nothing is known.
    ///
    /// # Errors
    ///
    /// `Unavailable`; whether a lease was prolonged is then not known.
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError>;
    /// What became due before `before`, is still nobody's, and needs node types that are not all
    /// among these: each set of node types once. Those whose lease has run out may be missing until
    /// a claim has noticed.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError>;
    /// Gives leases back without a change; the executions are due at once, ended ones only where
    /// their inbox is not empty. Lost leases are ignored.
    ///
    /// # Errors
    ///
    /// `Unavailable`; the leases then run out by themselves.
    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError>;
    /// Applies one decision whole, or nothing of it.
    ///
    /// # Errors
    ///
    /// `Conflict` where the lease is lost or the version is another; `Signaled` where the commit
    /// yields to signals that it does not settle; `NameTaken` where a new request has a name that leads to
    /// another execution that is kept, ended or not; `Full`; `Invalid`, also where the events do not follow
    /// those stored.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;
    /// Appends to an execution's inbox and makes it due, also where it has ended. A second signal
    /// with the same id changes nothing, be the first in the inbox or settled.
    ///
    /// # Errors
    ///
    /// `NotFound` where the organization has no such execution; `Full`.
    async fn signal(&self, signal: Signal) -> Result<(), StoreError>;
    /// The inbox, oldest first.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError>;
    /// Executions with events that the bus may not have, changed before `before`, in the order of
    /// their ids: those after the given one, at most `limit`.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError>;
    /// Remembers up to where an execution's events are on the bus. Never goes back.
    ///
    /// # Errors
    ///
    /// `Unavailable`; the events are then published once more.
    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError>;
    /// Removes terminal executions that ended before `before`, with all that belongs to them, at
    /// most `limit`. Returns how many. Those with a signal that is not settled stay until it is;
    /// where what is stored of one cannot be read any more, nobody can settle it, so a store ignores
    /// signals that are from before `before` too, and tells it by `tracing`. A store may keep the
    /// audit trails of what it has removed; those ids are then not free again.
    ///
    /// # Errors
    ///
    /// `Unavailable`; what was removed by then is gone.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// What reads runs. Another organization's things are not found.
#[async_trait]
pub trait RunReader: Send + Sync + 'static {
    /// One execution.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError>;
    /// A page of executions, newest first by (`created_at`, `id`).
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError>;
    /// An execution's steps in the workflow's order; empty where there is no such execution.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError>;
    /// The definition that an execution was created with.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError>;
    /// Whether a worker can be given an execution, with all that belongs to it. So it is where there is
    /// none.
    ///
    /// # Errors
    ///
    /// `Corrupt` says what cannot be read; `Unavailable`.
    async fn readable(&self, id: ExecutionId) -> Result<(), StoreError>;
    /// A page of an execution's events.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError>;
    /// A page of an execution's log.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError>;
    /// A page of an execution's audit trail.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError>;
    /// One signature request.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError>;
    /// The signature request that a provider knows by this name; the last, if its execution has several.
    /// It takes no organization: a webhook has none, and the request says whose it is.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError>;
    /// The approval that a link's token opens; the last, if its execution has several. It takes no
    /// organization: the token is the proof.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn approval_by_token(&self, token_hash: [u8; 32])
    -> Result<Option<Approval>, StoreError>;
}

/// Workflow definitions.
#[async_trait]
pub trait WorkflowStore: Send + Sync + 'static {
    /// Stores a version. The first is 1; any other must follow the latest, deleted ones included.
    ///
    /// # Errors
    ///
    /// `Conflict` where the latest version is not `workflow.version - 1`.
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError>;
    /// The current version.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError>;
    /// A page of current versions, newest first by (`created_at`, `id`).
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError>;
    /// The highest version that was ever stored under this id, deleted ones included; 0 for none.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError>;
    /// Hides a workflow; its executions stay. `false` where there is none.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError>;
}

/// Small facts with an end.
#[async_trait]
pub trait MemoStore: Send + Sync + 'static {
    /// Remembers a fact unless its name is taken; then returns what is there and changes nothing.
    /// One that has expired at `now` counts as not there.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`; `Full`; `Invalid`.
    async fn remember(&self, memo: Memo, now: Timestamp) -> Result<Option<Memo>, StoreError>;
    /// The fact of this name.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn recall(&self, key: &MemoKey, now: Timestamp) -> Result<Option<Memo>, StoreError>;
    /// Replaces a fact, or remembers it.
    ///
    /// # Errors
    ///
    /// `Unavailable`; `Full`; `Invalid`.
    async fn replace(&self, memo: Memo) -> Result<(), StoreError>;
}
