//! A wait whose link or envelope already leads to another execution.

use super::{Env, Input, Notes, view::may_repeat};
use crate::{
    error::{FailureClass, codes},
    i18n::Text,
    observe::{LogDraft, LogLevel},
    ports::RunState,
    workflow::{Probe, StepOutcome, answer},
};

/// The inputs, with a failure in place of the wait that one of them brings. They replace `inputs` if the
/// wait's link or envelope already leads to another execution. `None` if no input brings a wait.
pub(crate) fn without_wait(env: Env<'_>, state: &RunState, inputs: &[Input]) -> Option<Vec<Input>> {
    let refused = |index: usize| {
        let node = &state.workflow.nodes[index];
        let text = Text::key("error-wait-taken").with("label", &node.label);
        let tech = "a link or an envelope leads to another execution already";
        let context = answer::refusal(codes::REQUEST_NAME_TAKEN, text, tech);
        let repeatable = may_repeat(state, env, index);
        answer::failure(context, FailureClass::Review, repeatable)
    };
    let told = |index: usize, notes: &Notes| {
        let context = refused(index).context;
        let mut log = LogDraft::new(LogLevel::Warn, context.human);
        log.message_tech = context.tech;
        let mut notes = notes.clone();
        notes.logs.push(log);
        notes
    };
    let replaced = inputs.iter().find_map(|input| match input {
        Input::StepFinished {
            index,
            result: Ok(StepOutcome::Wait(_)),
            notes,
            told,
        } => Some(Input::StepFinished {
            index: *index,
            result: Err(refused(*index)),
            notes: notes.clone(),
            told: *told,
        }),
        Input::Probed {
            index,
            effect: Probe::Begun(_),
            notes,
            told: reason,
        } => Some(Input::Probed {
            index: *index,
            effect: Probe::Unknown,
            notes: told(*index, notes),
            told: *reason,
        }),
        _ => None,
    })?;
    let signals = inputs.iter().filter_map(|input| match input {
        Input::Signal(signal) => Some(Input::Signal(signal.clone())),
        Input::Arrived(signals) => Some(Input::Arrived(signals.clone())),
        _ => None,
    });
    Some([replaced].into_iter().chain(signals).collect())
}
