//! Preflight: the checks before an execution has any effect.
//!
//! A check reports each problem as an [`Issue`]. [`ResourceProbe`] lets checks reach templates, folders and
//! connections. `rules` holds the checks of declared parameters, a file for each domain. [`run`] runs all
//! checks with time limits and bounded parallelism.

mod issue;
mod probe;
mod rules;
mod runner;

pub use issue::{Domain, Issue, PreflightSummary, Severity};
pub(crate) use issue::{field_of_param, field_of_trigger};
#[cfg(feature = "mock")]
pub use probe::MockResourceProbe;
pub use probe::{AllowAll, ProbeFailure, ResourceProbe, TemplateFacts};
pub use runner::{PreflightLimits, PreflightRequest, run};
