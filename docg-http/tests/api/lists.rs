//! Lists and counts of executions, as a screen reads them: titles, reasons, filters, order, and summaries.

use serde_json::{Value, json};

use crate::support::{Call, World};

/// A world whose workflow gives its executions titles, with these nodes.
async fn titled(nodes: Value) -> World {
    let world = World::new().await;
    let draft = json!({
        "name": "Test", "nodes": nodes, "settings": {"title": "Contract {{trigger.number}}"},
    });
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let put = Call::new("PUT", path).token("user").json(draft);
    assert!(world.send(put).await.status.is_success());
    world
}

async fn start(world: &World, trigger_data: Value) -> String {
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let started = world
        .post(&path, json!({"trigger_data": trigger_data}))
        .await;
    let id = started.json()["id"].as_str().expect("an id").to_owned();
    format!("/api/v1/executions/{id}")
}

async fn ids(world: &World, query: &str) -> Vec<String> {
    let listed = world.get(&format!("/api/v1/executions?{query}")).await;
    assert_eq!(listed.status.as_u16(), 200, "{query}: {}", listed.text);
    let listed = listed.json()["executions"]
        .as_array()
        .expect("a list")
        .clone();
    let id = |execution: &Value| execution["id"].as_str().expect("an id").to_owned();
    listed.iter().map(id).collect()
}

fn id(path: &str) -> String {
    path.rsplit('/').next().expect("an id").to_owned()
}

