//! Votes, tokens and approvers that the API refuses; votes that are repeated; and the secrecy of tokens.

use docg_core::prelude::*;
use serde_json::{Value, json};

use super::{ANN, Asked, BEN};
use crate::support::{Call, World};

#[tokio::test]
async fn a_token_that_nobody_was_given_opens_nothing() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let good = asked.link(ANN);
    let unknown = "0".repeat(40);
    let mut bodies = Vec::new();
    for token in [
        unknown.as_str(),
        "x",
        "%00",
        "%2e%2e",
        &good[18..good.len() - 1],
    ] {
        let path = format!("/api/v1/approvals/{token}");
        let shown = asked.world.send(Call::new("GET", path.clone())).await;
        let mut body = shown.problem(404, "not_found");
        body["correlation_id"] = Value::Null;
        bodies.push(body);
        for verb in ["approve", "reject"] {
            let call = Call::new("POST", format!("{path}/{verb}"));
            asked.world.send(call).await.problem(404, "not_found");
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let detail = bodies[0]["detail"].as_str().expect("a text");
    assert!(detail.contains("try again in a moment"), "{detail}");
    let get = asked
        .world
        .send(Call::new("GET", format!("{good}/approve")))
        .await;
    get.problem(405, "method_not_allowed");
    assert_eq!(asked.execution().await["status"], "paused");
}

#[tokio::test]
async fn a_vote_is_read_with_care() {
    let asked = Asked::new(json!({"approvers": [ANN]})).await;
    let unknown = asked
        .vote(ANN, "approve", json!({"comment": "x", "force": true}))
        .await;
    let problem = unknown.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/force");
    let long = asked
        .vote(ANN, "approve", json!({"comment": "x".repeat(2_001)}))
        .await;
    let problem = long.problem(422, "validation_failed");
    assert_eq!(
        (
            &problem["errors"][0]["pointer"],
            &problem["errors"][0]["code"]
        ),
        (&json!("/comment"), &json!("too_long"))
    );
    let huge = asked
        .vote(ANN, "approve", json!({"comment": "x".repeat(1 << 20)}))
        .await;
    huge.problem(413, "payload_too_large");
    let portuguese = Call::new("POST", format!("{}/approve", asked.link(ANN)))
        .header("accept-language", "pt-BR")
        .body("{")
        .header("content-type", "application/json");
    asked
        .world
        .send(portuguese)
        .await
        .problem(400, "malformed_json");
    let bogus = Call::new("POST", format!("{}/approve?bogus=1", asked.link(ANN)));
    let problem = asked
        .world
        .send(bogus)
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/bogus");
    let bare = Call::new("POST", format!("{}/approve", asked.link(ANN)));
    assert_eq!(
        asked.world.send(bare).await.status.as_u16(),
        200,
        "the body may be left out"
    );
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_again_and_only_to_its_token() {
    let asked = Asked::new(json!({"approvers": [ANN, BEN], "quorum": 2})).await;
    let vote = |email: &str, verb: &str| {
        let call = Call::new("POST", format!("{}/{verb}", asked.link(email)));
        asked.world.send(call.header("idempotency-key", "once"))
    };
    let first = vote(ANN, "approve").await;
    let again = vote(ANN, "approve").await;
    assert_eq!((again.status.as_u16(), &again.text), (200, &first.text));
    assert_eq!(again.header("idempotency-replayed"), "true");
    vote(ANN, "reject")
        .await
        .problem(422, "idempotency_key_reused");
    let other = vote(BEN, "approve").await;
    assert_eq!(other.json()["status"], "approved", "{}", other.text);
}

#[tokio::test]
async fn preflight_says_what_is_wrong_with_who_is_asked() {
    let world = World::new().await;
    let workflow = WorkflowId::new();
    for (params, domain, expected) in [
        (
            json!({"approvers": [ANN], "quorum": 0}),
            "data",
            ("invalid_quorum", "/nodes/ok/quorum"),
        ),
        (
            json!({"approvers": [ANN, BEN], "quorum": 3}),
            "data",
            ("invalid_quorum", "/nodes/ok/quorum"),
        ),
        (
            json!({"approvers": [ANN, "Ann Again <ANN@example.com>"]}),
            "delivery",
            ("duplicate_approver", "/nodes/ok/approvers/1"),
        ),
        (
            json!({"approvers": [ANN, "ben at example"]}),
            "delivery",
            ("invalid_email_format", "/nodes/ok/approvers/1"),
        ),
        (
            json!({"approvers": []}),
            "delivery",
            ("missing_recipient", "/nodes/ok/approvers"),
        ),
        (
            json!({"approvers": "{{trigger.people}}", "quorum": 2}),
            "data",
            ("invalid_quorum", "/nodes/ok/quorum"),
        ),
    ] {
        let node = json!({"id": "ok", "type": "approval", "phase": "save", "params": params});
        let draft = serde_json::from_value(json!({"name": "Test", "nodes": [node]}));
        let put =
            world
                .engine
                .put_workflow(world.organization, workflow, draft.expect("readable"), None);
        put.await.expect("its values are left to preflight");
        let path = format!("/api/v1/workflows/{workflow}/preflight");
        let body = json!({"trigger_data": {"people": [ANN]}});
        let answer = world.post(&path, body).await.json();
        assert_eq!(answer["can_execute"], false, "{params}");
        let issue = &answer["groups"][domain][0];
        assert_eq!(
            (&issue["code"], &issue["field"], &issue["node_id"]),
            (&json!(expected.0), &json!(expected.1), &json!("ok")),
            "{answer:#}"
        );
        let action = &answer["recommended_actions"][0];
        assert_eq!(action["params"]["issue_code"], expected.0);
        assert_ne!(action["label"], "", "{answer:#}");
    }
}

#[tokio::test]
async fn a_token_is_kept_nowhere_but_with_its_approver() {
    let asked = Asked::new(json!({"approvers": [ANN], "message": "Please"})).await;
    let link = asked.link(ANN);
    let token = link.rsplit('/').next().expect("a token");
    assert_eq!(token.len(), 40);
    asked.vote(ANN, "approve", json!({})).await;
    asked.until("execution.completed").await;
    for part in ["", "/steps", "/logs?limit=100", "/audit?limit=100"] {
        let call = Call::new("GET", format!("{}{part}", asked.path)).token("technician");
        let shown = asked.world.send(call).await;
        assert_eq!(shown.status.as_u16(), 200);
        assert!(!shown.text.contains(token), "{part}: {}", shown.text);
    }
    let id: ExecutionId = asked.path[asked.path.len() - 36..].parse().expect("an id");
    let debugged = format!("{:?}", asked.world.invitations());
    assert!(
        !debugged.contains(token),
        "nor does it show when it is debugged"
    );
    let mut feed = asked
        .world
        .engine
        .feed(asked.world.organization, id, 0)
        .await
        .expect("a feed");
    while let Some(event) = futures::StreamExt::next(&mut feed).await {
        let event = serde_json::to_string(&*event.expect("readable")).expect("JSON");
        assert!(!event.contains(token), "{event}");
    }
}
