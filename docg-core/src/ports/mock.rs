//! A mock store, made with `mockall`: a test sets the calls that it expects and their answers.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    error::StoreError,
    model::{
        Claim, ClaimRequest, Commit, Committed, Created, Lease, NewExecution, Renewed, Signal,
        TtlEntry, TtlKey, Unpublished, Unserved,
    },
    store::{ExecutionReader, ExecutionStore, TtlStore, WorkflowStore},
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

mockall::mock! {
    /// A mock store that fails the test on an unexpected call.
    ///
    /// ```
    /// use docg_core::{
    ///     engine::{Engine, EngineError},
    ///     ids::{OrganizationId, WorkflowId},
    ///     ports::{MockEventBus, MockStore},
    /// };
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut store = MockStore::new();
    /// store.expect_workflow().once().returning(|_, _| Ok(None));
    /// let engine = Engine::builder(Arc::new(store), Arc::new(MockEventBus::new())).build();
    /// let found = engine.workflow(OrganizationId::new(), WorkflowId::new()).await;
    /// assert!(matches!(found, Err(EngineError::NotFound(_))));
    /// # }
    /// ```
    pub Store {}

    #[async_trait]
    impl ExecutionStore for Store {
        async fn create(&self, execution: NewExecution) -> Result<Created, StoreError>;
        async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError>;
        async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError>;
        async fn unserved(
            &self,
            node_types: Arc<[Arc<str>]>,
            before: Timestamp,
        ) -> Result<Vec<Unserved>, StoreError>;
        async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError>;
        async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;
        async fn signal(&self, signal: Signal) -> Result<(), StoreError>;
        async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError>;
        async fn unpublished(
            &self,
            before: Timestamp,
            after: Option<ExecutionId>,
            limit: usize,
        ) -> Result<Vec<Unpublished>, StoreError>;
        async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError>;
        async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
    }

    #[async_trait]
    impl ExecutionReader for Store {
        async fn execution(
            &self,
            organization: OrganizationId,
            id: ExecutionId,
        ) -> Result<Option<ExecutionRecord>, StoreError>;
        async fn executions(&self, query: ExecutionQuery) -> Result<Page<ExecutionRecord>, StoreError>;
        async fn execution_counts(
            &self,
            organization: OrganizationId,
            filter: &ExecutionFilter,
        ) -> Result<ExecutionCounts, StoreError>;
        async fn steps(
            &self,
            organization: OrganizationId,
            id: ExecutionId,
        ) -> Result<Vec<Step>, StoreError>;
        async fn awaiting(&self, query: AwaitingQuery) -> Result<Vec<ExecutionId>, StoreError>;
        async fn snapshot(
            &self,
            organization: OrganizationId,
            id: ExecutionId,
        ) -> Result<Option<Arc<Workflow>>, StoreError>;
        async fn readable(&self, id: ExecutionId) -> Result<(), StoreError>;
        async fn events(&self, query: EventQuery) -> Result<Vec<Arc<Event>>, StoreError>;
        async fn logs(&self, query: LogQuery) -> Result<Page<Arc<LogEntry>>, StoreError>;
        async fn audit(&self, query: AuditQuery) -> Result<Page<Arc<AuditEvent>>, StoreError>;
        async fn signature_request(
            &self,
            organization: OrganizationId,
            id: SignatureRequestId,
        ) -> Result<Option<SignatureRequest>, StoreError>;
        async fn signature_by_envelope(
            &self,
            provider: &str,
            envelope_id: &str,
        ) -> Result<Option<SignatureRequest>, StoreError>;
        async fn approval_by_token(&self, token_hash: [u8; 32])
        -> Result<Option<Approval>, StoreError>;
    }

    #[async_trait]
    impl WorkflowStore for Store {
        async fn put_workflow(&self, workflow: Workflow) -> Result<(), StoreError>;
        async fn workflow(
            &self,
            organization: OrganizationId,
            id: WorkflowId,
        ) -> Result<Option<Arc<Workflow>>, StoreError>;
        async fn workflows(&self, query: WorkflowQuery) -> Result<Page<Arc<Workflow>>, StoreError>;
        async fn latest_version(
            &self,
            organization: OrganizationId,
            id: WorkflowId,
        ) -> Result<u32, StoreError>;
        async fn delete_workflow(
            &self,
            organization: OrganizationId,
            id: WorkflowId,
        ) -> Result<bool, StoreError>;
    }

    #[async_trait]
    impl TtlStore for Store {
        async fn remember(&self, entry: TtlEntry, now: Timestamp) -> Result<Option<TtlEntry>, StoreError>;
        async fn recall(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, StoreError>;
        async fn replace(&self, entry: TtlEntry) -> Result<(), StoreError>;
    }
}
