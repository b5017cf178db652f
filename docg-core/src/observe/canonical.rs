//! The canonical form over which audit hashes are computed. Changing it breaks every stored chain.
//!
//! The form resembles RFC 8785 (JSON Canonicalization Scheme): no white space, sorted names, the same escapes
//! in texts. The form differs from the RFC in two points:
//!
//! - Numbers keep the digits that docg stores and exports: `9007199254740993`, `1.0`, `1e+16`. RFC 8785 turns
//!   every number into a double and writes `9007199254740992`, `1`, `10000000000000000`. A library for
//!   RFC 8785 would therefore change stored data, because [`JsonText`] is also the form in which docg keeps
//!   JSON.
//! - Names are sorted by code points, not by UTF-16 code units. This makes a difference only for characters
//!   beyond U+FFFF.
//!
//! A verifier in another language therefore copies numbers from the exported JSON as they are written.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// JSON as its canonical text: keys sorted, no white space. docg keeps the JSON that it shows to people as
/// such a text, because a small object then takes a tenth of the memory of a [`Value`].
///
/// ```
/// use docg_core::observe::JsonText;
/// use serde_json::json;
///
/// let text = JsonText::from(&json!({"b": 1, "a": [true, null]}));
/// assert_eq!(text.as_str(), r#"{"a":[true,null],"b":1}"#);
/// assert_eq!(text.to_value(), json!({"a": [true, null], "b": 1}));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonText(Arc<str>);

impl JsonText {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text parsed into a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // The text was written from a value, so parsing cannot fail.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

/// The JSON value `null`.
impl Default for JsonText {
    fn default() -> Self {
        Self("null".into())
    }
}

impl From<&Value> for JsonText {
    fn from(value: &Value) -> Self {
        Self(canonical_json(value).into())
    }
}

impl From<Value> for JsonText {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<Value> for JsonText {
    fn eq(&self, value: &Value) -> bool {
        self.to_value() == *value
    }
}

/// Serializes as the JSON value, not as a string.
impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// Feeds fields into SHA-256, each prefixed by its length, so that no two lists of fields give the same
/// bytes.
pub(super) struct CanonicalHasher(Sha256);

impl CanonicalHasher {
    pub(super) fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.field(domain.as_bytes());
        hasher
    }

    pub(super) fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Writes JSON with sorted keys and without white space. The keys are sorted here, because another crate in
/// the program may make serde_json's maps keep insertion order.
fn canonical_json(value: &Value) -> String {
    let mut out = String::with_capacity(64);
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|entry| entry.0);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_text(text, out),
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// Writes a quoted string, with the escapes of serde_json and RFC 8785.
fn write_text(text: &str, out: &mut String) {
    if text
        .bytes()
        .any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f))
    {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value = serde_json::json!({"b": [{"z": 1, "a": "x\n"}], "a": null});
        assert_eq!(
            canonical_json(&value),
            r#"{"a":null,"b":[{"a":"x\n","z":1}]}"#
        );
    }

    #[test]
    fn the_form_is_that_of_rfc_8785_except_for_numbers_and_rare_names() {
        for (value, canonical) in [
            // The RFC's examples of texts and of sorted names, without the name that is beyond U+FFFF.
            (
                r#"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/\u007f"}"#,
                "{\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\"}",
            ),
            (
                r#"{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\u0080": 5, "\u00f6": 6}"#,
                "{\"\\r\":2,\"1\":4,\"\u{80}\":5,\"ö\":6,\"€\":1,\"\u{fb33}\":3}",
            ),
            (
                "[null, true, 0.002, -7, 9007199254740991]",
                "[null,true,0.002,-7,9007199254740991]",
            ),
            // RFC 8785 would write [9007199254740992,1,10000000000000000].
            (
                "[9007199254740993, 1.0, 1e16]",
                "[9007199254740993,1.0,1e+16]",
            ),
            // RFC 8785 would sort U+1F600 by its surrogate pair, and so put it before U+FB33.
            (
                r#"{"\ud83d\ude00": 1, "\ufb33": 2}"#,
                "{\"\u{fb33}\":2,\"😀\":1}",
            ),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(canonical_json(&value), canonical);
        }
    }

    #[test]
    fn moving_a_boundary_between_fields_changes_the_hash() {
        let hash = |fields: [&str; 2]| {
            let mut hasher = CanonicalHasher::new("test");
            fields.iter().for_each(|f| hasher.field(f.as_bytes()));
            hasher.finish()
        };
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
    }
}
