//! Errors of an execution: a stable code, a text for people, a text for technicians, and a failure class.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::{i18n::Text, limits, observe::Redaction, storable};

pub mod codes;
mod field;

pub use field::FieldFault;
pub(crate) use field::told;

/// An error as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorContext {
    /// The stable, machine-readable code, such as `template_not_found`; see [`codes`].
    pub code: Cow<'static, str>,
    /// The text for people: what happened and what it means, without technical terms.
    pub human: Text,
    /// The text for technicians. Shown only to callers with the scope for it; never in an event.
    #[serde(default)]
    pub tech: Option<String>,
}

impl ErrorContext {
    /// Removes control characters and secrets, bounds the texts, and replaces blank ones: the texts may
    /// repeat another system's words.
    pub(crate) fn printable(self, redaction: &Redaction) -> Self {
        let code = storable::printable_cow(self.code, limits::CODE);
        let code = storable::one_line(&code, limits::CODE);
        let human = match self.human.printable(redaction) {
            Text::Literal(text) if limits::is_blank(&text) => Text::key("error-unspecified"),
            human => human,
        };
        Self {
            code: if limits::is_blank(&code) {
                Cow::Borrowed(codes::ERROR)
            } else {
                Cow::Owned(code)
            },
            human,
            tech: self.tech.map(|tech| limits::tech(tech, redaction)),
        }
    }
}

/// The class of a failure. The class alone decides how the execution goes on; the engine never reads the
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A retry may succeed; the node's retry policy limits the attempts.
    Retryable,
    /// A person can repair the cause: the execution goes to `needs_review`.
    Review,
    /// A retry would fail again; the node's `on_error` decides.
    Final,
    /// The effect may have happened. The driver asks the handler with `probe`; if the handler cannot tell, a
    /// person decides.
    OutcomeUnknown,
    /// The effect is done, but the answer about it cannot be used. Handled as
    /// [`OutcomeUnknown`](Self::OutcomeUnknown), but a person who must decide reads why the answer is
    /// unusable.
    AnswerRefused,
    /// The handler was told to stop and did so before its effect: nothing happened.
    Stopped,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailure {
    /// The failure class.
    pub class: FailureClass,
    /// The code and texts.
    pub context: ErrorContext,
    /// The shortest pause before the next attempt, in milliseconds, if the provider named one
    /// (`Retry-After`). The retry policy still bounds the number of attempts. If the pause is longer than the
    /// policy's longest pause, a person decides when to retry.
    pub retry_after_ms: Option<u64>,
}

impl StepFailure {
    fn new(
        class: FailureClass,
        code: impl Into<Cow<'static, str>>,
        human: impl Into<Text>,
    ) -> Self {
        let context = ErrorContext {
            code: code.into(),
            human: human.into(),
            tech: None,
        };
        Self {
            class,
            context,
            retry_after_ms: None,
        }
    }

    /// A failure after which a retry may succeed.
    #[must_use]
    pub fn retryable(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Retryable, code, human)
    }

    /// A failure that a person can repair.
    #[must_use]
    pub fn review(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Review, code, human)
    }

    /// A failure after which a retry would fail again.
    #[must_use]
    pub fn fatal(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Final, code, human)
    }

    /// A failure after which the effect may or may not have happened.
    #[must_use]
    pub fn outcome_unknown(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::OutcomeUnknown, code, human)
    }

    /// The provider answered that it did the work, but its answer cannot be used, because of `why`. As
    /// [`outcome_unknown`](Self::outcome_unknown), but a person who must decide reads `why`.
    #[must_use]
    pub fn answer_unusable(code: impl Into<Cow<'static, str>>, why: impl Into<Text>) -> Self {
        Self::new(FailureClass::AnswerRefused, code, why)
    }

    /// The failure of a handler that was told to stop and did so before its effect.
    ///
    /// A handler returns this failure if [`cancellation`](crate::workflow::context::StepFacts::cancellation)
    /// has fired before the effect began. After a shutdown or a lost lease, the step runs again on another
    /// worker and no attempt is used up. After a cancel, the execution ends `canceled`. At the deadline, the
    /// attempt counts as timed out. If the handler was not told to stop, the failure counts as
    /// [`retryable`](Self::retryable).
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(
            FailureClass::Stopped,
            codes::STOPPED,
            Text::key("error-stopped"),
        )
    }

    /// Removes control characters and secrets: the texts may repeat another system's words.
    pub(crate) fn printable(self, redaction: &Redaction) -> Self {
        Self {
            context: self.context.printable(redaction),
            ..self
        }
    }

    /// Adds the text for technicians.
    #[must_use]
    pub fn tech(mut self, tech: impl fmt::Display) -> Self {
        self.context.tech = Some(tech.to_string());
        self
    }

    /// Sets the shortest pause before the next attempt.
    #[must_use]
    pub fn retry_after_ms(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.context.code,
            self.context.human.render(crate::i18n::Locale::En)
        )
    }
}

impl std::error::Error for StepFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::i18n::Locale;

    #[test]
    fn a_failure_has_a_code_of_one_line_and_a_text() {
        for (code, human, kept) in [
            ("", "", "error"),
            (" \n", "\u{200b}", "error"),
            ("one\ntwo", "Text.", "one two"),
            ("plain", "Text.", "plain"),
        ] {
            let context = StepFailure::fatal(code, human)
                .printable(&Redaction::default())
                .context;
            assert_eq!(context.code, kept, "{code:?}");
            let human = context.human.render(Locale::En);
            assert!(!limits::is_blank(&human), "{code:?}");
        }
    }
}
