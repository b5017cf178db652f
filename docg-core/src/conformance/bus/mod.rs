//! The cases for buses: one function for each promise of the port.

mod listen;
mod lists;
mod live;
mod order;
mod replay;
mod wakes;

crate::__bus_cases! { exports [] }
