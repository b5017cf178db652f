use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use super::{
    Engine, Inner,
    api::request_signature::SignatureNode,
    driver::active::ActiveExecutions,
    read::relay::Relay,
    report::{Observers, Reports, Warnings},
    worker::{clock_guard::ClockGuard, pool::WakeUp},
};
use crate::{
    actions::{ActionCatalogue, ActionTemplate},
    observe::Redaction,
    ports::{EventBus, Intercepted, Store},
    preflight::{AllowAll, PreflightLimits, ResourceProbe},
    run::Step,
    signature::SignatureProvider,
    time::{Clock, MAX_DURATION, SystemClock},
    workflow::{Handler, Registry, answer::OutputRoom},
};

/// Durations and limits of an engine. No duration is longer than ten years.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// How long a lease lasts unless it is renewed. After that, another worker takes over. Leases end by the
    /// wall clocks of the processes, which may differ by a tenth of the lease. If they differ more, the
    /// process whose clock is ahead may take over an execution on which another process still works. Records
    /// stay correct, but the effect of the current step may happen twice.
    pub lease: Duration,
    /// How long a handler may continue after it was told to stop.
    pub cancel_grace: Duration,
    /// How long a handler's `probe` may take.
    pub probe_timeout: Duration,
    /// The most bytes of JSON that one output may have. A larger output fails its step.
    pub max_output_bytes: usize,
    /// The most bytes of JSON that all outputs of an execution may have together. An output that exceeds it
    /// fails its step. The limit exists because stores and workers load all outputs at once.
    pub max_total_output_bytes: usize,
    /// The longest time between two claims of an idle worker. Half the lease is used instead if it is
    /// shorter.
    pub poll_interval: Duration,
    /// How often the provider is asked about an open signature request, because webhooks may be lost; at
    /// least a second. Providers limit how often they may be asked.
    pub signature_check: Duration,
    /// How long a signature provider may take to answer a question about a request, to remind signers, or to
    /// withdraw a request.
    pub signature_timeout: Duration,
}

impl EngineOptions {
    /// The room for the output of the step at `index`.
    pub(super) fn room(&self, steps: &[Step], index: usize) -> OutputRoom {
        OutputRoom::new(
            self.max_output_bytes,
            self.max_total_output_bytes,
            steps,
            index,
        )
    }

    /// Limits every duration to ten years, so that sums of them stay in range.
    fn bounded(mut self) -> Self {
        for (name, duration) in [
            ("lease", &mut self.lease),
            ("cancel_grace", &mut self.cancel_grace),
            ("probe_timeout", &mut self.probe_timeout),
            ("poll_interval", &mut self.poll_interval),
            ("signature_check", &mut self.signature_check),
            ("signature_timeout", &mut self.signature_timeout),
        ] {
            if *duration > MAX_DURATION {
                tracing::warn!(
                    "{name} is {duration:?}; ten years, the longest duration, are taken"
                );
                *duration = MAX_DURATION;
            }
        }
        self
    }

    /// How far wall clocks may differ, or jump forward, before a lease seems to expire too early.
    pub(super) fn clock_tolerance(&self) -> Duration {
        self.lease / 10
    }

    /// How long a holder relies on its lease.
    pub(super) fn relied_on(&self) -> Duration {
        self.lease - self.clock_tolerance()
    }

    pub(super) fn signature_check_ms(&self) -> u64 {
        u64::try_from(self.signature_check.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(1_000, 366 * 24 * 3_600_000)
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(10),
            max_output_bytes: 1024 * 1024,
            max_total_output_bytes: 16 * 1024 * 1024,
            poll_interval: Duration::from_secs(15),
            signature_check: Duration::from_secs(3_600),
            signature_timeout: Duration::from_secs(20),
        }
    }
}

/// Builds an [`Engine`].
#[must_use]
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    bus: Arc<dyn EventBus>,
    clock: Arc<dyn Clock>,
    registry: Registry,
    probe: Arc<dyn ResourceProbe>,
    limits: PreflightLimits,
    redaction: Redaction,
    actions: ActionCatalogue,
    providers: Vec<Arc<dyn SignatureProvider>>,
    signature_node: Option<SignatureNode>,
    options: EngineOptions,
    /// The codes for which the application set an action.
    codes: Vec<&'static str>,
    /// The parts that were added under a name that was already taken.
    repeated: Vec<String>,
}

/// The engine cannot be built, because two of its parts have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("added twice: {}", .0.join(", "))]
pub struct BuildError(Vec<String>);

