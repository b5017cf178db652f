//! What can be kept. Texts and values that come from outside are checked, or made fit, before the
//! run is decided on: a store that refuses a commit refuses what has already happened.

use std::{borrow::Cow, fmt::Write as _, io};

use serde::Serialize;
use serde_json::{
    Map, Serializer, Value, json,
    ser::{CharEscape, Formatter},
};

use crate::{error::FieldFault, i18n::Text, secrets::redact_text};

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
    /// A member of an object has a name that serde_json takes for a mark of its own: the object would be
    /// read again as another value.
    #[error(
        "it has a member name that is reserved: a name must not begin with {RESERVED_PREFIX:?}"
    )]
    ReservedName,
}

/// How the names begin that serde_json takes for marks of its own.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// Whether serde_json could take a member's name for a mark of its own.
pub(crate) fn is_reserved_name(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

impl Unstorable {
    /// What is wrong with a text, if anything.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        text.contains('\0').then_some(Self::Nul)
    }

    fn of_name(name: &str) -> Option<Self> {
        let reserved = is_reserved_name(name).then_some(Self::ReservedName);
        reserved.or_else(|| Self::of_text(name))
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
                Self::of_name(key).or_else(|| Self::of_value(item, max_depth - 1))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// As [`of_value`](Self::of_value), of a record as its JSON would be.
    pub fn of_record(record: &impl Serialize, max_depth: usize) -> Option<Self> {
        let mut guard = Guard {
            levels_left: max_depth,
            in_name: false,
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
        } else if has_reserved_name(json) {
            Some(Self::ReservedName)
        } else {
            is_deeper(json, max_depth).then_some(Self::TooDeep)
        }
    }
}

/// Follows a record as it is written down, and breaks off where it cannot be kept.
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

/// Whether a JSON text has the escape of a NUL: `\u0000` after an even number of backslashes.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

/// Whether a JSON text has a member with a reserved name.
fn has_reserved_name(json: &str) -> bool {
    json.match_indices(RESERVED_PREFIX).any(|(at, _)| {
        let is_whole = json[..at].ends_with('"') && !json[..at].ends_with("\\\"");
        let end = json[at..].find('"').map(|end| &json[at + end + 1..]);
        is_whole && end.is_some_and(|rest| rest.trim_start().starts_with(':'))
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

/// Drops a value of any depth. Dropping it the usual way recurses, and a deep value overflows the stack.
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

/// Takes a value apart that is nested deeper than [`MAX_DEPTH`], leaves `null`, and names the fault. After
/// it anything may follow the value down.
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
        let text = Text::key("fault-too-deep").with("most", MAX_DEPTH);
        FieldFault::new(pointer(), "too_deep", text)
    })
}

/// Whether a value's JSON is certainly longer than `max` bytes: told without looking into texts, and
/// without going on once it is clear. What is nested deeper than [`MAX_DEPTH`] is not counted.
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

/// As [`fit`], of a value that is not needed any more.
pub(crate) fn fit_owned(value: Value) -> Value {
    let fitted = match fit(&value) {
        Cow::Borrowed(_) => return value,
        Cow::Owned(fitted) => fitted,
    };
    dismantle(value);
    fitted
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

/// A text that may repeat what another system has said, as [`printable`], without the secrets of URLs, and
/// [`cut`] to `max` characters.
pub(crate) fn technical(text: String, max: usize) -> String {
    let text = clip(text, max);
    let text = match redact_text(&text) {
        Cow::Owned(redacted) => redacted,
        Cow::Borrowed(_) => text,
    };
    cut(printable(text), max)
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

/// Shortens a text that is many times longer than `max` characters, before anything looks at the whole of
/// it. It ends at a blank if it has one: half a secret would not be recognized.
fn clip(text: String, max: usize) -> String {
    let longest = max.saturating_mul(8);
    if text.len() <= longest {
        return text;
    }
    let start = &text[..text.floor_char_boundary(longest)];
    let end = start.rfind(char::is_whitespace).filter(|end| *end > 0);
    format!("{}{CUT_MARK}", &start[..end.unwrap_or(start.len())])
}

/// [`printable`] and cut to `max` characters, of a text that is often a constant. A constant may be as ugly
/// as any other text of a handler.
pub(crate) fn printable_cow(text: Cow<'static, str>, max: usize) -> Cow<'static, str> {
    // Most are names of this program, and stay constants.
    let is_plain = text.len() <= max && !text.contains(char::is_control);
    match text {
        constant @ Cow::Borrowed(_) if is_plain => constant,
        text => Cow::Owned(cut(printable(clip(text.into_owned(), max)), max)),
    }
}

/// What a person has written, in one line of at most `max` characters: without control characters, and
/// without those that turn the direction of writing, which could make it look like something else.
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
        let text = technical(url.repeat(1_000_000), 1_000);
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
