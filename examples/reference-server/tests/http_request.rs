//! The node type `http-request`, against a real server on this machine.

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use docg_core::{i18n::Locale, observe::LogLevel, query::LogQuery, run::Status};
use reference_server::{files::Files, mail::Mailer, nodes::Services};
use serde_json::{Value, json};
use support::{Harness, Ran};

/// The calls that the server received, in order.
type Calls = Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>;

async fn answer(
    State(calls): State<Calls>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let count = {
        let mut calls = calls.lock().expect("no test panics with it");
        calls.push((method, uri.to_string(), headers, body));
        calls.len()
    };
    match uri.path() {
        "/json" => (
            [(header::CONTENT_TYPE, "application/json")],
            "{\"ok\":true}",
        )
            .into_response(),
        path if path.starts_with("/redirect/") => {
            let status: StatusCode = path["/redirect/".len()..].parse().expect("a status");
            if uri.query() == Some("nowhere") {
                return status.into_response();
            }
            let to = "https://me:CANARY@elsewhere.example/a?token=CANARY&id=1";
            (status, [(header::LOCATION, to)]).into_response()
        }
        "/busy-once" if count == 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "/large" => "x".repeat(600 * 1024).into_response(),
        "/latin1" => typed("text/plain; charset=ISO-8859-1", b"caf\xE9"),
        "/bom-json" => typed("application/json", b"\xEF\xBB\xBF{\"a\":null}"),
        "/null" => typed("application/json", b"null"),
        "/latin1-unsaid" => typed("text/plain", b"caf\xE9"),
        "/klingon" => typed("text/plain; charset=klingon", b"a"),
        path if path.starts_with("/refused/") => {
            let status: StatusCode = path["/refused/".len()..].parse().expect("a status");
            (
                status,
                "{\"why\": \"no k3y-CANARY here\", \"token\": \"CANARY\"}",
            )
                .into_response()
        }
        "/gzip" => ([(header::CONTENT_ENCODING, "gzip")], b"\x1f\x8b".as_slice()).into_response(),
        "/long-number" => typed(
            "application/json",
            b"{\"a\": 12345678901234567890123456789012345678901234}",
        ),
        "/twice" => typed("application/json", b"{\"a\": 1, \"a\": 2}"),
        "/missing" => StatusCode::NOT_FOUND.into_response(),
        "/broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => "text".into_response(),
    }
}

fn typed(content_type: &'static str, body: &'static [u8]) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

async fn server() -> (SocketAddr, Calls) {
    let calls = Calls::default();
    let app = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&calls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, calls)
}

fn node(method: &str, url: &str, more: Value) -> Value {
    let mut params = json!({"method": method, "url": url});
    if let (Some(params), Value::Object(more)) = (params.as_object_mut(), more) {
        params.extend(more);
    }
    json!([{"id": "call", "type": "http-request", "phase": "trigger", "params": params,
        "retry": {"max_attempts": 2, "initial_ms": 1, "max_ms": 5, "multiplier": 2.0}}])
}

