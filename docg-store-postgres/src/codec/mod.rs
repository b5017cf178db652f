//! Between docg's records and rows. Everything that knows how a record is written down is here.
//!
//! JSON is kept in columns of type `json`, not `jsonb`: it comes back as it went in, to the last
//! digit, which is what the audit chain's hashes are taken over.

mod columns;
mod decode;
mod encode;
mod execution;
mod rows;

pub(crate) use columns::columns;
pub(crate) use decode::{
    approval, audit_event, bytes32, event, field, from_json, json_field, lenient_step, log_entry,
    mark_unreadable, number, optional_time, record, reduced_state, run_state, seq, signals,
    signature_request, steps, time, workflow,
};
pub(crate) use encode::{Encoder, int, time_column};
pub(crate) use execution::{ExecutionColumns, ExecutionPlace};
pub(crate) use rows::{
    ApprovalColumns, AuditColumns, EventColumns, LogColumns, SignatureColumns, StepColumns,
};

/// A moment as the driver takes it.
pub(crate) type Time = chrono::DateTime<chrono::Utc>;
