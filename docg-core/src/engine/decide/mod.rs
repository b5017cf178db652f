//! The pure core: run state and inputs give the new run state, its records, and the next thing to do.
//!
//! It has no clock, no I/O and no randomness: time and ids come in with [`Moment`]. The driver and recovery
//! use this one function. Inside, [`draft`] is the only writer of run state, and checks every change of
//! status against the table. `advance` finds the next thing to do. Each other file applies one kind of input.

mod advance;
mod approval;
mod calls;
mod create;
mod draft;
mod earlier_data;
mod follow_up;
mod interrupted;
mod preflight;
mod resume;
mod signal;
mod signature;
mod step;
mod stop;
mod timers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

pub use calls::{Call, allowed_calls};
pub(crate) use calls::{Verdict, judge};
pub(crate) use create::{NewExecutionFacts, Reuse, create};
use draft::Draft;
pub(crate) use interrupted::is_interrupted;
pub(crate) use stop::leaves_doubt;

use crate::{
    error::StepFailure,
    event::Event,
    ids::{IdSource, SignalId},
    observe::{AuditDraft, AuditEvent, LogDraft, LogEntry, Redaction},
    ports::{RunState, Signal},
    preflight::Issue,
    programs,
    run::{Activity, Execution, InvalidTransition},
    signature::{ProviderError, SignerFact},
    time::Timestamp,
    workflow::{
        DryRegistry, EffectClass, Handler, Node, Probe, Registry, Resolution, StepOutcome,
        StopReason,
        variables::{self, Scope},
    },
};

/// The declarations that decisions use besides the run state; no code of handlers.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) dry: &'a DryRegistry,
    pub(crate) redaction: &'a Redaction,
    /// The interval between questions about an open signature request, in milliseconds.
    pub(crate) signature_check_ms: u64,
}

/// The time of a decision, and the source of its ids.
pub(crate) struct Moment<'a> {
    pub(crate) now: Timestamp,
    /// The time for records. From one decision to the next it grows by the time that has passed, even if the
    /// clock was set meanwhile.
    pub(crate) recorded: Timestamp,
    pub(crate) ids: &'a mut dyn IdSource,
    /// True if the caller will do the next thing. A caller that only applies signals opens no step.
    pub(crate) opens_steps: bool,
}

/// An input of a decision.
#[derive(Debug)]
pub(crate) enum Input {
    /// The execution was claimed with an open step whose worker died.
    TakenOver,
    /// Too many workers died while they held the execution. Nothing of it is evaluated, and a person decides.
    /// This input comes first.
    InterruptedTooOften,
    /// Preflight has ended.
    Preflight {
        issues: Vec<Issue>,
        started_at: Timestamp,
    },
    /// The handler reported its progress, from 0.0 to 1.0.
    Progress(f32),
    /// The handler returned, or was cut off as the [`StepFailure`] says. `told` is why it was told to stop
    /// before that.
    StepFinished {
        index: usize,
        result: Result<StepOutcome, StepFailure>,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// A person ends the execution while a step is under way or has an unknown outcome. `effect` is the known
    /// state of its effect; `failure` is the handler's error before that.
    StepDropped {
        index: usize,
        effect: Probe,
        failure: Option<StepFailure>,
        notes: Notes,
    },
    /// The handler answered a probe of its effect. `told` is why it was told to stop before that.
    Probed {
        index: usize,
        effect: Probe,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// The provider of an open signature request was asked for its state.
    SignaturesChecked(Checked),
    /// The provider of an open signature request was asked to remind the signers.
    Reminded(Result<(), ProviderError>),
    /// A signal from the inbox.
    Signal(Signal),
}

/// The result of asking a signature provider.
#[derive(Debug)]
pub(crate) enum Checked {
    /// The facts that the provider knows.
    Answered(Vec<SignerFact>),
    /// The provider did not answer, or not usefully.
    Failed(ProviderError),
    /// No provider of that name is registered: reports come from the application, so do not ask again.
    Nobody,
}

/// The logs and audit rows of a handler.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) logs: Vec<LogDraft>,
    pub(crate) audit: Vec<AuditDraft>,
}

/// The thing to do after the commit.
#[derive(Debug)]
pub(crate) enum Next {
    /// Run preflight.
    Preflight,
    /// Call the handler.
    Run { index: usize, params: Arc<Value> },
    /// Let the handler continue after its wait.
    Resume {
        index: usize,
        params: Arc<Value>,
        resolution: Resolution,
    },
    /// Ask the handler whether its effect happened.
    Probe { index: usize, params: Arc<Value> },
    /// Ask the provider for the state of the open signature request.
    CheckSignatures,
    /// Ask the provider to remind the signers of the open signature request.
    Remind,
    /// Nothing until `wake_at` or a signal.
    Rest,
    /// Nothing, because the execution has ended.
    Done,
}

/// The records that a decision writes, besides the run state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) logs: Vec<Arc<LogEntry>>,
    pub(crate) audit: Vec<Arc<AuditEvent>>,
    pub(crate) settled: Vec<SignalId>,
    /// The settled signals that no longer applied.
    pub(crate) ignored: Vec<SignalId>,
    pub(crate) inputs_changed: bool,
    pub(crate) signature_changed: bool,
    pub(crate) approval_changed: bool,
    /// The positions of the changed steps.
    pub(crate) touched: Vec<usize>,
}

