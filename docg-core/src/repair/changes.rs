//! Applies changes to the inputs of an execution, whole or not at all.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

use super::schema::words;
use crate::{
    error::FieldFault,
    i18n::Text,
    run::Inputs,
    storable::{MAX_DEPTH, Unstorable, is_far_longer},
    workflow::{
        Node, Workflow,
        validate::schema::{Violation, broken_by},
        variables::push_token,
    },
};

/// The largest number of operations of a JSON Patch.
const MAX_OPERATIONS: usize = 200;
/// The most bytes, roughly, that the inputs may have after each operation. A patch that copies can double them.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A person's changes to the inputs of an execution.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'c> {
    /// A JSON Merge Patch (RFC 7396) of the trigger data.
    pub(crate) trigger_data: Option<&'c Map<String, Value>>,
    /// A JSON Merge Patch of the changed parameters, by node id.
    pub(crate) nodes: &'c Map<String, Value>,
    /// The operations of a JSON Patch (RFC 6902) over both.
    pub(crate) operations: &'c [Value],
}

impl Changes<'_> {
    /// True if there are no changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.trigger_data.is_none_or(Map::is_empty)
            && self.nodes.is_empty()
            && self.operations.is_empty()
    }

    /// The inputs with all changes. A pointer of a fault begins with `/changes` or `/patch`.
    pub(crate) fn apply(&self, inputs: &Inputs, nodes: &[Arc<Node>]) -> Result<Inputs, FieldFault> {
        let mut overrides = inputs.node_overrides.clone();
        for node in nodes {
            // A JSON Patch can only add to an object that is there.
            overrides.entry(node.id.as_str()).or_insert(json!({}));
        }
        let mut document = json!({"trigger_data": *inputs.trigger_data, "nodes": overrides});
        if let Some(data) = self.trigger_data {
            json_patch::merge(&mut document["trigger_data"], &Value::Object(data.clone()));
        }
        json_patch::merge(&mut document["nodes"], &Value::Object(self.nodes.clone()));
        self.operate(&mut document)?;
        read(document, inputs)
    }

    fn operate(&self, document: &mut Value) -> Result<(), FieldFault> {
        let fault = |pointer: String, code, why: String| {
            FieldFault::new(pointer, code, Text::key("fault-patch").with("why", why))
        };
        if self.operations.len() > MAX_OPERATIONS {
            let detail = Text::key("fault-too-many").with("most", MAX_OPERATIONS);
            return Err(FieldFault::new("/patch", "too_many", detail));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            let at = format!("/patch/{index}");
            let read = serde_json::from_value::<json_patch::PatchOperation>(operation.clone());
            let operation = read.map_err(|e| fault(at.clone(), "invalid_value", e.to_string()))?;
            // The crate undoes the operations of a patch that fails. One alone needs no undoing.
            json_patch::patch_unsafe(document, &[operation])
                .map_err(|e| fault(format!("{at}/path"), "invalid_value", e.kind.to_string()))?;
            // A copy can double depth and size, so check both after each operation.
            if let Some(unstorable) = Unstorable::of_value(document, MAX_DEPTH + 3) {
                return Err(unstorable.of_field(at));
            }
            if is_far_longer(document, MAX_BYTES) {
                return Err(FieldFault::new(
                    at,
                    "too_large",
                    Text::key("fault-output-too-large"),
                ));
            }
        }
        Ok(())
    }
}

/// Reads the inputs back from the object to which the changes were made. The rest is as before.
fn read(document: Value, inputs: &Inputs) -> Result<Inputs, FieldFault> {
    let Value::Object(mut parts) = document else {
        return Err(FieldFault::new(
            "/patch",
            "invalid_type",
            Text::key("fault-object"),
        ));
    };
    let object = |value: Option<Value>, pointer: &str| match value {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(FieldFault::new(
            pointer,
            "invalid_type",
            Text::key("fault-object"),
        )),
    };
    let trigger_data = object(parts.remove("trigger_data"), "/trigger_data")?;
    let mut node_overrides = object(parts.remove("nodes"), "/nodes")?;
    if let Some(other) = parts.keys().next() {
        let mut pointer = String::new();
        push_token(&mut pointer, other);
        return Err(FieldFault::new(
            pointer,
            "unknown_field",
            Text::key("fault-changes"),
        ));
    }
    for (id, params) in &node_overrides {
        if !params.is_object() {
            let mut pointer = "/nodes".to_owned();
            push_token(&mut pointer, id);
            return Err(FieldFault::new(
                pointer,
                "wrong_kind",
                Text::key("fault-parameters"),
            ));
        }
    }
    node_overrides.retain(|_, params| params.as_object().is_some_and(|params| !params.is_empty()));
    Ok(Inputs {
        trigger_data: Arc::new(Value::Object(trigger_data)),
        node_overrides,
        ..inputs.clone()
    })
}

