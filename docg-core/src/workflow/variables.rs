//! Variables: the `{{path}}` in a node's parameters.
//!
//! A path reads `trigger`, `steps.<node id>.<field>` or `execution`, and nothing else. A parameter
//! that is one `{{path}}` alone keeps its JSON type; inside a longer text a value is written as
//! text. What a path leads to is put in as it is and never read for variables again, so trigger
//! data cannot reach anything by holding `{{…}}` itself.

use std::{borrow::Cow, collections::BTreeSet, fmt::Write as _};

use serde_json::{Map, Value};

use crate::{
    run::{Execution, Step},
    workflow::Node,
};

mod path;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub(crate) use path::{EXECUTION_FIELDS, Path, descend, shortened};
pub use path::{PathError, Root, Target};
use text::{Piece, pieces, sole};

/// The parameters of one step may grow to this many bytes, roughly, by the values put into them.
/// A small text can name a large value many thousand times.
pub(crate) const MAX_RESOLVED_BYTES: usize = 16 * 1024 * 1024;
/// More references than this are not found in one value.
pub(crate) const MAX_REFERENCES: usize = 10_000;
/// A pointer to a reference that would be longer leads to what holds it.
const MAX_POINTER_BYTES: usize = 1_000;
/// More paths than this are not listed.
const MAX_LISTED: usize = 100;

/// What variables can read.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The trigger data.
    pub trigger: &'a Value,
    /// The steps; those with an output can be read.
    pub steps: &'a [Step],
    /// The run.
    pub execution: &'a Execution,
}

/// Why values could not be put in the place of all variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Variables that lead to nothing: their paths, each once, sorted.
    #[error("there is nothing at {}", .0.join(", "))]
    Absent(Vec<String>),
    /// The values are larger together than a handler is given: the paths of those that were too much.
    #[error("the values are too large to be put in: {}", .0.join(", "))]
    TooLarge(Vec<String>),
}

/// What a path leads to.
pub(crate) enum Found<'a> {
    /// This value; `null` is one.
    Value(Cow<'a, Value>),
    /// Nothing, and nothing will be there.
    Absent,
    /// Something that only a later step or the run itself can tell.
    Later,
}

impl<'a> From<Option<&'a Value>> for Found<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        value.map_or(Self::Absent, |value| Self::Value(Cow::Borrowed(value)))
    }
}

/// Where paths lead.
pub(crate) trait Source {
    fn find(&self, path: &Path<'_>) -> Found<'_>;
}

impl Source for Scope<'_> {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        match (path.root, path.segments.split_first()) {
            (Root::Trigger, _) => descend(self.trigger, &path.segments).into(),
            (Root::Execution, _) => path::execution_value(self.execution, &path.segments)
                .map_or(Found::Absent, Found::Value),
            (Root::Steps, None) => Found::Absent,
            (Root::Steps, Some((node, fields))) => {
                let step = self.steps.iter().find(|step| step.node_id == **node);
                step.and_then(|step| step.output.as_deref())
                    .and_then(|output| descend(output, fields))
                    .into()
            }
        }
    }
}

/// The trigger data alone.
struct TriggerOnly<'a>(&'a Value);

impl Source for TriggerOnly<'_> {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        match path.root {
            Root::Trigger => descend(self.0, &path.segments).into(),
            Root::Steps | Root::Execution => Found::Later,
        }
    }
}

/// Puts values in the place of all variables. The answer is an object with the same keys.
///
/// # Errors
///
/// [`Unresolved`] names every path that leads nowhere or is none, or what was too large.
pub fn resolve(params: &Map<String, Value>, scope: &Scope<'_>) -> Result<Value, Unresolved> {
    let mut budget = MAX_RESOLVED_BYTES;
    let mut resolver = Resolver::new(scope, &mut budget);
    let resolved = resolver.object(params);
    if !resolver.excess.is_empty() {
        return Err(Unresolved::TooLarge(resolver.excess.into_iter().collect()));
    }
    if !resolver.open.is_empty() {
        return Err(Unresolved::Absent(resolver.open.into_iter().collect()));
    }
    Ok(Value::Object(resolved))
}

/// Puts in what the trigger data alone can give. The rest keeps its `{{path}}`.
#[must_use]
pub fn resolve_partial(params: &Map<String, Value>, trigger: &Value) -> Map<String, Value> {
    resolve_from(params, &TriggerOnly(trigger), &mut { MAX_RESOLVED_BYTES }).0
}

/// As [`resolve_partial`], from any source, and whether the values put in fit into the budget, which
/// they use up.
pub(crate) fn resolve_from(
    params: &Map<String, Value>,
    source: &dyn Source,
    budget: &mut usize,
) -> (Map<String, Value>, bool) {
    let mut resolver = Resolver::new(source, budget);
    let resolved = resolver.object(params);
    (resolved, resolver.excess.is_empty())
}

/// A value with all its variables, or `None` where one of them leads nowhere yet.
pub(crate) fn settle<'v>(value: &'v Value, source: &dyn Source) -> Option<Cow<'v, Value>> {
    if !has_variables(value) {
        return Some(Cow::Borrowed(value));
    }
    let mut budget = MAX_RESOLVED_BYTES;
    let mut resolver = Resolver::new(source, &mut budget);
    let settled = resolver.value(value);
    let is_settled = resolver.open.is_empty() && resolver.excess.is_empty();
    is_settled.then_some(Cow::Owned(settled))
}

