use docg_core::prelude::*;
use serde_json::json;

use crate::support::{Call, World};

/// Every route that needs a caller, with the scope that it needs.
fn routes(
    execution: &str,
    workflow: &WorkflowId,
    signature: &str,
) -> Vec<(&'static str, String, &'static str)> {
    let w = format!("/api/v1/workflows/{workflow}");
    vec![
        ("GET", "/api/v1/workflows".to_owned(), "executions:read"),
        ("GET", w.clone(), "executions:read"),
        ("PUT", w.clone(), "workflows:write"),
        ("DELETE", w.clone(), "workflows:write"),
        ("POST", format!("{w}/preflight"), "executions:read"),
        ("GET", format!("{w}/executions"), "executions:read"),
        ("POST", format!("{w}/executions"), "executions:write"),
        ("GET", "/api/v1/executions".to_owned(), "executions:read"),
        ("GET", execution.to_owned(), "executions:read"),
        ("GET", format!("{execution}/steps"), "executions:read"),
        ("GET", format!("{execution}/preflight"), "executions:read"),
        ("GET", format!("{execution}/logs"), "executions:read"),
        ("GET", format!("{execution}/audit"), "audit:read"),
        ("GET", format!("{execution}/audit/verify"), "audit:read"),
        ("POST", format!("{execution}/resume"), "executions:write"),
        ("POST", format!("{execution}/pause"), "executions:write"),
        ("POST", format!("{execution}/cancel"), "executions:write"),
        ("POST", format!("{execution}/retry"), "executions:write"),
        (
            "GET",
            format!("/api/v1/signatures/{signature}/signers"),
            "executions:read",
        ),
        ("POST", "/api/v1/sse/tokens".to_owned(), "executions:read"),
        (
            "GET",
            format!("/api/v1/sse{}/stream", &execution["/api/v1".len()..]),
            "executions:read",
        ),
    ]
}

#[tokio::test]
async fn every_route_refuses_those_who_may_not() {
    let world = World::new().await;
    let (execution, signature) = signing(&world).await;
    for (method, path, scope) in routes(&execution, &world.workflow, &signature) {
        let call = || match method {
            "PUT" => Call::new(method, path.clone())
                .json(json!({"name": "x", "nodes": [{"id": "a", "type": "echo"}]})),
            _ => Call::new(method, path.clone()),
        };
        let answer = world.send(call()).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        world
            .send(call().token("wrong"))
            .await
            .problem(401, "unauthorized");
        world
            .send(call().header("authorization", "Basic dXNlcg=="))
            .await
            .problem(401, "unauthorized");
        let missing = world
            .send(call().token("nothing"))
            .await
            .problem(403, "missing_scope");
        assert_eq!(missing["scope"], scope, "{method} {path}");
        let outside = call()
            .token("user")
            .header("x-organization-id", world.other.to_string());
        world
            .send(outside)
            .await
            .problem(403, "organization_not_allowed");
        world
            .send(call().token("both"))
            .await
            .problem(400, "organization_required");
        // What names nothing of its own is the caller's own; a PUT makes a workflow of its own.
        if path == "/api/v1/sse/tokens" || method == "PUT" {
            continue;
        }
        let stranger = world.send(call().token("stranger")).await;
        if path == "/api/v1/workflows" || path == "/api/v1/executions" {
            assert!(stranger.text.contains(":[]"), "{path}: {}", stranger.text);
        } else {
            stranger.problem(404, "not_found");
        }
        let token = Call::new("POST", "/api/v1/sse/tokens").token("stranger");
        let id = execution.rsplit('/').next();
        let foreign = world.send(token.json(json!({"execution_id": id}))).await;
        foreign.problem(404, "not_found");
    }
    let unchanged = world.get(&execution).await.json();
    assert_eq!(unchanged["status"], "signing", "and nothing was done");
}

/// A run that waits for a signature, and the request for it.
async fn signing(world: &World) -> (String, String) {
    let execution = world.start(json!([{"id": "s", "type": "sign"}])).await;
    world.until(&execution, "signature.requested").await;
    let waiting = world.get(&execution).await.json()["waiting_for"].clone();
    let request = waiting["detail"]["signature_request_id"].as_str();
    (execution, request.expect("an id").to_owned())
}

/// A route that is new must be in the matrix above, or among those that need no caller.
#[test]
fn the_matrix_knows_every_route() {
    let open = [
        "/api/v1/approvals/{token}",
        "/api/v1/approvals/{token}/approve",
        "/api/v1/approvals/{token}/reject",
        "/api/v1/webhooks/signature/{provider}",
        "/api/v1/sse/health",
        // It does not end; its own tests try all of this.
        "/api/v1/sse/executions/stream",
        "/healthz",
        "/readyz",
    ];
    let id = "{id}";
    let workflow = WorkflowId::new();
    let known: Vec<String> = routes("/api/v1/executions/{id}", &workflow, id)
        .into_iter()
        .map(|(_, path, _)| path.replace(&workflow.to_string(), id))
        .chain(open.map(str::to_owned))
        .collect();
    let source = include_str!("../../src/router.rs");
    let quoted = source.split('"').skip(1).step_by(2);
    let paths = quoted.filter(|text| text.starts_with('/'));
    let mut count = 0;
    for path in paths {
        assert!(known.iter().any(|known| known == path), "{path} is missing");
        count += 1;
    }
    assert!(count > 20, "the routes are where this test looks for them");
}

#[tokio::test]
async fn every_route_refuses_parameters_that_it_does_not_know() {
    let world = World::new().await;
    let (execution, signature) = signing(&world).await;
    for (method, path, _) in routes(&execution, &world.workflow, &signature) {
        let call = Call::new(method, format!("{path}?bogus=1")).token("user");
        let answer = world.send(call).await;
        let problem = answer.problem(422, "validation_failed");
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!("/bogus"), &json!("unknown_field")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_header_chooses_among_the_caller_s_own_organizations() {
    let world = World::new().await;
    let execution = world.completed().await;
    let call = |organization: OrganizationId| {
        world.send(
            Call::new("GET", execution.clone())
                .token("both")
                .header("x-organization-id", organization.to_string()),
        )
    };
    assert_eq!(call(world.organization).await.status.as_u16(), 200);
    call(world.other).await.problem(404, "not_found");
    let twice = Call::new("GET", execution.clone())
        .token("both")
        .header("x-organization-id", world.other.to_string())
        .header("x-organization-id", world.organization.to_string());
    world.send(twice).await.problem(400, "bad_request");
}
