use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Call, World};

#[tokio::test]
async fn a_definition_is_stored_in_versions() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}", Uuid::now_v7());
    let draft = |name: &str| json!({"name": name, "nodes": [{"id": "a", "type": "echo"}]});
    let put = |name: &str| {
        world.send(
            Call::new("PUT", path.clone())
                .token("user")
                .json(draft(name)),
        )
    };
    assert_eq!(put("One").await.status.as_u16(), 201);
    let second = put("Two").await;
    assert_eq!(
        (second.status.as_u16(), &second.json()["version"]),
        (200, &json!(2))
    );
    let stale = Call::new("PUT", path.clone())
        .token("user")
        .header("if-match", "\"1\"")
        .json(draft("Three"));
    world.send(stale).await.problem(412, "version_mismatch");
    let read = world.get(&path).await;
    assert_eq!(
        (read.header("etag"), &read.json()["name"]),
        ("\"2\"", &json!("Two"))
    );
    assert_eq!(
        world.get(&path).await.json()["nodes"][0]["retry"]["max_attempts"],
        3,
        "defaults are shown"
    );
    let delete = || world.send(Call::new("DELETE", path.clone()).token("user"));
    assert_eq!(delete().await.status.as_u16(), 204);
    delete().await.problem(404, "not_found");
    world.get(&path).await.problem(404, "not_found");
}

#[tokio::test]
async fn every_fault_of_a_definition_is_named_by_pointer() {
    let world = World::new().await;
    let draft = json!({"name": "x", "nodes": [
        {"id": "a", "type": "nonsense"},
        {"id": "b", "type": "echo", "params": {"bogus": 1}},
        {"id": "b", "type": "echo", "params": {"in": "{{steps.later.x}}"}},
        {"id": "c", "type": "echo", "params": {"in": "{{env.HOME}}"}},
    ]});
    let call = Call::new("PUT", format!("/api/v1/workflows/{}", Uuid::now_v7()))
        .token("user")
        .json(draft);
    let problem = world.send(call).await.problem(422, "validation_failed");
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["pointer"].as_str())
        .collect();
    for pointer in [
        "/nodes/0/type",
        "/nodes/1/params/bogus",
        "/nodes/2/id",
        "/nodes/2/params/in",
        "/nodes/3/params/in",
    ] {
        assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
    }
}

#[tokio::test]
async fn a_fault_of_shape_hides_no_other_fault() {
    let world = World::new().await;
    let mut nodes = vec![
        json!({"id": "a"}),
        json!({"type": "echo", "retry": {"max_attempts": "x"}, "timeout_ms": -1}),
        json!("nonsense"),
        json!({"id": 5, "type": "echo", "params": {"bogus": 1}}),
        json!({"id": "e", "type": "nonsense", "params": {"in": "a\u{0}b"}}),
        json!({"id": "a", "type": "echo", "params": {"in": "{{env.HOME}}"}}),
    ];
    nodes.extend((6..60).map(|_| json!({"type": "echo", "bogus": 1})));
    let call = Call::new("PUT", format!("/api/v1/workflows/{}", Uuid::now_v7()))
        .token("user")
        .json(json!({"settings": {"priority": "high"}, "nodes": nodes}));
    let problem = world.send(call).await.problem(422, "validation_failed");
    let errors = problem["errors"].as_array().expect("a list");
    let mut found: Vec<_> = errors
        .iter()
        .filter_map(|e| Some((e["pointer"].as_str()?, e["code"].as_str()?)))
        .filter(|(pointer, _)| !pointer.ends_with("/bogus") || pointer.starts_with("/nodes/3/"))
        .filter(|(pointer, code)| !(pointer.ends_with("/id") && *code == "missing_field"))
        .collect();
    found.sort_unstable();
    let expected = [
        ("/name", "missing_field"),
        ("/nodes/0/type", "missing_field"),
        ("/nodes/1/retry/max_attempts", "invalid_type"),
        ("/nodes/1/timeout_ms", "invalid_type"),
        ("/nodes/2", "invalid_type"),
        ("/nodes/3/id", "invalid_type"),
        ("/nodes/3/params/bogus", "unknown_parameter"),
        ("/nodes/4/params/in", "invalid_text"),
        ("/nodes/4/type", "unknown_node_type"),
        ("/nodes/5/id", "duplicate_node_id"),
        ("/nodes/5/params/in", "invalid_variable"),
        ("/settings/priority", "invalid_type"),
    ];
    assert_eq!(found, expected);
    for index in std::iter::once(1).chain(6..60) {
        let missing = format!("/nodes/{index}/id");
        assert!(errors.iter().any(|e| e["pointer"] == missing), "{missing}");
    }
}

