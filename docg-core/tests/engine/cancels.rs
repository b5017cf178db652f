//! Cancels that come while a handler works or is probed, or after its worker died. The handler gets its grace
//! time, a signature request is withdrawn, and an unknown outcome is recorded as unknown.
//!
//! Tokio's time is stopped, and moves on only if every task is idle, so that no grace time ends early on a
//! busy machine.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Call, Fault, FaultyStore},
    engine::Workers,
    i18n::Locale,
    ids::SignalId,
    ports::{ExecutionReader, ExecutionStore, Signal, SignalKind, Store},
    prelude::*,
    run::{Step, StepStatus},
    signature::{RequestStatus, SignatureRequest},
    time::{Clock, SystemClock, Timestamp},
    workflow::handler::NewApproval,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::world::{PATIENCE, World, an_hour_later, soon, time_passes};

type Ran = Result<StepOutcome, StepFailure>;

/// A call of the handler, as reported to the test.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun,
    Probed,
}

/// Processes on one store. Each runs the same effect, and reports the handler's calls to the test.
struct Watched {
    store: Arc<MemoryStore>,
    organization: OrganizationId,
    sees: mpsc::UnboundedSender<Seen>,
    seen: mpsc::UnboundedReceiver<Seen>,
    probes: Arc<AtomicUsize>,
}

impl Watched {
    fn new() -> Self {
        let (sees, seen) = mpsc::unbounded_channel();
        Self {
            store: Arc::default(),
            organization: OrganizationId::new(),
            sees,
            seen,
            probes: Arc::default(),
        }
    }

    /// A process whose effect runs and is probed by these closures.
    fn process_on<R, P>(
        &self,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        run: impl Fn(EffectContext) -> R + Send + Sync + 'static,
        probe: impl Fn(EffectContext) -> P + Send + Sync + 'static,
    ) -> World
    where
        R: Future<Output = Ran> + Send + 'static,
        P: Future<Output = Probe> + Send + 'static,
    {
        let (begun, probed) = (self.sees.clone(), self.sees.clone());
        let probes = Arc::clone(&self.probes);
        let handler = effect(
            NodeSpec::new("effect", Phase::Signature),
            move |context, _: Value| {
                begun.send(Seen::Begun).expect("the test listens");
                run(context)
            },
        );
        let handler = handler.probe(move |context, _| {
            probes.fetch_add(1, Ordering::SeqCst);
            // An error means that the test is over and no longer listens.
            let _ = probed.send(Seen::Probed);
            probe(context)
        });
        let handler = handler.resumed(|_, _, _| async { std::future::pending::<Ran>().await });
        let builder = Engine::builder(store, Arc::new(MemoryBus::default()))
            .clock(clock)
            .step(handler)
            .options(|options| {
                options.cancel_grace = Duration::from_millis(100);
                options.probe_timeout = Duration::from_millis(200);
                options.poll_interval = PATIENCE;
            });
        World::of(self.organization, builder)
    }

    fn process<R, P>(
        &self,
        run: impl Fn(EffectContext) -> R + Send + Sync + 'static,
        probe: impl Fn(EffectContext) -> P + Send + Sync + 'static,
    ) -> World
    where
        R: Future<Output = Ran> + Send + 'static,
        P: Future<Output = Probe> + Send + 'static,
    {
        self.process_on(self.store.clone(), Arc::new(SystemClock), run, probe)
    }

    async fn sees(&mut self, seen: Seen) {
        assert_eq!(soon(self.seen.recv()).await, Some(seen));
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    async fn request(&self) -> Option<SignatureRequest> {
        let request = self.store.signature_by_envelope("desk", "envelope").await;
        request.expect("reads")
    }

    /// True if the effect's signature request is stored and has been withdrawn.
    async fn is_withdrawn(&self) -> bool {
        let request = self.request().await;
        request.is_some_and(|request| request.status == RequestStatus::Canceled)
    }
}

async fn start(world: &World) -> ExecutionId {
    let node = json!({"id": "a", "type": "effect", "timeout_ms": 3_600_000});
    world.start(json!([node])).await
}

/// Waits until the execution is canceled, and returns its step.
async fn canceled(world: &World, id: ExecutionId) -> Step {
    world.until_status(id, Status::Canceled).await;
    world.steps(id).await.remove(0)
}

fn signatures() -> Wait {
    let signers = [NewSigner::new("one@example.com")];
    Wait::Signatures(NewSignatureRequest::new("desk", "envelope", signers))
}

fn lost_answer() -> StepFailure {
    StepFailure::outcome_unknown("desk.service_unavailable", "The answer was lost.")
}

fn is_unknown(step: &Step) -> bool {
    let error = step.error.as_ref().expect("an error");
    error.human.render(Locale::En).contains("not known")
}

/// A gate before a store. While the gate is closed, no commit reaches the store.
#[derive(Default)]
struct Gate {
    closed: Arc<AtomicBool>,
    /// Notified at each commit that the closed gate refuses.
    tries: watch::Sender<()>,
}

impl Gate {
    fn store(&self, inner: &Arc<MemoryStore>) -> Arc<FaultyStore> {
        let (closed, tries) = (Arc::clone(&self.closed), self.tries.clone());
        let store = FaultyStore::new(inner.clone(), move |call: Call| {
            let fails = call.operation == "commit" && closed.load(Ordering::SeqCst);
            fails.then(|| {
                tries.send_replace(());
                Fault::Before
            })
        });
        Arc::new(store)
    }

