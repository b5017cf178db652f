//! The bounds of the store and the bus; nothing grows without a bound.

/// The bounds of a [`MemoryStore`](crate::MemoryStore).
///
/// If executions or bytes reach their bound, the store deletes ended executions, the oldest first, as
/// [`purge`](docg_core::ports::ExecutionStore::purge) would. If none has ended, calls that add something
/// report `Full`. The store always accepts a commit, and deletes nothing for it, because the commit records
/// what has already happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreConfig {
    /// The maximum number of executions, ended ones included.
    pub max_executions: usize,
    /// The maximum number of pending signals in one execution's signal inbox.
    pub max_inbox: usize,
    /// The maximum number of entries in the TTL store, not counting expired ones.
    pub max_ttl_entries: usize,
    /// The approximate maximum of bytes for executions with their records, workflows and TTL entries. A new
    /// execution, workflow or TTL entry must fit in; commits and small signals may exceed the bound.
    pub max_bytes: usize,
}

impl Default for StoreConfig {
    /// A million executions, a thousand signals for each, a million TTL entries, and 1 GiB in all.
    fn default() -> Self {
        Self {
            max_executions: 1_000_000,
            max_inbox: 1_000,
            max_ttl_entries: 1_000_000,
            max_bytes: 1 << 30,
        }
    }
}

impl StoreConfig {
    /// Sets the maximum number of executions, ended ones included.
    #[must_use]
    pub fn max_executions(mut self, max: usize) -> Self {
        self.max_executions = max;
        self
    }

    /// Sets the maximum number of pending signals in one execution's signal inbox.
    #[must_use]
    pub fn max_inbox(mut self, max: usize) -> Self {
        self.max_inbox = max;
        self
    }

    /// Sets the maximum number of entries in the TTL store.
    #[must_use]
    pub fn max_ttl_entries(mut self, max: usize) -> Self {
        self.max_ttl_entries = max;
        self
    }

    /// Sets the approximate maximum number of bytes.
    #[must_use]
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.max_bytes = max;
        self
    }
}

/// The bounds of a [`MemoryBus`](crate::MemoryBus).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BusConfig {
    /// The number of events kept for each execution, for readers that come later.
    pub events_per_execution: usize,
    /// The number of executions whose events are kept. An execution with a live reader is kept beyond this
    /// number.
    pub max_executions: usize,
    /// The number of events kept for each organization stream, for readers that reconnect.
    pub events_per_organization: usize,
    /// The number of organization streams that are kept. A stream with a live reader is kept beyond this
    /// number.
    pub max_organizations: usize,
    /// The number of events that a live reader may be behind before it is cut off.
    pub subscriber_buffer: usize,
    /// The number of wake-ups that a listener may be behind before it misses wake-ups.
    pub wake_buffer: usize,
    /// The approximate number of bytes of events kept for readers that come later. One half is for
    /// executions, the other for organization streams.
    pub max_bytes: usize,
}

impl Default for BusConfig {
    /// A thousand events for each of ten thousand executions and each of a thousand organizations, in 256 MiB
    /// at most. A live reader may be 256 events behind, a listener for wake-ups 4096 wake-ups.
    fn default() -> Self {
        Self {
            events_per_execution: 1_000,
            max_executions: 10_000,
            events_per_organization: 1_000,
            max_organizations: 1_000,
            subscriber_buffer: 256,
            wake_buffer: 4_096,
            max_bytes: 256 << 20,
        }
    }
}

impl BusConfig {
    /// Sets how many events are kept for each execution. At least one.
    #[must_use]
    pub fn events_per_execution(mut self, max: usize) -> Self {
        self.events_per_execution = max.max(1);
        self
    }

    /// Sets for how many executions events are kept. At least one.
    #[must_use]
    pub fn max_executions(mut self, max: usize) -> Self {
        self.max_executions = max.max(1);
        self
    }

    /// Sets how many events are kept for each organization stream. At least one.
    #[must_use]
    pub fn events_per_organization(mut self, max: usize) -> Self {
        self.events_per_organization = max.max(1);
        self
    }

    /// Sets how many organization streams are kept. At least one.
    #[must_use]
    pub fn max_organizations(mut self, max: usize) -> Self {
        self.max_organizations = max.max(1);
        self
    }

    /// Sets how many events a live reader may be behind. At least one.
    #[must_use]
    pub fn subscriber_buffer(mut self, events: usize) -> Self {
        self.subscriber_buffer = events.max(1);
        self
    }

    /// Sets the approximate number of bytes of events that are kept.
    #[must_use]
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.max_bytes = max;
        self
    }

    /// Sets how many wake-ups a listener may be behind. At least one.
    #[must_use]
    pub fn wake_buffer(mut self, wakes: usize) -> Self {
        self.wake_buffer = wakes.max(1);
        self
    }
}
