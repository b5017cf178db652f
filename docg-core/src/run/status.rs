//! The 12 statuses and the one table of allowed transitions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use Status::*;

/// The status of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; no worker has started the execution.
    Queued,
    /// Preflight, trigger, render or save work is in progress.
    Running,
    /// Blocked until a person repairs something.
    NeedsReview,
    /// Documents are rendered and saved; delivery or signature may begin.
    Ready,
    /// A delivery step is in progress.
    Sending,
    /// The delivery step is done.
    Sent,
    /// Signatures are requested and awaited.
    Signing,
    /// All signatures of the request are complete.
    Signed,
    /// Paused by a person, or waiting for an approval.
    Paused,
    /// Ended with success.
    Completed,
    /// Ended with an error.
    Failed,
    /// Canceled by a person.
    Canceled,
}

/// Every allowed transition. A paused execution returns to its status before the pause. The table lists all
/// statuses that can precede a pause; [`Status::check`] allows only the actual one.
pub const TRANSITIONS: [(Status, &[Status]); 12] = [
    (Queued, &[Running, Paused, Canceled, Failed]),
    (
        Running,
        &[NeedsReview, Ready, Paused, Completed, Failed, Canceled],
    ),
    (NeedsReview, &[Running, Canceled, Failed]),
    (
        Ready,
        &[
            Running,
            Sending,
            Signing,
            Completed,
            NeedsReview,
            Paused,
            Canceled,
            Failed,
        ],
    ),
    (Sending, &[Sent, NeedsReview, Paused, Canceled, Failed]),
    (
        Sent,
        &[
            Running,
            Ready,
            Sending,
            Signing,
            Completed,
            NeedsReview,
            Paused,
            Canceled,
            Failed,
        ],
    ),
    (Signing, &[Signed, NeedsReview, Paused, Canceled, Failed]),
    (
        Signed,
        &[
            Running,
            Ready,
            Sending,
            Signing,
            Completed,
            NeedsReview,
            Paused,
            Canceled,
            Failed,
        ],
    ),
    (
        Paused,
        &[
            Queued,
            Running,
            Ready,
            Sending,
            Sent,
            Signing,
            Signed,
            NeedsReview,
            Canceled,
            Failed,
        ],
    ),
    (Completed, &[]),
    (Failed, &[]),
    (Canceled, &[]),
];

/// The error for a transition that the table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an execution that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// The current status.
    pub from: Status,
    /// The requested status.
    pub to: Status,
}

impl Status {
    /// All twelve statuses, in the table's order.
    pub const ALL: [Self; 12] = [
        Queued,
        Running,
        NeedsReview,
        Ready,
        Sending,
        Sent,
        Signing,
        Signed,
        Paused,
        Completed,
        Failed,
        Canceled,
    ];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Queued => "queued",
            Running => "running",
            NeedsReview => "needs_review",
            Ready => "ready",
            Sending => "sending",
            Sent => "sent",
            Signing => "signing",
            Signed => "signed",
            Paused => "paused",
            Completed => "completed",
            Failed => "failed",
            Canceled => "canceled",
        }
    }

    /// True if no status follows this one.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Completed | Failed | Canceled)
    }

    /// The statuses that may follow this one.
    #[must_use]
    pub const fn successors(self) -> &'static [Status] {
        TRANSITIONS[self as usize].1
    }

    /// Checks a transition against the table. `paused_from` is the status before the pause. A paused
    /// execution may only return to that status, or go to `needs_review`, `canceled` or `failed`.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] names both statuses.
    pub fn check(self, to: Status, paused_from: Option<Status>) -> Result<(), InvalidTransition> {
        let listed = self.successors().contains(&to);
        let returns = self != Paused
            || matches!(to, NeedsReview | Canceled | Failed)
            || paused_from == Some(to);
        if listed && returns {
            Ok(())
        } else {
            Err(InvalidTransition { from: self, to })
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The error for a name that is not one of the twelve statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown status {0:?}")]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == name)
            .ok_or_else(|| UnknownStatus(name.to_owned()))
    }
}

/// [`TRANSITIONS`] as a Mermaid state diagram, equal to the diagram in ARCHITECTURE.md.
#[must_use]
pub fn state_diagram() -> String {
    use fmt::Write;
    let mut out = String::from("stateDiagram-v2\n    [*] --> queued\n");
    for (from, successors) in TRANSITIONS {
        for to in successors {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "    {from} --> {to}");
        }
        if from.is_terminal() {
            let _ = writeln!(out, "    {from} --> [*]");
        }
    }
    out
}
