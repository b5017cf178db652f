//! Compiles schemas, and checks data against them within a budget.

use std::{
    fmt::Display,
    sync::{Arc, LazyLock},
};

use jsonschema::{
    JsonType, PatternOptions, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value};

use super::{
    SchemaFault, Unchecked, Violation,
    bounds::{Bounds, MAX_PATTERN_BYTES, measure},
    metered::{Metered, Node, Prices, within},
};
use crate::{
    i18n::Text,
    ids::{OrganizationId, WorkflowId},
    workflow::{Workflow, validate::Recent, variables::shortened},
};

/// The largest number of violations listed.
const MAX_LISTED: usize = 50;
/// The budget for deciding whether data is valid. Spending all of it takes some tenths of a second.
const BUDGET: u64 = 10_000_000;
/// The budget for listing the violations. All of them stay in memory until the list is complete.
const LISTING_BUDGET: u64 = 2_000_000;
/// The most memory for the list of violations, in bytes; a larger list is not made.
const MAX_LISTING_BYTES: usize = 64 * 1024 * 1024;
/// The most memory for matching all patterns of a schema, in bytes, and the least for one pattern.
const MAX_MATCHING_BYTES: usize = 8 * 1024 * 1024;
const MIN_MATCHING_BYTES: usize = 16 * 1024;
/// The length in characters to which the schema library's texts are cut, because they can repeat a whole
/// schema.
const MAX_WORDS: usize = 300;
/// The most characters of a limit, and the most unknown names, that people are shown.
const MAX_SHOWN: usize = 200;
const MAX_NAMES: usize = 5;

struct Checked {
    bounds: Bounds,
    validator: Validator<Metered>,
}

fn cut(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

fn compile(schema: &Map<String, Value>) -> Result<Checked, SchemaFault> {
    let schema = Value::Object(schema.clone());
    let bounds = measure(&schema)?;
    let patterns = PatternOptions::regex()
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit((MAX_MATCHING_BYTES / bounds.patterns.max(1)).max(MIN_MATCHING_BYTES));
    let validator = jsonschema::options_for::<Metered>()
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(patterns)
        .build(&schema)
        .map_err(|e| (e.instance_path().as_str().to_owned(), cut(&e.to_string())))?;
    Ok(Checked { bounds, validator })
}

/// Checks that a schema can be used.
pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), SchemaFault> {
    if schema.is_empty() {
        Ok(())
    } else {
        compile(schema).map(drop)
    }
}

struct Compiled {
    schema: Map<String, Value>,
    checked: Result<Checked, SchemaFault>,
}

fn compiled(workflow: &Workflow) -> Arc<Compiled> {
    type Key = (OrganizationId, WorkflowId, u32);
    static RECENT: LazyLock<Recent<Key, Arc<Compiled>>> = LazyLock::new(|| Recent::new(32));
    let key = (workflow.organization_id, workflow.id, workflow.version);
    // Compare the schemas too: two engines in one process may use the same ids for different workflows.
    if let Some(found) = RECENT
        .get(&key)
        .filter(|found| found.schema == workflow.input_schema)
    {
        return found;
    }
    let made = Arc::new(Compiled {
        schema: workflow.input_schema.clone(),
        checked: compile(&workflow.input_schema),
    });
    RECENT.put(key, Arc::clone(&made));
    made
}

/// The violations of the workflow's schema, or why the data cannot be checked.
pub(crate) fn broken_by(workflow: &Workflow, data: &Value) -> Result<Vec<Violation>, Unchecked> {
    if workflow.input_schema.is_empty() {
        return Ok(Vec::new());
    }
    let compiled = compiled(workflow);
    let checked = compiled
        .checked
        .as_ref()
        .map_err(|(_, detail)| Unchecked::Unusable(detail.clone()))?;
    checked.broken_by(data)
}

impl Checked {
    fn broken_by(&self, data: &Value) -> Result<Vec<Violation>, Unchecked> {
        let prices = Prices::of(&self.bounds);
        let fits = within(BUDGET, prices, || self.validator.is_valid(Node(data)));
        match fits {
            Some(true) => Ok(Vec::new()),
            Some(false) => Ok(self.violations(data, prices)),
            None => Err(Unchecked::TooMuch(
                "checking these data against the input schema takes too many operations".to_owned(),
            )),
        }
    }

    /// Lists the violations of data known to be invalid.
    fn violations(&self, data: &Value, prices: Prices) -> Vec<Violation> {
        let (path_bytes, depth) = longest_path(data);
        let error_bytes = path_bytes + self.bounds.repeated_bytes;
        let most = error_bytes
            .saturating_mul(self.bounds.widest)
            .saturating_mul(depth);
        let listed = (most <= MAX_LISTING_BYTES).then(|| {
            let prices = prices.with_errors_of(error_bytes);
            within(LISTING_BUDGET, prices, || {
                let errors = self.validator.iter_errors(Node(data));
                let listed = errors.take(MAX_LISTED);
                once_per_field(listed.map(|error| violation(&error)))
            })
        });
        listed.flatten().unwrap_or_else(|| {
            vec![Violation {
                missing: false,
                unknown: None,
                path: Vec::new(),
                human: Text::key("issue-invalid-field-format"),
                tech: "the data break the input schema in too many ways to list".to_owned(),
            }]
        })
    }
}

