use std::{any::Any, fmt, sync::Arc};

use crate::ports::{EventBus, Store};

/// A fresh store, and what a case must know of it.
pub struct StoreUnderTest {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The same data as another process sees it; the same store where it lives in one process.
    pub peer: Arc<dyn Store>,
    /// What it does beyond its promises.
    pub capabilities: StoreCapabilities,
    guard: Option<Box<dyn Any + Send>>,
}

/// What one store does and another need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// Within equal priority it gives organizations their turns, even where none has reached its
    /// share.
    pub takes_turns: bool,
}

impl StoreCapabilities {
    /// Says that organizations take turns.
    #[must_use]
    pub fn takes_turns(mut self) -> Self {
        self.takes_turns = true;
        self
    }
}

impl StoreUnderTest {
    /// A store that does what is promised and no more.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            peer: Arc::clone(&store),
            store,
            capabilities: StoreCapabilities::default(),
            guard: None,
        }
    }

    /// Sets how another process sees the same data.
    #[must_use]
    pub fn peer(mut self, peer: Arc<dyn Store>) -> Self {
        self.peer = peer;
        self
    }

    /// Sets what it does beyond its promises.
    #[must_use]
    pub fn capabilities(mut self, capabilities: StoreCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Keeps something until the case is over, such as a database that is dropped with it.
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

/// A fresh bus, and what a case must know of it.
pub struct BusUnderTest {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// The same bus as another process sees it; the same object where it lives in one process.
    pub peer: Arc<dyn EventBus>,
    /// Its bounds.
    pub capabilities: BusCapabilities,
    guard: Option<Box<dyn Any + Send>>,
}

/// The bounds of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCapabilities {
    /// So many events of an execution, and of an organization's list, it keeps for sure. At least 20.
    pub keeps: u64,
    /// After so many more it has forgotten the first for sure.
    pub forgets_after: u64,
    /// So many events may a reader be behind for sure. At least 8.
    pub buffers: u64,
    /// A reader that is so many events behind is cut off for sure.
    pub cuts_off_after: u64,
}

impl Default for BusCapabilities {
    /// A thousand events kept and ten thousand forgotten, 200 in the buffer and cut off after ten
    /// thousand.
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
    /// Sets how many events of an execution are kept for sure, and after how many the first is
    /// forgotten for sure.
    #[must_use]
    pub fn history(mut self, keeps: u64, forgets_after: u64) -> Self {
        (self.keeps, self.forgets_after) = (keeps, forgets_after);
        self
    }

    /// Sets how many events a reader may be behind for sure, and after how many it is cut off for
    /// sure.
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

    /// Sets how another process sees the same bus.
    #[must_use]
    pub fn peer(mut self, peer: Arc<dyn EventBus>) -> Self {
        self.peer = peer;
        self
    }

    /// Sets its bounds.
    #[must_use]
    pub fn capabilities(mut self, capabilities: BusCapabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Keeps something until the case is over, such as a server that stops with it.
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
