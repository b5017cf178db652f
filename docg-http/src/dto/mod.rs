//! Requests and answers as clients see them, separate from the engine's own types.

mod bulk;
mod execution;
mod execution_queries;
mod records;
mod requests;
mod waits;
mod workflow;

pub(crate) use bulk::{BulkAction, BulkBody, Bulked, Refused};
pub(crate) use execution::{
    Counts, EventReached, Execution, ExecutionPreflight, Executions, PreflightReport, Retried,
    SIGNAL_SENT, SignalSent, Steps, counts, execution, preflight_report, step,
};
pub(crate) use execution_queries::{
    CountsQuery, ExecutionsQuery, SORTS, VIEWS, WorkflowExecutionsQuery,
};
pub(crate) use records::{
    Approval, AuditEvents, AuditReport, Logs, Signers, StreamToken, WebhookTaken, approval,
    audit_event, audit_report, log_entry, signers,
};
pub(crate) use requests::{
    Comment, Conditional, CreateExecution, EventBody, Keyed, KeyedEventBody, Listing, LogsQuery,
    PreflightBody, Reason, RequestSignatureBody, ResumeBody, RetryBody, SseTokenBody,
    StreamPosition, StreamQuery,
};
pub(crate) use waits::{
    ApprovalsQuery, OpenApprovals, OpenSignatures, SignaturesQuery, open_approval, open_signature,
};
pub(crate) use workflow::Workflows;

use serde::Serialize;
use serde_json::Value;

/// Converts an answer to JSON. The conversion cannot fail, because the keys of all maps are texts.
pub(crate) fn json(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}
