//! Checks that every store can keep a text or a value. Texts and values from outside are checked, or made to
//! fit, before the engine decides: if a store refused a commit, a fact that has already happened would be
//! lost.

use std::{borrow::Cow, fmt::Write as _, io};

use serde::Serialize;
use serde_json::{
    Map, Serializer, Value, json,
    ser::{CharEscape, Formatter},
};

use crate::{error::FieldFault, i18n::Text, observe::Redaction};

/// The deepest nesting of JSON from outside: in requests, and in handlers' results.
pub const MAX_DEPTH: usize = 100;

/// The deepest nesting of a value given to a store, including the levels that docg adds. A store refuses
/// deeper values as invalid. It may read several values in one JSON document, and JSON readers give up at 128
/// levels.
pub const MAX_STORED_DEPTH: usize = 120;

/// Why a text or a value cannot be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// The text has a NUL, which PostgreSQL cannot store.
    #[error("it has a NUL character")]
    Nul,
    /// Arrays and objects are nested too deeply to be read again.
    #[error("it is nested too deep")]
    TooDeep,
    /// An object has a member name that serde_json takes for a marker of its own: the object would be read
    /// again as another value.
    #[error(
        "it has a member name that is reserved: a name must not begin with {RESERVED_PREFIX:?}"
    )]
    ReservedName,
}