/// The violations of the workflow's input schema that a change of the trigger data brings: those of values that it
/// changed, and those that were not there before. Violations that it only leaves may be corrected later.
pub(crate) fn new_faults(workflow: &Workflow, before: &Value, after: &Value) -> Vec<FieldFault> {
    if before == after {
        return Vec::new();
    }
    let broken = |data| broken_by(workflow, data).unwrap_or_default();
    let known: BTreeSet<_> = broken(before)
        .into_iter()
        .map(|it| (it.path, it.tech))
        .collect();
    let is_new = |violation: &Violation| {
        !known.contains(&(violation.path.clone(), violation.tech.clone()))
            || find(before, &violation.path) != find(after, &violation.path)
    };
    let found = broken(after).into_iter().filter(is_new);
    found
        .map(|violation| {
            let mut pointer = "/trigger_data".to_owned();
            let place = violation.place();
            place.iter().for_each(|name| push_token(&mut pointer, name));
            let field = words(&workflow.input_schema, &violation.path);
            let code = if violation.missing {
                "required"
            } else {
                "invalid_value"
            };
            FieldFault::new(pointer, code, violation.human.with("field", field))
        })
        .collect()
}

fn find<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            trigger_data: Arc::new(json!({"to": ["a@b.c", "bad"], "note": "x"})),
            ..Inputs::default()
        }
    }

    fn patched(operations: Value) -> Result<Value, FieldFault> {
        let operations = operations.as_array().expect("a list").clone();
        let changes = Changes {
            trigger_data: None,
            nodes: &Map::new(),
            operations: &operations,
        };
        changes
            .apply(&inputs(), &[])
            .map(|inputs| (*inputs.trigger_data).clone())
    }

    #[test]
    fn a_merge_patch_removes_with_null_and_replaces_lists_whole() {
        let data = json!({"to": ["c@d.e"], "note": null, "more": {"a": null, "b": 1}});
        let changes = Changes {
            trigger_data: data.as_object(),
            nodes: &Map::new(),
            operations: &[],
        };
        let applied = changes.apply(&inputs(), &[]).expect("applies");
        assert_eq!(
            *applied.trigger_data,
            json!({"to": ["c@d.e"], "more": {"b": 1}})
        );
    }

    #[test]
    fn a_patch_changes_one_value_and_can_remove_it() {
        let replaced = patched(json!([
            {"op": "replace", "path": "/trigger_data/to/1", "value": "c@d.e"},
            {"op": "remove", "path": "/trigger_data/note"},
        ]));
        assert_eq!(replaced, Ok(json!({"to": ["a@b.c", "c@d.e"]})));
    }

    #[test]
    fn a_patch_that_cannot_be_applied_is_refused_at_its_operation() {
        for (operations, pointer) in [
            (
                json!([{"op": "replace", "path": "/trigger_data/none", "value": 1}]),
                "/patch/0/path",
            ),
            (
                json!([{"op": "test", "path": "/trigger_data/note", "value": "y"}]),
                "/patch/0/path",
            ),
            (
                json!([{"op": "add", "path": "/other", "value": 1}]),
                "/other",
            ),
            (
                json!([{"op": "replace", "path": "/nodes", "value": {"a": 1}}]),
                "/nodes/a",
            ),
            (
                json!([{"op": "remove", "path": "/trigger_data"}]),
                "/trigger_data",
            ),
            (
                json!([{"op": "replace", "path": "", "value": []}]),
                "/patch",
            ),
            (
                json!([{"op": "shout", "path": "/trigger_data"}]),
                "/patch/0",
            ),
            (
                json!([{"op": "add", "path": "trigger_data", "value": 1}]),
                "/patch/0",
            ),
        ] {
            let fault = patched(operations.clone()).expect_err("is refused");
            assert_eq!(fault.pointer, pointer, "{operations}");
        }
    }

    #[test]
    fn a_patch_that_copies_without_end_is_refused() {
        let copy = json!({"op": "copy", "from": "/trigger_data", "path": "/trigger_data/again"});
        let fault = patched(vec![copy; 120].into()).expect_err("is refused");
        assert!(fault.pointer.starts_with("/patch/"), "{fault}");
        let wide =
            json!([{"op": "add", "path": "/trigger_data/a", "value": "x".repeat(MAX_BYTES)}]);
        assert_eq!(patched(wide).expect_err("is refused").code, "too_large");
    }
}
