//! Attends a handler at work: waits for its result and for other inputs, and stops it when needed.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Driver, LeaseLost};
use crate::{
    engine::{
        decide::{self, Call, Input, Notes, Verdict, judge},
        step_run::{StepRun, Task},
    },
    error::StepFailure,
    ports::{RunState, Signal, SignalKind},
    workflow::{Probe, StopReason},
};

/// The shortest time between two commits of progress within a step.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl Driver {
    /// Waits for the handler's result, or for an input that comes first.
    pub(super) async fn attend(
        &mut self,
        state: &RunState,
        mut step: StepRun,
    ) -> Result<Vec<Input>, LeaseLost> {
        let (mut time, mut progress) = (step.time.clone(), step.progress.clone());
        loop {
            let ends = time.borrow_and_update().ends();
            tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => {
                    tracing::warn!(execution_id = %state.execution.id, "the lease is lost: the handler was told to stop");
                    self.give_up(step).await;
                    return Err(LeaseLost);
                }
                // Before the handler's answer: a cancel that came first decides about the effect.
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if signals.is_empty() {
                        continue;
                    }
                    if ends_run(state, &signals) {
                        let grace = self.grace();
                        return Ok(self.end(state, step, signals, grace).await);
                    }
                    self.step = Some(step);
                    return Ok(signals);
                }
                input = step.finished() => return Ok(vec![input]),
                () = self.held_long_enough() => step = self.commit_held_beside(state, step).await?,
                // The deadline moved, because the handler waits for a place or got one.
                Ok(()) = time.changed() => {}
                () = self.time_is_up(ends) => {
                    return Ok(self.stop(state, step, StopReason::Deadline).await);
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
                    step = self.commit_held_beside(state, step).await?;
                    return Ok(self.stop(state, step, StopReason::Shutdown).await);
                }
            }
        }
    }

    /// Tells a handler to stop and gives it its grace time. Returns the resulting input. A cancel that
    /// arrives meanwhile overrides the first reason.
    async fn stop(
        &mut self,
        state: &RunState,
        mut step: StepRun,
        reason: StopReason,
    ) -> Vec<Input> {
        step.tell_to_stop(reason);
        let grace = self.grace();
        loop {
            tokio::select! {
                biased;
                () = self.handle.signal.notified() => {
                    let signals = self.inbox(state).await;
                    if ends_run(state, &signals) {
                        return self.end(state, step, signals, grace).await;
                    }
                    // The commit that follows finds other signals.
                }
                input = step.finished() => return vec![input],
                () = tokio::time::sleep_until(grace) => return vec![step.unanswered()],
            }
        }
    }

    /// Stops the handler of an execution that a person ends. If the outcome is unknown, probes the effect.
    async fn end(
        &self,
        state: &RunState,
        mut step: StepRun,
        signals: Vec<Input>,
        grace: Instant,
    ) -> Vec<Input> {
        step.tell_to_stop(StopReason::Cancel);
        let input = tokio::select! {
            biased;
            input = step.finished() => input,
            () = tokio::time::sleep_until(grace) => step.unanswered(),
        };
        drop(step);
        let input = match input {
            Input::StepFinished {
                index,
                result: Err(failure),
                notes,
                ..
            } if decide::leaves_doubt(state, self.engine.env(), index, failure.class) => {
                self.probe_to_drop(state, index, Some(failure), notes).await
            }
            input => input,
        };
        let mut inputs = vec![input];
        inputs.extend(signals);
        inputs
    }

    /// Probes the effects that may have happened, before a person ends the execution. `left` is true while
    /// nobody attends the steps that an earlier holder left open.
    pub(super) async fn ask_before_end(
        &self,
        state: &RunState,
        inputs: &mut Vec<Input>,
        left: bool,
    ) {
        let open = decide::open_effects(state, self.engine.env(), left);
        let mut known = Vec::with_capacity(open.len());
        for index in open {
            let notes = Notes::default();
            known.push(self.probe_to_drop(state, index, None, notes).await);
        }
        let is_signal = |input: &Input| matches!(input, Input::Signal(_));
        let signals = inputs.iter().position(is_signal).unwrap_or_default();
        inputs.splice(signals..signals, known);
    }

    /// Probes an effect that will not be picked up, because a person ends the execution. `failure` is the
    /// error that its handler returned.
    pub(super) async fn probe_to_drop(
        &self,
        state: &RunState,
        index: usize,
        failure: Option<StepFailure>,
        notes: Notes,
    ) -> Input {
        Input::StepDropped {
            index,
            effect: self.probe(state, index).await,
            failure,
            notes,
        }
    }

    /// Drops a step that was opened and has not begun, because a person ends the execution. `asked` is true
    /// if the step was probed before: an earlier attempt may have begun its effect, so it is probed again.
    pub(super) async fn drop_unbegun(&self, state: &RunState, index: usize, asked: bool) -> Input {
        let notes = Notes::default();
        if asked {
            return self.probe_to_drop(state, index, None, notes).await;
        }
        Input::StepDropped {
            index,
            effect: Probe::NotDone,
            failure: None,
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
        let params = decide::params_of(&self.engine.registry, state, index)
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
        let ends = probe.time.borrow().ends();
        let time_is_up = self.time_is_up(ends);
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

    /// The end of the grace time of a handler that is told to stop now.
    fn grace(&self) -> Instant {
        Instant::now() + self.engine.options.cancel_grace
    }

    /// Gives the handler its grace time after nothing can be committed any more. Its result is dropped.
    async fn give_up(&self, mut step: StepRun) {
        step.tell_to_stop(StopReason::LeaseLost);
        // A late answer and no answer have the same result here.
        let _ = tokio::time::timeout_at(self.grace(), step.finished()).await;
    }

    pub(super) async fn give_up_step(&mut self) {
        if let Some(step) = self.step.take() {
            self.give_up(step).await;
        }
    }

    /// Commits the held records. If that is no longer possible, stops the handler with its grace time.
    async fn commit_held_beside(
        &mut self,
        state: &RunState,
        step: StepRun,
    ) -> Result<StepRun, LeaseLost> {
        match self.commit_held(state).await {
            Ok(()) => Ok(step),
            Err(LeaseLost) => {
                self.give_up(step).await;
                Err(LeaseLost)
            }
        }
    }
}

pub(super) fn is_cancel(input: &Input) -> bool {
    matches!(input, Input::Signal(signal) if matches!(signal.kind, SignalKind::Cancel { .. }))
}

/// True if a signal in the inbox ends the execution on a person's behalf: a cancel, or a resume that rejects
/// it. A signal that was sent on a version counts only as the first on that version.
pub(super) fn ends_run(state: &RunState, inputs: &[Input]) -> bool {
    let signals = inputs.iter().filter_map(|input| match input {
        Input::Signal(signal) => Some(signal),
        _ => None,
    });
    let ends = |(place, signal): (usize, &Signal)| {
        let call = match &signal.kind {
            SignalKind::Cancel { .. } => Call::Cancel,
            SignalKind::Resume(how) if how.approved == Some(false) => Call::Resume,
            _ => return false,
        };
        let if_version = signal.if_version;
        if_version.is_none_or(|it| place == 0 && it == state.execution.version)
            && judge(&state.execution, call) == Verdict::Apply
    };
    signals.enumerate().any(ends)
}
