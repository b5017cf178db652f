//! Which calls a run's state allows.

use std::fmt;

use crate::run::{Execution, Status, WaitKind};

/// What a caller can do to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// Let it go on.
    Resume,
    /// Stop it before the next step.
    Pause,
    /// End it.
    Cancel,
    /// Make a new one that tries again.
    Retry,
    /// Ask for signatures on its document.
    RequestSignature,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Resume,
        Self::Pause,
        Self::Cancel,
        Self::Retry,
        Self::RequestSignature,
    ];

    /// The name in URLs and in `allowed`.
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

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does something.
    Apply,
    /// What it asks for is so already.
    NoChange,
    /// It is not allowed.
    Refuse,
}

/// What a call on an execution in this state would meet.
pub(crate) fn judge(execution: &Execution, call: Call) -> Verdict {
    let waits_for = execution.waiting_for.as_ref().map(|waiting| waiting.kind);
    match (call, execution.status) {
        (Call::Pause, Status::Paused) | (Call::Cancel, Status::Canceled) => Verdict::NoChange,
        (Call::Pause, status) if status.check(Status::Paused, None).is_ok() => Verdict::Apply,
        (Call::Cancel, status) if status.check(Status::Canceled, None).is_ok() => Verdict::Apply,
        (Call::Resume, Status::NeedsReview) => Verdict::Apply,
        (Call::Resume, Status::Paused) if waits_for == Some(WaitKind::Pause) => Verdict::Apply,
        (Call::Resume, Status::Ready) if waits_for == Some(WaitKind::Confirmation) => {
            Verdict::Apply
        }
        (Call::Retry, status) if status.is_terminal() => Verdict::Apply,
        (Call::RequestSignature, Status::Completed) => Verdict::Apply,
        (Call::Pause | Call::Cancel | Call::Resume | Call::Retry | Call::RequestSignature, _) => {
            Verdict::Refuse
        }
    }
}

/// The calls that do something for an execution in this state.
#[must_use]
pub fn allowed_calls(execution: &Execution) -> Vec<Call> {
    [
        Call::Resume,
        Call::Pause,
        Call::Cancel,
        Call::Retry,
        Call::RequestSignature,
    ]
    .into_iter()
    .filter(|call| judge(execution, *call) == Verdict::Apply)
    .collect()
}
