//! Cases with engines on the store. Handlers are told to stop, and answer in every possible way. Every
//! execution must end as promised, whichever process applies the cancel, shutdown or timeout.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    conformance::{Fault, FaultyStore, StoreUnderTest},
    engine::{ControlAnswer, ControlRequest},
    error::codes,
    event::Event,
    ids::SignalId,
    ports::{
        BusError, EventBus, EventStream, OrganizationStream, Signal, SignalKind, Store, WakeStream,
    },
    prelude::*,
    run::{Execution, Step, StepStatus},
    signature::RequestStatus,
    time::{Clock, ManualClock, SystemClock, Timestamp},
};

/// The time after which a wait fails the case; far longer than any wait takes.
const PATIENCE: Duration = Duration::from_secs(60);
const SIGNER: &str = "signer@example.com";
const KINDS: [&str; 5] = ["compute", "repeatable", "effect", "signed", "asked"];
const ANSWERS: [&str; 10] = [
    "done",
    "wait",
    "stopped",
    "retryable",
    "review",
    "final",
    "unknown",
    "panic",
    "large",
    "never",
];

/// A bus that delivers nothing, so that processes learn of changes only from the store.
struct SilentBus;

#[async_trait]
impl EventBus for SilentBus {
    async fn publish(&self, _: &[Arc<Event>]) -> Result<(), BusError> {
        Ok(())
    }
    async fn restore(&self, _: &[Arc<Event>]) -> Result<(), BusError> {
        Ok(())
    }
    async fn subscribe(&self, _: ExecutionId, _: u64) -> Result<EventStream, BusError> {
        Ok(futures::stream::pending().boxed())
    }
    async fn subscribe_organization(
        &self,
        _: OrganizationId,
        _: Option<String>,
    ) -> Result<OrganizationStream, BusError> {
        Ok(futures::stream::pending().boxed())
    }
    async fn wake(&self, _: ExecutionId) -> Result<(), BusError> {
        Ok(())
    }
    async fn wakes(&self) -> Result<WakeStream, BusError> {
        Ok(futures::stream::pending().boxed())
    }
}

/// One combination of a step's kind, the answer of its handler and the node's `on_error`.
#[derive(Debug, Clone, Copy)]
struct Cell {
    kind: &'static str,
    answer: &'static str,
    on_error: &'static str,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for kind in KINDS {
            for answer in ANSWERS {
                for on_error in ["fail", "review", "continue"] {
                    cells.push(Self {
                        kind,
                        answer,
                        on_error,
                    });
                }
            }
        }
        // A step that only computes cannot wait.
        cells.retain(|cell| cell.kind != "compute" || cell.answer != "wait");
        cells
    }
}

/// State that the handlers of all processes share.
struct Handlers {
    begun: mpsc::UnboundedSender<ExecutionId>,
    /// Canceled by a test to let all handlers answer, although nothing tells them to stop.
    released: CancellationToken,
    told: Mutex<HashMap<ExecutionId, Option<StopReason>>>,
}

impl Handlers {
    /// Reports that the handler has begun. Then waits until the handler is told to stop, or the test releases all
    /// handlers.
    async fn waits(&self, context: &StepContext, answer: &str) {
        let _ = self.begun.send(context.execution_id);
        tokio::select! {
            () = context.cancellation.cancelled() => {}
            () = self.released.cancelled() => {}
        }
        self.note_told(context);
        if answer == "never" {
            std::future::pending().await
        }
    }

    fn note_told(&self, context: &StepContext) {
        let mut told = self.told.lock().expect("no panic");
        told.insert(context.execution_id, context.stop_reason());
    }

    async fn answers(&self, context: &StepContext, answer: &str) -> Result<Value, StepFailure> {
        self.waits(context, answer).await;
        Err(match answer {
            "stopped" => StepFailure::stopped(),
            "retryable" => StepFailure::retryable("own", "Busy."),
            "review" => StepFailure::review("own", "Unclear."),
            "final" => StepFailure::fatal("own", "Impossible."),
            "unknown" => StepFailure::outcome_unknown("own", "Lost."),
            // Panic without a message on the terminal.
            "panic" => std::panic::resume_unwind(Box::new("as planned")),
            "large" => return Ok(json!("x".repeat(2_000))),
            _ => return Ok(json!({"file": "f"})),
        })
    }

