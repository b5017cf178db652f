//! The outputs of the program and the reports of executions are complete and consistent.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::process::{CONTRACT, Server, output, sample_data};

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_holds_the_two_lines_that_others_wait_for_and_nothing_else() {
    // `Server::start` reads both lines.
    let mut server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    server.signal("TERM");
    assert!(server.wait().success());
    assert_eq!(server.remaining_lines(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_are_found_in_the_environment() {
    let on = [
        ("DOCG_ENABLE_TEST_NODES", "yes"),
        ("DOCG_HTTP_ALLOW_PRIVATE", "1"),
    ];
    let server = Server::start_in(&on, &[]);
    let nodes = json!([
        {"id": "wait", "type": "test-delay", "phase": "trigger", "params": {"ms": 1}},
        {"id": "ask", "type": "http-request", "phase": "trigger",
            "params": {"method": "GET", "url": format!("{}/healthz", server.url)}},
    ]);
    let id = server.start_nodes(nodes).await;
    server.until(&id, &["completed"]).await;

    let off = [
        ("DOCG_ENABLE_TEST_NODES", "false"),
        ("DOCG_HTTP_ALLOW_PRIVATE", "0"),
    ];
    let server = Server::start_in(&off, &[]);
    let workflow = json!({"name": "Test", "nodes": [{"id": "n", "type": "test-delay"}]});
    let path = format!("/api/v1/workflows/{}", uuid::Uuid::new_v4());
    let (status, _) = server.send(Method::PUT, &path, &workflow).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let nodes = json!([{"id": "ask", "type": "http-request", "phase": "trigger",
        "params": {"method": "GET", "url": format!("{}/healthz", server.url)}}]);
    let id = server.start_nodes(nodes).await;
    let refused = server.until(&id, &["failed", "needs_review"]).await;
    let issue = &refused["preflight_summary"]["groups"]["data"][0];
    assert_eq!(issue["code"], "url_not_allowed", "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_finds_the_server_of_the_same_data_directory() {
    let server = Server::start(&["--mail-from", "Contracts <contracts@example.com>"]);
    let path = format!("/api/v1/workflows/{CONTRACT}/executions");
    let data = sample_data("contract.good.json");
    let body = json!({"trigger_data": data, "dry_run": true});
    let (_, execution) = server.post(&path, &body).await;
    let id = execution["id"].as_str().expect("an id");
    let bind = server.url.trim_start_matches("http://");
    let folder = server.data().display().to_string();
    let ended = output(&["watch", id, "--bind", bind, "--data-dir", &folder]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    // The document of a dry run can be downloaded, and the dry run has sent nothing.
    let path = format!("/api/v1/executions/{id}/files/render");
    let preview = server.request(Method::GET, &path).send().await;
    let preview = preview.expect("it answers").bytes().await.expect("a file");
    assert!(preview.starts_with(b"%PDF-"));
    let listed = server.get(&format!("/api/v1/executions/{id}/files")).await;
    let file = &listed["files"][0];
    assert_eq!(
        (&file["node_id"], &file["href"]),
        (&json!("render"), &json!(path))
    );
    assert_eq!(file["bytes"], preview.len());
    assert!(
        file["pages"].as_u64().is_some_and(|pages| pages > 0),
        "{listed}"
    );
    assert!(
        server
            .mails_to("purchasing@customer.example.com")
            .is_empty()
    );
    assert!(!server.data().join("files/saved").exists());

    let id = server.start_contract("contract.good.json").await;
    server.until_it_awaits_signatures(&id).await;
    let mails = server.mails_to("purchasing@customer.example.com");
    assert!(mails[0].contains("contracts@example.com"), "{}", mails[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_saved_under_its_name_and_a_request_without_signers_runs_out() {
    let server = Server::start(&[]);
    let nodes = json!([
        {"id": "render", "type": "render-pdf",
            "params": {"template": "contract.typ", "data": "{{trigger}}"}},
        {"id": "save", "type": "save-file", "params": {"file": "{{steps.render.file}}",
            "folder": "contracts/agreed", "filename": "Agreed: 2026/0042"}},
        {"id": "sign", "type": "request-signatures", "params": {"provider": "builtin",
            "file": "{{steps.render.file}}", "signers": "{{trigger.signers}}", "expires_in_ms": 500}},
    ]);
    let data = sample_data("contract.good.json");
    let id = server.start_nodes_with(nodes, &data).await;
    let ended = server.until(&id, &["failed", "needs_review"]).await;
    assert_eq!(ended["signature_state"], "expired", "{ended:#}");
    let steps = server.get(&format!("/api/v1/executions/{id}/steps")).await;
    let url = steps["steps"][1]["data_out"]["url"]
        .as_str()
        .expect("a URL");
    let url: url::Url = url.parse().expect("a URL");
    let saved = url.to_file_path().expect("a file");
    let below = format!("contracts/agreed/{id}/save/Agreed- 2026-0042.pdf");
    assert!(saved.ends_with(&below), "{}", saved.display());
    assert!(
        std::fs::read(saved)
            .expect("it is there")
            .starts_with(b"%PDF-")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_run_tells_of_itself_agrees() {
    let server = Server::start(&[]);
    let id = server.start_contract("contract.good.json").await;
    let execution = server.sign_all(&id).await;
    let events = server.stream(&id, None).await;
    let events: Vec<Value> = events.into_iter().map(|(_, _, event)| event).collect();
    let mut before: Option<&Value> = None;
    let mut changes = Vec::new();
    for (seq, event) in (1..).zip(&events) {
        assert_eq!(event["seq"], json!(seq));
        let progress = |event: &Value| event["progress"].as_u64();
        let status = before.map_or(&Value::Null, |before| &before["status"]);
        if event["event_type"] == "execution.status_changed" {
            assert_eq!(&event["data"]["from"], status, "{event}");
            assert_eq!(event["data"]["to"], event["status"], "{event}");
            changes.push((event["data"]["from"].clone(), event["data"]["to"].clone()));
        }
        if let Some(before) = before {
            assert!(
                progress(before) <= progress(event),
                "{before}, then {event}"
            );
        }
        before = Some(event);
    }
    let last = before.expect("there are events");
    for field in ["status", "progress", "workflow_id", "correlation_id"] {
        assert_eq!(last[field], execution[field], "{field}");
    }
    for phase in [
        "preflight",
        "trigger",
        "render",
        "save",
        "delivery",
        "signature",
    ] {
        let metric = &execution["phase_metrics"][phase];
        assert!(metric["duration_ms"].is_u64(), "{phase}: {execution:#}");
        assert!(metric["completed_at"].is_string(), "{phase}: {metric}");
    }
    let audit = server.all(&id, "audit").await;
    let changed = |row: &&Value| {
        let own = [
            "execution.started",
            "execution.completed",
            "execution.status_changed",
        ];
        own.contains(&row["action"].as_str().unwrap_or_default())
            && !row["metadata"]["to"].is_null()
    };
    let rows = audit.iter().filter(changed);
    let rows = rows.map(|row| {
        (
            row["metadata"]["from"].clone(),
            row["metadata"]["to"].clone(),
        )
    });
    assert_eq!(rows.collect::<Vec<_>>(), changes);
    for log in server.all(&id, "logs").await {
        let text = log["message_human"].as_str().unwrap_or_default();
        assert!(!text.trim().is_empty() && !text.contains("{ $"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_contract_is_repaired_by_the_inputs_of_its_actions_alone() {
    let server = Server::start(&[]);
    for sample in ["contract.bad-email.json", "contract.missing-customer.json"] {
        let id = server.start_contract(sample).await;
        let path = format!("/api/v1/executions/{id}");
        let mut execution = server.until(&id, &["needs_review"]).await;
        assert!(
            execution["reason"].is_string() && execution["error_code"].is_string(),
            "{execution:#}"
        );
        // Nothing here knows the workflow: the inputs say what is needed, and the call where it goes.
        for _ in 0..5 {
            let action = execution["recommended_actions"][0].clone();
            let mut body = action["call"]["body"].clone();
            for input in action["inputs"].as_array().expect("a list") {
                let pointer = input["pointer"].as_str().expect("a pointer");
                let value = match (input["schema"]["type"].as_str(), &input["schema"]["format"]) {
                    (Some("object"), _) => sample_data("contract.good.json")["customer"].clone(),
                    (_, format) if format == "email" => json!("corrected@example.com"),
                    _ => json!("Corrected"),
                };
                *body.pointer_mut(pointer).expect("a place in the body") = value;
            }
            let call = action["call"]["path"].as_str().expect("a path");
            let (status, answer) = server.post(call, &body).await;
            assert_eq!(status, StatusCode::OK, "{action:#}: {answer:#}");
            execution = server
                .until(&id, &["needs_review", "signing", "failed"])
                .await;
            if execution["status"] == "signing" {
                break;
            }
        }
        assert_eq!(server.get(&path).await["status"], "signing", "{sample}");
        assert_eq!(execution["title"], "2026-0042: Customer Ltd");
    }
}
