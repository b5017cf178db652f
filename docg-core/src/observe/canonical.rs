//! The canonical form that audit hashes are taken over. Changing it breaks every stored chain.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Feeds fields into SHA-256, each with its length before it, so that no two lists of fields
/// give the same bytes.
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

/// JSON with sorted keys and without white space. serde_json's maps may keep insertion order,
/// depending on what else a program links, so the order is made here.
pub(super) fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
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
        scalar => out.push_str(&scalar.to_string()),
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
    fn moving_a_boundary_between_fields_changes_the_hash() {
        let hash = |fields: [&str; 2]| {
            let mut hasher = CanonicalHasher::new("test");
            fields.iter().for_each(|f| hasher.field(f.as_bytes()));
            hasher.finish()
        };
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
    }
}
