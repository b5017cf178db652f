//! The clock-jump guard. Leases end by the wall clock, so all leases seem to expire if the clock jumps
//! forward.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{engine::Inner, time::Clock};

/// Notices jumps of the wall clock.
#[derive(Debug)]
pub(crate) struct ClockGuard(Mutex<Watch>);

#[derive(Debug)]
struct Watch {
    /// The smallest lead of the wall clock over elapsed time since its last jump forward, in milliseconds.
    ahead: i64,
    /// The end of the time in which nothing is claimed, on the scale of [`Clock::elapsed`].
    holds_off_until: Duration,
}

impl ClockGuard {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self(Mutex::new(Watch {
            ahead: ahead(clock),
            holds_off_until: Duration::ZERO,
        }))
    }
}

fn ahead(clock: &dyn Clock) -> i64 {
    let elapsed = i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX);
    clock.now().as_millis().saturating_sub(elapsed)
}

impl Inner {
    /// Checks the clock often. Otherwise a jump forward could hide behind an unnoticed jump back.
    pub(crate) async fn watch_clock(&self) {
        loop {
            let _ = self.hold_off_claims();
            self.clock.sleep(self.options.lease / 30).await;
        }
    }

    /// How long to claim nothing, because the clock jumped forward; `None` if it did not. Within one lease,
    /// every live worker renews its leases by the new time or releases them.
    pub(crate) fn hold_off_claims(&self) -> Option<Duration> {
        let (ahead, elapsed) = (ahead(&*self.clock), self.clock.elapsed());
        let watch = self.clock_guard.0.lock();
        let mut watch = watch.unwrap_or_else(PoisonError::into_inner);
        let leap = u64::try_from(ahead.saturating_sub(watch.ahead)).unwrap_or(0);
        if Duration::from_millis(leap) > self.options.clock_tolerance() {
            tracing::warn!("clock jumped forward by {leap} ms; claiming pauses for one lease");
            watch.holds_off_until = elapsed + self.options.lease;
            watch.ahead = ahead;
        }
        // Measure from the smallest lead of the clock over the elapsed time, and never raise it for a small step
        // forward. Several small steps then add up to a jump.
        watch.ahead = watch.ahead.min(ahead);
        let left = watch.holds_off_until.saturating_sub(elapsed);
        (!left.is_zero()).then_some(left)
    }
}
