//! What an engine tells about its own work, for metrics.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use super::Inner;
use crate::{
    event::{Event, EventData},
    ports::StoreErrorKind,
    run::Status,
};

/// Takes what an engine tells about its own work. See [`Engine::observe`](super::Engine::observe).
pub trait Observer: Send + Sync + 'static {
    /// Takes a fact. It is called in the midst of the work: it must neither block nor panic.
    fn observe(&self, fact: &Fact<'_>);
}

/// Something that has happened in this process. No name in it is anybody's choice but the
/// application's, so all together are few enough for labels of metrics.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fact<'a> {
    /// An execution was created.
    ExecutionCreated,
    /// A change of status was committed.
    StatusChanged {
        /// The new status.
        to: Status,
    },
    /// What became of a step's attempt was committed.
    StepEnded {
        /// As registered; [`OTHER`] where it is not.
        node_type: &'a str,
        /// What became of it.
        outcome: StepEnd,
    },
    /// A handler was at work, and is not any more.
    HandlerCalled {
        /// As registered; [`OTHER`] where it is not.
        node_type: &'a str,
        /// For how long. Time in which a step waits for people is not in it.
        duration: Duration,
    },
    /// This process has taken an execution.
    Claimed {
        /// Its holder before had not let go: its lease ran out.
        taken_over: bool,
        /// How long it had been due; `None` where it was taken for its inbox.
        waited: Option<Duration>,
    },
    /// This process has lost an execution to another, or must assume so.
    LeaseLost,
    /// The store was called.
    StoreCalled {
        /// The method's name.
        operation: &'static str,
        /// How long it took.
        duration: Duration,
        /// How it failed.
        error: Option<StoreErrorKind>,
    },
    /// The bus did not answer.
    BusUnavailable {
        /// The method's name.
        operation: &'static str,
    },
    /// A signature provider's webhook came in.
    WebhookReceived {
        /// As registered; [`OTHER`] where it is not.
        provider: &'a str,
        /// What became of it.
        outcome: WebhookEnd,
    },
}

/// Stands for every name that is not registered.
pub const OTHER: &str = "other";

/// What became of a step's attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepEnd {
    /// It has an output.
    Success,
    /// It failed, and is tried again by itself.
    Retry,
    /// It failed.
    Failure,
    /// It was left out.
    Skipped,
}

impl StepEnd {
    /// Its name, as in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
        }
    }
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookEnd {
    /// It was taken in.
    Accepted,
    /// It had come before.
    Duplicate,
    /// Its proof does not hold.
    Unauthenticated,
    /// It cannot be read.
    Malformed,
    /// There is no such provider or envelope here.
    NotFound,
    /// It could not be taken in now.
    Failed,
}

impl WebhookEnd {
    /// Its name, as in a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
        }
    }
}

/// All that want to be told.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Vec<Arc<dyn Observer>>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}

impl Observers {
    pub(super) fn add(&self, observer: Arc<dyn Observer>) {
        let mut observers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Told twice, it would count twice.
        let is_known = |known: &Arc<dyn Observer>| {
            std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(&observer))
        };
        if !observers.iter().any(is_known) {
            observers.push(observer);
        }
    }

    pub(crate) fn tell(&self, fact: &Fact<'_>) {
        let observers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for observer in observers.iter() {
            observer.observe(fact);
        }
    }
}

impl Inner {
    pub(super) fn tell(&self, fact: &Fact<'_>) {
        self.observers.tell(fact);
    }

    /// Whether a node type may be told.
    pub(super) fn is_registered(&self, node_type: &str) -> bool {
        self.node_types.iter().any(|known| **known == *node_type)
    }

    /// Tells what was committed.
    pub(super) fn tell_events(&self, events: &[Arc<Event>]) {
        for event in events {
            let step = |node_type, outcome| Fact::StepEnded {
                node_type: if self.is_registered(node_type) {
                    node_type
                } else {
                    OTHER
                },
                outcome,
            };
            let fact = match &event.data {
                EventData::ExecutionCreated { .. } => Fact::ExecutionCreated,
                EventData::StatusChanged { to, .. } => Fact::StatusChanged { to: *to },
                EventData::StepCompleted { node_type, .. } => step(node_type, StepEnd::Success),
                EventData::StepFailed {
                    node_type,
                    will_retry,
                    ..
                } => {
                    let outcome = if *will_retry {
                        StepEnd::Retry
                    } else {
                        StepEnd::Failure
                    };
                    step(node_type, outcome)
                }
                EventData::StepSkipped { node_type, .. } => step(node_type, StepEnd::Skipped),
                _ => continue,
            };
            self.tell(&fact);
        }
    }
}
