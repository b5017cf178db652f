//! The suites that every store and every bus must pass, and decorators that make them fail.
//!
//! One list of cases, `cases`, drives all adapters: a new case is inherited by each of them. An
//! adapter's test file names a way to a fresh store or bus, and that is all:
//!
//! ```ignore
//! async fn fresh() -> Arc<dyn Store> {
//!     Arc::new(MemoryStore::default())
//! }
//!
//! docg_core::store_conformance!(fresh);
//! ```
//!
//! What differs between adapters without being wrong is said by [`StoreCapabilities`] and
//! [`BusCapabilities`]; what every adapter promises is not in there.
//!
//! [`fixtures`] makes runs, commits and events; [`store`] and [`bus`] hold the cases; [`faulty`]
//! decorates a port with failures.

pub mod bus;
mod cases;
pub mod faulty;
pub mod fixtures;
pub mod store;
mod under_test;

pub use faulty::{Call, Fault, FaultyBus, FaultyStore};
pub use under_test::{BusCapabilities, BusUnderTest, StoreCapabilities, StoreUnderTest};

// The macros' expansions name it, so that an adapter needs no runtime of its own choosing.
#[doc(hidden)]
pub use tokio;
