//! Events from outside, for which steps wait, and executions that start later.

use serde_json::{Value, json};

use crate::support::{Call, World};

fn waits_for(params: Value) -> Value {
    json!([{"id": "wait", "type": "wait-for-event", "phase": "save", "params": params}])
}

#[tokio::test]
async fn an_event_lets_the_execution_that_waits_for_it_go_on_once() {
    let world = World::new().await;
    let path = world
        .start(waits_for(json!({"name": "paid", "key": "a/7"})))
        .await;
    world.until(&path, "step.waiting").await;
    let waiting = world.get(&path).await.json();
    assert_eq!(waiting["status"], "running");
    assert_eq!(waiting["waiting_for"]["kind"], "event");
    assert_eq!(
        waiting["waiting_for"]["detail"],
        json!({"name": "paid", "key": "a/7"})
    );
    let send = || {
        let event = json!({"key": "a/7", "payload": {"amount": 3}});
        let call = Call::new("POST", "/api/v1/events/paid".to_owned());
        call.token("user")
            .header("idempotency-key", "hook-1")
            .json(event)
    };
    let reached = world.send(send()).await;
    let id = path.rsplit('/').next().expect("an id");
    assert_eq!(reached.json(), json!({"executions": [id]}));
    world.until(&path, "execution.completed").await;
    let again = world.send(send()).await;
    assert_eq!(again.json(), json!({"executions": [id]}));
    let steps = world.get(&format!("{path}/steps")).await.json();
    assert_eq!(
        steps["steps"][0]["data_out"],
        json!({"name": "paid", "payload": {"amount": 3}})
    );
    let audit = world.get(&format!("{path}/audit")).await.json();
    let rows = audit["events"].as_array().expect("rows").iter();
    let is_of_document = |row: &Value| row["target_type"] == "document";
    assert!(!rows.clone().any(is_of_document), "{audit}");
    let received = rows.filter(|row| row["action"] == "event.received");
    assert_eq!(received.count(), 1);
    let late = world.post(&format!("{path}/events/paid"), json!({})).await;
    late.problem(409, "invalid_transition");
}

#[tokio::test]
async fn an_event_that_cannot_be_is_refused_by_its_field() {
    let world = World::new().await;
    let path = world.start(waits_for(json!({"name": "paid"}))).await;
    world.until(&path, "step.waiting").await;
    let send = format!("{path}/events/paid");
    for (body, pointer, code) in [
        (json!({"key": " "}), "/key", "required"),
        (json!({"key": "k".repeat(201)}), "/key", "too_long"),
        (
            json!({"payload": "p".repeat(65_537)}),
            "/payload",
            "too_long",
        ),
        (json!({"paid": 1}), "/paid", "unknown_field"),
    ] {
        let problem = world.post(&send, body).await;
        let problem = problem.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
        assert_eq!(problem["errors"][0]["code"], code);
    }
    let nameless = world.post(&format!("{path}/events/%20"), json!({})).await;
    nameless.problem(422, "validation_failed");
    let keyless = world.post("/api/v1/events/paid", json!({})).await;
    assert_eq!(
        keyless.problem(422, "validation_failed")["errors"][0]["pointer"],
        "/key"
    );
    let nobody = world.post("/api/v1/events/sent", json!({"key": "7"})).await;
    nobody.problem(404, "not_found");
}

#[tokio::test]
async fn an_execution_can_start_later() {
    let world = World::new().await;
    let workflow = world.workflow;
    let create = format!("/api/v1/workflows/{workflow}/executions");
    let later = world
        .post(&create, json!({"start_at": "2030-01-01T00:00:00Z"}))
        .await;
    assert_eq!(later.status.as_u16(), 201, "{}", later.text);
    let later = later.json();
    assert_eq!(later["status"], "queued");
    assert_eq!(later["waiting_for"]["kind"], "timer");
    assert_eq!(later["waiting_for"]["until"], "2030-01-01T00:00:00.000Z");
    for wrong in ["2030-01-01T00:00:00", "tomorrow", "9999-01-01T00:00:00Z"] {
        let refused = world.post(&create, json!({"start_at": wrong})).await;
        let refused = refused.problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/start_at", "{refused}");
    }
}
