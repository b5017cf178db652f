//! The pure core: run state and inputs give the new run state, its records, and what to do next.
//!
//! No clock, no I/O, no randomness: time and ids come in with [`Moment`]. The driver and recovery
//! use this one function. Inside, [`draft`] is the only writer of run state and checks every
//! change of status against the table; `advance` finds the next thing to do; the other files
//! apply one kind of input each.

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
pub(crate) use create::{NewRunFacts, Reuse, create};
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

/// What decisions consult besides the run: declarations, never handlers' code.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) dry: &'a DryRegistry,
    pub(crate) redaction: &'a Redaction,
    /// How often the provider of an open signature request is asked, in milliseconds.
    pub(crate) signature_check_ms: u64,
}

/// When a decision is made, and where its ids come from.
pub(crate) struct Moment<'a> {
    pub(crate) now: Timestamp,
    /// The moment that records tell: since the last decision, as much time as has passed, however the
    /// clock was set meanwhile.
    pub(crate) recorded: Timestamp,
    pub(crate) ids: &'a mut dyn IdSource,
    /// Whether whoever asks will do what comes next. One who only applies signals leaves the next
    /// step unopened.
    pub(crate) opens_steps: bool,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// The execution was claimed with a step open whose worker is gone.
    TakenOver,
    /// Workers died too often while they had the execution: nothing of it is evaluated, and a person
    /// is asked. Comes first.
    InterruptedTooOften,
    /// Preflight has run.
    Preflight {
        issues: Vec<Issue>,
        started_at: Timestamp,
    },
    /// The handler has said how far it is, from 0.0 to 1.0.
    Progress(f32),
    /// The handler has returned, or was cut off in a way that [`StepFailure`] tells; `told` is why it
    /// was told to stop before that.
    StepFinished {
        index: usize,
        result: Result<StepOutcome, StepFailure>,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// A person ends the execution, and with it a step that is under way or may have begun unseen.
    /// `effect` was found out for this; `failure` is what the handler said before.
    StepDropped {
        index: usize,
        effect: Probe,
        failure: Option<StepFailure>,
        notes: Notes,
    },
    /// The handler was asked whether an effect had happened; `told` is why it was told to stop before
    /// it answered.
    Probed {
        index: usize,
        effect: Probe,
        notes: Notes,
        told: Option<StopReason>,
    },
    /// The provider of an open signature request was asked what became of it.
    SignaturesChecked(Checked),
    /// The provider of an open signature request was asked to remind the signers.
    Reminded(Result<(), ProviderError>),
    /// A message from the inbox.
    Signal(Signal),
}

/// What came of asking a signature provider.
#[derive(Debug)]
pub(crate) enum Checked {
    /// What it knows.
    Answered(Vec<SignerFact>),
    /// It did not answer, or not usefully.
    Failed(ProviderError),
    /// There is none of that name: reports come in otherwise, and nothing is to be asked.
    Nobody,
}

/// What a handler has logged and audited.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    pub(crate) logs: Vec<LogDraft>,
    pub(crate) audit: Vec<AuditDraft>,
}

/// What is to be done after the commit.
#[derive(Debug)]
pub(crate) enum Next {
    /// Run the checks.
    Preflight,
    /// Call the handler.
    Run { index: usize, params: Arc<Value> },
    /// Let the handler go on after its wait.
    Resume {
        index: usize,
        params: Arc<Value>,
        resolution: Resolution,
    },
    /// Ask the handler whether its effect happened.
    Probe { index: usize, params: Arc<Value> },
    /// Ask the provider of the open signature request what became of it.
    CheckSignatures,
    /// Ask the provider of the open signature request to remind the signers.
    Remind,
    /// Nothing before `wake_at` or a signal.
    Rest,
    /// Nothing ever.
    Done,
}

/// What a decision writes, beside the run state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) logs: Vec<Arc<LogEntry>>,
    pub(crate) audit: Vec<Arc<AuditEvent>>,
    pub(crate) settled: Vec<SignalId>,
    /// Those of the settled ones that no longer applied.
    pub(crate) ignored: Vec<SignalId>,
    pub(crate) inputs_changed: bool,
    pub(crate) signature_changed: bool,
    pub(crate) approval_changed: bool,
    /// The positions of the steps that changed.
    pub(crate) touched: Vec<usize>,
}

impl Records {
    /// Adds what a later decision writes.
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

    /// Whether there is nothing to commit.
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

/// The outcome of a decision.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) state: RunState,
    pub(crate) records: Records,
    pub(crate) next: Next,
    /// Where the run has ended by itself: what it was before that. A person who had asked for
    /// another end by then gets it.
    pub(crate) before_end: Option<Box<BeforeEnd>>,
}

/// A run that is about to end by itself, with what was recorded up to there.
#[derive(Debug)]
pub(crate) struct BeforeEnd {
    pub(crate) state: RunState,
    pub(crate) records: Records,
}

/// Decides. The new version is one more than the old if there is anything to commit.
///
/// # Errors
///
/// A change of status that the table does not allow. It is a defect of the engine, and nothing
/// of the decision may be used.
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

/// Whether a step is under way whose handler is gone with an earlier holder. A step that goes on after
/// its wait, or is to be asked about, may have been left to the next worker in good order: then nobody
/// has begun that.
pub(crate) fn is_step_abandoned(state: &RunState, taken_over: bool) -> bool {
    !state.execution.status.is_terminal()
        && state.steps.iter().any(|step| match step.activity {
            Activity::Running => true,
            Activity::Resuming | Activity::ProbingTakeover | Activity::ProbingFailure => taken_over,
            Activity::Idle | Activity::Waiting => false,
        })
}

/// The steps whose effects may have happened and cannot be repeated: those that an earlier holder has
/// `left` open.
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

/// Whether running a step twice does no harm: it touches nothing, or its handler says so.
pub(crate) fn is_repeatable(registry: &Registry, execution: &Execution, node: &Node) -> bool {
    execution.dry_run
        || match registry.get(&node.node_type) {
            Some(Handler::Compute(_)) => true,
            Some(Handler::Effect(handler)) => handler.spec().effect == EffectClass::Repeatable,
            // Whoever cannot run it cannot tell either.
            None => false,
        }
}

/// Whether it costs little to evaluate what a decision may come to: conditions and variables of the
/// steps that have not ended.
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

/// Whether it costs little to take in what an input brings.
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

/// A step's parameters as a handler gets them; `None` where a variable is not there.
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
