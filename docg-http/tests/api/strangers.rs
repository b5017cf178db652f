//! Strange values in every field of every operation. Each value is refused with an error that names the
//! field, or is accepted and read back unchanged.

use docg_core::limits::{TEXTS, is_blank};
use serde_json::{Value, json};

use crate::{
    conformance::{Operation, operations, resolved},
    operation_cases::Cases,
    support::{Answer, Call},
};

/// Strange texts as JSON writes them between the quotes, each with a description.
fn texts(limit: usize) -> Vec<(String, &'static str)> {
    let mut texts = vec![
        (String::new(), "empty"),
        (" \\t ".to_owned(), "blank"),
        ("\\u200b".to_owned(), "without width"),
        ("x".repeat(limit), "at the limit"),
        ("漢".repeat(limit), "at the limit in bytes of three"),
        ("x".repeat(limit + 1), "beyond the limit"),
        ("x".repeat(1_000_000), "a million"),
    ];
    let escapes = [
        "a\\u0000b",
        "a\\rb",
        "a\\nb",
        "a\\u2028b",
        "\\ufeffab",
        "a\\u200bb",
        "a\\u202eb",
        "a\\ud800b",
        "a\\udc00b",
        "a\\ud83d\\udc4db",
        "e\\u0301",
        "\\u5951\\u7d04",
        "{{trigger.x}}",
        "' or 1=1 --",
    ];
    texts.extend(escapes.map(|escape| (escape.to_owned(), escape)));
    texts
}

/// Strange numbers as JSON writes them.
const NUMBERS: [&str; 13] = [
    "-1",
    "-0",
    "0",
    "0.5",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551616",
    "35260112345678901234567890123456789012345678",
    "1e308",
    "1e400",
    "1e99999999999",
];

/// A field of a request's body that holds a text or a number.
struct Field {
    pointer: String,
    schema: &'static Value,
}

impl Field {
    fn is(&self, kind: &str) -> bool {
        let types = &self.schema["type"];
        types == kind
            || types
                .as_array()
                .is_some_and(|types| types.contains(&json!(kind)))
    }

    fn name(&self) -> &str {
        self.pointer.rsplit('/').next().unwrap_or_default()
    }
}

/// Finds the fields below a schema that hold texts or numbers. Fields that may hold any JSON are left out.
fn fields(schema: &'static Value, pointer: &str, found: &mut Vec<Field>) {
    let schema = resolved(schema);
    for part in ["oneOf", "anyOf", "allOf"] {
        for schema in schema[part].as_array().into_iter().flatten() {
            fields(schema, pointer, found);
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        fields(schema, &format!("{pointer}/{name}"), found);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], &format!("{pointer}/0"), found);
    }
    let field = Field {
        pointer: pointer.to_owned(),
        schema,
    };
    if field.is("string") || field.is("integer") || field.is("number") {
        found.push(field);
    }
}

fn fields_of(operation: Operation) -> Vec<Field> {
    let mut found = Vec::new();
    let body = &operation.described["requestBody"]["content"]["application/json"]["schema"];
    fields(body, "", &mut found);
    found
}

/// A good body in which the value at `pointer` is replaced by the JSON text `written`.
fn with(mut body: Value, pointer: &str, written: &str) -> String {
    let mut place = &mut body;
    for name in pointer.split('/').skip(1) {
        place = match name.parse::<usize>() {
            Ok(index) => place.get_mut(index).expect("the good body has one"),
            Err(_) => &mut place[name],
        };
    }
    *place = json!("the place");
    body.to_string().replace("\"the place\"", written)
}

async fn sent(cases: &Cases, operation: Operation, body: String) -> Answer {
    let call = Call::new(operation.method, cases.path(operation)).token("technician");
    let call = call.header("content-type", "application/json");
    cases.world.send(call.body(body)).await
}

/// The codes of the errors that an answer reports for this field.
fn codes(answer: &Answer, pointer: &str) -> Vec<String> {
    let errors = answer.json()["errors"].clone();
    let errors = errors.as_array().cloned().unwrap_or_default();
    let own = errors.iter().filter(|error| error["pointer"] == pointer);
    own.filter_map(|error| error["code"].as_str().map(str::to_owned))
        .collect()
}

/// Fails if the answer is a server error, or a success that shows another value than the one sent.
fn check(answer: &Answer, operation: Operation, pointer: &str, written: &str) {
    let id = operation.id();
    let what = format!("{id} {pointer}: {:.60}", written);
    let status = answer.status;
    assert!(!status.is_server_error(), "{what}: {}", answer.text);
    if status.is_success() {
        let given: Value = serde_json::from_str(written).expect("what was taken is JSON");
        // An execution's own `reason` says why it waits; it does not repeat the reason of a pause or a cancel.
        let is_another = pointer == "/reason";
        if let Some(shown) = answer.json().pointer(pointer).filter(|_| !is_another) {
            let same = match (&given, shown) {
                // The API cuts off white space around a text, and treats a blank text as missing.
                (Value::String(given), shown) => {
                    given.trim() == shown.as_str().unwrap_or_default().trim() || is_blank(given)
                }
                (given, shown) => *shown == *given || shown.as_f64() == given.as_f64(),
            };
            assert!(same, "{what}: is read back as {shown:.60}");
        }
    }
}

