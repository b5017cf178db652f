//! Workers: claim due executions, renew their leases, and release everything at shutdown.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Engine, Inner, crew::Crew, drive::Holding, relay, unserved};
use crate::{
    ports::{ClaimWhat, Claimed},
    time::Timestamp,
};

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

/// The most executions per claim.
const BATCH: usize = 64;
/// The pause after the store or the bus did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon to claim again while an organization's share holds a claim back: at first, and at most. A
/// released lease wakes workers; this covers lost wake-ups, and processes that share no bus.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

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
    /// [`WorkersRunning`] if the engine's workers run already. They are not changed.
    pub fn start_workers(&self, options: WorkerOptions) -> Result<Workers, WorkersRunning> {
        let only = OnlyWorkers::of(self)?;
        let options = options.bounded();
        let (shutdown, background) = (CancellationToken::new(), CancellationToken::new());
        let drivers = TaskTracker::new();
        let inner = &self.inner;
        let crew = Crew {
            options,
            permits: Arc::new(Semaphore::new(options.concurrency)),
            shutdown: shutdown.clone(),
            drivers: drivers.clone(),
        };
        let claiming = tokio::spawn(claim(Arc::clone(inner), crew));
        for task in [
            BackgroundTask::Renew,
            BackgroundTask::WatchClock,
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
    /// Returns once nothing is held.
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
    Unserved { works: bool },
}

impl BackgroundTask {
    async fn run(self, inner: &Arc<Inner>) {
        match self {
            Self::Renew => renew(inner).await,
            Self::WatchClock => inner.watch_clock().await,
            Self::Relay => relay::run(inner).await,
            Self::Wakes => wakes(inner).await,
            Self::Unserved { works } => unserved::run(inner, works).await,
        }
    }
}

async fn claim(inner: Arc<Inner>, crew: Crew) {
    let mut look_again = HELD_BACK.0;
    loop {
        // Wait for one permit, then take the others that are free, up to a batch.
        let first = tokio::select! {
            () = crew.shutdown.cancelled() => return,
            permit = Arc::clone(&crew.permits).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let mut free = vec![crew.worker(first)];
        while free.len() < BATCH {
            match Arc::clone(&crew.permits).try_acquire_owned() {
                Ok(permit) => free.push(crew.worker(permit)),
                Err(_) => break,
            }
        }
        let wanted = free.len();
        // Set only if this process can claim; otherwise a new execution wakes other processes.
        let mut waits_for_work = false;
        let pause = if let Some(pause) = inner.hold_off_claims() {
            pause
        } else {
            match due_ones(&inner, crew.options, wanted).await {
                Some(Due {
                    claimed,
                    until,
                    held_back,
                    mut pause,
                }) => {
                    let full = claimed.len() == wanted;
                    if !held_back || !claimed.is_empty() {
                        look_again = HELD_BACK.0;
                    }
                    for (claimed, worker) in claimed.into_iter().zip(free) {
                        let holding = Holding::begin(&inner, claimed, until);
                        tokio::spawn(worker.work(holding));
                    }
                    if full {
                        continue;
                    }
                    waits_for_work = true;
                    if held_back {
                        pause = pause.min(look_again);
                        look_again = (look_again * 2).min(HELD_BACK.1);
                    }
                    pause
                }
                None => PAUSE,
            }
        };
        *inner.wake.idle() = waits_for_work.then(|| crew.clone());
        tokio::select! {
            () = crew.shutdown.cancelled() => {}
            () = inner.wake.notify.notified() => {}
            () = inner.clock.sleep(pause) => {}
        }
        *inner.wake.idle() = None;
    }
}

/// The result of a claim.
struct Due {
    claimed: Vec<Claimed>,
    /// Until when the leases can be relied on; see [`Inner::claim`].
    until: Duration,
    /// True if an organization's share held the claim back; see
    /// [`Claim::held_back`](crate::ports::Claim::held_back).
    held_back: bool,
    /// How long to wait before the next claim.
    pause: Duration,
}

/// Claims due executions; `None` if the store does not answer.
async fn due_ones(inner: &Inner, options: WorkerOptions, limit: usize) -> Option<Due> {
    let now = inner.now();
    // Due times that are noted from here on are not covered by this claim.
    let noted = inner.wake.due.swap(i64::MAX, Ordering::AcqRel);
    let what = ClaimWhat::Due {
        limit,
        per_organization: options.per_organization,
        node_types: Arc::clone(&inner.node_types),
    };
    let poll = now + inner.options.poll_interval.min(inner.options.lease / 2);
    match inner.claim(what).await {
        Ok((claim, until)) => {
            inner.warnings.claiming.is_over();
            if noted > now.as_millis() && noted != i64::MAX {
                inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            }
            let noted = Timestamp::from_millis(inner.wake.due.load(Ordering::Acquire));
            let next = claim.next_due.unwrap_or(poll).min(poll).min(noted);
            Some(Due {
                claimed: claim.claimed,
                until,
                held_back: claim.held_back,
                pause: Duration::from_millis(next.millis_since(inner.now())),
            })
        }
        Err(error) => {
            inner.wake.due.fetch_min(noted, Ordering::AcqRel);
            inner.warnings.claiming.happened(&error);
            None
        }
    }
}

/// Renews the leases of all executions that this process holds. A lease is marked as lost if the store says
/// so, or if the store does not answer before the lease ends.
async fn renew(inner: &Inner) {
    let lease = inner.options.lease;
    loop {
        tokio::select! {
            () = inner.clock.sleep(lease / 3) => {}
            () = first_lease_ends(inner) => {}
        }
        let ended = inner.active.leases_until(inner.clock.elapsed());
        ended.into_iter().for_each(|lease| inner.lose(lease));
        let mut leases = inner.active.leases();
        if leases.is_empty() {
            continue;
        }
        let until = inner.clock.elapsed() + inner.options.relied_on();
        tokio::select! {
            biased;
            renewed = inner.store.renew(&leases, inner.now() + lease) => match renewed {
                Ok(renewed) => {
                    inner.warnings.renewing.is_over();
                    leases.retain(|lease| !renewed.unknown.contains(lease));
                    inner.active.prolong(&leases, until);
                    renewed.lost.into_iter().for_each(|lease| inner.lose(lease));
                    // The sender's wake-up may not have reached this process.
                    for lease in renewed.signaled {
                        inner.active.notify(lease.execution_id);
                    }
                }
                Err(error) => inner.warnings.renewing.happened(&error),
            },
            () = first_lease_ends(inner) => tracing::warn!("leases were not renewed in time"),
        }
    }
}

/// Returns once the first of the held leases ends.
async fn first_lease_ends(inner: &Inner) {
    match inner.active.first_end() {
        Some(end) => {
            let left = end.saturating_sub(inner.clock.elapsed());
            inner.clock.sleep(left).await;
        }
        None => std::future::pending().await,
    }
}

/// Receives the wake-ups of all processes.
async fn wakes(inner: &Inner) {
    loop {
        match inner.bus.wakes().await {
            Ok(mut wakes) => {
                inner.warnings.wakes.is_over();
                // Wake-ups may have been lost before this subscription.
                inner.wake_workers();
                while let Some(execution) = wakes.next().await {
                    if !inner.active.notify(execution) {
                        inner.wake_workers();
                    }
                }
            }
            Err(error) => inner.warnings.wakes.happened(&error),
        }
        inner.clock.sleep(PAUSE).await;
    }
}
