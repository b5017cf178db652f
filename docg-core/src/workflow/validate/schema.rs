//! JSON Schema of trigger data, with a bound on what it may cost.
//!
//! References stay within the schema, and patterns are matched in linear time. How far a schema unfolds
//! at one place of the data is bounded when it is stored (`bounds`); how much of the data is looked at is
//! counted while it is validated (`metered`). A schema that costs more than that is never taken for one
//! that the data fit.

use serde_json::{Map, Value};

use crate::{
    i18n::Text,
    storable::Unstorable,
    workflow::{Workflow, size::size_of},
};

/// What is wrong with a schema: a JSON pointer into it, and words.
pub(crate) type SchemaFault = (String, String);

/// One way in which data breaks a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// A required field is not there; `path` is its own.
    pub(crate) missing: bool,
    /// The names down to it.
    pub(crate) path: Vec<String>,
    /// What would be right; it lacks the name of the field.
    pub(crate) human: Text,
    /// For technicians; shows no data.
    pub(crate) tech: String,
}

/// A schema of at most this size (see [`size_of`]) is compiled at once.
const SMALL_SCHEMA: usize = 200;
/// Data of at most this size, and no deeper than that, are validated at once.
const SMALL_DATA: (usize, usize) = (200, 16);

/// Whether it costs little to compile the workflow's schema and to check the data against it.
pub(crate) fn is_small(workflow: &Workflow, data: &Value) -> bool {
    workflow.input_schema.is_empty()
        || (has_small_schema(&workflow.input_schema)
            && size_of(data, SMALL_DATA.0 + 1) <= SMALL_DATA.0
            && Unstorable::of_value(data, SMALL_DATA.1).is_none())
}

/// Whether it costs little to compile a schema: it is small, and has no patterns.
pub(crate) fn has_small_schema(schema: &Map<String, Value>) -> bool {
    let mut left = SMALL_SCHEMA + 1;
    for (keyword, value) in schema {
        left = left.saturating_sub(1 + size_of(value, left));
        if matches!(keyword.as_str(), "pattern" | "patternProperties") || has_patterns(value) {
            return false;
        }
    }
    left > 0
}

fn has_patterns(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_patterns),
        Value::Object(fields) => fields.iter().any(|(name, field)| {
            matches!(name.as_str(), "pattern" | "patternProperties") || has_patterns(field)
        }),
        _ => false,
    }
}

/// Why data could not be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unchecked {
    /// The schema cannot be used.
    Unusable(String),
    /// The check costs more than it may.
    TooMuch(String),
}

#[cfg(feature = "json-schema")]
mod bounds;
#[cfg(feature = "json-schema")]
mod checks;
#[cfg(feature = "json-schema")]
mod metered;
#[cfg(all(test, feature = "json-schema"))]
mod tests;

#[cfg(feature = "json-schema")]
pub(crate) use checks::{broken_by, check};
#[cfg(not(feature = "json-schema"))]
pub(crate) use without_feature::{broken_by, check};

#[cfg(not(feature = "json-schema"))]
mod without_feature {
    use super::*;

    const WITHOUT: &str = "docg was built without the feature json-schema";

    /// Only the empty schema can be used without the feature.
    pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), SchemaFault> {
        if schema.is_empty() {
            Ok(())
        } else {
            Err((String::new(), WITHOUT.to_owned()))
        }
    }

    /// Only the empty schema can be used without the feature.
    pub(crate) fn broken_by(workflow: &Workflow, _: &Value) -> Result<Vec<Violation>, Unchecked> {
        if workflow.input_schema.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Unchecked::Unusable(WITHOUT.to_owned()))
        }
    }
}
