//! Checks of trigger data and variables.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::known::Known;
use crate::{
    error::codes,
    i18n::Text,
    preflight::{Domain, Issue, field_of_param, field_of_trigger},
    repair::words,
    workflow::{
        Node, Workflow,
        validate::schema::{self as json_schema, Unchecked, Violation},
        variables::{Found, Path, Root, Source, references},
    },
};

/// The largest number of unresolved variables reported for one node.
const MAX_PER_NODE: usize = 50;

/// Reports trigger data that violates the workflow's JSON Schema.
pub(super) fn schema(workflow: &Workflow, trigger: &Value) -> Vec<Issue> {
    match json_schema::broken_by(workflow, trigger) {
        Ok(violations) => {
            let violated = |it| violated(workflow, it);
            violations.into_iter().map(violated).collect()
        }
        // Warn that the data was not checked: without an issue the data would seem valid.
        Err(Unchecked::Unusable(detail)) => {
            let text = Text::key("issue-check-failed-schema");
            vec![Issue::warning(Domain::Data, "data.check_failed", text).tech(detail)]
        }
        // This issue is blocking, because a caller could otherwise avoid the check by making the data too
        // large.
        Err(Unchecked::TooMuch(detail)) => {
            let text = Text::key("issue-check-too-large");
            vec![
                Issue::blocking(Domain::Data, "data.check_failed", text)
                    .field("/trigger_data")
                    .tech(detail),
            ]
        }
    }
}

fn violated(workflow: &Workflow, violation: Violation) -> Issue {
    let field = field_of_trigger(&violation.place());
    let code = match violation.missing {
        true => codes::MISSING_REQUIRED_FIELD,
        false => codes::INVALID_FIELD_FORMAT,
    };
    let name = words(&workflow.input_schema, &violation.path);
    let human = violation.human.with("field", name);
    Issue::blocking(Domain::Data, code, human)
        .field(field)
        .tech(violation.tech)
}

/// Reports variables that have no value and will get none. An issue's field is the parameter; its texts name
/// the variable's path.
pub(super) fn variables(
    node: &Node,
    params: &Map<String, Value>,
    known: &Known<'_>,
    issues: &mut Vec<Issue>,
) {
    let mut named = HashSet::new();
    for (name, value) in params {
        for reference in references(value) {
            let tech = match &reference.target {
                Ok(target) => {
                    let segments = target.segments.iter().map(String::as_str).collect();
                    match known.find(&Path {
                        root: target.root,
                        segments,
                    }) {
                        Found::Value(_) | Found::Later => continue,
                        Found::Absent => format!("nothing at {}", reference.path),
                    }
                }
                Err(e) => e.to_string(),
            };
            if named.len() == MAX_PER_NODE {
                return;
            }
            if !named.insert((name.as_str(), reference.path.clone())) {
                continue;
            }
            let text = Text::key("issue-unresolved-variables")
                .with("path", &reference.path)
                .with("field", name)
                .with("label", &node.label);
            // The value is missing where the variable reads it.
            let field = match &reference.target {
                Ok(target) if target.root == Root::Trigger && !target.segments.is_empty() => {
                    field_of_trigger(&target.segments)
                }
                _ => field_of_param(&node.id, name),
            };
            issues.push(
                Issue::blocking(Domain::Data, codes::UNRESOLVED_VARIABLES, text)
                    .at(node.id.clone())
                    .field(field)
                    .tech(format!("{tech} (params/{name}{})", reference.pointer)),
            );
        }
    }
}

/// The issue that a node's parameters are too large once their variables are filled in.
pub(super) fn too_large(node: &Node) -> Issue {
    let text = Text::key("issue-parameters-too-large").with("label", &node.label);
    Issue::blocking(Domain::Data, codes::PARAMETERS_TOO_LARGE, text)
        .at(node.id.clone())
        .tech("the values of its variables are too large to be put in")
}

/// The issue that no handler is registered for the node's type.
pub(super) fn unknown_node_type(node: &Node) -> Issue {
    let text = Text::key("issue-unknown-node-type").with("label", &node.label);
    Issue::blocking(Domain::Data, codes::UNKNOWN_NODE_TYPE, text)
        .at(node.id.clone())
        .tech(format!("no handler for {:?}", node.node_type))
}
