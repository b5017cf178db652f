//! Request bodies that are costly to check do not delay other requests.

use std::pin::pin;

use docg_core::ids::WorkflowId;
use futures::future::{Either, select};
use serde_json::{Map, Value, json};

use crate::support::{Call, World};

/// An object with as many members as fit into a body. Their names look like those of secrets.
fn wide() -> Value {
    let member = |n: u32| (format!("k{n}_token"), json!(n));
    (0..40_000).map(member).collect::<Map<_, _>>().into()
}

/// Many values under a name of 400 kB, so that the JSON pointer of each value has 400 kB too.
fn long() -> Value {
    json!({ "k".repeat(400_000): vec![0; 100_000] })
}

/// The test runs on one thread: if the body were checked on this thread, the check would delay every request.
#[tokio::test]
async fn health_answers_while_a_large_body_is_checked() {
    let world = World::new().await;
    let id = WorkflowId::new();
    world.put(id, json!([{"id": "a", "type": "echo"}])).await;
    for data in [wide(), long()] {
        let nodes = json!([{"id": "a", "type": "echo", "params": {"in": data}}]);
        for (method, path, body) in [
            (
                "POST",
                format!("{id}/executions"),
                json!({"trigger_data": data}),
            ),
            (
                "POST",
                format!("{id}/preflight"),
                json!({"trigger_data": data}),
            ),
            (
                "PUT",
                WorkflowId::new().to_string(),
                json!({"name": "x", "nodes": nodes}),
            ),
        ] {
            let call = Call::new(method, format!("/api/v1/workflows/{path}"));
            let large = pin!(world.open(call.token("user").json(body)));
            let health = pin!(world.open(Call::new("GET", "/healthz")));
            match select(large, health).await {
                Either::Left(_) => panic!("{method} {path} came first"),
                Either::Right((health, large)) => {
                    assert_eq!(health.status().as_u16(), 200);
                    let status = large.await.status();
                    assert!(status.is_success(), "{method} {path}: {status}");
                }
            }
        }
    }
}

/// Guards against building a pointer for each value: 100,000 pointers of 400 kB would be 40 GB.
#[tokio::test]
async fn a_fault_behind_a_long_name_is_found_in_one_pass() {
    let world = World::new().await;
    let id = WorkflowId::new();
    world.put(id, json!([{"id": "a", "type": "echo"}])).await;
    let mut data = long();
    data["z"] = json!("\0");
    let path = format!("/api/v1/workflows/{id}/executions");
    let answer = world.post(&path, json!({"trigger_data": data})).await;
    let problem = answer.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/trigger_data/z");
}
