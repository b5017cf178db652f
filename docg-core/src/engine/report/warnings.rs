//! Warnings about conditions that may last, such as a bus that is down. Without a limit, loops and requests
//! would log them again and again.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two log lines of one warning.
const INTERVAL: Duration = Duration::from_secs(60);

/// The warnings of an engine.
#[derive(Debug)]
pub(crate) struct Warnings {
    pub(crate) not_ready: Warning,
    pub(crate) claiming: Warning,
    pub(crate) renewing: Warning,
    pub(crate) publishing: Warning,
    pub(crate) sweeping: Warning,
    pub(crate) wakes: Warning,
}

impl Default for Warnings {
    fn default() -> Self {
        Self {
            not_ready: Warning::new("not ready", "ready again"),
            claiming: Warning::new(
                "claiming failed and will be tried again",
                "claiming works again",
            ),
            renewing: Warning::new("leases could not be renewed", "leases are renewed again"),
            publishing: Warning::new(
                "events will be published later",
                "events are published again",
            ),
            sweeping: Warning::new(
                "publishing what was left behind failed and will be tried again",
                "what was left behind is published again",
            ),
            wakes: Warning::new(
                "wake-ups from other processes do not arrive",
                "wake-ups from other processes arrive again",
            ),
        }
    }
}

/// A warning about a condition that may last. It is logged when the condition begins, once a minute with a
/// count while the condition lasts, and once when it is over.
#[derive(Debug)]
pub(crate) struct Warning {
    begins: &'static str,
    is_over: &'static str,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    logged: Option<Instant>,
    /// How often the condition occurred since the last log line.
    unlogged: u64,
    /// True if the end of the condition is yet to be logged.
    is_open: bool,
}

impl Warning {
    fn new(begins: &'static str, is_over: &'static str) -> Self {
        Self {
            begins,
            is_over,
            tally: Mutex::default(),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the warning, unless it was logged less than a minute ago.
    pub(crate) fn happened(&self, why: &dyn Display) {
        let begins = self.begins;
        match self.tally().happened(Instant::now()) {
            None => {}
            Some(1) => tracing::warn!("{begins}: {why}"),
            Some(times) => {
                tracing::warn!("{begins} ({times} times since this was last logged): {why}");
            }
        }
    }

    /// Logs the end of the condition, if its beginning was logged.
    pub(crate) fn is_over(&self) {
        if self.tally().is_over() {
            tracing::info!("{}", self.is_over);
        }
    }
}

impl Tally {
    /// If the warning is to be logged now, returns how often it occurred since the last log line.
    fn happened(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        let is_recent = |logged| now.duration_since(logged) < INTERVAL;
        if self.logged.is_some_and(is_recent) {
            return None;
        }
        self.logged = Some(now);
        self.is_open = true;
        Some(std::mem::take(&mut self.unlogged))
    }

    fn is_over(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_logged_at_its_begin_each_minute_and_at_its_end() {
        let (mut tally, began) = (Tally::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!tally.is_over(), "it has not begun");
        let logged: Vec<_> = (0..150)
            .filter_map(|second| Some((second, tally.happened(at(second))?)))
            .collect();
        assert_eq!(logged, [(0, 1), (60, 60), (120, 60)]);
        assert!(tally.is_over());
        assert!(!tally.is_over(), "once");
        // A condition that comes and goes is logged no more often than a condition that lasts.
        let logged: Vec<_> = (150..300)
            .filter_map(|second| {
                let times = tally.happened(at(second));
                assert_eq!(tally.is_over(), times.is_some());
                Some((second, times?))
            })
            .collect();
        assert_eq!(logged, [(180, 60), (240, 60)]);
    }
}
