//! Tests that the declaration of the contract template lists exactly the paths that the template needs.

use serde_json::{Map, Value};

use super::{CONTRACT, contract, sample};
use crate::pdf::{
    Templates,
    render::{Tagging, typeset},
};

/// Removes the value at `path`; in a list, from the first entry.
fn remove(path: &str, data: &mut Value) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut value = data;
    for step in parents.split('.').filter(|step| !step.is_empty()) {
        value = match step.strip_suffix("[]") {
            Some(key) => &mut value[key][0],
            None => &mut value[step],
        };
    }
    match last.strip_suffix("[]") {
        Some(key) => value[key].as_array_mut().unwrap().clear(),
        None => drop(value.as_object_mut().unwrap().remove(last).unwrap()),
    }
}

/// Reduces `data` to the values that `required` names.
fn only(required: &[String], data: &Value, at: &str) -> Value {
    match data {
        Value::Array(entries) => entries
            .iter()
            .map(|entry| only(required, entry, &format!("{at}[]")))
            .collect(),
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (key, value) in fields {
                let path = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                let names = |wanted: &String| {
                    wanted.strip_prefix(&path).is_some_and(|rest| {
                        rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
                    })
                };
                if required.iter().any(names) {
                    kept.insert(key.clone(), only(required, value, &path));
                }
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

fn required() -> Vec<String> {
    Templates::bundled()
        .declaration(CONTRACT)
        .unwrap()
        .required
        .clone()
}

#[test]
fn the_good_samples_miss_nothing() {
    let templates = Templates::bundled();
    for name in ["good", "good.pt-BR"] {
        assert_eq!(
            templates.missing_fields(CONTRACT, &sample(name)),
            Vec::<String>::new()
        );
    }
}

#[test]
fn every_declared_path_is_found_missing_and_is_needed_by_the_template() {
    let templates = Templates::bundled();
    let main = templates.main(CONTRACT).unwrap();
    let required = required();
    assert!(required.len() > 15);
    for path in required {
        let mut data = sample("good");
        remove(&path, &mut data);
        let exact = match path.strip_suffix("[]") {
            Some(list) => format!("{list}[0]"),
            None => path.replace("[]", "[0]"),
        };
        assert_eq!(templates.missing_fields(CONTRACT, &data), [exact]);

        // Compile without the check of the declaration: the template itself must fail too.
        let set = typeset(&templates, main, &data, super::today(), Tagging::Tagged);
        let error = set.expect_err(&path).to_string();
        let field = path.trim_end_matches("[]").rsplit('.').next().unwrap();
        assert!(error.contains(field), "{path}: {error}");
    }
}

#[test]
fn what_is_declared_is_enough() {
    let data = only(&required(), &sample("good"), "");
    assert!(data.get("discount_cents").is_none() && data.get("recipients").is_none());
    contract(&data).unwrap();
}

#[test]
fn blank_and_null_fill_nothing() {
    let mut data = sample("good");
    data["customer"]["name"] = "  ".into();
    data["signers"][1]["email"] = Value::Null;
    assert_eq!(
        Templates::bundled().missing_fields(CONTRACT, &data),
        ["customer.name", "signers[1].email"]
    );
}
