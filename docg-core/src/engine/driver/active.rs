//! The executions that this process holds, and the callers that wait until their signals are applied.

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

/// The way to reach an execution's driver.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) lease: Lease,
    /// Notified when signals may be in the inbox.
    pub(crate) signal: Arc<Notify>,
    /// Canceled when the lease is lost; nothing more may be committed then.
    pub(crate) lost: CancellationToken,
}

/// A held execution.
#[derive(Debug)]
struct ActiveExecution {
    handle: Handle,
    /// The end of the lease, on the scale of [`Clock::elapsed`](crate::time::Clock::elapsed). Unless the
    /// lease is renewed before, this process must stop then, even if the store has not answered.
    until: Duration,
}

impl ActiveExecution {
    fn is_lost(&self) -> bool {
        self.handle.lost.is_cancelled()
    }
}

#[derive(Debug, Default)]
pub(crate) struct ActiveExecutions {
    executions: Mutex<HashMap<ExecutionId, ActiveExecution>>,
    waiters: Mutex<HashMap<SignalId, oneshot::Sender<bool>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ActiveExecutions {
    pub(crate) fn enter(&self, lease: Lease, until: Duration) -> Handle {
        let handle = Handle {
            lease,
            signal: Arc::new(Notify::new()),
            lost: CancellationToken::new(),
        };
        let held = ActiveExecution {
            handle: handle.clone(),
            until,
        };
        let mut executions = locked(&self.executions);
        match executions.get(&lease.execution_id) {
            // The answer to this claim came late: this process holds the execution by a newer lease already.
            Some(newer) if newer.handle.lease.fence > lease.fence => {
                handle.lost.cancel();
                return handle;
            }
            Some(older) => older.handle.lost.cancel(),
            None => {}
        }
        executions.insert(lease.execution_id, held);
        handle
    }

    pub(crate) fn leave(&self, lease: Lease) {
        let mut executions = locked(&self.executions);
        if executions
            .get(&lease.execution_id)
            .is_some_and(|held| held.handle.lease == lease)
        {
            executions.remove(&lease.execution_id);
        }
    }

    /// The leases that this process holds and does not know to be lost.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.leases_until(Duration::MAX)
    }

    /// The held leases that end at `elapsed` or earlier.
    pub(crate) fn leases_until(&self, elapsed: Duration) -> Vec<Lease> {
        locked(&self.executions)
            .values()
            .filter(|held| held.until <= elapsed && !held.is_lost())
            .map(|held| held.handle.lease)
            .collect()
    }

    /// The earliest end of a held lease.
    pub(crate) fn first_end(&self) -> Option<Duration> {
        let executions = locked(&self.executions);
        let leased = executions.values().filter(|held| !held.is_lost());
        leased.map(|held| held.until).min()
    }

    /// Records that the leases were renewed, up to `until`.
    pub(crate) fn prolong(&self, leases: &[Lease], until: Duration) {
        let mut executions = locked(&self.executions);
        for lease in leases {
            if let Some(held) = executions.get_mut(&lease.execution_id)
                && held.handle.lease == *lease
            {
                held.until = until;
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        locked(&self.executions).len()
    }

    /// Tells the holder of a lease that the lease is lost. Returns `false` if that was known already, or if
    /// nobody holds it.
    pub(crate) fn lose(&self, lease: Lease) -> bool {
        let executions = locked(&self.executions);
        let held = executions
            .get(&lease.execution_id)
            .filter(|held| held.handle.lease == lease && !held.is_lost());
        if let Some(held) = held {
            held.handle.lost.cancel();
        }
        held.is_some()
    }

    /// Tells an execution's driver to read the inbox. Returns `false` if this process has no driver that may
    /// still commit.
    pub(crate) fn notify(&self, execution: ExecutionId) -> bool {
        let executions = locked(&self.executions);
        let held = executions.get(&execution).filter(|held| !held.is_lost());
        if let Some(held) = held {
            held.handle.signal.notify_one();
        }
        held.is_some()
    }

    /// Resolves once a commit of this process settles the signal: true if it was applied, false if ignored.
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
                // The caller may have given up waiting.
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
            let active = ActiveExecutions::default();
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
        let active = ActiveExecutions::default();
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
