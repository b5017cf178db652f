//! Workflow definitions: nodes in the order in which they run, with their settings.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ids::{NodeId, OrganizationId, WorkflowId},
    run::Phase,
    time::Timestamp,
};

/// What a caller may say of a workflow. [`crate::workflow::validate`] turns it into a [`Workflow`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDraft {
    /// For people.
    pub name: String,
    /// JSON Schema 2020-12 of the trigger data; an empty object allows anything.
    #[serde(default)]
    pub input_schema: Map<String, Value>,
    /// Behaviour of the whole workflow.
    #[serde(default)]
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<NodeDraft>,
}

/// A stored version of a workflow. Executions keep the version that they were made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Unique within the organization.
    pub id: WorkflowId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// For people.
    pub name: String,
    /// Counts 1, 2, 3 with each change.
    pub version: u32,
    /// JSON Schema 2020-12 of the trigger data.
    pub input_schema: Map<String, Value>,
    /// Behaviour of the whole workflow.
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<Arc<Node>>,
    /// When its first version was stored.
    pub created_at: Timestamp,
    /// When this version was stored.
    pub updated_at: Timestamp,
    /// Some of what is stored of it cannot be read, and is left empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// Behaviour of a whole workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Park the execution in `ready` until a person confirms that delivery may begin.
    pub confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; `null` for ever.
    pub review_expires_ms: Option<u64>,
    /// Higher is claimed first.
    pub priority: i16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            confirm_before_delivery: false,
            review_expires_ms: Some(7 * 24 * 3_600_000),
            priority: 0,
        }
    }
}

/// A node as a caller writes it; what is left out takes the node type's defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDraft {
    /// Unique within the workflow.
    pub id: String,
    /// The node type, such as `render-pdf`.
    #[serde(rename = "type")]
    pub node_type: String,
    /// For people; the id where it is left out.
    #[serde(default)]
    pub label: Option<String>,
    /// Declared, never guessed. May be left out where the node type knows only one.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// Runs the node only where this expression is true.
    #[serde(default)]
    pub when: Option<String>,
    /// Values for the declared parameters; texts may hold `{{path}}`.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// How failed attempts are repeated.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    /// How long one attempt may take, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What a failure that is not repeated does to the execution.
    #[serde(default)]
    pub on_error: OnError,
}

/// A node of a stored workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique within the workflow.
    pub id: NodeId,
    /// The node type, such as `render-pdf`.
    #[serde(rename = "type")]
    pub node_type: Arc<str>,
    /// For people.
    pub label: Arc<str>,
    /// What kind of work it does.
    pub phase: Phase,
    /// Runs the node only where this expression is true.
    pub when: Option<String>,
    /// Values for the declared parameters; texts may hold `{{path}}`.
    pub params: Map<String, Value>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// What a failure that is not repeated does to the execution.
    pub on_error: OnError,
}

/// What a failure that is not repeated does to the execution.
///
/// It is not asked where a person must look - a step that says so, an effect that may have happened -
/// nor about what people have decided: a rejected or expired approval and declined, expired or
/// withdrawn signatures are no failure to step over, and `continue` fails with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The execution fails.
    #[default]
    Fail,
    /// The execution waits in `needs_review` for a person.
    Review,
    /// The step has failed and the execution goes on without it.
    Continue,
}

impl OnError {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Review, Self::Continue];
}

/// Exponential backoff with jitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. At least 1.
    pub max_attempts: u32,
    /// The pause after the first failure, in milliseconds.
    pub initial_ms: u64,
    /// No pause is longer than this, in milliseconds.
    pub max_ms: u64,
    /// What each pause is multiplied by to give the next. From 1 to 1000.
    pub multiplier: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_ms: 500,
            max_ms: 30_000,
            multiplier: 2.0,
        }
    }
}

impl RetryPolicy {
    /// Never repeats.
    #[must_use]
    pub fn none() -> Self {
        Self {
            max_attempts: 1,
            ..Self::default()
        }
    }

    /// The pause after `attempt` failed (1 for the first), in milliseconds. `random` spreads
    /// pauses over the upper half, so that what failed together does not return together.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, random: u64) -> u64 {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a pause needs no exactness, and the cast saturates"
        )]
        let full = (self.initial_ms as f64 * self.multiplier.powi(exponent)).min(self.max_ms as f64)
            as u64;
        let half = full / 2;
        half + random % (full - half + 1)
    }
}
