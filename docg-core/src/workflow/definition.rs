//! Workflow definitions: nodes in the order in which they run, with their settings.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ids::{NodeId, OrganizationId, WorkflowId},
    run::Phase,
    time::Timestamp,
};

/// A workflow as a caller writes it. [`crate::workflow::validate`] turns it into a [`Workflow`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowDraft {
    /// The workflow's name, for people.
    pub name: String,
    /// JSON Schema 2020-12 of the trigger data; an empty object allows anything.
    #[serde(default)]
    pub input_schema: Map<String, Value>,
    /// Settings of the whole workflow.
    #[serde(default)]
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<NodeDraft>,
}

/// A stored version of a workflow. Executions keep the version that they were created with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The workflow's id, unique within the organization.
    pub id: WorkflowId,
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The workflow's name, for people.
    pub name: String,
    /// The version: 1 at first, and one more with each change.
    pub version: u32,
    /// JSON Schema 2020-12 of the trigger data.
    pub input_schema: Map<String, Value>,
    /// Settings of the whole workflow.
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<Arc<Node>>,
    /// When the workflow's first version was stored.
    pub created_at: Timestamp,
    /// When this version was stored.
    pub updated_at: Timestamp,
    /// True if some stored data of the workflow cannot be read. The fields concerned are empty.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// Settings of a whole workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The title of executions for people: a text with `{{trigger.…}}`. `None` gives executions no title.
    pub title: Option<String>,
    /// True if the execution waits in `ready` until a person confirms that delivery may begin.
    pub confirm_before_delivery: bool,
    /// How long a review may take, in milliseconds; `null` for no limit.
    pub review_expires_ms: Option<u64>,
    /// The priority of executions; those with a higher priority are claimed first.
    pub priority: i16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            title: None,
            confirm_before_delivery: false,
            review_expires_ms: Some(7 * 24 * 3_600_000),
            priority: 0,
        }
    }
}

/// A node as a caller writes it. If an optional field is missing, the node type's default applies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeDraft {
    /// The node's id, unique within the workflow.
    pub id: String,
    /// The node type, such as `render-pdf`.
    #[serde(rename = "type")]
    pub node_type: String,
    /// The node's name, for people. If it is missing, the id is shown.
    #[serde(default)]
    pub label: Option<String>,
    /// The phase. May be missing if the node type allows only one.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// The node's condition: the node runs only if it is true.
    #[serde(default)]
    pub when: Option<String>,
    /// Values for the declared parameters; texts may hold `{{path}}`.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// How failed attempts are retried.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    /// The timeout of one attempt, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// The consequence for the execution if the step fails and is not retried.
    #[serde(default)]
    pub on_error: OnError,
}

/// A node of a stored workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The node's id, unique within the workflow.
    pub id: NodeId,
    /// The node type, such as `render-pdf`.
    #[serde(rename = "type")]
    pub node_type: Arc<str>,
    /// The node's name, for people.
    pub label: Arc<str>,
    /// The kind of work that the node does.
    pub phase: Phase,
    /// The node's condition: the node runs only if it is true.
    pub when: Option<String>,
    /// Values for the declared parameters; texts may hold `{{path}}`.
    pub params: Map<String, Value>,
    /// How failed attempts are retried.
    pub retry: RetryPolicy,
    /// The timeout of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// The consequence for the execution if the step fails and is not retried.
    pub on_error: OnError,
}

/// The consequence for the execution if a step fails and is not retried.
///
/// Not applied if a person must look, because the failure asks for a review or the outcome is unknown. Not
/// applied to people's decisions either: if an approval was rejected or expired, or signatures were declined,
/// expired or withdrawn, even `continue` fails the execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The execution fails.
    #[default]
    Fail,
    /// The execution waits in `needs_review` for a person.
    Review,
    /// The step fails and the execution continues without its output.
    Continue,
}

impl OnError {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Review, Self::Continue];
}

/// The retry policy of a node: exponential backoff with jitter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// The largest number of attempts, the first attempt included. At least 1.
    pub max_attempts: u32,
    /// The pause after the first failure, in milliseconds.
    pub initial_ms: u64,
    /// The longest pause, in milliseconds.
    pub max_ms: u64,
    /// The factor from each pause to the next, from 1 to 1000.
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
    /// A policy without retries.
    #[must_use]
    pub fn none() -> Self {
        Self {
            max_attempts: 1,
            ..Self::default()
        }
    }

    /// The pause after the failure of attempt `attempt` (1 for the first), in milliseconds. `random` picks a
    /// value between half and all of the pause, so that steps that failed together are not retried together.
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