impl Engine {
    /// Starts to build an engine over a store and a bus.
    pub fn builder(store: Arc<dyn Store>, bus: Arc<dyn EventBus>) -> EngineBuilder {
        EngineBuilder {
            store,
            bus,
            clock: Arc::new(SystemClock),
            registry: Registry::default(),
            probe: Arc::new(AllowAll),
            limits: PreflightLimits::default(),
            redaction: Redaction::default(),
            actions: ActionCatalogue::default(),
            providers: Vec::new(),
            signature_node: None,
            options: EngineOptions::default(),
            codes: Vec::new(),
            repeated: Vec::new(),
        }
    }
}

impl EngineBuilder {
    /// Adds a handler for a node type. A second handler for the same type is a [`BuildError`].
    pub fn step(mut self, handler: impl Into<Handler>) -> Self {
        let handler = handler.into();
        let node_type = &handler.spec().node_type;
        if self.registry.get(node_type).is_some() {
            self.repeated.push(format!("the node type {node_type:?}"));
        }
        self.registry.add(handler);
        self
    }

    /// Adds a signature provider. Its name must be unique, and is the name under which its webhooks arrive.
    pub fn signature_provider(mut self, provider: Arc<dyn SignatureProvider>) -> Self {
        let name = provider.name();
        if self.providers.iter().any(|known| known.name() == name) {
            self.repeated
                .push(format!("the signature provider {name:?}"));
        }
        self.providers.push(provider);
        self
    }

    /// Enables [`Engine::request_signature`] on completed executions. `node_type` must take the parameters
    /// `provider`, `file` and `signers`. `default_provider` is used if the caller names none.
    pub fn signature_requests(
        mut self,
        node_type: impl Into<Arc<str>>,
        default_provider: impl Into<Arc<str>>,
    ) -> Self {
        self.signature_node = Some(SignatureNode {
            node_type: node_type.into(),
            provider: default_provider.into(),
        });
        self
    }

    /// Sets how preflight checks templates, folders and connections. By default preflight checks none of
    /// them.
    pub fn resource_probe(mut self, probe: Arc<dyn ResourceProbe>) -> Self {
        self.probe = probe;
        self
    }

    /// Sets the limits of preflight.
    pub fn preflight_limits(mut self, limits: PreflightLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the rules that hide secrets in snapshots, and how large snapshots may be.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Sets the recommended action for a code, in place of docg's own.
    pub fn action(mut self, code: &'static str, action: ActionTemplate) -> Self {
        if self.codes.contains(&code) {
            self.repeated.push(format!("the action for {code:?}"));
        }
        self.codes.push(code);
        self.actions.register(code, action);
        self
    }

    /// Sets the clock; the system's is the default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Changes durations and limits.
    pub fn options(mut self, change: impl FnOnce(&mut EngineOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Builds the engine. It does nothing by itself before [`Engine::start_workers`].
    ///
    /// # Panics
    ///
    /// If [`try_build`](Self::try_build) reports an error.
    #[must_use]
    pub fn build(self) -> Engine {
        match self.try_build() {
            Ok(engine) => engine,
            Err(error) => panic!("the engine cannot be built: {error}"),
        }
    }

    /// Builds the engine and reports conflicts as an error, for programs whose parts are configured by
    /// others.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names each node type, signature provider and action that was added twice.
    pub fn try_build(self) -> Result<Engine, BuildError> {
        if !self.repeated.is_empty() {
            return Err(BuildError(self.repeated));
        }
        let observers = Arc::<Observers>::default();
        let inner = Inner {
            dry: self.registry.dry(),
            node_types: self.registry.node_types(),
            store: Arc::new(Intercepted::wrap(
                self.store,
                Reports(Arc::clone(&observers)),
            )),
            bus: Arc::new(Intercepted::wrap(self.bus, Reports(Arc::clone(&observers)))),
            clock_guard: ClockGuard::of(&*self.clock),
            clock: self.clock,
            registry: self.registry,
            probe: self.probe,
            limits: self.limits,
            redaction: self.redaction,
            actions: self.actions,
            providers: self.providers.into(),
            signature_node: self.signature_node,
            options: self.options.bounded(),
            active: ActiveExecutions::default(),
            relay: Relay::default(),
            warnings: Warnings::default(),
            has_workers: AtomicBool::new(false),
            wake: WakeUp::default(),
            observers,
        };
        Ok(Engine {
            inner: Arc::new(inner),
        })
    }
}
