//! The checks over declared parameters, a file for each domain. They are pure: what they would
//! have to ask somebody, they leave as [`Question`]s.
//!
//! Nothing of the trigger data goes into a text for people, because events carry those texts:
//! they name nodes, parameters and places in lists. Values go to the text for technicians.

use std::borrow::Cow;

use serde_json::{Map, Value};

use self::known::{Known, Standing};
use super::{Domain, Issue, PreflightRequest};
use crate::{
    error::codes,
    i18n::Text,
    limits::PEOPLE,
    run::{Phase, StepStatus},
    workflow::{
        Handler, Node, NodeSpec, OnError, ParamKind,
        condition::{self, ConditionError},
        validate::kinds,
        variables::{self, effective_params, resolve_from, settle},
    },
};

mod data;
pub(crate) mod delivery;
mod known;
mod permissions;
mod signature;
mod template;
#[cfg(test)]
mod tests;

pub(super) use permissions::{Answer, Question, Resource, check_failed};

/// One parameter's list may hold thousands of wrong entries; so many are named.
const MAX_PER_PARAM: usize = 20;

/// The values that are put into the parameters of all nodes are at most this many bytes, roughly.
const MAX_RESOLVED_BYTES: usize = 64 * 1024 * 1024;

/// What the pure rules found, and what is still to be asked. Places are 0 for the whole workflow
/// and 1 and up for its nodes, so that the answers can be put where they belong.
pub(super) struct Findings {
    pub(super) issues: Vec<(usize, Issue)>,
    pub(super) questions: Vec<Question>,
    pub(super) checks: Vec<Check>,
    /// How many bytes the parameters of all checks may still grow.
    budget: usize,
}

/// A node whose handler has checks of its own.
pub(super) struct Check {
    pub(super) place: usize,
    pub(super) params: Map<String, Value>,
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

/// Checks one node, and says what later nodes may expect of it.
fn look_at<'a>(
    request: &PreflightRequest<'a>,
    known: &mut Known<'a>,
    place: usize,
    node: &'a Node,
    params: &Map<String, Value>,
    findings: &mut Findings,
) -> Standing<'a> {
    if let Some(step) = request.steps.iter().find(|step| step.node_id == node.id) {
        match step.status {
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
    for param in &spec.params {
        let rule = Rule {
            node,
            spec,
            name: param.name,
            kind: &param.kind,
            known,
        };
        rule.check(
            params.get(param.name),
            param.required,
            place,
            &mut issues,
            &mut findings.questions,
        );
    }
    let budget = &mut findings.budget;
    let mut of_node = (*budget).min(variables::MAX_RESOLVED_BYTES);
    let granted = of_node;
    let (resolved, fits) = resolve_from(params, known, &mut of_node);
    *budget -= granted - of_node;
    if fits {
        let params = resolved;
        findings.checks.push(Check { place, params });
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

/// Whether a dry run calls the handler.
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
struct Rule<'r, 'a> {
    node: &'r Node,
    spec: &'r NodeSpec,
    name: &'static str,
    kind: &'r ParamKind,
    known: &'r Known<'a>,
}

impl Rule<'_, '_> {
    fn check(
        &self,
        raw: Option<&Value>,
        required: bool,
        place: usize,
        issues: &mut Vec<Issue>,
        questions: &mut Vec<Question>,
    ) {
        let raw = raw.unwrap_or(&Value::Null);
        // A list is looked at item by item: one address that comes later does not hide the others.
        if let (ParamKind::EmailList | ParamKind::Signers, Value::Array(items)) = (self.kind, raw) {
            let items: Vec<_> = items.iter().map(|item| self.settle(item)).collect();
            if items
                .iter()
                .all(|item| item.as_deref().is_some_and(kinds::is_blank))
            {
                return self.blank(required, issues);
            }
            return self.list(&items, issues);
        }
        let Some(value) = self.settle(raw) else {
            return;
        };
        if kinds::is_blank_as(&value, self.kind) {
            return self.blank(required, issues);
        }
        if let Some(expected) = kinds::misfit(&value, self.kind) {
            issues.push(data::wrong_kind(self, &expected));
            return;
        }
        let text = value.as_str().unwrap_or_default();
        match self.kind {
            ParamKind::Json
            | ParamKind::Text
            | ParamKind::OneOf(_)
            | ParamKind::Integer
            | ParamKind::Duration
            | ParamKind::Boolean
            | ParamKind::Object
            | ParamKind::Url
            | ParamKind::File => {}
            ParamKind::Email => {
                issues.extend(delivery::address(self, self.name.to_owned(), &value))
            }
            ParamKind::EmailList | ParamKind::Signers => {
                let items = value
                    .as_array()
                    .map_or(std::slice::from_ref(&*value), Vec::as_slice);
                let items: Vec<_> = items.iter().map(|item| Some(Cow::Borrowed(item))).collect();
                self.list(&items, issues);
            }
            ParamKind::Template => self.ask(Resource::Template, text, place, questions),
            ParamKind::Folder => self.ask(Resource::Folder, text, place, questions),
            ParamKind::Connection => self.ask(Resource::Connection, text, place, questions),
        }
    }

    fn settle<'v>(&self, value: &'v Value) -> Option<Cow<'v, Value>> {
        settle(value, self.known)
    }

    fn list(&self, items: &[Option<Cow<'_, Value>>], issues: &mut Vec<Issue>) {
        let mut found = match self.kind {
            ParamKind::Signers => signature::signers(self, items),
            _ => delivery::addresses(self, items),
        };
        if items.len() > PEOPLE {
            let expected = format!("a list of at most {PEOPLE}");
            found.insert(0, data::wrong_kind(self, &expected));
        }
        found.truncate(MAX_PER_PARAM);
        issues.append(&mut found);
    }

    /// A blank parameter that may be blank is left alone.
    fn blank(&self, required: bool, issues: &mut Vec<Issue>) {
        if !required {
            return;
        }
        issues.push(match self.kind {
            ParamKind::Template => template::not_selected(self),
            ParamKind::EmailList => delivery::missing_recipient(self),
            ParamKind::Signers => signature::no_signers(self),
            ParamKind::Json
            | ParamKind::Text
            | ParamKind::OneOf(_)
            | ParamKind::Integer
            | ParamKind::Duration
            | ParamKind::Boolean
            | ParamKind::Object
            | ParamKind::Url
            | ParamKind::Email
            | ParamKind::Folder
            | ParamKind::Connection
            | ParamKind::File => data::missing(self),
        });
    }

    fn ask(&self, resource: Resource, name: &str, place: usize, questions: &mut Vec<Question>) {
        Question::add(
            questions,
            resource,
            name,
            permissions::Asker::new(self, place),
        );
    }

    /// A blocking issue of this parameter.
    fn issue(
        &self,
        domain: Domain,
        code: &'static str,
        text: Text,
        field: impl Into<String>,
    ) -> Issue {
        let field = field.into();
        Issue::blocking(
            domain,
            code,
            text.with("label", &self.node.label).with("field", &field),
        )
        .at(self.node.id.clone())
        .field(field)
    }
}
