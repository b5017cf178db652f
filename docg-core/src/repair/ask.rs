//! The inputs that a person has to give to carry out a recommended action.

use serde_json::{Map, Value, json};

use super::schema::{is_forbidden, of_field, tokens, words};
use crate::{
    observe::Redaction,
    run::Inputs,
    workflow::{
        Node, ParamKind, Registry, Workflow,
        variables::{OwnedPath, Root, effective_params, push_token, sole_path},
    },
};

/// A value that a person has to give, as a part of the body of an action's call.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionInput {
    /// The place of the value in the body, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// The value's name, for people.
    pub label: String,
    /// The present value; null if there is none, or if it is secret.
    pub value: Value,
    /// The JSON Schema of the new value.
    pub schema: Value,
}

/// The parts of an execution from which its inputs are derived.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) workflow: &'a Workflow,
    pub(crate) inputs: &'a Inputs,
    pub(crate) registry: &'a Registry,
    pub(crate) redaction: &'a Redaction,
}

/// The body of a resume that gives the fields their values, and its inputs. Fields are JSON pointers into
/// `{"trigger_data": …, "nodes": …}`.
pub(crate) fn ask<'f>(
    asker: Asker<'_>,
    fields: impl IntoIterator<Item = &'f str>,
) -> (Value, Vec<ActionInput>) {
    let mut request = Request {
        asker,
        operations: Vec::new(),
        inputs: Vec::new(),
    };
    for field in fields {
        let tokens = tokens(field);
        match tokens.split_first().map(|(root, rest)| (&**root, rest)) {
            Some(("trigger_data", path)) if !path.is_empty() => request.trigger(path, None),
            Some(("nodes", [node, param, rest @ ..])) => request.param(node, param, rest),
            _ => {}
        }
    }
    match request.operations.is_empty() {
        true => (json!({}), Vec::new()),
        false => (json!({"patch": request.operations}), request.inputs),
    }
}

struct Request<'a> {
    asker: Asker<'a>,
    operations: Vec<Value>,
    inputs: Vec<ActionInput>,
}

impl Request<'_> {
    /// Asks for a value of the trigger data. `schema` is for a value that the workflow's schema does not know.
    fn trigger(&mut self, path: &[String], schema: Option<Value>) {
        let data = &*self.asker.inputs.trigger_data;
        // The deepest value on the way that is there: what is missing is added below it.
        let mut parent = data;
        let mut depth = 0;
        while depth + 1 < path.len() {
            match child(parent, &path[depth]) {
                Some(value) if value.is_object() || value.is_array() => parent = value,
                _ => break,
            }
            depth += 1;
        }
        let is_there = child(parent, &path[depth]).is_some();
        let known = (depth + 1 == path.len())
            .then(|| child(parent, &path[depth]))
            .flatten();
        let is_secret = path.iter().any(|name| self.asker.redaction.is_secret(name));
        let value = match known {
            Some(value) if !is_secret => self.asker.redaction.redacted(value),
            _ => Value::Null,
        };
        let mut of_schema = of_field(&self.asker.workflow.input_schema, path);
        // The parameter that reads the value may ask for more than the workflow's schema, such as an address.
        if let (Some(fields), Some(Value::Object(more))) = (of_schema.as_object_mut(), schema) {
            for (name, value) in more {
                fields.entry(name).or_insert(value);
            }
        }
        let label = words(&self.asker.workflow.input_schema, path);
        if is_there && is_forbidden(&self.asker.workflow.input_schema, path) {
            let mut at = "/trigger_data".to_owned();
            path.iter().for_each(|name| push_token(&mut at, name));
            self.operations.push(json!({"op": "remove", "path": at}));
            return;
        }
        let replaces = is_there && parent.is_array();
        let mut at = "/trigger_data".to_owned();
        path[..=depth]
            .iter()
            .for_each(|name| push_token(&mut at, name));
        let below = &path[depth + 1..];
        let whole = below.iter().rev().fold(value.clone(), |inner, name| {
            let mut object = Map::new();
            object.insert(name.clone(), inner);
            Value::Object(object)
        });
        let op = if replaces { "replace" } else { "add" };
        self.push(
            json!({"op": op, "path": at, "value": whole}),
            below,
            label,
            value,
            of_schema,
        );
    }

    /// Asks for a parameter of a node, or for the trigger data that fills it.
    fn param(&mut self, node: &str, param: &str, rest: &[String]) {
        let asker = self.asker;
        let Some(node) = asker
            .workflow
            .nodes
            .iter()
            .find(|it| it.id.as_str() == node)
        else {
            return;
        };
        let params = effective_params(node, &asker.inputs.node_overrides);
        let kind = kind_of(asker.registry, node, param);
        let schema = kind.map_or(json!({}), |kind| schema_of(kind, rest));
        let given = params.get(param).unwrap_or(&Value::Null);
        // If a variable of the trigger data fills the value, or one around it, that is the one to correct.
        let mut value = Some(given);
        for depth in 0..=rest.len() {
            let path = value.and_then(Value::as_str).and_then(sole_path);
            if let Some(OwnedPath {
                root: Root::Trigger,
                segments,
            }) = path
            {
                let path: Vec<_> = segments.iter().chain(&rest[depth..]).cloned().collect();
                if !path.is_empty() {
                    return self.trigger(&path, Some(schema));
                }
            }
            value = rest.get(depth).and_then(|name| child(value?, name));
        }
        let mut label = node.label.to_string();
        for name in std::iter::once(param).chain(rest.iter().map(String::as_str)) {
            let position = name
                .parse::<usize>()
                .map(|position| (position + 1).to_string());
            label.push_str(" › ");
            label.push_str(&position.unwrap_or_else(|_| name.to_owned()));
        }
        let mut at = "/nodes".to_owned();
        push_token(&mut at, node.id.as_str());
        push_token(&mut at, param);
        let shown = asker.redaction.redacted(given);
        // A parameter that holds a secret cannot be sent back as it is shown, so all of it is asked for.
        let is_whole = rest.is_empty() || shown != *given;
        let below: &[String] = if is_whole { &[] } else { rest };
        let found = below
            .iter()
            .try_fold(given, |value, name| child(value, name));
        let value = match found {
            Some(value) if !asker.redaction.is_secret(param) && shown == *given => value.clone(),
            _ => Value::Null,
        };
        if !below.is_empty() && found.is_none() && !has_parent(given, below) {
            return;
        }
        let whole = if is_whole {
            value.clone()
        } else {
            with_place(given, below)
        };
        let schema = if is_whole {
            kind.map_or(json!({}), |kind| schema_of(kind, &[]))
        } else {
            schema
        };
        self.push(
            json!({"op": "add", "path": at, "value": whole}),
            below,
            label,
            value,
            schema,
        );
    }

    fn push(
        &mut self,
        operation: Value,
        below: &[String],
        label: String,
        value: Value,
        schema: Value,
    ) {
        let of_operation = |at: &Value| operation["path"] == *at;
        // Two fields of one value are two inputs of one operation.
        let known = self
            .operations
            .iter()
            .position(|it| of_operation(&it["path"]));
        let index = known.unwrap_or_else(|| {
            self.operations.push(operation.clone());
            self.operations.len() - 1
        });
        let mut pointer = format!("/patch/{index}/value");
        below.iter().for_each(|name| push_token(&mut pointer, name));
        if known.is_some() {
            if self.inputs.iter().any(|input| input.pointer == pointer) {
                return;
            }
            if let Some(place) = self.operations[index].get_mut("value") {
                *place = with_place(place, below);
            }
        }
        self.inputs.push(ActionInput {
            pointer,
            label,
            value,
            schema,
        });
    }
}

