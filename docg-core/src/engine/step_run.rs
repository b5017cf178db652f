//! One call of a handler: its panic caught, with a deadline, a way to be told to stop, and progress.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    active::Handle,
    decide::{Input, Notes},
    observer::{Fact, OTHER, Observers},
};
use crate::{
    error::{FailureClass, StepFailure, codes},
    i18n::{Locale, Text},
    limits,
    observe::{LogDraft, LogLevel, Redaction, StepRecorder},
    ports::RunState,
    storable::{MAX_DEPTH, Unstorable},
    time::{MAX_DURATION_MS, Timestamp},
    workflow::{
        ComputeHandler, EffectClass, EffectContext, Handler, Node, Probe, Resolution, StepContext,
        StepOutcome, StopReason, Wait, context::StepFacts,
    },
};

/// What a handler is called for.
pub(crate) enum Task {
    Run,
    Resume(Resolution),
    Probe,
}

enum Answer {
    Result(Result<StepOutcome, StepFailure>),
    Probe(Probe),
}

/// A handler that is at work.
pub(crate) struct StepRun {
    pub(crate) index: usize,
    pub(crate) progress: watch::Receiver<f32>,
    /// When its time is up, as [`Clock::elapsed`](crate::time::Clock::elapsed) tells.
    pub(crate) ends: Duration,
    node: Arc<Node>,
    probing: bool,
    /// It begins its effect, and does not go on after a wait.
    begins: bool,
    /// A repeat of its effect does no harm, so a cut-off attempt leaves nothing in doubt.
    repeatable: bool,
    work: Work,
    cancellation: CancellationToken,
    /// Why it was told to stop.
    told: watch::Sender<Option<StopReason>>,
    recorder: StepRecorder,
    redaction: Redaction,
    max_output_bytes: usize,
    /// By the engine's clock.
    started_at: Timestamp,
    began: Instant,
    /// Whether the node type may be told.
    is_registered: bool,
    observers: Arc<Observers>,
}

impl Drop for StepRun {
    fn drop(&mut self) {
        if !self.probing {
            self.observers.tell(&Fact::HandlerCalled {
                node_type: if self.is_registered {
                    &self.node.node_type
                } else {
                    OTHER
                },
                duration: self.began.elapsed(),
            });
        }
        self.cancellation.cancel();
        if let Work::Spawned(handle) = &self.work {
            handle.abort();
        }
    }
}

/// What a handler has answered, or the text of its panic.
type Outcome = Result<Answer, String>;
type Call = BoxFuture<'static, Outcome>;

/// Where a handler's call has come to.
enum Work {
    /// It ended at its first poll; taken once.
    Ended(Option<Outcome>),
    /// It waits for something, in a task of its own.
    Spawned(JoinHandle<Outcome>),
}

impl Work {
    /// Polls a call once where it is, and gives it a task of its own only if it has to wait: many
    /// handlers need no other thread.
    async fn begin(mut call: Call) -> Self {
        match futures::poll!(&mut call) {
            Poll::Ready(answer) => Self::Ended(Some(answer)),
            Poll::Pending => Self::Spawned(tokio::spawn(call)),
        }
    }
}

/// A handler's call, with its panic caught.
fn call(future: impl Future<Output = Answer> + Send + 'static) -> Call {
    AssertUnwindSafe(future)
        .catch_unwind()
        .map(|outcome| outcome.map_err(panic_text))
        .boxed()
}

