//! The test suites that every store and every bus must pass, and decorators that inject failures.
//!
//! The module `cases` lists the cases for all adapters, so a new case applies to every adapter. An adapter's
//! test file only provides a function that creates a fresh store or bus:
//!
//! ```ignore
//! async fn fresh() -> Arc<dyn Store> {
//!     Arc::new(MemoryStore::default())
//! }
//!
//! docg_core::store_conformance!(fresh);
//! ```
//!
//! Adapters declare permitted differences with [`StoreCapabilities`] and [`BusCapabilities`]. No adapter can
//! declare that it breaks a promise of its port.
//!
//! [`fixtures`] creates executions, commits and events. [`store`] and [`bus`] hold the cases. [`faulty`]
//! decorates a port with failures.

pub mod bus;
mod cases;
pub mod faulty;
pub mod fixtures;
pub mod store;
mod under_test;

pub use faulty::{Call, Fault, Faults, FaultyBus, FaultyStore};
pub use under_test::{BusCapabilities, BusUnderTest, StoreCapabilities, StoreUnderTest};

// The tests that the macros generate use this tokio, so that an adapter needs no dependency on tokio.
#[doc(hidden)]
pub use tokio;
