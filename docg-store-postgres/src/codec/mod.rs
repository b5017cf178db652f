//! Conversion between docg's records and rows. All knowledge of how a record is stored is here.
//!
//! JSON is kept in columns of type `json`, not `jsonb`, so that it comes back exactly as it was
//! stored, to the last digit. The audit chain's hashes are computed over these texts.

mod columns;
mod decode;
mod encode;
mod execution;
mod journal;
mod rows;
mod search;

pub(crate) use columns::{Columns, row, single, unnest};
pub(crate) use decode::{
    approval, audit_event, bytes32, field, from_json, json_field, lenient_step, mark_unreadable,
    number, optional_time, record, reduced_state, run_state, seq, signals, signature_request,
    steps, time, workflow,
};
pub(crate) use encode::{Encoder, int, time_column};
pub(crate) use execution::{ExecutionPlace, ExecutionRow, name};
pub(crate) use journal::{ExecutionIds, JournalRow};
pub(crate) use rows::{ApprovalRow, AuditRow, SignatureRow, StepRow};
pub(crate) use search::{search_query, search_vector};

/// A time in the driver's type.
pub(crate) type Time = chrono::DateTime<chrono::Utc>;