/// The parameters of a node, with what a person has changed (`overrides` is by node id).
#[must_use]
pub fn effective_params<'a>(
    node: &'a Node,
    overrides: &Map<String, Value>,
) -> Cow<'a, Map<String, Value>> {
    match overrides.get(node.id.as_str()) {
        Some(Value::Object(changed)) if !changed.is_empty() => {
            let mut params = node.params.clone();
            params.extend(
                changed
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
            Cow::Owned(params)
        }
        _ => Cow::Borrowed(&node.params),
    }
}

/// A `{{…}}` in a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where, as a JSON pointer (RFC 6901) into the value that was searched. One that would have more
    /// than 1,000 bytes leads to what holds the text.
    pub pointer: String,
    /// What stands between the braces, shortened where it is very long.
    pub path: String,
    /// What it means.
    pub target: Result<Target, PathError>,
}

/// The `{{…}}` in a value, at most 10,000, with what is wrong with those that are no paths.
#[must_use]
pub fn references(value: &Value) -> Vec<Reference> {
    let mut found = Vec::new();
    collect(value, &mut String::new(), &mut found);
    found
}

fn collect(value: &Value, pointer: &mut String, found: &mut Vec<Reference>) {
    let length = pointer.len();
    match value {
        _ if found.len() >= MAX_REFERENCES => {}
        Value::String(text) if has_braces(text) => {
            for piece in pieces(text).take(2 * MAX_REFERENCES) {
                let (inner, target) = match piece {
                    Piece::Literal(_) => continue,
                    Piece::Unclosed(rest) => (rest, Err(PathError::Unclosed)),
                    Piece::Variable { inner, .. } => {
                        (inner, Path::parse(inner).map(|path| path.to_target()))
                    }
                };
                found.push(Reference {
                    pointer: pointer.clone(),
                    path: shortened(inner.trim()),
                    target,
                });
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                step_into(pointer, &index.to_string());
                collect(item, pointer, found);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                step_into(pointer, name);
                collect(field, pointer, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

/// Appends a name to a JSON pointer that is not too long yet.
fn step_into(pointer: &mut String, name: &str) {
    if pointer.len() + name.len() <= MAX_POINTER_BYTES {
        push_token(pointer, name);
    }
}

/// Appends a name to a JSON pointer.
pub(crate) fn push_token(pointer: &mut String, name: &str) {
    pointer.push('/');
    for c in name.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// Whether a text holds any `{{`. Nearly none does, and looking for one byte is quicker.
fn has_braces(text: &str) -> bool {
    text.contains('{') && text.contains("{{")
}

/// Whether a value holds any `{{`.
pub(crate) fn has_variables(value: &Value) -> bool {
    match value {
        Value::String(text) => has_braces(text),
        Value::Array(items) => items.iter().any(has_variables),
        Value::Object(fields) => fields.values().any(has_variables),
        _ => false,
    }
}

struct Resolver<'s, 'b> {
    source: &'s dyn Source,
    /// What leads to nothing.
    open: BTreeSet<String>,
    /// What the budget did not suffice for.
    excess: BTreeSet<String>,
    /// How many bytes may still be put in.
    budget: &'b mut usize,
}

impl<'s, 'b> Resolver<'s, 'b> {
    fn new(source: &'s dyn Source, budget: &'b mut usize) -> Self {
        Self {
            source,
            open: BTreeSet::new(),
            excess: BTreeSet::new(),
            budget,
        }
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), self.value(value)))
            .collect()
    }

    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) if has_braces(text) => self.text(text),
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect())
            }
            Value::Object(fields) => Value::Object(self.object(fields)),
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> Value {
        if let Some(inner) = sole(text) {
            return self
                .find(inner)
                .map_or_else(|| text.into(), Cow::into_owned);
        }
        let mut out = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Literal(part) => out.push_str(part),
                Piece::Unclosed(rest) => {
                    report(&mut self.open, rest);
                    out.push_str(rest);
                }
                Piece::Variable { whole, inner } => match self.find(inner) {
                    Some(value) => push_text(&mut out, &value),
                    None => out.push_str(whole),
                },
            }
        }
        Value::String(out)
    }

    fn find(&mut self, inner: &str) -> Option<Cow<'s, Value>> {
        let found = match Path::parse(inner) {
            Ok(path) => self.source.find(&path),
            Err(_) => Found::Absent,
        };
        match found {
            Found::Value(value) => {
                let size = size(&value);
                if size <= *self.budget {
                    *self.budget -= size;
                    return Some(value);
                }
                *self.budget = 0;
                report(&mut self.excess, inner);
            }
            Found::Absent | Found::Later => report(&mut self.open, inner),
        }
        None
    }
}

fn report(paths: &mut BTreeSet<String>, inner: &str) {
    if paths.len() < MAX_LISTED {
        paths.insert(shortened(inner.trim()));
    }
}

/// A value inside a text: texts as they are, numbers plain, `null` empty, the rest compact JSON.
fn push_text(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => out.push_str(text),
        other => {
            // Writing to a String cannot fail.
            let _ = write!(out, "{other}");
        }
    }
}

/// About how many bytes a value takes.
fn size(value: &Value) -> usize {
    const NODE: usize = 32;
    match value {
        Value::String(text) => NODE + text.len(),
        Value::Array(items) => NODE + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            NODE + fields
                .iter()
                .map(|(name, value)| NODE + name.len() + size(value))
                .sum::<usize>()
        }
        _ => NODE,
    }
}
