use serde_json::json;
use uuid::Uuid;

use crate::support::{Call, World};

#[tokio::test]
async fn whatever_goes_wrong_is_a_problem() {
    let world = World::new().await;
    let create = format!("/api/v1/workflows/{}/executions", world.workflow);
    let call = |method, path: &str| Call::new(method, path).token("user");
    world
        .send(call("GET", "/nowhere"))
        .await
        .problem(404, "not_found");
    world
        .send(call("GET", "/api/v1/executions/not-a-uuid"))
        .await
        .problem(404, "not_found");
    world
        .send(call(
            "GET",
            &format!("/api/v1/executions/{}", Uuid::now_v7()),
        ))
        .await
        .problem(404, "not_found");
    let wrong_method = world.send(call("PATCH", "/api/v1/executions")).await;
    wrong_method.problem(405, "method_not_allowed");
    assert!(wrong_method.header("allow").contains("GET"));
    let json = |body: &str| {
        call("POST", &create)
            .header("content-type", "application/json")
            .body(body)
    };
    world
        .send(json("{\"a\":"))
        .await
        .problem(400, "malformed_json");
    world
        .send(json("[1]"))
        .await
        .problem(422, "validation_failed");
    world
        .send(json(&"[".repeat(500)))
        .await
        .problem(400, "malformed_json");
    world
        .send(call("POST", &create).body("{}"))
        .await
        .problem(415, "unsupported_media_type");
    world
        .send(json(&format!(
            "{{\"trigger_type\": \"{}\"}}",
            "x".repeat(1 << 20)
        )))
        .await
        .problem(413, "payload_too_large");
    world
        .send(call("POST", &create).header("idempotency-key", ""))
        .await
        .problem(400, "bad_request");
}

#[tokio::test]
async fn a_problem_speaks_the_caller_s_language_and_names_the_call() {
    let world = World::new().await;
    let call = Call::new("GET", "/nowhere")
        .header("accept-language", "pt-BR")
        .header("x-correlation-id", "abc.1");
    let problem = world.send(call).await.problem(404, "not_found");
    insta::assert_json_snapshot!(problem, @r#"
    {
      "code": "not_found",
      "correlation_id": "abc.1",
      "detail": "Não há nada neste endereço, ou não pertence a você.",
      "error": "Not found",
      "message": "Não há nada neste endereço, ou não pertence a você.",
      "status": 404,
      "title": "Not found",
      "type": "urn:docg:problem:not_found"
    }
    "#);
    let forged = Call::new("GET", "/nowhere").header("x-correlation-id", "a b<c>");
    assert_ne!(
        world.send(forged).await.header("x-correlation-id"),
        "a b<c>"
    );
}

#[tokio::test]
async fn health_needs_no_token_and_keeps_its_shape() {
    let world = World::new().await;
    assert_eq!(
        world.send(Call::new("GET", "/healthz")).await.json(),
        json!({"status": "ok"})
    );
    assert_eq!(
        world.send(Call::new("GET", "/readyz")).await.json(),
        json!({"status": "ready"})
    );
    let sse = world
        .send(Call::new("GET", "/api/v1/sse/health"))
        .await
        .json();
    assert_eq!(
        sse,
        json!({"status": "healthy", "redis": "not_configured", "mode": "memory"})
    );
}
