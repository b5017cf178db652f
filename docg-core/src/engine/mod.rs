//! The engine: moves executions forward, one decision and one commit at a time.
//!
//! `decide` is pure: run state and input give a new run state, its records and the next thing to do. `drive`
//! executes that for one held execution, and is the only module that commits to an existing execution.
//! `worker` claims executions and renews their leases. `crew` is the worker pool as the rest of the process
//! sees it. `control` and `start` are the calls of applications. `read`, `feed`, `list_feed` and `relay`
//! deliver what was recorded. `observer` reports the engine's work, for metrics.

mod active;
mod approvals;
mod builder;
mod control;
mod crew;
pub(crate) mod decide;
mod drive;
mod error;
mod feed;
mod follow_up;
mod idempotency;
mod kept;
mod lasting;
mod list_feed;
mod observed;
mod observer;
mod read;
mod relay;
mod request_signature;
mod resume;
mod signatures;
mod start;
mod steadiness;
mod step_run;
mod unserved;
mod worker;
mod workflows;

use std::sync::{Arc, atomic::AtomicBool};

pub use crate::error::FieldFault;
pub use approvals::{OpenApproval, RefusedVote, VoteAnswer, VoteRefusal};
pub use builder::{BuildError, EngineBuilder, EngineOptions};
pub use control::{ControlAnswer, ControlRequest};
pub use decide::{Call, allowed_calls};
pub use error::EngineError;
pub use feed::EventFeed;
pub use idempotency::IdempotencyKey;
pub use list_feed::{ListFeed, ListItem};
pub use observer::{Fact, OTHER, Observer, StepEnd, WebhookEnd};
pub use read::PreflightAnswer;
pub use request_signature::{REQUEST_SIGNATURE, RequestSignature};
pub use resume::{Repair, Resume};
pub use signatures::WebhookAnswer;
pub use start::{RetryRequest, StartRequest, Started, StepRef};
pub use worker::{WorkerOptions, Workers, WorkersRunning};
pub use workflows::PutWorkflow;

use crate::{
    actions::ActionCatalogue,
    ids::SystemIds,
    observe::Redaction,
    ports::{EventBus, Store},
    preflight::{PreflightLimits, ResourceProbe},
    signature::SignatureProvider,
    time::{Clock, Timestamp},
    workflow::{DryRegistry, Registry},
};

/// Runs workflows over a store and a bus. Cheap to clone; all clones are one engine.
///
/// Build it with [`Engine::builder`], start [workers](Engine::start_workers), then [start](Engine::start)
/// executions.
///
/// If the store fails, every method that uses it returns [`EngineError::Store`]. The methods name this error
/// only if they have no other.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    pub(crate) dry: DryRegistry,
    pub(crate) node_types: Arc<[Arc<str>]>,
    pub(crate) probe: Arc<dyn ResourceProbe>,
    pub(crate) limits: PreflightLimits,
    pub(crate) redaction: Redaction,
    pub(crate) actions: ActionCatalogue,
    pub(crate) providers: Arc<[Arc<dyn SignatureProvider>]>,
    pub(crate) signature_node: Option<request_signature::SignatureNode>,
    pub(crate) options: EngineOptions,
    pub(crate) active: active::ActiveRuns,
    pub(crate) relay: relay::Relay,
    /// True while workers of this engine run.
    pub(crate) has_workers: AtomicBool,
    pub(crate) wake: crew::WakeUp,
    pub(crate) steadiness: steadiness::Steadiness,
    pub(crate) warnings: lasting::LastingWarnings,
    pub(crate) observers: Arc<observer::Observers>,
}

impl Engine {
    /// Adds an observer of everything that this engine does from now on. Adding the same observer again has
    /// no effect.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner.observers.add(observer);
    }

    /// The number of executions that this process holds at present.
    #[must_use]
    pub fn active_executions(&self) -> usize {
        self.inner.active.count()
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A source of ids for one decision.
    pub(crate) fn ids(&self) -> SystemIds {
        SystemIds
    }

    pub(crate) fn env(&self) -> decide::Env<'_> {
        decide::Env {
            registry: &self.registry,
            dry: &self.dry,
            redaction: &self.redaction,
            signature_check_ms: self.options.signature_check_ms(),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("node_types", &self.inner.node_types)
            .finish_non_exhaustive()
    }
}
