//! What protects the audit trail besides its chains.
//!
//! [`record`] is how the trail is written down outside the database, and [`verify`] goes over such
//! records, wherever they come from, and makes a [`report`]; [`export`] reads them from the database.
//! [`checkpoint`] signs what the chains are at a moment, [`retention`] lets rows and personal data
//! go, [`privileges`] tells whether the running role could get around the guards.

mod checkpoint;
mod export;
mod privileges;
mod record;
mod report;
mod retention;
mod verify;

pub use checkpoint::{CheckpointKey, CheckpointSummary};
pub use report::{AuditFault, AuditReport, AuditTrust};
pub use verify::{verify_audit_export, verify_audit_export_of};
