//! What can go wrong, told so that a technician finds the place.

use std::fmt;

use docg_core::error::codes;
use serde::{Deserialize, Serialize};

/// The code of a document that takes more than one may.
pub const RENDER_TOO_LARGE: &str = "render_too_large";

/// Why there is no PDF.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RenderError {
    /// No template of that name comes with the program.
    #[error("there is no template `{name}`; there are: {}", known.join(", "))]
    UnknownTemplate {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The data lacks what the template declares that it needs.
    #[error("the data does not fill what template `{template}` needs: {}", paths.join(", "))]
    MissingFields {
        /// The template.
        template: String,
        /// Paths in the data that are absent, null or blank, as `customer.name` or `items[0].quantity`.
        paths: Vec<String>,
    },
    /// The template cannot be set: its syntax is broken, it reads something that nothing gives, or it
    /// refuses the data itself.
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
        /// What Typst says.
        problems: Vec<TemplateProblem>,
    },
    /// The document takes more than one may: memory, time, pages or bytes; or the typesetter broke on it.
    #[error("the document takes more than a render may: {0}")]
    TooLarge(String),
    /// The PDF that a page is to be added to cannot be read or changed.
    #[error("the original PDF cannot be extended: {reason}")]
    UnusableOriginal {
        /// What is wrong with it.
        reason: String,
    },
    /// The page would state the hash of another document.
    #[error("the page is to state SHA-256 {stated}, the document has {actual}")]
    HashMismatch {
        /// The hash that was to be printed.
        stated: String,
        /// The hash of the document.
        actual: String,
    },
}

impl RenderError {
    /// What the template itself says against the data, in one line: the message of its `assert` or `panic`.
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

    /// What the template cannot do with the data, in one line and with the place, where Typst says that of a
    /// value: it is too large to be counted with, say, or of
    /// another type.
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

    /// The code by which a step or a preflight issue is known.
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

/// What Typst puts before the message of a template that ends by `assert` or `panic`.
const REFUSALS: [&str; 4] = [
    "assertion failed: ",
    "equality assertion failed: ",
    "inequality assertion failed: ",
    "panicked with: ",
];
/// What Typst says of values, whatever the template does with them.
const OF_VALUES: [&str; 9] = [
    "too large",
    "too small",
    "divide by zero",
    "out of bounds",
    " is invalid",
    // Of another type than is needed.
    ", found ",
    "cannot apply ",
    "cannot add ",
    "cannot compare ",
];
/// Characters of such a message that people are shown.
const MAX_REFUSAL: usize = 300;

/// One problem, and where in the template it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemplateProblem {
    /// The file among the bundled ones, where Typst names a place.
    pub file: Option<String>,
    /// Line from 1, where Typst names a place.
    pub line: Option<usize>,
    /// Column from 1, where Typst names a place.
    pub column: Option<usize>,
    /// What the template says there, as `data.customer.name`; at most one line of it.
    pub excerpt: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What Typst proposes.
    pub hints: Vec<String>,
}

impl TemplateProblem {
    /// What people are shown: what is wrong, and with what.
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
