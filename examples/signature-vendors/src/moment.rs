//! Parses times in the formats of vendors.

use chrono::NaiveDateTime;
use docg_core::time::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Smaller numbers are seconds since 1970, others milliseconds. The bound means 1973 in milliseconds, 5138 in
/// seconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// Parses a time: RFC 3339, RFC 3339 without a zone (read as UTC), or seconds or milliseconds since 1970. A
/// missing or malformed value, or a time outside the years 1 to 9999, gives `None`.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    Value::deserialize(deserializer).map(|value| read(&value))
}

fn read(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(number) => since_1970(number.as_i64()?),
        Value::String(text) => {
            let text = text.trim();
            let without_zone = || {
                let text = text.replacen(' ', "T", 1);
                let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
                Timestamp::try_from_millis(time.and_utc().timestamp_millis())
            };
            let number = || since_1970(text.parse().ok()?);
            text.parse().ok().or_else(without_zone).or_else(number)
        }
        _ => None,
    }
}

fn since_1970(number: i64) -> Option<Timestamp> {
    if number.unsigned_abs() < MILLISECONDS_FROM.unsigned_abs() {
        Timestamp::try_from_millis(number * 1_000)
    } else {
        Timestamp::try_from_millis(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_moment_is_parsed_in_every_format() {
        let half_past_ten = "2026-01-15T10:30:00Z".parse().ok();
        for written in [
            json!("2026-01-15T10:30:00Z"),
            json!(" 2026-01-15T07:30:00-03:00 "),
            json!("2026-01-15T10:30:00.000000"),
            json!("2026-01-15 10:30:00"),
            json!(1_768_473_000),
            json!(1_768_473_000_000_u64),
            json!("1768473000"),
        ] {
            assert_eq!(read(&written), half_past_ten, "{written}");
        }
    }

    #[test]
    fn a_malformed_moment_is_none() {
        for written in [
            json!(null),
            json!(""),
            json!("yesterday"),
            json!("0000-00-00T00:00:00Z"),
            json!("0000-01-01T00:00:00Z"),
            json!("10000-01-01T00:00:00Z"),
            json!("+10000-01-01T00:00:00"),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
            json!(["2026-01-15T10:30:00Z"]),
        ] {
            assert_eq!(read(&written), None, "{written}");
        }
    }
}
