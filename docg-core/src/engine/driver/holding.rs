//! An execution that this process holds, from its claim to the end of its driver.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{Driver, active::Handle};
use crate::{
    engine::{
        Fact, Inner,
        machine::{self, Records},
    },
    event::Event,
    ports::{Claimed, Lease},
};

/// The task of a driver.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// Moves the execution forward until it rests, or until the worker shuts down.
    Work { shutdown: CancellationToken },
    /// Only applies the signals in the inbox; a worker does the rest.
    ApplySignals,
}

/// An execution that this process holds. Its lease is renewed until this value is dropped.
pub(crate) struct Holding {
    engine: Arc<Inner>,
    claimed: Claimed,
    handle: Handle,
    leaving: Leaving,
}

impl Holding {
    /// Holds a claimed execution. This process relies on the lease up to `until`, unless it is renewed; see
    /// [`Inner::claim`].
    pub(crate) fn begin(engine: &Arc<Inner>, claimed: Claimed, until: Duration) -> Self {
        let lease = claimed.lease;
        Self {
            engine: Arc::clone(engine),
            claimed,
            handle: engine.active.enter(lease, until),
            leaving: Leaving {
                engine: Arc::clone(engine),
                lease,
            },
        }
    }

    /// Publishes the events of the execution's creation.
    pub(crate) async fn publish(&mut self, events: &[Arc<Event>]) {
        self.claimed.published = self.engine.publish(events, self.claimed.published).await;
    }

    /// Runs the driver until it ends.
    pub(crate) async fn drive(self, mut mode: Mode) {
        let Self {
            engine,
            mut claimed,
            handle,
            leaving,
        } = self;
        let works = matches!(mode, Mode::Work { .. });
        engine.tell_claimed(&claimed, works);
        let lease = claimed.lease;
        let Some(taken_apart) = machine::take_apart(&mut claimed) else {
            drop(leaving);
            // If the release fails, the lease expires.
            let _ = engine.store.release(&[lease], engine.now()).await;
            return;
        };
        if taken_apart.is_reduced {
            mode = Mode::ApplySignals;
        }
        let driver = Driver {
            engine: Arc::clone(&engine),
            handle: handle.clone(),
            mode,
            step: None,
            held: Records::default(),
            held_until: None,
            may_hold: !claimed.taken_over,
            stored_version: claimed.state.execution.version,
            is_reduced: taken_apart.is_reduced,
            published: claimed.published,
            progress_at: None,
            dated_from: None,
        };
        if let Err(exit) = driver.run(claimed.state, taken_apart.inputs).await {
            tracing::debug!(execution_id = %lease.execution_id, ?exit, "its driver has ended");
        }
        drop(leaving);
        // A signal arrived after the last inbox read; wake a worker to apply it.
        if handle.signal.notified().now_or_never().is_some() {
            engine.wake_a_worker(lease.execution_id).await;
        }
    }
}

/// Removes the execution from the active ones, even if the driver panics.
struct Leaving {
    engine: Arc<Inner>,
    lease: Lease,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let id = self.lease.execution_id;
            tracing::error!(execution_id = %id, "its driver panicked; the lease is left to expire");
        }
        self.engine.active.leave(self.lease);
    }
}

impl Inner {
    fn tell_claimed(&self, claimed: &Claimed, works: bool) {
        let due = claimed.state.execution.wake_at;
        let waited = due
            .filter(|_| works && !claimed.taken_over)
            .filter(|due| *due <= self.now())
            .map(|due| Duration::from_millis(self.now().millis_since(due)));
        self.tell(&Fact::Claimed {
            taken_over: claimed.taken_over,
            waited,
        });
    }
}
