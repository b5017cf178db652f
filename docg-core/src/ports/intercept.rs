//! One decorator for stores and buses: it passes each call through an interceptor.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    BusError, Claim, ClaimRequest, Commit, Committed, Created, EventBus, EventStream,
    ExecutionReader, ExecutionStore, Lease, NewExecution, OrganizationStream, Renewed, Signal,
    StoreError, TtlEntry, TtlKey, TtlStore, Unpublished, Unserved, WakeStream, WorkflowStore,
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

/// Runs around every call of a store or bus, to observe, count, delay or fail the call. `E` is the port's
/// error.
///
/// ```
/// use docg_core::ports::{Intercepted, Interceptor, Store, StoreError};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
///
/// /// Counts calls.
/// #[derive(Default)]
/// struct Counter(AtomicU64);
///
/// impl Interceptor<StoreError> for Counter {
///     async fn around<T: Send>(
///         &self,
///         _operation: &'static str,
///         call: impl Future<Output = Result<T, StoreError>> + Send,
///     ) -> Result<T, StoreError> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         call.await
///     }
/// }
///
/// fn counted(store: Arc<dyn Store>) -> Arc<dyn Store> {
///     Arc::new(Intercepted::wrap(store, Counter::default()))
/// }
/// ```
pub trait Interceptor<E>: Send + Sync + 'static {
    /// Awaits `call`, or answers in its place. If `call` is never polled, the port is not called. `operation`
    /// is the name of the port's method.
    fn around<T: Send>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> impl Future<Output = Result<T, E>> + Send;
}

/// A store or a bus whose calls pass through an [`Interceptor`].
pub struct Intercepted<P: ?Sized, I> {
    pub(crate) port: Arc<P>,
    pub(crate) interceptor: I,
}

impl<P: ?Sized, I> Intercepted<P, I> {
    /// Passes each call of `port` through `interceptor`.
    pub const fn wrap(port: Arc<P>, interceptor: I) -> Self {
        Self { port, interceptor }
    }
}

impl<P: ?Sized, I: fmt::Debug> fmt::Debug for Intercepted<P, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted")
            .field("interceptor", &self.interceptor)
            .finish_non_exhaustive()
    }
}

/// Makes one call through the interceptor.
macro_rules! intercepted {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let call = $self.port.$method($($argument),*);
        $self.interceptor.around(stringify!($method), call).await
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: ExecutionStore + ?Sized, I: Interceptor<StoreError>> ExecutionStore for Intercepted<P, I> {
    async fn create(&self, execution: NewExecution) -> Result<Created, StoreError> {
        intercepted!(self.create(execution))
    }
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        intercepted!(self.claim(request))
    }
    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError> {
        intercepted!(self.unserved(node_types, before))
    }
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError> {
        intercepted!(self.renew(leases, until))
    }
    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
        intercepted!(self.release(leases, now))
    }
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        intercepted!(self.commit(commit))
    }
    async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        intercepted!(self.signal(signal))
    }
    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError> {
        intercepted!(self.signals(execution))
    }
    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError> {
        intercepted!(self.unpublished(before, after, limit))
    }
    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError> {
        intercepted!(self.mark_published(published))
    }
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        intercepted!(self.purge(before, limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: ExecutionReader + ?Sized, I: Interceptor<StoreError>> ExecutionReader
    for Intercepted<P, I>
{
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError> {
        intercepted!(self.execution(organization, id))
    }
    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError> {
        intercepted!(self.executions(query))
    }
    async fn execution_counts(
        &self,
        organization: OrganizationId,
        filter: &ExecutionFilter,
    ) -> Result<ExecutionCounts, StoreError> {
        intercepted!(self.execution_counts(organization, filter))
    }
    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError> {
        intercepted!(self.steps(organization, id))
    }
    async fn awaiting(&self, query: AwaitingQuery) -> Result<Vec<ExecutionId>, StoreError> {
        intercepted!(self.awaiting(query))
    }
    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        intercepted!(self.snapshot(organization, id))
    }
    async fn readable(&self, id: ExecutionId) -> Result<(), StoreError> {
        intercepted!(self.readable(id))
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError> {
        intercepted!(self.events(query))
    }
    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError> {
        intercepted!(self.logs(query))
    }
    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError> {
        intercepted!(self.audit(query))
    }
    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        intercepted!(self.signature_request(organization, id))
    }
    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        intercepted!(self.signature_by_envelope(provider, envelope_id))
    }
    async fn approval_by_token(
        &self,
        token_hash: [u8; 32],
    ) -> Result<Option<Approval>, StoreError> {
        intercepted!(self.approval_by_token(token_hash))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: WorkflowStore + ?Sized, I: Interceptor<StoreError>> WorkflowStore for Intercepted<P, I> {
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError> {
        intercepted!(self.put_workflow(workflow))
    }
    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        intercepted!(self.workflow(organization, id))
    }
    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError> {
        intercepted!(self.workflows(query))
    }
    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError> {
        intercepted!(self.latest_version(organization, id))
    }
    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError> {
        intercepted!(self.delete_workflow(organization, id))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: TtlStore + ?Sized, I: Interceptor<StoreError>> TtlStore for Intercepted<P, I> {
    async fn remember(
        &self,
        entry: TtlEntry,
        now: Timestamp,
    ) -> Result<Option<TtlEntry>, StoreError> {
        intercepted!(self.remember(entry, now))
    }
    async fn recall(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, StoreError> {
        intercepted!(self.recall(key, now))
    }
    async fn replace(&self, entry: TtlEntry) -> Result<(), StoreError> {
        intercepted!(self.replace(entry))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: EventBus + ?Sized, I: Interceptor<BusError>> EventBus for Intercepted<P, I> {
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        intercepted!(self.publish(events))
    }
    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        intercepted!(self.restore(events))
    }
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError> {
        intercepted!(self.subscribe(execution, after))
    }
    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        intercepted!(self.subscribe_organization(organization, after))
    }
    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError> {
        intercepted!(self.wake(execution))
    }
    async fn wakes(&self) -> Result<WakeStream, BusError> {
        intercepted!(self.wakes())
    }
}
