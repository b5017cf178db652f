//! Every operation of the OpenAPI document refuses wrong requests, and names the fault.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::{
    conformance::{Operation, operations},
    operation_cases::Cases,
    support::Call,
};

/// Adds credentials that allow everything to a call.
fn allowed(call: Call) -> Call {
    call.token("technician")
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let cases = Cases::new().await;
    let mut methods: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for operation in operations() {
        let known = methods.entry(cases.path(operation)).or_default();
        known.insert(operation.method);
        if operation.method == "GET" {
            known.insert("HEAD");
        }
    }
    for (path, known) in methods {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            if known.contains(method) {
                continue;
            }
            let answer = cases.world.send(allowed(Call::new(method, &path))).await;
            answer.problem(405, "method_not_allowed");
            let allow: BTreeSet<_> = answer.header("allow").split(',').map(str::trim).collect();
            assert_eq!(allow, known, "{path}");
        }
        for unknown in [format!("{path}/more"), format!("{path}/")] {
            let answer = cases.world.send(allowed(Call::new("GET", unknown))).await;
            answer.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn what_the_path_names_must_be_there() {
    let cases = Cases::new().await;
    for operation in operations() {
        let unknown = [Uuid::now_v7().to_string(), "none".to_owned()];
        for id in unknown.iter().filter(|_| operation.names_something()) {
            if operation.id() == "putWorkflow" && id != "none" {
                continue;
            }
            let path = operation
                .path
                .replace("{id}", id)
                .replace("{token}", id)
                .replace("{provider}", id);
            let call = allowed(Call::new(operation.method, path));
            let call = match cases.body(operation) {
                serde_json::Value::Null => call,
                // Send no body, so that only the path can be wrong.
                _ if operation.id() == "createStreamToken" => call,
                body => call.json(body),
            };
            let answer = cases.world.send(call).await;
            answer.problem(404, "not_found");
        }
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused_and_named() {
    let cases = Cases::new().await;
    // Health endpoints ignore the query, and a provider may add parameters to its webhook's address.
    let indifferent = ["live", "ready", "streamHealth", "receiveSignatureWebhook"];
    for operation in operations() {
        if indifferent.contains(&operation.id()) {
            continue;
        }
        let path = format!("{}?bogus=1", cases.path(operation));
        let call = allowed(Call::new(operation.method, path));
        let call = match cases.body(operation) {
            serde_json::Value::Null => call,
            body => call.json(body),
        };
        let problem = cases
            .world
            .send(call)
            .await
            .problem(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/bogus"), &json!("unknown_field")),
            "{}",
            operation.id()
        );
    }
    cases.nothing_was_done().await;
}

/// The operations that take a JSON body, each with a function that makes a good call except for the missing
/// body.
fn with_body(cases: &Cases) -> Vec<(Operation, impl Fn() -> Call)> {
    let operations: Vec<_> = operations()
        .into_iter()
        .filter(Operation::takes_json)
        .collect();
    assert!(operations.len() > 8, "those with a body are found");
    let calls = operations.into_iter().map(|operation| {
        let path = cases.path(operation);
        let call = move || allowed(Call::new(operation.method, path.clone()));
        (operation, call)
    });
    calls.collect()
}

#[tokio::test]
async fn a_thing_has_one_address() {
    let cases = Cases::new().await;
    for operation in operations() {
        let path = cases.path(operation);
        let forms: [fn(Uuid) -> String; 3] = [
            |id| id.urn().to_string(),
            |id| id.braced().to_string(),
            |id| id.simple().to_string(),
        ];
        let id = path.split('/').find_map(|part| part.parse::<Uuid>().ok());
        for form in forms {
            let Some(id) = id else { continue };
            let form = form(id).replace('{', "%7B").replace('}', "%7D");
            let other = path.replace(&id.to_string(), &form);
            let call = allowed(Call::new(operation.method, other));
            let call = match cases.body(operation) {
                serde_json::Value::Null => call,
                body => call.json(body),
            };
            let answer = cases.world.send(call).await;
            answer.problem(404, "not_found");
        }
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let cases = Cases::new().await;
    for (operation, call) in with_body(&cases) {
        let json = |body: String| call().header("content-type", "application/json").body(body);
        for broken in ["{", "{\"a\":", "nothing", "{} {}", "\u{feff}{}"] {
            let answer = cases.world.send(json(broken.to_owned())).await;
            answer.problem(400, "malformed_json");
        }
        let deep = cases.world.send(json("[".repeat(500))).await;
        deep.problem(400, "malformed_json");
        for other in ["[]", "null", "1", "\"text\"", "true"] {
            let answer = cases.world.send(json(other.to_owned())).await;
            answer.problem(422, "validation_failed");
        }
        let body = cases.body(operation).to_string();
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "json"] {
            let other = call().header("content-type", content_type);
            let answer = cases.world.send(other.body(body.clone())).await;
            answer.problem(415, "unsupported_media_type");
        }
        let answer = cases.world.send(call().body(body)).await;
        answer.problem(415, "unsupported_media_type");
        let large = json(format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20)));
        let answer = cases.world.send(large).await;
        answer.problem(413, "payload_too_large");
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn a_field_that_is_not_known_is_refused_and_named() {
    let cases = Cases::new().await;
    for (operation, call) in with_body(&cases) {
        let mut body = cases.body(operation);
        body["bogus"] = json!(1);
        let answer = cases.world.send(call().json(body)).await;
        let problem = answer.problem(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/bogus"), &json!("unknown_field")),
            "{}",
            operation.id()
        );
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn a_good_call_is_taken_by_every_operation() {
    for operation in operations() {
        // Use new cases for each operation: some operations end an execution that others need.
        let cases = Cases::new().await;
        let call = allowed(cases.call(operation));
        let call = match operation.id() {
            "receiveSignatureWebhook" => call.header("x-desk", "proof").body("{}"),
            _ => call,
        };
        let status = cases.world.open(call).await.status();
        // While an execution waits for signatures, it cannot be resumed or retried, and more signatures
        // cannot be requested.
        let conflict = ["resumeExecution", "retryExecution", "requestSignature"];
        let conflict = conflict.contains(&operation.id());
        assert_eq!(
            status == StatusCode::CONFLICT,
            conflict,
            "{}: {status}",
            operation.id()
        );
        assert!(
            status.is_success() || conflict,
            "{}: {status}",
            operation.id()
        );
    }
}
