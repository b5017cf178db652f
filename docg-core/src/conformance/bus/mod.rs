//! The cases for buses: what the port promises, one function for each promise.

mod listen;
mod lists;
mod live;
mod order;
mod replay;
mod wakes;

crate::__bus_cases! { exports [] }