/// The prefix of the names that serde_json takes for markers of its own.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// True if serde_json could take a member's name for a marker of its own.
pub(crate) fn is_reserved_name(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

impl Unstorable {
    /// The fault of a text, if any.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        text.contains('\0').then_some(Self::Nul)
    }

    /// The fault of a member's name, if any.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let reserved = is_reserved_name(name).then_some(Self::ReservedName);
        reserved.or_else(|| Self::of_text(name))
    }

    /// Turns the reason into a fault of the field at `pointer`.
    pub(crate) fn of_field(self, pointer: String) -> FieldFault {
        let (code, text) = match self {
            Self::ReservedName => ("reserved_name", Text::key("fault-reserved-name")),
            Self::Nul => ("invalid_text", Text::key("fault-nul")),
            Self::TooDeep => (
                "too_deep",
                Text::key("fault-too-deep").with("most", MAX_DEPTH),
            ),
        };
        FieldFault::new(pointer, code, text)
    }

    /// The fault of a value that may be nested `max_depth` levels, if any.
    #[must_use]
    pub fn of_value(value: &Value, max_depth: usize) -> Option<Self> {
        match value {
            Value::String(text) => Self::of_text(text),
            Value::Array(_) | Value::Object(_) if max_depth == 0 => Some(Self::TooDeep),
            Value::Array(items) => items
                .iter()
                .find_map(|item| Self::of_value(item, max_depth - 1)),
            Value::Object(map) => map.iter().find_map(|(key, item)| {
                Self::of_name(key).or_else(|| Self::of_value(item, max_depth - 1))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// As [`of_value`](Self::of_value), for a record in its JSON form.
    pub fn of_record(record: &impl Serialize, max_depth: usize) -> Option<Self> {
        let mut guard = Guard {
            levels_left: max_depth,
            in_name: false,
            fault: None,
        };
        let mut serializer = Serializer::with_formatter(io::sink(), &mut guard);
        // Only the guard makes the serialization fail, and it has recorded the fault: the sink accepts all
        // output.
        let _ = record.serialize(&mut serializer);
        guard.fault
    }

    /// As [`of_value`](Self::of_value), for a value already serialized to JSON.
    #[must_use]
    pub fn of_json(json: &str, max_depth: usize) -> Option<Self> {
        if has_nul(json) {
            Some(Self::Nul)
        } else if has_reserved_name(json) {
            Some(Self::ReservedName)
        } else {
            is_deeper(json, max_depth).then_some(Self::TooDeep)
        }
    }
}

/// Watches a record's serialization, and stops it at the first fault.
struct Guard {
    levels_left: usize,
    in_name: bool,
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
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W, _: bool) -> io::Result<()> {
        self.in_name = true;
        Ok(())
    }
    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.in_name = false;
        Ok(())
    }
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        _: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        match self.in_name && is_reserved_name(fragment) {
            true => self.refuse(Unstorable::ReservedName),
            false => Ok(()),
        }
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

/// True if a JSON text has an escaped NUL: `\u0000` after an even number of backslashes.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

/// True if a JSON text has a member with a reserved name.
fn has_reserved_name(json: &str) -> bool {
    json.match_indices(RESERVED_PREFIX).any(|(at, _)| {
        let is_whole = json[..at].ends_with('"') && !json[..at].ends_with("\\\"");
        let end = json[at..].find('"').map(|end| &json[at + end + 1..]);
        is_whole && end.is_some_and(|rest| rest.trim_start().starts_with(':'))
    })
}

fn is_deeper(json: &str, max_depth: usize) -> bool {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    // Fast path for nearly all texts: a text with few opening brackets cannot be nested deeply.
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

/// Drops a value of any depth. Rust's own drop recurses, and overflows the stack if the value is deep.
pub(crate) fn dismantle(value: Value) {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(map) => left.extend(map.into_iter().map(|(_, item)| item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// If a value is nested deeper than [`MAX_DEPTH`], drops it, leaves `null`, and returns the fault. Afterwards
/// it is safe to recurse into the value.
pub(crate) fn refuse_deep(
    value: &mut Value,
    pointer: impl FnOnce() -> String,
) -> Option<FieldFault> {
    fn is_deeper(value: &Value, levels_left: usize) -> bool {
        match value {
            Value::Array(_) | Value::Object(_) if levels_left == 0 => true,
            Value::Array(items) => items.iter().any(|it| is_deeper(it, levels_left - 1)),
            Value::Object(map) => map.values().any(|it| is_deeper(it, levels_left - 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    is_deeper(value, MAX_DEPTH).then(|| {
        dismantle(value.take());
        Unstorable::TooDeep.of_field(pointer())
    })
}

/// True if a value's JSON is certainly longer than `max` bytes. Fast: does not look into texts, and stops
/// once the answer is clear. Does not count values nested deeper than [`MAX_DEPTH`].
pub(crate) fn is_far_longer(value: &Value, max: usize) -> bool {
    fn is_beyond(value: &Value, levels_left: usize, left: &mut usize) -> bool {
        let least = match value {
            Value::String(text) => text.len() + 2,
            Value::Array(items) => items.len() + 1,
            Value::Object(map) => map.len() + 1,
            Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        };
        let Some(rest) = left.checked_sub(least) else {
            return true;
        };
        *left = rest;
        let Some(levels_left) = levels_left.checked_sub(1) else {
            return false;
        };
        match value {
            Value::Array(items) => items.iter().any(|it| is_beyond(it, levels_left, left)),
            Value::Object(map) => map.iter().any(|(key, it)| {
                *left = left.saturating_sub(key.len() + 2);
                is_beyond(it, levels_left, left)
            }),
            _ => false,
        }
    }
    is_beyond(value, MAX_DEPTH, &mut { max })
}

/// As [`fit`], for an owned value.
pub(crate) fn fit_owned(value: Value) -> Value {
    let fitted = match fit(&value) {
        Cow::Borrowed(_) => return value,
        Cow::Owned(fitted) => fitted,
    };
    dismantle(value);
    fitted
}

/// Makes a value storable: returns it unchanged, or a copy without NULs and reserved names, in which values
/// that are nested too deeply are replaced by `{"truncated": true}`.
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
            .map(|(key, it)| (fitted_name(key), fitted(it, max_depth - 1)))
            .collect::<Map<_, _>>()
            .into(),
        scalar => scalar.clone(),
    }
}

fn fitted_name(name: &str) -> String {
    let name = without_nul(name);
    match is_reserved_name(&name) {
        true => name.trim_start_matches('$').to_owned(),
        false => name,
    }
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// Prepares a text that may repeat another system's words: replaces secrets, removes control characters (see
/// [`printable`]), and cuts the text to `max` characters.
pub(crate) fn technical(text: String, max: usize, redaction: &Redaction) -> String {
    let text = clip(text, max);
    let text = match redaction.text(&text) {
        Cow::Owned(redacted) => redacted,
        Cow::Borrowed(_) => text,
    };
    cut(printable(text), max)
}

/// Decodes bytes from outside to text, without loss: bytes that are not UTF-8 become `\xE9` and the like.
///
/// ```
/// assert_eq!(docg_core::storable::legible(b"caf\xE9"), r"caf\xE9");
/// ```
#[must_use]
pub fn legible(bytes: &[u8]) -> String {
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

/// Removes control characters other than line breaks and tabs from a text.
pub(crate) fn printable(text: String) -> String {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(is_control) {
        text.replace(is_control, "")
    } else {
        text
    }
}

/// The mark at the end of a text that was cut.
pub const CUT_MARK: &str = " […]";

/// Cuts a text to at most `max` characters, ending in [`CUT_MARK`].
pub(crate) fn cut(mut text: String, max: usize) -> String {
    // Check the length in bytes first: it is never below the number of characters.
    if text.len() > max && text.chars().nth(max).is_some() {
        let kept = max.saturating_sub(CUT_MARK.chars().count());
        let end = text.char_indices().nth(kept).map_or(0, |(at, _)| at);
        text.truncate(end);
        text.push_str(CUT_MARK);
        text.shrink_to_fit();
    }
    text
}

/// Shortens a text that is many times longer than `max` characters, so that the search for secrets stays
/// cheap. Cuts at white space if there is any, because half a secret would not be recognized.
fn clip(text: String, max: usize) -> String {
    let longest = max.saturating_mul(8);
    if text.len() <= longest {
        return text;
    }
    let start = &text[..text.floor_char_boundary(longest)];
    let end = start.rfind(char::is_whitespace).filter(|end| *end > 0);
    format!("{}{CUT_MARK}", &start[..end.unwrap_or(start.len())])
}

/// Makes a text [`printable`] and cuts it to `max` characters. Also changes constants that need it, because
/// they may be a handler's.
pub(crate) fn printable_cow(text: Cow<'static, str>, max: usize) -> Cow<'static, str> {
    // Most texts are docg's own names: keep them as constants, without an allocation.
    let is_plain = text.len() <= max && !text.contains(char::is_control);
    match text {
        constant @ Cow::Borrowed(_) if is_plain => constant,
        text => Cow::Owned(cut(printable(clip(text.into_owned(), max)), max)),
    }
}

/// Reduces a person's text to one line of at most `max` characters. Removes control characters, and those
/// that change the direction of writing and could make the text look like something else.
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

/// True for characters with Unicode's property `Bidi_Control`.
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
    fn a_name_that_would_be_read_as_another_value_is_found_wherever_it_is() {
        for name in ["RawValue", "Number", "Later"] {
            let name = format!("$serde_json::private::{name}");
            for bad in [json!({&name: "1"}), json!([{"a": 1, "b": {&name: {}}}])] {
                let fault = Some(Unstorable::ReservedName);
                assert_eq!(Unstorable::of_value(&bad, 9), fault);
                assert_eq!(Unstorable::of_record(&bad, 9), fault);
                assert_eq!(Unstorable::of_json(&bad.to_string(), 9), fault);
                assert_eq!(Unstorable::of_json(&format!("{bad:#}"), 9), fault);
            }
            let quoted = json!({"a": name, "b": format!("\"{name}\": 1")});
            for harmless in [json!(name), json!({"a": [name]}), quoted] {
                assert_eq!(Unstorable::of_value(&harmless, 9), None);
                assert_eq!(Unstorable::of_record(&harmless, 9), None);
                assert_eq!(Unstorable::of_json(&harmless.to_string(), 9), None);
            }
        }
    }

    #[test]
    fn what_is_made_fit_can_be_kept_and_read() {
        for bad in [
            nested(MAX_DEPTH + 1),
            nested(1_000),
            json!({"k\0": ["v\0"]}),
            json!([{"$serde_json::private::RawValue": "1"}]),
            json!({"a": 1, "$\0serde_json::private::Number": "1"}),
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
    fn a_value_of_any_depth_is_taken_apart_without_recursion() {
        let deep = |levels| (1..levels).fold(json!([]), |inner, _| Value::Array(vec![inner]));
        for levels in [1, 2_000, 200_000] {
            let mut refused = deep(levels);
            let fault = refuse_deep(&mut refused, || "/x".to_owned());
            assert_eq!(fault.is_some(), levels > MAX_DEPTH);
            dismantle(deep(levels));
            let deep = deep(levels);
            let expected = (levels > MAX_DEPTH).then_some(Unstorable::TooDeep);
            assert_eq!(Unstorable::of_value(&deep, MAX_DEPTH), expected);
            assert!(!is_far_longer(&deep, 10_000));
            let fit = fit_owned(deep);
            assert_eq!(Unstorable::of_value(&fit, MAX_DEPTH), None);
        }
    }

    #[test]
    fn only_a_value_that_is_longer_is_called_longer() {
        for value in [
            json!(null),
            json!("éé"),
            json!([1, [], {}, "x", true]),
            json!({"a": {"b": [1, 2]}, "": ""}),
        ] {
            let length = value.to_string().len();
            assert!(!is_far_longer(&value, length), "{value}");
            assert!(is_far_longer(&value, 0), "{value}");
        }
        assert!(is_far_longer(&json!(["x".repeat(100)]), 100));
        assert!(is_far_longer(&json!({"x".repeat(100): 1}), 100));
    }

    #[test]
    fn a_text_that_is_far_too_long_is_cut_without_half_a_secret() {
        let url = "https://me:hunter2@host/ ";
        let text = technical(url.repeat(1_000_000), 1_000, &Redaction::default());
        assert!(text.ends_with(CUT_MARK) && text.chars().count() <= 1_000);
        assert!(!text.contains("hunter2"));
        let text = clip(url.repeat(10), 24);
        assert!(text.ends_with(&format!("host/{CUT_MARK}")), "{text}");
    }

    #[test]
    fn a_technical_text_keeps_its_lines() {
        let text = "line 1\n\tline\u{1b}[31m 2\0\r".to_owned();
        assert_eq!(printable(text), "line 1\n\tline[31m 2");
    }

    #[test]
    fn a_constant_is_cleaned_and_cut_like_any_other_text() {
        let long: &'static str = "漢字漢字漢字漢字漢字!";
        for (ugly, clean) in [
            ("a\0b", "ab"),
            ("a\u{1b}[31m", "a[31m"),
            (long, "漢字漢字漢字 […]"),
            ("plain", "plain"),
        ] {
            for text in [Cow::Borrowed(ugly), Cow::Owned(ugly.to_owned())] {
                assert_eq!(printable_cow(text, 10), clean);
            }
        }
        assert!(matches!(
            printable_cow("plain".into(), 10),
            Cow::Borrowed("plain")
        ));
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
