//! Whether the wall clock goes as fast as time passes. Leases end by the wall clock, so that where it is
//! set forth all of them seem to have run out.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Inner;
use crate::time::Clock;

#[derive(Debug)]
pub(crate) struct Steadiness(Mutex<Watch>);

#[derive(Debug)]
struct Watch {
    /// The least by which the wall clock was ahead of the time passed since it was last set forth, in
    /// milliseconds.
    ahead: i64,
    /// As [`Clock::elapsed`] tells.
    holds_off_until: Duration,
}

impl Steadiness {
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
    /// Looks at the clock again and again: a step forth would not be seen after one back that was not.
    pub(crate) async fn watch_clock(&self) {
        loop {
            let _ = self.hold_off_claims();
            self.clock.sleep(self.options.lease / 30).await;
        }
    }

    /// How long to claim nothing, if so. After the clock was set forth, whoever lives has renewed its
    /// leases by it within a lease, or has let go.
    pub(crate) fn hold_off_claims(&self) -> Option<Duration> {
        let (ahead, elapsed) = (ahead(&*self.clock), self.clock.elapsed());
        let watch = self.steadiness.0.lock();
        let mut watch = watch.unwrap_or_else(PoisonError::into_inner);
        let leap = u64::try_from(ahead.saturating_sub(watch.ahead)).unwrap_or(0);
        if Duration::from_millis(leap) > self.options.clock_tolerance() {
            tracing::warn!("the clock was set forth by {leap} ms: nothing is claimed for a lease");
            watch.holds_off_until = elapsed + self.options.lease;
            watch.ahead = ahead;
        }
        // Small steps add up until then.
        watch.ahead = watch.ahead.min(ahead);
        let left = watch.holds_off_until.saturating_sub(elapsed);
        (!left.is_zero()).then_some(left)
    }
}
