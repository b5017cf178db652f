//! One call of a handler: catches its panic, limits its time, can tell it to stop, and reports its progress.

use std::{
    any::Any,
    future::{self, Future},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::active::Handle;
use crate::{
    engine::{
        Fact, Inner, OTHER,
        machine::{Input, Notes, is_repeatable},
        report::Observers,
    },
    error::{FailureClass, StepFailure, codes},
    i18n::Text,
    observe::{Redaction, StepRecorder},
    ports::RunState,
    time::Clock,
    workflow::{
        EffectContext, Handler, Node, Probe, Resolution, StepContext, StepOutcome, StopReason,
        answer::Keeper,
        context::{Allowance, StepFacts, Time},
    },
};

/// The purpose of a handler's call.
pub(crate) enum Task {
    Run,
    Resume(Resolution),
    Probe,
}

enum Answer {
    Result(Result<StepOutcome, StepFailure>),
    Probe(Probe),
}

/// One call of a handler, from its start to its answer.
pub(crate) struct StepRun {
    pub(crate) index: usize,
    pub(crate) progress: watch::Receiver<f32>,
    /// The time that the handler may take.
    pub(crate) time: watch::Receiver<Allowance>,
    node: Arc<Node>,
    probing: bool,
    /// True if the call begins the effect, false if it follows a wait or is a probe.
    begins: bool,
    /// True if the effect is safe to repeat, so that a call that is cut off can simply be repeated.
    repeatable: bool,
    work: Work,
    cancellation: CancellationToken,
    /// Why the handler was told to stop, if it was.
    told: watch::Sender<Option<StopReason>>,
    /// The end of the handler's grace time, if the handler was told to stop.
    grace: Option<tokio::time::Instant>,
    recorder: StepRecorder,
    redaction: Redaction,
    began: Instant,
    /// True if the node type is registered. Observers get the name of a registered type only.
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

/// A handler's answer, or the text of its panic.
type Outcome = Result<Answer, String>;
type Call = BoxFuture<'static, Outcome>;

/// The state of a handler's call.
enum Work {
    /// The call ended at its first poll; the outcome is taken once.
    Ended(Option<Outcome>),
    /// The call waits for something, in a task of its own.
    Spawned(JoinHandle<Outcome>),
}

impl Work {
    /// Polls a call once in place. The call gets a task of its own only if it has to wait, because many
    /// handlers answer at once.
    async fn begin(mut call: Call) -> Self {
        match futures::poll!(&mut call) {
            Poll::Ready(answer) => Self::Ended(Some(answer)),
            Poll::Pending => Self::Spawned(tokio::spawn(call)),
        }
    }
}

/// A handler's call, with its panic caught and its answer checked.
fn call(
    keeper: Keeper,
    step: &StepContext,
    clock: &Arc<dyn Clock>,
    handler: impl Future<Output = Answer> + Send + 'static,
) -> Call {
    let (clock, time) = (Arc::clone(clock), step.time.watch());
    let handler = step.enter(handler);
    let work = async move {
        let mut handler = pin!(handler);
        let poll = |context: &mut task::Context<'_>| {
            let in_time = clock.elapsed() <= time.borrow().ends();
            let answer = handler.as_mut().poll(context);
            // The handler blocked its thread past the deadline, so nothing could tell it to stop.
            if in_time && answer.is_ready() && clock.elapsed() > time.borrow().ends() {
                keeper.warn_of_blocking();
            }
            answer
        };
        match future::poll_fn(poll).await {
            Answer::Result(result) => Answer::Result(keeper.result(result)),
            Answer::Probe(effect) => Answer::Probe(keeper.probe(effect)),
        }
    };
    AssertUnwindSafe(work)
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
        // A lost lease tells the handler to stop, even while its driver is busy.
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
            time: Time::until(ends, Arc::clone(&engine.clock)),
        }));
        let time = context.time.watch();
        let probing = matches!(task, Task::Probe);
        let begins = matches!(task, Task::Run);
        let began = Instant::now();
        // The handler takes its parameters by value; they are cloned only if they are still shared.
        let params = Arc::unwrap_or_clone(params);
        let handler = if execution.dry_run {
            // A dry run's registry contains no effects.
            engine
                .dry
                .get(&node.node_type)
                .cloned()
                .map(Handler::Compute)
        } else {
            engine.registry.get(&node.node_type).cloned()
        };
        let repeatable = is_repeatable(&engine.registry, execution, &node);
        let keeper = Keeper {
            node: Arc::clone(&node),
            repeatable,
            room: engine.options.room(&state.steps, index),
            started_at: now,
            recorder: recorder.clone(),
            redaction: engine.redaction.clone(),
            providers: Arc::clone(&engine.providers),
        };
        let call = match handler {
            Some(Handler::Compute(handler)) => {
                let step = context.clone();
                call(keeper, &step, &engine.clock, async move {
                    Answer::Result(handler.run(context, params).await.map(StepOutcome::Done))
                })
            }
            Some(Handler::Effect(handler)) => {
                let step = context.clone();
                let context = EffectContext::live(context, handle.lease.fence);
                call(keeper, &step, &engine.clock, async move {
                    match task {
                        Task::Run => Answer::Result(handler.run(context, params).await),
                        Task::Resume(resolution) => {
                            Answer::Result(handler.resumed(context, params, resolution).await)
                        }
                        Task::Probe => Answer::Probe(handler.probe(context, params).await),
                    }
                })
            }
            None => {
                let text = Text::key("error-unknown-node-type").with("type", &node.node_type);
                let failure = StepFailure::review(codes::UNKNOWN_NODE_TYPE, text);
                call(keeper, &context, &engine.clock, async move {
                    Answer::Result(Err(failure))
                })
            }
        };
        let is_registered = engine.is_registered(&node.node_type);
        Self {
            index,
            progress,
            time,
            node,
            probing,
            begins,
            repeatable,
            work: Work::begin(call).await,
            cancellation,
            told,
            grace: None,
            recorder,
            redaction: engine.redaction.clone(),
            began,
            is_registered,
            observers: Arc::clone(&engine.observers),
        }
    }

    /// Tells the handler to stop, and why. If the handler was told before, the earlier reason stays, unless a
    /// cancel or a lost lease replaces it. The earlier grace time always stays.
    pub(crate) fn tell_to_stop(&mut self, reason: StopReason, grace: tokio::time::Instant) {
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
        self.grace.get_or_insert(grace);
        self.cancellation.cancel();
    }

    /// Why the handler was told to stop, and the end of its grace time.
    pub(crate) fn told_to_stop(&self) -> Option<(StopReason, tokio::time::Instant)> {
        self.told().zip(self.grace)
    }

    fn told(&self) -> Option<StopReason> {
        *self.told.borrow()
    }

    /// The outcome of a handler that ended without waiting, as an input for the machine. A probe's answer is left to `attend`, which looks
    /// for an earlier cancel first.
    pub(crate) fn ended(&mut self) -> Option<Input> {
        match &mut self.work {
            Work::Ended(_) if self.probing => None,
            Work::Ended(outcome) => outcome.take().map(|outcome| self.input(outcome)),
            Work::Spawned(_) => None,
        }
    }

    /// Waits until the handler ends, and returns its outcome as an input for the machine. Cancel safe.
    pub(crate) async fn finished(&mut self) -> Input {
        let outcome = match &mut self.work {
            Work::Ended(outcome) => match outcome.take() {
                Some(outcome) => outcome,
                None => future::pending().await,
            },
            Work::Spawned(handle) => match handle.await {
                Ok(outcome) => outcome,
                // The task was aborted, because the runtime shuts down.
                Err(error) => Err(error.to_string()),
            },
        };
        self.input(outcome)
    }

    fn input(&self, outcome: Outcome) -> Input {
        match outcome {
            Ok(Answer::Probe(effect)) => self.probed(effect),
            Ok(Answer::Result(result)) => self.finished_with(result),
            Err(tech) => {
                let text = Text::key("error-handler-panicked").with("label", &self.node.label);
                self.cut_off(StepFailure::fatal(codes::HANDLER_PANICKED, text).tech(tech))
            }
        }
    }

    /// The input for a handler that did not return within its grace time.
    pub(crate) fn unanswered(&self) -> Input {
        self.cut_off(StepFailure::stopped())
    }

    /// The input for a handler that did not return. If the call follows a wait, the outcome is known: the
    /// effect was the request, and the request is done.
    fn cut_off(&self, mut failure: StepFailure) -> Input {
        if self.probing {
            return self.probed(Probe::Unknown);
        }
        if self.begins && !self.repeatable {
            failure.class = FailureClass::OutcomeUnknown;
        }
        self.finished_with(Err(failure.printable(&self.redaction)))
    }

    fn probed(&self, effect: Probe) -> Input {
        Input::Probed {
            index: self.index,
            effect,
            notes: self.notes(),
            told: self.told(),
        }
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
