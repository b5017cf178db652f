//! Recommended actions as a client carries them out: fill the inputs in, and send the call.

use serde_json::{Value, json};

use crate::support::{Answer, Call, World};

/// The body of an action's call with the given values filled in at its inputs.
fn filled(action: &Value, values: &[Value]) -> Value {
    let mut body = action["call"]["body"].clone();
    let inputs = action["inputs"].as_array().expect("a list");
    for (input, value) in inputs.iter().zip(values) {
        let pointer = input["pointer"].as_str().expect("a pointer");
        let place = body.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("there is no {pointer}")) = value.clone();
    }
    if action["loses"] != json!([]) {
        body["acknowledge"] = action["loses"].clone();
    }
    body
}

async fn send(world: &World, action: &Value, body: Value) -> Answer {
    assert_eq!(action["call"]["method"], "POST");
    let path = action["call"]["path"].as_str().expect("a path");
    world
        .send(Call::new("POST", path).token("user").json(body))
        .await
}

async fn actions(world: &World, path: &str) -> Vec<Value> {
    let execution = world.get(path).await.json();
    execution["recommended_actions"]
        .as_array()
        .expect("a list")
        .clone()
}

/// Stores a workflow with a schema, and starts it.
async fn start(world: &World, schema: Value, nodes: Value, trigger_data: Value) -> String {
    let path = format!("/api/v1/workflows/{}", world.workflow);
    let draft = json!({"name": "Test", "input_schema": schema, "nodes": nodes});
    let put = world
        .send(Call::new("PUT", &*path).token("user").json(draft))
        .await;
    assert!(put.status.is_success(), "{}", put.text);
    let started = world
        .post(
            &format!("{path}/executions"),
            json!({"trigger_data": trigger_data}),
        )
        .await;
    format!(
        "/api/v1/executions/{}",
        started.json()["id"].as_str().expect("an id")
    )
}

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["customer"],
        "properties": {
            "customer": {"type": "object", "required": ["email"], "properties": {
                "email": {"title": "E-mail", "type": "string", "format": "email"},
            }},
            "signers": {"title": "Signers", "items": {"properties": {"email": {"title": "E-mail", "format": "email"}}}},
            "note": {"type": "string"},
        },
    })
}

#[tokio::test]
async fn filling_the_inputs_in_and_sending_the_calls_repairs_an_unknown_workflow() {
    let world = World::new().await;
    let nodes =
        json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.customer.email}}"}}]);
    let data = json!({"signers": [{"email": "a@example.com"}, {"email": "bad"}], "odd": 1});
    let path = start(&world, schema(), nodes, data).await;
    world.until(&path, "preflight.completed").await;
    // A client that knows nothing of the workflow: it sends each action that it is offered, with good values.
    let mut labels = Vec::new();
    for round in 0..8 {
        let execution = world.get(&path).await.json();
        if execution["status"] != "needs_review" {
            break;
        }
        let action = execution["recommended_actions"][0].clone();
        let inputs = action["inputs"].as_array().expect("a list");
        labels.extend(
            inputs
                .iter()
                .map(|input| input["label"].as_str().unwrap_or_default().to_owned()),
        );
        let values = inputs
            .iter()
            .map(|input| match input["schema"]["type"].as_str() {
                Some("object") => json!({"email": "ann@example.com"}),
                _ => json!("ann@example.com"),
            });
        let values: Vec<_> = values.collect();
        let answer = send(&world, &action, filled(&action, &values)).await;
        assert_eq!(answer.status.as_u16(), 200, "{action}: {}", answer.text);
        world
            .until_count(&path, "preflight.completed", round + 2)
            .await;
    }
    world.until(&path, "execution.completed").await;
    let execution = world.get(&path).await.json();
    assert_eq!(
        execution["trigger_data"],
        json!({
            "customer": {"email": "ann@example.com"},
            "signers": [{"email": "a@example.com"}, {"email": "ann@example.com"}],
        })
    );
    assert!(
        labels.contains(&"Signers › 2 › E-mail (email)".to_owned()),
        "{labels:?}"
    );
}

#[tokio::test]
async fn every_action_that_is_offered_can_be_called_in_its_status() {
    let world = World::new().await;
    // One execution for each way in which people are asked to act.
    let cases = [
        (json!([{"id": "n", "type": "broken"}]), "execution.failed"),
        (
            json!([{"id": "n", "type": "broken", "on_error": "review"}]),
            "step.failed",
        ),
        (
            json!([{"id": "n", "type": "broken", "on_error": "continue"}]),
            "execution.completed",
        ),
        (
            json!([{"id": "n", "type": "picky", "params": {"in": "bad"}, "on_error": "review"}]),
            "step.failed",
        ),
        (json!([{"id": "n", "type": "doubtful"}]), "step.failed"),
        (
            json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.gone}}"}}]),
            "preflight.completed",
        ),
        (
            json!([{"id": "n", "type": "ask", "params": {"provider": "desk", "file": {}, "signers": []}}]),
            "preflight.completed",
        ),
    ];
    let (mut seen, mut offered) = (Vec::new(), 0);
    for (nodes, until) in cases {
        let started = world.start(nodes.clone()).await;
        world.until(&started, until).await;
        let count = actions(&world, &started).await.len();
        for index in 0..count {
            // Each action on an execution of its own, because it moves the execution.
            let path = world.start(nodes.clone()).await;
            world.until(&path, until).await;
            let execution = world.get(&path).await.json();
            let action = execution["recommended_actions"][index].clone();
            let what = format!("{} in {}", action["action"], execution["status"]);
            seen.push(what.clone());
            if action["call"].is_null() {
                continue;
            }
            offered += 1;
            let inputs = action["inputs"].as_array().expect("a list");
            let values: Vec<_> = inputs
                .iter()
                .map(|input| match input["schema"]["type"].as_str() {
                    Some("array") => json!([{"email": "ann@example.com"}]),
                    Some("object") => json!({}),
                    _ => json!("good"),
                })
                .collect();
            let answer = send(&world, &action, filled(&action, &values)).await;
            let status = answer.status.as_u16();
            assert!(matches!(status, 200..=202), "{what}: {}", answer.text);
        }
    }
    assert!(offered >= 7, "{seen:?}");
}

