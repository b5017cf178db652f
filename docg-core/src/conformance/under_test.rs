use std::{any::Any, fmt, sync::Arc};

use crate::ports::{EventBus, Store};

/// A fresh store, with the facts that a case needs about it.
pub struct StoreUnderTest {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The store of another process, over the same data. If all data is in one process, the same object.
    pub peer: Arc<dyn Store>,
    /// Behavior of the store beyond the promises of the port.
    pub capabilities: StoreCapabilities,
    guard: Option<Box<dyn Any + Send>>,
}

/// Optional behavior of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// True if organizations take turns among executions of equal priority, even before an organization has
    /// reached its share of leases.
    pub takes_turns: bool,
}

impl StoreCapabilities {
    /// Declares that organizations take turns.
    #[must_use]
    pub fn takes_turns(mut self) -> Self {
        self.takes_turns = true;
        self
    }
}

impl StoreUnderTest {
    /// A store without optional behavior, and without a separate peer.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            peer: Arc::clone(&store),
            store,
            capabilities: StoreCapabilities::default(),
            guard: None,
        }
    }

    /// Sets the store of another process, over the same data.
    #[must_use]
    pub fn peer(mut self, peer: Arc<dyn Store>) -> Self {
        self.peer = peer;
        self
    }

    /// Sets the store's optional behavior.
    #[must_use]
    pub fn capabilities(mut self, capabilities: StoreCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Keeps a guard until the case ends, such as a database that is deleted when the guard is dropped.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }
}

impl fmt::Debug for StoreUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = self.guard.is_some();
        f.debug_struct("StoreUnderTest")
            .field("capabilities", &self.capabilities)
            .field("keeps", &keeps)
            .finish()
    }
}

impl From<Arc<dyn Store>> for StoreUnderTest {
    fn from(store: Arc<dyn Store>) -> Self {
        Self::new(store)
    }
}

impl<S: Store> From<Arc<S>> for StoreUnderTest {
    fn from(store: Arc<S>) -> Self {
        Self::new(store)
    }
}

/// A fresh bus, with the facts that a case needs about it.
pub struct BusUnderTest {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// The same bus from another process. If the bus is within one process, the same object.
    pub peer: Arc<dyn EventBus>,
    /// The bounds of the bus.
    pub capabilities: BusCapabilities,
    guard: Option<Box<dyn Any + Send>>,
}

/// The bounds of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCapabilities {
    /// The least number of events that the bus keeps of an execution, and of an organization's stream. 20 or
    /// more.
    pub keeps: u64,
    /// The number of further events after which the bus has certainly dropped the oldest.
    pub forgets_after: u64,
    /// The number of events by which a reader may be behind without being cut off. 8 or more.
    pub buffers: u64,
    /// The number of events behind at which a reader is certainly cut off.
    pub cuts_off_after: u64,
}

impl Default for BusCapabilities {
    /// Keeps 1,000 events, and has dropped the oldest after 10,000 more. Allows a reader to be 200 events
    /// behind, and cuts a reader off that is 10,000 behind.
    fn default() -> Self {
        Self {
            keeps: 1_000,
            forgets_after: 10_000,
            buffers: 200,
            cuts_off_after: 10_000,
        }
    }
}

impl BusCapabilities {
    /// Sets how many events of an execution the bus certainly keeps, and after how many more it has certainly
    /// dropped the oldest.
    #[must_use]
    pub fn history(mut self, keeps: u64, forgets_after: u64) -> Self {
        (self.keeps, self.forgets_after) = (keeps, forgets_after);
        self
    }

    /// Sets how many events a reader may be behind, and at how many the bus certainly cuts it off.
    #[must_use]
    pub fn backlog(mut self, buffers: u64, cuts_off_after: u64) -> Self {
        (self.buffers, self.cuts_off_after) = (buffers, cuts_off_after);
        self
    }
}

impl BusUnderTest {
    /// A bus with the bounds of [`BusCapabilities::default`].
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>) -> Self {
        Self {
            peer: Arc::clone(&bus),
            bus,
            capabilities: BusCapabilities::default(),
            guard: None,
        }
    }

    /// Sets the same bus from another process.
    #[must_use]
    pub fn peer(mut self, peer: Arc<dyn EventBus>) -> Self {
        self.peer = peer;
        self
    }

    /// Sets the bounds of the bus.
    #[must_use]
    pub fn capabilities(mut self, capabilities: BusCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Keeps a guard until the case ends, such as a server that stops when the guard is dropped.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }
}

impl fmt::Debug for BusUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = self.guard.is_some();
        f.debug_struct("BusUnderTest")
            .field("capabilities", &self.capabilities)
            .field("keeps", &keeps)
            .finish()
    }
}

impl From<Arc<dyn EventBus>> for BusUnderTest {
    fn from(bus: Arc<dyn EventBus>) -> Self {
        Self::new(bus)
    }
}

impl<B: EventBus> From<Arc<B>> for BusUnderTest {
    fn from(bus: Arc<B>) -> Self {
        Self::new(bus)
    }
}
