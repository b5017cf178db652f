//! Paths into JSON data: `customer.name`, and `items[].quantity` for every entry of a list.

use serde_json::Value;

/// The first `most` places under `pattern` that are unfilled in `data`: absent, null or blank. A list entry
/// is named by its index. At the end of a pattern, `items[]` requires at least one entry. In the middle, each
/// entry is checked; the list must exist, but may be empty.
pub(super) fn unfilled(pattern: &str, data: &Value, most: usize) -> Vec<String> {
    let mut missing = Vec::new();
    let steps: Vec<&str> = pattern.split('.').collect();
    walk(&steps, Some(data), String::new(), most, &mut missing);
    missing
}

fn walk(
    steps: &[&str],
    value: Option<&Value>,
    path: String,
    most: usize,
    missing: &mut Vec<String>,
) {
    if missing.len() >= most {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        if !value.is_some_and(is_filled) {
            missing.push(path);
        }
        return;
    };
    let (key, is_list) = match step.strip_suffix("[]") {
        Some(key) => (key, true),
        None => (*step, false),
    };
    let path = if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    };
    let value = value.and_then(|value| value.get(key));
    if !is_list {
        return walk(rest, value, path, most, missing);
    }
    match value.and_then(Value::as_array) {
        None => missing.push(path),
        Some(entries) if entries.is_empty() && rest.is_empty() => {
            missing.push(format!("{path}[0]"))
        }
        Some(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                if missing.len() >= most {
                    break;
                }
                walk(rest, Some(entry), format!("{path}[{i}]"), most, missing);
            }
        }
    }
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::unfilled;

    #[test]
    fn a_filled_path_is_not_missing() {
        let data = json!({"a": {"b": 0}, "list": [{"c": false}, {"c": "x"}]});
        for path in ["a", "a.b", "list", "list[]", "list[].c"] {
            assert_eq!(unfilled(path, &data, 9), Vec::<String>::new(), "{path}");
        }
    }

    #[test]
    fn absent_null_and_blank_are_missing_alike() {
        for data in [
            json!({}),
            json!({"a": null}),
            json!({"a": {"b": null}}),
            json!({"a": {"b": " "}}),
        ] {
            assert_eq!(unfilled("a.b", &data, 9), ["a.b"], "{data}");
        }
    }

    #[test]
    fn list_entries_are_named_by_number() {
        let data = json!({"list": [{"c": 1}, {}, {"c": null}]});
        assert_eq!(unfilled("list[].c", &data, 9), ["list[1].c", "list[2].c"]);
        assert_eq!(unfilled("list[].c", &data, 1), ["list[1].c"]);
        assert_eq!(
            unfilled("list[].c", &json!({"list": "no list"}), 9),
            ["list"]
        );
    }

    #[test]
    fn an_empty_list_is_missing_only_where_an_entry_is_asked_for() {
        let data = json!({"list": []});
        assert_eq!(unfilled("list[]", &data, 9), ["list[0]"]);
        assert_eq!(unfilled("list[].c", &data, 9), Vec::<String>::new());
    }
}
