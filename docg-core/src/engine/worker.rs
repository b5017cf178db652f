//! Workers: claim what is due, keep the leases, hand everything back at shutdown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Engine, Inner, drive, relay, unserved};
use crate::{
    ids::ExecutionId,
    ports::{ClaimRequest, ClaimWhat, Claimed},
    time::Timestamp,
};

/// How much a process works at once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Executions that are taken forward at once. With 0 the process takes none, and only publishes
    /// what it commits: one that serves requests and leaves the work to others.
    pub concurrency: usize,
    /// Of these, at most so many of one organization, counted over all workers.
    pub per_organization: usize,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            per_organization: 48,
        }
    }
}

impl WorkerOptions {
    /// So many executions at once, three quarters of them for one organization at most.
    #[must_use]
    pub fn concurrency(concurrency: usize) -> Self {
        Self {
            concurrency,
            per_organization: (concurrency - concurrency / 4).max(1),
        }
    }

    /// At most so many executions of one organization at once, counted over all workers.
    #[must_use]
    pub fn per_organization(mut self, limit: usize) -> Self {
        self.per_organization = limit;
        self
    }
}

/// Executions that are claimed at once.
const BATCH: usize = 64;
/// The pause after a store that did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Wakes the claiming loop: at once, or at a moment.
#[derive(Debug)]
pub(crate) struct WakeUp {
    notify: Notify,
    /// The earliest moment at which something is known to become due, in milliseconds.
    due: AtomicI64,
    /// This process has workers that wait for work.
    idle: AtomicBool,
}

impl Default for WakeUp {
    fn default() -> Self {
        Self {
            notify: Notify::new(),
            due: AtomicI64::new(i64::MAX),
            idle: AtomicBool::new(false),
        }
    }
}

impl Inner {
    /// Finds a worker for an execution that is due now: one of this process, where one waits for
    /// work. What a wake-up misses is found by polling.
    pub(crate) async fn wake_a_worker(&self, execution: ExecutionId) {
        if !self.wake.idle.load(Ordering::Acquire) {
            let _ = self.bus.wake(execution).await;
        }
        self.wake_workers();
    }

    pub(crate) fn wake_workers(&self) {
        self.wake.notify.notify_one();
    }

    pub(crate) fn wake_workers_at(&self, at: Timestamp) {
        if self.wake.due.fetch_min(at.as_millis(), Ordering::AcqRel) > at.as_millis() {
            self.wake.notify.notify_one();
        }
    }
}

/// Running workers of one process. Dropping them stops them without grace; see
/// [`Workers::shutdown`].
#[derive(Debug)]
#[must_use = "workers stop when they are dropped"]
pub struct Workers {
    shutdown: CancellationToken,
    background: CancellationToken,
    drivers: TaskTracker,
    claiming: tokio::task::JoinHandle<()>,
    engine: Engine,
}

impl Engine {
    /// Starts to claim executions and take them forward. Call it once per process.
    pub fn start_workers(&self, options: WorkerOptions) -> Workers {
        let (shutdown, background) = (CancellationToken::new(), CancellationToken::new());
        let drivers = TaskTracker::new();
        let inner = &self.inner;
        let claiming = tokio::spawn(claim(
            Arc::clone(inner),
            options,
            shutdown.clone(),
            drivers.clone(),
        ));
        for task in [
            BackgroundTask::Renew,
            BackgroundTask::Relay,
            BackgroundTask::Wakes,
            BackgroundTask::Unserved {
                works: options.concurrency > 0,
            },
        ] {
            let (inner, background) = (Arc::clone(inner), background.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = background.cancelled() => {}
                    () = task.run(&inner) => {}
                }
            });
        }
        Workers {
            shutdown,
            background,
            drivers,
            claiming,
            engine: self.clone(),
        }
    }
}

impl Workers {
    /// Stops claiming, gives handlers the grace time to end, hands the rest back, and returns when
    /// nothing is held any more.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        // It cannot have panicked without having logged; there is nothing more to do about it here.
        let _ = (&mut self.claiming).await;
        self.drivers.close();
        self.drivers.wait().await;
        self.background.cancel();
        if let Err(e) = relay::flush(&self.engine.inner).await {
            tracing::warn!("what is on the bus could not be noted: {e}");
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.background.cancel();
    }
}

#[derive(Clone, Copy)]
enum BackgroundTask {
    Renew,
    Relay,
    Wakes,
    Unserved { works: bool },
}

