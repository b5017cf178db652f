//! The commands `run`, `watch` and `audit verify`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::process::{Server, output, sample, text};

fn run(sample_name: &str, more: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = sample(sample_name).to_string_lossy().into_owned();
    let data_dir = folder.path().join("data").to_string_lossy().into_owned();
    let arguments = [
        "run",
        "service-contract",
        "--data",
        &data,
        "--data-dir",
        &data_dir,
    ];
    let ended = output(&[&arguments[..], more].concat());
    (ended.status.code(), text(&ended.stderr))
}

#[test]
fn run_exits_with_zero_only_when_it_is_completed() {
    let (code, said) = run("contract.good.json", &["--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("100%"), "{said}");
    let (code, said) = run("contract.no-signers.json", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Add a signer"), "it says what to do: {said}");
}

#[test]
fn run_says_what_it_does_not_find() {
    let data = sample("contract.good.json").to_string_lossy().into_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data").to_string_lossy().into_owned();
    let ended = output(&[
        "run",
        "no-such-workflow",
        "--data",
        &data,
        "--data-dir",
        &data_dir,
    ]);
    let said = text(&ended.stderr);
    assert!(
        ended.status.code() == Some(1) && said.contains("service-contract"),
        "{said}"
    );
    let ended = output(&[
        "run",
        "service-contract",
        "--data",
        "missing.json",
        "--data-dir",
        &data_dir,
    ]);
    assert!(text(&ended.stderr).contains("missing.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_told_to_run_and_watched() {
    let server = Server::start(&["--enable-test-nodes"]);
    let at = ["--url", &server.url, "--token", &server.token];
    let data = sample("contract.good.json").to_string_lossy().into_owned();
    let arguments = ["run", "Service contract", "--data", &data, "--dry-run"];
    let ended = output(&[&arguments[..], &at].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    let executions = server.get("/api/v1/executions").await;
    let execution = &executions["executions"][0];
    assert_eq!(
        (&execution["status"], &execution["dry_run"]),
        (&json!("completed"), &json!(true))
    );
    let id = execution["id"].as_str().expect("an id").to_owned();
    assert_eq!(watch(&server, &id), Some(0));

    let nodes = json!([{"id": "n", "type": "test-fail", "phase": "trigger",
        "params": {"times": 1, "retryable": false}}]);
    let id = server.start_nodes(nodes).await;
    assert_eq!(watch(&server, &id), Some(1));
    let nodes =
        json!([{"id": "n", "type": "test-delay", "phase": "trigger", "params": {"ms": 500}}]);
    let id = server.start_nodes(nodes).await;
    assert_eq!(
        watch(&server, &id),
        Some(0),
        "it waits for what is still under way"
    );
}

fn watch(server: &Server, id: &str) -> Option<i32> {
    output(&["watch", id, "--url", &server.url, "--token", &server.token])
        .status
        .code()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_trail_is_valid_or_not_or_could_not_be_checked() {
    let server = Server::start(&["--enable-test-nodes"]);
    let nodes = json!([{"id": "n", "type": "test-delay", "phase": "trigger", "params": {"ms": 1}}]);
    let id = server.start_nodes(nodes).await;
    server.until(&id, &["completed"]).await;
    let at = ["--url", server.url.as_str(), "--token", &server.token];
    let verify = |more: &[&str]| {
        let ended = output(&[&["audit", "verify"], more].concat());
        (
            ended.status.code(),
            text(&ended.stdout) + &text(&ended.stderr),
        )
    };
    let (code, said) = verify(&[&["--execution", &id], &at[..]].concat());
    assert!(code == Some(0) && said.starts_with("valid"), "{said}");
    let unknown = uuid::Uuid::new_v4().to_string();
    let (code, said) = verify(&[&["--execution", &unknown], &at[..]].concat());
    assert!(
        code == Some(2) && said.contains("could not check"),
        "{said}"
    );
    let (code, said) = verify(&[]);
    assert!(code == Some(2) && said.contains("--export"), "{said}");
    let (code, said) = verify(&["--export", "missing.jsonl"]);
    assert!(code == Some(2) && said.contains("missing.jsonl"), "{said}");
    // Rows from the API verify without the server, and verifying notices any change to them.
    let mut page = server.get(&format!("/api/v1/executions/{id}/audit")).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("page.json");
    let path = file.display().to_string();
    std::fs::write(&file, page.to_string()).expect("the folder is ours");
    let (code, said) = verify(&["--export", &path]);
    assert!(code == Some(0) && said.starts_with("valid"), "{said}");
    page["events"][1]["actor_id"] = json!("somebody else");
    std::fs::write(&file, page.to_string()).expect("the folder is ours");
    let (code, said) = verify(&["--export", &path]);
    assert!(code == Some(1), "{said}");
    let (status, _) = server.post("/api/v1/executions", &Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}