#[tokio::test]
async fn every_text_of_every_operation_is_bounded_and_kept_or_refused() {
    let mut seen = 0;
    for operation in operations().into_iter().filter(Operation::takes_json) {
        for field in fields_of(operation)
            .iter()
            .filter(|field| field.is("string"))
        {
            seen += 1;
            let (schema, pointer, id) = (field.schema, &field.pointer, operation.id());
            let max = schema["maxLength"]
                .as_u64()
                .and_then(|max| usize::try_from(max).ok());
            let is_closed = schema.get("enum").is_some() || schema.get("format").is_some();
            let is_told = max.is_some() || is_closed || schema["pattern"].is_string();
            assert!(
                is_told || field.name() == "from_step",
                "{id} {pointer} has no limit"
            );
            // Use new cases for each field: an accepted call may end the executions of its cases.
            let cases = Cases::new().await;
            for (text, what) in texts(max.unwrap_or(64)) {
                let written = format!("\"{text}\"");
                let body = with(cases.body(operation), pointer, &written);
                let answer = sent(&cases, operation, body).await;
                check(&answer, operation, pointer, &written);
                let codes = codes(&answer, pointer);
                if max.is_some() {
                    let is_long = what == "beyond the limit" || what == "a million";
                    assert_eq!(
                        codes.contains(&"too_long".to_owned()),
                        is_long,
                        "{id} {pointer} {what}"
                    );
                }
                let never = ["a\\u0000b", "a\\ud800b", "a\\udc00b"];
                if what == "a million" || never.contains(&what) {
                    assert!(answer.status.is_client_error(), "{id} {pointer} {what}");
                }
            }
        }
    }
    assert!(seen > 15, "the fields are found: {seen}");
}

#[tokio::test]
async fn every_number_of_every_operation_is_kept_or_refused() {
    let mut seen = 0;
    for operation in operations().into_iter().filter(Operation::takes_json) {
        for field in fields_of(operation) {
            if !(field.is("integer") || field.is("number")) {
                continue;
            }
            seen += 1;
            let cases = Cases::new().await;
            for number in NUMBERS {
                let body = with(cases.body(operation), &field.pointer, number);
                let answer = sent(&cases, operation, body).await;
                check(&answer, operation, &field.pointer, number);
            }
        }
    }
    assert!(seen > 6, "the fields are found: {seen}");
}

