//! Holds every answer that a test sees against the OpenAPI document: an answer whose status,
//! content type, headers or body are not documented fails the test, whatever it is about.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock, Mutex},
};

use axum::http::{HeaderMap, StatusCode};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// An operation of the document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) described: &'static Value,
}

impl Operation {
    pub(crate) fn id(&self) -> &'static str {
        self.described["operationId"].as_str().expect("an id")
    }

    /// The scope that its bearer needs; `None` where it needs none.
    pub(crate) fn scope(&self) -> Option<&'static str> {
        let ways = self.described["security"].as_array()?;
        ways.iter().find_map(|way| way["bearer"][0].as_str())
    }

    /// Whether it takes a body of JSON.
    pub(crate) fn takes_json(&self) -> bool {
        !self.described["requestBody"]["content"]["application/json"].is_null()
    }

    /// Whether its path names something.
    pub(crate) fn names_something(&self) -> bool {
        self.path.contains('{')
    }
}

/// What every answer tells browsers.
const SECURITY: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// The document, with schemas that refuse what they do not name.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_str(docg_http::openapi()).expect("JSON");
    let mut open = BTreeSet::new();
    find_parts(&document["components"], &mut open);
    let schemas = document["components"]["schemas"].as_object_mut();
    for (name, schema) in schemas.expect("schemas") {
        close(schema, open.contains(name.as_str()));
    }
    document
});

/// Every operation of the document.
pub(crate) fn operations() -> Vec<Operation> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods");
        methods.iter().map(move |(method, described)| Operation {
            method: upper(method),
            path,
            described,
        })
    });
    operations.collect()
}

fn upper(method: &str) -> &'static str {
    match method {
        "get" => "GET",
        "put" => "PUT",
        "post" => "POST",
        "delete" => "DELETE",
        other => panic!("{other}: a method that this test does not know"),
    }
}

/// The operation that a request is for.
fn operation(method: &str, uri: &str) -> Option<Operation> {
    let path = uri.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (given, known) = (path.split('/'), template.split('/'));
        given.clone().count() == known.clone().count()
            && given
                .zip(known)
                .all(|(given, known)| known.starts_with('{') || given == known)
    };
    let mut found: Vec<_> = operations()
        .into_iter()
        .filter(|it| it.method == method && fits(it.path))
        .collect();
    // A path without parameters goes before one with them.
    found.sort_by_key(|it| it.path.matches('{').count());
    found.first().copied()
}

/// Fails where an answer's head is not documented. Gives the schema of its body, where it has one.
pub(crate) fn check_head(
    method: &str,
    uri: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<&'static Value> {
    let what = format!("{method} {uri} -> {status}");
    for (name, value) in SECURITY {
        let given = headers.get(name).and_then(|it| it.to_str().ok());
        assert_eq!(given, Some(value), "{what}: {name}");
    }
    let content_type = headers.get("content-type").and_then(|it| it.to_str().ok());
    let Some(operation) = operation(method, uri) else {
        // What is no operation is refused, and a refusal is a problem.
        assert!(
            status.is_client_error() || headers.contains_key("access-control-allow-methods"),
            "{what}: it is no operation"
        );
        let problem = content_type == Some("application/problem+json");
        return problem.then(|| &DOCUMENT["components"]["schemas"]["Problem"]);
    };
    let answer = &operation.described["responses"][status.as_str()];
    assert!(!answer.is_null(), "{what}: the status is undocumented");
    let answer = resolved(answer);
    for (name, header) in answer["headers"].as_object().into_iter().flatten() {
        let header = resolved(header);
        match headers.get(name) {
            Some(value) => {
                let value = value.to_str().expect("a text");
                let fits = jsonschema::is_valid(&header["schema"], &json!(value));
                assert!(fits, "{what}: {name}: {value}");
            }
            None => assert!(header["required"] != true, "{what}: {name} is missing"),
        }
    }
    let Some(content) = answer["content"].as_object() else {
        assert_eq!(content_type, None, "{what}: no body is documented");
        return None;
    };
    let content_type = content_type.unwrap_or("none");
    let documented = content.get(content_type);
    let documented = documented.unwrap_or_else(|| panic!("{what}: {content_type} is undocumented"));
    Some(&documented["schema"])
}

/// Fails where the data of a stream's frame do not fit their schema.
pub(crate) fn check_frame(event: &str, data: &Value) {
    let name = match event {
        "connected" if data.get("execution_id").is_none() => "ListConnected",
        "connected" => "Connected",
        "gap" => "Gap",
        "heartbeat" => "Heartbeat",
        event => {
            assert_eq!(data["event_type"], event);
            "Event"
        }
    };
    assert_valid(&DOCUMENT["components"]["schemas"][name], data, event);
}

/// Fails where a value does not fit its schema in the document.
pub(crate) fn assert_valid(schema: &'static Value, value: &Value, what: &str) {
    let validator = validator(schema);
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{} at {:?}", error, error.instance_path().to_string()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

/// Made once for each schema of the document, by its place in memory.
fn validator(schema: &'static Value) -> Arc<Validator> {
    static KNOWN: LazyLock<Mutex<HashMap<usize, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("not poisoned");
    let place = std::ptr::from_ref(schema).addr();
    let validator = known.entry(place).or_insert_with(|| {
        let mut root = schema.as_object().cloned().expect("a schema");
        root.insert("components".to_owned(), DOCUMENT["components"].clone());
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Arc::new(options.build(&Value::Object(root)).expect("a schema"))
    });
    Arc::clone(validator)
}

pub(crate) fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT
            .pointer(reference.trim_start_matches('#'))
            .expect("what is referred to"),
        None => value,
    }
}

/// The schemas that are parts of others: those are closed as wholes.
fn find_parts(value: &Value, parts: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for part in map
                .get("allOf")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let name = part["$ref"].as_str().and_then(|it| it.rsplit('/').next());
                parts.extend(name.map(str::to_owned));
            }
            map.values().for_each(|value| find_parts(value, parts));
        }
        Value::Array(items) => items.iter().for_each(|value| find_parts(value, parts)),
        _ => {}
    }
}

/// Makes a schema refuse properties that it does not name. A part leaves that to the whole.
fn close(schema: &mut Value, is_part: bool) {
    let Value::Object(map) = schema else { return };
    let whole = map.contains_key("properties") || map.contains_key("allOf");
    if whole && !is_part && !map.contains_key("additionalProperties") {
        map.insert("unevaluatedProperties".to_owned(), json!(false));
    }
    let own_properties = map.contains_key("properties");
    for (keyword, value) in map {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => close_all(properties),
            ("items" | "additionalProperties", value) => close(value, false),
            ("allOf", Value::Array(parts)) => parts.iter_mut().for_each(|it| close(it, true)),
            ("oneOf" | "anyOf", Value::Array(parts)) => parts
                .iter_mut()
                .for_each(|it| close(it, is_part || own_properties)),
            _ => {}
        }
    }
}

fn close_all(properties: &mut Map<String, Value>) {
    properties.values_mut().for_each(|it| close(it, false));
}
