use serde_json::json;

use crate::support::{Call, World};

#[tokio::test]
async fn pause_resume_and_cancel_answer_with_the_new_state() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let paused = world
        .post(&format!("{path}/pause"), json!({"reason": "lunch"}))
        .await;
    assert_eq!(
        (paused.status.as_u16(), &paused.json()["status"]),
        (200, &json!("paused"))
    );
    assert_eq!(paused.json()["waiting_for"]["kind"], "pause");
    let again = world.post(&format!("{path}/pause"), json!({})).await;
    assert_eq!(
        again.json()["version"],
        paused.json()["version"],
        "pausing what is paused changes nothing"
    );
    let resumed = world
        .send(Call::new("POST", format!("{path}/resume")).token("user"))
        .await;
    assert_eq!(
        (resumed.status.as_u16(), &resumed.json()["status"]),
        (200, &json!("sending"))
    );
    let canceled = world
        .post(
            &format!("{path}/cancel"),
            json!({"reason": "wrong customer"}),
        )
        .await;
    assert_eq!(canceled.json()["status"], "canceled");
    let refused = world
        .post(&format!("{path}/resume"), json!({}))
        .await
        .problem(409, "invalid_transition");
    assert_eq!(
        (&refused["from"], &refused["allowed"]),
        (&json!("canceled"), &json!(["retry"]))
    );
}

#[tokio::test]
async fn a_parked_run_is_repaired_through_resume() {
    let world = World::new().await;
    let path = world
        .start(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]))
        .await;
    world.until(&path, "preflight.completed").await;
    let preflight = world.get(&format!("{path}/preflight")).await.json();
    assert_eq!(
        preflight["preflight_summary"]["groups"]["data"][0]["code"],
        "unresolved_variables"
    );
    assert_eq!(preflight["recommended_actions"][0]["action"], "map_fields");
    let bad = world
        .post(
            &format!("{path}/resume"),
            json!({"changes": {"nodes": {"n": {"bogus": 1}}}}),
        )
        .await;
    assert_eq!(
        bad.problem(422, "validation_failed")["errors"][0]["pointer"],
        "/changes/nodes/n/bogus"
    );
    let answer = world
        .post(
            &format!("{path}/resume"),
            json!({"changes": {"customer": "c"}}),
        )
        .await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    world.until(&path, "execution.completed").await;
}

#[tokio::test]
async fn a_repeated_call_with_its_key_gives_the_first_answer_again() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = |body| {
        world.send(
            Call::new("POST", format!("{path}/retry"))
                .token("user")
                .header("idempotency-key", "k")
                .json(body),
        )
    };
    let first = call(json!({})).await;
    let again = call(json!({})).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    call(json!({"dry_run": true}))
        .await
        .problem(422, "idempotency_key_reused");
    let body = first.json();
    assert_eq!(body["status"], "queued");
    assert_eq!(
        body["execution"]["retry_of"],
        path.rsplit('/').next().expect("an id")
    );
}

#[tokio::test]
async fn a_call_on_another_version_is_refused() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = |tag: &'static str| {
        world.send(
            Call::new("POST", format!("{path}/retry"))
                .token("user")
                .header("if-match", tag),
        )
    };
    call("\"0\"").await.problem(412, "version_mismatch");
    call("\"bogus\"").await.problem(412, "version_mismatch");
    assert_eq!(call("*").await.status.as_u16(), 201);
}

#[tokio::test]
async fn from_step_names_a_step() {
    let world = World::new().await;
    let path = world.completed().await;
    for (from, status) in [
        (json!("a"), 201),
        (json!(0), 201),
        (json!("zzz"), 422),
        (json!(9), 422),
        (json!(-1), 422),
        (json!([]), 422),
    ] {
        let answer = world
            .post(&format!("{path}/retry"), json!({"from_step": from}))
            .await;
        assert_eq!(answer.status.as_u16(), status, "{from}: {}", answer.text);
    }
}
