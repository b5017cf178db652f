//! Reads JSON from outside without silent changes.
//!
//! If two members have the same name, serde_json keeps the last. It rounds numbers to an `i64`, `u64` or
//! `f64`. It also takes some member names for its own markers, and replaces their values. [`read`] refuses
//! all three, and names the place of each. [`read_message`] is for messages from other systems, of which docg
//! reads only a few fields.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::{Number, Value, error::Category};

use crate::{
    error::FieldFault,
    i18n::{Locale, Text},
    storable::{MAX_DEPTH, is_reserved_name},
    workflow::variables::push_token,
};

/// The largest number of faults reported for one text.
const MAX_FAULTS: usize = 100;
/// If a fault's pointer is longer than this, in bytes, no further faults are looked for: names may be as long
/// as the whole text, and the error must stay small.
const LONG_POINTER: usize = 1_000;

/// Why a text is refused as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The text is not JSON in UTF-8 (RFC 8259).
    #[error("no valid JSON in UTF-8: line {line}, column {column}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column in the line, from 1.
        column: usize,
    },
    /// The text is JSON, but has content that docg cannot keep exactly:
    ///
    /// - two members of an object with the same name (`duplicate_key`)
    /// - a number that neither `i64` nor `u64` nor `f64` can hold exactly (`number_not_exact`)
    /// - half a surrogate pair (`invalid_text`)
    /// - a name that serde_json takes for a marker of its own (`reserved_name`)
    /// - more levels than [`MAX_DEPTH`] (`too_deep`)
    #[error("values that cannot be kept as they are: {}", told(.0))]
    Faults(Vec<FieldFault>),
}

fn told(faults: &[FieldFault]) -> String {
    let told = faults
        .iter()
        .map(|fault| format!("{:?} ({})", fault.pointer, fault.code));
    told.collect::<Vec<_>>().join(", ")
}

/// Reads JSON in UTF-8. Every number in the result has the decimal value of the text: `1.10` may become
/// `1.1`, but `0.1000000000000000055` is refused.
///
/// ```
/// use docg_core::json;
///
/// assert_eq!(json::read(br#"{"a": 0.1}"#).unwrap()["a"], 0.1);
/// assert!(json::read(br#"{"a": 1, "a": 2}"#).is_err());
/// assert!(json::read(b"[123456789012345678901234567890]").is_err());
/// ```
///
/// # Errors
///
/// [`ReadError`] names the place of each fault.
pub fn read(bytes: &[u8]) -> Result<Value, ReadError> {
    serde_json::from_str(checked(bytes, Scope::Everything)?).map_err(malformed)
}

/// Reads a message from another system. Repeated names and long numbers are treated as serde_json does,
/// because they may be in fields that docg does not know. Names that serde_json takes for markers of its own
/// are refused, as by [`read`].
///
/// # Errors
///
/// The message is not JSON, has a member with a marker's name, is nested too deeply, or is not a `T`.
pub fn read_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let read = match checked(bytes, Scope::Structure) {
        Ok(text) => serde_json::from_str(text),
        Err(ReadError::Malformed { .. }) => serde_json::from_slice(bytes),
        Err(faults @ ReadError::Faults(_)) => Err(serde_json::Error::custom(faults)),
    };
    read.map_err(|error| match error.classify() {
        Category::Data => serde_json::Error::custom(misfit(&error).render(Locale::En)),
        Category::Io | Category::Syntax | Category::Eof => error,
    })
}

/// Translates serde's error about a value that does not fit its type into the terms of JSON.
///
/// ```
/// use docg_core::{i18n::Locale, json};
///
/// let error = serde_json::from_str::<u32>("\"1\"").unwrap_err();
/// let words = json::misfit(&error).render(Locale::En);
/// assert_eq!(words, "expected a whole number from 0 to 4294967295");
/// ```
#[must_use]
pub fn misfit(error: &dyn fmt::Display) -> Text {
    let said = error.to_string();
    // If serde_json reads from a text, it appends the line and column.
    let said = said
        .split_once(" at line ")
        .map_or(&*said, |(said, _)| said);
    let mut names = said.split('`').skip(1).step_by(2);
    if said.starts_with("missing field `") {
        Text::key("fault-missing-field").with("name", names.next().unwrap_or_default())
    } else if said.starts_with("duplicate field `") {
        Text::key("fault-duplicate-key")
    } else if said.starts_with("unknown field `") {
        let text = Text::key("fault-unknown-field");
        let text = text.with("name", names.next().unwrap_or_default());
        text.with("known", names.collect::<Vec<_>>().join(", "))
    } else if said.starts_with("unknown variant `") {
        let known = names.skip(1).collect::<Vec<_>>().join(", ");
        Text::key("fault-one-of").with("values", known)
    } else if said.starts_with("data did not match any variant") {
        Text::key("fault-no-form")
    } else if let Some((_, expected)) = said.rsplit_once(", expected ") {
        Text::key("fault-expected").with_text("kind", kind(expected))
    } else {
        said.into()
    }
}

