//! The errors of rendering, with the place in the template for technicians.

use std::fmt;

use docg_core::error::codes;
use serde::{Deserialize, Serialize};

/// The error code of a document that exceeds a limit of renders.
pub const RENDER_TOO_LARGE: &str = "render_too_large";

/// The reason why no PDF was made.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RenderError {
    /// The program has no template of that name.
    #[error("there is no template `{name}`; there are: {}", known.join(", "))]
    UnknownTemplate {
        /// The requested name.
        name: String,
        /// The names of all templates.
        known: Vec<String>,
    },
    /// The data lacks fields that the template declares as required.
    #[error("the data does not fill what template `{template}` needs: {}", paths.join(", "))]
    MissingFields {
        /// The template.
        template: String,
        /// The paths in the data that are absent, null or blank, as `customer.name` or `items[0].quantity`.
        paths: Vec<String>,
    },
    /// Typst cannot compile the template: its syntax is broken, it reads a value that does not exist, or it
    /// rejects the data itself.
    #[error("template `{template}` cannot be set: {}", Lines(problems))]
    InvalidTemplate {
        /// The template.
        template: String,
        /// At least one problem, in the order in which Typst found them.
        problems: Vec<TemplateProblem>,
    },
    /// The document was laid out and could not be written as PDF.
    #[error("the PDF could not be written: {}", Lines(problems))]
    Export {
        /// Typst's messages.
        problems: Vec<TemplateProblem>,
    },
    /// The document exceeds a limit (memory, time, pages or bytes), or the typesetter panicked on it.
    #[error("the document takes more than a render may: {0}")]
    TooLarge(String),
    /// The PDF that the signature page is to be appended to cannot be read or changed.
    #[error("the original PDF cannot be extended: {reason}")]
    UnusableOriginal {
        /// The reason.
        reason: String,
    },
    /// The signature page would state the hash of another document.
    #[error("the page is to state SHA-256 {stated}, the document has {actual}")]
    HashMismatch {
        /// The hash to be printed.
        stated: String,
        /// The actual hash of the document.
        actual: String,
    },
}

impl RenderError {
    /// The template's own objection to the data, in one line: the message of its `assert` or `panic`.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let Self::InvalidTemplate { problems, .. } = self else {
            return None;
        };
        let said = problems.iter().find_map(|problem| {
            let message = &problem.message;
            REFUSALS.iter().find_map(|it| message.strip_prefix(it))
        })?;
        let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(line.chars().take(MAX_REFUSAL).collect())
    }

    /// Typst's objection to a value, in one line and with the place: for example, a number is too large, or a
    /// value has the wrong type.
    #[must_use]
    pub fn misfit(&self) -> Option<String> {
        let Self::InvalidTemplate { problems, .. } = self else {
            return None;
        };
        let is_of_value = |problem: &&TemplateProblem| {
            let message = &problem.message;
            OF_VALUES.iter().any(|it| message.contains(it))
        };
        let problem = problems.iter().find(is_of_value)?;
        Some(problem.in_one_line())
    }

    /// The error code for a step or a preflight issue.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTemplate { .. } => "template_not_found",
            Self::InvalidTemplate { .. } if self.refusal().is_some() || self.misfit().is_some() => {
                codes::INVALID_FIELD_FORMAT
            }
            Self::MissingFields { .. } | Self::InvalidTemplate { .. } => "template_invalid_tags",
            Self::TooLarge(_) => RENDER_TOO_LARGE,
            Self::Export { .. } | Self::UnusableOriginal { .. } | Self::HashMismatch { .. } => {
                "render_failed"
            }
        }
    }
}

/// The prefixes that Typst puts before the message of a failed `assert` or of `panic`.
const REFUSALS: [&str; 4] = [
    "assertion failed: ",
    "equality assertion failed: ",
    "inequality assertion failed: ",
    "panicked with: ",
];
/// Parts by which Typst's messages about an unfit value are recognized.
const OF_VALUES: [&str; 9] = [
    "too large",
    "too small",
    "divide by zero",
    "out of bounds",
    " is invalid",
    // A value of the wrong type.
    ", found ",
    "cannot apply ",
    "cannot add ",
    "cannot compare ",
];
/// The length, in characters, to which a message of Typst or of a template is cut for people.
const MAX_REFUSAL: usize = 300;

/// A problem and its place in the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemplateProblem {
    /// The bundled file, if Typst names a place.
    pub file: Option<String>,
    /// The line, from 1, if Typst names a place.
    pub line: Option<usize>,
    /// The column, from 1, if Typst names a place.
    pub column: Option<usize>,
    /// The template's text at the place, as `data.customer.name`; at most one line.
    pub excerpt: Option<String>,
    /// Typst's message.
    pub message: String,
    /// Typst's suggestions.
    pub hints: Vec<String>,
}

impl TemplateProblem {
    /// The text for people: the message and the template's text at the place.
    fn in_one_line(&self) -> String {
        let text = match &self.excerpt {
            Some(excerpt) => format!("{}: {excerpt}", self.message),
            None => self.message.clone(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(MAX_REFUSAL).collect()
    }
}

impl fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, ", at `{excerpt}`")?;
        }
        for hint in &self.hints {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

struct Lines<'a>(&'a [TemplateProblem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
