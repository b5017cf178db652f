//! The inputs of a decision, and its circumstances.

use crate::{
    error::StepFailure,
    ids::IdSource,
    observe::{AuditDraft, LogDraft, Redaction},
    ports::Signal,
    preflight::Issue,
    signature::{ProviderError, SignerFact},
    time::Timestamp,
    workflow::{DryRegistry, Probe, Registry, StepOutcome, StopReason},
};

/// The registered node types and settings that decisions use besides the run state. A decision calls no
/// handler.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) dry: &'a DryRegistry,
    pub(crate) redaction: &'a Redaction,
    /// The time between two questions to a provider about its open signature request, in milliseconds.
    pub(crate) signature_check_ms: u64,
}

/// The circumstances of a decision, and the source of its ids.
pub(crate) struct Moment<'a> {
    pub(crate) now: Timestamp,
    /// The time to write into records. Between two decisions it grows by the time that really passed, even if
    /// the clock was set meanwhile.
    pub(crate) recorded: Timestamp,
    pub(crate) ids: &'a mut dyn IdSource,
    pub(crate) role: Role,
    pub(crate) attendance: Attendance,
}

/// The task of the process that holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Moves the execution forward.
    Worker,
    /// Applies the signals in the inbox and opens no step.
    SignalApplier,
}

/// Whether a handler is at work on the open step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attendance {
    /// No handler is at work: an earlier holder left the step open, or the handler has returned.
    Nobody,
    /// The step's handler is at work in this process.
    AtWork,
    /// This process has opened the step, and has not yet called the handler.
    NotBegun,
}

/// The facts that a claim reports about the execution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimFacts {
    /// True if the previous holder's lease expired without being released.
    pub(crate) taken_over: bool,
    /// How many leases in a row have expired without any progress.
    pub(crate) takeovers: u32,
    /// True if a part of the execution cannot be read.
    pub(crate) unreadable: bool,
}

/// A signal that was read from the inbox.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// True if the signal was sent for no version of the execution, or for the version that the execution had
    /// when the signal was read.
    pub(crate) is_expected: bool,
}

/// An input of a decision.
#[derive(Debug)]
pub(crate) enum Input {
    /// The execution was claimed.
    Claimed(ClaimFacts),
    /// Preflight has ended.
    Preflight {
        issues: Vec<Issue>,
        started_at: Timestamp,
    },
    /// The handler reported its progress, from 0.0 to 1.0.
    Progress(f32),
    /// The handler returned, or was cut off; the [`StepFailure`] then says why. `told` is the reason if the
    /// handler was told to stop before that.
    StepFinished {
        index: usize,
        result: Result<StepOutcome, StepFailure>,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// The handler answered a probe of its effect. `told` is the reason if the handler was told to stop
    /// before that.
    Probed {
        index: usize,
        effect: Probe,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// The provider was asked for the state of an open signature request.
    SignaturesChecked(Checked),
    /// The provider was asked to remind the signers of an open signature request.
    Reminded(Result<(), ProviderError>),
    /// A signal from the inbox. Signals are applied after all other inputs.
    Signal(Signal),
    /// The signals that [`Next::Stop`](super::Next::Stop) or [`Next::ProbeToEnd`](super::Next::ProbeToEnd)
    /// carried. They are applied now.
    Arrived(Vec<Arrived>),
}

/// The result of asking a signature provider.
#[derive(Debug)]
pub(crate) enum Checked {
    /// The facts that the provider knows.
    Answered(Vec<SignerFact>),
    /// The provider did not answer, or answered with an error.
    Failed(ProviderError),
    /// The provider that the request names is not registered, so nobody can be asked, now or later. Facts
    /// can come only from the application.
    Nobody,
}

/// The logs and audit rows of a handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) logs: Vec<LogDraft>,
    pub(crate) audit: Vec<AuditDraft>,
}