/// Translates the type that serde expects into the terms of JSON.
fn kind(expected: &str) -> Text {
    let unarticled = expected.strip_prefix("a ").unwrap_or(expected);
    let first = unarticled.split(' ').next().unwrap_or_default();
    let range = |least: &dyn fmt::Display, most: &dyn fmt::Display| {
        let text = Text::key("kind-whole-number-within");
        text.with("least", least).with("most", most)
    };
    match expected {
        "u8" => range(&u8::MIN, &u8::MAX),
        "u16" => range(&u16::MIN, &u16::MAX),
        "u32" => range(&u32::MIN, &u32::MAX),
        "u64" | "usize" => range(&u64::MIN, &u64::MAX),
        "i8" => range(&i8::MIN, &i8::MAX),
        "i16" => range(&i16::MIN, &i16::MAX),
        "i32" => range(&i32::MIN, &i32::MAX),
        "i64" | "isize" | "i128" | "u128" => Text::key("kind-whole-number"),
        "f32" | "f64" => Text::key("kind-number"),
        "a boolean" => Text::key("kind-boolean"),
        "unit" => Text::key("kind-null"),
        "a map" => Text::key("kind-object"),
        "a sequence" => Text::key("kind-array"),
        "a string" | "string" | "a character" | "variant identifier" => Text::key("kind-text"),
        "string or map" | "map with a single key" => Text::key("kind-text-or-object"),
        _ => match first {
            "struct" | "internally" | "adjacently" => Text::key("kind-object"),
            "tuple" => Text::key("kind-array"),
            "enum" => Text::key("kind-text-or-object"),
            _ => expected.into(),
        },
    }
}

/// Checks that bytes are JSON without faults, and returns their text.
fn checked(bytes: &[u8], scope: Scope) -> Result<&str, ReadError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| malformed_at(bytes, error.valid_up_to()))?;
    // Checks the grammar only: `IgnoredAny` has no depth limit and ignores the size of numbers.
    serde_json::from_str::<IgnoredAny>(text).map_err(malformed)?;
    let faults = faults(text, scope);
    if faults.is_empty() {
        Ok(text)
    } else {
        Err(ReadError::Faults(faults))
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn malformed(error: serde_json::Error) -> ReadError {
    ReadError::Malformed {
        line: error.line(),
        column: error.column(),
    }
}

fn malformed_at(bytes: &[u8], at: usize) -> ReadError {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n');
    ReadError::Malformed {
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: at - line_start.map_or(0, |newline| newline + 1) + 1,
    }
}

/// The faults of a text whose grammar has been checked.
fn faults(text: &str, scope: Scope) -> Vec<FieldFault> {
    let mut scan = Scan {
        text,
        scope,
        at: 0,
        pointer: String::new(),
        faults: Vec::new(),
    };
    // An error only means that the scan stopped early, because it had found enough faults.
    let _ = scan.value(MAX_DEPTH);
    scan.faults
}

/// Which faults to look for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    /// Only excessive depth, and names that serde_json would take for its own markers.
    Structure,
}

/// The error that stops a scan which has found enough faults.
struct Enough;

/// Scans a text whose grammar has been checked.
struct Scan<'t> {
    text: &'t str,
    scope: Scope,
    at: usize,
    /// The pointer to the current value.
    pointer: String,
    faults: Vec<FieldFault>,
}

