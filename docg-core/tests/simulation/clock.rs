//! The wall clock of all processes: tokio's time plus the jumps by which the plan sets the clock.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use docg_core::time::{Clock, Timestamp};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct WallClock {
    start: Instant,
    /// The time that the clock showed at `start`, plus all jumps since, in milliseconds.
    shows: AtomicI64,
    /// The sum of all jumps backward, in milliseconds.
    set_back: AtomicU64,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            shows: AtomicI64::new(1_700_000_000_000),
            set_back: AtomicU64::new(0),
        }
    }

    /// Sets the clock backward or forward.
    pub(crate) fn shift(&self, millis: i64) {
        self.shows.fetch_add(millis, Ordering::Relaxed);
        if millis < 0 {
            self.set_back
                .fetch_add(millis.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// The sum of all jumps backward: an execution may become due so much later.
    pub(crate) fn set_back(&self) -> Duration {
        Duration::from_millis(self.set_back.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.shows.load(Ordering::Relaxed)) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
