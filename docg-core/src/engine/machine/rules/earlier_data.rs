//! Warns of successful steps whose inputs a person's repair has changed. Such a step keeps its output.

use std::collections::HashSet;

use super::super::{draft::Draft, view::resolved};
use crate::{
    error::codes,
    i18n::Text,
    observe::LogLevel,
    preflight::{Domain, Issue},
    run::{Step, StepState},
    workflow::{
        Node,
        variables::{Root, effective_params, references},
    },
};

/// A warning for each successful step that would get other inputs now.
pub(super) fn warnings(draft: &Draft<'_>) -> Vec<Issue> {
    let state = draft.state();
    let mut outdated = HashSet::new();
    let mut warnings = Vec::new();
    for (index, node) in state.workflow.nodes.iter().enumerate() {
        if state.steps[index].state == StepState::Succeeded
            && (has_other_params(draft, index) || uses_any(draft, node, &outdated))
        {
            outdated.insert(node.id.as_str());
            let text = Text::key("issue-made-from-earlier-data").with("label", &node.label);
            let code = codes::MADE_FROM_EARLIER_DATA;
            warnings.push(Issue::warning(Domain::Data, code, text).at(node.id.clone()));
        }
    }
    warnings
}

/// True if a step's parameters have changed since it ran. For a reused step this is unknown, so false.
fn has_other_params(draft: &Draft<'_>, index: usize) -> bool {
    let Step {
        data_in: Some(given),
        ..
    } = &draft.state().steps[index]
    else {
        return false;
    };
    let params = resolved(draft.env, draft.state(), index).ok();
    params.is_none_or(|params| draft.env.redaction.snapshot(&params).to_value() != given.to_value())
}

/// True if a node's parameters refer to the output of one of these nodes.
fn uses_any(draft: &Draft<'_>, node: &Node, nodes: &HashSet<&str>) -> bool {
    if nodes.is_empty() {
        return false;
    }
    let params = effective_params(node, &draft.state().inputs.node_overrides);
    params.values().flat_map(references).any(|reference| {
        let target = reference.target.ok().filter(|it| it.root == Root::Steps);
        let used = target.and_then(|target| target.segments.into_iter().next());
        used.is_some_and(|used| nodes.contains(&*used))
    })
}

/// Logs the warnings that the previous preflight did not give.
pub(super) fn log_new(draft: &mut Draft<'_>, warnings: &[Issue]) {
    let before = draft.execution().preflight.clone();
    let known = |warning: &Issue| {
        let mut issues = before.iter().flat_map(|summary| &summary.issues);
        issues.any(|issue| issue.code == warning.code && issue.node_id == warning.node_id)
    };
    for warning in warnings.iter().filter(|warning| !known(warning)) {
        let nodes = &draft.state().workflow.nodes;
        let node = nodes
            .iter()
            .find(|node| warning.node_id.as_ref() == Some(&node.id));
        if let Some(node) = node.cloned() {
            draft.log_step(LogLevel::Warn, &node, warning.message_human.clone(), None);
        }
    }
}
