//! Helpers of the cases for stores.

use std::{fmt::Debug, sync::Arc};

use futures::future::join_all;

use crate::{
    event::Event,
    ids::{ExecutionId, OrganizationId, WorkerId},
    observe::{AuditEvent, LogEntry},
    ports::{
        Claim, ClaimRequest, ClaimWhat, Claimed, Commit, Committed, Created, NewExecution, Signal,
        Store, StoreError, StoreErrorKind,
    },
    query::{AuditQuery, EventQuery, ExecutionQuery, ExecutionRecord, LogQuery, Page},
    run::Step,
    time::Timestamp,
};

/// The duration of the leases in the cases, in milliseconds.
pub(super) const LEASE: u64 = 10_000;

/// The node types of the fixtures' workflows.
pub(super) fn all_types() -> Arc<[Arc<str>]> {
    ["extract", "render", "send"].map(Arc::from).into()
}

/// All data of an execution that readers can see.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    pub(super) record: Option<ExecutionRecord>,
    pub(super) steps: Vec<Step>,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) logs: Vec<Arc<LogEntry>>,
    pub(super) audit: Vec<Arc<AuditEvent>>,
    pub(super) signals: Vec<Signal>,
}

pub(super) async fn everything(
    store: &dyn Store,
    organization: OrganizationId,
    id: ExecutionId,
) -> Everything {
    let events = EventQuery::of(organization, id).limit(1_000);
    let audit = AuditQuery::of(organization, id).limit(1_000);
    Everything {
        record: store.execution(organization, id).await.expect("reads"),
        steps: store.steps(organization, id).await.expect("reads"),
        events: store.events(events).await.expect("reads"),
        logs: store
            .logs(all_logs(organization, id))
            .await
            .expect("reads")
            .items,
        audit: store.audit(audit).await.expect("reads").items,
        signals: store.signals(id).await.expect("reads"),
    }
}

pub(super) fn all_logs(organization_id: OrganizationId, execution_id: ExecutionId) -> LogQuery {
    LogQuery::of(organization_id, execution_id).limit(1_000)
}

pub(super) fn all_executions(organization_id: OrganizationId) -> ExecutionQuery {
    ExecutionQuery::of(organization_id).limit(1_000)
}

/// Stores a new execution, without a lease.
pub(super) async fn create(store: &dyn Store, run: NewExecution) -> ExecutionId {
    let id = run.state.execution.id;
    let created = store.create(run).await.expect("stores");
    assert_eq!(created, Created::New { lease: None });
    id
}

/// A worker with a fresh id.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) per_organization: usize,
    pub(super) node_types: Arc<[Arc<str>]>,
}

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            id: WorkerId::new(),
            per_organization: 1_000,
            node_types: all_types(),
        }
    }

    pub(super) async fn ask(&self, store: &dyn Store, now: Timestamp, what: ClaimWhat) -> Claim {
        let request = ClaimRequest {
            worker_id: self.id,
            what,
            now,
            lease_until: now.plus_millis(LEASE),
        };
        store.claim(request).await.expect("claims")
    }

    /// Claims executions that are due.
    pub(super) async fn due(&self, store: &dyn Store, now: Timestamp, limit: usize) -> Claim {
        let node_types = Arc::clone(&self.node_types);
        self.ask(
            store,
            now,
            ClaimWhat::Due {
                limit,
                per_organization: self.per_organization,
                node_types,
            },
        )
        .await
    }

    /// Claims one execution by id.
    pub(super) async fn one(
        &self,
        store: &dyn Store,
        now: Timestamp,
        id: ExecutionId,
    ) -> Option<Claimed> {
        self.ask(store, now, ClaimWhat::One(id)).await.claimed.pop()
    }
}

/// Claims a free execution by id, with a fresh worker.
pub(super) async fn take(store: &dyn Store, now: Timestamp, id: ExecutionId) -> Claimed {
    Worker::new().one(store, now, id).await.expect("is free")
}

/// Claims all due executions with a fresh worker, which keeps the leases, and returns their ids.
pub(super) async fn due(store: &dyn Store, now: Timestamp) -> Vec<ExecutionId> {
    ids(&Worker::new().due(store, now, 1_000).await)
}

pub(super) fn ids(claim: &Claim) -> Vec<ExecutionId> {
    claim
        .claimed
        .iter()
        .map(|claimed| claimed.lease.execution_id)
        .collect()
}

/// Makes a commit that the store must accept.
pub(super) async fn commit(store: &dyn Store, commit: Commit) -> Committed {
    store.commit(commit).await.expect("commits")
}

/// Claims an execution, and makes the commit that the closure builds on it.
pub(super) async fn work(
    store: &dyn Store,
    now: Timestamp,
    id: ExecutionId,
    make: impl FnOnce(&Claimed) -> Commit,
) -> Committed {
    let claimed = take(store, now, id).await;
    commit(store, make(&claimed)).await
}

/// The kind of the error of a call that must have failed.
pub(super) fn refused<T: Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.expect_err("is refused").kind
}

/// Reads pages until the end. All pages but the last must be full, and none may be empty.
pub(super) async fn pages<T, C, F: Future<Output = Page<T>>>(
    limit: usize,
    read: impl Fn(Option<C>) -> F,
    cursor: impl Fn(&T) -> C,
) -> Vec<T> {
    let mut rows: Vec<T> = Vec::new();
    loop {
        let page = read(rows.last().map(&cursor)).await;
        assert!(
            page.items.len() <= limit,
            "a page has no more than was asked for"
        );
        if page.has_more {
            assert_eq!(page.items.len(), limit, "a page with more after it is full");
        } else if !rows.is_empty() {
            assert!(!page.items.is_empty(), "a page that was announced has rows");
        }
        rows.extend(page.items);
        if !page.has_more {
            return rows;
        }
    }
}

/// Runs `count` tasks at once, half of them on the store of the other process. Returns their results in
/// order.
pub(super) async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: &Arc<dyn Store>,
    peer: &Arc<dyn Store>,
    count: usize,
    make: impl Fn(usize, Arc<dyn Store>) -> F,
) -> Vec<T> {
    let start = Arc::new(tokio::sync::Barrier::new(count));
    let tasks = (0..count).map(|index| {
        let task = make(index, Arc::clone(if index % 2 == 0 { store } else { peer }));
        let start = Arc::clone(&start);
        tokio::spawn(async move {
            start.wait().await;
            task.await
        })
    });
    let tasks: Vec<_> = tasks.collect();
    join_all(tasks)
        .await
        .into_iter()
        .map(|task| task.expect("does not panic"))
        .collect()
}
