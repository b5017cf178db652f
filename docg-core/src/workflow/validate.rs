//! The checks before a definition is stored.
//!
//! A fault of a definition is a problem that neither trigger data nor a person can fix later, such as an
//! unknown node type or a variable that nothing can fill. Preflight checks the rest: addresses, the existence
//! of templates, required parameters.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value};

use self::{
    faults::Faults,
    node::NodeCheck,
    scope::{Earlier, Readable},
};
use super::{
    definition::{Node, Settings, WorkflowDraft},
    registry::Registry,
    title,
    variables::{push_token, shortened},
};
use crate::{
    error::{FieldFault, codes},
    i18n::Text,
    limits,
    time::MAX_DURATION_MS,
};

mod faults;
pub(crate) mod kinds;
mod node;
mod recent;
pub(crate) mod schema;
mod scope;
#[cfg(test)]
mod tests;

pub(crate) use recent::Recent;
pub(crate) use scope::output_fields;

/// The largest number of nodes in a workflow.
pub const MAX_NODES: usize = 200;
/// The longest timeout of one attempt, in milliseconds: a day.
pub const MAX_TIMEOUT_MS: u64 = 24 * 3_600_000;
/// The largest number of attempts of a step.
pub const MAX_ATTEMPTS: u32 = 100;
/// The largest factor by which a pause between attempts may exceed the pause before.
pub const MAX_MULTIPLIER: u32 = 1000;
/// The longest pause between attempts, in milliseconds: a week.
pub const MAX_PAUSE_MS: u64 = 7 * 24 * 3_600_000;

/// A valid workflow definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// The workflow's name, for people.
    pub name: String,
    /// JSON Schema 2020-12 of the trigger data.
    pub input_schema: Map<String, Value>,
    /// Settings of the whole workflow.
    pub settings: Settings,
    /// The nodes, in the order in which they run.
    pub nodes: Vec<Arc<Node>>,
}

/// Checks a draft and fills in the defaults of its node types.
///
/// # Errors
///
/// Every fault of the draft, at most 500.
pub fn validate(draft: WorkflowDraft, registry: &Registry) -> Result<Validated, Vec<FieldFault>> {
    let mut faults = Faults::default();
    faults.name("/name", &draft.name);
    if limits::is_blank(&draft.name) {
        faults.add("/name", "required", Text::key("fault-name-required"));
    }
    if let Err((pointer, detail)) = schema::check(&draft.input_schema) {
        faults.add(
            format!("/input_schema{pointer}"),
            "invalid_schema",
            Text::key("fault-schema").with("why", detail),
        );
    }
    faults.no_nul("/input_schema", draft.input_schema.iter());
    if draft
        .settings
        .review_expires_ms
        .is_some_and(|millis| !(1..=MAX_DURATION_MS).contains(&millis))
    {
        faults.add(
            "/settings/review_expires_ms",
            "out_of_range",
            Text::key("fault-range-or-null")
                .with("least", 1)
                .with("most", MAX_DURATION_MS),
        );
    }
    if let Some(title) = &draft.settings.title {
        let at = "/settings/title";
        faults.0.extend(limits::TITLE.fault(at, title));
        for path in title::unknown_variables(title) {
            let detail = Text::key("fault-title-variable").with("path", path);
            faults.add(at, "unresolved_variables", detail);
        }
    }
    if draft.nodes.is_empty() {
        faults.add("/nodes", "required", Text::key("fault-node-required"));
    }
    if draft.nodes.len() > MAX_NODES {
        faults.add(
            "/nodes",
            codes::TOO_MANY,
            Text::key("fault-too-many-nodes").with("most", MAX_NODES),
        );
        return Err(faults.0);
    }

    let mut earlier = Vec::with_capacity(draft.nodes.len());
    let ids: HashSet<&str> = draft.nodes.iter().map(|node| node.id.as_str()).collect();
    let mut nodes = Vec::with_capacity(draft.nodes.len());
    for (index, node) in draft.nodes.iter().enumerate() {
        let spec = registry.get(&node.node_type).map(|handler| handler.spec());
        let mut check = NodeCheck {
            at: format!("/nodes/{index}"),
            node,
            spec,
            earlier: &earlier,
            ids: &ids,
            faults: &mut faults,
        };
        nodes.extend(check.run().map(Arc::new));
        earlier.push(Earlier {
            id: &node.id,
            spec,
            params: &node.params,
        });
    }

    if faults.0.is_empty() {
        let WorkflowDraft {
            name,
            input_schema,
            settings,
            ..
        } = draft;
        Ok(Validated {
            name: name.trim().to_owned(),
            input_schema,
            settings,
            nodes,
        })
    } else {
        Err(faults.0)
    }
}

/// Checks a person's changes to node parameters for one execution of a stored workflow:
/// `{node id: {parameter: value}}`. Pointers in faults start at the changes.
///
/// # Errors
///
/// Every fault, at most 500.
pub fn check_overrides(
    nodes: &[Arc<Node>],
    overrides: &Map<String, Value>,
    registry: &Registry,
) -> Result<(), Vec<FieldFault>> {
    let mut faults = Faults::default();
    let ids: HashSet<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    for (id, changed) in overrides {
        let mut at = String::new();
        push_token(&mut at, id);
        let Some(position) = nodes.iter().position(|node| node.id == **id) else {
            faults.add(
                at,
                "unknown_node",
                Text::key("fault-unknown-node").with("id", shortened(id)),
            );
            continue;
        };
        let Value::Object(params) = changed else {
            faults.add(at, "wrong_kind", Text::key("fault-parameters"));
            continue;
        };
        let specs = nodes[..position].iter().map(|node| {
            let spec = registry.get(&node.node_type).map(|handler| handler.spec());
            Earlier {
                id: node.id.as_str(),
                spec,
                params: &node.params,
            }
        });
        let earlier: Vec<_> = specs.collect();
        let spec = registry
            .get(&nodes[position].node_type)
            .map(|handler| handler.spec());
        let scope = Readable {
            own: id,
            earlier: &earlier,
            ids: &ids,
        };
        let label = &nodes[position].label;
        faults.params(&at, label, params, spec, &scope);
    }
    if faults.0.is_empty() {
        Ok(())
    } else {
        Err(faults.0)
    }
}
