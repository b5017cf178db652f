//! The executions that this process holds right now, and who waits for their signals to be applied.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{ExecutionId, SignalId, WorkerId},
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

#[derive(Debug)]
pub(crate) struct ActiveRuns {
    /// This process, as stores know it.
    worker: WorkerId,
    runs: Mutex<HashMap<ExecutionId, Handle>>,
    waiters: Mutex<HashMap<SignalId, oneshot::Sender<bool>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for ActiveRuns {
    fn default() -> Self {
        Self {
            worker: WorkerId::new(),
            runs: Mutex::default(),
            waiters: Mutex::default(),
        }
    }
}

impl ActiveRuns {
    pub(crate) fn worker_id(&self) -> WorkerId {
        self.worker
    }

    pub(crate) fn enter(&self, lease: Lease) -> Handle {
        let handle = Handle {
            lease,
            signal: Arc::new(Notify::new()),
            lost: CancellationToken::new(),
        };
        locked(&self.runs).insert(lease.execution_id, handle.clone());
        handle
    }

    pub(crate) fn leave(&self, lease: Lease) {
        let mut runs = locked(&self.runs);
        if runs
            .get(&lease.execution_id)
            .is_some_and(|handle| handle.lease == lease)
        {
            runs.remove(&lease.execution_id);
        }
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        locked(&self.runs)
            .values()
            .map(|handle| handle.lease)
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        locked(&self.runs).len()
    }

    /// Tells a driver that its lease is gone; `false` where it is known already.
    pub(crate) fn lose(&self, lease: Lease) -> bool {
        let runs = locked(&self.runs);
        let handle = runs
            .get(&lease.execution_id)
            .filter(|handle| handle.lease == lease && !handle.lost.is_cancelled());
        if let Some(handle) = handle {
            handle.lost.cancel();
        }
        handle.is_some()
    }

    /// Tells the driver of an execution to look into the inbox; `false` where this process has none.
    pub(crate) fn notify(&self, execution: ExecutionId) -> bool {
        let runs = locked(&self.runs);
        let handle = runs.get(&execution);
        if let Some(handle) = handle {
            handle.signal.notify_one();
        }
        handle.is_some()
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
