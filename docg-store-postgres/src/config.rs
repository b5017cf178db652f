use std::time::Duration;

/// The settings of a [`PgStore`](crate::PgStore).
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
    pub(crate) max_batches: usize,
    pub(crate) max_json_bytes: usize,
    pub(crate) max_inbox: usize,
}

impl Default for PgStoreConfig {
    /// 10 connections, 5 seconds to acquire one, 30 seconds for a statement, batches of 64 on two
    /// connections at once, JSON values of up to 16 MiB, signal inboxes of up to 10,000 signals.
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            batch_size: 64,
            max_batches: 2,
            max_json_bytes: 16 << 20,
            max_inbox: 10_000,
        }
    }
}

impl PgStoreConfig {
    /// Sets the maximum number of connections. A pool that the host passes in keeps its own limit.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// Sets how long to wait for a connection. A pool that the host passes in keeps its own limit.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long a statement may take. A statement waits for a locked row for a third of that; commits
    /// and lease renewals, of which one statement serves many, for one second at most. The server ends a
    /// statement that takes longer. If no answer comes from the server, the store drops the statement and
    /// its connection.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of commits, or of creations, that share one transaction.
    #[must_use]
    pub fn batch_size(mut self, size: usize) -> Self {
        self.batch_size = size.max(1);
        self
    }

    /// Sets how many batches of commits may be under way at once, each on its own connection. The fewer
    /// batches there are, the more commits each contains.
    #[must_use]
    pub fn batches_at_once(mut self, batches: usize) -> Self {
        self.max_batches = batches.max(1);
        self
    }

    /// Sets the maximum size of one JSON value, in bytes. The store rejects a larger one as `Invalid`.
    #[must_use]
    pub fn max_json_bytes(mut self, bytes: usize) -> Self {
        self.max_json_bytes = bytes;
        self
    }

    /// Sets the maximum number of pending signals in one execution's signal inbox.
    #[must_use]
    pub fn max_inbox(mut self, signals: usize) -> Self {
        self.max_inbox = signals;
        self
    }
}
