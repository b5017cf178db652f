use std::time::Duration;

/// How a [`PgStore`](crate::PgStore) uses its database.
///
/// ```
/// use std::time::Duration;
/// use docg_store_postgres::PgStoreConfig;
///
/// let config = PgStoreConfig::default().max_connections(20).timeout(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct PgStoreConfig {
    pub(crate) max_connections: u32,
    pub(crate) acquire_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) batch_size: usize,
    pub(crate) flights: usize,
    pub(crate) max_json_bytes: usize,
    pub(crate) max_inbox: usize,
}

impl Default for PgStoreConfig {
    /// 10 connections, 5 seconds to get one, 30 seconds for a statement, batches of 64 on two
    /// connections at once, values of up to 16 MiB, inboxes of up to 10,000 signals.
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            batch_size: 64,
            flights: 2,
            max_json_bytes: 16 << 20,
            max_inbox: 10_000,
        }
    }
}

impl PgStoreConfig {
    /// Sets how many connections there may be. A pool that the host gives has its own limit.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Sets how long to wait for a connection. A pool that the host gives has its own limit.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long a statement may take, and a third of it is how long it may wait for rows that
    /// somebody holds; commits and renewals, which others wait with, do so for a second at most. The
    /// server ends a statement that takes longer; where it does not answer either, the statement is
    /// given up with its connection.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many commits, or creations, may go in one transaction.
    #[must_use]
    pub fn batch_size(mut self, size: usize) -> Self {
        self.batch_size = size.max(1);
        self
    }

    /// Sets how many batches of commits may be under way at once, each on a connection of its
    /// own. The fewer, the more go together.
    #[must_use]
    pub fn batches_at_once(mut self, batches: usize) -> Self {
        self.flights = batches.max(1);
        self
    }

    /// Sets how large one JSON value may be, in bytes. A larger one is refused as invalid.
    #[must_use]
    pub fn max_json_bytes(mut self, bytes: usize) -> Self {
        self.max_json_bytes = bytes;
        self
    }

    /// Sets how many signals may wait in one execution's inbox.
    #[must_use]
    pub fn max_inbox(mut self, signals: usize) -> Self {
        self.max_inbox = signals;
        self
    }
}
