//! A handler is at work: what its driver waits for meanwhile, and how it is ended.

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
    run::Status,
    workflow::{Probe, StopReason},
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
                // Before the handler's answer: a cancel that came first sees to what has begun.
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
                // It waits for a place, or has got one.
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

    /// Tells a handler to stop and gives it its grace time: the input that comes of it. A cancel that
    /// arrives meanwhile outweighs what the handler was told first.
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
                    // Others are found by the commit that follows.
                }
                input = step.finished() => return vec![input],
                () = tokio::time::sleep_until(grace) => return vec![step.unanswered()],
            }
        }
    }

    /// Ends a handler whose execution a person ends, and finds out what became of its effect.
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

    /// Finds out what became of effects that nobody here attends and that may have begun, before a
    /// person ends their execution. Steps that an earlier holder has `left` open are among them.
    pub(super) async fn ask_before_end(
        &self,
        state: &RunState,
        inputs: &mut Vec<Input>,
        left: bool,
    ) {
        let env = self.engine.env();
        let begun_unseen = matches!(inputs.first(), Some(Input::TakenOver))
            && state.execution.status == Status::Queued;
        let open = if begun_unseen {
            decide::first_effects(state, env)
        } else {
            decide::open_effects(state, env, left)
        };
        let mut known = Vec::with_capacity(open.len());
        for index in open {
            let notes = Notes::default();
            known.push(self.probe_to_drop(state, index, None, notes).await);
        }
        let is_signal = |input: &Input| matches!(input, Input::Signal(_));
        let signals = inputs.iter().position(is_signal).unwrap_or_default();
        inputs.splice(signals..signals, known);
    }

    /// Finds out what became of an effect that is not picked up, because a person ends the execution.
    /// `failure` is what its handler said.
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

    /// A person ends the execution before a step that was opened has begun. Where it was `asked` about,
    /// an earlier attempt may have begun what this one would have picked up.
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

    /// When the grace time of a handler ends that is told to stop now.
    fn grace(&self) -> Instant {
        Instant::now() + self.engine.options.cancel_grace
    }

    /// Nothing can be committed any more: the handler has its grace time, and nobody waits for what it
    /// returns.
    async fn give_up(&self, mut step: StepRun) {
        step.tell_to_stop(StopReason::LeaseLost);
        // Late or never is the same here.
        let _ = tokio::time::timeout_at(self.grace(), step.finished()).await;
    }

    pub(super) async fn give_up_step(&mut self) {
        if let Some(step) = self.step.take() {
            self.give_up(step).await;
        }
    }

    /// Commits what is held back. Where that is no longer possible, the handler beside has its grace.
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

/// Whether the inbox holds a signal by which a person ends the execution: a cancel, or a resume that
/// rejects it. One that is sent on a version counts only as the first signal on that version.
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
