//! Events, schema v1: what streams carry.
//!
//! Each event shows the run state as of its own moment. Technical texts and trigger data never go
//! into an event. Texts are stored as keys and put into the reader's language by [`Event::encode`].

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

/// One event of an execution.
///
/// Its serde form is for stores; readers get [`Event::encode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique.
    pub event_id: EventId,
    /// 1, 2, 3 … within the execution, without a hole.
    pub seq: u64,
    /// When it happened.
    pub timestamp: Timestamp,
    /// The run.
    pub execution_id: ExecutionId,
    /// The workflow that it runs.
    pub workflow_id: WorkflowId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Names the chain of calls.
    pub correlation_id: Arc<str>,
    /// The status as of this event.
    pub status: Status,
    /// The progress as of this event.
    pub progress: u8,
    /// The step as of this event.
    pub current_step: Option<Arc<CurrentStep>>,
    /// What happened.
    #[serde(flatten)]
    pub data: EventData,
}

/// One line for people: progress, status and type.
impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (progress, status) = (self.progress, self.status);
        write!(f, "{progress:>3}% {status:<9} {}", self.event_type())
    }
}