    async fn probed(&self, context: &StepContext, answer: &str) -> Probe {
        self.waits(context, answer).await;
        match answer {
            "done" => Probe::Done(json!({"file": "f"})),
            "wait" => Probe::Begun(signatures(context)),
            "stopped" => Probe::NotDone,
            "panic" => std::panic::resume_unwind(Box::new("as planned")),
            _ => Probe::Unknown,
        }
    }
}

fn signatures(context: &StepContext) -> Wait {
    let signers = [NewSigner::new(SIGNER)];
    let envelope = match context.previous_signature {
        None => context.execution_id.to_string(),
        Some(_) => format!("{}/again", context.execution_id),
    };
    Wait::Signatures(NewSignatureRequest::new("desk", envelope, signers))
}

fn answer_of(params: &Value) -> String {
    params["answer"].as_str().unwrap_or_default().to_owned()
}

struct World {
    under_test: StoreUnderTest,
    organization: OrganizationId,
    handlers: Arc<Handlers>,
    begun: mpsc::UnboundedReceiver<ExecutionId>,
}

impl World {
    fn new(under_test: StoreUnderTest) -> Self {
        let (sees, begun) = mpsc::unbounded_channel();
        Self {
            under_test,
            organization: OrganizationId::new(),
            handlers: Arc::new(Handlers {
                begun: sees,
                released: CancellationToken::new(),
                told: Mutex::default(),
            }),
            begun,
        }
    }

