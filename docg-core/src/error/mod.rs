//! Errors of a run: a stable code, one text for people, one for technicians, and what may follow.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::{i18n::Text, limits, storable};

pub mod codes;
mod field;

pub use field::FieldFault;
pub(crate) use field::told;

/// What is stored and shown of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorContext {
    /// Stable and machine-readable, such as `template_not_found`; see [`codes`].
    pub code: Cow<'static, str>,
    /// What happened and what it means, without technical terms.
    pub human: Text,
    /// What technicians need. Shown only to callers with the scope for it; never in an event.
    #[serde(default)]
    pub tech: Option<String>,
}

impl ErrorContext {
    /// Without control characters and secrets, bounded, and never blank: it may repeat what another system
    /// has said.
    pub(crate) fn printable(self) -> Self {
        let code = storable::printable_cow(self.code, limits::CODE);
        let code = storable::one_line(&code, limits::CODE);
        let human = match self.human.printable() {
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
            tech: self.tech.map(limits::tech),
        }
    }
}

/// What may be done about a failed step. The engine reads only this, never the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// May succeed when tried again; the node's retry policy says how often.
    Retryable,
    /// A person can repair it: the execution goes to `needs_review`.
    Review,
    /// Trying again changes nothing.
    Final,
    /// The effect may have happened. The handler is asked; where it cannot tell, a person is.
    OutcomeUnknown,
    /// The handler was told to stop and did so before its effect: nothing happened.
    Stopped,
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailure {
    /// What may follow.
    pub class: FailureClass,
    /// What is shown.
    pub context: ErrorContext,
    /// The earliest next attempt, in milliseconds from now, where the other side said so
    /// (`Retry-After`). The retry policy still bounds the number of attempts; where this is longer
    /// than the policy's longest pause, a person decides when to try again.
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

    /// May succeed when tried again.
    #[must_use]
    pub fn retryable(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Retryable, code, human)
    }

    /// A person can repair it.
    #[must_use]
    pub fn review(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Review, code, human)
    }

    /// Trying again changes nothing.
    #[must_use]
    pub fn fatal(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::Final, code, human)
    }

    /// The effect may or may not have happened.
    #[must_use]
    pub fn outcome_unknown(code: impl Into<Cow<'static, str>>, human: impl Into<Text>) -> Self {
        Self::new(FailureClass::OutcomeUnknown, code, human)
    }

    /// The other side has answered that it did what it was asked for, and the answer cannot be used, for
    /// this reason. As [`outcome_unknown`](Self::outcome_unknown), but people read the reason.
    #[must_use]
    pub fn answer_unusable(code: impl Into<Cow<'static, str>>, why: impl Into<Text>) -> Self {
        let human = Text::key(crate::engine::REFUSED).with_text("why", why.into());
        Self::outcome_unknown(code, human)
    }

    /// The handler stopped because it was told to, and nothing happened: the right answer once
    /// [`cancellation`](crate::workflow::context::StepFacts::cancellation) has fired and the effect
    /// has not begun. After a shutdown or a lost lease the step runs again elsewhere and no attempt is
    /// used up; after a cancel the execution ends `canceled`; at its deadline the attempt has timed
    /// out. From a handler that was not told to stop it counts as [`retryable`](Self::retryable).
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(
            FailureClass::Stopped,
            codes::STOPPED,
            Text::key("error-stopped"),
        )
    }

    /// Without control characters: it may repeat what another system has said.
    pub(crate) fn printable(self) -> Self {
        Self {
            context: self.context.printable(),
            ..self
        }
    }

    /// Adds the text for technicians.
    #[must_use]
    pub fn tech(mut self, tech: impl fmt::Display) -> Self {
        self.context.tech = Some(tech.to_string());
        self
    }

    /// Asks for a pause before the next attempt.
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
            let context = StepFailure::fatal(code, human).printable().context;
            assert_eq!(context.code, kept, "{code:?}");
            let human = context.human.render(Locale::En);
            assert!(!limits::is_blank(&human), "{code:?}");
        }
    }
}
