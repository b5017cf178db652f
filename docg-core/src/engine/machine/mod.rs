//! The machine: turns a run state and inputs into a new run state, its records, and the next thing to do.
//!
//! The machine has no clock, no I/O and no randomness: time and ids come in with [`Moment`]. [`decide`] is
//! the one place that answers "what may happen next?". Below it are these layers, and each uses only layers
//! further down:
//!
//! ```text
//! rules/     one file for each kind of input        plan      the next thing to do
//! end        how an execution ends
//! steps      what happens to one step               requests  a step's requests to people
//! status     the status and its wait                phases    progress and times
//! draft      the only writer of run state           view, timers, commands   questions, no changes
//! ```
//!
//! `input` holds the inputs, and `decision` the result. `create` makes the first run state.

mod commands;
mod create;
mod decision;
mod draft;
mod end;
mod input;
mod phases;
mod plan;
mod requests;
mod rules;
mod status;
mod steps;
mod timers;
mod view;
mod without_wait;

#[cfg(test)]
mod tests;

pub use commands::{Command, allowed_commands};
pub(crate) use commands::{Verdict, judge};
pub(crate) use create::{NewExecutionFacts, Reuse, create};
pub(crate) use decision::{Decision, Next, Records};
use decision::{End, WithoutEnd};
use draft::Draft;
pub(crate) use input::{Arrived, Attendance, Checked, ClaimFacts, Env, Input, Moment, Notes, Role};
use rules::{
    approval::{self, Vote},
    attempt, awaited, claim, follow_up, preflight, resume, signals, signature,
};
pub(crate) use rules::{claim::take_apart, signals::ends};
use timers::Expiry;
pub(crate) use view::is_repeatable;
pub(crate) use without_wait::without_wait;

use std::sync::Arc;

use crate::{
    error::{ErrorContext, codes},
    i18n::Text,
    observe::Actor,
    ports::{RunState, SignalKind},
    programs,
    run::{InvalidTransition, KeptEvent},
    workflow::{Probe, StepOutcome},
};

/// The longest rest during which the holder keeps its lease, in milliseconds.
const SHORT_REST_MS: u64 = 1_000;

/// Makes a decision. If there is anything to commit, the execution's version grows by 1.
///
/// # Errors
///
/// A rule made a change of status that the table does not allow. That is a defect of the engine, and no
/// decision is returned.
pub(crate) fn decide<'a>(
    state: RunState,
    inputs: Vec<Input>,
    moment: Moment<'a>,
    env: Env<'a>,
) -> Result<Decision, InvalidTransition> {
    let mut draft = Draft::new(state, moment, env);
    let (mut arrived, mut fresh) = (Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Input::Signal(signal) => fresh.push(signal),
            Input::Arrived(signals) => arrived.extend(signals),
            other => apply(&mut draft, other)?,
        }
    }
    arrived.extend(signals::arrived(draft.state(), fresh));
    let mut without_end = None;
    if signals::ended_by_person(draft.state(), &arrived) {
        if let Some(next) = find_out_first(&mut draft, &mut arrived) {
            return Ok(finish(draft, next, None));
        }
        // A person's cancel or rejection wins over an end that no person asked for.
        draft.end = None;
    } else if !arrived.is_empty() {
        // Any other signal comes too late for an execution that ends by itself.
        without_end = end_by_itself(&mut draft)?;
    }
    for signal in arrived {
        apply_signal(&mut draft, &signal)?;
    }
    if draft.end.is_none() && !draft.execution().status.is_terminal() {
        for expiry in timers::expired(draft.state(), draft.clock) {
            expire(&mut draft, expiry)?;
        }
    }
    // A shutdown came before the handler was called: the step begins in another process, as the same attempt.
    if draft.attendance == Attendance::NotBegun
        && draft.role != Role::Worker
        && let Some(index) = view::open_step(draft.state())
    {
        steps::put_back(&mut draft, index);
    }
    let next = plan::next(&mut draft)?;
    let next = follow_up::before_rest(&mut draft, next);
    // If the end was applied before the signals, this call finds no end and changes nothing.
    without_end = end_by_itself(&mut draft)?.or(without_end);
    Ok(finish(draft, next, without_end))
}

/// Applies an input that is no signal.
fn apply(draft: &mut Draft<'_>, input: Input) -> Result<(), InvalidTransition> {
    match input {
        Input::Claimed(facts) => claim::claimed(draft, facts)?,
        Input::Preflight { issues, started_at } => preflight::finished(draft, issues, started_at)?,
        Input::Progress(fraction) => phases::progress_within_step(draft, fraction),
        Input::StepFinished {
            index,
            result,
            notes,
            told,
        } => {
            draft.take_notes(index, notes);
            attempt::finished(draft, index, result, told)?;
        }
        Input::Probed {
            index,
            effect,
            notes,
            told,
        } => {
            draft.take_notes(index, notes);
            attempt::probed(draft, index, effect, told)?;
        }
        Input::SignaturesChecked(checked) => {
            let request = timers::awaited_request(draft.state()).map(|request| request.id);
            follow_up::checked(draft, &checked);
            if let (Some(id), Checked::Answered(facts)) = (request, checked) {
                signature::reported(draft, id, &facts, &Actor::system())?;
            }
        }
        Input::Reminded(result) => follow_up::reminded(draft, result),
        Input::Signal(_) | Input::Arrived(_) => {}
    }
    Ok(())
}

