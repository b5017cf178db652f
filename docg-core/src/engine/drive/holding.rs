//! An execution that this process holds, from its claim to the end of its driver.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;

use super::{Driver, Mode, attend};
use crate::{
    engine::{
        Inner,
        decide::{self, Input, Records},
        worker::active::Handle,
    },
    event::Event,
    ports::{Claimed, Lease, MAX_TAKEOVERS, RunState},
};

/// An execution that this process holds. Its lease is renewed until this is dropped.
pub(crate) struct Holding {
    engine: Arc<Inner>,
    claimed: Claimed,
    handle: Handle,
    leaving: Leaving,
}

impl Holding {
    /// Holds a claimed execution. Its lease is relied on `until` then unless renewed; see [`Inner::claim`].
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
    pub(crate) async fn drive(self, mode: Mode) {
        let Self {
            engine,
            mut claimed,
            handle,
            leaving,
        } = self;
        engine.tell_claimed(&claimed, matches!(mode, Mode::Work { .. }));
        let lease = claimed.lease;
        let mut inputs = Vec::with_capacity(claimed.signals.len() + 1);
        let works = matches!(mode, Mode::Work { .. });
        inputs.extend(claimed.signals.into_iter().map(Input::Signal));
        let is_interrupted = claimed.takeovers >= MAX_TAKEOVERS;
        // Workers died even while parking it. A cancel then touches only its own row, as if it were
        // unreadable.
        if claimed.takeovers > MAX_TAKEOVERS && inputs.iter().any(attend::is_cancel) {
            claimed.unreadable = true;
            reduce(&mut claimed.state);
        }
        if claimed.unreadable {
            inputs.retain(attend::is_cancel);
            if inputs.is_empty() {
                drop(leaving);
                let released = engine.store.release(&[lease], engine.now()).await;
                // If the release failed, the lease expires.
                let _ = released;
                return;
            }
        } else if is_interrupted {
            inputs.insert(0, Input::InterruptedTooOften);
        } else if works && decide::is_step_abandoned(&claimed.state, claimed.taken_over) {
            inputs.insert(0, Input::TakenOver);
        }
        let shutdown = match mode {
            Mode::Work { shutdown } if !(is_interrupted || claimed.unreadable) => Some(shutdown),
            Mode::Work { .. } | Mode::ApplySignals => None,
        };
        let driver = Driver {
            engine: Arc::clone(&engine),
            handle: handle.clone(),
            shutdown,
            drains: false,
            step: None,
            held: Records::default(),
            held_until: None,
            // After a takeover hold nothing back: what killed the last worker must leave a trace before it
            // runs again.
            may_hold: !claimed.taken_over,
            // Do not probe what cannot be read, or what may have killed its workers.
            asks: !(is_interrupted || claimed.unreadable || decide::is_interrupted(&claimed.state)),
            stored_version: claimed.state.execution.version,
            is_reduced: claimed.unreadable,
            published: claimed.published,
            progress_at: None,
            dated_from: None,
        };
        driver.run(claimed.state, inputs).await;
        drop(leaving);
        // A signal arrived after the last inbox read; wake a worker to apply it.
        if handle.signal.notified().now_or_never().is_some() {
            engine.wake_a_worker(lease.execution_id).await;
        }
    }
}

/// Reduces a run state to the execution's own row.
fn reduce(state: &mut RunState) {
    state.steps.clear();
    Arc::make_mut(&mut state.workflow).nodes.clear();
    state.execution.current_step = None;
    state.signature = None;
    state.approval = None;
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