impl BackgroundTask {
    async fn run(self, inner: &Inner) {
        match self {
            Self::Renew => renew(inner).await,
            Self::Relay => relay::run(inner).await,
            Self::Wakes => wakes(inner).await,
            Self::Unserved { works } => unserved::run(inner, works).await,
        }
    }
}

async fn claim(
    inner: Arc<Inner>,
    options: WorkerOptions,
    shutdown: CancellationToken,
    drivers: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(options.concurrency));
    loop {
        // One permit is waited for; the others of the batch are what else is free.
        let first = tokio::select! {
            () = shutdown.cancelled() => return,
            permit = Arc::clone(&permits).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let mut free = vec![first];
        while free.len() < BATCH {
            match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => free.push(permit),
                Err(_) => break,
            }
        }
        let wanted = free.len();
        let due = match due_ones(&inner, options, wanted).await {
            Some((claimed, next_due)) => {
                let full = claimed.len() == wanted;
                for (claimed, permit) in claimed.into_iter().zip(free) {
                    let work = work(Arc::clone(&inner), claimed, permit, shutdown.clone());
                    drivers.spawn(work);
                }
                if full {
                    continue;
                }
                next_due
            }
            None => inner.now() + STORE_PAUSE,
        };
        inner.wake.idle.store(true, Ordering::Release);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = inner.wake.notify.notified() => {}
            () = inner.clock.sleep_until(due) => {}
        }
        inner.wake.idle.store(false, Ordering::Release);
    }
}

/// Claims what is due, and says when to ask again; `None` where the store does not answer.
async fn due_ones(
    inner: &Inner,
    options: WorkerOptions,
    limit: usize,
) -> Option<(Vec<Claimed>, Timestamp)> {
    let now = inner.now();
    // Whatever is noted from here on was not seen by this claim.
    let noted = inner.wake.due.swap(i64::MAX, Ordering::AcqRel);
    let request = ClaimRequest {
        worker_id: inner.active.worker_id(),
        what: ClaimWhat::Due {
            limit,
            per_organization: options.per_organization,
            node_types: Arc::clone(&inner.node_types),
        },
        now,
        lease_until: now + inner.options.lease,
    };
    let poll = now + inner.options.poll_interval.min(inner.options.lease / 2);
    match inner.store.claim(request).await {
        Ok(claim) => {
            if noted > now.as_millis() && noted != i64::MAX {
                inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            }
            let noted = Timestamp::from_millis(inner.wake.due.load(Ordering::Acquire));
            Some((
                claim.claimed,
                claim.next_due.unwrap_or(poll).min(poll).min(noted),
            ))
        }
        Err(error) => {
            inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            tracing::warn!("claiming failed and will be tried again: {error}");
            None
        }
    }
}

async fn work(
    inner: Arc<Inner>,
    claimed: Claimed,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) {
    drive::drive(inner, claimed, drive::Mode::Work { shutdown }).await;
    drop(permit);
}

/// Prolongs the leases of all executions that this process holds, and tells those that have lost
/// theirs.
async fn renew(inner: &Inner) {
    let mut renewed_at = inner.now();
    loop {
        inner
            .clock
            .sleep_until(inner.now() + inner.options.lease / 3)
            .await;
        let leases = inner.active.leases();
        let now = inner.now();
        if leases.is_empty() {
            renewed_at = now;
            continue;
        }
        match inner.store.renew(&leases, now + inner.options.lease).await {
            Ok(renewed) => {
                renewed_at = now;
                renewed.lost.into_iter().for_each(|lease| inner.lose(lease));
                // Whoever signaled may not have got through to this process.
                for lease in renewed.signaled {
                    inner.active.notify(lease.execution_id);
                }
            }
            Err(error) => {
                tracing::warn!("leases could not be renewed: {error}");
                // By now others may have taken over; handlers must learn of it.
                if renewed_at + inner.options.lease <= inner.now() {
                    leases.into_iter().for_each(|lease| inner.lose(lease));
                }
            }
        }
    }
}

/// Listens to wake-ups from all processes.
async fn wakes(inner: &Inner) {
    loop {
        match inner.bus.wakes().await {
            Ok(mut wakes) => {
                while let Some(execution) = wakes.next().await {
                    if !inner.active.notify(execution) {
                        inner.wake_workers();
                    }
                }
            }
            Err(error) => tracing::warn!("wake-ups from other processes do not arrive: {error}"),
        }
        inner
            .clock
            .sleep_until(inner.now() + inner.options.poll_interval)
            .await;
    }
}