    async fn opens_once_signaled(&self, store: &MemoryStore, id: ExecutionId) {
        while store.signals(id).await.expect("reads").is_empty() {
            tokio::task::yield_now().await;
        }
        self.closed.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_meets_a_commit_of_progress_gives_the_handler_its_grace_time() {
    let mut it = Watched::new();
    let gate = Gate::default();
    let mut tried = gate.tries.subscribe();
    let (store, closes) = (gate.store(&it.store), gate.closed.clone());
    let run = move |context: EffectContext| {
        closes.store(true, Ordering::SeqCst);
        context.progress(0.5);
        async move {
            context.cancellation.cancelled().await;
            StepOutcome::done(json!({}))
        }
    };
    let world = it.process_on(store, Arc::new(SystemClock), run, |_| async {
        Probe::Unknown
    });
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    tried.changed().await.expect("it tries to commit");
    tokio::join!(world.cancel(id), gate.opens_once_signaled(&it.store, id));
    assert_eq!(canceled(&world, id).await.status(), StepStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_know_the_outcome_after_a_cancel_is_probed() {
    let mut it = Watched::new();
    let run = |context: EffectContext| async move {
        context.cancellation.cancelled().await;
        Err(lost_answer())
    };
    let world = it.process(run, |_| async { Probe::Begun(signatures()) });
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    world.cancel(id).await;
    canceled(&world, id).await;
    assert!(it.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_probe_finds_after_a_cancel_is_withdrawn() {
    let mut it = Watched::new();
    let world = it.process(
        |_| async { Err(lost_answer()) },
        |context| async move {
            context.cancellation.cancelled().await;
            Probe::Begun(signatures())
        },
    );
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    it.sees(Seen::Probed).await;
    world.cancel(id).await;
    canceled(&world, id).await;
    assert!(it.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_unknown_if_the_probe_does_not_answer_after_a_cancel() {
    let mut it = Watched::new();
    let world = it.process(|_| async { Err(lost_answer()) }, |_| std::future::pending());
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    it.sees(Seen::Probed).await;
    world.cancel(id).await;
    assert!(is_unknown(&canceled(&world, id).await));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_resumed_after_its_wait_is_not_probed_after_a_cancel() {
    let mut it = Watched::new();
    let run = |_| async { Ok(StepOutcome::Wait(signatures())) };
    let world = it.process(run, |_| async { Probe::Unknown });
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    let request = soon(async {
        loop {
            match it.request().await {
                Some(request) => return request,
                None => time_passes().await,
            }
        }
    })
    .await;
    let signed = vec![SignerFact::signed("one@example.com", Timestamp::now())];
    let actor = Actor::webhook("desk");
    let report = world
        .engine
        .report_signers(it.organization, request.id, signed, actor);
    report.await.expect("taken");
    world.cancel(id).await;
    canceled(&world, id).await;
    assert_eq!(it.probes(), 0);
}

/// Starts an execution in a process that is cut off from the store after the effect has begun.
async fn abandoned(it: &mut Watched) -> (Workers, ExecutionId) {
    let cut_off = Arc::new(AtomicBool::new(false));
    let is_cut_off = Arc::clone(&cut_off);
    let faulty = FaultyStore::new(it.store.clone(), move |_| {
        is_cut_off.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let world = it.process_on(
        Arc::new(faulty),
        Arc::new(SystemClock),
        |_| std::future::pending(),
        |_| async { Probe::Unknown },
    );
    let workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    cut_off.store(true, Ordering::SeqCst);
    (workers, id)
}

#[tokio::test(start_paused = true)]
async fn a_takeover_probes_the_abandoned_effect_before_it_applies_a_cancel() {
    for on_version in [false, true] {
        let mut it = Watched::new();
        let (_first, id) = abandoned(&mut it).await;
        let record = it.store.execution(it.organization, id).await;
        let version = record.expect("reads").expect("is there").execution.version;
        let signal = Signal {
            id: SignalId::new(),
            execution_id: id,
            organization_id: it.organization,
            actor: Actor::user("somebody"),
            received_at: Timestamp::now(),
            if_version: on_version.then_some(version),
            kind: SignalKind::Cancel { reason: None },
        };
        it.store.signal(signal).await.expect("signals");
        let second = it.process_on(
            it.store.clone(),
            an_hour_later(),
            |_| std::future::pending(),
            |_| async { Probe::Begun(signatures()) },
        );
        let _second = second.workers();
        canceled(&second, id).await;
        assert!(it.is_withdrawn().await);
        assert_eq!(it.probes(), 1);
    }
}

/// Cancels an abandoned execution through a process without workers, whose probe gives this outcome.
async fn canceled_without_workers(outcome: Probe) -> (Watched, Step) {
    let mut it = Watched::new();
    let (_first, id) = abandoned(&mut it).await;
    let second = it.process_on(
        it.store.clone(),
        an_hour_later(),
        |_| std::future::pending(),
        move |_| std::future::ready(outcome.clone()),
    );
    second.cancel(id).await;
    assert_eq!(it.probes(), 1);
    let step = canceled(&second, id).await;
    (it, step)
}

#[tokio::test(start_paused = true)]
async fn a_cancel_through_a_process_without_workers_withdraws_an_abandoned_request() {
    let (it, _) = canceled_without_workers(Probe::Begun(signatures())).await;
    assert!(it.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_through_a_process_without_workers_records_the_outcome_of_an_abandoned_effect() {
    let done = Probe::Done(json!({"file": "f"}));
    let (_, step) = canceled_without_workers(done).await;
    assert_eq!(step.status(), StepStatus::Success);
    let (_, step) = canceled_without_workers(Probe::Unknown).await;
    assert!(is_unknown(&step));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_found_and_not_yet_awaited_is_withdrawn_by_a_cancel() {
    let mut it = Watched::new();
    let (_first, id) = abandoned(&mut it).await;
    // The second process's probe finds the signature request, but the process cannot commit this yet.
    let gate = Gate::default();
    let mut tried = gate.tries.subscribe();
    let (store, closes) = (gate.store(&it.store), gate.closed.clone());
    let is_first = AtomicBool::new(true);
    let second = it.process_on(
        store,
        an_hour_later(),
        |_| std::future::pending(),
        move |_| {
            closes.store(is_first.swap(false, Ordering::SeqCst), Ordering::SeqCst);
            async { Probe::Begun(signatures()) }
        },
    );
    let _second = second.workers();
    tried.changed().await.expect("it tries to commit");
    tokio::join!(second.cancel(id), gate.opens_once_signaled(&it.store, id));
    canceled(&second, id).await;
    assert!(it.is_withdrawn().await);
    while let Ok(seen) = it.seen.try_recv() {
        assert_eq!(seen, Seen::Probed, "the effect does not begin again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_meets_its_holder_during_the_release_is_not_left_to_polling() {
    let mut it = Watched::new();
    // The store applies the holder's commit, which releases the lease, but answers only 500 ms later. The
    // execution waits only for people, so no timer would wake a worker.
    let commits = AtomicUsize::new(0);
    let faulty = FaultyStore::new(it.store.clone(), move |call: Call| {
        let waits = call.operation == "commit" && commits.fetch_add(1, Ordering::SeqCst) == 0;
        waits.then_some(Fault::Slow(Duration::from_millis(500)))
    });
    let run = |_| async {
        let approvers = vec![("one@example.com".to_owned(), [0; 32])];
        let approval = NewApproval::new(approvers);
        Ok(StepOutcome::Wait(Wait::Approval(approval)))
    };
    let world = it.process_on(Arc::new(faulty), Arc::new(SystemClock), run, |_| async {
        Probe::Unknown
    });
    let _workers = world.workers();
    let id = start(&world).await;
    it.sees(Seen::Begun).await;
    world.until_status(id, Status::Paused).await;
    let canceled = tokio::time::timeout(Duration::from_secs(5), world.cancel(id)).await;
    canceled.expect("long before a worker polls");
}