async fn call(harness: &Harness, method: &str, url: &str) -> Ran {
    harness.run(node(method, url, json!({})), json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_becomes_the_output() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    let ran = call(&harness, "GET", &format!("http://{address}/json?a=b")).await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    assert_eq!(ran.output("call")["status"], 200);
    assert_eq!(ran.output("call")["body"], json!({"ok": true}));
    assert_eq!(
        ran.output("call")["headers"]["content-type"],
        "application/json"
    );
    assert_eq!(calls.lock().expect("no panic")[0].1, "/json?a=b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_carries_its_key_and_its_correlation() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    let more = json!({"headers": {"X-Own": "1"}, "body": {"a": [1, 2]}});
    let ran = harness
        .run(node("POST", &format!("http://{address}/"), more), json!({}))
        .await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let calls = calls.lock().expect("no panic");
    let (method, _, headers, body) = &calls[0];
    assert_eq!(
        (method, body.as_ref()),
        (&Method::POST, br#"{"a":[1,2]}"#.as_slice())
    );
    let execution = &ran.record.execution;
    assert_eq!(headers["idempotency-key"], format!("{}/call", execution.id));
    assert_eq!(headers["x-correlation-id"], *execution.correlation_id);
    assert_eq!(headers["x-own"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_waits_for_its_final_address() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    let mut expected = 0;
    for status in [300, 301, 302, 303, 304, 307, 308] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let url = format!("http://{address}/redirect/{status}");
            let ran = call(&harness, method, &url).await;
            assert_eq!(
                (ran.status(), ran.code()),
                (Status::NeedsReview, "redirect_not_followed"),
                "{method} {status}: {}",
                ran.tech()
            );
            assert_eq!(ran.actions, ["fix_url"], "{method} {status}");
            let to = "https://[redacted]@elsewhere.example/a?token=[redacted]&id=1";
            assert!(ran.tech().contains(to), "{}", ran.tech());
            expected += 1;
        }
    }
    assert_eq!(calls.lock().expect("no panic").len(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_names_no_address_is_not_said_to_lead_to_one() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for status in [300, 302, 304] {
        let url = format!("http://{address}/redirect/{status}?nowhere");
        let ran = call(&harness, "GET", &url).await;
        let error = ran.record.execution.error.as_ref().expect("an error");
        let human = error.human.render(Locale::En);
        assert!(human.contains("names no address"), "{status}: {human}");
        assert_eq!(ran.actions, ["fix_field_format"], "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_answered_is_said_to_be_so_though_the_answer_cannot_be_used() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for (path, why) in [
        ("/gzip", "compressed"),
        ("/latin1-unsaid", "not readable text"),
        ("/klingon", "not readable text"),
        ("/large", "too large"),
    ] {
        for (method, actions) in [
            ("POST", &["confirm_done", "run_again"][..]),
            ("PATCH", &["confirm_done", "run_again"]),
            ("GET", &[]),
        ] {
            let ran = call(&harness, method, &format!("http://{address}{path}")).await;
            assert_eq!(ran.status(), Status::NeedsReview, "{method} {path}");
            let error = ran.record.execution.error.as_ref().expect("an error");
            let human = error.human.render(Locale::En);
            assert!(human.contains("answered with status 200"), "{human}");
            assert!(
                human.contains(why) && !human.contains("not known"),
                "{human}"
            );
            assert!(ran.tech().contains("200 OK"), "{}", ran.tech());
            assert!(
                actions.is_empty() || ran.actions == actions,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_news_is_an_answer_to_a_question_for_news_only() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for header in ["If-None-Match", "if-modified-since"] {
        let url = format!("http://{address}/redirect/304");
        let more = json!({"headers": {header: "\"7\""}});
        let ran = harness.run(node("GET", &url, more), json!({})).await;
        assert_eq!(ran.status(), Status::Completed, "{header}: {}", ran.tech());
        assert_eq!(ran.output("call")["status"], 304);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_by_its_charset() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for (path, body) in [
        ("/latin1", json!("café")),
        ("/bom-json", json!({"a": null})),
        ("/null", json!(null)),
    ] {
        let ran = call(&harness, "GET", &format!("http://{address}{path}")).await;
        assert_eq!(ran.status(), Status::Completed, "{path}: {}", ran.tech());
        assert_eq!(ran.output("call")["body"], body, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_a_url_are_called_and_not_kept() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    let url = format!("http://{address}/missing?id=1&api_key=CANARY");
    let ran = call(&harness, "GET", &url).await;
    assert_eq!(
        calls.lock().expect("no panic")[0].1,
        "/missing?id=1&api_key=CANARY"
    );
    let step = &ran.steps[0];
    let kept = format!("{:?} {:?} {:?}", step.data_in, step.data_out, step.error);
    assert!(kept.contains("id=1&api_key=[redacted]"), "{kept}");
    assert!(!kept.contains("CANARY"), "{kept}");
    let query = LogQuery::of(harness.organization, ran.record.execution.id);
    let logs = harness.engine.logs(query).await.expect("readable");
    assert!(!logs.items.is_empty() && !format!("{:?}", logs.items).contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_its_status_and_its_reason() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for status in [400, 401, 403, 404, 409, 501] {
        for key in [None, Some("Bearer k3y-CANARY")] {
            let url = format!("http://{address}/refused/{status}");
            let more = key.map_or(json!({}), |key| json!({"headers": {"Authorization": key}}));
            let ran = harness.run(node("GET", &url, more), json!({})).await;
            let error = ran.record.execution.error.as_ref().expect("an error");
            let human = error.human.render(Locale::En);
            let is_key_refused = matches!(status, 401 | 403) && key.is_some();
            let is_forbidden = ran.actions == ["fix_permissions"];
            assert_eq!(is_forbidden, status == 403, "{:?}", ran.actions);
            assert_eq!(
                human.contains("API key"),
                is_key_refused,
                "{status}: {human}"
            );
            let says = is_key_refused || human.contains(&status.to_string());
            assert!(says, "{status}: {human}");
            assert!(ran.tech().contains(&status.to_string()), "{}", ran.tech());
            assert!(
                ran.tech().contains("\"token\":\"[redacted]\""),
                "{}",
                ran.tech()
            );
            assert!(
                key.is_none() || !ran.tech().contains("CANARY"),
                "{}",
                ran.tech()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_is_called_compressed() {
    let (address, _) = server().await;
    let ran = call(
        &Harness::offline(),
        "GET",
        &format!("http://{address}/gzip"),
    )
    .await;
    let error = ran.record.execution.error.as_ref().expect("an error");
    assert_eq!(ran.code(), "answer_not_text");
    assert!(error.human.render(Locale::En).contains("compressed"));
    assert!(ran.tech().contains("gzip"), "{}", ran.tech());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_cannot_be_kept_exactly_is_text_and_the_log_says_why() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for (path, why) in [
        ("/long-number", "number_not_exact"),
        ("/twice", "duplicate_key"),
    ] {
        let ran = call(&harness, "GET", &format!("http://{address}{path}")).await;
        assert_eq!(ran.status(), Status::Completed, "{path}: {}", ran.tech());
        assert!(ran.output("call")["body"].is_string(), "{path}");
        let query =
            LogQuery::of(harness.organization, ran.record.execution.id).level(LogLevel::Warn);
        let logs = harness.engine.logs(query).await.expect("readable");
        let tech = logs
            .items
            .iter()
            .find_map(|log| log.message_tech.as_deref());
        assert!(
            tech.is_some_and(|tech| tech.contains(why)),
            "{path}: {tech:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_has_a_code_and_an_action() {
    let (address, _) = server().await;
    let harness = Harness::offline();
    for (method, path, status, code) in [
        (
            "GET",
            "/missing",
            Status::NeedsReview,
            "invalid_field_format",
        ),
        ("GET", "/broken", Status::Failed, "service_unavailable"),
        ("POST", "/broken", Status::NeedsReview, "outcome_unknown"),
        ("GET", "/large", Status::NeedsReview, "output_too_large"),
        ("POST", "/large", Status::NeedsReview, "outcome_unknown"),
        (
            "GET",
            "/latin1-unsaid",
            Status::NeedsReview,
            "answer_not_text",
        ),
        (
            "POST",
            "/latin1-unsaid",
            Status::NeedsReview,
            "outcome_unknown",
        ),
        ("GET", "/klingon", Status::NeedsReview, "answer_not_text"),
    ] {
        let ran = call(&harness, method, &format!("http://{address}{path}")).await;
        assert_eq!(
            (ran.status(), ran.code()),
            (status, code),
            "{method} {path}: {}",
            ran.tech()
        );
        assert!(!ran.actions.is_empty(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_busy_is_called_again() {
    let (address, calls) = server().await;
    let ran = call(
        &Harness::offline(),
        "POST",
        &format!("http://{address}/busy-once"),
    )
    .await;
    assert_eq!(
        ran.status(),
        Status::Completed,
        "{} {}",
        ran.code(),
        ran.tech()
    );
    let calls = calls.lock().expect("no panic");
    let keys: Vec<_> = calls
        .iter()
        .map(|call| call.2["idempotency-key"].clone())
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1], "the same key, so that it is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_s_own_network_is_out_of_reach() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = Files::in_folder(folder.path().join("files")).expect("a folder");
    let from = "docg@example.com".parse().expect("an address");
    let mailer = Mailer::folder(folder.path().join("mail"), from, files.clone());
    let services = Services {
        approvals: support::approvals(&files, &mailer),
        mailer,
        files,
        renderer: support::renderer(),
        providers: Vec::new(),
        allow_private_http: false,
        test_nodes: None,
    };
    let harness = Harness::with(folder, services);
    let (address, calls) = server().await;
    let port = address.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://user:secret@127.0.0.1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let ran = call(&harness, "GET", &url).await;
        assert_eq!(
            (ran.status(), ran.blame().as_str()),
            (Status::NeedsReview, "url_not_allowed"),
            "{url}"
        );
        assert_eq!(ran.actions, ["fix_url"]);
        let preflight = ran.record.execution.preflight.as_ref().expect("checked");
        let issue = preflight.blocking().next();
        let (human, tech) = match issue {
            Some(issue) => (&issue.message_human, issue.message_tech.clone()),
            None => {
                let error = ran.record.execution.error.as_ref().expect("it failed");
                (&error.human, error.tech.clone())
            }
        };
        let address = url::Url::parse(&url).expect("a URL");
        if address.username().is_empty() {
            let host = address.host_str().expect("a host");
            for locale in [Locale::En, Locale::PtBr] {
                let human = human.render(locale);
                assert!(human.contains(host), "{url}: {human}");
            }
            let human = human.render(Locale::En);
            assert!(human.contains("ask whoever runs this system"), "{human}");
            assert!(
                tech.expect("a text").contains("--http-allow-private"),
                "{url}"
            );
        }
    }
    assert!(calls.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reads_and_does_not_write() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    for (method, called) in [("GET", 1), ("POST", 1), ("DELETE", 1), ("HEAD", 2)] {
        let nodes = node(method, &format!("http://{address}/json"), json!({}));
        let id = harness.start(nodes, json!({}), true).await;
        let ran = harness.rest(id).await;
        assert_eq!(ran.status(), Status::Completed, "{method}: {}", ran.code());
        assert_eq!(calls.lock().expect("no panic").len(), called, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_not_a_workflow_s_to_set_are_refused() {
    let (address, calls) = server().await;
    let harness = Harness::offline();
    for headers in [
        json!({"Host": "other"}),
        json!({"a b": "c"}),
        json!({"x": "a\r\nb: c"}),
    ] {
        let more = json!({"headers": headers});
        let ran = harness
            .run(node("GET", &format!("http://{address}/"), more), json!({}))
            .await;
        assert_eq!(
            (ran.status(), ran.blame().as_str()),
            (Status::NeedsReview, "invalid_field_format")
        );
    }
    assert!(calls.lock().expect("no panic").is_empty());
}
