//! Ports that report their calls to observers.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;

use super::observer::{Fact, Observers};
use crate::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditEvent, LogEntry},
    ports::{
        AuditQuery, BusError, Claim, ClaimRequest, Commit, Committed, Created, EventBus,
        EventQuery, EventStream, ExecutionQuery, ExecutionRecord, Lease, LogQuery, Memo, MemoKey,
        MemoStore, NewRun, OrganizationStream, Page, Renewed, RunReader, RunStore, Signal, Store,
        StoreError, Unpublished, Unserved, WakeStream, WorkflowQuery, WorkflowStore,
    },
    run::Step,
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};

/// A port, and the observers of its calls.
pub(in crate::engine) struct Observed<P: ?Sized> {
    port: Arc<P>,
    observers: Arc<Observers>,
}

impl<P: ?Sized> Observed<P> {
    pub(in crate::engine) fn new(port: Arc<P>, observers: &Arc<Observers>) -> Arc<Self> {
        Arc::new(Self {
            port,
            observers: Arc::clone(observers),
        })
    }
}

impl Observed<dyn Store> {
    fn tell(&self, operation: &'static str, began: Instant, error: Option<&StoreError>) {
        self.observers.tell(&Fact::StoreCalled {
            operation,
            duration: began.elapsed(),
            error: error.map(|error| error.kind),
        });
    }
}

impl Observed<dyn EventBus> {
    fn tell(&self, operation: &'static str, error: Option<&BusError>) {
        // Other errors are answers: the reader then reads the store.
        if matches!(error, Some(BusError::Unavailable(_))) {
            self.observers.tell(&Fact::BusUnavailable { operation });
        }
    }
}

macro_rules! store_call {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let began = Instant::now();
        let answer = $self.port.$method($($argument),*).await;
        $self.tell(stringify!($method), began, answer.as_ref().err());
        answer
    }};
}

macro_rules! bus_call {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let answer = $self.port.$method($($argument),*).await;
        $self.tell(stringify!($method), answer.as_ref().err());
        answer
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl RunStore for Observed<dyn Store> {
    async fn create(&self, run: NewRun) -> Result<Created, StoreError> {
        store_call!(self.create(run))
    }
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        store_call!(self.claim(request))
    }
    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError> {
        store_call!(self.unserved(node_types, before))
    }
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError> {
        store_call!(self.renew(leases, until))
    }
    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
        store_call!(self.release(leases, now))
    }
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        store_call!(self.commit(commit))
    }
    async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        store_call!(self.signal(signal))
    }
    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError> {
        store_call!(self.signals(execution))
    }
    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError> {
        store_call!(self.unpublished(before, after, limit))
    }
    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError> {
        store_call!(self.mark_published(published))
    }
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        store_call!(self.purge(before, limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl RunReader for Observed<dyn Store> {
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError> {
        store_call!(self.execution(organization, id))
    }
    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError> {
        store_call!(self.executions(query))
    }
    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError> {
        store_call!(self.steps(organization, id))
    }
    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        store_call!(self.snapshot(organization, id))
    }
    async fn readable(&self, id: ExecutionId) -> Result<(), StoreError> {
        store_call!(self.readable(id))
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError> {
        store_call!(self.events(query))
    }
    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError> {
        store_call!(self.logs(query))
    }
    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError> {
        store_call!(self.audit(query))
    }
    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        store_call!(self.signature_request(organization, id))
    }
    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        store_call!(self.signature_by_envelope(provider, envelope_id))
    }
    async fn approval_by_token(
        &self,
        token_hash: [u8; 32],
    ) -> Result<Option<Approval>, StoreError> {
        store_call!(self.approval_by_token(token_hash))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkflowStore for Observed<dyn Store> {
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError> {
        store_call!(self.put_workflow(workflow))
    }
    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        store_call!(self.workflow(organization, id))
    }
    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError> {
        store_call!(self.workflows(query))
    }
    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError> {
        store_call!(self.latest_version(organization, id))
    }
    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError> {
        store_call!(self.delete_workflow(organization, id))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MemoStore for Observed<dyn Store> {
    async fn remember(&self, memo: Memo, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        store_call!(self.remember(memo, now))
    }
    async fn recall(&self, key: &MemoKey, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        store_call!(self.recall(key, now))
    }
    async fn replace(&self, memo: Memo) -> Result<(), StoreError> {
        store_call!(self.replace(memo))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventBus for Observed<dyn EventBus> {
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        bus_call!(self.publish(events))
    }
    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        bus_call!(self.restore(events))
    }
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError> {
        bus_call!(self.subscribe(execution, after))
    }
    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        bus_call!(self.subscribe_organization(organization, after))
    }
    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError> {
        bus_call!(self.wake(execution))
    }
    async fn wakes(&self) -> Result<WakeStream, BusError> {
        bus_call!(self.wakes())
    }
}
