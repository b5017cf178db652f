use docg_core::{observe::JsonText, time::Timestamp};
use serde::Serialize;

use super::Time;
use crate::error::Error;

/// Writes values down, and refuses what the database could not keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) max_json_bytes: usize,
}

impl Encoder {
    /// A text. PostgreSQL keeps no NUL.
    pub(crate) fn text(self, field: &str, text: &str) -> Result<String, Error> {
        if text.contains('\0') {
            return Err(Error::Invalid(format!(
                "{field} has a NUL character, which cannot be stored"
            )));
        }
        Ok(text.to_owned())
    }

    pub(crate) fn optional_text(
        self,
        field: &str,
        text: Option<&str>,
    ) -> Result<Option<String>, Error> {
        text.map(|text| self.text(field, text)).transpose()
    }

    /// A value as JSON. A string of Rust has no lone surrogate, so none can come here.
    pub(crate) fn json(self, field: &str, value: &impl Serialize) -> Result<String, Error> {
        let json = serde_json::to_string(value)
            .map_err(|e| Error::Invalid(format!("{field} cannot be written as JSON: {e}")))?;
        self.checked(field, json)
    }

    /// A value that is JSON already.
    pub(crate) fn json_text(
        self,
        field: &str,
        value: Option<&JsonText>,
    ) -> Result<Option<String>, Error> {
        value
            .map(|value| self.checked(field, value.as_str().to_owned()))
            .transpose()
    }

    fn checked(self, field: &str, json: String) -> Result<String, Error> {
        if json.len() > self.max_json_bytes {
            return Err(Error::Invalid(format!(
                "{field} takes {} bytes as JSON, more than the {} that are allowed",
                json.len(),
                self.max_json_bytes
            )));
        }
        if has_nul(&json) {
            return Err(Error::Invalid(format!(
                "{field} has a NUL character, which cannot be stored"
            )));
        }
        Ok(json)
    }

    pub(crate) fn optional_json(
        self,
        field: &str,
        value: Option<&impl Serialize>,
    ) -> Result<Option<String>, Error> {
        value.map(|value| self.json(field, value)).transpose()
    }
}

/// Whether a JSON text has the escape of a NUL: `\u0000` after an even number of backslashes.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json.as_bytes()[..at].iter().rev();
        before.take_while(|byte| **byte == b'\\').count() % 2 == 0
    })
}

/// A number as the database has it. Nothing that docg counts gets near the end of 63 bits.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn time_column(time: Option<Timestamp>) -> Option<Time> {
    time.map(Time::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENCODER: Encoder = Encoder {
        max_json_bytes: 100,
    };

    #[test]
    fn a_nul_is_refused_wherever_it_is() {
        for bad in [json!("a\0"), json!({"k\0": 1}), json!([["\\\0"]])] {
            let error = ENCODER.json("trigger_data", &bad).expect_err("is refused");
            assert!(error.to_string().contains("trigger_data"), "{error}");
        }
        assert!(ENCODER.text("key", "a\0").is_err());
    }

    #[test]
    fn what_only_looks_like_a_nul_is_kept() {
        let harmless = json!("\\u0000");
        assert_eq!(
            ENCODER.json("f", &harmless).expect("is kept"),
            r#""\\u0000""#
        );
    }

    #[test]
    fn a_value_above_the_limit_is_refused_with_both_sizes() {
        let error = ENCODER
            .json("output", &"x".repeat(99))
            .expect_err("is refused");
        assert!(error.to_string().contains("101"), "{error}");
        assert!(error.to_string().contains("100"), "{error}");
    }

    #[test]
    fn a_lone_surrogate_is_no_json_value() {
        assert!(serde_json::from_str::<serde_json::Value>(r#""\ud800""#).is_err());
    }
}
