//! Protection of the audit trail beyond its hash chains.
//!
//! [`record`] defines the trail's form outside the database. [`verify`] checks records of this form, from
//! any source, and makes a [`report`]; [`export`] reads the records from the database. [`checkpoint`] signs
//! the state of the chains, [`retention`] deletes rows and personal data, and [`privileges`] reports
//! whether the store's role could bypass the triggers that guard the trail.

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