#[tokio::test]
async fn a_canceled_execution_recommends_nothing() {
    let world = World::new().await;
    let path = world
        .start(json!([{"id": "n", "type": "broken", "on_error": "review"}]))
        .await;
    world.until(&path, "step.failed").await;
    world.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(actions(&world, &path).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_repair_that_the_schema_forbids_is_refused_whole_and_changes_nothing() {
    let world = World::new().await;
    let nodes = json!([{"id": "n", "type": "echo", "params": {"in": 1}}]);
    let data =
        json!({"customer": {"email": "a@example.com"}, "signers": [{"email": "bad"}], "note": "x"});
    let path = start(&world, schema(), nodes, data).await;
    world.until(&path, "preflight.completed").await;
    let before = world.get(&path).await.json();
    let operation = |op: &str, path: &str, value: Value| {
        json!({"patch": [
            {"op": "replace", "path": "/trigger_data/note", "value": "changed"},
            {"op": op, "path": path, "value": value},
        ]})
    };
    for (body, pointer) in [
        (json!({"changes": {"to.1": "a@b.c"}}), "/trigger_data/to.1"),
        (json!({"changes": {"note": 7}}), "/trigger_data/note"),
        (
            json!({"changes": {"signers": [{"email": "still bad"}]}}),
            "/trigger_data/signers/0/email",
        ),
        (
            json!({"changes": {"customer": null}}),
            "/trigger_data/customer",
        ),
        (
            operation("replace", "/trigger_data/none", json!(1)),
            "/patch/1/path",
        ),
        (
            operation("add", "/trigger_data/customer/email", json!("no")),
            "/trigger_data/customer/email",
        ),
        (operation("add", "/nodes/n/none", json!(1)), "/nodes/n/none"),
        (
            operation("add", "/nodes/other", json!({"in": 1})),
            "/nodes/other",
        ),
        (json!({"changes": {"note": "a"}, "patch": []}), "/patch"),
        (json!({"acknowledge": ["all"]}), "/acknowledge/0"),
    ] {
        let refused = world.post(&format!("{path}/resume"), body.clone()).await;
        let problem = refused.problem(422, "validation_failed");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{body}: {problem}"
        );
        assert_eq!(world.get(&path).await.json(), before, "{body}");
    }
    let good = json!({"patch": [
        {"op": "replace", "path": "/trigger_data/signers/0/email", "value": "b@example.com"},
        {"op": "remove", "path": "/trigger_data/note"},
    ]});
    let answer = world.post(&format!("{path}/resume"), good).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    world.until(&path, "execution.completed").await;
    let data = &world.get(&path).await.json()["trigger_data"];
    assert_eq!(
        *data,
        json!({"customer": {"email": "a@example.com"}, "signers": [{"email": "b@example.com"}]})
    );
}

#[tokio::test]
async fn given_signatures_are_lost_only_by_somebody_who_says_so() {
    let world = World::new().await;
    let signers = json!([{"email": "ann@example.com"}, {"email": "bob@example.com"}]);
    let nodes = json!([{
        "id": "s", "type": "ask", "on_error": "review",
        "params": {"provider": "desk", "file": {"name": "a.pdf"}, "signers": signers},
    }]);
    let path = world.start(nodes).await;
    world.until(&path, "signature.requested").await;
    let detail = world.get(&path).await.json()["waiting_for"]["detail"].clone();
    let id: docg_core::ids::SignatureRequestId = detail["signature_request_id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");
    let request = world
        .engine
        .signature_request(world.organization, id)
        .await
        .expect("reads");
    for fact in [
        json!({"signed": "ann@example.com"}),
        json!({"declined": "bob@example.com"}),
    ] {
        let mut body = fact.clone();
        body["envelope"] = json!(request.envelope_id);
        body["delivery"] = json!(fact.to_string());
        let hook = Call::new("POST", "/api/v1/webhooks/signature/desk").header("x-desk", "proof");
        assert_eq!(world.send(hook.json(body)).await.status.as_u16(), 200);
    }
    world.until(&path, "step.failed").await;
    let actions = actions(&world, &path).await;
    assert_eq!(
        actions[0]["loses"],
        json!(["signatures_lost"]),
        "{actions:?}"
    );
    let refused = world.post(&format!("{path}/resume"), json!({})).await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["code"], "not_acknowledged");
    assert_eq!(problem["errors"][0]["pointer"], "/acknowledge");
    let answer = send(&world, &actions[0], filled(&actions[0], &[])).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
}
