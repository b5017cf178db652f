//! Plans the driver's next action: skips steps that must not run, moves the status along with the phases, and
//! opens the next step.

use serde_json::json;

use super::{Attendance, End, Env, Next, Role, draft::Draft, phases, status, steps, timers, view};
use crate::{
    error::StepFailure,
    i18n::Text,
    observe::LogLevel,
    ports::RunState,
    run::{
        DeliveryState, InvalidTransition, Outcome, Phase, SignatureState, Status, StepState,
        WaitKind,
    },
    time::Timestamp,
};

/// Finds the driver's next action. If the execution has come to its end, notes that in the draft.
pub(super) fn next(draft: &mut Draft<'_>) -> Result<Next, InvalidTransition> {
    let works = draft.role == Role::Worker;
    while draft.end.is_none() {
        match draft.execution().status {
            Status::Completed | Status::Failed | Status::Canceled => return Ok(Next::Done),
            // If a handler was at work when the pause came, the driver lets it end. If this process has opened
            // the step and not yet called its handler, the step begins in spite of the pause.
            Status::Paused | Status::NeedsReview
                if !works || draft.attendance != Attendance::NotBegun =>
            {
                return Ok(Next::Rest);
            }
            Status::Queued if let Some(start) = timers::start_at(draft.state(), draft.clock) => {
                await_start(draft, start);
                return Ok(Next::Rest);
            }
            Status::Queued if works => {
                status::end_wait(draft);
                status::begin(draft)?;
                draft.log_run(LogLevel::Ok, Text::key("log-started"));
                continue;
            }
            Status::Queued => return Ok(Next::Rest),
            _ => {}
        }
        if let Some(index) = view::open_step(draft.state()) {
            if draft.attendance == Attendance::AtWork {
                return Ok(Next::Attend);
            }
            if !works {
                return Ok(Next::Rest);
            }
            match call(draft, index) {
                Ok(next) => return Ok(next),
                Err(failure) => {
                    let outcome = match draft.has_begun {
                        true => Outcome::Unknown,
                        false => Outcome::Known,
                    };
                    steps::fail(draft, index, failure, outcome)?;
                    continue;
                }
            }
        }
        if view::is_stopped(draft.state()) {
            return Ok(Next::Rest);
        }
        // Skip preflight while waiting for people: no step is about to start.
        let waits = view::waiting_step(draft.state()).is_some();
        if draft.execution().preflight_due && !waits {
            return Ok(if works { Next::Preflight } else { Next::Rest });
        }
        settle_status(draft)?;
        if draft.is_reduced() {
            return Ok(Next::Rest);
        }
        let mut states = draft.state().steps.iter();
        let Some(index) = states.position(|step| !step.state.is_ended()) else {
            draft.end = Some(End::Completed);
            break;
        };
        // A signal or a timer ends a step's wait for people; there is nothing to call.
        if waits || is_waiting_still(draft) || !works {
            return Ok(Next::Rest);
        }
        if let Some(reason) = reason_to_skip(draft.state(), draft.env, index) {
            steps::skip(draft, index, reason);
            continue;
        }
        match view::is_wanted(draft.state(), index) {
            Ok(true) => {}
            Ok(false) => {
                steps::skip(draft, index, steps::UNWANTED);
                continue;
            }
            Err(failure) => {
                steps::fail_unopened(draft, index, failure)?;
                continue;
            }
        }
        if !enter_phase(draft, index)? {
            return Ok(Next::Rest);
        }
        match steps::open(draft, index) {
            Ok(params) => draft.params = Some(params),
            Err(failure) => steps::fail_unopened(draft, index, failure)?,
        }
    }
    Ok(Next::Done)
}

/// The action that calls the open step's handler: to run, to resume, or to be probed. Fails if a person has
/// changed the data since the step was opened, and its parameters can no longer be resolved.
fn call(draft: &mut Draft<'_>, index: usize) -> Result<Next, StepFailure> {
    let state = draft.state().steps[index].state;
    if matches!(state, StepState::Probing(_)) {
        let params = view::params_to_probe(draft.env, draft.state(), index);
        return Ok(Next::Probe { index, params });
    }
    let params = match draft.params.take() {
        Some(params) => params,
        None => view::resolved(draft.env, draft.state(), index)?,
    };
    let resolution = view::resolution(draft.state(), index);
    Ok(match (state, resolution) {
        (StepState::Resuming, Some(resolution)) => Next::Resume {
            index,
            params,
            resolution,
        },
        _ => Next::Run {
            index,
            params,
            has_begun: draft.has_begun,
        },
    })
}

