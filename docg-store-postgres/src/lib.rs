#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod audit;
mod batch;
mod codec;
mod config;
mod database;
mod environment;
mod error;
mod migrate;
mod store;

pub use audit::{
    AuditFault, AuditReport, AuditTrust, CheckpointKey, CheckpointSummary, verify_audit_export,
    verify_audit_export_of,
};
pub use config::PgStoreConfig;
pub use environment::DatabaseFault;
pub use migrate::{grants_sql, migrations_sql};
pub use store::PgStore;