#[tokio::test]
async fn preflight_tells_and_creates_nothing() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let blocked = world
        .post(&format!("{path}/preflight"), json!({}))
        .await
        .json();
    assert_eq!(
        (&blocked["can_execute"], &blocked["blocking_count"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(blocked["recommended_actions"][0]["action"], "map_fields");
    let fine = world
        .post(
            &format!("{path}/preflight"),
            json!({"trigger_data": {"deal": 1}}),
        )
        .await
        .json();
    assert_eq!(fine["can_execute"], true);
    assert_eq!(
        world.get("/api/v1/executions").await.json()["executions"],
        json!([])
    );
}

#[tokio::test]
async fn a_definition_of_another_shape_is_refused_where_it_differs() {
    let world = World::new().await;
    let draft = json!({"name": "x", "bogus": 1, "settings": [], "nodes": [
        {"id": "a", "type": "echo", "bogus": 1, "on_error": "shrug", "retry": [1]},
    ]});
    let call = Call::new("PUT", format!("/api/v1/workflows/{}", Uuid::now_v7()))
        .token("user")
        .json(draft);
    let problem = world.send(call).await.problem(422, "validation_failed");
    let errors = problem["errors"].as_array().expect("a list");
    let mut found: Vec<_> = errors
        .iter()
        .filter_map(|e| Some((e["pointer"].as_str()?, e["code"].as_str()?)))
        .collect();
    found.sort_unstable();
    let expected = [
        ("/bogus", "unknown_field"),
        ("/nodes/0/bogus", "unknown_field"),
        ("/nodes/0/on_error", "invalid_value"),
        ("/nodes/0/retry", "invalid_type"),
        ("/settings", "invalid_type"),
    ];
    assert_eq!(found, expected);
    let positional = json!({"name": "x", "nodes": [["a", "echo"]]});
    let call = Call::new("PUT", format!("/api/v1/workflows/{}", Uuid::now_v7()))
        .token("user")
        .json(positional);
    let problem = world.send(call).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/nodes/0");
}

#[tokio::test]
async fn what_a_node_keeps_secret_is_for_those_who_write_workflows() {
    let world = World::new().await;
    let params = json!({"in": {"Authorization": "Bearer canary", "url": "https://x.example"}});
    let node = json!({"id": "a", "type": "echo", "params": params});
    world.put(world.workflow, json!([node])).await;
    let path = format!("/api/v1/workflows/{}", world.workflow);
    for path in [path.as_str(), "/api/v1/workflows"] {
        let read = async |token| world.send(Call::new("GET", path).token(token)).await.text;
        let redacted = read("reader").await;
        assert!(!redacted.contains("canary") && redacted.contains("https://x.example"));
        assert!(redacted.contains("[redacted]"), "{redacted}");
        assert!(
            read("user").await.contains("Bearer canary"),
            "to write it again"
        );
    }
}

#[tokio::test]
async fn a_copy_that_was_made_for_readers_is_not_stored_over_the_secrets() {
    let world = World::new().await;
    let kept = json!({"in": [{"api_key": "canary", "note": "[redacted]"}]});
    let node = json!({"id": "a", "type": "echo", "params": kept});
    world.put(world.workflow, json!([node])).await;
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let read = async |token| {
        let answer = world.send(Call::new("GET", &path).token(token)).await;
        (answer.header("etag").to_owned(), answer.json())
    };
    let put = async |(etag, workflow): (String, Value)| {
        let draft = json!({"name": "Again", "nodes": workflow["nodes"]});
        let call = Call::new("PUT", &path).token("user").json(draft);
        world.send(call.header("if-match", etag)).await
    };
    let problem = put(read("reader").await).await;
    let problem = problem.problem(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1));
    let fault = &problem["errors"][0];
    assert_eq!(fault["pointer"], "/nodes/0/params/in/0/api_key");
    assert_eq!(fault["code"], "invalid_value");
    assert_eq!(put(read("user").await).await.status.as_u16(), 200);
    assert_eq!(read("user").await.1["nodes"][0]["params"], kept);
}

#[tokio::test]
async fn the_executions_of_a_deleted_workflow_stay() {
    let world = World::new().await;
    let workflow = format!("/api/v1/workflows/{}", world.workflow);
    let body = json!({"trigger_data": {"deal": 1}});
    let made = world.post(&format!("{workflow}/executions"), body).await;
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/executions/{id}");
    world.until(&path, "execution.completed").await;
    let delete = Call::new("DELETE", workflow.clone()).token("user");
    assert_eq!(world.send(delete).await.status.as_u16(), 204);
    let list = |token| {
        let call = Call::new("GET", format!("{workflow}/executions"));
        world.send(call.token(token))
    };
    assert_eq!(list("user").await.json()["executions"][0]["id"], id);
    list("stranger").await.problem(404, "not_found");
    for part in ["", "/steps", "/logs", "/audit"] {
        let answer = world.get(&format!("{path}{part}")).await;
        assert_eq!(answer.status.as_u16(), 200, "{part}");
    }
    let retried = world.post(&format!("{path}/retry"), json!({})).await.json();
    let retry = retried["execution_id"].as_str().expect("an id");
    world
        .until(
            &format!("/api/v1/executions/{retry}"),
            "execution.completed",
        )
        .await;
    let start = world
        .post(&format!("{workflow}/executions"), json!({}))
        .await;
    start.problem(404, "not_found");
}

#[tokio::test]
async fn any_version_needs_a_version() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}", Uuid::now_v7());
    let put = || {
        let draft = json!({"name": "x", "nodes": [{"id": "a", "type": "echo"}]});
        Call::new("PUT", path.clone()).token("user").json(draft)
    };
    let any = || world.send(put().header("if-match", "*"));
    any().await.problem(412, "version_mismatch");
    assert_eq!(world.send(put()).await.status.as_u16(), 201);
    assert_eq!(any().await.status.as_u16(), 200);
}

#[tokio::test]
async fn the_same_id_elsewhere_is_another_workflow() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let call = |method, token: &str| Call::new(method, path.clone()).token(token);
    world
        .send(call("GET", "stranger"))
        .await
        .problem(404, "not_found");
    let draft = json!({"name": "Theirs", "nodes": [{"id": "a", "type": "echo"}]});
    let theirs = world.send(call("PUT", "stranger").json(draft)).await;
    assert_eq!(theirs.status.as_u16(), 201);
    assert_eq!(theirs.json()["organization_id"], world.other.to_string());
    assert_eq!(world.get(&path).await.json()["name"], "Test");
    assert_eq!(
        world.send(call("DELETE", "stranger")).await.status.as_u16(),
        204
    );
    assert_eq!(world.get(&path).await.status.as_u16(), 200);
}