#[tokio::test]
async fn every_parameter_of_a_query_is_understood_or_refused() {
    let cases = Cases::new().await;
    let strange = [
        "",
        "%20",
        "-1",
        "0",
        "0.5",
        "101",
        "4294967296",
        "9223372036854775808",
        "1e400",
        "%00",
        "%0A",
        "%FF",
        "%E2%80%A8",
        "%EF%BB%BF",
        "%E2%80%AE",
        "null",
        "%F0%9F%91%8D",
    ];
    let long = "x".repeat(20_000);
    for operation in operations() {
        if operation.path.ends_with("/stream") {
            continue;
        }
        for parameter in operation.described["parameters"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if parameter["in"] != "query" {
                continue;
            }
            let name = parameter["name"].as_str().expect("a name");
            for value in strange.iter().copied().chain([long.as_str()]) {
                let path = format!("{}?{name}={value}", cases.path(operation));
                let call = Call::new(operation.method, path).token("technician");
                let answer = cases.world.send(call).await;
                assert!(
                    !answer.status.is_server_error(),
                    "{name}={value:.40}: {}",
                    answer.text
                );
                assert!(
                    value != "%FF" || answer.status.as_u16() == 400,
                    "{name}={value}"
                );
                let twice = format!("{}?{name}=1&{name}=1", cases.path(operation));
                let call = Call::new(operation.method, twice).token("technician");
                cases
                    .world
                    .send(call)
                    .await
                    .problem(422, "validation_failed");
            }
        }
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn trigger_data_is_read_back_as_it_was_given() {
    let cases = Cases::new().await;
    let path = format!("/api/v1/workflows/{}/executions", cases.world.workflow);
    let post = |body: String| {
        let call = Call::new("POST", path.clone()).token("user");
        let call = call.header("content-type", "application/json");
        cases
            .world
            .send(call.header("idempotency-key", "k").body(body))
    };
    for kept in [
        "1.10",
        "0.30000000000000004",
        "9007199254740993",
        "18446744073709551615",
        "1e22",
        "-5e-324",
    ] {
        let call = Call::new("POST", path.clone()).token("user");
        let call = call.header("content-type", "application/json");
        let body =
            format!(r#"{{"trigger_data": {{"n": {kept}, "t": "a\u2028\ufeff\u202e\u200b"}}}}"#);
        let answer = cases.world.send(call.body(body)).await;
        assert_eq!(answer.status.as_u16(), 201, "{kept}: {}", answer.text);
        let data = &answer.json()["trigger_data"];
        assert_eq!(
            data["n"],
            serde_json::from_str::<Value>(kept).expect("a number")
        );
        assert_eq!(data["t"], "a\u{2028}\u{feff}\u{202e}\u{200b}");
    }
    // Two numbers that differ in a digit that no float holds must not count as the same: both are refused.
    for last in ["8", "9"] {
        let digits = "3526011234567890123456789012345678901234567";
        let answer = post(format!(r#"{{"trigger_data": {{"a": [{digits}{last}]}}}}"#)).await;
        answer.problem(422, "validation_failed");
        assert_eq!(codes(&answer, "/trigger_data/a/0"), ["number_not_exact"]);
    }
}

#[tokio::test]
async fn what_is_given_twice_or_in_another_encoding_is_refused_by_every_operation() {
    let cases = Cases::new().await;
    for operation in operations().into_iter().filter(Operation::takes_json) {
        let good = cases.body(operation).to_string();
        let call = || Call::new(operation.method, cases.path(operation)).token("technician");
        let json = || call().header("content-type", "application/json");
        for (member, pointer, code) in [
            (r#""x": 1, "x": 1"#, "/x", "duplicate_key"),
            (
                r#""x": {"y": [{"z": 1, "\u007a": 2}]}"#,
                "/x/y/0/z",
                "duplicate_key",
            ),
            (r#""x": 12345678901234567890123"#, "/x", "number_not_exact"),
            (r#""x": "\ud800""#, "/x", "invalid_text"),
            (
                r#""x": {"$serde_json::private::RawValue": "{\"a\": 1, \"a\": 2}"}"#,
                "/x/$serde_json::private::RawValue",
                "reserved_name",
            ),
            (
                r#""x": [{"y": 1, "\u0024serde_json::private::Number": "1"}]"#,
                "/x/0/$serde_json::private::Number",
                "reserved_name",
            ),
        ] {
            let body = format!(
                "{}, {member}}}",
                good.trim_end_matches('}').to_owned() + &closing(&good)
            );
            let answer = cases.world.send(json().body(body)).await;
            answer.problem(422, "validation_failed");
            assert_eq!(codes(&answer, pointer), [code], "{}", operation.id());
        }
        for (name, value) in [
            ("content-type", "application/json; charset=latin1"),
            ("content-type", "application/json; charset=\"utf-16\""),
            ("content-type", "text/json"),
            ("content-type", "application/merge-patch+json"),
            ("content-type", "application/problem+json"),
        ] {
            let answer = cases
                .world
                .send(call().header(name, value).body(good.clone()))
                .await;
            answer.problem(415, "unsupported_media_type");
        }
        for coding in ["gzip, chunked", "chunked, chunked", "identity"] {
            let encoded = json()
                .header("transfer-encoding", coding)
                .body(good.clone());
            let answer = cases.world.send(encoded).await;
            answer.problem(415, "unsupported_media_type");
        }
        for coding in ["gzip", "br", "identity, gzip"] {
            let compressed = json().header("content-encoding", coding).body(good.clone());
            let answer = cases.world.send(compressed).await;
            answer.problem(415, "unsupported_media_type");
        }
        for (name, value) in [
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
            ("if-match", "\"1\""),
            ("x-organization-id", "o"),
            ("x-correlation-id", "c"),
            ("traceparent", "t"),
        ] {
            let twice = json()
                .header(name, value)
                .header(name, value)
                .body(good.clone());
            let problem = cases.world.send(twice).await.problem(400, "bad_request");
            assert!(
                problem["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains(name))
            );
        }
    }
    cases.nothing_was_done().await;
}

/// The closing braces at the end of an object's text, without the object's own brace.
fn closing(object: &str) -> String {
    let closed = object.trim_end_matches('}').len();
    object[closed..object.len() - 1].to_owned()
}

#[test]
fn the_document_tells_the_limits_that_are_checked() {
    let document: Value = serde_json::from_str(docg_http::openapi()).expect("JSON");
    let schemas = &document["components"]["schemas"];
    for (schema, name) in [
        ("CreateExecution", "trigger_type"),
        ("Reason", "reason"),
        ("Comment", "comment"),
        ("WorkflowDraft", "name"),
        ("NodeDraft", "label"),
        ("NodeDraft", "when"),
        ("RequestSignatureBody", "provider"),
        ("AskedSigner", "email"),
    ] {
        let limit = TEXTS
            .iter()
            .find(|limit| limit.name == name)
            .expect("a limit");
        let told = &schemas[schema]["properties"][name]["maxLength"];
        assert_eq!(*told, limit.max, "{schema}.{name}");
    }
}
