//! Preflight: what is checked before anything happens.
//!
//! [`issue`](Issue) is what a check finds, [`ResourceProbe`] how checks reach templates, folders
//! and connections, `rules` the checks over declared parameters by domain, [`run`] brings them
//! together with time limits and bounded parallelism.

mod issue;
mod probe;
mod rules;
mod runner;

pub use issue::{Domain, Issue, PreflightSummary, Severity};
#[cfg(feature = "mock")]
pub use probe::MockResourceProbe;
pub use probe::{AllowAll, ProbeFailure, ResourceProbe, TemplateFacts};
pub use runner::{PreflightLimits, PreflightRequest, run};