/// Applies a signal, or records that it no longer applies.
fn apply_signal(draft: &mut Draft<'_>, arrived: &Arrived) -> Result<(), InvalidTransition> {
    let signal = &arrived.signal;
    draft.settle(signal.id);
    let actor = &signal.actor;
    let is_applied = match &signal.kind {
        _ if !arrived.is_expected => false,
        SignalKind::Pause { reason } => signals::pause(draft, actor, reason.as_ref())?,
        SignalKind::Cancel { reason } => signals::cancel(draft, actor, reason.as_ref())?,
        SignalKind::Resume(request) => resume::apply(draft, actor, request)?,
        SignalKind::ApprovalVote {
            approval_id,
            email,
            decision,
            comment,
        } => {
            let vote = Vote {
                approval_id: *approval_id,
                email,
                decision: *decision,
                comment: comment.as_ref(),
                received_at: signal.received_at,
            };
            approval::voted(draft, vote)?
        }
        SignalKind::SignatureFacts {
            signature_request_id,
            facts,
        } => signature::reported(draft, *signature_request_id, facts, actor)?,
        SignalKind::Event { name, key, payload } => {
            let event = KeptEvent {
                name: name.clone(),
                key: key.clone(),
                payload: Arc::clone(payload),
                received_at: signal.received_at,
            };
            awaited::received(draft, actor, event)
        }
        SignalKind::NoWorker { node_types } => {
            signals::no_worker(draft, node_types);
            true
        }
    };
    if !is_applied {
        signals::ignore(draft, signal);
    }
    Ok(())
}

/// Ends a wait that has expired.
fn expire(draft: &mut Draft<'_>, expiry: Expiry) -> Result<(), InvalidTransition> {
    match expiry {
        Expiry::Review => {
            let error = ErrorContext {
                code: codes::REVIEW_EXPIRED.into(),
                human: Text::key("error-review-expired"),
                tech: None,
            };
            draft.end = Some(End::Failed("review_expired", error));
            Ok(())
        }
        Expiry::Approval => approval::expired(draft),
        Expiry::Signatures => signature::expired(draft, Actor::system()),
        Expiry::Awaited => awaited::elapsed(draft),
    }
}

/// Returns the action that finds out whether the open step's effect happened, before a person ends the
/// execution; `None` if that is known. The action carries the arrived signals, which stay in the inbox. They are
/// applied ([`Input::Arrived`]) once the action has told what happened to the effect.
fn find_out_first(draft: &mut Draft<'_>, signals: &mut Vec<Arrived>) -> Option<Next> {
    match draft.attendance {
        Attendance::NotBegun => None,
        Attendance::AtWork => {
            let signals = std::mem::take(signals);
            Some(Next::Stop { signals })
        }
        Attendance::Nobody => {
            let index = view::effect_in_doubt(draft.state(), draft.env)?;
            steps::put_in_doubt(draft, index);
            Some(Next::ProbeToEnd {
                index,
                params: view::params_to_probe(draft.env, draft.state(), index),
                signals: std::mem::take(signals),
            })
        }
    }
}

/// Applies the end of the execution that no person asked for, if there is one. Returns the state and the
/// records without that end.
fn end_by_itself(draft: &mut Draft<'_>) -> Result<Option<WithoutEnd>, InvalidTransition> {
    let Some(end) = draft.end.take() else {
        return Ok(None);
    };
    let without_end = Box::new(draft.snapshot());
    end::by_itself(draft, end)?;
    Ok(Some(without_end))
}

fn finish(mut draft: Draft<'_>, next: Next, without_end: Option<WithoutEnd>) -> Decision {
    let (now, works) = (draft.clock, draft.role == Role::Worker);
    let wake_at = match &next {
        Next::Done => None,
        Next::Rest => timers::next_wake(draft.state(), draft.role, now),
        _ => Some(now),
    };
    let is_soon = wake_at.is_some_and(|wake| wake.millis_since(now) <= SHORT_REST_MS);
    let keeps_lease = match &next {
        Next::Done => false,
        Next::Stop { .. } | Next::ProbeToEnd { .. } => true,
        _ if draft.attendance == Attendance::AtWork => true,
        Next::Rest => works && is_soon,
        _ => works,
    };
    let may_be_held = match &next {
        Next::Preflight => true,
        Next::Run { index, .. } => view::computes(draft.state(), draft.env, *index),
        _ => false,
    };
    let (is_changed, now) = (!draft.records().is_empty(), draft.now);
    let execution = draft.edit();
    execution.wake_at = wake_at;
    if is_changed {
        execution.version += 1;
        execution.updated_at = now;
    }
    let (state, records) = draft.into_parts();
    Decision {
        state,
        records,
        next,
        keeps_lease,
        may_be_held,
        without_end,
    }
}

/// True if a decision is cheap enough to be evaluated on the runtime's own threads.
pub(crate) fn is_cheap(state: &RunState, inputs: &[Input], role: Role) -> bool {
    let is_little = |input: &Input| match input {
        Input::StepFinished {
            result: Ok(StepOutcome::Done(output)),
            ..
        }
        | Input::Probed {
            effect: Probe::Done(output),
            ..
        } => programs::is_little(output),
        _ => true,
    };
    // A decision that only applies signals evaluates no expression. So a person can cancel an execution
    // however costly its expressions are.
    let is_signal = |input: &Input| {
        matches!(
            input,
            Input::Claimed(_) | Input::Signal(_) | Input::Arrived(_)
        )
    };
    role == Role::SignalApplier && inputs.iter().all(is_signal)
        || inputs.iter().all(is_little) && view::is_small(state)
}
