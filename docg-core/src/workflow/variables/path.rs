//! Paths between `{{` and `}}`: `trigger.customer.email`, `steps.render.file`, `trigger.items[0]["unit
//! price"]`.

use std::{borrow::Cow, fmt};

use serde_json::Value;

use crate::run::Execution;

/// The fields of `execution`.
pub(crate) const EXECUTION_FIELDS: [&str; 8] = [
    "id",
    "workflow_id",
    "organization_id",
    "trigger_type",
    "created_at",
    "attempt",
    "dry_run",
    "correlation_id",
];

/// The start of a path. Paths can read nothing else: no environment, no files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Root {
    /// The trigger data.
    Trigger,
    /// The outputs of earlier steps.
    Steps,
    /// Facts about the execution.
    Execution,
}

impl Root {
    /// The name in a path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Steps => "steps",
            Self::Execution => "execution",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Trigger, Self::Steps, Self::Execution]
            .into_iter()
            .find(|root| root.as_str() == name)
    }
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// `{{` without `}}`.
    #[error("\"{{{{\" is never closed by \"}}}}\"")]
    Unclosed,
    /// `{{}}`.
    #[error("nothing stands between \"{{{{\" and \"}}}}\"")]
    Empty,
    /// The path begins with another name.
    #[error("{0:?} cannot be read: only trigger, steps and execution can")]
    UnknownRoot(String),
    /// `steps` without the id of a node.
    #[error("steps needs the id of a node: steps.<node id>.<field>")]
    NoNode,
    /// The text has characters other than names, `.` and `[…]`.
    #[error("{0:?} is not a path: names joined by \".\", with [0] or [\"name\"] where needed")]
    Malformed(String),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPath {
    /// The start of the path.
    pub root: Root,
    /// The names after the root; list indexes as digits.
    pub segments: Vec<String>,
}

impl fmt::Display for OwnedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.as_str())?;
        for segment in &self.segments {
            if !segment.is_empty() && segment.chars().all(is_name) {
                write!(f, ".{segment}")?;
            } else {
                write!(f, "[{segment:?}]")?;
            }
        }
        Ok(())
    }
}

/// A path whose names borrow from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path<'t> {
    pub(crate) root: Root,
    pub(crate) segments: Vec<&'t str>,
}

impl<'t> Path<'t> {
    /// Parses the text between the braces.
    pub(crate) fn parse(text: &'t str) -> Result<Self, PathError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        let malformed = || PathError::Malformed(shortened(text));
        let (first, mut rest) = split_name(text);
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let segment;
            if let Some(after) = rest.strip_prefix('.') {
                (segment, rest) = split_name(after);
            } else {
                let inside = rest.strip_prefix('[').ok_or_else(malformed)?;
                (segment, rest) = split_index(inside).ok_or_else(malformed)?;
            }
            if segment.is_empty() {
                return Err(malformed());
            }
            segments.push(segment);
        }
        match Root::from_name(first) {
            None if first.is_empty() => Err(malformed()),
            None => Err(PathError::UnknownRoot(shortened(first))),
            Some(Root::Steps) if segments.is_empty() => Err(PathError::NoNode),
            Some(root) => Ok(Self { root, segments }),
        }
    }

    pub(crate) fn to_owned_path(&self) -> OwnedPath {
        OwnedPath {
            root: self.root,
            segments: self
                .segments
                .iter()
                .map(|&segment| segment.to_owned())
                .collect(),
        }
    }
}

/// Splits a text into its leading name and the rest.
fn split_name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
}

/// True for characters allowed in an unquoted name. Spaces, quotes, braces, brackets and operators are not
/// allowed, so that `{{ trigger.name | upper }}` is a syntax error and not an odd name.
fn is_name(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, '_' | '-' | '$' | '@' | ':' | '#')
        || (!c.is_ascii() && !c.is_whitespace() && !c.is_control())
}

/// Splits the text after `[` into the bracket's content and the text after `]`.
fn split_index(inside: &str) -> Option<(&str, &str)> {
    for quote in ['"', '\''] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, rest) = quoted.split_once(quote)?;
            return Some((name, rest.strip_prefix(']')?));
        }
    }
    let (digits, rest) = inside.split_once(']')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some((digits, rest))
}

/// Shortens a text, which may be a megabyte, to a recognizable beginning.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Follows a path of names into a value.
pub(crate) fn descend<'v, S: AsRef<str>>(value: &'v Value, segments: &[S]) -> Option<&'v Value> {
    segments
        .iter()
        .try_fold(value, |value, segment| match value {
            Value::Object(fields) => fields.get(segment.as_ref()),
            Value::Array(items) => items.get(segment.as_ref().parse::<usize>().ok()?),
            _ => None,
        })
}

/// The value of `execution` or one of its fields.
pub(crate) fn execution_value(
    execution: &Execution,
    segments: &[&str],
) -> Option<Cow<'static, Value>> {
    let field = |name: &str| {
        Some(match name {
            "id" => execution.id.to_string().into(),
            "workflow_id" => execution.workflow_id.to_string().into(),
            "organization_id" => execution.organization_id.to_string().into(),
            "trigger_type" => (&*execution.trigger_type).into(),
            "created_at" => execution.created_at.to_string().into(),
            "attempt" => execution.attempt.into(),
            "dry_run" => execution.dry_run.into(),
            "correlation_id" => (&*execution.correlation_id).into(),
            _ => return None,
        })
    };
    match segments {
        [] => {
            let fields = EXECUTION_FIELDS
                .iter()
                .filter_map(|&name| Some((name.to_owned(), field(name)?)));
            Some(Cow::Owned(Value::Object(fields.collect())))
        }
        [name] => field(name).map(Cow::Owned),
        _ => None,
    }
}
