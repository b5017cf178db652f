//! Attends to a handler at work: waits for its answer and for other inputs, and tells it to stop.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Driver, Exit,
    step_run::{StepRun, Task},
};
use crate::{
    engine::machine::{Arrived, Input},
    ports::RunState,
    workflow::StopReason,
};

/// The shortest time between two commits of progress within a step.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

impl Driver {
    /// Waits for the handler's answer, or for another input that comes earlier: a signal or progress.
    pub(super) async fn attend(
        &mut self,
        state: &RunState,
        mut step: StepRun,
    ) -> Result<Vec<Input>, Exit> {
        let (mut time, mut progress) = (step.time.clone(), step.progress.clone());
        loop {
            let (ends, stop) = (time.borrow_and_update().ends(), step.told_to_stop());
            let is_canceled = stop.is_some_and(|(reason, _)| reason == StopReason::Cancel);
            let grace = stop.map(|(_, grace)| grace);
            tokio::select! {
                biased;
                () = self.handle.lost.cancelled() => {
                    tracing::warn!(execution_id = %state.execution.id, "the lease is lost: the handler was told to stop");
                    self.abandon(step).await;
                    return Err(Exit::LeaseLost);
                }
                // Polled before the handler's answer, so that a cancel which came before the answer wins.
                () = self.handle.signal.notified(), if !is_canceled => {
                    let signals = self.inbox(state).await;
                    if !signals.is_empty() {
                        self.step = Some(step);
                        return Ok(signals);
                    }
                }
                input = step.finished() => return Ok(vec![input]),
                () = at(grace), if grace.is_some() => return Ok(vec![step.unanswered()]),
                () = self.held_long_enough() => step = self.commit_held_beside(state, step).await?,
                // The deadline moved: the handler waits for a place in a shared pool, or got one.
                Ok(()) = time.changed(), if grace.is_none() => {}
                () = self.time_is_up(ends), if grace.is_none() => {
                    step.tell_to_stop(StopReason::Deadline, self.grace());
                }
                Ok(()) = progress.changed(), if grace.is_none() => {
                    let now = self.engine.clock.elapsed();
                    let fraction = *progress.borrow_and_update();
                    if self.progress_at.is_none_or(|last| last + PROGRESS_INTERVAL <= now) {
                        self.progress_at = Some(now);
                        step.progress = progress;
                        self.step = Some(step);
                        return Ok(vec![Input::Progress(fraction)]);
                    }
                }
                () = self.mode.stopped(), if grace.is_none() => {
                    step = self.commit_held_beside(state, step).await?;
                    step.tell_to_stop(StopReason::Shutdown, self.grace());
                }
            }
        }
    }

    /// Tells the handler at work to stop, because a person ends the execution.
    pub(super) async fn stop(
        &mut self,
        state: &RunState,
        signals: Vec<Arrived>,
    ) -> Result<Vec<Input>, Exit> {
        let mut inputs = Vec::new();
        if let Some(mut step) = self.step.take() {
            step.tell_to_stop(StopReason::Cancel, self.grace());
            inputs = Box::pin(self.attend(state, step)).await?;
        }
        inputs.push(Input::Arrived(signals));
        Ok(inputs)
    }

    /// Probes an effect, because a person ends the execution and its step will not run again.
    pub(super) async fn probe_to_end(
        &self,
        state: &RunState,
        index: usize,
        params: Arc<Value>,
        signals: Vec<Arrived>,
    ) -> Vec<Input> {
        let task = Task::Probe;
        let mut probe =
            StepRun::begin(&self.engine, state, &self.handle, index, params, task).await;
        let ends = probe.time.borrow().ends();
        let time_is_up = self.time_is_up(ends);
        let mut answer = tokio::select! {
            answer = probe.finished() => answer,
            () = time_is_up => probe.unanswered(),
        };
        if let Input::Probed { told, .. } = &mut answer {
            *told = Some(StopReason::Cancel);
        }
        vec![answer, Input::Arrived(signals)]
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

    /// Tells a handler to stop and waits for its grace time, when nothing can be committed any more. Its
    /// answer is dropped.
    async fn abandon(&self, mut step: StepRun) {
        step.tell_to_stop(StopReason::LeaseLost, self.grace());
        // A late answer and no answer have the same result here.
        let _ = tokio::time::timeout_at(self.grace(), step.finished()).await;
    }

    /// Abandons the handler at work, if there is one.
    pub(super) async fn abandon_step(&mut self) {
        if let Some(step) = self.step.take() {
            self.abandon(step).await;
        }
    }

    /// Commits the held records. If that is no longer possible, tells the handler to stop and waits for its
    /// grace time.
    async fn commit_held_beside(
        &mut self,
        state: &RunState,
        step: StepRun,
    ) -> Result<StepRun, Exit> {
        match self.commit_held(state).await {
            Ok(()) => Ok(step),
            Err(exit) => {
                self.abandon(step).await;
                Err(exit)
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
