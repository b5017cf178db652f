//! One node's part in one execution.

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

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun, or between two attempts.
    Pending,
    /// Under way, or waiting for what it asked for.
    Running,
    /// Ended well.
    Success,
    /// Ended with an error.
    #[serde(rename = "failure")]
    Failed,
    /// Left out, with the reason in its output.
    Skipped,
}

impl StepStatus {
    /// All five.
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

    /// Whether nothing more happens to the step by itself.
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

/// What a step is doing, so that whoever takes the execution over knows how to go on.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Nothing: the step is not running.
    #[default]
    Idle,
    /// The handler runs.
    Running,
    /// The handler is asked whether the effect happened before its worker died.
    ProbingTakeover,
    /// The handler is asked whether the effect happened although the attempt failed.
    ProbingFailure,
    /// Nothing runs; the step waits for what it asked for.
    Waiting,
    /// The handler goes on after its wait.
    Resuming,
}

impl Activity {
    /// Whether a handler works, or is about to.
    #[must_use]
    pub const fn is_at_work(self) -> bool {
        match self {
            Self::Running | Self::ProbingTakeover | Self::ProbingFailure | Self::Resuming => true,
            Self::Idle | Self::Waiting => false,
        }
    }
}

/// What is known of how a failed step ended. It decides what may follow, whatever the error's code.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The step did not do what it was for.
    #[default]
    Known,
    /// The step may have had its effect: a person must say what they know before it goes on.
    Unknown,
    /// People decided against it, or did not decide in time: `on_error: continue` does not pass it
    /// over.
    Decided,
}

/// One node's part in one execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique.
    pub id: StepId,
    /// The run.
    pub execution_id: ExecutionId,
    /// The node.
    pub node_id: NodeId,
    /// The node's type.
    pub node_type: Arc<str>,
    /// For people.
    pub label: Arc<str>,
    /// What kind of work it is.
    pub phase: Phase,
    /// 0-based place in the workflow.
    pub position: u32,
    /// Where it stands.
    pub status: StepStatus,
    /// What it is doing while it runs.
    pub activity: Activity,
    /// Attempts that began and were not cut off by the death of their worker.
    pub attempt: u32,
    /// Attempts that a person's repair has made void: they do not count against the retry policy.
    pub attempts_before: u32,
    /// How often a worker died under it that had said that it began.
    pub takeovers: u32,
    /// When its first attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// How long people were waited for in between, in milliseconds.
    pub waiting_ms: u64,
    /// Why it failed, or why its last attempt did.
    pub error: Option<ErrorContext>,
    /// What is known of how it failed.
    pub outcome: Outcome,
    /// The parameters as resolved, redacted and bounded.
    pub data_in: Option<JsonText>,
    /// The output, redacted and bounded.
    pub data_out: Option<JsonText>,
    /// The output as later steps read it. Never shown.
    pub output: Option<Arc<Value>>,
    /// The execution whose output a retry reused.
    pub reused_from: Option<ExecutionId>,
}

impl Step {
    /// Whether it has failed and may have had its effect all the same.
    #[must_use]
    pub fn is_outcome_open(&self) -> bool {
        self.status == StepStatus::Failed && self.outcome == Outcome::Unknown
    }

    /// From its first attempt's beginning to its end, in milliseconds; waiting for people is not in
    /// it.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        let whole = self.completed_at?.millis_since(self.started_at?);
        Some(whole.saturating_sub(self.waiting_ms))
    }
}
