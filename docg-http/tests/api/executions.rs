use serde_json::json;

use crate::support::{Call, World, scrubbed};

#[tokio::test]
async fn an_execution_has_every_field_of_the_contract() {
    let world = World::new().await;
    let path = world.completed().await;
    let answer = world.get(&path).await;
    assert_eq!(answer.status.as_u16(), 200);
    let body = answer.json();
    assert_eq!(answer.header("etag"), format!("\"{}\"", body["version"]));
    let mut keys: Vec<_> = body
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    insta::assert_snapshot!(keys.join(" "), @"attempt completed_at correlation_id created_at current_step delivery_state dry_run error_code follows id last_error_human last_error_tech organization_id phase_metrics preflight_summary progress reason recommended_actions retry_of signature_state started_at status title trigger_data trigger_type until_phase updated_at version waiting_for workflow_id workflow_version");
    assert_eq!(
        (&body["status"], &body["progress"]),
        (&json!("completed"), &json!(100))
    );
    assert_eq!(body["error_code"], json!(null));
    assert!(
        body["created_at"]
            .as_str()
            .is_some_and(|time| time.len() == 24 && time.ends_with('Z'))
    );
}

#[tokio::test]
async fn steps_show_what_went_in_and_out() {
    let world = World::new().await;
    let path = world.completed().await;
    let body = world.get(&format!("{path}/steps")).await.json();
    let step = &body["steps"][0];
    assert_eq!(
        (&step["status"], &step["attempt"], &step["step_id"]),
        (&json!("success"), &json!(1), &json!("a"))
    );
    assert_eq!(step["data_in"], json!({"in": {"amount": 5}}));
    assert_eq!(step["error_details"], step["error_human"]);
}

#[tokio::test]
async fn technical_texts_are_for_those_with_the_scope() {
    let world = World::new().await;
    let path = world.start(json!([{"id": "n", "type": "broken"}])).await;
    world.until(&path, "execution.failed").await;
    for (token, sees) in [("user", false), ("technician", true)] {
        for part in ["", "/steps", "/logs", "/preflight"] {
            let answer = world
                .send(Call::new("GET", format!("{path}{part}")).token(token))
                .await;
            let shows = answer.text.contains("canary-tech");
            assert_eq!(
                shows,
                sees && part != "/preflight",
                "{token} {part}: {}",
                answer.text
            );
        }
    }
    let body = world.get(&path).await.json();
    assert_eq!(
        (&body["error_code"], &body["last_error_human"]),
        (
            &json!("render_failed"),
            &json!("The document cannot be rendered.")
        )
    );
    assert!(
        !body["recommended_actions"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_execution_and_another_body_is_refused() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let call = |amount: u32| {
        let body = json!({"trigger_data": {"deal": amount}});
        world.send(
            Call::new("POST", path.clone())
                .token("user")
                .header("idempotency-key", "k1")
                .json(body),
        )
    };
    let first = call(1).await;
    let again = call(1).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    call(2).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn unknown_fields_and_wrong_values_are_named() {
    let nested = |levels: usize| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    for (body, pointer, code) in [
        (json!({"trigger": {}}), "/trigger", "unknown_field"),
        (
            json!({"until_phase": "bogus"}),
            "/until_phase",
            "invalid_value",
        ),
        (json!({"trigger_data": []}), "/trigger_data", "invalid_type"),
        (json!({"dry_run": "yes"}), "/dry_run", "invalid_type"),
        (json!([]), "", "invalid_type"),
        (json!(["a", "b"]), "", "invalid_type"),
        (
            json!({"trigger_data": {"a": ["x\u{0}"]}}),
            "/trigger_data/a/0",
            "invalid_text",
        ),
        (
            json!({"trigger_data": {"a": nested(99)}}),
            "/trigger_data",
            "too_deep",
        ),
        (
            json!({"trigger_data": {"a": nested(120)}}),
            "/trigger_data",
            "too_deep",
        ),
        (
            json!({"trigger_data": {"a": nested(130)}}),
            "/trigger_data",
            "too_deep",
        ),
    ] {
        let problem = world
            .post(&path, body.clone())
            .await
            .problem(422, "validation_failed");
        assert_eq!(
            (
                &problem["errors"][0]["pointer"],
                &problem["errors"][0]["code"]
            ),
            (&json!(pointer), &json!(code)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let mut made = Vec::new();
    for amount in 0..7 {
        made.push(
            world
                .post(&path, json!({"trigger_data": {"deal": amount}}))
                .await
                .json()["id"]
                .clone(),
        );
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut next = format!("{path}?limit=3");
    loop {
        let body = world.get(&next).await.json();
        seen.extend(
            body["executions"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|e| e["id"].clone()),
        );
        match body["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_cursor_serves_only_the_list_that_gave_it() {
    let world = World::new().await;
    for _ in 0..3 {
        world.completed().await;
    }
    let cursor = world.get("/api/v1/executions?limit=1").await.json()["next_cursor"].clone();
    let cursor = cursor.as_str().expect("more");
    assert_eq!(
        world
            .get(&format!("/api/v1/executions?limit=2&cursor={cursor}"))
            .await
            .status
            .as_u16(),
        200
    );
    for path in [
        format!("/api/v1/executions?status=completed&cursor={cursor}"),
        format!("/api/v1/workflows?cursor={cursor}"),
        "/api/v1/executions?cursor=bogus".to_owned(),
        "/api/v1/executions?cursor=".to_owned(),
    ] {
        let problem = world.get(&path).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/cursor", "{path}");
    }
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "status=bogus",
        "workflow_id=x",
        "unknown=1",
    ] {
        world
            .get(&format!("/api/v1/executions?{query}"))
            .await
            .problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let body = json!({"a/b": 1, "zzz": 2, "dry_run": "yes", "until_phase": "bogus"});
    let problem = world
        .post(&path, body)
        .await
        .problem(422, "validation_failed");
    insta::assert_json_snapshot!(scrubbed(&problem));
}

#[tokio::test]
async fn an_execution_and_its_steps_look_like_this() {
    let world = World::new().await;
    let path = world.completed().await;
    let execution = world.get(&path).await.json();
    insta::assert_json_snapshot!("execution", scrubbed(&execution));
    let steps = world.get(&format!("{path}/steps")).await.json();
    insta::assert_json_snapshot!("steps", scrubbed(&steps));
    let call = Call::new("POST", format!("{path}/retry")).token("user");
    let retried = world.send(call).await.json();
    let outside = json!({"keys": retried.as_object().map(|map| map.keys().collect::<Vec<_>>())});
    assert_eq!(
        outside["keys"],
        json!(["execution", "execution_id", "status"])
    );
}

#[tokio::test]
async fn secrets_in_trigger_data_are_not_shown() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let data = json!({"trigger_data": {"deal": {"api_key": "canary-secret", "n": 1}}});
    let made = world.post(&path, data).await.json();
    let id = made["id"].as_str().expect("an id");
    let path = format!("/api/v1/executions/{id}");
    world.until(&path, "execution.completed").await;
    assert_eq!(
        made["trigger_data"]["deal"],
        json!({"api_key": "[redacted]", "n": 1})
    );
    for part in ["", "/steps", "/logs", "/audit"] {
        let call = Call::new("GET", format!("{path}{part}")).token("technician");
        let answer = world.send(call).await;
        assert!(
            !answer.text.contains("canary-secret"),
            "{part}: {}",
            answer.text
        );
    }
}
