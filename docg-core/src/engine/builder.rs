use std::{sync::Arc, time::Duration};

use super::{
    Engine, Inner, active::ActiveRuns, crew::WakeUp, lasting::LastingWarnings, observed::Observed,
    observer::Observers, relay::Relay, request_signature::SignatureNode, steadiness::Steadiness,
};
use crate::{
    actions::{ActionCatalogue, ActionTemplate},
    observe::Redaction,
    ports::{EventBus, Store},
    preflight::{AllowAll, PreflightLimits, ResourceProbe},
    signature::SignatureProvider,
    time::{Clock, MAX_DURATION, SystemClock},
    workflow::{Handler, Registry},
};

/// Times and bounds of an engine. No duration is longer than ten years.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// How long a worker holds an execution without renewing. After it, another takes over. Leases
    /// end by the processes' wall clocks, which may differ by a tenth of the lease: where it is more,
    /// the one ahead may take over what the other still works on. No record suffers, but the effect of
    /// a step that is under way may happen again.
    pub lease: Duration,
    /// How long a handler may go on after it was told to stop.
    pub cancel_grace: Duration,
    /// How long a handler may take to tell whether an effect happened.
    pub probe_timeout: Duration,
    /// An output larger than this many bytes of JSON fails its step.
    pub max_output_bytes: usize,
    /// An output that would bring those of its execution above this many bytes of JSON, all together,
    /// fails its step. Stores and workers load them as one.
    pub max_total_output_bytes: usize,
    /// How often an idle worker asks the store for due executions, at least; half the lease where that
    /// is shorter.
    pub poll_interval: Duration,
    /// How often the provider of an open signature request is asked for what its webhooks may have
    /// lost; a second at least. Providers limit how often they are asked.
    pub signature_check: Duration,
    /// How long a signature provider may take to answer such a question, to remind signers, or to
    /// withdraw a request.
    pub signature_timeout: Duration,
}

impl EngineOptions {
    /// With no duration longer than ten years: sums of them stay far from the end of time.
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

    /// How far wall clocks may be apart, or set forth, without a lease seeming to end too early.
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

/// Puts an [`Engine`] together.
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
    /// The codes whose actions were set.
    codes: Vec<&'static str>,
    /// What was added although there was one of its name.
    repeated: Vec<String>,
}

/// An engine that cannot be built: two of its parts go by one name, and one would be lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("added twice: {}", .0.join(", "))]
pub struct BuildError(Vec<String>);

impl Engine {
    /// Begins an engine over a store and a bus.
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
    /// Adds a node type. There may be one handler of each.
    pub fn step(mut self, handler: impl Into<Handler>) -> Self {
        let handler = handler.into();
        let node_type = &handler.spec().node_type;
        if self.registry.get(node_type).is_some() {
            self.repeated.push(format!("the node type {node_type:?}"));
        }
        self.registry.add(handler);
        self
    }

    /// Adds a signature provider: its webhooks are taken in under its name, which no other one has.
    pub fn signature_provider(mut self, provider: Arc<dyn SignatureProvider>) -> Self {
        let name = provider.name();
        if self.providers.iter().any(|known| known.name() == name) {
            self.repeated
                .push(format!("the signature provider {name:?}"));
        }
        self.providers.push(provider);
        self
    }

    /// Lets [`Engine::request_signature`] ask for signatures on documents of completed executions: by
    /// nodes of this type, which takes the parameters `provider`, `file` and `signers`, and through
    /// this provider where the caller names none.
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

    /// Sets how preflight reaches templates, folders and connections. Without it nothing is asked.
    pub fn resource_probe(mut self, probe: Arc<dyn ResourceProbe>) -> Self {
        self.probe = probe;
        self
    }

    /// Sets the bounds of preflight.
    pub fn preflight_limits(mut self, limits: PreflightLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what is hidden in snapshots and how large they may be.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Recommends an action for a code, in place of docg's own.
    pub fn action(mut self, code: &'static str, action: ActionTemplate) -> Self {
        if self.codes.contains(&code) {
            self.repeated.push(format!("the action for {code:?}"));
        }
        self.codes.push(code);
        self.actions.register(code, action);
        self
    }

    /// Sets the clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Changes times and bounds.
    pub fn options(mut self, change: impl FnOnce(&mut EngineOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The engine. It does nothing by itself before [`Engine::start_workers`].
    ///
    /// # Panics
    ///
    /// Where [`try_build`](Self::try_build) reports an error.
    #[must_use]
    pub fn build(self) -> Engine {
        match self.try_build() {
            Ok(engine) => engine,
            Err(error) => panic!("the engine cannot be built: {error}"),
        }
    }

    /// The engine, as [`build`](Self::build) gives it, for programs that register what others chose.
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
            store: Observed::new(self.store, &observers),
            bus: Observed::new(self.bus, &observers),
            steadiness: Steadiness::of(&*self.clock),
            clock: self.clock,
            registry: self.registry,
            probe: self.probe,
            limits: self.limits,
            redaction: self.redaction,
            actions: self.actions,
            providers: self.providers.into(),
            signature_node: self.signature_node,
            options: self.options.bounded(),
            active: ActiveRuns::default(),
            relay: Relay::default(),
            warnings: LastingWarnings::default(),
            wake: WakeUp::default(),
            observers,
        };
        Ok(Engine {
            inner: Arc::new(inner),
        })
    }
}
