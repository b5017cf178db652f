//! What can be kept. Texts and values that come from outside are checked, or made fit, before the
//! run is decided on: a store that refuses a commit refuses what has already happened.

use std::{borrow::Cow, fmt::Write as _, io};

use serde::Serialize;
use serde_json::{
    Map, Serializer, Value, json,
    ser::{CharEscape, Formatter},
};

use crate::observe::Redaction;

/// How deep JSON from outside may be nested: of requests, and of what handlers give.
pub const MAX_DEPTH: usize = 100;

/// How deep a value that a store is given may be nested, with what docg has put around it. A store
/// refuses what is deeper as invalid: it may read several values as one, and readers of JSON give
/// up at 128 levels.
pub const MAX_STORED_DEPTH: usize = 120;

/// Why a text or a value cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// A NUL, which PostgreSQL keeps in no text.
    #[error("it has a NUL character")]
    Nul,
    /// Arrays and objects within one another beyond what can be read again.
    #[error("it is nested too deep")]
    TooDeep,
}

impl Unstorable {
    /// What is wrong with a text, if anything.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        text.contains('\0').then_some(Self::Nul)
    }

    /// What is wrong with a value that may be nested `max_depth` levels, if anything.
    #[must_use]
    pub fn of_value(value: &Value, max_depth: usize) -> Option<Self> {
        match value {
            Value::String(text) => Self::of_text(text),
            Value::Array(_) | Value::Object(_) if max_depth == 0 => Some(Self::TooDeep),
            Value::Array(items) => items
                .iter()
                .find_map(|item| Self::of_value(item, max_depth - 1)),
            Value::Object(map) => map.iter().find_map(|(key, item)| {
                Self::of_text(key).or_else(|| Self::of_value(item, max_depth - 1))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// As [`of_value`](Self::of_value), of a record as its JSON would be.
    pub fn of_record(record: &impl Serialize, max_depth: usize) -> Option<Self> {
        let mut guard = Guard {
            levels_left: max_depth,
            fault: None,
        };
        let mut serializer = Serializer::with_formatter(io::sink(), &mut guard);
        // Nothing else can fail here: nothing is written anywhere.
        let _ = record.serialize(&mut serializer);
        guard.fault
    }

    /// As [`of_value`](Self::of_value), of a value that is written down as JSON already.
    #[must_use]
    pub fn of_json(json: &str, max_depth: usize) -> Option<Self> {
        if has_nul(json) {
            Some(Self::Nul)
        } else {
            is_deeper(json, max_depth).then_some(Self::TooDeep)
        }
    }
}

/// Follows a record as it is written down, and breaks off where it cannot be kept.
struct Guard {
    levels_left: usize,
    fault: Option<Unstorable>,
}

impl Guard {
    fn refuse(&mut self, fault: Unstorable) -> io::Result<()> {
        self.fault = Some(fault);
        Err(io::ErrorKind::InvalidData.into())
    }

    fn enter(&mut self) -> io::Result<()> {
        match self.levels_left.checked_sub(1) {
            Some(left) => {
                self.levels_left = left;
                Ok(())
            }
            None => self.refuse(Unstorable::TooDeep),
        }
    }

    fn leave(&mut self) -> io::Result<()> {
        self.levels_left += 1;
        Ok(())
    }
}

impl Formatter for &mut Guard {
    fn begin_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.enter()
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.leave()
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.enter()
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.leave()
    }
    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(0) => self.refuse(Unstorable::Nul),
            _ => Ok(()),
        }
    }
}

/// Whether a JSON text has the escape of a NUL: `\u0000` after an even number of backslashes.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

fn is_deeper(json: &str, max_depth: usize) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    // Nearly all of them: no deeper than there are brackets.
    if json.as_bytes().iter().filter(|byte| opens(byte)).count() <= max_depth {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    json.bytes().any(|byte| {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > max_depth
    })
}

/// A value that can be kept: itself, or a copy without NULs, cut where it is nested too deep.
pub(crate) fn fit(value: &Value) -> Cow<'_, Value> {
    match Unstorable::of_value(value, MAX_DEPTH) {
        None => Cow::Borrowed(value),
        Some(_) => Cow::Owned(fitted(value, MAX_DEPTH)),
    }
}

fn fitted(value: &Value, max_depth: usize) -> Value {
    match value {
        Value::String(text) => without_nul(text).into(),
        Value::Array(_) | Value::Object(_) if max_depth == 1 => json!({"truncated": true}),
        Value::Array(items) => items.iter().map(|it| fitted(it, max_depth - 1)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, it)| (without_nul(key), fitted(it, max_depth - 1)))
            .collect::<Map<_, _>>()
            .into(),
        scalar => scalar.clone(),
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// A text that may repeat what another system has said, as [`printable`] and without secrets.
pub(crate) fn technical(text: String, redaction: &Redaction) -> String {
    match redaction.text(&text) {
        Cow::Owned(redacted) => printable(redacted),
        Cow::Borrowed(_) => printable(text),
    }
}

/// Bytes as text, without loss: what is not UTF-8 stands there as `\xE9`.
pub(crate) fn legible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

/// A text for technicians without control characters other than line breaks and tabs.
pub(crate) fn printable(text: String) -> String {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_control) {
        text.replace(is_control, "")
    } else {
        text
    }
}

