//! Steps: one node's part in one execution.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::ErrorContext,
    ids::{ExecutionId, NodeId, StepId},
    observe::JsonText,
    run::Phase,
    time::Timestamp,
};

/// The status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Pending, or between two attempts.
    Pending,
    /// In progress, or waiting for the answer to a request.
    Running,
    /// Ended with success.
    Success,
    /// Ended with an error.
    #[serde(rename = "failure")]
    Failed,
    /// Left out; the reason is in its output.
    Skipped,
}

impl StepStatus {
    /// All five variants.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Skipped,
    ];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failure",
            Self::Skipped => "skipped",
        }
    }

    /// True if the step has ended: nothing more happens to it by itself.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Skipped)
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StepStatus {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == name)
            .ok_or_else(|| format!("unknown step status {name:?}"))
    }
}

/// The current activity of a step. After a takeover, the new worker reads from it how to go on.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// The step is not running.
    #[default]
    Idle,
    /// The handler is running.
    Running,
    /// After a takeover, the handler is asked whether the effect happened before the old worker died.
    ProbingTakeover,
    /// After a failed attempt, the handler is asked whether the effect happened all the same.
    ProbingFailure,
    /// No handler runs; the step waits for the answer to its request.
    Waiting,
    /// The handler continues after its wait.
    Resuming,
}

impl Activity {
    /// True if a handler is working, or is about to.
    #[must_use]
    pub const fn is_at_work(self) -> bool {
        match self {
            Self::Running | Self::ProbingTakeover | Self::ProbingFailure | Self::Resuming => true,
            Self::Idle | Self::Waiting => false,
        }
    }
}

/// How a failed step ended, as far as it is known. Decides what may follow, independent of the error's code.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The step did not have its effect.
    #[default]
    Known,
    /// The step may have had its effect: a person must settle it before the execution goes on.
    Unknown,
    /// People decided against it, or did not decide in time: `on_error: continue` does not skip such a
    /// failure.
    Decided,
}

/// A step: one node's part in one execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The step's id.
    pub id: StepId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The node.
    pub node_id: NodeId,
    /// The node's type.
    pub node_type: Arc<str>,
    /// The step's name, for people.
    pub label: Arc<str>,
    /// The kind of work.
    pub phase: Phase,
    /// The node's 0-based position in the workflow.
    pub position: u32,
    /// The current status.
    pub status: StepStatus,
    /// The current activity, while the status is `running`.
    pub activity: Activity,
    /// Attempts that began and were not cut off by their worker's death.
    pub attempt: u32,
    /// Attempts before a person's repair, which do not count against the retry policy.
    pub attempts_before: u32,
    /// How many workers died after committing that they started this step.
    pub takeovers: u32,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When the step ended.
    pub completed_at: Option<Timestamp>,
    /// The time spent waiting for people, in milliseconds.
    pub waiting_ms: u64,
    /// Why the step, or its latest attempt, failed.
    pub error: Option<ErrorContext>,
    /// How it failed, as far as it is known.
    pub outcome: Outcome,
    /// The resolved parameters, redacted and bounded.
    pub data_in: Option<JsonText>,
    /// The output, redacted and bounded.
    pub data_out: Option<JsonText>,
    /// The output for later steps. Never shown to people.
    pub output: Option<Arc<Value>>,
    /// The execution whose output was reused in a retry.
    pub reused_from: Option<ExecutionId>,
}

impl Step {
    /// True if the step failed and may have had its effect all the same.
    #[must_use]
    pub fn is_outcome_open(&self) -> bool {
        self.status == StepStatus::Failed && self.outcome == Outcome::Unknown
    }

    /// The time from the first attempt's start to the step's end, in milliseconds, without waiting for
    /// people.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        let whole = self.completed_at?.millis_since(self.started_at?);
        Some(whole.saturating_sub(self.waiting_ms))
    }
}
