//! The cases for buses: what the port promises, one function for each promise.

mod live;
mod listen;
mod replay;
mod wakes;

crate::__bus_cases! { exports [] }
