//! Estimates the size of a value without serializing it.

use serde_json::Value;

/// The number of bytes of text that count as one value.
const TEXT_BYTES: usize = 64;

/// The size of a value: the number of values in it, and 1 for each [`TEXT_BYTES`] of a text. Stops counting
/// at `most`.
pub(crate) fn size_of(value: &Value, most: usize) -> usize {
    fn measure(value: &Value, left: &mut usize) {
        let mut take = |size: usize| *left = left.saturating_sub(1 + size / TEXT_BYTES);
        match value {
            Value::String(text) => take(text.len()),
            Value::Array(items) => {
                take(0);
                for item in items {
                    if *left == 0 {
                        return;
                    }
                    measure(item, left);
                }
            }
            Value::Object(fields) => {
                take(0);
                for (name, field) in fields {
                    if *left == 0 {
                        return;
                    }
                    *left = left.saturating_sub(name.len() / TEXT_BYTES);
                    measure(field, left);
                }
            }
            _ => take(0),
        }
    }
    let mut left = most;
    measure(value, &mut left);
    most - left
}
