//! The executions that this process holds right now, and who waits for their signals to be applied.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{ExecutionId, SignalId},
    ports::Lease,
};

/// How others reach the driver of an execution.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) lease: Lease,
    /// Something is in the inbox.
    pub(crate) signal: Arc<Notify>,
    /// The lease is gone; nothing may be committed any more.
    pub(crate) lost: CancellationToken,
}

/// An execution that is held.
#[derive(Debug)]
struct ActiveRun {
    handle: Handle,
    /// When the lease ends unless it is renewed, as [`Clock::elapsed`](crate::time::Clock::elapsed)
    /// tells: this process must not go on any longer, however long the store takes to answer.
    until: Duration,
}

impl ActiveRun {
    fn is_lost(&self) -> bool {
        self.handle.lost.is_cancelled()
    }
}

#[derive(Debug, Default)]
pub(crate) struct ActiveRuns {
    runs: Mutex<HashMap<ExecutionId, ActiveRun>>,
    waiters: Mutex<HashMap<SignalId, oneshot::Sender<bool>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ActiveRuns {
    pub(crate) fn enter(&self, lease: Lease, until: Duration) -> Handle {
        let handle = Handle {
            lease,
            signal: Arc::new(Notify::new()),
            lost: CancellationToken::new(),
        };
        let run = ActiveRun {
            handle: handle.clone(),
            until,
        };
        let mut runs = locked(&self.runs);
        match runs.get(&lease.execution_id) {
            // The answer came late: this process has taken over from itself.
            Some(newer) if newer.handle.lease.fence > lease.fence => {
                handle.lost.cancel();
                return handle;
            }
            Some(older) => older.handle.lost.cancel(),
            None => {}
        }
        runs.insert(lease.execution_id, run);
        handle
    }

    pub(crate) fn leave(&self, lease: Lease) {
        let mut runs = locked(&self.runs);
        if runs
            .get(&lease.execution_id)
            .is_some_and(|run| run.handle.lease == lease)
        {
            runs.remove(&lease.execution_id);
        }
    }

    /// What is held and not known to be lost.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.leases_until(Duration::MAX)
    }

    /// Of these, those that end by `elapsed`.
    pub(crate) fn leases_until(&self, elapsed: Duration) -> Vec<Lease> {
        locked(&self.runs)
            .values()
            .filter(|run| run.until <= elapsed && !run.is_lost())
            .map(|run| run.handle.lease)
            .collect()
    }

    /// When the first of them ends.
    pub(crate) fn first_end(&self) -> Option<Duration> {
        let runs = locked(&self.runs);
        let held = runs.values().filter(|run| !run.is_lost());
        held.map(|run| run.until).min()
    }

    /// Notes that leases were renewed.
    pub(crate) fn prolong(&self, leases: &[Lease], until: Duration) {
        let mut runs = locked(&self.runs);
        for lease in leases {
            if let Some(run) = runs.get_mut(&lease.execution_id)
                && run.handle.lease == *lease
            {
                run.until = until;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        locked(&self.runs).len()
    }

    /// Tells a driver that its lease is gone; `false` where it is known already.
    pub(crate) fn lose(&self, lease: Lease) -> bool {
        let runs = locked(&self.runs);
        let run = runs
            .get(&lease.execution_id)
            .filter(|run| run.handle.lease == lease && !run.is_lost());
        if let Some(run) = run {
            run.handle.lost.cancel();
        }
        run.is_some()
    }

    /// Tells the driver of an execution to look into the inbox; `false` where this process has none
    /// that may apply what is there.
    pub(crate) fn notify(&self, execution: ExecutionId) -> bool {
        let runs = locked(&self.runs);
        let run = runs.get(&execution).filter(|run| !run.is_lost());
        if let Some(run) = run {
            run.handle.signal.notify_one();
        }
        run.is_some()
    }

    /// Resolves once a commit of this process has settled the signal: whether it still applied.
    pub(crate) fn settled(&self, signal: SignalId) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        locked(&self.waiters).insert(signal, sender);
        receiver
    }

    pub(crate) fn forget(&self, signal: SignalId) {
        locked(&self.waiters).remove(&signal);
    }

    pub(crate) fn settle(&self, signals: &[SignalId], ignored: &[SignalId]) {
        if signals.is_empty() {
            return;
        }
        let mut waiters = locked(&self.waiters);
        for signal in signals {
            if let Some(waiter) = waiters.remove(signal) {
                // Whoever waited may have given up.
                let _ = waiter.send(!ignored.contains(signal));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkerId;

    #[test]
    fn of_two_leases_on_one_execution_the_newer_is_kept() {
        let lease = |fence| Lease {
            execution_id: ExecutionId(uuid::Uuid::nil()),
            worker_id: WorkerId::new(),
            fence,
        };
        for [first, second] in [[1, 2], [2, 1]] {
            let active = ActiveRuns::default();
            let [first, second] =
                [first, second].map(|fence| active.enter(lease(fence), Duration::MAX));
            let (newer, older) = match first.lease.fence {
                2 => (first, second),
                _ => (second, first),
            };
            assert!(older.lost.is_cancelled());
            active.leave(older.lease);
            assert_eq!(active.leases(), [newer.lease]);
        }
    }

    #[test]
    fn nobody_relies_on_a_driver_that_has_lost_its_lease() {
        let active = ActiveRuns::default();
        let lease = Lease {
            execution_id: ExecutionId::new(),
            worker_id: WorkerId::new(),
            fence: 1,
        };
        active.enter(lease, Duration::MAX);
        assert!(active.notify(lease.execution_id));
        active.lose(lease);
        assert!(!active.notify(lease.execution_id));
    }
}
