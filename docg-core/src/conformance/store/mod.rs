//! The cases for stores: one function for each promise of the ports.

mod claim;
mod commit;
mod create;
mod desk;
mod lease;
mod paging;
mod publishing;
mod purging;
mod reads;
mod signals;
mod stopping;
mod storable;
mod ttl;
mod workflows;

crate::__store_cases! { exports [] }
