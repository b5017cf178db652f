//! The commands that a run state allows.

use std::fmt;

use crate::run::{Execution, Status, WaitKind};

/// A command that a caller can give for an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command {
    /// Let the execution go on.
    Resume,
    /// Pause the execution before its next step.
    Pause,
    /// Cancel the execution.
    Cancel,
    /// Create a new execution that retries this one.
    Retry,
    /// Request signatures on the execution's document.
    RequestSignature,
}

impl Command {
    /// All commands.
    pub const ALL: [Self; 5] = [
        Self::Resume,
        Self::Pause,
        Self::Cancel,
        Self::Retry,
        Self::RequestSignature,
    ];

    /// The command's name in URLs and in the API's `allowed` lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Pause => "pause",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::RequestSignature => "request-signature",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run state responds to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The call changes the execution.
    Apply,
    /// The execution is already in the state to which the call leads.
    NoChange,
    /// The call is not allowed.
    Refuse,
}

/// How an execution in this state responds to a call.
pub(crate) fn judge(execution: &Execution, call: Command) -> Verdict {
    let waits_for = execution.waiting_for.as_ref().map(|waiting| waiting.kind);
    match (call, execution.status) {
        (Command::Pause, Status::Paused) | (Command::Cancel, Status::Canceled) => Verdict::NoChange,
        (Command::Pause, status) if status.check(Status::Paused, None).is_ok() => Verdict::Apply,
        (Command::Cancel, status) if status.check(Status::Canceled, None).is_ok() => Verdict::Apply,
        (Command::Resume, Status::NeedsReview) => Verdict::Apply,
        (Command::Resume, Status::Paused) if waits_for == Some(WaitKind::Pause) => Verdict::Apply,
        (Command::Resume, Status::Ready) if waits_for == Some(WaitKind::Confirmation) => {
            Verdict::Apply
        }
        (Command::Retry, status) if status.is_terminal() => Verdict::Apply,
        (Command::RequestSignature, Status::Completed) => Verdict::Apply,
        (
            Command::Pause
            | Command::Cancel
            | Command::Resume
            | Command::Retry
            | Command::RequestSignature,
            _,
        ) => Verdict::Refuse,
    }
}

/// True if the call would change an execution in this state.
pub(super) fn allows(execution: &Execution, call: Command) -> bool {
    judge(execution, call) == Verdict::Apply
}

/// The commands that would change an execution in this state.
#[must_use]
pub fn allowed_commands(execution: &Execution) -> Vec<Command> {
    let allowed = |call: &Command| allows(execution, *call);
    Command::ALL.into_iter().filter(allowed).collect()
}