impl Records {
    /// Adds the records of a later decision.
    pub(crate) fn extend(&mut self, later: Self) {
        if self.is_empty() {
            *self = later;
            return;
        }
        self.events.extend(later.events);
        self.logs.extend(later.logs);
        self.audit.extend(later.audit);
        self.settled.extend(later.settled);
        self.ignored.extend(later.ignored);
        self.touched.extend(later.touched);
        self.inputs_changed |= later.inputs_changed;
        self.signature_changed |= later.signature_changed;
        self.approval_changed |= later.approval_changed;
    }

    /// True if there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.logs.is_empty()
            && self.audit.is_empty()
            && self.settled.is_empty()
            && self.touched.is_empty()
            && !self.inputs_changed
            && !self.signature_changed
            && !self.approval_changed
    }
}

/// The result of a decision.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) state: RunState,
    pub(crate) records: Records,
    pub(crate) next: Next,
    /// The state before the run ended by itself, if it did. A person's cancel that arrived before that end
    /// still wins.
    pub(crate) before_end: Option<Box<BeforeEnd>>,
}

/// The state and records of a run that is about to end by itself.
#[derive(Debug)]
pub(crate) struct BeforeEnd {
    pub(crate) state: RunState,
    pub(crate) records: Records,
}

/// Makes a decision. If there is anything to commit, the new version is the old one plus 1.
///
/// # Errors
///
/// A change of status that the table does not allow. It is a defect of the engine, and nothing of the
/// decision may be used.
pub(crate) fn decide<'a>(
    state: RunState,
    inputs: Vec<Input>,
    moment: Moment<'a>,
    env: Env<'a>,
) -> Result<Decision, InvalidTransition> {
    let mut draft = Draft::new(state, moment, env);
    for input in inputs {
        match input {
            Input::TakenOver => step::taken_over(&mut draft)?,
            Input::InterruptedTooOften => interrupted::park(&mut draft)?,
            Input::Preflight { issues, started_at } => {
                preflight::finished(&mut draft, issues, started_at)?
            }
            Input::Progress(fraction) => draft.progress_within_step(fraction),
            Input::StepFinished {
                index,
                result,
                notes,
                told,
            } => {
                draft.take_notes(index, notes);
                step::finished(&mut draft, index, result, told)?;
            }
            Input::StepDropped {
                index,
                effect,
                failure,
                notes,
            } => {
                draft.take_notes(index, notes);
                stop::dropped(&mut draft, index, effect, failure)?;
            }
            Input::Probed {
                index,
                effect,
                notes,
                told,
            } => {
                draft.take_notes(index, notes);
                step::probed(&mut draft, index, effect, told)?;
            }
            Input::SignaturesChecked(checked) => follow_up::checked(&mut draft, checked)?,
            Input::Reminded(result) => follow_up::reminded(&mut draft, result),
            Input::Signal(signal) => signal::apply(&mut draft, signal)?,
        }
    }
    timers::expire(&mut draft)?;
    if draft.is_interrupted {
        let has_ended = draft.state.execution.status.is_terminal();
        return Ok(draft.finish(if has_ended { Next::Done } else { Next::Rest }));
    }
    let next = advance::advance(&mut draft)?;
    let next = follow_up::before_rest(&mut draft, next);
    Ok(draft.finish(next))
}