/// What stands at the end of a text that was cut.
pub const CUT_MARK: &str = " […]";

/// A text of at most `max` characters: itself, or its beginning with [`CUT_MARK`].
pub(crate) fn cut(mut text: String, max: usize) -> String {
    // Each character is a byte or more.
    if text.len() > max && text.chars().nth(max).is_some() {
        let kept = max.saturating_sub(CUT_MARK.chars().count());
        let end = text.char_indices().nth(kept).map_or(0, |(at, _)| at);
        text.truncate(end);
        text.push_str(CUT_MARK);
        text.shrink_to_fit();
    }
    text
}

/// [`printable`] and cut to `max` characters, of a text that is often a constant.
pub(crate) fn printable_cow(text: Cow<'static, str>, max: usize) -> Cow<'static, str> {
    match text {
        Cow::Owned(text) => Cow::Owned(cut(printable(text), max)),
        constant @ Cow::Borrowed(_) => constant,
    }
}

/// What a person has written in lines: without other control characters, and without those that
/// turn the direction of writing, which could make it look like something else.
///
/// ```
/// assert_eq!(docg_core::storable::lines("one\r\ntwo\u{202e}\0"), "one\ntwo");
/// ```
#[must_use]
pub fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
        .chars()
        .filter(|c| *c == '\n' || !(c.is_control() || is_bidi_control(*c)))
        .collect()
}

/// As [`lines`], in one line of at most `max` characters.
///
/// ```
/// assert_eq!(docg_core::storable::one_line(" too\n high,\u{202e} by far", 13), "too high, by ");
/// ```
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let text: String = text
        .chars()
        .filter(|c| !is_bidi_control(*c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(max).collect()
}

/// Unicode's property `Bidi_Control`.
const fn is_bidi_control(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!([]), |inner, level| match level % 2 {
            0 => json!([inner]),
            _ => json!({"a]\"[": inner}),
        })
    }

    #[test]
    fn a_value_is_as_deep_as_its_text() {
        for levels in 1..6 {
            let value = nested(levels);
            for max in 0..6 {
                let fault = (levels > max).then_some(Unstorable::TooDeep);
                assert_eq!(Unstorable::of_value(&value, max), fault);
                assert_eq!(Unstorable::of_record(&value, max), fault);
                assert_eq!(Unstorable::of_json(&value.to_string(), max), fault);
            }
        }
    }

    #[test]
    fn a_nul_is_found_wherever_it_is() {
        for bad in [json!("a\0"), json!({"k\0": 1}), json!([["\\\0"]])] {
            assert_eq!(Unstorable::of_value(&bad, 9), Some(Unstorable::Nul));
            assert_eq!(Unstorable::of_record(&bad, 9), Some(Unstorable::Nul));
            assert_eq!(
                Unstorable::of_json(&bad.to_string(), 9),
                Some(Unstorable::Nul)
            );
        }
        let harmless = json!("\\u0000");
        assert_eq!(Unstorable::of_value(&harmless, 9), None);
        assert_eq!(Unstorable::of_record(&harmless, 9), None);
        assert_eq!(Unstorable::of_json(&harmless.to_string(), 9), None);
    }

    #[test]
    fn what_is_made_fit_can_be_kept_and_read() {
        for bad in [
            nested(MAX_DEPTH + 1),
            nested(1_000),
            json!({"k\0": ["v\0"]}),
        ] {
            let fit = fit(&bad).into_owned();
            assert_eq!(Unstorable::of_value(&fit, MAX_DEPTH), None);
            let read: Value = serde_json::from_str(&fit.to_string()).expect("is read");
            assert_eq!(read, fit);
        }
        let good = nested(MAX_DEPTH);
        assert!(matches!(fit(&good), Cow::Borrowed(_)));
    }

    #[test]
    fn a_technical_text_keeps_its_lines() {
        let text = "line 1\n\tline\u{1b}[31m 2\0\r".to_owned();
        assert_eq!(printable(text), "line 1\n\tline[31m 2");
    }

    #[test]
    fn what_is_cut_says_so_and_keeps_whole_characters() {
        assert_eq!(cut("short".to_owned(), 5), "short");
        assert_eq!(
            cut("漢字漢字漢字漢字漢字".to_owned(), 10),
            "漢字漢字漢字漢字漢字"
        );
        assert_eq!(
            cut("漢字漢字漢字漢字漢字!".to_owned(), 10),
            "漢字漢字漢字 […]"
        );
        assert_eq!(cut("x".repeat(1_000_000), 2_000).chars().count(), 2_000);
    }
}
