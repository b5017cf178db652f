//! The traits that the engine needs from storage and transport. Adapters implement these traits; the suites
//! in [`conformance`](crate::conformance) (feature `conformance`) check that adapters do what the traits
//! promise.
//!
//! The queries that applications send and stores answer are in [`query`](crate::query).

mod bus;
mod error;
mod intercept;
#[cfg(feature = "mock")]
mod mock;
mod model;
mod store;

#[cfg(feature = "mock")]
pub use bus::MockEventBus;
pub use bus::{BusError, EventBus, EventStream, ListEvent, OrganizationStream, WakeStream};
pub use error::{StoreError, StoreErrorKind};
pub use intercept::{Intercepted, Interceptor};
#[cfg(feature = "mock")]
pub use mock::MockStore;
pub use model::{
    Claim, ClaimRequest, ClaimWhat, Claimed, Commit, Committed, Created, FirstClaim, Idempotency,
    Lease, LeaseAfter, MAX_TAKEOVERS, NewExecution, Renewed, ResumeSignal, RunState, Settlement,
    Signal, SignalKind, TtlEntry, TtlKey, Unpublished, Unserved,
};
pub use store::{ExecutionReader, ExecutionStore, Store, TtlStore, WorkflowStore};
