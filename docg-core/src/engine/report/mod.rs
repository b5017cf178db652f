//! What operators see of the engine: facts for metrics, and warnings in the log that do not repeat for ever.

mod observed;
mod observer;
mod warnings;

pub(super) use observed::Reports;
pub(super) use observer::Observers;
pub use observer::{Fact, OTHER, Observer, StepEnd, WebhookEnd};
pub(super) use warnings::Warnings;