    /// An engine whose handlers wait until they are told to stop, and then give the answer that the step's
    /// parameters name. If `done` is set, they succeed at once.
    fn engine(&self, store: Arc<dyn Store>, clock: Arc<dyn Clock>, done: bool) -> Engine {
        let spec = |name: &'static str, phase| {
            NodeSpec::new(name, phase).param(ParamSpec::required("answer", ParamKind::Text))
        };
        let run = {
            let handlers = Arc::clone(&self.handlers);
            move |context: StepContext, params: Value| {
                let handlers = Arc::clone(&handlers);
                async move {
                    if done {
                        return Ok(json!({}));
                    }
                    handlers.answers(&context, &answer_of(&params)).await
                }
            }
        };
        let effect_of = |spec: NodeSpec| {
            let run = run.clone();
            effect(spec, move |context: EffectContext, params: Value| {
                let answers = answer_of(&params) == "wait" && !done;
                let (context, wait) = ((*context).clone(), signatures(&context));
                let run = run(context, params);
                async move {
                    let output = run.await?;
                    Ok(if answers {
                        StepOutcome::Wait(wait)
                    } else {
                        StepOutcome::Done(output)
                    })
                }
            })
        };
        let resumed = {
            let run = run.clone();
            let asks = |context: EffectContext, _: Value| async move {
                Ok(StepOutcome::Wait(signatures(&context)))
            };
            effect(spec("signed", Phase::Signature), asks)
                .resumed(move |context: EffectContext, params: Value, _| {
                    let asks_again = answer_of(&params) == "wait" && !done;
                    let (context, wait) = ((*context).clone(), signatures(&context));
                    let run = run(context, params);
                    async move {
                        let output = run.await?;
                        Ok(if asks_again {
                            StepOutcome::Wait(wait)
                        } else {
                            StepOutcome::Done(output)
                        })
                    }
                })
                .probe(|_, _| async { Probe::NotDone })
        };
        let handlers = Arc::clone(&self.handlers);
        let loses = |_: EffectContext, _: Value| async {
            Err::<StepOutcome, _>(StepFailure::outcome_unknown("own", "Lost."))
        };
        let asked = effect(spec("asked", Phase::Signature), loses).probe(
            move |context: EffectContext, params: Value| {
                let handlers = Arc::clone(&handlers);
                async move { handlers.probed(&context, &answer_of(&params)).await }
            },
        );
        Engine::builder(store, Arc::new(SilentBus))
            .clock(clock)
            .step(compute(spec("compute", Phase::Render), run.clone()))
            .step(effect_of(
                spec("repeatable", Phase::Signature).safe_to_repeat(),
            ))
            .step(
                effect_of(spec("effect", Phase::Signature)).probe(|_, _| async { Probe::NotDone }),
            )
            .step(resumed)
            .step(asked)
            .options(|options| {
                options.lease = Duration::from_secs(6);
                options.cancel_grace = Duration::from_millis(1_500);
                options.probe_timeout = Duration::from_secs(20);
                options.max_output_bytes = 1_000;
                options.poll_interval = Duration::from_secs(1);
            })
            .build()
    }

    fn first(&self) -> Engine {
        let store = Arc::clone(&self.under_test.store);
        self.engine(store, Arc::new(SystemClock), false)
    }

    /// The engine of another process, on the same data.
    fn second(&self, clock: Arc<dyn Clock>, done: bool) -> Engine {
        self.engine(Arc::clone(&self.under_test.peer), clock, done)
    }

    /// Starts an execution for each cell, and waits until its handler has begun.
    async fn start(
        &mut self,
        engine: &Engine,
        cells: &[Cell],
        timeout_ms: u64,
    ) -> HashMap<ExecutionId, Cell> {
        let mut workflows = HashMap::new();
        let mut started = HashMap::new();
        for cell in cells {
            let key = (cell.kind, cell.on_error);
            let workflow = *workflows.entry(key).or_insert_with(WorkflowId::new);
            let nodes = json!([{
                "id": "a", "type": cell.kind, "on_error": cell.on_error, "timeout_ms": timeout_ms,
                "params": {"answer": "{{trigger.answer}}"},
            }]);
            let draft = json!({"name": "test", "nodes": nodes});
            let draft = serde_json::from_value(draft).expect("readable");
            let stored = engine.put_workflow(self.organization, workflow, draft, None);
            stored.await.expect("a valid definition");
            let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
            let request = request.trigger_data(json!({"answer": cell.answer}));
            let run = engine.start(request).await.expect("accepted");
            let id = run.record.execution.id;
            started.insert(id, *cell);
            if cell.kind == "signed" {
                self.sign(engine, id).await;
            }
        }
        for _ in cells {
            let begun = tokio::time::timeout(PATIENCE, self.begun.recv()).await;
            assert!(begun.expect("in time").is_some());
        }
        started
    }

    /// Reports that the signer has signed, as soon as the execution's signature request is stored.
    async fn sign(&self, engine: &Engine, id: ExecutionId) {
        let request = until(async || {
            let envelope = id.to_string();
            let found = self
                .under_test
                .store
                .signature_by_envelope("desk", &envelope);
            found.await.expect("reads")
        });
        let fact = SignerFact::signed(SIGNER, Timestamp::now());
        let request = request.await.id;
        let actor = Actor::webhook("desk");
        let reported = engine.report_signers(self.organization, request, vec![fact], actor);
        reported.await.expect("taken");
    }

    async fn execution(&self, id: ExecutionId) -> Execution {
        let record = self.under_test.store.execution(self.organization, id).await;
        record.expect("reads").expect("is there").execution
    }

    async fn step(&self, id: ExecutionId) -> Step {
        let steps = self.under_test.store.steps(self.organization, id).await;
        steps.expect("reads").remove(0)
    }

    async fn becomes(&self, id: ExecutionId, status: Status) -> Execution {
        until(async || {
            let execution = self.execution(id).await;
            (execution.status == status).then_some(execution)
        })
        .await
    }

    /// Cancels all executions at once; no cancel may be refused.
    async fn cancel(&self, engine: &Engine, started: &HashMap<ExecutionId, Cell>) {
        let cancels = started.iter().map(async |(id, cell)| {
            let request = ControlRequest::new(self.organization, *id, Actor::user("somebody"));
            match engine.cancel(request, None).await {
                Ok(ControlAnswer::Applied(record)) => {
                    assert_eq!(record.execution.status, Status::Canceled, "{cell:?}");
                }
                Ok(ControlAnswer::Pending) => {}
                Err(refused) => panic!("{cell:?}: {refused}"),
            }
        });
        join_all(cancels).await;
    }

    /// Checks that all executions are canceled without an error, that their steps record the outcome, and
    /// that no signature request is open.
    async fn are_canceled(&self, started: &HashMap<ExecutionId, Cell>, answered: bool) {
        for (id, cell) in started {
            let execution = self.becomes(*id, Status::Canceled).await;
            assert_eq!(execution.error, None, "{cell:?}");
            let step = self.step(*id).await;
            if answered && cell.answer == "done" {
                assert_eq!(step.status(), StepStatus::Success, "{cell:?}");
            } else {
                assert_eq!(step.status(), StepStatus::Failed, "{cell:?}");
                assert!(step.error.is_some(), "{cell:?}");
            }
            for envelope in [id.to_string(), format!("{id}/again")] {
                let store = &self.under_test.store;
                let request = store.signature_by_envelope("desk", &envelope).await;
                let request = request.expect("reads");
                let is_open = request.is_some_and(|it| it.status == RequestStatus::Signing);
                assert!(!is_open, "{cell:?}");
            }
        }
    }

    fn were_told(&self, started: &HashMap<ExecutionId, Cell>, reason: StopReason) {
        let told = self.handlers.told.lock().expect("no panic");
        for (id, cell) in started {
            assert_eq!(told.get(id), Some(&Some(reason)), "{cell:?}");
        }
    }
}

