//! Tests of what all routes have in common: headers, CORS, logging, and problems for panics and timeouts.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use docg_core::ids::WorkflowId;
use docg_http::{AppState, BusProbe, BusState, HttpOptions, StaticTokens};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{Answer, Call, World};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn correlation_and_trace_are_taken_in_stored_and_given_back() {
    let world = World::new().await;
    let path = format!("/api/v1/workflows/{}/executions", world.workflow);
    let call = Call::new("POST", path)
        .token("user")
        .header("x-correlation-id", "order-17")
        .header("traceparent", TRACE)
        .json(json!({"trigger_data": {"deal": 1}}));
    let answer = world.send(call).await;
    assert_eq!(
        (
            answer.header("x-correlation-id"),
            answer.header("traceparent")
        ),
        ("order-17", TRACE)
    );
    assert_eq!(answer.json()["correlation_id"], "order-17");
    for wrong in ["a b", "<x>", "", &"x".repeat(129)] {
        let call = Call::new("GET", "/healthz")
            .header("x-correlation-id", wrong)
            .header("traceparent", "00-0-0-0");
        let answer = world.send(call).await;
        let fresh = answer.header("x-correlation-id");
        assert!(uuid::Uuid::parse_str(fresh).is_ok(), "{wrong:?}: {fresh}");
        assert!(!answer.headers.contains_key("traceparent"));
    }
}

#[tokio::test]
async fn handlers_get_the_correlation_and_the_trace_whatever_its_version() {
    let world = World::new().await;
    let workflow = WorkflowId::new();
    world
        .put(workflow, json!([{"id": "n", "type": "traced"}]))
        .await;
    let later = format!("cc{}-what-comes", &TRACE[2..]);
    for trace in [TRACE, &later] {
        let call = Call::new("POST", format!("/api/v1/workflows/{workflow}/executions"))
            .token("user")
            .header("x-correlation-id", "order-18")
            .header("traceparent", trace);
        let answer = world.send(call).await;
        assert_eq!(answer.header("traceparent"), trace);
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let path = format!("/api/v1/executions/{id}");
        world.until(&path, "execution.completed").await;
        let steps = world.get(&format!("{path}/steps")).await.json();
        assert_eq!(
            steps["steps"][0]["data_out"],
            json!({"correlation_id": "order-18", "traceparent": trace})
        );
    }
}

