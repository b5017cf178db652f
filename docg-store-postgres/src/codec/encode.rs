use docg_core::{
    observe::JsonText,
    storable::{MAX_STORED_DEPTH, Unstorable},
    time::Timestamp,
};
use serde::Serialize;

use super::Time;
use crate::error::Error;

/// Encodes values for the database, and rejects values that the database cannot keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder {
    pub(crate) max_json_bytes: usize,
}

impl Encoder {
    /// Encodes a text. It rejects a text with a NUL character, which PostgreSQL cannot keep.
    pub(crate) fn text(self, field: &str, text: &str) -> Result<String, Error> {
        match Unstorable::of_text(text) {
            Some(fault) => Err(cannot_be_stored(field, fault)),
            None => Ok(text.to_owned()),
        }
    }

    pub(crate) fn optional_text(
        self,
        field: &str,
        text: Option<&str>,
    ) -> Result<Option<String>, Error> {
        text.map(|text| self.text(field, text)).transpose()
    }

    /// Encodes a value as JSON. A Rust string has no lone surrogates, so the JSON has none either.
    pub(crate) fn json(self, field: &str, value: &impl Serialize) -> Result<String, Error> {
        self.checked(field, to_json(field, value)?, MAX_STORED_DEPTH)
    }

    /// Encodes a record whose members are values, each of which may be as deep as a value by itself.
    pub(crate) fn record(self, what: &str, record: &impl Serialize) -> Result<String, Error> {
        self.checked(what, to_json(what, record)?, MAX_STORED_DEPTH + 1)
    }

    /// Encodes a value that is JSON already.
    pub(crate) fn json_text(
        self,
        field: &str,
        value: Option<&JsonText>,
    ) -> Result<Option<String>, Error> {
        value
            .map(|value| self.checked(field, value.as_str().to_owned(), MAX_STORED_DEPTH))
            .transpose()
    }

    fn checked(self, field: &str, json: String, max_depth: usize) -> Result<String, Error> {
        if json.len() > self.max_json_bytes {
            return Err(Error::Invalid(format!(
                "{field} takes {} bytes as JSON, more than the {} that are allowed",
                json.len(),
                self.max_json_bytes
            )));
        }
        match Unstorable::of_json(&json, max_depth) {
            Some(fault) => Err(cannot_be_stored(field, fault)),
            None => Ok(json),
        }
    }

    pub(crate) fn optional_json(
        self,
        field: &str,
        value: Option<&impl Serialize>,
    ) -> Result<Option<String>, Error> {
        value.map(|value| self.json(field, value)).transpose()
    }
}

fn to_json(field: &str, value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|e| Error::Invalid(format!("{field} cannot be written as JSON: {e}")))
}

fn cannot_be_stored(field: &str, fault: Unstorable) -> Error {
    Error::Invalid(format!("{field} cannot be stored: {fault}"))
}

/// A number as PostgreSQL stores it. No counter of docg gets near 63 bits.
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
    fn what_could_not_be_read_again_is_refused() {
        let nested = |levels: usize| {
            let encoder = Encoder {
                max_json_bytes: 1_000,
            };
            encoder.json(
                "output",
                &(1..levels).fold(json!([]), |inner, _| json!([inner])),
            )
        };
        nested(MAX_STORED_DEPTH).expect("is kept");
        let error = nested(MAX_STORED_DEPTH + 1).expect_err("is refused");
        assert!(error.to_string().contains("output"), "{error}");
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