/// An upper bound on the longest path to a value, in bytes, and the depth of nesting.
fn longest_path(value: &Value) -> (usize, usize) {
    let below = |(bytes, depth): (usize, usize), name: usize, inner: &Value| {
        let (inner_bytes, inner_depth) = longest_path(inner);
        (
            bytes.max(name + 1 + inner_bytes),
            depth.max(inner_depth + 1),
        )
    };
    match value {
        Value::Array(items) => items
            .iter()
            .fold((0, 1), |most, item| below(most, 20, item)),
        Value::Object(fields) => fields
            .iter()
            // `~` and `/` take two bytes in a pointer.
            .fold((0, 1), |most, (name, field)| {
                below(most, 2 * name.len(), field)
            }),
        _ => (0, 1),
    }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    let mut path: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|token| shortened(&token.replace("~1", "/").replace("~0", "~")))
        .collect();
    let missing = match error.kind() {
        ValidationErrorKind::Required { property } => {
            path.push(shortened(property.as_str().unwrap_or_default()));
            true
        }
        _ => false,
    };
    let unknown = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.first().cloned(),
        _ => None,
    };
    // Name the place in the schema, but show no data: it may be confidential.
    let tech = cut(&format!(
        "{} (schema: {})",
        error.kind().keyword(),
        error.schema_path()
    ));
    Violation {
        missing,
        unknown,
        path,
        human: expected(error.kind()),
        tech,
    }
}

/// Keeps one violation per field. A pattern is kept only if the field has no other violation, because a
/// pattern explains least.
fn once_per_field(violations: impl Iterator<Item = Violation>) -> Vec<Violation> {
    let mut listed: Vec<Violation> = Vec::new();
    for violation in violations {
        match listed.iter_mut().find(|it| it.path == violation.path) {
            None => listed.push(violation),
            Some(known) if is_pattern(&known.human) => *known = violation,
            Some(_) => {}
        }
    }
    listed
}

const PATTERN: &str = "issue-field-pattern";

fn is_pattern(human: &Text) -> bool {
    matches!(human, Text::Key { key, .. } if key == PATTERN)
}

/// The text for people about the value that the schema expects.
fn expected(kind: &ValidationErrorKind) -> Text {
    use ValidationErrorKind as Kind;
    let limit = |key, limit: &dyn Display| Text::key(key).with("limit", shown(&limit.to_string()));
    match kind {
        Kind::Required { .. } => Text::key("issue-missing-required-field"),
        Kind::MaxItems { limit: most } => limit("issue-field-max-items", most),
        Kind::MinItems { limit: least } => limit("issue-field-min-items", least),
        Kind::MaxLength { limit: most } => limit("issue-field-max-length", most),
        Kind::MinLength { limit: least } => limit("issue-field-min-length", least),
        Kind::Maximum { limit: most } => limit("issue-field-maximum", most),
        Kind::Minimum { limit: least } => limit("issue-field-minimum", least),
        Kind::ExclusiveMaximum { limit: end } => limit("issue-field-below", end),
        Kind::ExclusiveMinimum { limit: end } => limit("issue-field-above", end),
        Kind::MultipleOf { multiple_of } => limit("issue-field-multiple-of", multiple_of),
        Kind::UniqueItems => Text::key("issue-field-unique-items"),
        Kind::Constant { expected_value } => limit("issue-field-one-of", &words(expected_value)),
        Kind::Enum { options } => {
            let options = options.as_array().map_or(&[][..], Vec::as_slice);
            let options: Vec<_> = options.iter().map(words).collect();
            limit("issue-field-one-of", &options.join(", "))
        }
        Kind::Format { format } => match format.as_str() {
            "date" => Text::key("issue-field-date"),
            "date-time" => Text::key("issue-field-date-time"),
            "time" => Text::key("issue-field-time"),
            "email" | "idn-email" => Text::key("issue-field-email"),
            "uri" | "iri" => Text::key("issue-field-uri"),
            other => limit("issue-field-format", &other),
        },
        Kind::Pattern { pattern } => limit(PATTERN, pattern),
        Kind::Type {
            kind: TypeKind::Single(only),
        } => match only {
            JsonType::Array => Text::key("issue-field-array"),
            JsonType::Boolean => Text::key("issue-field-boolean"),
            JsonType::Integer => Text::key("issue-field-integer"),
            JsonType::Null => Text::key("issue-field-null"),
            JsonType::Number => Text::key("issue-field-number"),
            JsonType::Object => Text::key("issue-field-object"),
            JsonType::String => Text::key("issue-field-string"),
        },
        Kind::FalseSchema => Text::key("issue-field-not-allowed"),
        Kind::AdditionalProperties { unexpected } => {
            let names: Vec<_> = unexpected.iter().take(MAX_NAMES).cloned().collect();
            limit("issue-field-unknown", &names.join(", "))
        }
        _ => Text::key("issue-invalid-field-format"),
    }
}

/// A value from a schema as a text for people: texts without quotes, the rest as JSON.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Shortens a text of the schema, or a name in the data, for people.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