#[tokio::test]
async fn a_title_and_a_reason_say_what_waits_and_why() {
    let world =
        titled(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]))
            .await;
    let path = start(&world, json!({"number": "7"})).await;
    world.until(&path, "preflight.completed").await;
    let parked = world.get(&path).await.json();
    assert_eq!(
        (&parked["title"], &parked["status"]),
        (&json!("Contract 7"), &json!("needs_review"))
    );
    assert_eq!(parked["error_code"], "unresolved_variables");
    let human = parked["last_error_human"].as_str().expect("a text");
    let reason = parked["reason"].as_str().expect("a text");
    assert!(reason.contains(human), "{reason}");

    let repaired = json!({"changes": {"customer": "Ann", "number": "8"}});
    world.post(&format!("{path}/resume"), repaired).await;
    world.until(&path, "execution.completed").await;
    let completed = world.get(&path).await.json();
    assert_eq!(
        completed["title"], "Contract 8",
        "a repair keeps the title up to date"
    );
    assert_eq!(
        (&completed["reason"], &completed["error_code"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(ids(&world, "q=contract%208").await, [id(&path)]);
    assert!(ids(&world, "q=contract%207").await.is_empty());
}

#[tokio::test]
async fn a_title_can_use_the_trigger_data_only() {
    let world = World::new().await;
    let draft = json!({
        "name": "Test", "nodes": [{"id": "a", "type": "echo"}],
        "settings": {"title": "{{steps.a.in}} {{trigger.number}}"},
    });
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let refused = world
        .send(Call::new("PUT", path).token("user").json(draft))
        .await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/settings/title");
    assert!(
        problem["errors"][0]["detail"]
            .as_str()
            .is_some_and(|it| it.contains("steps.a.in"))
    );
}

#[tokio::test]
async fn filters_select_and_counts_count_the_same_executions() {
    let world =
        titled(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer}}"}}]))
            .await;
    let done = start(&world, json!({"number": "1", "customer": "Ann"})).await;
    world.until(&done, "execution.completed").await;
    let mut waiting = Vec::new();
    for number in 2..5 {
        let path = start(&world, json!({"number": number.to_string()})).await;
        world.until(&path, "preflight.completed").await;
        waiting.insert(0, id(&path));
    }
    world
        .post(
            &format!("/api/v1/executions/{}/cancel", waiting[0]),
            json!({}),
        )
        .await;
    let canceled = waiting.remove(0);
    assert_eq!(ids(&world, "waiting_for=review,signature").await, waiting);
    assert_eq!(
        ids(&world, "status=completed,canceled").await,
        [canceled.clone(), id(&done)]
    );
    assert_eq!(
        ids(&world, "status=completed,canceled&sort=created_at").await,
        [id(&done), canceled.clone()]
    );
    assert_eq!(
        ids(&world, "sort=-updated_at&limit=1").await,
        std::slice::from_ref(&canceled)
    );
    assert_eq!(
        ids(&world, &format!("q={canceled}")).await,
        std::slice::from_ref(&canceled)
    );
    let execution = world.get(&done).await.json();
    let (created, correlation) = (&execution["created_at"], &execution["correlation_id"]);
    let (created, correlation) = (
        created.as_str().expect("a time"),
        correlation.as_str().expect("an id"),
    );
    assert_eq!(
        ids(&world, &format!("correlation_id={correlation}")).await,
        [id(&done)]
    );
    assert_eq!(
        ids(&world, &format!("created_from={created}")).await.len(),
        4
    );
    assert!(
        ids(&world, &format!("created_to={created}"))
            .await
            .is_empty()
    );

    let counts = world.get("/api/v1/executions/counts").await.json();
    assert_eq!(
        (
            &counts["by_status"]["needs_review"],
            &counts["by_status"]["completed"]
        ),
        (&json!(2), &json!(1))
    );
    let review = &counts["waiting"]["review"];
    let oldest = world
        .get(&format!("/api/v1/executions/{}", waiting[1]))
        .await
        .json();
    assert_eq!(
        *review,
        json!({"count": 2, "oldest_since": oldest["waiting_for"]["since"]})
    );
    assert_eq!(
        counts["waiting"]["approval"],
        json!({"count": 0, "oldest_since": null})
    );
    let counts = world
        .get("/api/v1/executions/counts?q=contract&status=completed")
        .await
        .json();
    assert_eq!(
        (
            &counts["by_status"]["completed"],
            &counts["by_status"]["canceled"]
        ),
        (&json!(1), &json!(0))
    );
}

#[tokio::test]
async fn a_summary_leaves_the_large_parts_out() {
    let world = World::new().await;
    world.completed().await;
    let large = ["trigger_data", "preflight_summary", "phase_metrics"];
    for (view, shown) in [("summary", false), ("full", true)] {
        let listed = world
            .get(&format!("/api/v1/executions?view={view}"))
            .await
            .json();
        let execution = &listed["executions"][0];
        assert!(execution["recommended_actions"].is_array());
        for name in large {
            assert_eq!(execution.get(name).is_some(), shown, "{view} {name}");
        }
    }
}

#[tokio::test]
async fn a_wrong_filter_is_refused_by_its_name() {
    let world = World::new().await;
    world.completed().await;
    for (query, pointer) in [
        ("status=completed,done", "/status"),
        ("status=", "/status"),
        ("waiting_for=coffee", "/waiting_for"),
        ("workflow_id=1", "/workflow_id"),
        ("created_from=yesterday", "/created_from"),
        ("created_to=2026-01-01", "/created_to"),
        ("sort=title", "/sort"),
        ("view=short", "/view"),
        ("q=a%0Ab", "/q"),
    ] {
        let long = format!("q={}", "x".repeat(201));
        for (query, pointer) in [(query, pointer), (&*long, "/q")] {
            let refused = world.get(&format!("/api/v1/executions?{query}")).await;
            let problem = refused.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{query}");
        }
    }
    world.completed().await;
    let cursor = world.get("/api/v1/executions?limit=1").await.json()["next_cursor"].clone();
    let cursor = cursor.as_str().expect("more");
    for other in [
        "sort=created_at",
        "q=x",
        "waiting_for=review",
        "created_from=2026-01-01T00:00:00Z",
    ] {
        let refused = world
            .get(&format!("/api/v1/executions?{other}&cursor={cursor}"))
            .await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "invalid_cursor", "{other}");
    }
}
