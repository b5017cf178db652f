//! Steps: one node's part in one execution.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::ErrorContext,
    ids::{ExecutionId, NodeId, StepId},
    observe::JsonText,
    run::{Awaited, Phase},
    time::Timestamp,
};

/// The status of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun, or between two attempts.
    Pending,
    /// In progress, or waiting for people to answer a request.
    Running,
    /// Ended with success.
    Success,
    /// Ended with an error.
    #[serde(rename = "failure")]
    Failed,
    /// The step was left out; its output tells why.
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

    /// True if the step has ended: it runs again only if a person repairs it.
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

/// The state of a step, in more detail than its status. A combination that makes no sense, such as a skipped
/// step with a handler at work, cannot be built.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun, or between two attempts.
    #[default]
    Pending,
    /// The handler runs, or is about to.
    Running,
    /// The handler continues after its wait, or is about to.
    Resuming,
    /// The handler is asked whether its effect happened, or is about to be.
    Probing(Doubt),
    /// No handler runs; the step waits for people to answer its request, for a moment, or for an event.
    Waiting,
    /// Ended with success.
    Succeeded,
    /// Ended with an error.
    Failed(Outcome),
    /// The step was left out; its output tells why.
    Skipped,
}

/// The reason why it is unknown whether a step's effect happened.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// The worker that ran the handler has died or shut down.
    LeftOpen,
    /// The attempt failed, and its error does not tell whether the effect happened.
    AttemptFailed,
    /// The handler's answer cannot be used; the step's error tells why.
    AnswerRefused,
    /// The handler was told to stop because of a cancel, and its error does not tell whether the effect
    /// happened.
    Canceled,
}

impl StepState {
    /// The status that clients see.
    #[must_use]
    pub const fn status(self) -> StepStatus {
        match self {
            Self::Pending => StepStatus::Pending,
            Self::Running | Self::Resuming | Self::Probing(_) | Self::Waiting => {
                StepStatus::Running
            }
            Self::Succeeded => StepStatus::Success,
            Self::Failed(_) => StepStatus::Failed,
            Self::Skipped => StepStatus::Skipped,
        }
    }

    /// True if a handler is at work, or is about to be.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Resuming | Self::Probing(_))
    }

    /// True if the step has ended: it runs again only if a person repairs it.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        self.status().is_ended()
    }

    /// Splits the state into the three parts that a store keeps: status, activity and outcome.
    #[must_use]
    pub const fn stored(self) -> (StepStatus, Activity, Outcome) {
        let activity = match self {
            Self::Running => Activity::Running,
            Self::Resuming => Activity::Resuming,
            Self::Probing(Doubt::LeftOpen) => Activity::ProbingTakeover,
            Self::Probing(Doubt::AttemptFailed) => Activity::ProbingFailure,
            Self::Probing(Doubt::AnswerRefused) => Activity::ProbingAnswer,
            Self::Probing(Doubt::Canceled) => Activity::ProbingCancel,
            Self::Waiting => Activity::Waiting,
            Self::Pending | Self::Succeeded | Self::Failed(_) | Self::Skipped => Activity::Idle,
        };
        let outcome = match self {
            Self::Failed(outcome) => outcome,
            _ => Outcome::Known,
        };
        (self.status(), activity, outcome)
    }

    /// Rebuilds a state from its [`stored`](Self::stored) parts; `None` if the parts do not fit together.
    #[must_use]
    pub const fn from_stored(
        status: StepStatus,
        activity: Activity,
        outcome: Outcome,
    ) -> Option<Self> {
        Some(match (status, activity, outcome) {
            (StepStatus::Pending, Activity::Idle, Outcome::Known) => Self::Pending,
            (StepStatus::Success, Activity::Idle, Outcome::Known) => Self::Succeeded,
            (StepStatus::Skipped, Activity::Idle, Outcome::Known) => Self::Skipped,
            (StepStatus::Failed, Activity::Idle, outcome) => Self::Failed(outcome),
            (StepStatus::Running, Activity::Running, Outcome::Known) => Self::Running,
            (StepStatus::Running, Activity::Resuming, Outcome::Known) => Self::Resuming,
            (StepStatus::Running, Activity::Waiting, Outcome::Known) => Self::Waiting,
            (StepStatus::Running, Activity::ProbingTakeover, Outcome::Known) => {
                Self::Probing(Doubt::LeftOpen)
            }
            (StepStatus::Running, Activity::ProbingFailure, Outcome::Known) => {
                Self::Probing(Doubt::AttemptFailed)
            }
            (StepStatus::Running, Activity::ProbingAnswer, Outcome::Known) => {
                Self::Probing(Doubt::AnswerRefused)
            }
            (StepStatus::Running, Activity::ProbingCancel, Outcome::Known) => {
                Self::Probing(Doubt::Canceled)
            }
            _ => return None,
        })
    }

    /// The state to show for a step of which only the status can be read.
    #[must_use]
    pub const fn from_status(status: StepStatus) -> Self {
        match status {
            StepStatus::Pending => Self::Pending,
            StepStatus::Running => Self::Running,
            StepStatus::Success => Self::Succeeded,
            StepStatus::Failed => Self::Failed(Outcome::Known),
            StepStatus::Skipped => Self::Skipped,
        }
    }
}