/// Tests only `cache-control`. The other headers for browsers are checked in every test, by `check_head`.
#[tokio::test]
async fn answers_are_not_kept() {
    let world = World::new().await;
    for path in ["/healthz", "/nowhere", "/api/v1/executions"] {
        let answer = world.get(path).await;
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn pages_of_an_allowed_origin_read_answers_and_errors() {
    let world =
        World::with(|options| options.cors_origins = vec!["https://app.example".to_owned()]).await;
    for path in ["/api/v1/executions", "/nowhere"] {
        let call = |origin| {
            Call::new("GET", path)
                .token("user")
                .header("origin", origin)
        };
        let allowed = world.send(call("https://app.example")).await;
        assert_eq!(
            allowed.header("access-control-allow-origin"),
            "https://app.example",
            "{path}"
        );
        let other = world.send(call("https://evil.example")).await;
        assert!(!other.headers.contains_key("access-control-allow-origin"));
    }
    let preflight = Call::new("OPTIONS", "/api/v1/executions")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "last-event-id");
    let preflight = world.send(preflight).await;
    assert_eq!(preflight.header("access-control-max-age"), "600");
    let allowed = preflight.header("access-control-allow-headers");
    for name in [
        "authorization",
        "content-type",
        "accept-language",
        "if-match",
        "last-event-id",
        "idempotency-key",
        "x-organization-id",
        "x-correlation-id",
        "traceparent",
    ] {
        assert!(allowed.split(',').any(|it| it == name), "{name}: {allowed}");
    }
    let any = World::with(|options| options.cors_origins = vec!["*".to_owned()]).await;
    let call = Call::new("GET", "/healthz").header("origin", "https://x.example");
    let answer = any.send(call).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn without_allowed_origins_options_is_a_method_like_any_other() {
    let world = World::new().await;
    let answer = world.send(Call::new("OPTIONS", "/healthz")).await;
    answer.problem(405, "method_not_allowed");
    assert!(answer.header("allow").contains("GET"));
    let head = world.send(Call::new("HEAD", "/nowhere")).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (404, ""));
}

/// A router of the API, with an application's own routes merged into it.
fn with_route(world: &World, routes: Router<AppState>, timeout: Duration) -> Router {
    let mut options = HttpOptions::new(Arc::new(StaticTokens::default()), [0; 32]);
    options.request_timeout = timeout;
    let state = AppState::new(world.engine.clone(), options);
    docg_http::with_layers(docg_http::api().merge(routes), &state)
}

async fn answer_of(router: Router, call: Call) -> Answer {
    Answer::of(router.oneshot(call.request()).await.expect("infallible")).await
}

#[tokio::test]
async fn a_panic_is_a_problem_that_tells_nothing_technical() {
    let world = World::new().await;
    async fn boom() {
        panic!("canary-tech")
    }
    let routes = Router::new().route("/boom", get(boom));
    let router = with_route(&world, routes, Duration::from_secs(30));
    let call = Call::new("GET", "/boom").header("x-correlation-id", "c-1");
    let answer = answer_of(router, call).await;
    let problem = answer.problem(500, "internal_error");
    assert_eq!(problem["correlation_id"], "c-1");
    assert!(!answer.text.contains("canary-tech"));
}

/// A writer that keeps all log lines of a test.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_token_of_an_address_is_logged() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let handler = || async { tracing::warn!("in a request") };
    let routes = Router::new().route("/links/{token}/open", get(handler));
    let router = with_route(&world, routes, Duration::from_secs(30));
    let call = Call::new("GET", "/links/canary-link/open?token=canary-query");
    assert_eq!(answer_of(router, call).await.status.as_u16(), 200);
    let log = logged.0.lock().expect("not poisoned").clone();
    let log = String::from_utf8(log).expect("a text");
    assert!(
        log.contains("in a request") && log.contains("/links/[token]/open"),
        "{log}"
    );
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let world = World::new().await;
    let routes = Router::new().route("/never", get(std::future::pending::<()>));
    let router = with_route(&world, routes, Duration::from_millis(10));
    let answer = answer_of(router, Call::new("GET", "/never")).await;
    answer.problem(503, "timeout");
}

#[tokio::test]
async fn the_api_may_be_nested_under_a_path_with_parameters() {
    let world = World::new().await;
    let path = world.completed().await;
    let router = Router::new().nest("/tenants/{tenant}", world.router.clone());
    let call = Call::new("GET", format!("/tenants/7{path}")).token("user");
    assert_eq!(answer_of(router.clone(), call).await.status.as_u16(), 200);
    let webhook = |provider: &str| {
        let path = format!("/tenants/7/api/v1/webhooks/signature/{provider}");
        let call = Call::new("POST", path).header("x-desk", "proof");
        answer_of(router.clone(), call.body(r#"{"delivery": "d"}"#))
    };
    assert_eq!(webhook("desk").await.status.as_u16(), 200);
    webhook("%ff").await.problem(404, "not_found");
}

struct Probe(BusState);

#[async_trait::async_trait]
impl BusProbe for Probe {
    async fn state(&self) -> BusState {
        self.0
    }
}

struct Hangs;

#[async_trait::async_trait]
impl BusProbe for Hangs {
    async fn state(&self) -> BusState {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_bus_that_does_not_answer_is_disconnected() {
    let world = World::with(|options| options.bus = Arc::new(Hangs)).await;
    let answer = world.send(Call::new("GET", "/api/v1/sse/health")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (503, json!({"status": "unhealthy", "redis": "disconnected"}))
    );
}

#[tokio::test]
async fn the_health_of_streams_is_that_of_their_bus() {
    for (state, status, body) in [
        (
            BusState::Connected,
            200,
            json!({"status": "healthy", "redis": "connected", "mode": "streams"}),
        ),
        (
            BusState::Disconnected,
            503,
            json!({"status": "unhealthy", "redis": "disconnected"}),
        ),
    ] {
        let world = World::with(|options| options.bus = Arc::new(Probe(state))).await;
        let answer = world.send(Call::new("GET", "/api/v1/sse/health")).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (status, body));
    }
}