/// Polls the closure until it returns a value.
async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered.expect("it comes to it")
}

fn crowd() -> WorkerOptions {
    WorkerOptions::concurrency(400).per_organization(400)
}

/// A cancel by the process that runs the handlers wins over every answer.
pub async fn a_cancel_ends_an_execution_canceled_whatever_its_handler_answers(
    under_test: StoreUnderTest,
) {
    let mut world = World::new(under_test);
    let engine = world.first();
    let _workers = engine.start_workers(crowd()).expect("no other workers run");
    let started = world.start(&engine, &Cell::all(), 3_600_000).await;
    world.cancel(&engine, &started).await;
    world.are_canceled(&started, true).await;
    world.were_told(&started, StopReason::Cancel);
}

/// A cancel by a process without workers wins too. The lease holder finds the cancel when it renews its
/// lease.
pub async fn a_cancel_through_another_process_wins_too(under_test: StoreUnderTest) {
    let mut world = World::new(under_test);
    let engine = world.first();
    let _workers = engine.start_workers(crowd()).expect("no other workers run");
    let started = world.start(&engine, &Cell::all(), 3_600_000).await;
    let other = world.second(Arc::new(SystemClock), false);
    world.cancel(&other, &started).await;
    world.are_canceled(&started, true).await;
    world.were_told(&started, StopReason::Cancel);
}

/// A process without workers cancels the executions of a process that is cut off from the store. What the
/// handlers of the cut-off process answer later has no effect.
pub async fn a_cancel_at_takeover_wins_over_what_the_old_worker_answers(
    under_test: StoreUnderTest,
) {
    let mut world = World::new(under_test);
    let cut_off = watch::Sender::new(false);
    let is_cut_off = cut_off.subscribe();
    let faulty = FaultyStore::new(Arc::clone(&world.under_test.store), move |_| {
        is_cut_off.borrow().then_some(Fault::Before)
    });
    let engine = world.engine(Arc::new(faulty), Arc::new(SystemClock), false);
    let workers = engine.start_workers(crowd()).expect("no other workers run");
    // Leave out steps of the kind "asked": the process that takes over would probe them again, and that
    // probe would wait too.
    let mut cells = Cell::all();
    cells.retain(|cell| cell.kind != "asked" && cell.on_error == "continue");
    let started = world.start(&engine, &cells, 3_600_000).await;
    for id in started.keys() {
        until(async || is_running(&world, *id).await).await;
    }
    cut_off.send_replace(true);
    let later = Timestamp::now() + Duration::from_secs(3_600);
    let other = world.second(Arc::new(ManualClock::new(later)), false);
    world.cancel(&other, &started).await;
    world.are_canceled(&started, false).await;
    let versions = join_all(started.keys().map(|id| world.execution(*id))).await;
    workers.shutdown().await;
    for before in versions {
        let after = world.execution(before.id).await;
        assert_eq!(after, before, "a terminal execution never changes");
    }
}

/// `Some` if the stored step is open: its handler is at work, or about to be called.
async fn is_running(world: &World, id: ExecutionId) -> Option<()> {
    let step = world.step(id).await;
    step.state.is_open().then_some(())
}

