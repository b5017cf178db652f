//! A simulated process: an engine with workers. Its store and bus fail as planned, and it may die.

use std::{sync::Arc, time::Duration};

use docg_core::{
    approval,
    conformance::{Fault, FaultyBus, FaultyStore},
    engine::{Engine, WorkerOptions, Workers},
    prelude::*,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    LEASE,
    clock::WallClock,
    faults::Faults,
    outside::{Outside, SIGNER},
};

/// The share of leases of an organization. The simulation has one organization, so no more executions are
/// leased at once.
pub(crate) const PER_ORGANIZATION: usize = 6;

/// The parts that all processes share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<WallClock>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) bus: Arc<MemoryBus>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) store_faults: Arc<Faults>,
    pub(crate) bus_faults: Arc<Faults>,
}

/// The life of a process. After its death, nothing that it does takes effect.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(CancellationToken);

impl Life {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the death of the process.
    pub(crate) async fn over(&self) {
        self.0.cancelled().await;
    }

    /// Returns at once while the process lives. After its death it never returns, so that its handlers do no
    /// more.
    pub(crate) async fn goes_on(&self) {
        if self.is_over() {
            std::future::pending().await
        }
    }
}

pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) life: Life,
    workers: Workers,
    cut_off: watch::Sender<Option<(Instant, Fault)>>,
}

impl Process {
    pub(crate) fn begin(shared: &Shared) -> Self {
        let life = Life::default();
        let cut_off = watch::Sender::new(None::<(Instant, Fault)>);
        let plan = |faults: &Arc<Faults>, cut_off: watch::Receiver<Option<(Instant, Fault)>>| {
            let (life, faults) = (life.clone(), Arc::clone(faults));
            move |_| {
                if life.is_over() {
                    return Some(Fault::Hang(Duration::MAX));
                }
                let cut_off = cut_off
                    .borrow()
                    .filter(|(until, _)| *until > Instant::now());
                cut_off.map_or_else(|| faults.next(), |(_, fault)| Some(fault))
            }
        };
        let store = plan(&shared.store_faults, cut_off.subscribe());
        let store = FaultyStore::new(shared.store.clone(), store);
        let bus = plan(&shared.bus_faults, watch::Sender::new(None).subscribe());
        let bus = FaultyBus::new(shared.bus.clone(), bus);
        let acting = |spec: NodeSpec| {
            let (outside, life) = (Arc::clone(&shared.outside), life.clone());
            let spec = spec
                .param(ParamSpec::optional("acts", ParamKind::Json))
                .param(ParamSpec::optional("late", ParamKind::Json));
            effect(spec, move |context: EffectContext, params: Value| {
                let (outside, life) = (Arc::clone(&outside), life.clone());
                async move {
                    outside.act(&life, &context, &params).await?;
                    StepOutcome::done(json!({}))
                }
            })
        };
        let probed = {
            let (outside, life) = (Arc::clone(&shared.outside), life.clone());
            acting(NodeSpec::new("probed", Phase::Save)).probe(move |context, _| {
                let (outside, life) = (Arc::clone(&outside), life.clone());
                async move { outside.probe(&life, &context).await }
            })
        };
        let signing = {
            let (outside, life) = (Arc::clone(&shared.outside), life.clone());
            let spec = NodeSpec::new("sign", Phase::Signature).safe_to_repeat();
            let spec = spec
                .param(ParamSpec::optional("acts", ParamKind::Json))
                .param(ParamSpec::optional("late", ParamKind::Json));
            effect(spec, move |context: EffectContext, params: Value| {
                let (outside, life) = (Arc::clone(&outside), life.clone());
                async move {
                    outside.act(&life, &context, &params).await?;
                    let (envelope, signers) = (context.idempotency_key(), [NewSigner::new(SIGNER)]);
                    let request = NewSignatureRequest::new("outside", envelope, signers);
                    Ok(StepOutcome::Wait(Wait::Signatures(request)))
                }
            })
        };
        let notifier = Arc::clone(&shared.outside);
        let echo = NodeSpec::new("compute", Phase::Render);
        let engine = Engine::builder(Arc::new(store), Arc::new(bus))
            .clock(Arc::clone(&shared.clock) as _)
            .step(compute(echo, |_, params: Value| async move { Ok(params) }))
            .step(acting(
                NodeSpec::new("repeatable", Phase::Save).safe_to_repeat(),
            ))
            .step(acting(NodeSpec::new("unprobed", Phase::Delivery)))
            .step(probed)
            .step(signing)
            .step(approval::node([7; 32], notifier))
            .signature_provider(Arc::clone(&shared.outside) as _)
            .options(|options| {
                options.lease = LEASE;
                options.cancel_grace = Duration::from_secs(1);
                options.probe_timeout = Duration::from_secs(2);
                options.signature_check = Duration::from_secs(20);
            })
            .build();
        let options = WorkerOptions::concurrency(8).per_organization(PER_ORGANIZATION);
        let workers = engine.start_workers(options).expect("no other workers run");
        Self {
            engine,
            life,
            workers,
            cut_off,
        }
    }

    /// Makes this process's calls of the store fail with this fault for a while.
    pub(crate) fn cut_off(&self, time: Duration, kind: Fault) {
        self.cut_off
            .send_replace(Some((Instant::now() + time, kind)));
    }

    /// Dies: from now on, nothing that the process does takes effect.
    pub(crate) fn die(self) {
        self.life.0.cancel();
    }

    /// Shuts the workers down in good order, and then ends the process.
    pub(crate) async fn shut_down(self) {
        self.workers.shutdown().await;
        self.life.0.cancel();
    }
}
