//! Reads values of vendors leniently, so that one unreadable field does not cost a whole event.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// Treats an unreadable value as a missing one, because events of unknown kinds can have any shape.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Reads the readable elements of a list, and an empty list from any other value.
pub(crate) fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let read = elements(deserializer)?.into_iter();
    Ok(read
        .map(serde_json::from_value)
        .filter_map(Result::ok)
        .collect())
}

/// Reads all elements of a list, with the default for an unreadable element, so that their number stays right.
pub(crate) fn each<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let read = elements(deserializer)?.into_iter();
    Ok(read
        .map(|value| serde_json::from_value(value).unwrap_or_default())
        .collect())
}

fn elements<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(values) => Ok(values),
        _ => Ok(Vec::new()),
    }
}
