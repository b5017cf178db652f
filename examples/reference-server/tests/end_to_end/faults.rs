//! Steps that fail in every way. Each failure is reported with a clear error and an action, and the server
//! continues.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::Server;

fn one(node_type: &str, params: Value) -> Value {
    json!([{"id": "n", "type": node_type, "phase": "trigger", "params": params,
        "retry": {"max_attempts": 2, "initial_ms": 10, "max_ms": 20, "multiplier": 2.0}}])
}

/// Asserts that the execution explains its error and an action, and that another execution completes.
async fn is_clear_and_goes_on(server: &Server, execution: &Value, code: &str, action: &str) {
    assert_eq!(execution["error_code"], code, "{execution:#}");
    assert!(
        execution["last_error_human"]
            .as_str()
            .is_some_and(|words| !words.is_empty())
    );
    assert!(
        execution["last_error_tech"]
            .as_str()
            .is_some_and(|words| !words.is_empty())
    );
    let actions = execution["recommended_actions"].as_array().expect("a list");
    assert!(
        actions.iter().any(|it| it["action"] == action),
        "{actions:?}"
    );
    for action in actions {
        assert!(
            action["label"]
                .as_str()
                .is_some_and(|label| !label.is_empty()),
            "{action}"
        );
    }
    let id = server
        .start_nodes(one("test-delay", json!({"ms": 1})))
        .await;
    server.until(&id, &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_contained() {
    let server = Server::start(&["--enable-test-nodes"]);
    let id = server.start_nodes(one("test-panic", json!({}))).await;
    let execution = server.until(&id, &["failed"]).await;
    is_clear_and_goes_on(&server, &execution, "handler_panicked", "retry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_hangs_runs_out_of_time() {
    let server = Server::start(&["--enable-test-nodes", "--cancel-grace-ms", "100"]);
    let mut nodes = one("test-hang", json!({"ignore_cancel": true}));
    nodes[0]["timeout_ms"] = json!(200);
    let id = server.start_nodes(nodes).await;
    let execution = server.until(&id, &["failed"]).await;
    is_clear_and_goes_on(&server, &execution, "timeout", "retry").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_ignores_its_cancellation_is_dropped_after_the_grace_time() {
    let server = Server::start(&["--enable-test-nodes", "--cancel-grace-ms", "300"]);
    for (ignore_cancel, at_least_ms) in [(true, 300), (false, 0)] {
        let params = json!({"ignore_cancel": ignore_cancel});
        let id = server.start_nodes(one("test-hang", params)).await;
        server.until(&id, &["running"]).await;
        let began = Instant::now();
        let (status, execution) = server
            .post(
                &format!("/api/v1/executions/{id}/cancel"),
                &json!({"reason": "test"}),
            )
            .await;
        assert!(status.is_success(), "{execution}");
        let execution = server.until(&id, &["canceled"]).await;
        assert!(
            began.elapsed() >= Duration::from_millis(at_least_ms),
            "{ignore_cancel}"
        );
        assert_eq!(execution["waiting_for"], Value::Null);
    }
    let id = server
        .start_nodes(one("test-delay", json!({"ms": 1})))
        .await;
    server.until(&id, &["completed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_not_there_is_told_apart() {
    let port = docg_test_servers::ports::reserve();
    let server = Server::start(&[
        "--enable-test-nodes",
        "--smtp-url",
        &format!("smtp://127.0.0.1:{port}"),
    ]);
    let mut nodes = one(
        "send-email",
        json!({"to": "recipient@example.com", "subject": "Test", "body": "Test"}),
    );
    nodes[0]["phase"] = json!("delivery");
    nodes[0]["on_error"] = json!("review");
    let id = server.start_nodes(nodes).await;
    let execution = server.until(&id, &["needs_review"]).await;
    assert_eq!(execution["delivery_state"], "failed");
    is_clear_and_goes_on(
        &server,
        &execution,
        "connection_error",
        "reconnect_provider",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_repaired_and_the_contract_goes_on() {
    let server = Server::start(&["--enable-test-nodes"]);
    let organization = "00000000-0000-7000-8000-000000000001";
    // Preflight does not check the folder of rendered documents, so the step itself fails.
    let rooms = server.data().join("files/documents");
    std::fs::create_dir_all(&rooms).expect("a folder");
    let taken = rooms.join(organization);
    std::fs::write(&taken, b"a file in the folder's place").expect("written");
    let id = server.start_contract("contract.good.json").await;
    let execution = server.until(&id, &["needs_review"]).await;
    is_clear_and_goes_on(
        &server,
        &execution,
        "local.folder_not_found",
        "select_folder",
    )
    .await;
    std::fs::remove_file(&taken).expect("removed");
    let (status, answer) = server
        .post(&format!("/api/v1/executions/{id}/resume"), &json!({}))
        .await;
    assert!(status.is_success(), "{answer}");
    server.until_it_awaits_signatures(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_preflight_can_see_of_the_storage_stops_the_contract_before_it_begins() {
    let server = Server::start(&["--enable-test-nodes"]);
    let saved = server
        .data()
        .join("files/saved/00000000-0000-7000-8000-000000000001");
    std::fs::create_dir_all(&saved).expect("a folder");
    std::fs::write(saved.join("contracts"), b"a file in the folder's place").expect("written");
    let id = server.start_contract("contract.good.json").await;
    let execution = server.until(&id, &["needs_review"]).await;
    let summary = &execution["preflight_summary"];
    assert_eq!(
        summary["groups"]["delivery"][0]["code"], "local.folder_not_found",
        "{summary:#}"
    );
    assert_eq!(
        execution["recommended_actions"][0]["action"],
        "select_folder"
    );
    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let steps = steps["steps"].as_array().expect("steps");
    assert!(
        steps.iter().all(|step| step["status"] == "pending"),
        "{steps:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_waits_for_room() {
    // 32 blocks of 512 bytes: records fit, a rendered contract does not.
    let server = Server::start_with_small_files(32, &["--enable-test-nodes"]);
    let id = server.start_contract("contract.good.json").await;
    let execution = server.until(&id, &["needs_review"]).await;
    is_clear_and_goes_on(&server, &execution, "storage_full", "free_storage").await;
    let documents = server.data().join("files/documents");
    let left: Vec<_> = walk(&documents)
        .into_iter()
        .filter(|path| path.is_file())
        .collect();
    assert!(left.is_empty(), "nothing half written is left: {left:?}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
