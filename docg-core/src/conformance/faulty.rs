//! Stores and buses that fail as planned.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    approval::Approval,
    event::Event,
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkflowId},
    observe::{AuditEvent, LogEntry},
    ports::{
        AuditQuery, BusError, Claim, ClaimRequest, Commit, Committed, Created, EventBus,
        EventQuery, EventStream, ExecutionQuery, ExecutionRecord, Lease, LogQuery, Memo, MemoKey,
        MemoStore, NewRun, OrganizationStream, Page, Renewed, RunReader, RunStore, Signal, Store,
        StoreError, StoreErrorKind, Unpublished, Unserved, WakeStream, WorkflowQuery,
        WorkflowStore,
    },
    run::Step,
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};

/// The way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is not made, and fails.
    Before,
    /// The call is made, but its answer is lost: the caller gets an error.
    After,
    /// The call is not made, and fails after this time.
    Hang(Duration),
    /// The call is made, and its answer arrives after this time.
    Slow(Duration),
}

/// A call that may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The number of the call, 1 for the first.
    pub number: u64,
    /// The name of the method.
    pub operation: &'static str,
}

type Plan = Box<dyn Fn(Call) -> Option<Fault> + Send + Sync>;

struct Faults {
    calls: AtomicU64,
    plan: Plan,
}

impl Faults {
    fn new(plan: Plan) -> Self {
        Self {
            calls: AtomicU64::new(0),
            plan,
        }
    }

    fn next(&self, operation: &'static str) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.plan)(Call { number, operation })
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

fn nth(number: u64, fault: Fault) -> Plan {
    Box::new(move |call| (call.number == number).then_some(fault))
}

/// A store whose calls fail as planned, with `Unavailable`.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Faults,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// Creates a decorator that fails the calls chosen by the closure.
    pub fn new(
        inner: Arc<dyn Store>,
        plan: impl Fn(Call) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            faults: Faults::new(Box::new(plan)),
        }
    }

    /// Creates a decorator that fails one call; 1 is the first.
    #[must_use]
    pub fn failing_nth(inner: Arc<dyn Store>, number: u64, fault: Fault) -> Self {
        Self {
            inner,
            faults: Faults::new(nth(number, fault)),
        }
    }

    /// The number of calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.faults.calls()
    }
}

