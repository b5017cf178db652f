use docg_core::prelude::*;
use serde_json::json;

use crate::support::{Call, World};

/// Every route that needs a caller, with the scope that it needs.
fn routes(execution: &str, workflow: &WorkflowId) -> Vec<(&'static str, String, &'static str)> {
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
    let execution = world.completed().await;
    for (method, path, scope) in routes(&execution, &world.workflow) {
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
        // Another organization's things are not found, and its lists are empty; a PUT there is its own workflow.
        let stranger = world.send(call().token("stranger")).await;
        if path == "/api/v1/sse/tokens" || method == "PUT" {
            continue;
        }
        if path == "/api/v1/workflows" || path == "/api/v1/executions" {
            let text = stranger.text.clone();
            assert!(
                !text.contains(&world.workflow.to_string())
                    || text.contains(&world.other.to_string()),
                "{text}"
            );
            assert!(!text.contains(&world.organization.to_string()), "{text}");
        } else if !path.ends_with(&world.workflow.to_string()) && !path.contains("/workflows/") {
            stranger.problem(404, "not_found");
        }
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
