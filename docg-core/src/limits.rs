//! The one table of limits for texts and lists.
//!
//! The checks of requests and of the application's calls use these limits, and so do `maxLength` in the
//! OpenAPI document and the cutting of texts that handlers return.
//!
//! Texts come in three forms:
//!
//! - A *line*, such as a name, has no control characters, line breaks (U+2028 and U+2029 too), byte order
//!   marks or characters that override the direction of writing.
//! - *Lines*, such as a reason, may also have tabs and line breaks.
//! - *Data*, such as trigger data, may have every character except NUL. Only the size of the request's body
//!   limits its length.

use crate::{error::FieldFault, i18n::Text, observe::Redaction, storable};

pub use crate::storable::CUT_MARK;

/// The limit of a text: its length and its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextLimit {
    /// The field's name on the wire.
    pub name: &'static str,
    /// The largest number of characters: Unicode scalar values, as `maxLength` of JSON Schema counts them.
    pub max: usize,
    form: Form,
    is_needed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Line,
    Lines,
}

impl TextLimit {
    const fn line(name: &'static str, max: usize) -> Self {
        Self {
            name,
            max,
            form: Form::Line,
            is_needed: false,
        }
    }

    const fn lines(name: &'static str, max: usize) -> Self {
        Self {
            form: Form::Lines,
            ..Self::line(name, max)
        }
    }

    /// Requires that the text, if present, is not blank.
    const fn needed(self) -> Self {
        Self {
            is_needed: true,
            ..self
        }
    }
}

/// The name of a workflow or of a signer.
pub const NAME: TextLimit = TextLimit::line("name", 200);
/// A workflow's text from which the titles of its executions are made.
pub const TITLE: TextLimit = TextLimit::line("title", 500);
/// The label of a node.
pub const LABEL: TextLimit = TextLimit::line("label", 200).needed();
/// The id of a node.
pub const NODE_ID: TextLimit = TextLimit::line("node_id", 64).needed();
/// The name of a node type.
pub const NODE_TYPE: TextLimit = TextLimit::line("type", 100).needed();
/// The condition of a node.
pub const WHEN: TextLimit = TextLimit::lines("when", 2_000);
/// The kind of trigger that started an execution.
pub const TRIGGER_TYPE: TextLimit = TextLimit::line("trigger_type", 100).needed();
/// The reason for a pause or a cancel.
pub const REASON: TextLimit = TextLimit::lines("reason", 2_000);
/// An approver's comment on the decision.
pub const COMMENT: TextLimit = TextLimit::lines("comment", 2_000);
/// A workflow's message to approvers and signers.
pub const MESSAGE: TextLimit = TextLimit::lines("message", 2_000);
/// The name of a signature provider.
pub const PROVIDER: TextLimit = TextLimit::line("provider", 100).needed();
/// An e-mail address, with or without a display name.
pub const EMAIL: TextLimit = TextLimit::line("email", 500);
/// The correlation id of a chain of calls.
pub const CORRELATION_ID: TextLimit = TextLimit::line("correlation_id", 128).needed();
/// The W3C trace context of a call.
pub const TRACEPARENT: TextLimit = TextLimit::line("traceparent", 512).needed();
/// The idempotency key of a call.
pub const IDEMPOTENCY_KEY: TextLimit = TextLimit::line("idempotency_key", 255).needed();
/// The name of an event that a step can wait for.
pub const EVENT_NAME: TextLimit = TextLimit::line("event_name", 200).needed();
/// The key of an event that a step can wait for.
pub const EVENT_KEY: TextLimit = TextLimit::line("event_key", 200).needed();
/// The caller's name.
pub const ACTOR: TextLimit = TextLimit::line("actor", 500);
/// A text that people search executions by.
pub const SEARCH: TextLimit = TextLimit::line("q", 200);
/// A position in a list.
pub const CURSOR: TextLimit = TextLimit::line("cursor", 500);

/// All text limits.
pub const TEXTS: [TextLimit; 20] = [
    NAME,
    TITLE,
    SEARCH,
    LABEL,
    NODE_ID,
    NODE_TYPE,
    WHEN,
    TRIGGER_TYPE,
    REASON,
    COMMENT,
    MESSAGE,
    PROVIDER,
    EMAIL,
    CORRELATION_ID,
    TRACEPARENT,
    IDEMPOTENCY_KEY,
    EVENT_NAME,
    EVENT_KEY,
    ACTOR,
    CURSOR,
];

