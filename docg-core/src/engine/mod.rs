//! The engine: moves executions forward, one decision and one commit at a time.
//!
//! | module | what it is |
//! |---|---|
//! | `api` | what an application calls: workflows, start and retry, control, votes, webhooks |
//! | `machine` | every decision, without I/O: run state and input give a new run state, its records and the next thing to do |
//! | `driver` | carries out decisions for one held execution, calls its handlers, and is the only module that commits to an existing execution |
//! | `worker` | the worker pool: claims executions, renews leases, and reports what nobody can claim |
//! | `read` | what readers get: stored records and feeds of events |
//! | `report` | what operators see: facts for metrics, and warnings |
//! | `builder`, `error` | how an engine is built, and why it rejects a call |
//!
//! `api` and `worker` use `driver`, and `driver` uses `machine`. `machine` uses none of the others.

mod api;
mod builder;
mod driver;
mod error;
pub(crate) mod machine;
mod read;
mod report;
mod worker;

use std::sync::{Arc, atomic::AtomicBool};

pub use crate::error::FieldFault;
pub use api::{
    ControlAnswer, ControlRequest, IdempotencyKey, NamedEvent, OpenApproval, PutWorkflow,
    REQUEST_SIGNATURE, RefusedVote, Repair, RequestSignature, Resume, RetryRequest, StartRequest,
    Started, StepRef, VoteAnswer, VoteRefusal, WebhookAnswer,
};
pub use builder::{BuildError, EngineBuilder, EngineOptions};
pub use error::EngineError;
pub use machine::{Command, allowed_commands};
pub use read::{EventFeed, OrganizationFeed, OrganizationItem, PreflightAnswer, SIGNATURES_LOST};
pub use report::{Fact, OTHER, Observer, StepEnd, WebhookEnd};
pub use worker::{WorkerOptions, Workers, WorkersRunning};

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

/// Runs workflows over a store and a bus. Cheap to clone: all clones share one engine.
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
    pub(crate) signature_node: Option<api::request_signature::SignatureNode>,
    pub(crate) options: EngineOptions,
    pub(crate) active: driver::active::ActiveExecutions,
    pub(crate) relay: read::relay::Relay,
    /// True while workers of this engine run.
    pub(crate) has_workers: AtomicBool,
    pub(crate) wake: worker::pool::WakeUp,
    pub(crate) clock_guard: worker::clock_guard::ClockGuard,
    pub(crate) warnings: report::Warnings,
    pub(crate) observers: Arc<report::Observers>,
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

    pub(crate) fn env(&self) -> machine::Env<'_> {
        machine::Env {
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
