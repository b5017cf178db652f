use docg_core::{ports::TtlKey, prelude::*};
use serde_json::{Value, json};

use crate::support::{Call, World, scrubbed};

#[tokio::test]
async fn an_event_that_nobody_knows_is_kept_without_its_secrets() {
    let world = World::new().await;
    let body = json!({"delivery": "d1", "kind": "new", "api_key": "canary", "note": "a\u{0}b"});
    let sent = Call::new("POST", "/api/v1/webhooks/signature/desk")
        .header("x-desk", "proof")
        .body(body.to_string());
    assert_eq!(world.send(sent).await.json(), json!({"received": true}));
    let key = TtlKey {
        organization_id: None,
        kind: "webhook",
        key: "desk/d1".to_owned(),
    };
    let kept = world
        .engine
        .recall(&key)
        .await
        .expect("readable")
        .expect("kept");
    let event = kept.value["event"].as_str().expect("a text");
    let event: Value = serde_json::from_str(event).expect("as it came");
    // The NUL in `note` is removed, because not every store can keep one.
    let expected = json!({"delivery": "d1", "kind": "new", "api_key": "[redacted]", "note": "ab"});
    assert_eq!(event, expected);
}

#[tokio::test]
async fn a_provider_s_webhook_completes_the_run_once() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "s", "type": "sign"}])).await;
    world.until(&path, "signature.requested").await;
    let id: ExecutionId = path
        .rsplit('/')
        .next()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    let waiting = world.get(&path).await.json()["waiting_for"].clone();
    assert_eq!(waiting["kind"], "signature");
    let signers = format!(
        "/api/v1/signatures/{}/signers",
        waiting["detail"]["signature_request_id"]
            .as_str()
            .expect("an id")
    );
    assert_eq!(
        world.get(&signers).await.json()["signers"][0]["status"],
        "pending"
    );
    let webhook = |proof: &'static str, body: String| {
        world.send(
            Call::new("POST", "/api/v1/webhooks/signature/desk")
                .header("x-desk", proof)
                .body(body),
        )
    };
    let body =
        json!({"envelope": format!("{id}/s"), "delivery": "d1", "signed": "signer@example.com"})
            .to_string();
    webhook("forged", body.clone())
        .await
        .problem(401, "webhook_unauthenticated");
    assert_eq!(
        webhook("proof", body.clone()).await.json(),
        json!({"received": true})
    );
    world.until(&path, "execution.completed").await;
    assert_eq!(
        webhook("proof", body).await.json(),
        json!({"duplicate": true})
    );
    let unknown = json!({"delivery": "d2"}).to_string();
    assert_eq!(
        webhook("proof", unknown).await.status.as_u16(),
        200,
        "an unknown event is kept and answered"
    );
    webhook("proof", "not json".to_owned())
        .await
        .problem(422, "validation_failed");
    let state = world.get(&signers).await.json();
    assert_eq!(
        (&state["all_signed"], &state["status"]),
        (&json!(true), &json!("signed"))
    );
    insta::assert_json_snapshot!("signers", scrubbed(&state));
    let large =
        Call::new("POST", "/api/v1/webhooks/signature/desk").body("x".repeat((1 << 20) + 1));
    world.send(large).await.problem(413, "payload_too_large");
    let stranger = Call::new("GET", signers.clone()).token("stranger");
    world.send(stranger).await.problem(404, "not_found");
    let missing = Call::new("POST", "/api/v1/webhooks/signature/nobody").body("{}");
    world.send(missing).await.problem(404, "not_found");
}