/// The error of a call that fails as planned.
trait Planned {
    fn planned(operation: &'static str) -> Self;
}

impl Planned for StoreError {
    fn planned(operation: &'static str) -> Self {
        Self::new(StoreErrorKind::Unavailable, operation, "planned")
    }
}

impl Planned for BusError {
    fn planned(operation: &'static str) -> Self {
        Self::Unavailable(format!("{operation}: planned"))
    }
}

/// Makes one call, or fails it as planned.
macro_rules! faulty {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let unavailable = || Planned::planned(stringify!($method));
        match $self.faults.next(stringify!($method)) {
            None => $self.inner.$method($($argument),*).await,
            Some(Fault::Before) => Err(unavailable()),
            Some(Fault::After) => $self.inner.$method($($argument),*).await.and_then(|_| Err(unavailable())),
            Some(Fault::Hang(time)) => {
                tokio::time::sleep(time).await;
                Err(unavailable())
            }
            Some(Fault::Slow(time)) => {
                let answer = $self.inner.$method($($argument),*).await;
                tokio::time::sleep(time).await;
                answer
            }
        }
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl RunStore for FaultyStore {
    async fn create(&self, run: NewRun) -> Result<Created, StoreError> {
        faulty!(self.create(run))
    }
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        faulty!(self.claim(request))
    }
    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError> {
        faulty!(self.unserved(node_types, before))
    }
    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError> {
        faulty!(self.renew(leases, until))
    }
    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
        faulty!(self.release(leases, now))
    }
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        faulty!(self.commit(commit))
    }
    async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        faulty!(self.signal(signal))
    }
    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError> {
        faulty!(self.signals(execution))
    }
    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError> {
        faulty!(self.unpublished(before, after, limit))
    }
    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError> {
        faulty!(self.mark_published(published))
    }
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        faulty!(self.purge(before, limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl RunReader for FaultyStore {
    async fn execution(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRecord>, StoreError> {
        faulty!(self.execution(organization, id))
    }
    async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError> {
        faulty!(self.executions(query))
    }
    async fn steps(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Vec<Step>, StoreError> {
        faulty!(self.steps(organization, id))
    }
    async fn snapshot(
        &self,
        organization: OrganizationId,
        id: ExecutionId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        faulty!(self.snapshot(organization, id))
    }
    async fn readable(&self, id: ExecutionId) -> Result<(), StoreError> {
        faulty!(self.readable(id))
    }
    async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError> {
        faulty!(self.events(query))
    }
    async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError> {
        faulty!(self.logs(query))
    }
    async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError> {
        faulty!(self.audit(query))
    }
    async fn signature_request(
        &self,
        organization: OrganizationId,
        id: SignatureRequestId,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        faulty!(self.signature_request(organization, id))
    }
    async fn signature_by_envelope(
        &self,
        provider: &str,
        envelope_id: &str,
    ) -> Result<Option<SignatureRequest>, StoreError> {
        faulty!(self.signature_by_envelope(provider, envelope_id))
    }
    async fn approval_by_token(
        &self,
        token_hash: [u8; 32],
    ) -> Result<Option<Approval>, StoreError> {
        faulty!(self.approval_by_token(token_hash))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl WorkflowStore for FaultyStore {
    async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError> {
        faulty!(self.put_workflow(workflow))
    }
    async fn workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<Option<Arc<Workflow>>, StoreError> {
        faulty!(self.workflow(organization, id))
    }
    async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError> {
        faulty!(self.workflows(query))
    }
    async fn latest_version(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<u32, StoreError> {
        faulty!(self.latest_version(organization, id))
    }
    async fn delete_workflow(
        &self,
        organization: OrganizationId,
        id: WorkflowId,
    ) -> Result<bool, StoreError> {
        faulty!(self.delete_workflow(organization, id))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MemoStore for FaultyStore {
    async fn remember(&self, memo: Memo, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        faulty!(self.remember(memo, now))
    }
    async fn recall(&self, key: &MemoKey, now: Timestamp) -> Result<Option<Memo>, StoreError> {
        faulty!(self.recall(key, now))
    }
    async fn replace(&self, memo: Memo) -> Result<(), StoreError> {
        faulty!(self.replace(memo))
    }
}

/// A bus whose calls fail as planned, with `Unavailable`.
pub struct FaultyBus {
    inner: Arc<dyn EventBus>,
    faults: Faults,
}

impl fmt::Debug for FaultyBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBus")
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl FaultyBus {
    /// Creates a decorator that fails the calls chosen by the closure.
    pub fn new(
        inner: Arc<dyn EventBus>,
        plan: impl Fn(Call) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            faults: Faults::new(Box::new(plan)),
        }
    }

    /// Creates a decorator that fails one call; 1 is the first.
    #[must_use]
    pub fn failing_nth(inner: Arc<dyn EventBus>, number: u64, fault: Fault) -> Self {
        Self {
            inner,
            faults: Faults::new(nth(number, fault)),
        }
    }

    /// The number of calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.faults.calls()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EventBus for FaultyBus {
    async fn publish(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        faulty!(self.publish(events))
    }
    async fn restore(&self, events: &[Arc<Event>]) -> Result<(), BusError> {
        faulty!(self.restore(events))
    }
    async fn subscribe(&self, execution: ExecutionId, after: u64) -> Result<EventStream, BusError> {
        faulty!(self.subscribe(execution, after))
    }
    async fn subscribe_organization(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        faulty!(self.subscribe_organization(organization, after))
    }
    async fn wake(&self, execution: ExecutionId) -> Result<(), BusError> {
        faulty!(self.wake(execution))
    }
    async fn wakes(&self) -> Result<WakeStream, BusError> {
        faulty!(self.wakes())
    }
}