fn child<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// True if the value that holds the place is there and is an object.
fn has_parent(value: &Value, path: &[String]) -> bool {
    let parent = path[..path.len() - 1]
        .iter()
        .try_fold(value, |value, name| child(value, name));
    parent.is_some_and(Value::is_object)
}

/// A copy of the value in which the place exists: null if nothing is there.
fn with_place(value: &Value, path: &[String]) -> Value {
    let mut copy = value.clone();
    let mut place = &mut copy;
    for name in path {
        place = match place {
            Value::Array(items) => {
                match name.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                    Some(item) => item,
                    None => return value.clone(),
                }
            }
            Value::Object(fields) => fields.entry(name.clone()).or_insert(Value::Null),
            other => {
                *other = json!({});
                match other {
                    Value::Object(fields) => fields.entry(name.clone()).or_insert(Value::Null),
                    _ => return value.clone(),
                }
            }
        };
    }
    copy
}

fn kind_of<'r>(registry: &'r Registry, node: &Node, param: &str) -> Option<&'r ParamKind> {
    let spec = registry.get(&node.node_type)?.spec();
    let param = spec.params.iter().find(|it| it.name == param)?;
    Some(&param.kind)
}

/// The JSON Schema of a parameter, or of a value within it.
fn schema_of(kind: &ParamKind, within: &[String]) -> Value {
    let email = json!({"type": "string", "format": "email"});
    let signer = json!({
        "type": "object", "required": ["email"], "additionalProperties": false,
        "properties": {"email": email, "name": {"type": "string"}, "order": {"type": "integer", "minimum": 1}},
    });
    match (kind, within) {
        (ParamKind::EmailList, [_]) | (ParamKind::Email, []) => email,
        (ParamKind::EmailList, []) => json!({"type": "array", "items": email, "minItems": 1}),
        (ParamKind::Signers, []) => json!({"type": "array", "items": signer, "minItems": 1}),
        (ParamKind::Signers, [_]) => signer,
        (ParamKind::Signers, [_, field]) => signer["properties"][field].clone(),
        (ParamKind::Text | ParamKind::Template | ParamKind::Folder | ParamKind::Connection, []) => {
            json!({"type": "string"})
        }
        (ParamKind::OneOf(names), []) => json!({"enum": names}),
        (ParamKind::Integer | ParamKind::Duration, []) => json!({"type": "integer"}),
        (ParamKind::Boolean, []) => json!({"type": "boolean"}),
        (ParamKind::Url, []) => json!({"type": "string", "format": "uri"}),
        (ParamKind::Object, []) => json!({"type": "object"}),
        _ => json!({}),
    }
}
