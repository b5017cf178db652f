//! The facts that an engine reports about its own work, for metrics.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::{
    engine::Inner,
    event::{Event, EventData},
    ports::StoreErrorKind,
    run::Status,
};

/// Receives the facts that an engine reports. See [`Engine::observe`](crate::engine::Engine::observe).
pub trait Observer: Send + Sync + 'static {
    /// Receives a fact. The engine calls this method while it works, so the method must neither block nor
    /// panic.
    fn observe(&self, fact: &Fact<'_>);
}

/// An event in this process. Its names come from the application or the engine, never from tenants, so there
/// are few enough of them for metric labels.
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
    /// The result of a step's attempt was committed.
    StepEnded {
        /// The registered node type, or [`OTHER`].
        node_type: &'a str,
        /// The result of the attempt.
        outcome: StepEnd,
    },
    /// A handler's call ended.
    HandlerCalled {
        /// The registered node type, or [`OTHER`].
        node_type: &'a str,
        /// How long the call lasted, without the time in which the step waits for people.
        duration: Duration,
    },
    /// This process claimed an execution.
    Claimed {
        /// True if the lease of the previous holder had expired without being released.
        taken_over: bool,
        /// How long the execution had been due; `None` after a takeover, or if it was claimed before it was
        /// due or only for its inbox.
        waited: Option<Duration>,
    },
    /// This process lost a lease to another process, or must assume so.
    LeaseLost,
    /// The store was called.
    StoreCalled {
        /// The name of the store's method.
        operation: &'static str,
        /// How long the call took.
        duration: Duration,
        /// The kind of error, if the call failed.
        error: Option<StoreErrorKind>,
    },
    /// The bus did not answer.
    BusUnavailable {
        /// The name of the bus's method.
        operation: &'static str,
    },
    /// A signature provider's webhook came in.
    WebhookReceived {
        /// The registered provider, or [`OTHER`].
        provider: &'a str,
        /// The result of the webhook.
        outcome: WebhookEnd,
    },
}

/// Stands in a [`Fact`] for every node type or provider that is not registered, so that observers see a limited
/// number of names.
pub const OTHER: &str = "other";

/// The result of a step's attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepEnd {
    /// The step succeeded and has an output.
    Success,
    /// The attempt failed, and the step will be retried automatically.
    Retry,
    /// The attempt failed, and no automatic retry follows.
    Failure,
    /// The step was skipped.
    Skipped,
}

impl StepEnd {
    /// The name used in metric labels.
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

/// The result of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookEnd {
    /// The webhook was accepted.
    Accepted,
    /// The webhook had arrived before.
    Duplicate,
    /// The webhook's signature is missing or wrong.
    Unauthenticated,
    /// The webhook cannot be read.
    Malformed,
    /// This engine has no such provider, or the store no such envelope.
    NotFound,
    /// The webhook could not be processed at present.
    Failed,
}

impl WebhookEnd {
    /// The name used in metric labels.
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

/// All observers of an engine.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Vec<Arc<dyn Observer>>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}

impl Observers {
    pub(in crate::engine) fn add(&self, observer: Arc<dyn Observer>) {
        let mut observers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // An observer that is added twice would count everything twice.
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
    pub(in crate::engine) fn tell(&self, fact: &Fact<'_>) {
        self.observers.tell(fact);
    }

    /// True if a node type may appear in facts.
    pub(in crate::engine) fn is_registered(&self, node_type: &str) -> bool {
        self.node_types.iter().any(|known| **known == *node_type)
    }

    /// Reports committed events as facts.
    pub(in crate::engine) fn tell_events(&self, events: &[Arc<Event>]) {
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
