//! How a person corrects the inputs of an execution: changes to its trigger data and to node parameters, and the
//! inputs that a recommended action asks for.
//!
//! Both kinds of changes are for the same object: `{"trigger_data": {…}, "nodes": {node id: {parameter: value}}}`, where
//! `nodes` holds the parameters that a person has changed. `Changes::apply` makes all changes or none.

mod ask;
mod changes;
mod schema;

pub use ask::ActionInput;
pub(crate) use ask::{Asker, ask};
pub(crate) use changes::{Changes, new_faults};
pub(crate) use schema::words;
