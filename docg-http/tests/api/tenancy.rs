//! Every operation of the OpenAPI document refuses callers without the right credentials, scope or
//! organization. A new operation fails these tests until `operation_cases` has a good call of it.

use docg_core::prelude::*;
use serde_json::json;

use crate::{
    conformance::{Operation, operations},
    operation_cases::{Cases, OPEN},
    support::{Call, World},
};

/// The operations that need bearer credentials, each with the scope that it needs.
fn guarded() -> Vec<(Operation, &'static str)> {
    let all = operations();
    let guarded: Vec<_> = all
        .iter()
        .filter(|operation| !OPEN.contains(&operation.id()))
        .map(|operation| {
            let scope = operation.scope();
            let id = operation.id();
            (
                *operation,
                scope.unwrap_or_else(|| panic!("{id} is open and not known as such")),
            )
        })
        .collect();
    for id in OPEN {
        let operation = all.iter().find(|operation| operation.id() == id);
        let scope = operation.map(Operation::scope);
        assert_eq!(scope, Some(None), "{id} needs no scope");
    }
    guarded
}

#[tokio::test]
async fn without_valid_credentials_there_is_nothing_to_be_had() {
    let cases = Cases::new().await;
    for (operation, _) in guarded() {
        let refused = [
            cases.call(operation),
            cases.call(operation).token("wrong"),
            cases
                .call(operation)
                .header("authorization", "Basic dXNlcg=="),
            cases
                .call(operation)
                .token("user")
                .header("authorization", "Bearer user"),
        ];
        for call in refused {
            let answer = cases.world.send(call).await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn a_missing_scope_is_named_and_no_other_takes_its_place() {
    let cases = Cases::new().await;
    for (operation, scope) in guarded() {
        for token in ["nothing".to_owned(), format!("without {scope}")] {
            let answer = cases.world.send(cases.call(operation).token(&token)).await;
            let problem = answer.problem(403, "missing_scope");
            assert_eq!(problem["scope"], scope, "{}", operation.id());
        }
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn an_organization_outside_the_credentials_is_refused_and_one_of_several_must_be_chosen() {
    let cases = Cases::new().await;
    for (operation, _) in guarded() {
        let outside = cases
            .call(operation)
            .token("user")
            .header("x-organization-id", cases.world.other.to_string());
        let answer = cases.world.send(outside).await;
        answer.problem(403, "organization_not_allowed");
        let undecided = cases.call(operation).token("both");
        let answer = cases.world.send(undecided).await;
        answer.problem(400, "organization_required");
    }
    cases.nothing_was_done().await;
}

#[tokio::test]
async fn what_belongs_to_another_organization_is_not_found() {
    let cases = Cases::new().await;
    let mut operations = guarded();
    // Call `putWorkflow` last: it gives the other organization a workflow with the same id.
    operations.sort_by_key(|(operation, _)| operation.id() == "putWorkflow");
    for (operation, _) in operations {
        let other = cases.world.other.to_string();
        let strangers = [
            cases.call(operation).token("stranger"),
            cases
                .call(operation)
                .token("both")
                .header("x-organization-id", other),
        ];
        for call in strangers {
            match operation.id() {
                // Workflow ids are separate for each organization, so the call creates another workflow with
                // this id.
                "putWorkflow" => {
                    let made = cases.world.send(call).await;
                    assert!(made.status.is_success(), "{}", made.text);
                    assert_eq!(
                        made.json()["organization_id"],
                        cases.world.other.to_string()
                    );
                    let own = Call::new("DELETE", cases.path(operation)).token("stranger");
                    assert_eq!(cases.world.send(own).await.status.as_u16(), 204);
                }
                // The caller gets the stream of their own organization. The stream never ends, so the test
                // only opens it.
                "streamExecutions" => {
                    assert_eq!(cases.world.open(call).await.status().as_u16(), 200);
                }
                "callExecutions" => {
                    let called = cases.world.send(call).await.json();
                    let code = &called["refused"][0]["code"];
                    assert_eq!((&called["applied"], code), (&json!(0), &json!("not_found")));
                }
                "countExecutions" => {
                    let counts = cases.world.send(call).await.json();
                    let counts = counts["by_status"].as_object().expect("an object").clone();
                    assert!(counts.values().all(|count| count == 0), "{counts:?}");
                }
                _ => {
                    let answer = cases.world.send(call).await;
                    if operation.method == "GET" && !operation.names_something() {
                        assert_eq!(answer.status.as_u16(), 200);
                        assert!(answer.text.contains(":[]"), "{}", answer.text);
                    } else {
                        answer.problem(404, "not_found");
                    }
                }
            }
        }
    }
    cases.nothing_was_done().await;
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
    let body = json!({"trigger_data": {}});
    let other = Call::new(
        "POST",
        format!("/api/v1/workflows/{}/executions", world.workflow),
    );
    let other = other
        .token("both")
        .header("x-organization-id", world.other.to_string());
    let answer = world.send(other.json(body)).await;
    answer.problem(404, "not_found");
}
