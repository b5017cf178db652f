//! A handler is at work: what its driver waits for meanwhile, and how it is ended.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::{Driver, LeaseLost};
use crate::{
    engine::{
        decide::{self, Call, Input, Notes, Verdict, judge},
        step_run::{StepRun, Task},
    },
    error::FailureClass,
    ports::{RunState, Signal, SignalKind},
    workflow::Probe,
};

/// Progress within a step is committed no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl Driver {
    /// Waits for a handler, or for what comes first.
    pub(super) async fn attend(
        &mut self,
        state: &RunState,
        mut step: StepRun,
    ) -> Result<Vec<Input>, LeaseLost> {
        let (ends, mut progress) = (step.ends, step.progress.clone());
        loop {
            tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => {
                    tracing::warn!(execution_id = %state.execution.id, "the lease is lost: the handler was told to stop");
                    self.stop(&mut step).await;
                    return Err(LeaseLost);
                }
                // Before the handler's answer: a cancel that came first sees to what has begun.
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if signals.is_empty() {
                        continue;
                    }
                    if cancels(state, &signals) {
                        return Ok(self.cancel(state, step, signals).await);
                    }
                    self.step = Some(step);
                    return Ok(signals);
                }
                input = step.finished() => return Ok(vec![input]),
                () = self.held_long_enough() => {
                    self.commit_held_beside(state, &mut step).await?;
                }
                () = self.time_is_up(ends) => {
                    let input = match self.stop(&mut step).await {
                        Some(input) => input,
                        None => step.timed_out(),
                    };
                    return Ok(vec![input]);
                }
                Ok(()) = progress.changed() => {
                    let now = self.engine.clock.elapsed();
                    let fraction = *progress.borrow_and_update();
                    if self.progress_at.is_none_or(|last| last + PROGRESS_INTERVAL <= now) {
                        self.progress_at = Some(now);
                        step.progress = progress;
                        self.step = Some(step);
                        return Ok(vec![Input::Progress(fraction)]);
                    }
                }
                () = self.shutting_down() => {
                    self.drains = true;
                    self.commit_held_beside(state, &mut step).await?;
                    let answer = self.stop(&mut step).await;
                    return match answer.and_then(Input::after_stop) {
                        Some(input) => Ok(vec![input]),
                        // Whoever takes over finds the step open.
                        None => {
                            drop(step);
                            self.hand_back().await;
                            Err(LeaseLost)
                        }
                    };
                }
            }
        }
    }

    /// Ends a handler whose execution is canceled, and finds out what became of its effect.
    async fn cancel(
        &mut self,
        state: &RunState,
        mut step: StepRun,
        signals: Vec<Input>,
    ) -> Vec<Input> {
        let index = step.index;
        let input = match self.stop(&mut step).await {
            Some(Input::Probed { effect, notes, .. }) => Input::StepDropped {
                index,
                effect,
                notes,
            },
            Some(Input::StepFinished {
                result: Err(failure),
                notes,
                ..
            }) if failure.class == FailureClass::OutcomeUnknown && step.leaves_doubt() => {
                self.probe_to_drop(state, index, notes).await
            }
            Some(input) => input,
            None if step.is_probe() => step.dropped(Probe::Unknown),
            None if step.leaves_doubt() => {
                let effect = self.probe(state, index).await;
                step.dropped(effect)
            }
            None => step.dropped(Probe::NotDone),
        };
        let mut inputs = vec![input];
        inputs.extend(signals);
        inputs
    }

    /// Finds out what became of effects that nobody here attends and that may have begun, before their
    /// execution is canceled.
    pub(super) async fn ask_before_cancel(&self, state: &RunState, inputs: &mut Vec<Input>) {
        let env = self.engine.env();
        let open = if matches!(inputs.first(), Some(Input::TakenOver)) {
            decide::first_effects(state, env)
        } else {
            // A worker has picked up what was left open, or asked about it, before it comes to signals.
            let left = self.shutdown.is_none();
            decide::open_effects(state, env, left)
        };
        let mut known = Vec::with_capacity(open.len());
        for index in open {
            known.push(self.probe_to_drop(state, index, Notes::default()).await);
        }
        let is_signal = |input: &Input| matches!(input, Input::Signal(_));
        let signals = inputs.iter().position(is_signal).unwrap_or_default();
        inputs.splice(signals..signals, known);
    }

    /// Finds out what became of an effect that is not picked up, because the execution is canceled.
    pub(super) async fn probe_to_drop(
        &self,
        state: &RunState,
        index: usize,
        notes: Notes,
    ) -> Input {
        Input::StepDropped {
            index,
            effect: self.probe(state, index).await,
            notes,
        }
    }

    async fn probe(&self, state: &RunState, index: usize) -> Probe {
        let shown = || {
            state.steps[index]
                .data_in
                .as_ref()
                .map(|data| Arc::new(data.to_value()))
        };
        let params = decide::params_of(state, index)
            .or_else(shown)
            .unwrap_or_default();
        let mut probe = StepRun::begin(
            &self.engine,
            state,
            &self.handle,
            index,
            params,
            Task::Probe,
        )
        .await;
        let time_is_up = self.time_is_up(probe.ends);
        tokio::select! {
            input = probe.finished() => match input {
                Input::Probed { effect, .. } => effect,
                _ => Probe::Unknown,
            },
            () = time_is_up => Probe::Unknown,
        }
    }

    /// Returns once a handler has used up its time.
    fn time_is_up(&self, ends: Duration) -> BoxFuture<'_, ()> {
        let left = ends.saturating_sub(self.engine.clock.elapsed());
        self.engine.clock.sleep(left)
    }

    /// Tells a handler to stop and gives it the grace time; `None` where it did not return.
    async fn stop(&self, step: &mut StepRun) -> Option<Input> {
        step.tell_to_stop();
        tokio::select! {
            biased;
            input = step.finished() => Some(input),
            () = tokio::time::sleep(self.engine.options.cancel_grace) => None,
        }
    }

    pub(super) async fn stop_step(&mut self) {
        if let Some(mut step) = self.step.take() {
            self.stop(&mut step).await;
        }
    }

    /// Commits what is held back. Where that is no longer possible, the handler beside has its grace.
    async fn commit_held_beside(
        &mut self,
        state: &RunState,
        step: &mut StepRun,
    ) -> Result<(), LeaseLost> {
        let committed = self.commit_held(state).await;
        if committed.is_err() {
            self.stop(step).await;
        }
        committed
    }
}

pub(super) fn is_cancel(input: &Input) -> bool {
    matches!(input, Input::Signal(signal) if matches!(signal.kind, SignalKind::Cancel { .. }))
}

/// Whether the inbox holds a cancel that will be applied. One that is sent on a version is, as the
/// first signal on that version.
pub(super) fn cancels(state: &RunState, inputs: &[Input]) -> bool {
    let signals = inputs.iter().filter_map(|input| match input {
        Input::Signal(signal) => Some(signal),
        _ => None,
    });
    let is_cancel = |(place, signal): (usize, &Signal)| {
        let if_version = signal.if_version;
        matches!(signal.kind, SignalKind::Cancel { .. })
            && if_version.is_none_or(|it| place == 0 && it == state.execution.version)
    };
    signals.enumerate().any(is_cancel) && judge(&state.execution, Call::Cancel) == Verdict::Apply
}