impl StepRun {
    pub(crate) async fn begin(
        engine: &Inner,
        state: &RunState,
        handle: &Handle,
        index: usize,
        params: Arc<Value>,
        task: Task,
    ) -> Self {
        let node = Arc::clone(&state.workflow.nodes[index]);
        let execution = &state.execution;
        let now = engine.now();
        let allowed = match task {
            Task::Probe => engine.options.probe_timeout,
            Task::Run | Task::Resume(_) => Duration::from_millis(node.timeout_ms),
        };
        let ends = engine.clock.elapsed().saturating_add(allowed);
        let recorder =
            StepRecorder::new(execution.id, node.id.clone()).redacting(engine.redaction.clone());
        let (sender, progress) = watch::channel(0.0);
        // A lost lease tells it to stop, wherever its driver is.
        let cancellation = handle.lost.child_token();
        let (told, reason) = watch::channel(None);
        let context = StepContext(Arc::new(StepFacts {
            execution_id: execution.id,
            workflow_id: execution.workflow_id,
            organization_id: execution.organization_id,
            node_id: node.id.clone(),
            label: Arc::clone(&node.label),
            attempt: state.steps[index].attempt,
            previous_approval: state
                .approval
                .as_ref()
                .filter(|approval| approval.node_id == node.id)
                .map(|approval| approval.id),
            previous_signature: state
                .signature
                .as_ref()
                .filter(|request| request.node_id == node.id)
                .map(|request| request.id),
            correlation_id: Arc::clone(&execution.correlation_id),
            traceparent: execution.traceparent.clone(),
            deadline: now + allowed,
            started_at: now,
            cancellation: cancellation.clone(),
            lost: handle.lost.clone(),
            told: reason,
            recorder: recorder.clone(),
            progress: sender,
        }));
        let probing = matches!(task, Task::Probe);
        let begins = matches!(task, Task::Run);
        let began = Instant::now();
        // The handler owns its parameters; the clone is skipped where nobody else holds them.
        let params = Arc::unwrap_or_clone(params);
        let (call, repeatable) = if execution.dry_run {
            // The registry of a dry run has no effects.
            match engine.dry.get(&node.node_type).cloned() {
                Some(handler) => (compute(handler, context, params), true),
                None => (unknown_type(&node), true),
            }
        } else {
            match engine.registry.get(&node.node_type).cloned() {
                Some(Handler::Compute(handler)) => (compute(handler, context, params), true),
                Some(Handler::Effect(handler)) => {
                    let repeatable = handler.spec().effect == EffectClass::Repeatable;
                    let context = EffectContext::live(context, handle.lease.fence);
                    let call = call(async move {
                        match task {
                            Task::Run => Answer::Result(handler.run(context, params).await),
                            Task::Resume(resolution) => {
                                Answer::Result(handler.resumed(context, params, resolution).await)
                            }
                            Task::Probe => Answer::Probe(handler.probe(context, params).await),
                        }
                    });
                    (call, repeatable)
                }
                None => (unknown_type(&node), true),
            }
        };
        let is_registered = engine.is_registered(&node.node_type);
        Self {
            index,
            progress,
            ends,
            node,
            probing,
            begins,
            repeatable,
            work: Work::begin(call).await,
            cancellation,
            told,
            recorder,
            redaction: engine.redaction.clone(),
            max_output_bytes: engine.options.max_output_bytes,
            started_at: now,
            began,
            is_registered,
            observers: Arc::clone(&engine.observers),
        }
    }

    /// Tells the handler to stop, and why. The first reason stays, unless a cancel or the loss of the
    /// lease comes later.
    pub(crate) fn tell_to_stop(&self, reason: StopReason) {
        self.told.send_if_modified(|told| {
            let replaces = match reason {
                StopReason::Cancel | StopReason::LeaseLost => true,
                StopReason::Shutdown | StopReason::Deadline => told.is_none(),
            };
            if replaces {
                *told = Some(reason);
            }
            replaces
        });
        self.cancellation.cancel();
    }

    fn told(&self) -> Option<StopReason> {
        *self.told.borrow()
    }

    /// What the handler has come to, where it never had to wait. An answer to a probe is attended, for
    /// a cancel that has come before it.
    pub(crate) fn ended(&mut self) -> Option<Input> {
        match &mut self.work {
            Work::Ended(_) if self.probing => None,
            Work::Ended(outcome) => outcome.take().map(|outcome| self.input(outcome)),
            Work::Spawned(_) => None,
        }
    }

    /// What the handler has come to. Cancel safe.
    pub(crate) async fn finished(&mut self) -> Input {
        let outcome = match &mut self.work {
            Work::Ended(outcome) => match outcome.take() {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            },
            Work::Spawned(handle) => match handle.await {
                Ok(outcome) => outcome,
                // Aborted: the runtime shuts down.
                Err(error) => Err(error.to_string()),
            },
        };
        self.input(outcome)
    }

    fn input(&self, outcome: Outcome) -> Input {
        match outcome {
            Ok(Answer::Probe(effect)) => self.probed(effect),
            Ok(Answer::Result(result)) => {
                let result = result
                    .and_then(|outcome| self.kept(outcome))
                    .map_err(|failure| failure.printable(&self.redaction));
                self.finished_with(result)
            }
            Err(tech) => {
                let text = Text::key("error-handler-panicked").with("label", &self.node.label);
                self.cut_off(StepFailure::fatal(codes::HANDLER_PANICKED, text).tech(tech))
            }
        }
    }

    /// What a handler knows of its effect. An output or a wait that cannot be kept is none: then a
    /// person says what it was.
    fn probed(&self, effect: Probe) -> Input {
        let (mut effect, mut notes) = (effect, self.notes());
        let checked = match &effect {
            Probe::Done(output) => self.check(output),
            Probe::Begun(wait) => self.check_wait(wait),
            Probe::NotDone | Probe::Unknown => Ok(()),
        };
        if let Err(failure) = checked {
            let mut log = LogDraft::new(LogLevel::Warn, failure.context.human);
            log.message_tech = failure.context.tech;
            notes.logs.push(log);
            effect = Probe::Unknown;
        }
        Input::Probed {
            index: self.index,
            effect,
            notes,
            told: self.told(),
        }
    }

