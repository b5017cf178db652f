//! The checks of declared parameters, a file for each domain. The checks are pure functions: if only a
//! provider knows the answer, a check returns a [`Question`].
//!
//! An issue's text for people names nodes, parameters and positions in lists. The text never contains trigger
//! data, because events carry it. Values go into the text for technicians.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::known::{Known, Standing};
use super::{Domain, Issue, PreflightRequest, field_of_param};
use crate::{
    error::codes,
    i18n::Text,
    run::{Phase, StepStatus},
    workflow::{
        Handler, Node, NodeSpec, OnError, ParamKind, ParamSpec,
        condition::{self, ConditionError},
        param::{self, Given, ParamFault},
        variables::{self, effective_params, resolve_from, settle},
    },
};

mod data;
mod known;
mod permissions;
mod template;
#[cfg(test)]
mod tests;

pub(super) use permissions::{Answer, Question, Resource, check_failed};

/// The limit, roughly in bytes, for the values that variables put into the parameters of all nodes together.
const MAX_RESOLVED_BYTES: usize = 64 * 1024 * 1024;

/// The issues that the pure rules found, and the questions to providers and checks by handlers that remain.
/// An issue's place is the number of its node from 1, or 0 for the whole workflow; the runner sorts all
/// issues by place.
pub(super) struct Findings {
    pub(super) issues: Vec<(usize, Issue)>,
    pub(super) questions: Vec<Question>,
    pub(super) checks: Vec<Check>,
    /// The number of bytes that variables may still add to the parameters of all checks.
    budget: usize,
}

/// The input of a handler's own check of its node's parameters.
pub(super) struct Check {
    pub(super) place: usize,
    pub(super) params: Map<String, Value>,
    /// The names of the parameters whose values are not known yet or have a fault.
    pub(super) unsound: BTreeSet<String>,
}

/// Applies all rules.
pub(super) fn apply(request: &PreflightRequest<'_>) -> Findings {
    let mut findings = Findings {
        issues: Vec::new(),
        questions: Vec::new(),
        checks: Vec::new(),
        budget: MAX_RESOLVED_BYTES,
    };
    let trigger = &*request.inputs.trigger_data;
    for issue in data::schema(request.workflow, trigger) {
        findings.issues.push((0, issue));
    }
    let mut known = Known::new(request);
    for (index, node) in request.workflow.nodes.iter().enumerate() {
        let params = effective_params(node, &request.inputs.node_overrides);
        let standing = look_at(request, &mut known, index + 1, node, &params, &mut findings);
        known.push(node, params, standing);
    }
    findings
}

