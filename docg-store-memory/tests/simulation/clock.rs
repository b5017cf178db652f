//! The wall clock of all processes: tokio's time, and whatever it was set to.

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
    /// What it showed at the start, and by how much it was set since, in milliseconds.
    shows: AtomicI64,
    /// How far it was set back altogether.
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

    /// Sets it back or forth.
    pub(crate) fn shift(&self, millis: i64) {
        self.shows.fetch_add(millis, Ordering::Relaxed);
        if millis < 0 {
            self.set_back
                .fetch_add(millis.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// By how much it may have put off what was due at a moment.
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
