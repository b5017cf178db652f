//! Workers: claim what is due, keep the leases, hand everything back at shutdown.

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

/// How much a process works at once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Executions that are taken forward at once. With 0 the process takes none, and only publishes
    /// what it commits: one that serves requests and leaves the work to others. More than tokio's
    /// semaphores count, 2^61 - 1 on a machine of 64 bits, is taken for that many.
    pub concurrency: usize,
    /// Of these, at most so many of one organization, counted over all workers. 0 is taken for 1: no
    /// execution could go on otherwise.
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

    fn bounded(self) -> Self {
        Self {
            concurrency: self.concurrency.min(Semaphore::MAX_PERMITS),
            per_organization: self.per_organization.max(1),
        }
    }
}

/// Executions that are claimed at once.
const BATCH: usize = 64;
/// The pause after a store or a bus that did not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon an organization's share is looked at again, at first and at last, while a claim is held
/// back by it. Whoever releases a lease wakes; this is for wake-ups that are lost on their way, and
/// for processes that share no bus.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Running workers of one process. When they are dropped, they claim nothing more, and nothing waits for
/// them: handlers at work are told to stop as by [`Workers::shutdown`], and have their grace time as long as
/// the runtime lives. Leases are not renewed any more, so a step that outlives its lease may be taken over.
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
        // One permit is waited for; the others of the batch are what else is free.
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
        // While nothing is claimed here, others are woken.
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

/// What a claim gave.
struct Due {
    claimed: Vec<Claimed>,
    /// See [`Inner::claim`].
    until: Duration,
    /// See [`Claim::held_back`](crate::ports::Claim::held_back).
    held_back: bool,
    /// When to ask again.
    pause: Duration,
}

/// Claims what is due; `None` where the store does not answer.
async fn due_ones(inner: &Inner, options: WorkerOptions, limit: usize) -> Option<Due> {
    let now = inner.now();
    // Whatever is noted from here on was not seen by this claim.
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

/// Prolongs the leases of all executions that this process holds, and tells those that have lost
/// theirs: because the store says so, or because it has not said in time that they have not.
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
                    // Whoever signaled may not have got through to this process.
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

/// Returns once the first lease that this process holds now has ended.
async fn first_lease_ends(inner: &Inner) {
    match inner.active.first_end() {
        Some(end) => {
            let left = end.saturating_sub(inner.clock.elapsed());
            inner.clock.sleep(left).await;
        }
        None => std::future::pending().await,
    }
}

/// Listens to wake-ups from all processes.
async fn wakes(inner: &Inner) {
    loop {
        match inner.bus.wakes().await {
            Ok(mut wakes) => {
                inner.warnings.wakes.is_over();
                // Some may have come while nobody listened.
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