/// The largest length of an error code from a handler, in characters. Longer codes are cut.
pub const CODE: usize = 100;
/// The largest length of a text for people from a handler or provider, in characters. Longer texts are cut.
pub const HUMAN: usize = 2_000;
/// The largest length of a text for technicians, in characters. Longer texts are cut.
pub const TECH: usize = 10_000;
/// The largest number of log entries stored for one attempt of a step.
pub const LOGS_PER_ATTEMPT: usize = 1_000;
/// The largest number of issues from the check of one node.
pub const ISSUES_PER_NODE: usize = 100;
/// The largest number of events that an execution keeps until a step takes them.
pub const KEPT_EVENTS: usize = 100;
/// The largest size of an event's payload, in bytes of JSON.
pub const EVENT_PAYLOAD: usize = 65_536;
/// The largest number of signers of a request, approvers of an approval, or recipients of a delivery.
pub const PEOPLE: usize = 100;

impl TextLimit {
    /// The fault of a text, for the field at `pointer`; `None` if the text is fine.
    #[must_use]
    pub fn fault(&self, pointer: &str, text: &str) -> Option<FieldFault> {
        let fault = |code, detail| Some(FieldFault::new(pointer, code, detail));
        if self.is_needed && is_blank(text) {
            return fault("required", Text::key("fault-blank"));
        }
        if text.chars().nth(self.max).is_some() {
            let detail = Text::key("fault-too-long").with("most", self.max);
            return fault("too_long", detail);
        }
        let (is_wrong, key): (fn(char) -> bool, _) = match self.form {
            Form::Line => (is_no_part_of_a_line, "fault-line"),
            Form::Lines => (is_no_part_of_lines, "fault-lines"),
        };
        text.contains(is_wrong)
            .then(|| FieldFault::new(pointer, "invalid_text", Text::key(key)))
    }

    /// The regular expression (ECMA-262) that the whole text must match. If the text must not be blank, the
    /// expression matches only texts with a visible character.
    #[must_use]
    pub fn pattern(&self) -> String {
        let never = match self.form {
            Form::Line => r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff",
            Form::Lines => {
                r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff"
            }
        };
        if self.is_needed {
            let unseen = r"\s\u00ad\u180e\u200b-\u200f\u2060-\u2064";
            format!("^[^{never}]*[^{unseen}{never}][^{never}]*$")
        } else {
            format!("^[^{never}]*$")
        }
    }

    /// As [`fault`](Self::fault), for an optional field at the top level.
    pub(crate) fn of_field(&self, text: Option<&str>) -> Option<FieldFault> {
        self.fault(&format!("/{}", self.name), text?)
    }
}

/// True if nothing of the text is visible: only white space, control characters or characters without width.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    let has_no_width = |c| matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    text.chars()
        .all(|c| c.is_whitespace() || has_no_width(c) || c.is_control())
}

fn is_no_part_of_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') || overrides_direction(c)
}

fn is_no_part_of_lines(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || c == '\u{feff}'
        || overrides_direction(c)
}

/// True for characters that override the direction of writing, and can so make a text look like another text.
/// False for marks that only tell a neighbour's direction: they are part of names in some scripts.
const fn overrides_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prepares a text for technicians for storage: printable, without secrets, and cut if too long.
pub(crate) fn tech(text: String, redaction: &Redaction) -> String {
    storable::technical(text, TECH, redaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(limit: TextLimit, text: &str) -> Option<&'static str> {
        limit.fault("/x", text).map(|fault| fault.code)
    }

    #[test]
    fn every_text_may_be_as_long_as_its_limit_and_no_longer() {
        for limit in TEXTS {
            for c in ["x", "é", "漢", "👍"] {
                assert_eq!(code(limit, &c.repeat(limit.max)), None, "{}", limit.name);
                let longer = code(limit, &c.repeat(limit.max + 1));
                assert_eq!(longer, Some("too_long"), "{}", limit.name);
            }
        }
    }

    #[test]
    fn a_line_has_no_breaks_and_nothing_that_hides_or_turns_it() {
        for limit in TEXTS {
            let is_line = limit.form == Form::Line;
            for (c, is_wrong) in [
                ('\0', true),
                ('\u{1b}', true),
                ('\u{85}', true),
                ('\u{feff}', true),
                ('\u{202e}', true),
                ('\u{2066}', true),
                ('\n', is_line),
                ('\r', is_line),
                ('\t', is_line),
                ('\u{2028}', is_line),
                ('\u{200b}', false),
                ('\u{200d}', false),
                ('\u{200f}', false),
                ('\u{301}', false),
            ] {
                let found = code(limit, &format!("a{c}b"));
                assert_eq!(
                    found,
                    is_wrong.then_some("invalid_text"),
                    "{}: {c:?}",
                    limit.name
                );
            }
        }
    }

    #[test]
    fn a_text_that_is_needed_shows_something() {
        for blank in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{200b}",
            "\u{feff}\u{2060}",
            "\r\n\t",
        ] {
            assert!(is_blank(blank), "{blank:?}");
            for limit in TEXTS.iter().filter(|limit| limit.is_needed) {
                assert_eq!(
                    code(*limit, blank),
                    Some("required"),
                    "{}: {blank:?}",
                    limit.name
                );
            }
        }
        assert!(!is_blank("\u{200b}x") && !is_blank("."));
    }
}