impl<'t> Scan<'t> {
    fn value(&mut self, levels_left: usize) -> Result<(), Enough> {
        match self.next_byte() {
            Some(b'{' | b'[') if levels_left == 0 => {
                // Report the member of the top-level object that is too deep, instead of one of its many
                // levels.
                let member = self.pointer.match_indices('/').nth(1);
                let end = member.map_or(self.pointer.len(), |(end, _)| end);
                self.pointer.truncate(end);
                self.fault(
                    "too_deep",
                    Text::key("fault-too-deep").with("most", MAX_DEPTH),
                )?;
                Err(Enough)
            }
            Some(b'{') => self.object(levels_left - 1),
            Some(b'[') => self.array(levels_left - 1),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                self.take_while(|byte| byte.is_ascii_alphabetic());
                Ok(())
            }
        }
    }

    fn object(&mut self, levels_left: usize) -> Result<(), Enough> {
        let mut names = HashSet::new();
        self.at += 1;
        while self.next_byte() != Some(b'}') {
            let outer = self.pointer.len();
            let name = self.string()?;
            push_token(&mut self.pointer, &name);
            if is_reserved_name(&name) {
                self.fault("reserved_name", Text::key("fault-reserved-name"))?;
            }
            if self.scope == Scope::Everything && !names.insert(name) {
                self.fault("duplicate_key", Text::key("fault-duplicate-key"))?;
            }
            self.skip(b':');
            self.value(levels_left)?;
            self.pointer.truncate(outer);
            self.skip(b',');
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self, levels_left: usize) -> Result<(), Enough> {
        self.at += 1;
        for index in 0_usize.. {
            if self.next_byte() == Some(b']') {
                break;
            }
            let outer = self.pointer.len();
            push_token(&mut self.pointer, &index.to_string());
            self.value(levels_left)?;
            self.pointer.truncate(outer);
            self.skip(b',');
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Enough> {
        let start = self.at;
        self.at += 1;
        let mut has_escapes = false;
        loop {
            match self.byte() {
                Some(b'\\') => {
                    has_escapes = true;
                    self.at += 2;
                }
                Some(b'"') | None => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = &self.text[start..self.at];
        let inner = Cow::Borrowed(&quoted[1..quoted.len() - 1]);
        if !has_escapes {
            return Ok(inner);
        }
        match serde_json::from_str(quoted) {
            Ok(text) => Ok(Cow::Owned(text)),
            // The grammar allows the escape of half a surrogate pair, which is not a character.
            Err(_) => {
                self.fault("invalid_text", Text::key("fault-surrogate"))?;
                Ok(inner)
            }
        }
    }

    fn number(&mut self) -> Result<(), Enough> {
        let is_of_number =
            |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let number = self.take_while(is_of_number);
        if self.scope == Scope::Structure || is_exact(number) {
            Ok(())
        } else {
            self.fault("number_not_exact", Text::key("fault-number-not-exact"))
        }
    }

    fn fault(&mut self, code: &'static str, detail: Text) -> Result<(), Enough> {
        let fault = FieldFault::new(self.pointer.as_str(), code, detail);
        self.faults.push(fault);
        if self.faults.len() < MAX_FAULTS && self.pointer.len() <= LONG_POINTER {
            Ok(())
        } else {
            Err(Enough)
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn next_byte(&mut self) -> Option<u8> {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.byte()
    }

    /// Skips a separator, if it is next.
    fn skip(&mut self, separator: u8) {
        if self.next_byte() == Some(separator) {
            self.at += 1;
            self.next_byte();
        }
    }

    fn take_while(&mut self, holds: impl Fn(u8) -> bool) -> &'t str {
        let start = self.at;
        while self.byte().is_some_and(&holds) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }
}

/// True if serde_json reads this number without changing its decimal value.
fn is_exact(given: &str) -> bool {
    // Fast path for nearly all numbers: few digits and no exponent are always kept exactly.
    if given.len() <= 15 && !given.contains(['e', 'E']) {
        return true;
    }
    let kept = serde_json::from_str::<Number>(given).map(|number| number.to_string());
    kept.is_ok_and(|kept| {
        let given = Decimal::of(given);
        given.is_some() && given == Decimal::of(&kept)
    })
}

/// A decimal value in its unique normal form: `0.digits` times a power of ten, without zeros at either end of
/// the digits.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// The value of a JSON number; `None` if the exponent does not fit an `i64`.
    fn of(number: &str) -> Option<Self> {
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number),
        };
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = all.len() - digits.len();
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                is_negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        Some(Self {
            is_negative,
            digits: digits.to_owned(),
            exponent: exponent.parse::<i64>().ok()?.checked_add(point)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(text: &str) -> Vec<(String, &'static str)> {
        match read(text.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(ReadError::Faults(faults)) => faults
                .into_iter()
                .map(|fault| (fault.pointer, fault.code))
                .collect(),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn a_number_is_kept_with_its_decimal_value_or_refused() {
        for kept in [
            "0",
            "-0",
            "0.0",
            "1.10",
            "1e3",
            "1E+3",
            "0.1",
            "-1.5e-7",
            "100000000000000000000",
            "18446744073709551615",
            "-9223372036854775808",
            "9007199254740993",
            "1e308",
            "5e-324",
            "0.30000000000000004",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "0e999",
        ] {
            let read = read(kept.as_bytes()).unwrap_or_else(|error| panic!("{kept}: {error}"));
            assert!(
                Decimal::of(&read.to_string()) == Decimal::of(kept),
                "{kept}: {read}"
            );
        }
        for refused in [
            "35260112345678901234567890123456789012345678",
            "123456789012345678901234567890",
            "18446744073709551617",
            "-9223372036854775809",
            "0.1000000000000000055511151231257827",
            "3.14159265358979323846",
            "1e400",
            "-1e400",
            "1e-400",
            "1e99999999999999999999",
        ] {
            assert_eq!(
                found(refused),
                [(String::new(), "number_not_exact")],
                "{refused}"
            );
        }
    }

    #[test]
    fn a_misfit_is_told_in_the_words_of_json_and_in_none_of_rust() {
        #[allow(dead_code, reason = "it is only read into")]
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Choice {
            Left,
            Right { by: u8 },
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        enum Tagged {
            One { _x: u8 },
        }
        #[allow(dead_code, reason = "it is only read into")]
        #[derive(Debug, serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u8),
            Text(String),
        }
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "snake_case")]
        struct Everything {
            unsigned: u64,
            small: u8,
            signed: i64,
            below: i32,
            float: f32,
            text: String,
            letter: char,
            flag: bool,
            nothing: (),
            list: Vec<u8>,
            pair: (u8, u8),
            fixed: [u8; 2],
            table: std::collections::BTreeMap<String, u8>,
            inner: Option<Box<Everything>>,
            choice: Option<Choice>,
            marked: Option<Tagged>,
            either: Option<Either>,
        }
        let fields = [
            "unsigned", "small", "signed", "below", "float", "text", "letter", "flag", "nothing",
            "list", "pair", "fixed", "table", "inner", "choice", "marked", "either", "else",
        ];
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(1e300),
            json!(u64::MAX),
            json!("a, expected u8"),
            json!([]),
            json!([1, 2, 3]),
            json!({}),
            json!({"a": 1, "b": 2}),
            json!({"right": 5}),
            json!({"kind": "two"}),
            json!({"kind": "one"}),
        ];
        // Words of serde and Rust that mean nothing to people who write JSON. No text may contain them.
        let of_rust: Vec<_> =
            "u8 u16 u32 u64 usize i8 i16 i32 i64 f32 f64 struct enum variant tuple map \
            sequence integer unit Option line column untagged tagged string"
                .split(' ')
                .collect();
        let mut refused = 0;
        for field in fields {
            for value in &values {
                let given = json!({ field: value });
                let written = given.to_string();
                let errors = [
                    serde_json::from_value::<Everything>(given).err(),
                    serde_json::from_str::<Everything>(&written).err(),
                    read_message::<Everything>(written.as_bytes()).err(),
                ];
                for error in errors.iter().flatten() {
                    refused += 1;
                    for locale in Locale::ALL {
                        let words = misfit(error).render(locale);
                        let strange = words
                            .split(|c: char| !c.is_alphanumeric())
                            .find(|word| of_rust.contains(word));
                        assert_eq!(strange, None, "{written}: {error}: {words}");
                    }
                }
            }
        }
        assert!(refused > 400, "{refused}");
        let told = |error: serde_json::Error| misfit(&error).render(Locale::En);
        let error = serde_json::from_str::<String>("{}").expect_err("no text");
        assert_eq!(told(error), "expected a text");
    }

    #[test]
    fn each_fault_is_named_where_it_is() {
        for (text, pointer, code) in [
            (r#"{"a": 1, "a": 1}"#, "/a", "duplicate_key"),
            (
                r#"[{"b": {"a/~": 1, "a\u002f~" : 2}}]"#,
                "/0/b/a~1~0",
                "duplicate_key",
            ),
            (r#"{"": 0, "": 0}"#, "/", "duplicate_key"),
            (r#"{"x": [1, {"y": 1e400}]}"#, "/x/1/y", "number_not_exact"),
            (
                r#"{"v": {"$serde_json::private::RawValue": "1"}}"#,
                "/v/$serde_json::private::RawValue",
                "reserved_name",
            ),
            (
                r#"[{"a": 1, "\u0024serde_json::private::Number": "1"}]"#,
                "/0/$serde_json::private::Number",
                "reserved_name",
            ),
            (r#"{"x": "\ud800"}"#, "/x", "invalid_text"),
            (r#"{"x": ["\udc00\ud800"]}"#, "/x/0", "invalid_text"),
        ] {
            assert_eq!(found(text), [(pointer.to_owned(), code)], "{text}");
        }
        assert_eq!(
            found(r#"[1e400, "\"", {"a": 1e400, "b": {}, "a": []}, 1e400]"#).len(),
            4
        );
        let many = format!("[{}1]", "1e400,".repeat(1_000));
        assert_eq!(found(&many).len(), MAX_FAULTS);
    }

    #[test]
    fn a_value_may_be_nested_so_deep_and_no_deeper() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
        for levels in [MAX_DEPTH + 1, 127, 128, 100_000] {
            let found = found(&nested(levels));
            assert_eq!(found, [("/0".to_owned(), "too_deep")], "{levels}");
        }
    }

    #[test]
    fn a_message_may_hold_what_docg_does_not_read_but_no_reserved_name() {
        for taken in [
            r#"{"lat": -23.5505199000000000123456789, "a": 1, "a": 2}"#,
            r#"{"text": "$serde_json::private::RawValue"}"#,
        ] {
            let read: Value = read_message(taken.as_bytes()).expect("is taken");
            assert_eq!(serde_json::from_str::<Value>(taken).ok(), Some(read));
        }
        for refused in [
            r#"{"v": {"$serde_json::private::RawValue": "{\"a\": 1, \"a\": 2}"}}"#.to_owned(),
            r#"[{"a": 1, "\u0024serde_json::private::Number": "1"}]"#.to_owned(),
            format!(
                "[{}{{\"$serde_json::private::RawValue\": \"1\"}}]",
                "1e400,".repeat(1_000)
            ),
            format!("{}{}", "[".repeat(101), "]".repeat(101)),
            r#"{"text": "\ud800"}"#.to_owned(),
            r#"{"text": "#.to_owned(),
        ] {
            assert!(
                read_message::<Value>(refused.as_bytes()).is_err(),
                "{refused}"
            );
        }
        assert!(read_message::<Value>(b"\"\xff\"").is_err());
    }

    #[test]
    fn what_is_no_json_in_utf_8_is_malformed() {
        for broken in [
            &b""[..],
            b" ",
            b"{",
            b"{\"a\":}",
            b"nothing",
            b"{} {}",
            b"\xef\xbb\xbf{}",
            b"[1,]",
            b"01",
            b"\"\x00\"",
            b"\"\xe9\"",
            b"\xff\xfe{\x00}\x00",
            b"{\x00}\x00",
            b"NaN",
            b"[.5]",
            b"'a'",
        ] {
            assert!(
                matches!(read(broken), Err(ReadError::Malformed { .. })),
                "{broken:?}"
            );
        }
        let place = ReadError::Malformed { line: 2, column: 3 };
        assert_eq!(read(b"{\n \"\xe9\": 1}"), Err(place));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter_map("finite", |float| Number::from_f64(float).map(Value::from)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_json_writes_is_read_as_it_was(value in any_json()) {
            for text in [value.to_string(), format!("{value:#}")] {
                prop_assert_eq!(read(text.as_bytes()), Ok(value.clone()));
            }
        }

        #[test]
        fn no_text_is_read_otherwise_than_by_serde_json(text in r#"[\[\]{}",:\\ 0-9eE.+-]{0,24}"#) {
            if let Ok(value) = read(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
            }
        }
    }

    #[test]
    fn an_error_says_where() {
        let error = read(br#"{"a": 1e400}"#).expect_err("is not exact");
        assert_eq!(
            error.to_string(),
            "values that cannot be kept as they are: \"/a\" (number_not_exact)"
        );
        assert_eq!(read(b"{\"a\": [1, null]}"), Ok(json!({"a": [1, null]})));
    }
}