/// True if the handler of a step under way is gone with an earlier holder. A step that is to be resumed or
/// probed may have been left in good order, before anything began; it counts only if the lease was
/// `taken_over`.
pub(crate) fn is_step_abandoned(state: &RunState, taken_over: bool) -> bool {
    !state.execution.status.is_terminal()
        && state.steps.iter().any(|step| match step.activity {
            Activity::Running => true,
            Activity::Resuming | Activity::ProbingTakeover | Activity::ProbingFailure => taken_over,
            Activity::Idle | Activity::Waiting => false,
        })
}

/// The steps whose effects may have happened and are not safe to repeat. `left` is true while nobody attends
/// the steps that an earlier holder left open; otherwise there are none.
pub(crate) fn open_effects(state: &RunState, env: Env<'_>, left: bool) -> Vec<usize> {
    let repeatable =
        |index: usize| is_repeatable(env.registry, &state.execution, &state.workflow.nodes[index]);
    let is_open = |index: &usize| match state.steps[*index].activity {
        Activity::ProbingTakeover | Activity::ProbingFailure => left,
        Activity::Running => left && !repeatable(*index),
        Activity::Idle | Activity::Waiting | Activity::Resuming => false,
    };
    (0..state.steps.len()).filter(is_open).collect()
}

/// True if a step is safe to run twice: it has no effect, or its handler says so.
pub(crate) fn is_repeatable(registry: &Registry, execution: &Execution, node: &Node) -> bool {
    execution.dry_run
        || match registry.get(&node.node_type) {
            Some(Handler::Compute(_)) => true,
            Some(Handler::Effect(handler)) => handler.spec().effect == EffectClass::Repeatable,
            // Unknown node type: assume it is not repeatable.
            None => false,
        }
}

/// True if it is cheap to evaluate a decision: the conditions and variables of the steps that have not ended.
pub(crate) fn is_small(state: &RunState) -> bool {
    let outputs = state.steps.iter().filter_map(|step| step.output.as_deref());
    let nodes = state.steps.iter().zip(&state.workflow.nodes);
    let open = nodes.filter(|(step, _)| !step.status.is_ended());
    programs::is_small(
        outputs.chain([&*state.inputs.trigger_data]),
        open.map(|(_, node)| &**node),
        &state.inputs.node_overrides,
    )
}

/// True if it is cheap to process an input.
pub(crate) fn is_little(input: &Input) -> bool {
    match input {
        Input::StepFinished {
            result: Ok(StepOutcome::Done(output)),
            ..
        }
        | Input::Probed {
            effect: Probe::Done(output),
            ..
        } => programs::is_little(output),
        _ => true,
    }
}

/// A step's parameters as a handler gets them; `None` if a variable is missing.
pub(crate) fn params_of(registry: &Registry, state: &RunState, index: usize) -> Option<Arc<Value>> {
    let node = &state.workflow.nodes[index];
    let params = variables::effective_params(node, &state.inputs.node_overrides);
    let scope = Scope {
        trigger: &state.inputs.trigger_data,
        steps: &state.steps,
        execution: &state.execution,
    };
    let mut params = variables::resolve(&params, &scope).ok()?;
    if let (Some(handler), Value::Object(given)) = (registry.get(&node.node_type), &mut params) {
        handler.spec().drop_blanks(given);
    }
    Some(Arc::new(params))
}
