//! JSON Schema of trigger data, with bounded cost.
//!
//! References stay within the schema, and patterns match in linear time. When a schema is stored, `bounds`
//! limits how many subschemas apply at one place of the data. During validation, `metered` counts how much of
//! the data is visited. If validation exceeds its limit, the data never counts as valid.

use serde_json::{Map, Value};

use crate::{
    i18n::Text,
    storable::Unstorable,
    workflow::{Workflow, size::size_of},
};

/// A fault of a schema: a JSON pointer into the schema, and a text.
pub(crate) type SchemaFault = (String, String);

/// A violation of a schema by data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// True if a required field is missing; `path` then leads to that field.
    pub(crate) missing: bool,
    /// The names that lead to the field.
    pub(crate) path: Vec<String>,
    /// The first field below it that may not be there, if that is what is wrong.
    pub(crate) unknown: Option<String>,
    /// The text for people about the expected value, without the name of the field.
    pub(crate) human: Text,
    /// The text for technicians; shows no data.
    pub(crate) tech: String,
}

impl Violation {
    /// The names that lead to the value that is wrong.
    pub(crate) fn place(&self) -> Vec<String> {
        self.path.iter().chain(&self.unknown).cloned().collect()
    }
}

/// The largest schema, by [`size_of`], that is compiled on the caller's thread.
const SMALL_SCHEMA: usize = 200;
/// The largest size and depth of data validated on the caller's thread.
const SMALL_DATA: (usize, usize) = (200, 16);

/// True if it is cheap to compile the workflow's schema and to check the data against it.
pub(crate) fn is_small(workflow: &Workflow, data: &Value) -> bool {
    workflow.input_schema.is_empty()
        || (has_small_schema(&workflow.input_schema)
            && size_of(data, SMALL_DATA.0 + 1) <= SMALL_DATA.0
            && Unstorable::of_value(data, SMALL_DATA.1).is_none())
}

/// True if it is cheap to compile a schema: it is small, and has no patterns.
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
    /// The check would cost more than allowed.
    #[cfg_attr(
        not(feature = "json-schema"),
        expect(dead_code, reason = "only a JSON Schema is metered")
    )]
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

    /// Accepts only the empty schema, because the feature is off.
    pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), SchemaFault> {
        if schema.is_empty() {
            Ok(())
        } else {
            Err((String::new(), WITHOUT.to_owned()))
        }
    }

    /// Accepts only the empty schema, because the feature is off.
    pub(crate) fn broken_by(workflow: &Workflow, _: &Value) -> Result<Vec<Violation>, Unchecked> {
        if workflow.input_schema.is_empty() {
            Ok(Vec::new())
        } else {
            Err(Unchecked::Unusable(WITHOUT.to_owned()))
        }
    }
}
