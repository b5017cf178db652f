//! What each route does: read the request, ask the engine, write the answer.

pub(crate) mod approvals;
pub(crate) mod control;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod records;
pub(crate) mod signatures;
pub(crate) mod workflows;
