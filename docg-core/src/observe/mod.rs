//! The records of an execution for people: logs, the audit trail, and snapshots that are safe to show.

mod audit;
mod canonical;
mod log;
mod recorder;
mod redact;

pub(crate) use audit::ChainLink;
pub use audit::{
    Actor, ActorType, AuditDraft, AuditEvent, AuditSink, ChainFault, ChainReport, Target, actions,
    status_told, verify_chain,
};
pub use canonical::JsonText;
pub use log::{ExecutionLogger, LogDomain, LogDraft, LogEntry, LogLevel};
pub use recorder::StepRecorder;
pub use redact::Redaction;

pub use crate::secrets::{REDACTED, redact_text};
