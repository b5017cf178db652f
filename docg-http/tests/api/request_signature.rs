//! Tests of `POST /executions/{id}/request-signature`, which requests signatures on a document.

use docg_core::prelude::*;
use serde_json::{Value, json};

use crate::support::{Answer, Call, World};

/// Completes an execution that makes two documents, and returns its path. The last document, `contract.pdf`,
/// is to be signed.
async fn with_a_document(world: &World) -> String {
    let path = world
        .start(json!([
            {"id": "draft", "type": "render", "params": {"file": {"name": "draft.pdf"}}},
            {"id": "final", "type": "render", "params": {"file": {"name": "contract.pdf"}}},
            {"id": "later", "type": "echo", "params": {"in": "{{trigger.deal}}"}},
        ]))
        .await;
    world.until(&path, "execution.completed").await;
    path
}

async fn ask(world: &World, path: &str, body: Value) -> Answer {
    world.post(&format!("{path}/request-signature"), body).await
}

fn signers() -> Value {
    json!([{"email": "signer@example.com", "name": "{{trigger.file}}"}])
}

#[tokio::test]
async fn a_completed_run_s_document_is_signed_in_a_run_that_follows_it() {
    let world = World::new().await;
    let path = with_a_document(&world).await;
    let old = world.get(&path).await.json();
    let answer = ask(&world, &path, json!({"signers": signers()})).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    let new = answer.json();
    assert_eq!(new["follows"], old["id"]);
    assert_eq!(
        (&new["workflow_id"], &new["trigger_type"], &new["retry_of"]),
        (
            &old["workflow_id"],
            &json!("request_signature"),
            &json!(null)
        )
    );
    let id: ExecutionId = new["id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    let follower = format!("/api/v1/executions/{id}");
    world.until(&follower, "signature.requested").await;
    let waiting = world.get(&follower).await.json()["waiting_for"].clone();
    let detail = &waiting["detail"];
    assert_eq!(
        (&waiting["kind"], &detail["provider"], &detail["signers"]),
        (
            &json!("signature"),
            &json!("desk"),
            &json!(["signer@example.com"])
        )
    );
    let request = detail["signature_request_id"].as_str().expect("an id");
    let request = request.parse().expect("an id");
    let request = world
        .engine
        .signature_request(world.organization, request)
        .await;
    let request = request.expect("is there");
    assert_eq!(
        request.file,
        json!({"name": "contract.pdf"}),
        "the newest document"
    );
    assert_eq!(
        request.signers[0].name.as_deref(),
        Some("{{trigger.file}}"),
        "what a caller sends is text and no variable"
    );
    let webhook =
        json!({"envelope": request.envelope_id, "delivery": "d", "signed": "signer@example.com"});
    let call = Call::new("POST", "/api/v1/webhooks/signature/desk").header("x-desk", "proof");
    world.send(call.body(webhook.to_string())).await;
    world.until(&follower, "execution.completed").await;
    let audit = world.get(&format!("{follower}/audit")).await.json();
    let actions: Vec<_> = audit["events"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["action"])
        .collect();
    for action in [
        "execution.started",
        "signature.requested",
        "signature.signed",
        "execution.completed",
    ] {
        assert!(actions.contains(&&json!(action)), "{action}: {actions:?}");
    }
    assert_eq!(
        world.get(&path).await.json()["version"],
        old["version"],
        "the one that is followed stays as it is"
    );
}

#[tokio::test]
async fn what_is_wrong_with_signers_is_found_before_anybody_is_asked_and_can_be_repaired() {
    let world = World::new().await;
    let path = with_a_document(&world).await;
    for (signers, code) in [
        (json!([]), "no_signers"),
        (json!([{"name": "Signer"}]), "signer_missing_email"),
        (json!([{"email": "nowhere"}]), "invalid_email_format"),
        (
            json!([{"email": "a@example.com"}, {"email": "A@example.com"}]),
            "duplicate_signer",
        ),
    ] {
        let new = ask(&world, &path, json!({"signers": signers})).await.json();
        let follower = format!("/api/v1/executions/{}", new["id"].as_str().expect("an id"));
        world.until(&follower, "preflight.completed").await;
        let state = world.get(&follower).await.json();
        assert_eq!(state["status"], "needs_review", "{state}");
        let issues = state["preflight_summary"]["groups"].to_string();
        assert!(issues.contains(code), "{code}: {issues}");
        let changes = json!({"changes": {"signers": [{"email": "signer@example.com"}]}});
        world.post(&format!("{follower}/resume"), changes).await;
        world.until(&follower, "signature.requested").await;
    }
}

#[tokio::test]
async fn only_a_completed_run_with_a_document_can_be_signed() {
    let world = World::new().await;
    let waiting = world.start(json!([{"id": "s", "type": "sign"}])).await;
    world.until(&waiting, "signature.requested").await;
    let refused = ask(&world, &waiting, json!({"signers": signers()}))
        .await
        .problem(409, "invalid_transition");
    assert_eq!(
        (&refused["from"], &refused["allowed"]),
        (&json!("signing"), &json!(["pause", "cancel"]))
    );
    let without = world.completed().await;
    ask(&world, &without, json!({"signers": signers()}))
        .await
        .problem(409, "no_document");

    let path = with_a_document(&world).await;
    let workflow = world.get(&path).await.json()["workflow_id"].clone();
    let start = format!(
        "/api/v1/workflows/{}/executions",
        workflow.as_str().expect("an id")
    );
    let dry = world
        .post(
            &start,
            json!({"trigger_data": {"deal": 1}, "dry_run": true}),
        )
        .await
        .json();
    let dry = format!("/api/v1/executions/{}", dry["id"].as_str().expect("an id"));
    world.until(&dry, "execution.completed").await;
    ask(&world, &dry, json!({"signers": signers()}))
        .await
        .problem(409, "no_document");

    for (body, pointer) in [
        (json!({}), "/signers"),
        (json!({"signers": "a@example.com"}), "/signers"),
        (json!({"signers": [], "provider": " "}), "/provider"),
        (json!({"signers": [], "signer": 1}), "/signer"),
        (json!({"signers": [{"email": 1}]}), "/signers/0/email"),
        (
            json!({"signers": [{"mail": "a@example.com"}]}),
            "/signers/0/mail",
        ),
    ] {
        let problem = ask(&world, &path, body)
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let version = world.get(&path).await.json()["version"]
        .as_u64()
        .expect("a version");
    let stale = Call::new("POST", format!("{path}/request-signature"))
        .token("user")
        .header("if-match", format!("\"{}\"", version + 1))
        .json(json!({"signers": signers()}));
    world.send(stale).await.problem(412, "version_mismatch");
}

#[tokio::test]
async fn a_repeated_key_asks_once() {
    let world = World::new().await;
    let path = with_a_document(&world).await;
    let call = |body: Value| {
        let call = Call::new("POST", format!("{path}/request-signature")).token("user");
        world.send(call.header("idempotency-key", "k").json(body))
    };
    let body = json!({"signers": signers()});
    let first = call(body.clone()).await;
    let again = call(body).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = json!({"signers": [{"email": "other@example.com"}]});
    call(other).await.problem(422, "idempotency_key_reused");
}
