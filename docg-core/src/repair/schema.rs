//! Finds fields in a JSON Schema: their names for people, and their own schemas.

use serde_json::{Map, Value, json};

/// The most references that are followed to find one field's schema.
const MAX_REFERENCES: usize = 16;

/// The names in a JSON pointer.
pub(crate) fn tokens(pointer: &str) -> Vec<String> {
    let tokens = pointer.split('/').skip(1);
    tokens
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// The name of a field for people: the titles on the way to it, and the key of the last. Positions in lists count from
/// 1: `Signers › 2 › E-mail (email)`.
pub(crate) fn words(root: &Map<String, Value>, path: &[String]) -> String {
    let root = Value::Object(root.clone());
    let mut schema = Some(&root);
    let mut names = Vec::new();
    for (index, key) in path.iter().enumerate() {
        schema = schema.and_then(|schema| below(&root, schema, key));
        let title = schema.and_then(|schema| resolved(&root, schema)["title"].as_str());
        let is_last = index + 1 == path.len();
        names.push(match (title, key.parse::<usize>()) {
            (_, Ok(position)) => (position.saturating_add(1)).to_string(),
            (Some(title), Err(_)) if is_last && !title.eq_ignore_ascii_case(key) => {
                format!("{title} ({key})")
            }
            (Some(title), Err(_)) => title.to_owned(),
            (None, Err(_)) => key.clone(),
        });
    }
    if names.is_empty() {
        return "trigger_data".to_owned();
    }
    names.join(" › ")
}

/// The schema of a field, complete by itself: with the definitions that it may refer to. `{}` if it is not known.
pub(super) fn of_field(root: &Map<String, Value>, path: &[String]) -> Value {
    let whole = Value::Object(root.clone());
    let found = path
        .iter()
        .try_fold(&whole, |schema, key| below(&whole, schema, key));
    let mut schema = found.map_or(json!({}), |schema| resolved(&whole, schema).clone());
    if !schema.is_object() {
        schema = json!({});
    }
    if schema.to_string().contains("\"$ref\"") {
        for name in ["$defs", "definitions"] {
            if let Some(definitions) = root.get(name) {
                schema[name] = definitions.clone();
            }
        }
    }
    schema
}

/// True if the schema forbids the field, because it allows only the fields that it names. Such a value can only be
/// removed.
pub(super) fn is_forbidden(root: &Map<String, Value>, path: &[String]) -> bool {
    let whole = Value::Object(root.clone());
    let Some((last, parents)) = path.split_last() else {
        return false;
    };
    let parent = parents
        .iter()
        .try_fold(&whole, |schema, key| below(&whole, schema, key));
    parent.is_some_and(|schema| {
        let schema = resolved(&whole, schema);
        schema["additionalProperties"] == false
            && schema.get("patternProperties").is_none()
            && schema["properties"].get(last).is_none()
    })
}

/// The schema to which a schema's local `$ref` leads, or the schema itself.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    for _ in 0..MAX_REFERENCES {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
        match pointer.and_then(|pointer| root.pointer(pointer)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

fn below<'s>(root: &'s Value, schema: &'s Value, key: &str) -> Option<&'s Value> {
    let schema = resolved(root, schema);
    let of_property = schema
        .get("properties")
        .and_then(|properties| properties.get(key));
    let of_item = || {
        let position: usize = key.parse().ok()?;
        let first = schema
            .get("prefixItems")
            .and_then(|items| items.get(position));
        first.or_else(|| schema.get("items"))
    };
    of_property.or_else(of_item)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(pointer: &str) -> Vec<String> {
        tokens(pointer)
    }

    #[test]
    fn a_field_is_named_by_titles_and_by_its_key() {
        let schema = json!({
            "properties": {
                "signers": {"title": "Signers", "items": {"$ref": "#/$defs/signer"}},
                "plain": {"properties": {"a/b": {}}},
            },
            "$defs": {"signer": {"properties": {"email": {"title": "E-mail address", "type": "string"}}}},
        });
        let schema = schema.as_object().expect("an object");
        for (pointer, expected) in [
            ("/signers/1/email", "Signers › 2 › E-mail address (email)"),
            ("/signers", "Signers"),
            ("/plain/a~1b", "plain › a/b"),
            ("/unknown/0/x", "unknown › 1 › x"),
            ("", "trigger_data"),
        ] {
            assert_eq!(words(schema, &path(pointer)), expected);
        }
        let found = of_field(schema, &path("/signers/0/email"));
        assert_eq!(found, json!({"title": "E-mail address", "type": "string"}));
        assert_eq!(of_field(schema, &path("/other")), json!({}));
        assert!(of_field(schema, &path("/signers"))["$defs"]["signer"].is_object());
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = json!({"$ref": "#"});
        let schema = schema.as_object().expect("an object");
        assert_eq!(words(schema, &path("/a")), "a");
        of_field(schema, &path("/a/b"));
    }
}
