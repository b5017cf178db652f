use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// The largest number of connections, however many files the process may open.
const MOST: usize = 25_000;
/// The assumed limit of open files if the system reports none.
const UNTOLD: usize = 1_024;
/// The shortest interval at which connections are checked against the limits.
const SHORTEST_WATCH: Duration = Duration::from_millis(5);

/// The limits of [`serve`](crate::serve).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The largest number of connections at once.
    pub connections: usize,
    /// How long a request's head may take from its first byte, or from the start of a new connection. 10 s
    /// by default.
    pub head_timeout: Duration,
    /// How long a connection may stay open without a request. 60 s by default.
    pub idle_timeout: Duration,
    /// How long a request's body may take as a whole, from when the handler asks for it. 20 s by
    /// default; give more to an application that takes large uploads.
    pub body_timeout: Duration,
    /// How long a client may go without taking a byte of an answer. 30 s by default.
    pub slow_reader: Duration,
    /// HTTP/2: how many requests, event streams included, one connection may have open. 100 by default.
    pub streams_per_connection: u32,
    /// Cancel this token to stop the server. It then accepts no more connections, and open connections end
    /// after their current answers.
    pub shutdown: CancellationToken,
    /// The metrics in which connections are counted.
    pub metrics: Metrics,
}

impl Default for ServeOptions {
    /// The options of [`keeping_files(64)`](Self::keeping_files).
    fn default() -> Self {
        Self::keeping_files(64)
    }
}

impl ServeOptions {
    /// The defaults, with the number of connections derived from the limit on open files
    /// (`RLIMIT_NOFILE`). `kept` files are reserved for databases, other services and files. Clients get at
    /// least half of the limit, and at most 25,000 connections.
    #[must_use]
    pub fn keeping_files(kept: usize) -> Self {
        Self {
            connections: connections(open_files().unwrap_or(UNTOLD), kept),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(20),
            slow_reader: Duration::from_secs(30),
            streams_per_connection: 100,
            shutdown: CancellationToken::new(),
            metrics: Metrics::default(),
        }
    }

    /// The interval at which connections are checked: a quarter of the shortest limit.
    pub(super) fn watch_every(&self) -> Duration {
        let shortest = self
            .head_timeout
            .min(self.idle_timeout)
            .min(self.slow_reader);
        (shortest / 4).max(SHORTEST_WATCH)
    }
}

/// How many files this process may have open at once (`RLIMIT_NOFILE`). `None` if there is no limit, or
/// the system does not report it.
#[must_use]
pub fn open_files() -> Option<usize> {
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    None
}

fn connections(open: usize, kept: usize) -> usize {
    open.saturating_sub(kept).max(open / 2).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn clients_get_what_is_left_of_open_files_and_at_least_half() {
        for (open, kept, expected) in [
            (64, 10, 54),
            (64, 60, 32),
            (64, 1_000, 32),
            (1_024, 200, 824),
            (0, 10, 1),
            (usize::MAX, 10, 25_000),
        ] {
            assert_eq!(connections(open, kept), expected, "{open} - {kept}");
        }
    }
}
