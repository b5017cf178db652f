//! Compares every answer that a test gets with the OpenAPI document. Every test fails if the status, content
//! type, headers or body of an answer are not documented.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock, Mutex},
};

use axum::http::{HeaderMap, StatusCode};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// An operation of the OpenAPI document.
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

    /// The scope that a caller of the operation needs; `None` if the caller needs none.
    pub(crate) fn scope(&self) -> Option<&'static str> {
        let ways = self.described["security"].as_array()?;
        ways.iter().find_map(|way| way["bearer"][0].as_str())
    }

    /// True if the operation takes a JSON body.
    pub(crate) fn takes_json(&self) -> bool {
        !self.described["requestBody"]["content"]["application/json"].is_null()
    }

    /// True if the operation's path has a parameter, such as an id.
    pub(crate) fn names_something(&self) -> bool {
        self.path.contains('{')
    }
}

/// The security headers for browsers that every answer must have.
const SECURITY: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// The OpenAPI document, with stricter schemas: they refuse properties that they do not name.
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

/// Every operation of the OpenAPI document.
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

/// The operation of the OpenAPI document that a request calls, if any.
fn operation(method: &str, uri: &str) -> Option<Operation> {
    let path = uri.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (given, known) = (path.split('/'), template.split('/'));
        given.clone().count() == known.clone().count()
            && given
                .zip(known)
                .all(|(given, known)| known.starts_with('{') || given == known)
    };
    // If several documented paths fit, the path with the fewest parameters is called, whatever its methods.
    let all = operations().into_iter().filter(|it| fits(it.path));
    let called = all.min_by_key(|it| it.path.matches('{').count())?.path;
    let mut operations = operations().into_iter();
    operations.find(|it| it.method == method && it.path == called)
}

/// Fails if an answer's status or headers are not documented. Returns the schema of its body, if any.
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
        // No documented operation has this method and path. Then the answer must be a 4xx, or the answer to a
        // CORS preflight request.
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

/// Fails if the data of a frame of a stream do not fit the schema of the frame's event.
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

/// Fails if a value does not fit this schema of the document.
pub(crate) fn assert_valid(schema: &'static Value, value: &Value, what: &str) {
    let validator = validator(schema);
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{} at {:?}", error, error.instance_path().to_string()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

/// The validator of a schema of the document. Each validator is built once, and kept under its schema's
/// address in memory.
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

/// Finds the names of schemas that are parts of other schemas (`allOf`). [`close`] leaves these parts open.
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

/// Makes a schema refuse properties that it does not name. A part of another schema is left open, because
/// it does not name the properties of the other parts.
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
