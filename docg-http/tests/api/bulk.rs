//! Calls on many executions, and the lists of what people are waited for.

use serde_json::{Value, json};

use crate::support::World;

const BULK: &str = "/api/v1/executions/bulk";

fn id(path: &str) -> Value {
    json!(path.rsplit('/').next().expect("an id"))
}

async fn parked(world: &World) -> String {
    let nodes = json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.gone}}"}}]);
    let path = world.start(nodes).await;
    world.until(&path, "preflight.completed").await;
    path
}

#[tokio::test]
async fn a_dry_run_answers_what_the_call_would_do_and_changes_nothing() {
    let world = World::new().await;
    let (first, second) = (parked(&world).await, parked(&world).await);
    let done = world.completed().await;
    let unknown = json!("01a231d0-0000-7000-8000-000000000000");
    let ids = json!([id(&first), id(&done), id(&second), unknown, id(&first)]);
    let expected = json!({"matched": 4, "applied": 2, "refused": [
        {"id": id(&done), "code": "invalid_transition"},
        {"id": unknown, "code": "not_found"},
    ]});
    let dry = json!({"action": "cancel", "ids": ids, "reason": "A test.", "dry_run": true});
    assert_eq!(world.post(BULK, dry).await.json(), expected);
    assert_eq!(world.get(&first).await.json()["status"], "needs_review");
    let wet = json!({"action": "cancel", "ids": ids, "reason": "A test."});
    assert_eq!(world.post(BULK, wet).await.json(), expected);
    for path in [&first, &second] {
        assert_eq!(world.get(path).await.json()["status"], "canceled");
    }
}

#[tokio::test]
async fn a_filter_selects_the_executions_of_the_call() {
    let world = World::new().await;
    let (_, _) = (parked(&world).await, parked(&world).await);
    world.completed().await;
    let filter = json!({"status": ["needs_review"], "waiting_for": ["review"]});
    let call = |action: &str| json!({"action": action, "filter": filter});
    let resumed = world.post(BULK, call("resume")).await.json();
    assert_eq!(resumed, json!({"matched": 2, "applied": 2, "refused": []}));
    let first = world
        .get("/api/v1/executions?status=needs_review")
        .await
        .json();
    let ids = json!([first["executions"][0]["id"]]);
    let both = json!({"action": "cancel", "ids": ids, "filter": {"status": ["completed"]}});
    assert_eq!(world.post(BULK, both).await.json()["matched"], 0);
    let everything = json!({"action": "retry", "filter": {"status": ["completed"]}});
    assert_eq!(world.post(BULK, everything).await.json()["applied"], 1);
}

#[tokio::test]
async fn a_wrong_call_on_many_is_refused_by_pointer() {
    let world = World::new().await;
    let many: Vec<_> = (0..1_001)
        .map(|n| format!("01a231d0-0000-7000-8000-{n:012}"))
        .collect();
    for (body, pointer) in [
        (json!({"ids": []}), "/action"),
        (json!({"action": "cancel"}), "/ids"),
        (json!({"action": "cancel", "ids": many}), "/ids"),
        (
            json!({"action": "retry", "ids": [], "reason": "x"}),
            "/reason",
        ),
        (
            json!({"action": "cancel", "filter": {"status": ["done"]}}),
            "/filter/status",
        ),
        (
            json!({"action": "cancel", "filter": {"created_to": "now"}}),
            "/filter/created_to",
        ),
    ] {
        let problem = world
            .post(BULK, body.clone())
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[tokio::test]
async fn open_signatures_and_pending_approvals_say_whom_they_wait_for() {
    let world = World::new().await;
    let signing = world.start(json!([{"id": "s", "type": "sign"}])).await;
    world.until(&signing, "signature.requested").await;
    let node = json!([{
        "id": "ok", "type": "approval", "phase": "save", "params": {"approvers": ["ann@example.com"]},
    }]);
    let asking = world.start(node).await;
    world.until(&asking, "approval.requested").await;

    let open = world.get("/api/v1/signatures?status=open").await.json();
    let request = &open["signatures"][0];
    assert_eq!(open["signatures"].as_array().map(Vec::len), Some(1));
    assert_eq!(request["execution_id"], id(&signing));
    assert_eq!(request["waiting_for"][0]["email"], "signer@example.com");
    let waiting = world.get(&signing).await.json()["waiting_for"].clone();
    assert_eq!(
        (&request["id"], &request["since"]),
        (
            &waiting["detail"]["signature_request_id"],
            &waiting["since"]
        )
    );

    let pending = world.get("/api/v1/approvals?status=pending").await;
    let token = world.invitations().pop().expect("an invitation").token;
    assert!(!pending.text.contains(&token));
    let pending = pending.json();
    assert_eq!(pending["approvals"].as_array().map(Vec::len), Some(1));
    let approval = &pending["approvals"][0];
    assert_eq!(
        (&approval["execution_id"], &approval["node_id"]),
        (&id(&asking), &json!("ok"))
    );
    assert_eq!(approval["approvers"], json!(["ann@example.com"]));

    for wrong in [
        "/api/v1/signatures?status=pending",
        "/api/v1/approvals?status=open",
        "/api/v1/approvals?cursor=x",
    ] {
        world.get(wrong).await.problem(422, "validation_failed");
    }
}
