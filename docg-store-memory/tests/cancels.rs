//! Cancels that come while a handler works, is asked, or has lost its worker: it has its grace, what has
//! begun is withdrawn, and what is not known is said to be so.
//!
//! Tokio's time is stopped, and moves only while nobody has something to do: a busy machine ends no grace.

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
    engine::{ControlAnswer, ControlRequest, Workers},
    i18n::Locale,
    ids::SignalId,
    ports::{ExecutionReader, ExecutionStore, Signal, SignalKind, Store},
    prelude::*,
    run::{Step, StepStatus},
    signature::{RequestStatus, SignatureRequest},
    time::{Clock, ManualClock, SystemClock, Timestamp},
    workflow::handler::NewApproval,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(20);

type Ran = Result<StepOutcome, StepFailure>;

/// What the handler and its probe have come to, told to the test.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun,
    Asked,
}

struct World {
    store: Arc<MemoryStore>,
    organization: OrganizationId,
    sees: mpsc::UnboundedSender<Seen>,
    seen: mpsc::UnboundedReceiver<Seen>,
    asked: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let (sees, seen) = mpsc::unbounded_channel();
        Self {
            store: Arc::default(),
            organization: OrganizationId::new(),
            sees,
            seen,
            asked: Arc::default(),
        }
    }

    /// An engine on a store, whose one effect runs and is asked so.
    fn engine<R, P>(
        &self,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        run: impl Fn(EffectContext) -> R + Send + Sync + 'static,
        probe: impl Fn(EffectContext) -> P + Send + Sync + 'static,
    ) -> Engine
    where
        R: Future<Output = Ran> + Send + 'static,
        P: Future<Output = Probe> + Send + 'static,
    {
        let (begun, probed) = (self.sees.clone(), self.sees.clone());
        let asked = Arc::clone(&self.asked);
        let handler = effect(
            NodeSpec::new("effect", Phase::Signature),
            move |context, _: Value| {
                begun.send(Seen::Begun).expect("the test listens");
                run(context)
            },
        );
        let handler = handler.probe(move |context, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            // Of no interest where the test is over.
            let _ = probed.send(Seen::Asked);
            probe(context)
        });
        let handler = handler.resumed(|_, _, _| async { std::future::pending::<Ran>().await });
        Engine::builder(store, Arc::new(MemoryBus::default()))
            .clock(clock)
            .step(handler)
            .options(|options| {
                options.cancel_grace = Duration::from_millis(100);
                options.probe_timeout = Duration::from_millis(200);
                options.poll_interval = PATIENCE;
            })
            .build()
    }

    async fn start(&self, engine: &Engine) -> ExecutionId {
        let workflow = WorkflowId::new();
        let nodes = json!([{"id": "a", "type": "effect", "timeout_ms": 3_600_000}]);
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}));
        let draft = draft.expect("readable");
        let stored = engine.put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    async fn sees(&mut self, what: Seen) {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        assert_eq!(next.expect("in time"), Some(what));
    }

    async fn cancel(&self, engine: &Engine, id: ExecutionId) {
        let request = ControlRequest::new(self.organization, id, Actor::user("somebody"));
        let answer = engine.cancel(request, None).await.expect("allowed");
        assert!(matches!(answer, ControlAnswer::Applied(_)), "{answer:?}");
    }

    async fn until(&self, id: ExecutionId, status: Status) {
        let reading = async {
            loop {
                let record = self.store.execution(self.organization, id).await;
                if record.expect("reads").expect("is there").execution.status == status {
                    return;
                }
                time_moves().await;
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("it comes to it");
    }

    /// The step, once the run is canceled.
    async fn canceled(&self, id: ExecutionId) -> Step {
        self.until(id, Status::Canceled).await;
        let steps = self.store.steps(self.organization, id).await;
        steps.expect("reads").remove(0)
    }

    /// The request, once it is made.
    async fn requested(&self) -> SignatureRequest {
        let reading = async {
            loop {
                let found = self.store.signature_by_envelope("desk", "envelope").await;
                match found.expect("reads") {
                    Some(request) => return request,
                    None => time_moves().await,
                }
            }
        };
        let requested = tokio::time::timeout(PATIENCE, reading).await;
        requested.expect("it is made")
    }

    /// Whether the envelope that was begun is known, and withdrawn.
    async fn is_withdrawn(&self) -> bool {
        let request = self.store.signature_by_envelope("desk", "envelope").await;
        let request = request.expect("reads");
        request.is_some_and(|request| request.status == RequestStatus::Canceled)
    }
}

/// Lets everybody do what there is to do, and then time pass.
async fn time_moves() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn signatures() -> Wait {
    let signers = [NewSigner::new("one@example.com")];
    Wait::Signatures(NewSignatureRequest::new("desk", "envelope", signers))
}

fn lost_answer() -> StepFailure {
    StepFailure::outcome_unknown("desk.service_unavailable", "The answer was lost.")
}

fn is_unknown(step: &Step) -> bool {
    let error = step.error.as_ref().expect("what became of it");
    error.human.render(Locale::En).contains("not known")
}

/// While it is closed, no commit reaches the store.
#[derive(Default)]
struct Gate {
    closed: Arc<AtomicBool>,
    /// Told of each commit that is held up.
    tries: watch::Sender<()>,
}

impl Gate {
    fn store(&self, world: &World) -> Arc<FaultyStore> {
        let (closed, tries) = (Arc::clone(&self.closed), self.tries.clone());
        let store = FaultyStore::new(world.store.clone(), move |call: Call| {
            let fails = call.operation == "commit" && closed.load(Ordering::SeqCst);
            fails.then(|| {
                tries.send_replace(());
                Fault::Before
            })
        });
        Arc::new(store)
    }

    async fn opens_once_signaled(&self, world: &World, id: ExecutionId) {
        while world.store.signals(id).await.expect("reads").is_empty() {
            tokio::task::yield_now().await;
        }
        self.closed.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_meets_a_commit_of_progress_gives_the_handler_its_grace() {
    let mut world = World::new();
    let gate = Gate::default();
    let mut tried = gate.tries.subscribe();
    let (store, closes) = (gate.store(&world), gate.closed.clone());
    let run = move |context: EffectContext| {
        closes.store(true, Ordering::SeqCst);
        context.progress(0.5);
        async move {
            context.cancellation.cancelled().await;
            StepOutcome::done(json!({}))
        }
    };
    let engine = world.engine(store, Arc::new(SystemClock), run, |_| async {
        Probe::Unknown
    });
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    tried.changed().await.expect("it tries to commit");
    let canceled = world.cancel(&engine, id);
    tokio::join!(canceled, gate.opens_once_signaled(&world, id));
    assert_eq!(world.canceled(id).await.status(), StepStatus::Success);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_cannot_tell_in_its_grace_is_asked() {
    let mut world = World::new();
    let run = |context: EffectContext| async move {
        context.cancellation.cancelled().await;
        Err(lost_answer())
    };
    let engine = world.engine(world.store.clone(), Arc::new(SystemClock), run, |_| async {
        Probe::Begun(signatures())
    });
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    world.cancel(&engine, id).await;
    world.canceled(id).await;
    assert!(world.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_finds_begun_after_the_cancel_is_withdrawn() {
    let mut world = World::new();
    let engine = world.engine(
        world.store.clone(),
        Arc::new(SystemClock),
        |_| async { Err(lost_answer()) },
        |context| async move {
            context.cancellation.cancelled().await;
            Probe::Begun(signatures())
        },
    );
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    world.sees(Seen::Asked).await;
    world.cancel(&engine, id).await;
    world.canceled(id).await;
    assert!(world.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_does_not_answer_is_not_known() {
    let mut world = World::new();
    let engine = world.engine(
        world.store.clone(),
        Arc::new(SystemClock),
        |_| async { Err(lost_answer()) },
        |_| std::future::pending(),
    );
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    world.sees(Seen::Asked).await;
    world.cancel(&engine, id).await;
    assert!(is_unknown(&world.canceled(id).await));
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_wait_is_not_asked_about() {
    let mut world = World::new();
    let run = |_| async { Ok(StepOutcome::Wait(signatures())) };
    let engine = world.engine(world.store.clone(), Arc::new(SystemClock), run, |_| async {
        Probe::Unknown
    });
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    let request = world.requested().await;
    let signed = vec![SignerFact::signed("one@example.com", Timestamp::now())];
    let actor = Actor::webhook("desk");
    let report = engine.report_signers(world.organization, request.id, signed, actor);
    report.await.expect("taken");
    world.cancel(&engine, id).await;
    world.canceled(id).await;
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

/// A run whose effect has begun at a worker that is cut off from the store since.
async fn abandoned(world: &mut World) -> (Workers, ExecutionId) {
    let cut_off = Arc::new(AtomicBool::new(false));
    let is_cut_off = Arc::clone(&cut_off);
    let faulty = FaultyStore::new(world.store.clone(), move |_| {
        is_cut_off.load(Ordering::SeqCst).then_some(Fault::Before)
    });
    let engine = world.engine(
        Arc::new(faulty),
        Arc::new(SystemClock),
        |_| std::future::pending(),
        |_| async { Probe::Unknown },
    );
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    cut_off.store(true, Ordering::SeqCst);
    (workers, id)
}

/// For whom the lease of an abandoned run has ended.
fn an_hour_later() -> Arc<dyn Clock> {
    let later = Timestamp::now() + Duration::from_secs(3_600);
    Arc::new(ManualClock::new(later))
}

async fn a_cancel_that_is_found_with_an_abandoned_step(on_version: bool) {
    let mut world = World::new();
    let (_first, id) = abandoned(&mut world).await;
    let record = world.store.execution(world.organization, id).await;
    let version = record.expect("reads").expect("is there").execution.version;
    let signal = Signal {
        id: SignalId::new(),
        execution_id: id,
        organization_id: world.organization,
        actor: Actor::user("somebody"),
        received_at: Timestamp::now(),
        if_version: on_version.then_some(version),
        kind: SignalKind::Cancel { reason: None },
    };
    world.store.signal(signal).await.expect("signals");
    let second = world.engine(
        world.store.clone(),
        an_hour_later(),
        |_| std::future::pending(),
        |_| async { Probe::Begun(signatures()) },
    );
    let _second = second
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    world.canceled(id).await;
    assert!(world.is_withdrawn().await);
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_is_found_with_an_abandoned_step_has_its_effect_asked_about() {
    for on_version in [false, true] {
        a_cancel_that_is_found_with_an_abandoned_step(on_version).await;
    }
}

/// The call is answered by a process that has no workers, and asks all the same.
async fn a_cancel_of_an_abandoned_run_that_no_worker_has(effect: Probe) -> (World, Step) {
    let mut world = World::new();
    let (_first, id) = abandoned(&mut world).await;
    let second = world.engine(
        world.store.clone(),
        an_hour_later(),
        |_| std::future::pending(),
        move |_| std::future::ready(effect.clone()),
    );
    world.cancel(&second, id).await;
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
    let step = world.canceled(id).await;
    (world, step)
}

#[tokio::test(start_paused = true)]
async fn whoever_cancels_what_no_worker_has_withdraws_what_was_begun() {
    let begun = Probe::Begun(signatures());
    let (world, _) = a_cancel_of_an_abandoned_run_that_no_worker_has(begun).await;
    assert!(world.is_withdrawn().await);
}

#[tokio::test(start_paused = true)]
async fn whoever_cancels_what_no_worker_has_says_what_became_of_it() {
    let done = Probe::Done(json!({"file": "f"}));
    let (_, step) = a_cancel_of_an_abandoned_run_that_no_worker_has(done).await;
    assert_eq!(step.status(), StepStatus::Success);
    let (_, step) = a_cancel_of_an_abandoned_run_that_no_worker_has(Probe::Unknown).await;
    assert!(is_unknown(&step));
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_and_is_not_yet_picked_up_is_withdrawn() {
    let mut world = World::new();
    let (_first, id) = abandoned(&mut world).await;
    // The second finds out what has begun, and cannot commit that it goes on.
    let gate = Gate::default();
    let mut tried = gate.tries.subscribe();
    let (store, closes) = (gate.store(&world), gate.closed.clone());
    let is_first = AtomicBool::new(true);
    let second = world.engine(
        store,
        an_hour_later(),
        |_| std::future::pending(),
        move |_| {
            closes.store(is_first.swap(false, Ordering::SeqCst), Ordering::SeqCst);
            async { Probe::Begun(signatures()) }
        },
    );
    let _second = second
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    tried.changed().await.expect("it tries to commit");
    let canceled = world.cancel(&second, id);
    tokio::join!(canceled, gate.opens_once_signaled(&world, id));
    world.canceled(id).await;
    assert!(world.is_withdrawn().await);
    while let Ok(seen) = world.seen.try_recv() {
        assert_eq!(seen, Seen::Asked, "nothing begins again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_meets_its_holder_as_it_lets_go_is_not_left_to_polling() {
    let mut world = World::new();
    // Its commit is made, and the holder does not know yet that it has let go. Nothing but people is
    // waited for, so that no timer looks after the run.
    let commits = AtomicUsize::new(0);
    let faulty = FaultyStore::new(world.store.clone(), move |call: Call| {
        let waits = call.operation == "commit" && commits.fetch_add(1, Ordering::SeqCst) == 0;
        waits.then_some(Fault::Slow(Duration::from_millis(500)))
    });
    let run = |_| async {
        let approvers = vec![("one@example.com".to_owned(), [0; 32])];
        let approval = NewApproval::new(approvers);
        Ok(StepOutcome::Wait(Wait::Approval(approval)))
    };
    let engine = world.engine(Arc::new(faulty), Arc::new(SystemClock), run, |_| async {
        Probe::Unknown
    });
    let _workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let id = world.start(&engine).await;
    world.sees(Seen::Begun).await;
    world.until(id, Status::Paused).await;
    let canceled = tokio::time::timeout(Duration::from_secs(5), world.cancel(&engine, id)).await;
    canceled.expect("long before anybody polls");
}
