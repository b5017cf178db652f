//! The workers of a process: they claim due executions, renew their leases, and release everything at
//! shutdown.
//!
//! `claims` finds work and hands it to the `pool`, whose workers each [drive](super::driver) one execution.
//! `leases` renews the leases of this process. `clock_guard` stops claims after a jump of the clock.
//! `unclaimable` reports executions that no worker can run.

mod claims;
pub(super) mod clock_guard;
mod leases;
pub(super) mod pool;
mod unclaimable;
mod wakes;

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::pool::WorkerPool;
use super::{Engine, Inner, read::relay};

/// How many executions a process works on at once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// The most executions at once. With 0 the process claims none and only publishes its own commits: it
    /// serves requests and leaves the work to others. The value is capped at what a tokio semaphore counts,
    /// 2^61 - 1 on a 64-bit machine.
    pub concurrency: usize,
    /// The most executions of one organization at once, counted over all workers. 0 is taken as 1, since
    /// otherwise no execution could go on.
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
    /// At most this many executions at once, with at most three quarters of them for one organization.
    #[must_use]
    pub fn concurrency(concurrency: usize) -> Self {
        Self {
            concurrency,
            per_organization: (concurrency - concurrency / 4).max(1),
        }
    }

    /// At most this many executions of one organization at once, counted over all workers.
    #[must_use]
    pub fn per_organization(mut self, limit: usize) -> Self {
        self.per_organization = limit;
        self
    }

    fn bounded(self) -> Self {
        Self {
            concurrency: self.concurrency.min(Semaphore::MAX_PERMITS),
            per_organization: self.per_organization.max(1),
        }
    }
}

/// The running workers of one process. Dropping them stops the claiming, and waits for nothing. Handlers at
/// work are told to stop as by [`Workers::shutdown`], and have their grace time as long as the runtime lives.
/// Leases are no longer renewed, so a step that outlives its lease may be taken over.
#[derive(Debug)]
#[must_use = "workers stop when they are dropped"]
pub struct Workers {
    shutdown: CancellationToken,
    background: CancellationToken,
    drivers: TaskTracker,
    claiming: tokio::task::JoinHandle<()>,
    only: OnlyWorkers,
}

/// The engine's workers run already. An engine has one worker pool at a time: its
/// [`concurrency`](WorkerOptions::concurrency) is the limit of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the workers of this engine run already; shut them down before starting others")]
pub struct WorkersRunning;

/// The right to run the engine's workers; dropping it gives the right to the next caller.
#[derive(Debug)]
struct OnlyWorkers(Engine);

impl OnlyWorkers {
    fn of(engine: &Engine) -> Result<Self, WorkersRunning> {
        let is_taken = engine.inner.has_workers.swap(true, Ordering::AcqRel);
        (!is_taken)
            .then(|| Self(engine.clone()))
            .ok_or(WorkersRunning)
    }
}

impl Drop for OnlyWorkers {
    fn drop(&mut self) {
        self.0.inner.has_workers.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Starts workers, which claim executions and move them forward, until the returned handle is shut down
    /// or dropped. After that, workers can be started again. All clones of an engine share its workers.
    ///
    /// # Errors
    ///
    /// [`WorkersRunning`] if the engine's workers run already. The running workers are not changed.
    pub fn start_workers(&self, options: WorkerOptions) -> Result<Workers, WorkersRunning> {
        let only = OnlyWorkers::of(self)?;
        let options = options.bounded();
        let (shutdown, background) = (CancellationToken::new(), CancellationToken::new());
        let drivers = TaskTracker::new();
        let inner = &self.inner;
        let pool = WorkerPool {
            options,
            permits: Arc::new(Semaphore::new(options.concurrency)),
            shutdown: shutdown.clone(),
            drivers: drivers.clone(),
        };
        let claiming = tokio::spawn(claims::run(Arc::clone(inner), pool));
        for task in [
            BackgroundTask::Renew,
            BackgroundTask::WatchClock,
            BackgroundTask::Relay,
            BackgroundTask::Wakes,
            BackgroundTask::Unclaimable {
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
        Ok(Workers {
            shutdown,
            background,
            drivers,
            claiming,
            only,
        })
    }
}

impl Workers {
    /// Shuts the workers down: stops claiming, gives handlers their grace time and releases all leases.
    /// Returns once this process holds no execution.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        // If the claiming task panicked, the panic was logged; there is nothing more to do here.
        let _ = (&mut self.claiming).await;
        self.drivers.close();
        self.drivers.wait().await;
        self.background.cancel();
        if let Err(e) = relay::flush(&self.only.0.inner).await {
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
    WatchClock,
    Relay,
    Wakes,
    Unclaimable { works: bool },
}

impl BackgroundTask {
    async fn run(self, inner: &Arc<Inner>) {
        match self {
            Self::Renew => leases::renew(inner).await,
            Self::WatchClock => inner.watch_clock().await,
            Self::Relay => relay::run(inner).await,
            Self::Wakes => wakes::receive(inner).await,
            Self::Unclaimable { works } => unclaimable::run(inner, works).await,
        }
    }
}
