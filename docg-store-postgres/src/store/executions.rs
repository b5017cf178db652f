//! [`ExecutionStore`] for [`PgStore`], made of the statements in the files beside this one.

use std::sync::Arc;

use async_trait::async_trait;
use docg_core::{
    ids::ExecutionId,
    ports::{
        Claim, ClaimRequest, Commit, Committed, Created, ExecutionStore, Lease, NewExecution,
        Renewed, Signal, StoreError, Unpublished, Unserved,
    },
    time::Timestamp,
};

use super::PgStore;

#[async_trait]
impl ExecutionStore for PgStore {
    async fn create(&self, run: NewExecution) -> Result<Created, StoreError> {
        self.create_run(run).await.map_err(|e| e.at("create"))
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Claim, StoreError> {
        self.claim_some(&request).await.map_err(|e| e.at("claim"))
    }

    async fn unserved(
        &self,
        node_types: Arc<[Arc<str>]>,
        before: Timestamp,
    ) -> Result<Vec<Unserved>, StoreError> {
        let left = self.left(&node_types, before).await;
        left.map_err(|e| e.at("unserved"))
    }

    async fn renew(&self, leases: &[Lease], until: Timestamp) -> Result<Renewed, StoreError> {
        self.prolong(leases, until).await.map_err(|e| e.at("renew"))
    }

    async fn release(&self, leases: &[Lease], now: Timestamp) -> Result<(), StoreError> {
        self.release_leases(leases, now)
            .await
            .map_err(|e| e.at("release"))
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.commit_one(&commit).await.map_err(|e| e.at("commit"))
    }

    async fn signal(&self, signal: Signal) -> Result<(), StoreError> {
        self.add_signal(&signal).await.map_err(|e| e.at("signal"))
    }

    async fn signals(&self, execution: ExecutionId) -> Result<Vec<Signal>, StoreError> {
        self.inbox(execution).await.map_err(|e| e.at("signals"))
    }

    async fn unpublished(
        &self,
        before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Vec<Unpublished>, StoreError> {
        let listed = self.list_unpublished(before, after, limit).await;
        listed.map_err(|e| e.at("unpublished"))
    }

    async fn mark_published(&self, published: &[(ExecutionId, u64)]) -> Result<(), StoreError> {
        self.mark(published)
            .await
            .map_err(|e| e.at("mark_published"))
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.purge_some(before, limit)
            .await
            .map_err(|e| e.at("purge"))
    }
}
