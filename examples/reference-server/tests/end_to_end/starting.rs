//! How the server starts and stops.

use std::{net::SocketAddr, process::Stdio};

use docg_test_servers::ports;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::process::{Server, output, program, text};

#[test]
fn what_it_cannot_do_it_refuses_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nobody = |scheme: &str| format!("{scheme}://u:hidden@{}/docg", closed_port());
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("tokens.json"), "{\"tokens\": [{\"token\": \"x\"}]}").expect("written");
    std::fs::write(at("file"), "").expect("written");
    std::fs::create_dir(at("workflows")).expect("made");
    let broken = json!({"id": uuid::Uuid::new_v4(), "name": "x", "nodes": [
        {"id": "a", "type": "no-such-type"}, {"id": "a", "type": "extract", "params": {"y": 1}},
    ]});
    std::fs::write(at("workflows/broken.json"), broken.to_string()).expect("written");
    for (arguments, told) in [
        (
            vec!["--database-url", "mysql://localhost/docg"],
            "postgres://",
        ),
        (vec!["--database-url", &nobody("postgres")], "refused"),
        (vec!["--redis-url", "http://localhost"], "redis://"),
        (vec!["--role", "worker"], "--role worker"),
        (vec!["--bind", "0.0.0.0:0"], "--auth-file"),
        (vec!["--auth-file", &at("missing.json")], "missing.json"),
        (vec!["--auth-file", &at("tokens.json")], "tokens[0]"),
        (vec!["--files-url", "gs://bucket"], "--files-url"),
        (vec!["--smtp-url", "http://localhost"], "--smtp-url"),
        (vec!["--data-dir", &at("file")], "--data-dir"),
        (vec!["--workflows", &at("workflows")], "/nodes/0/type"),
        (vec!["--workflows", &at("workflows")], "/nodes/1/params/y"),
        (vec!["--concurrency", "0"], "--concurrency"),
    ] {
        let mut whole = vec!["--bind", "127.0.0.1:0"];
        let data = at("data");
        whole.extend(["--data-dir", &data]);
        let whole: Vec<&str> = if arguments[0] == "--bind" {
            arguments
                .iter()
                .copied()
                .chain(["--data-dir", &data])
                .collect()
        } else if arguments[0] == "--data-dir" {
            arguments.clone()
        } else {
            whole.into_iter().chain(arguments.iter().copied()).collect()
        };
        let ended = output(&whole);
        assert!(!ended.status.success(), "{arguments:?}");
        let said = text(&ended.stderr);
        assert!(
            said.contains(told),
            "{arguments:?} should name {told}: {said}"
        );
        assert!(
            !said.contains("hidden"),
            "a password is not repeated: {said}"
        );
        assert!(ended.stdout.is_empty(), "it does not claim to listen");
    }
}

/// An address on which no process listens.
fn closed_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::reserve()))
}

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().to_string_lossy().into_owned();
    let ended = output(&["--bind", &address, "--data-dir", &data]);
    assert!(!ended.status.success() && text(&ended.stderr).contains(&address));
}

#[test]
fn the_environment_says_what_the_command_line_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = closed_port();
    let ended = program(&["--bind", "127.0.0.1:0"])
        .env("DOCG_DATA_DIR", folder.path().join("data"))
        .env(
            "DATABASE_URL",
            format!("postgres://u:hidden@{address}/docg"),
        )
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = text(&ended.stderr);
    assert!(!ended.status.success() && ended.stdout.is_empty());
    assert!(
        said.contains("refused") && !said.contains("hidden"),
        "{said}"
    );
    assert!(folder.path().join("data").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_with_the_development_token_only() {
    let mut server = Server::start(&[]);
    assert!(server.token.len() > 40, "{}", server.log());
    let workflows = server.get("/api/v1/workflows").await;
    assert_eq!(workflows["workflows"][0]["name"], "Service contract");
    server.token = "dev-guessed".to_owned();
    let refused = server
        .request(Method::GET, "/api/v1/workflows")
        .send()
        .await
        .expect("it answers");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        server.browse(&format!("{}/healthz", server.url)).await.0,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_in_order() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--enable-test-nodes", "--cancel-grace-ms", "300"]);
        let nodes = json!([{"id": "n", "type": "test-hang", "phase": "trigger",
            "params": {"ignore_cancel": true}}]);
        let id = server.start_nodes(nodes).await;
        server.until(&id, &["running"]).await;
        let path = format!("/api/v1/sse/executions/{id}/stream");
        let stream = server
            .request(Method::GET, &path)
            .send()
            .await
            .expect("it answers");
        assert_eq!(stream.status(), StatusCode::OK);
        server.signal(signal);
        // The stream ends although the execution has not ended.
        let events = stream.text().await.expect("the stream ends cleanly");
        assert!(events.contains("event: connected"), "{events}");
        assert!(server.wait().success(), "{}", server.log());
        assert!(server.log().contains("stopped"), "{}", server.log());
    }
}