    /// The handler did not return within the grace time after it was told to stop.
    pub(crate) fn unanswered(&self) -> Input {
        self.cut_off(StepFailure::stopped())
    }

    /// What a handler that did not return leaves behind. What follows a wait leaves no doubt: the
    /// effect was the asking, and that is known to be done.
    fn cut_off(&self, mut failure: StepFailure) -> Input {
        if self.probing {
            return Input::Probed {
                index: self.index,
                effect: Probe::Unknown,
                notes: self.notes(),
                told: self.told(),
            };
        }
        if self.begins && !self.repeatable {
            failure.class = FailureClass::OutcomeUnknown;
        }
        self.finished_with(Err(failure.printable(&self.redaction)))
    }

    fn finished_with(&self, result: Result<StepOutcome, StepFailure>) -> Input {
        Input::StepFinished {
            index: self.index,
            result,
            notes: self.notes(),
            told: self.told(),
        }
    }

    fn notes(&self) -> Notes {
        let (logs, audit) = self.recorder.take();
        Notes { logs, audit }
    }

    /// What a handler returned, if it can be kept.
    fn kept(&self, outcome: StepOutcome) -> Result<StepOutcome, StepFailure> {
        match &outcome {
            StepOutcome::Done(output) => self.check(output),
            StepOutcome::Wait(wait) => self.check_wait(wait),
        }?;
        Ok(outcome)
    }

    fn check_wait(&self, wait: &Wait) -> Result<(), StepFailure> {
        let (kept, expires_at, remind_every_ms, people, message, fault) = match wait {
            Wait::Signatures(request) => (
                json!(request),
                request.expires_at,
                request.remind_every_ms,
                request.signers.len(),
                None,
                request.fault(),
            ),
            Wait::Approval(request) => {
                let approvers: Vec<_> = request.approvers.iter().map(|(email, _)| email).collect();
                (
                    json!([request.message, approvers]),
                    request.expires_at,
                    None,
                    approvers.len(),
                    request.message.as_deref(),
                    request.fault(),
                )
            }
        };
        self.check(&kept)?;
        let message = message.and_then(|text| limits::MESSAGE.fault("/message", text));
        let why = if expires_at.is_some_and(|end| !end.is_within_reach_of(self.started_at)) {
            "it ends more than ten years ahead".to_owned()
        } else if remind_every_ms.is_some_and(|millis| millis > MAX_DURATION_MS) {
            "more than ten years lie between its reminders".to_owned()
        } else if people > limits::PEOPLE {
            format!("it asks {people} people, of at most {}", limits::PEOPLE)
        } else if let Some(fault) = message {
            format!("its message: {}", fault.detail.render(Locale::En))
        } else if let Some(fault) = fault {
            fault
        } else {
            return Ok(());
        };
        let text = Text::key("error-output-not-storable").with("label", &self.node.label);
        let tech = format!("the wait cannot be kept: {why}");
        Err(StepFailure::fatal(codes::OUTPUT_NOT_STORABLE, text).tech(tech))
    }

    /// Fails where a value cannot be kept. A store that refused it would have the step run again.
    fn check(&self, value: &Value) -> Result<(), StepFailure> {
        let text = |key| Text::key(key).with("label", &self.node.label);
        if let Some(fault) = Unstorable::of_value(value, MAX_DEPTH) {
            let text = text("error-output-not-storable");
            let tech =
                format!("the output cannot be kept: {fault}; {MAX_DEPTH} levels may be nested");
            return Err(StepFailure::fatal(codes::OUTPUT_NOT_STORABLE, text).tech(tech));
        }
        if !fits(value, self.max_output_bytes) {
            let text = text("error-output-too-large");
            let tech = format!("the output exceeds {} bytes of JSON", self.max_output_bytes);
            return Err(StepFailure::fatal(codes::OUTPUT_TOO_LARGE, text).tech(tech));
        }
        Ok(())
    }
}

fn compute(handler: Arc<dyn ComputeHandler>, context: StepContext, params: Value) -> Call {
    call(async move { Answer::Result(handler.run(context, params).await.map(StepOutcome::Done)) })
}

fn unknown_type(node: &Node) -> Call {
    let text = Text::key("error-unknown-node-type").with("type", &node.node_type);
    let failure = StepFailure::review(codes::UNKNOWN_NODE_TYPE, text);
    call(async move { Answer::Result(Err(failure)) })
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(
            || "a panic without a text".to_owned(),
            |text| (*text).to_owned(),
        ),
    }
}

/// Whether a value's JSON is no longer than `max` bytes, without writing it out.
fn fits(value: &Value, max: usize) -> bool {
    struct Budget(usize);
    impl std::io::Write for Budget {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Budget(max), value).is_ok()
}