/// Checks one node, and returns the values that later nodes may read from the node.
fn look_at<'a>(
    request: &PreflightRequest<'a>,
    known: &mut Known<'a>,
    place: usize,
    node: &'a Node,
    params: &Map<String, Value>,
    findings: &mut Findings,
) -> Standing<'a> {
    if let Some(step) = request.steps.iter().find(|step| step.node_id == node.id) {
        match step.status() {
            StepStatus::Success => {
                return step
                    .output
                    .as_deref()
                    .map_or(Standing::Nothing, Standing::Output);
            }
            StepStatus::Skipped => return Standing::Nothing,
            StepStatus::Failed if node.on_error == OnError::Continue => return Standing::Nothing,
            StepStatus::Failed | StepStatus::Pending | StepStatus::Running => {}
        }
    }
    if request.until_phase.is_some_and(|last| node.phase > last) {
        return Standing::LeftOut;
    }
    let handler = request.registry.get(&node.node_type);
    let runs = !request.dry_run || handler.is_some_and(|handler| runs_dry(node.phase, handler));
    known.for_node_that_runs(runs);

    let mut issues = Vec::new();
    match node
        .when
        .as_deref()
        .map(|when| condition::decide(when, known))
    {
        None | Some(Ok(Some(true) | None)) => {}
        Some(Ok(Some(false))) => return Standing::Nothing,
        Some(Err(e)) => issues.push(condition_issue(node, e)),
    }
    let Some(handler) = handler else {
        issues.push(data::unknown_node_type(node));
        findings
            .issues
            .extend(issues.into_iter().map(|issue| (place, issue)));
        return Standing::Runs(None);
    };
    let spec = handler.spec();
    data::variables(node, params, known, &mut issues);
    let open = params
        .iter()
        .filter(|(_, value)| settle(value, known).is_none());
    let mut unsound: BTreeSet<_> = open.map(|(name, _)| name.clone()).collect();
    for param in &spec.params {
        let rule = Rule {
            node,
            spec,
            param,
            place,
        };
        let given = Given::look(params.get(param.name).unwrap_or(&Value::Null), known);
        let found = param::faults(param, given.as_ref());
        if !found.is_empty() {
            unsound.insert(param.name.to_owned());
            issues.extend(found.iter().map(|fault| rule.issue(fault)));
        } else if let Some(given) = &given {
            rule.ask(given.value(), &mut findings.questions);
        }
    }
    let budget = &mut findings.budget;
    let mut of_node = (*budget).min(variables::MAX_RESOLVED_BYTES);
    let granted = of_node;
    let (resolved, fits) = resolve_from(params, known, &mut of_node);
    *budget -= granted - of_node;
    if fits {
        let mut params = resolved;
        spec.drop_blanks(&mut params);
        findings.checks.push(Check {
            place,
            params,
            unsound,
        });
    } else {
        issues.push(data::too_large(node));
    }
    findings
        .issues
        .extend(issues.into_iter().map(|issue| (place, issue)));
    if runs {
        Standing::Runs(Some(spec))
    } else {
        Standing::LeftOut
    }
}

/// True if a dry run calls the handler.
fn runs_dry(phase: Phase, handler: &Handler) -> bool {
    phase.runs_dry()
        && match handler {
            Handler::Compute(_) => true,
            Handler::Effect(handler) => handler.preview().is_some(),
        }
}

fn condition_issue(node: &Node, error: ConditionError) -> Issue {
    let (code, text) = match &error {
        ConditionError::Absent(paths) => (
            codes::UNRESOLVED_VARIABLES,
            Text::key("issue-unresolved-variables")
                .with("path", paths.join(", "))
                .with("field", "when"),
        ),
        ConditionError::Syntax(_) | ConditionError::Evaluation(_) => (
            codes::INVALID_CONDITION,
            Text::key("issue-invalid-condition"),
        ),
    };
    Issue::blocking(Domain::Data, code, text.with("label", &node.label))
        .at(node.id.clone())
        .field("when")
        .tech(error)
}

/// One declared parameter of one node.
struct Rule<'r> {
    node: &'r Node,
    spec: &'r NodeSpec,
    param: &'r ParamSpec,
    place: usize,
}

impl Rule<'_> {
    /// Adds a question about the resource that the parameter names.
    fn ask(&self, value: &Value, questions: &mut Vec<Question>) {
        let resource = match self.param.kind {
            ParamKind::Template => Resource::Template,
            ParamKind::Folder => Resource::Folder,
            ParamKind::Connection => Resource::Connection,
            _ => return,
        };
        let name = value.as_str().unwrap_or_default();
        if !name.trim().is_empty() {
            Question::add(questions, resource, name, permissions::Asker::new(self));
        }
    }

    /// Turns a fault into a blocking issue.
    fn issue(&self, fault: &ParamFault) -> Issue {
        let human = fault.human(&self.node.label, self.param.name);
        let issue = Issue::blocking(fault.domain, fault.code, human)
            .at(self.node.id.clone())
            .field(field_of_param(&self.node.id, self.param.name) + &fault.pointer());
        match &fault.tech {
            Some(tech) => issue.tech(tech),
            None => issue,
        }
    }
}