/// After a shutdown, the next process continues every step, and no attempt is used up.
pub async fn a_shutdown_ends_nothing_whatever_the_handlers_answer(under_test: StoreUnderTest) {
    let mut world = World::new(under_test);
    let engine = world.first();
    let workers = engine.start_workers(crowd()).expect("no other workers run");
    let mut cells = Cell::all();
    // Leave out steps of the kind "asked": their outcome was unknown before the shutdown, so the answer of
    // the probe decides.
    cells.retain(|cell| cell.kind != "asked");
    let started = world.start(&engine, &cells, 3_600_000).await;
    workers.shutdown().await;
    world.were_told(&started, StopReason::Shutdown);
    let next = world.second(Arc::new(SystemClock), true);
    let next_workers = next.start_workers(crowd()).expect("no other workers run");
    for (id, cell) in &started {
        let waits = cell.answer == "wait" && cell.kind != "compute";
        let status = match waits {
            true => Status::Signing,
            false => Status::Completed,
        };
        let execution = world.becomes(*id, status).await;
        assert_eq!(execution.error, None, "{cell:?}");
        let step = world.step(*id).await;
        assert_eq!(step.attempt, 1, "{cell:?}");
        let expected = match waits {
            true => StepStatus::Running,
            false => StepStatus::Success,
        };
        assert_eq!(step.status(), expected, "{cell:?}");
    }
    next_workers.shutdown().await;
}

/// A step that passes its deadline has timed out, whichever error its handler returns.
pub async fn at_its_deadline_a_step_has_timed_out_whatever_its_handler_answers(
    under_test: StoreUnderTest,
) {
    let mut world = World::new(under_test);
    let engine = world.first();
    let _workers = engine.start_workers(crowd()).expect("no other workers run");
    let mut cells = Cell::all();
    let errors = [
        "stopped",
        "retryable",
        "review",
        "final",
        "unknown",
        "panic",
        "never",
    ];
    cells.retain(|cell| {
        cell.kind != "asked" && cell.on_error == "fail" && errors.contains(&cell.answer)
    });
    let started = world.start(&engine, &cells, 200).await;
    for (id, cell) in &started {
        // Signatures that people have given are not discarded: the execution waits for review.
        if cell.kind == "signed" {
            world.becomes(*id, Status::NeedsReview).await;
            continue;
        }
        let execution = world.becomes(*id, Status::Failed).await;
        let error = execution.error.expect("an error");
        assert_eq!(error.code, codes::TIMEOUT, "{cell:?}");
    }
    world.were_told(&started, StopReason::Deadline);
}

/// An execution is about to end while its inbox has a signal that the lease holder has not seen. A cancel
/// wins over the end. Any other signal is too late, and is recorded as ignored.
pub async fn the_end_of_an_execution_yields_to_a_cancel_in_its_inbox(under_test: StoreUnderTest) {
    let mut world = World::new(under_test);
    let engine = world.first();
    let _workers = engine.start_workers(crowd()).expect("no other workers run");
    let mut cells = Cell::all();
    cells.retain(|cell| {
        let answers = ["done", "final", "large"];
        ["compute", "effect"].contains(&cell.kind) && answers.contains(&cell.answer)
    });
    cells.retain(|cell| cell.on_error == "fail");
    let canceled = world.start(&engine, &cells, 3_600_000).await;
    let paused = world.start(&engine, &cells, 3_600_000).await;
    let signals = canceled
        .keys()
        .map(|id| (id, SignalKind::Cancel { reason: None }));
    let pauses = paused
        .keys()
        .map(|id| (id, SignalKind::Pause { reason: None }));
    for (id, kind) in signals.chain(pauses) {
        let signal = Signal {
            id: SignalId::new(),
            execution_id: *id,
            organization_id: world.organization,
            actor: Actor::user("somebody"),
            received_at: Timestamp::now(),
            if_version: None,
            kind,
        };
        world
            .under_test
            .store
            .signal(signal)
            .await
            .expect("signals");
    }
    world.handlers.released.cancel();
    world.are_canceled(&canceled, true).await;
    for (id, cell) in &paused {
        let ended = until(async || {
            let status = world.execution(*id).await.status;
            // If the lease holder renews its lease in time, it finds the pause before the execution ends.
            (status.is_terminal() || status == Status::Paused).then_some(status)
        });
        let ended = ended.await;
        assert_ne!(ended, Status::Canceled, "{cell:?}");
        let inbox = world.under_test.store.signals(*id).await.expect("reads");
        assert_eq!(inbox, [], "{cell:?}");
    }
}