/// Records that the execution waits for its start.
fn await_start(draft: &mut Draft<'_>, start: Timestamp) {
    if draft.execution().waiting_for.is_none() {
        status::wait(draft, WaitKind::Timer, Some(start), json!({"starts": true}));
    }
}

fn is_waiting_still(draft: &Draft<'_>) -> bool {
    let waiting = draft.execution().waiting_for.as_ref();
    waiting.is_some_and(|waiting| match waiting.kind {
        WaitKind::Retry => waiting.until.is_some_and(|until| until > draft.clock),
        WaitKind::Confirmation => !draft.execution().delivery_confirmed,
        WaitKind::Review
        | WaitKind::Approval
        | WaitKind::Signature
        | WaitKind::Pause
        | WaitKind::Timer
        | WaitKind::Event => true,
    })
}

/// Leaves the status `sending` or `signing` when the phase's step ends. Between two attempts the status
/// stays.
fn settle_status(draft: &mut Draft<'_>) -> Result<(), InvalidTransition> {
    let steps = &draft.state().steps;
    let under_way = |phase| {
        steps
            .iter()
            .any(|step| step.phase == phase && !step.state.is_ended() && step.started_at.is_some())
    };
    let succeeded = |phase| {
        let mut begun = steps.iter().filter(|step| step.started_at.is_some());
        let last = begun.rfind(|step| step.phase == phase);
        last.is_some_and(|step| step.state == StepState::Succeeded)
    };
    match draft.execution().status {
        Status::Sending if !under_way(Phase::Delivery) => {
            let state = if succeeded(Phase::Delivery) {
                DeliveryState::Sent
            } else {
                DeliveryState::Failed
            };
            draft.edit().delivery_state = state;
            status::change(draft, Status::Sent, "delivered")
        }
        Status::Signing if !under_way(Phase::Signature) => {
            if succeeded(Phase::Signature) {
                draft.edit().signature_state = SignatureState::Signed;
            }
            status::change(draft, Status::Signed, "signed")
        }
        _ => Ok(()),
    }
}

/// The reason and the log message for a step that must not run at all.
fn reason_to_skip(
    state: &RunState,
    env: Env<'_>,
    index: usize,
) -> Option<(&'static str, &'static str)> {
    let (node, execution) = (&state.workflow.nodes[index], &state.execution);
    // A step that has begun is not skipped for these reasons.
    if state.steps[index].started_at.is_some() {
        return None;
    }
    if execution
        .until_phase
        .is_some_and(|until| node.phase > until)
    {
        return Some(("until_phase", "log-step-skipped-until-phase"));
    }
    let runs_dry = node.phase.runs_dry() && env.dry.get(&node.node_type).is_some();
    if execution.dry_run && !runs_dry {
        return Some(("dry_run", "log-step-skipped-dry-run"));
    }
    None
}

/// Moves the status to that of the step's phase; returns `false` if a person must confirm first.
fn enter_phase(draft: &mut Draft<'_>, index: usize) -> Result<bool, InvalidTransition> {
    let target = match draft.state().steps[index].phase {
        Phase::Delivery => Status::Sending,
        Phase::Signature => Status::Signing,
        Phase::Preflight | Phase::Trigger | Phase::Render | Phase::Save => Status::Running,
    };
    if draft.execution().status == target {
        return Ok(true);
    }
    if target == Status::Running {
        status::change(draft, Status::Running, "phase")?;
        return Ok(true);
    }
    let confirms = draft.state().workflow.settings.confirm_before_delivery
        && !draft.execution().delivery_confirmed;
    let is_ready = draft.execution().status == Status::Ready;
    if draft.execution().status == Status::Running || confirms && !is_ready {
        status::change(draft, Status::Ready, "documents_ready")?;
    }
    if confirms {
        phases::set_current(draft, index);
        let detail = json!({"action": "resume"});
        status::wait(draft, WaitKind::Confirmation, None, detail);
        draft.log_run(LogLevel::Ok, Text::key("log-waiting-confirmation"));
        return Ok(false);
    }
    status::change(draft, target, "phase")?;
    Ok(true)
}
