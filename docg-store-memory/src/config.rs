//! The bounds: nothing here grows without one.

/// The bounds of a [`MemoryStore`](crate::MemoryStore).
///
/// Where executions or bytes reach their bound, executions that have ended make room, the oldest
/// first, as [`purge`](docg_core::ports::RunStore::purge) would have them do. Where none has ended,
/// calls that bring something new report `Full`. A commit is always taken, and removes nothing: what has
/// happened must be kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Executions kept at once, ended ones included.
    pub max_executions: usize,
    /// Signals that may wait in one execution's inbox.
    pub max_inbox: usize,
    /// Memos kept at once, expired ones aside.
    pub max_memos: usize,
    /// Bytes kept at once, nearly: executions with all that belongs to them, workflows, memos. What is
    /// new has to fit beside the rest; commits and small signals may exceed it.
    pub max_bytes: usize,
}

impl Default for StoreConfig {
    /// A million executions, a thousand signals for each, a million memos; a gibibyte in all.
    fn default() -> Self {
        Self {
            max_executions: 1_000_000,
            max_inbox: 1_000,
            max_memos: 1_000_000,
            max_bytes: 1 << 30,
        }
    }
}

impl StoreConfig {
    /// Sets how many executions are kept at once, ended ones included.
    #[must_use]
    pub fn max_executions(mut self, max: usize) -> Self {
        self.max_executions = max;
        self
    }

    /// Sets how many signals may wait in one execution's inbox.
    #[must_use]
    pub fn max_inbox(mut self, max: usize) -> Self {
        self.max_inbox = max;
        self
    }

    /// Sets how many memos are kept at once.
    #[must_use]
    pub fn max_memos(mut self, max: usize) -> Self {
        self.max_memos = max;
        self
    }

    /// Sets how many bytes are kept at once.
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
    /// Events kept of one execution, for readers that come later.
    pub events_per_execution: usize,
    /// Executions of which events are kept. One with a live reader is kept beyond this number.
    pub max_executions: usize,
    /// Events kept of one organization's list, for readers that come back.
    pub events_per_organization: usize,
    /// Organizations whose lists are kept. One with a live reader is kept beyond this number.
    pub max_organizations: usize,
    /// Events that a live reader may be behind before it is cut off.
    pub subscriber_buffer: usize,
    /// Wake-ups that a listener may be behind before it misses some.
    pub wake_buffer: usize,
    /// Bytes of events kept for readers that come later, nearly. Half of them are the executions', half
    /// the organizations'.
    pub max_bytes: usize,
}

impl Default for BusConfig {
    /// A thousand events of each of ten thousand executions and of each of a thousand
    /// organizations, in 256 MiB at most; a reader may be 256 events behind, a listener 4096 wake-ups.
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
    /// Sets how many events of one execution are kept. At least one.
    #[must_use]
    pub fn events_per_execution(mut self, max: usize) -> Self {
        self.events_per_execution = max.max(1);
        self
    }

    /// Sets of how many executions events are kept. At least one.
    #[must_use]
    pub fn max_executions(mut self, max: usize) -> Self {
        self.max_executions = max.max(1);
        self
    }

    /// Sets how many events of one organization's list are kept. At least one.
    #[must_use]
    pub fn events_per_organization(mut self, max: usize) -> Self {
        self.events_per_organization = max.max(1);
        self
    }

    /// Sets of how many organizations lists are kept. At least one.
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

    /// Sets how many bytes of events are kept.
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
