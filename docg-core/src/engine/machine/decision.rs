//! The result of a decision.

use std::sync::Arc;

use serde_json::Value;

use super::{Arrived, Attendance};
use crate::{
    error::ErrorContext,
    event::Event,
    ids::SignalId,
    observe::{AuditEvent, LogEntry},
    ports::RunState,
    workflow::Resolution,
};

/// The driver's next action, after the commit of the decision.
#[derive(Debug)]
pub(crate) enum Next {
    /// Run preflight.
    Preflight,
    /// Call the handler. `has_begun` is true if an earlier call of this attempt has begun the effect.
    Run {
        index: usize,
        params: Arc<Value>,
        has_begun: bool,
    },
    /// Let the handler continue after its wait.
    Resume {
        index: usize,
        params: Arc<Value>,
        resolution: Resolution,
    },
    /// Ask the handler whether its effect happened.
    Probe { index: usize, params: Arc<Value> },
    /// Go on waiting for the handler at work.
    Attend,
    /// Tell the handler at work to stop, because a person ends the execution. Then apply the signals.
    Stop { signals: Vec<Arrived> },
    /// Ask the handler whether its effect happened, because a person ends the execution. Then apply the
    /// signals.
    ProbeToEnd {
        index: usize,
        params: Arc<Value>,
        signals: Vec<Arrived>,
    },
    /// Ask the provider for the state of the open signature request.
    CheckSignatures,
    /// Ask the provider to remind the signers of the open signature request.
    Remind,
    /// Do nothing until `wake_at` or a signal.
    Rest,
    /// Do nothing more, because the execution has ended.
    Done,
}

impl Next {
    /// True if the action carries signals. They stay in the inbox until the action is done.
    pub(crate) fn carries_signals(&self) -> bool {
        matches!(self, Self::Stop { .. } | Self::ProbeToEnd { .. })
    }

    /// Whether a handler is at work on the open step before this action is carried out.
    pub(crate) fn attendance(&self) -> Attendance {
        match self {
            // An earlier call has begun the effect, so the step does not count as not begun.
            Self::Run {
                has_begun: true, ..
            } => Attendance::Nobody,
            Self::Run { .. } | Self::Resume { .. } => Attendance::NotBegun,
            _ => Attendance::Nobody,
        }
    }
}

/// An end of the execution that no person asked for.
#[derive(Debug)]
pub(crate) enum End {
    Completed,
    /// The reason for the audit trail, and the error.
    Failed(&'static str, ErrorContext),
}

/// The records that a decision writes, besides the run state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) logs: Vec<Arc<LogEntry>>,
    pub(crate) audit: Vec<Arc<AuditEvent>>,
    pub(crate) settled: Vec<SignalId>,
    /// The settled signals that no longer applied.
    pub(crate) ignored: Vec<SignalId>,
    pub(crate) inputs_changed: bool,
    pub(crate) signature_changed: bool,
    pub(crate) approval_changed: bool,
    /// The positions of the changed steps.
    pub(crate) touched: Vec<usize>,
}

impl Records {
    /// Adds the records of a later decision.
    pub(crate) fn extend(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        self.events.extend(later.events);
        self.logs.extend(later.logs);
        self.audit.extend(later.audit);
        self.settled.extend(later.settled);
        self.ignored.extend(later.ignored);
        self.touched.extend(later.touched);
        self.inputs_changed |= later.inputs_changed;
        self.signature_changed |= later.signature_changed;
        self.approval_changed |= later.approval_changed;
    }

    /// True if there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.logs.is_empty()
            && self.audit.is_empty()
            && self.settled.is_empty()
            && self.touched.is_empty()
            && !self.inputs_changed
            && !self.signature_changed
            && !self.approval_changed
    }
}

/// The result of a decision.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) state: RunState,
    pub(crate) records: Records,
    pub(crate) next: Next,
    /// True if the holder keeps its lease, false if it releases the lease with the commit.
    pub(crate) keeps_lease: bool,
    /// True if the driver may hold the records back and commit them with those of the next decision: the next
    /// action has no effect outside, and is repeated if the worker dies.
    pub(crate) may_be_held: bool,
    /// If this decision ends the execution and no person asked for it: the state and the records just before that
    /// end. If the commit is refused because a cancel arrived first, the driver goes on from them and applies the
    /// cancel.
    pub(crate) without_end: Option<WithoutEnd>,
}

/// The state and the records of a decision without the end of the execution.
pub(crate) type WithoutEnd = Box<(RunState, Records)>;
