//! Variables: the `{{path}}` in a node's parameters.
//!
//! A path reads `trigger`, `steps.<node id>.<field>` or `execution`, and nothing else. If a parameter is
//! exactly one `{{path}}`, its value keeps its JSON type; inside a longer text the value is written as text.
//! An inserted value is never searched for variables again, so trigger data that contains `{{…}}` cannot
//! reach anything.

use std::{borrow::Cow, collections::BTreeSet, fmt::Write as _};

use serde_json::{Map, Value};

use crate::{
    run::{Execution, Step},
    secrets::REDACTED,
    workflow::Node,
};

mod path;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub(crate) use path::{EXECUTION_FIELDS, Path, descend, shortened};
pub use path::{OwnedPath, PathError, Root};
use text::{Piece, pieces, sole};

/// The most bytes, roughly, by which variables may enlarge the parameters of one step. Needed because a small
/// text can name a large value many thousand times.
pub(crate) const MAX_RESOLVED_BYTES: usize = 16 * 1024 * 1024;
/// The largest number of references found in one value.
pub(crate) const MAX_REFERENCES: usize = 10_000;
/// The longest JSON pointer to a reference, in bytes. A longer pointer ends at an outer value.
const MAX_POINTER_BYTES: usize = 1_000;
/// The largest number of paths listed in an error.
const MAX_LISTED: usize = 100;

/// The values that variables can read.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The trigger data.
    pub trigger: &'a Value,
    /// The steps; only those with an output can be read.
    pub steps: &'a [Step],
    /// The execution.
    pub execution: &'a Execution,
}

/// Why variables could not be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Some variables have no value. Holds their paths, sorted and without duplicates.
    #[error("there is nothing at {}", .0.join(", "))]
    Absent(Vec<String>),
    /// The values together exceed the limit for a handler. Holds the paths whose values did not fit.
    #[error("the values are too large to be put in: {}", .0.join(", "))]
    TooLarge(Vec<String>),
}

/// The result of looking up a path.
pub(crate) enum Found<'a> {
    /// The value, which may be `null`.
    Value(Cow<'a, Value>),
    /// There is no value, and no later step gives one.
    Absent,
    /// The value is known only after a later step, or during the execution.
    Later,
}

impl<'a> From<Option<&'a Value>> for Found<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        value.map_or(Self::Absent, |value| Self::Value(Cow::Borrowed(value)))
    }
}

/// A source of values for paths.
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

/// A source of the trigger data alone.
struct TriggerOnly<'a>(&'a Value);

impl Source for TriggerOnly<'_> {
    fn find(&self, path: &Path<'_>) -> Found<'_> {
        match path.root {
            Root::Trigger => descend(self.0, &path.segments).into(),
            Root::Steps | Root::Execution => Found::Later,
        }
    }
}

/// Replaces all variables by their values. The result is an object with the same keys.
///
/// # Errors
///
/// [`Unresolved`] lists every path without a value or with wrong syntax, or the paths whose values are too
/// large.
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

/// Replaces the variables that the trigger data alone can fill. Other variables keep their `{{path}}`.
#[must_use]
pub fn resolve_partial(params: &Map<String, Value>, trigger: &Value) -> Map<String, Value> {
    resolve_from(params, &TriggerOnly(trigger), &mut { MAX_RESOLVED_BYTES }).0
}

/// As [`resolve_partial`], from any source. Reduces the budget by the inserted bytes; the returned flag is
/// true if all values fit into the budget.
pub(crate) fn resolve_from(
    params: &Map<String, Value>,
    source: &dyn Source,
    budget: &mut usize,
) -> (Map<String, Value>, bool) {
    let mut resolver = Resolver::new(source, budget);
    let resolved = resolver.object(params);
    (resolved, resolver.excess.is_empty())
}

/// Replaces all variables of a value; `None` if one of them has no value yet.
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

/// The parameters of a node, with a person's changes applied (`overrides` is by node id).
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
    /// The place of the reference, as a JSON pointer (RFC 6901) into the searched value. A pointer of more
    /// than 1,000 bytes ends at an outer value.
    pub pointer: String,
    /// The text between the braces, shortened if it is very long.
    pub path: String,
    /// The parsed path, or why the text is not a path.
    pub target: Result<OwnedPath, PathError>,
}

/// Finds the `{{…}}` in a value, at most 10,000, including those that are not paths.
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
                        (inner, Path::parse(inner).map(|path| path.to_owned_path()))
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

/// Appends a name to a JSON pointer, unless the pointer would become too long.
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

/// True if a text contains `{{`. Most texts contain no brace at all, and searching for one byte is faster.
fn has_braces(text: &str) -> bool {
    text.contains('{') && text.contains("{{")
}

/// True if a value contains `{{`.
pub(crate) fn has_variables(value: &Value) -> bool {
    match value {
        Value::String(text) => has_braces(text),
        Value::Array(items) => items.iter().any(has_variables),
        Value::Object(fields) => fields.values().any(has_variables),
        _ => false,
    }
}

/// The path, if the whole text is one variable.
pub(crate) fn sole_path(text: &str) -> Option<OwnedPath> {
    let path = Path::parse(sole(text)?).ok()?;
    Some(path.to_owned_path())
}

/// How [`fill`] writes the variables that it does not fill with their value.
pub(crate) struct Unfilled<'a> {
    /// Written for a variable without a value, and for one that is not a path into the trigger data.
    pub(crate) absent: &'a str,
    /// True if the value at this path of the trigger data is a secret.
    pub(crate) hidden: &'a dyn Fn(&[&str]) -> bool,
}

/// Fills the variables of a text with trigger data. Lists and objects are written as compact JSON.
pub(crate) fn fill(text: &str, trigger: &Value, unfilled: Unfilled<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        let inner = match piece {
            Piece::Literal(part) | Piece::Unclosed(part) => {
                out.push_str(part);
                continue;
            }
            Piece::Variable { inner, .. } => inner,
        };
        let path = Path::parse(inner).ok();
        let path = path.filter(|path| path.root == Root::Trigger);
        match path.and_then(|path| Some((descend(trigger, &path.segments)?, path))) {
            Some((_, path)) if (unfilled.hidden)(&path.segments) => out.push_str(REDACTED),
            Some((value, _)) if !value.is_null() && out.len() <= MAX_RESOLVED_BYTES => {
                push_text(&mut out, value);
            }
            _ => out.push_str(unfilled.absent),
        }
    }
    out
}

struct Resolver<'s, 'b> {
    source: &'s dyn Source,
    /// The paths without a value.
    open: BTreeSet<String>,
    /// The paths whose values exceed the budget.
    excess: BTreeSet<String>,
    /// How many bytes may still be inserted.
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

/// Appends a value to a text: a text unchanged, `null` as nothing, any other value as compact JSON.
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

/// The size of a value in bytes, roughly.
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
