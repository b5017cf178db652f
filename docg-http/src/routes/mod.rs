//! The routes. Each reads the request, calls the engine and writes the answer.

pub(crate) mod approvals;
pub(crate) mod bulk;
pub(crate) mod control;
pub(crate) mod events;
pub(crate) mod execution_lists;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod records;
pub(crate) mod signatures;
pub(crate) mod waits;
pub(crate) mod workflows;
