//! What clients send and get, apart from what the engine holds.

mod execution;
mod records;
mod requests;
mod workflow;

pub(crate) use execution::{execution, step};
pub(crate) use records::{approval, audit_event, audit_report, log_entry, signers};
pub(crate) use requests::{
    Comment, CreateExecution, ExecutionsQuery, Listing, LogsQuery, PreflightBody, Reason,
    ResumeBody, RetryBody, SseTokenBody, StreamQuery,
};
pub(crate) use workflow::workflow;
