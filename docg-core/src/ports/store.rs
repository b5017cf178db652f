use std::sync::Arc;

use async_trait::async_trait;

use super::{
    error::StoreError,
    model::{
        Claim, ClaimRequest, Commit, Committed, Created, Lease, NewExecution, Renewed, Signal,
        TtlEntry, TtlKey, Unpublished, Unserved,
    },
};
use crate::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditEvent, LogEntry},
    query::{
        AuditQuery, AwaitingQuery, EventQuery, ExecutionCounts, ExecutionFilter, ExecutionQuery,
        ExecutionRecord, LogQuery, Page, WorkflowQuery,
    },
    run::Step,
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};

/// The complete storage of the engine. One type implements all four traits.
///
/// Every call may fail with [`Unavailable`](super::StoreErrorKind::Unavailable), and every call that reads
/// also with [`Corrupt`](super::StoreErrorKind::Corrupt). The methods list their other errors.
pub trait Store: ExecutionStore + ExecutionReader + WorkflowStore + TtlStore {}

impl<T: ExecutionStore + ExecutionReader + WorkflowStore + TtlStore> Store for T {}

/// Changes executions. Only the lease holder's [`commit`](Self::commit) changes run state.
#[async_trait]
pub trait ExecutionStore: Send + Sync + 'static {
    /// Stores an execution atomically. If `claim` is set and the organization, as of `created_at`, is below
    /// `per_organization`, also leases the execution. A store may leave the lease to a later claim.
    ///
    /// # Errors
    ///
    /// `KeyReused` if the idempotency key came with another body before; `Conflict` if the id is taken;
    /// `Full`; `Invalid`, also if the events are not numbered 1, 2, 3 ….
    async fn create(&self, execution: NewExecution) -> Result<Created, StoreError>;
    /// Leases executions that are due, or one execution by id.
    ///
    /// Each claim of an execution gets a higher fencing token than the one before. A leased execution is
    /// never claimed before its lease expires; an expired lease counts as released. If a due execution cannot
    /// be read, the store leases it, so that it is not due again at once, and leaves it out of the result. An
    /// execution that has ended is due only while its inbox is not empty. Within equal priority,
    /// organizations may take turns.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError>;
    /// Renews leases, and reports which are lost, which have signals pending, and which are in an unknown
    /// state.
    ///
    /// # Errors
    ///
    /// `Unavailable`; leases may or may not have been renewed.
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError>;
    /// Lists executions that became due before `before`, are not leased, and need a node type outside
    /// `node_types`: one entry for each set of node types. Executions whose lease has expired may be missing
    /// until a claim has noticed the expiry.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError>;
    /// Releases leases without changing the executions. The executions are due at once; if one has ended, it
    /// is due only if its inbox is not empty. Lost leases are ignored.
    ///
    /// # Errors
    ///
    /// `Unavailable`; the leases then expire by themselves.
    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError>;
    /// Applies one decision atomically.
    ///
    /// # Errors
    ///
    /// `Conflict` if the lease is lost or the version differs; `Signaled` if the commit
    /// [ends](super::LeaseAfter::End) the execution without settling its whole inbox; `NameTaken` if a new
    /// request has a name that leads to another stored execution, ended or not; `Full`; `Invalid`, also if
    /// the events do not follow those stored.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;
    /// Appends a signal to an execution's inbox and makes the execution due, even if it has ended. Idempotent
    /// by the signal's id, even if the signal is settled already.
    ///
    /// # Errors
    ///
    /// `NotFound` if the organization has no such execution; `Full`.
    async fn signal(&self, signal: Signal) -> Result<(), StoreError>;
    /// The signal inbox of an execution, oldest first.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError>;
    /// Lists executions that changed before `before` and may have events that are missing on the bus. Ordered
    /// by id, starting after `after`, at most `limit`.
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
    /// Records, for each execution, the `seq` of its last event on the bus. A recorded `seq` never decreases.
    ///
    /// # Errors
    ///
    /// `Unavailable`; the events are then published again.
    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError>;
    /// Deletes up to `limit` executions that ended before `before`, with all their records. Returns their
    /// number.
    ///
    /// An execution with an unsettled signal stays until the signal is settled. If stored data of the
    /// execution cannot be read any more, no worker can settle the signal; the store then ignores signals
    /// received before `before`, and logs that by `tracing`. A store may keep the audit trails of deleted
    /// executions; the ids of these executions then stay taken.
    ///
    /// # Errors
    ///
    /// `Unavailable`; executions deleted by then stay deleted.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// Reads executions. An organization cannot find another organization's records.
#[async_trait]
pub trait ExecutionReader: Send + Sync + 'static {
    /// An execution by id.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError>;
    /// A page of executions, in the order of the query.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError>;
    /// Counts the organization's executions that a filter selects, as of one moment.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn execution_counts(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, StoreError>;
    /// An execution's steps in the workflow's order; empty if there is no such execution.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError>;
    /// Lists executions with a step that waits for this event, by id. A step that accepts every key is not listed.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn awaiting(&self, query: AwaitingQuery) -> Result<Vec<ExecutionId>, StoreError>;
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
    /// Checks that a worker can load an execution with all its records. Succeeds if there is no such
    /// execution.
    ///
    /// # Errors
    ///
    /// `Corrupt` names the unreadable part; `Unavailable`.
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
    /// A signature request by id.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError>;
    /// The signature request with this envelope id at a provider; the latest if its execution has several.
    /// Takes no organization: a webhook names none, and the signature request has its own.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError>;
    /// The approval that a link with this token opens; the latest if its execution has several. Takes no
    /// organization: the token alone authorizes the reader.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn approval_by_token(&self, token_hash: [u8; 32])
    -> Result<Option<Approval>, StoreError>;
}

/// Stores workflow definitions.
#[async_trait]
pub trait WorkflowStore: Send + Sync + 'static {
    /// Stores a version of a workflow. The first version is 1; each later one must follow the latest, deleted
    /// versions included.
    ///
    /// # Errors
    ///
    /// `Conflict` if the latest version is not `workflow.version - 1`.
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError>;
    /// The current version of a workflow.
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
    /// The highest version ever stored under this id, deleted versions included; 0 if there is none.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError>;
    /// Hides a workflow; its executions stay. Returns `false` if there is no such workflow.
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

/// A TTL store for small facts. The engine keeps received webhooks in it; `docg-http` keeps answers to
/// repeat, and the tokens of event streams.
#[async_trait]
pub trait TtlStore: Send + Sync + 'static {
    /// Stores a fact if its key is free; else returns the stored fact and changes nothing. A fact that has
    /// expired at `now` counts as absent.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`; `Full`; `Invalid`.
    async fn remember(
        &self,
        entry: TtlEntry,
        now: Timestamp,
    ) -> Result<Option<TtlEntry>, StoreError>;
    /// The fact with this key.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Corrupt`.
    async fn recall(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, StoreError>;
    /// Stores a fact, replacing any with the same key.
    ///
    /// # Errors
    ///
    /// `Unavailable`; `Full`; `Invalid`.
    async fn replace(&self, entry: TtlEntry) -> Result<(), StoreError>;
}
