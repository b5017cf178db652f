//! Events of schema v1, which streams carry.
//!
//! Each event shows the run state at the time of the event. An event never contains technical texts or
//! trigger data. Texts are stored as keys; [`Event::encode`] translates them into the reader's language.

mod data;
mod encode;

pub use data::EventData;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{EventId, ExecutionId, OrganizationId, WorkflowId},
    run::{CurrentStep, Status},
    time::Timestamp,
};

/// The version of the event schema.
pub const SCHEMA_VERSION: u32 = 1;

/// An event of an execution.
///
/// The serde form of an event is for stores; readers get [`Event::encode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The event's id.
    pub event_id: EventId,
    /// The event's number within its execution: 1, 2, 3 … without a gap.
    pub seq: u64,
    /// When the event happened.
    pub timestamp: Timestamp,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The workflow that the execution runs.
    pub workflow_id: WorkflowId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The correlation id of the chain of calls that the execution belongs to.
    pub correlation_id: Arc<str>,
    /// The execution's status after this event.
    pub status: Status,
    /// The execution's progress after this event.
    pub progress: u8,
    /// The execution's current step after this event.
    pub current_step: Option<Arc<CurrentStep>>,
    /// The content of the event.
    #[serde(flatten)]
    pub data: EventData,
}

/// Formats the event as one line for people: progress, status and type.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (progress, status) = (self.progress, self.status);
        write!(f, "{progress:>3}% {status:<9} {}", self.event_type())
    }
}
