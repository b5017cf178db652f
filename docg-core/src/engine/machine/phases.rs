//! The current step, the progress, and the times of phases.

use std::sync::Arc;

use super::{draft::Draft, view};
use crate::{
    event::EventData,
    run::{CurrentStep, Phase, PhaseTimes, Status},
    time::{MAX_DURATION_MS, Timestamp},
};

pub(super) fn set_current(draft: &mut Draft<'_>, index: usize) {
    let step = &draft.state().steps[index];
    let current = CurrentStep {
        index: step.position,
        label: Arc::clone(&step.label),
        node_id: step.node_id.clone(),
        node_type: Arc::clone(&step.node_type),
    };
    draft.edit().current_step = Some(Arc::new(current));
}

/// Recomputes the progress from the finished steps, and emits an event if it has grown.
pub(super) fn update_progress(draft: &mut Draft<'_>, fraction_of_current: f32) {
    let steps = &draft.state().steps;
    let ended = steps.iter().filter(|step| step.state.is_ended()).count();
    let preflight = usize::from(!draft.execution().preflight_due);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage of a few hundred steps"
    )]
    let percent = {
        let done = (ended + preflight) as f32 + fraction_of_current.clamp(0.0, 1.0);
        ((100.0 * done / (steps.len() + 1) as f32) as u8).min(99)
    };
    let execution = draft.edit();
    if percent > execution.progress && !execution.status.is_terminal() {
        execution.progress = percent;
        draft.event(EventData::Progress { progress: percent });
    }
}

/// Applies the progress that a handler reports, unless the execution is paused.
pub(super) fn progress_within_step(draft: &mut Draft<'_>, fraction: f32) {
    if draft.execution().status != Status::Paused {
        update_progress(draft, fraction);
    }
}

/// Starts to count work time in a phase.
pub(super) fn work(draft: &mut Draft<'_>, phase: Phase) {
    let now = draft.now;
    let times = times_of(draft, phase, now);
    times.completed_at = None;
    times.resumed_at.get_or_insert(now);
}

/// Counts work time again for the step under way, because a pause has ended.
pub(super) fn work_again(draft: &mut Draft<'_>) {
    if view::open_step(draft.state()).is_some()
        && let Some(index) = view::current(draft.state())
    {
        work(draft, draft.state().steps[index].phase);
    }
}

/// The times of a phase. A phase without times begins at `start`.
pub(super) fn times_of<'d>(
    draft: &'d mut Draft<'_>,
    phase: Phase,
    start: Timestamp,
) -> &'d mut PhaseTimes {
    draft.edit().phase_metrics.0[phase as usize].get_or_insert_with(|| PhaseTimes::new(start))
}

/// Stops counting work time. If the execution waits for people, waiting time counts from now on.
pub(super) fn rest(draft: &mut Draft<'_>) {
    let now = draft.now;
    for times in draft.edit().phase_metrics.0.iter_mut().flatten() {
        if let Some(resumed) = times.resumed_at.take() {
            times.duration_ms = lengthened(times.duration_ms, now.millis_since(resumed));
        }
    }
    let execution = draft.execution();
    let waiting = execution.waiting_for.as_ref();
    // Before a worker has started the execution, no phase has begun.
    if execution.started_at.is_some() && waiting.is_some_and(|it| it.kind.is_no_work()) {
        let phase = view::current_phase(draft.state());
        times_of(draft, phase, now).waiting_since.get_or_insert(now);
    }
}

/// Stops counting work time, because a step of the phase has ended.
pub(super) fn step_ended(draft: &mut Draft<'_>, phase: Phase) {
    rest(draft);
    let now = draft.now;
    if let Some(times) = &mut draft.edit().phase_metrics.0[phase as usize] {
        times.completed_at = Some(now);
    }
}

/// Stops counting time in all phases, because the execution has ended.
pub(super) fn close(draft: &mut Draft<'_>) {
    rest(draft);
    let now = draft.now;
    for times in draft.edit().phase_metrics.0.iter_mut().flatten() {
        times.completed_at.get_or_insert(now);
    }
}

/// A duration extended by another, limited to the longest allowed one.
pub(super) fn lengthened(duration_ms: u64, by_ms: u64) -> u64 {
    duration_ms.saturating_add(by_ms).min(MAX_DURATION_MS)
}
