//! The worker pool of a process: how it is woken, which worker is free, and how it claims.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    engine::{
        Inner, WorkerOptions,
        driver::{Holding, Mode},
    },
    ids::{ExecutionId, WorkerId},
    ports::{Claim, ClaimRequest, ClaimWhat, StoreError},
    time::Timestamp,
    workflow::Workflow,
};

/// Wakes the claiming loop: at once, or at a given time.
#[derive(Debug)]
pub(crate) struct WakeUp {
    pub(super) notify: Notify,
    /// The earliest known time at which an execution becomes due, in milliseconds.
    pub(super) due: AtomicI64,
    /// The worker pool of this process while it waits for work.
    idle: Mutex<Option<WorkerPool>>,
}

/// The worker pool of one process.
#[derive(Debug, Clone)]
pub(super) struct WorkerPool {
    pub(super) options: WorkerOptions,
    pub(super) permits: Arc<Semaphore>,
    pub(super) shutdown: CancellationToken,
    pub(super) drivers: TaskTracker,
}

/// A slot of the worker pool: the right to drive one execution.
#[derive(Debug)]
pub(in crate::engine) struct Slot {
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
    /// A shutdown waits until this token is dropped.
    at_work: TaskTrackerToken,
    pub(in crate::engine) per_organization: usize,
}

impl WorkerPool {
    pub(super) fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        Slot {
            permit,
            shutdown: self.shutdown.clone(),
            at_work: self.drivers.token(),
            per_organization: self.options.per_organization,
        }
    }

    fn free_slot(&self) -> Option<Slot> {
        let slot = self.slot(Arc::clone(&self.permits).try_acquire_owned().ok()?);
        // Check the shutdown after taking the token. Either this check sees it, or the shutdown waits for the
        // token.
        (!self.shutdown.is_cancelled()).then_some(slot)
    }
}

impl Slot {
    /// Moves a held execution forward until it rests or ends.
    pub(in crate::engine) async fn drive(self, holding: Holding) {
        let shutdown = self.shutdown;
        holding.drive(Mode::Work { shutdown }).await;
        drop((self.permit, self.at_work));
    }
}

impl Default for WakeUp {
    fn default() -> Self {
        Self {
            notify: Notify::new(),
            due: AtomicI64::new(i64::MAX),
            idle: Mutex::default(),
        }
    }
}

impl WakeUp {
    pub(super) fn idle(&self) -> MutexGuard<'_, Option<WorkerPool>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Wakes a worker for an execution that is due now: in this process if its workers wait for work, else in
    /// another. If the wake-up is lost, polling finds the execution.
    pub(crate) async fn wake_a_worker(&self, execution: ExecutionId) {
        if self.wake.idle().is_none() {
            let _ = self.bus.wake(execution).await;
        }
        self.wake_workers();
    }

    /// Wakes the workers of all processes, because a lease was released. A claim in one of them may be held
    /// back by the organization's share of leases.
    pub(crate) async fn wake_all_workers(&self, execution: ExecutionId) {
        self.wake_workers();
        let _ = self.bus.wake(execution).await;
    }

    /// A free slot of this process for an execution of a workflow; `None` if no slot is free, or a node type
    /// is unknown here. While a slot is free, no execution that this process could claim is due.
    pub(in crate::engine) fn free_slot(&self, workflow: &Workflow) -> Option<Slot> {
        let mut nodes = workflow.nodes.iter();
        let knows_all = nodes.all(|node| self.registry.get(&node.node_type).is_some());
        if !knows_all || self.hold_off_claims().is_some() {
            return None;
        }
        self.wake.idle().as_ref()?.free_slot()
    }

    pub(crate) fn wake_workers(&self) {
        self.wake.notify.notify_one();
    }

    /// Claims executions, and returns the end of the time in which this process relies on their leases, on
    /// the scale of [`Clock::elapsed`](crate::time::Clock::elapsed).
    pub(crate) async fn claim(&self, what: ClaimWhat) -> Result<(Claim, Duration), StoreError> {
        let (now, until) = (self.now(), self.clock.elapsed() + self.options.relied_on());
        let request = ClaimRequest {
            worker_id: WorkerId::new(),
            what,
            now,
            lease_until: now + self.options.lease,
        };
        Ok((self.store.claim(request).await?, until))
    }

    pub(crate) fn wake_workers_at(&self, at: Timestamp) {
        if self.wake.due.fetch_min(at.as_millis(), Ordering::AcqRel) > at.as_millis() {
            self.wake.notify.notify_one();
        }
    }
}