/// The part of a step's state that a store keeps beside its status; see [`StepState::stored`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// No handler runs, and nothing is awaited.
    Idle,
    /// [`StepState::Running`].
    Running,
    /// [`StepState::Probing`] with [`Doubt::LeftOpen`].
    ProbingTakeover,
    /// [`StepState::Probing`] with [`Doubt::AttemptFailed`].
    ProbingFailure,
    /// [`StepState::Probing`] with [`Doubt::AnswerRefused`].
    ProbingAnswer,
    /// [`StepState::Probing`] with [`Doubt::Canceled`].
    ProbingCancel,
    /// [`StepState::Waiting`].
    Waiting,
    /// [`StepState::Resuming`].
    Resuming,
}

/// The kind of a step's failure, which decides how the execution goes on. The error's code decides nothing.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is known whether the effect happened; or the execution has ended, and nothing depends on the effect
    /// any more. The step's error tells which of the two holds.
    #[default]
    Known,
    /// The effect may have happened. A person must settle that before the execution goes on.
    Unknown,
    /// People rejected the step's request, or did not answer in time. `on_error: continue` does not skip this
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
    /// The state of the step.
    pub state: StepState,
    /// The number of attempts. An attempt that another worker repeats after a death or shutdown counts once.
    pub attempt: u32,
    /// The number of attempts before a person's repair. The retry policy does not count them.
    pub attempts_before: u32,
    /// The number of workers that died after committing that they started this step.
    pub takeovers: u32,
    /// When the step's first attempt began.
    pub started_at: Option<Timestamp>,
    /// When the step ended.
    pub completed_at: Option<Timestamp>,
    /// The time spent waiting for people, in milliseconds.
    pub waiting_ms: u64,
    /// The moment or the event that the step waits for, or has waited for last.
    pub awaits: Option<Awaited>,
    /// Why the step, or its latest attempt, failed.
    pub error: Option<ErrorContext>,
    /// The resolved parameters, redacted and bounded.
    pub data_in: Option<JsonText>,
    /// The output, redacted and bounded.
    pub data_out: Option<JsonText>,
    /// The output for later steps. Never shown to people.
    pub output: Option<Arc<Value>>,
    /// The earlier execution whose output this step reuses, if the execution is a retry.
    pub reused_from: Option<ExecutionId>,
}

impl Step {
    /// The status that clients see.
    #[must_use]
    pub const fn status(&self) -> StepStatus {
        self.state.status()
    }

    /// True if the step failed, but its effect may have happened.
    #[must_use]
    pub fn is_outcome_open(&self) -> bool {
        matches!(self.state, StepState::Failed(Outcome::Unknown))
    }

    /// The time from the first attempt's start to the step's end, in milliseconds, without waiting for
    /// people.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        let whole = self.completed_at?.millis_since(self.started_at?);
        Some(whole.saturating_sub(self.waiting_ms))
    }
}
