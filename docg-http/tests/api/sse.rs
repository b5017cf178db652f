use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue};
use docg_core::{
    ids::{OrganizationId, WorkflowId},
    time::{ManualClock, Timestamp},
};
use docg_http::{AuthError, Authenticator, Principal, Scope};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    conformance::check_frame,
    support::{Answer, Call, World},
};

/// Waits for a future for at most 20 seconds, so that a test fails instead of hanging.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it happens")
}

/// A frame of an event stream, as a strict reader sees it (HTML standard, section 9.2.6).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

/// Parses a stream's text. Fails on anything that the standard tells a reader to ignore silently.
pub(crate) fn parse(text: &str) -> Vec<Frame> {
    let mut frames = Vec::new();
    assert!(
        text.is_empty() || text.ends_with("\n\n"),
        "the last frame is whole"
    );
    for block in text.split_terminator("\n\n") {
        let mut frame = Frame::default();
        for line in block.split('\n') {
            let (field, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("no field: {line:?}"));
            assert!(!value.contains('\r'), "no stray line break");
            match field {
                "id" => {
                    assert!(frame.id.is_none() && !value.contains('\0'));
                    frame.id = Some(value.to_owned());
                }
                "event" => frame.event = value.to_owned(),
                "data" => {
                    assert!(frame.data.is_empty(), "JSON is on one line");
                    frame.data = value.to_owned();
                }
                "retry" => frame.retry = Some(value.parse().expect("digits")),
                other => panic!("unknown field {other}"),
            }
        }
        check_frame(&frame.event, &frame.json());
        frames.push(frame);
    }
    frames
}

impl Frame {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("JSON")
    }
}

pub(crate) fn stream_of(path: &str) -> String {
    format!("/api/v1/sse{}/stream", &path["/api/v1".len()..])
}

#[tokio::test]
async fn a_stream_shows_the_state_then_every_event_and_ends_with_the_run() {
    let world = World::new().await;
    let path = world.completed().await;
    let answer = world.get(&stream_of(&path)).await;
    assert_eq!(
        (
            answer.header("content-type"),
            answer.header("cache-control")
        ),
        ("text/event-stream", "no-cache")
    );
    assert_eq!(answer.header("x-accel-buffering"), "no");
    let frames = parse(&answer.text);
    assert!(frames[0].retry.is_some());
    let connected = frames[0].json();
    assert_eq!(
        (frames[0].event.as_str(), &frames[0].id),
        ("connected", &None)
    );
    assert_eq!(
        (&connected["status"], &connected["progress"]),
        (&json!("completed"), &json!(100))
    );
    let events = &frames[1..];
    for (event, seq) in events.iter().zip(1u64..) {
        assert_eq!(event.id.as_deref(), Some(format!("{seq}-0").as_str()));
        let envelope = event.json();
        assert_eq!(
            (&envelope["seq"], &envelope["schema_version"]),
            (&json!(seq), &json!(1))
        );
        assert_eq!(envelope["event_type"], event.event.as_str());
    }
    assert_eq!(
        connected["last_event_id"],
        events.last().and_then(|e| e.id.clone()).expect("an id")
    );
    assert_eq!(
        events.last().map(|e| e.event.as_str()),
        Some("execution.completed")
    );
}

#[tokio::test]
async fn a_stream_goes_on_from_any_event() {
    let world = World::new().await;
    let path = world.completed().await;
    let all = parse(&world.get(&stream_of(&path)).await.text).split_off(1);
    let last = all.last().and_then(|e| e.id.clone()).expect("an id");
    for cut in 0..all.len() - 1 {
        let id = all[cut].id.clone().expect("an id");
        let call = Call::new("GET", format!("{}?last_event_id=9-0", stream_of(&path)))
            .token("user")
            .header("last-event-id", id);
        let rest = parse(&world.send(call).await.text).split_off(1);
        assert_eq!(rest, all[cut + 1..], "after {cut}, and the header wins");
    }
    let done = Call::new("GET", stream_of(&path))
        .token("user")
        .header("last-event-id", last);
    assert_eq!(world.send(done).await.status.as_u16(), 204);
}

#[tokio::test]
async fn an_id_that_is_not_known_gives_a_gap_and_never_an_error() {
    let world = World::new().await;
    let path = world.completed().await;
    let all = parse(&world.get(&stream_of(&path)).await.text).split_off(1);
    for (id, reason) in [
        ("garbage", "unknown_id"),
        ("$", "unknown_id"),
        ("9999-0", "ahead"),
        ("1-1", "unknown_id"),
        ("99999999999999999999-0", "unknown_id"),
        ("\u{e9}\u{2603}", "unknown_id"),
    ] {
        let answer = world
            .send(
                Call::new("GET", stream_of(&path))
                    .token("user")
                    .header("last-event-id", id),
            )
            .await;
        assert_eq!(answer.status.as_u16(), 200, "{id}");
        let frames = parse(&answer.text);
        assert_eq!((frames[1].event.as_str(), &frames[1].id), ("gap", &None));
        assert_eq!(
            (&frames[1].json()["reason"], &frames[1].json()["earliest"]),
            (&json!(reason), &json!("1-0"))
        );
        assert_eq!(frames[2..], all[..], "then from the earliest that is left");
    }
    // Send event ids that are not valid UTF-8 or not printable, in the query and in the header. Each gets a
    // gap.
    let given = |name: &str| format!("{}?last_event_id={name}", stream_of(&path));
    let header = |bytes: &[u8]| {
        let mut request = Call::new("GET", stream_of(&path)).token("user").request();
        let value = HeaderValue::from_bytes(bytes).expect("a header may have it");
        request.headers_mut().insert("last-event-id", value);
        request
    };
    let query = |name: &str| Call::new("GET", given(name)).token("user").request();
    for request in [
        query("%FF"),
        query("1-0%FF"),
        query("%00"),
        query("%ED%A0%80"),
        header(b"\xff"),
        header(b"1-0\xc3"),
    ] {
        let asked = format!("{request:?}");
        let answer = world.router.clone().oneshot(request).await;
        let answer = Answer::of(answer.expect("infallible")).await;
        assert_eq!(answer.status.as_u16(), 200, "{asked}");
        assert_eq!(parse(&answer.text)[1].event, "gap", "{asked}");
    }
}

#[tokio::test]
async fn an_idle_stream_says_that_it_lives_and_goes_live_without_a_seam() {
    let world = World::with(|options| options.heartbeat = Duration::from_millis(20)).await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let response = world
        .open(Call::new("GET", stream_of(&path)).token("user"))
        .await;
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while let Some(bytes) = within(body.next()).await {
        text.push_str(std::str::from_utf8(&bytes.expect("a frame")).expect("UTF-8"));
        if text.contains("event: heartbeat") {
            world.gate.notify_one();
        }
    }
    let frames = parse(&text);
    let heartbeat = frames
        .iter()
        .find(|frame| frame.event == "heartbeat")
        .expect("a heartbeat");
    assert!(heartbeat.id.is_none() && heartbeat.json()["timestamp"].is_string());
    let seqs: Vec<_> = frames.iter().filter_map(|frame| frame.id.clone()).collect();
    let expected: Vec<_> = (1..=seqs.len()).map(|seq| format!("{seq}-0")).collect();
    assert_eq!(seqs, expected);
    assert_eq!(
        frames.last().map(|frame| frame.event.as_str()),
        Some("execution.completed")
    );
}

#[tokio::test]
async fn a_token_opens_one_stream_and_no_other() {
    let world = World::new().await;
    let (path, other) = (world.completed().await, world.completed().await);
    let id = path.rsplit('/').next().expect("an id");
    let answer = world
        .post("/api/v1/sse/tokens", json!({"execution_id": id}))
        .await;
    assert_eq!(answer.status.as_u16(), 201);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    for _ in 0..2 {
        let call = Call::new("GET", format!("{}?token={token}", stream_of(&path)));
        assert_eq!(
            world.send(call).await.status.as_u16(),
            200,
            "also when it comes back"
        );
    }
    let elsewhere = Call::new("GET", format!("{}?token={token}", stream_of(&other)));
    world
        .send(elsewhere)
        .await
        .problem(403, "token_for_another_stream");
    world
        .send(Call::new("GET", format!("{}?token=x", stream_of(&path))))
        .await
        .problem(401, "unauthorized");
    world
        .send(Call::new("GET", format!("{}?token=user", stream_of(&path))))
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn streams_end_at_shutdown_and_are_bounded_per_organization() {
    let shutdown = tokio_util::sync::CancellationToken::new();
    let token = shutdown.clone();
    let world = World::with(|options| {
        options.shutdown = token;
        options.streams_per_organization = 1;
    })
    .await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let stream = stream_of(&path);
    let both = async {
        let first = world.get(&stream);
        let second = async {
            tokio::task::yield_now().await;
            let refused = world.get(&stream_of(&path)).await;
            refused.problem(429, "too_many_streams");
            assert_eq!(refused.header("retry-after"), "30");
            shutdown.cancel();
        };
        tokio::join!(first, second)
    };
    let (answer, ()) = both.await;
    assert!(answer.text.contains("step.started") && !answer.text.contains("execution.completed"));
}

#[tokio::test]
async fn texts_cannot_break_out_of_their_frame() {
    let world = World::new().await;
    let hostile = "a\r\n\r\nid: 99-0\nevent: evil\rdata: {}\n\n\u{2028}";
    let node = json!({"id": "n", "type": "echo", "params": {"in": hostile}});
    let path = world.start(json!([node])).await;
    world.until(&path, "execution.completed").await;
    let frames = parse(&world.get(&stream_of(&path)).await.text).split_off(1);
    let done = frames.iter().find(|frame| frame.event == "step.completed");
    let preview = &done.expect("its event").json()["data"]["output_preview"];
    assert_eq!(preview["in"], hostile, "as it was");
    assert!(frames.iter().all(|frame| frame.event != "evil"));
}

#[tokio::test]
async fn readers_get_the_same_bytes_and_each_their_language() {
    let world = World::new().await;
    let path = world
        .start(json!([{"id": "n", "type": "echo", "params": {"in": "{{trigger.no}}"}}]))
        .await;
    world.until(&path, "preflight.completed").await;
    world.post(&format!("{path}/cancel"), json!({})).await;
    let read = |language: &'static str| {
        let call = Call::new("GET", stream_of(&path)).token("user");
        world.send(call.header("accept-language", language))
    };
    let (first, again, portuguese) = (read("en").await, read("en").await, read("pt-BR").await);
    let events = |text: &str| parse(text).split_off(1);
    assert_eq!(events(&first.text), events(&again.text));
    assert_ne!(events(&first.text), events(&portuguese.text));
    assert_eq!(portuguese.header("content-language"), "pt-BR");
}

/// Tokio's time is stopped while the test works, so that only a reader that takes nothing counts as slow,
/// also on a busy machine.
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_loses_its_place() {
    let world = World::with(|options| {
        options.slow_reader = Duration::from_millis(40);
        options.heartbeat = Duration::from_millis(5);
        options.streams = 1;
    })
    .await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    let call = || Call::new("GET", stream_of(&path)).token("user");
    let stalled = world.open(call()).await;
    assert_eq!(world.open(call()).await.status().as_u16(), 429);
    let place = async {
        while world.open(call()).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(place).await;
    let rest = within(axum::body::to_bytes(stalled.into_body(), usize::MAX)).await;
    assert!(
        rest.expect("it ends well").is_empty(),
        "so that the reader comes back"
    );
}

/// Tokio's time is stopped while the test works, so that only a reader that takes nothing counts as slow,
/// also on a busy machine.
#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_for_us_is_not_slow() {
    let world = World::with(|options| {
        options.slow_reader = Duration::from_millis(20);
        options.heartbeat = Duration::from_millis(100);
    })
    .await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    let response = world
        .open(Call::new("GET", stream_of(&path)).token("user"))
        .await;
    let mut body = response.into_body().into_data_stream();
    let mut heartbeats = 0;
    let mut last = bytes::Bytes::new();
    while let Some(bytes) = within(body.next()).await {
        last = bytes.expect("a frame");
        heartbeats += usize::from(last.starts_with(b"event: heartbeat"));
        if heartbeats == 2 {
            world.gate.notify_one();
        }
    }
    let last = std::str::from_utf8(&last).expect("UTF-8");
    assert!(last.contains("event: execution.completed"), "{last}");
}

#[tokio::test]
async fn a_token_is_to_be_used_within_a_minute_and_then_serves_its_stream() {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    let world = World::at(Arc::new(clock.clone()), |_| {}).await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    let id = path.rsplit('/').next().expect("an id");
    let token = || async {
        let body = json!({"execution_id": id});
        let answer = world.post("/api/v1/sse/tokens", body).await.json();
        answer["token"].as_str().expect("a token").to_owned()
    };
    let (used, unused) = (token().await, token().await);
    let open = |token: &str| {
        let call = Call::new("GET", format!("{}?token={token}", stream_of(&path)));
        async { world.open(call).await.status().as_u16() }
    };
    assert_eq!(open(&used).await, 200);
    clock.advance(Duration::from_secs(61));
    assert_eq!((open(&used).await, open(&unused).await), (200, 401));
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(open(&used).await, 200, "also the day after");
}

/// Authenticates every caller as the same principal. A test can change or remove the principal.
pub(crate) struct Changing(pub(crate) Mutex<Option<Principal>>);

impl Changing {
    pub(crate) fn set(&self, principal: Option<Principal>) {
        *self.0.lock().expect("not poisoned") = principal;
    }
}

#[async_trait::async_trait]
impl Authenticator for Changing {
    async fn authenticate(&self, _: &HeaderMap) -> Result<Principal, AuthError> {
        self.recognize("").await
    }
    async fn receipt(&self, _: &HeaderMap) -> Result<String, AuthError> {
        Ok(String::new())
    }
    async fn recognize(&self, _: &str) -> Result<Principal, AuthError> {
        let principal = self.0.lock().expect("not poisoned");
        principal.clone().ok_or(AuthError)
    }
}

#[tokio::test]
async fn a_token_is_good_for_no_more_than_the_credentials_that_it_was_given_for() {
    let organization = OrganizationId::new();
    let principal = Principal {
        actor: "a".to_owned(),
        organizations: vec![organization],
        scopes: Scope::ALL.to_vec(),
    };
    let authenticator = Arc::new(Changing(Mutex::new(Some(principal.clone()))));
    let given = Arc::clone(&authenticator);
    let world = World::with(|options| options.authenticator = given).await;
    let path = format!("/api/v1/workflows/{}", WorkflowId::new());
    let draft = json!({"name": "x", "nodes": [{"id": "a", "type": "echo"}]});
    world.send(Call::new("PUT", path.clone()).json(draft)).await;
    let made = world
        .send(Call::new("POST", format!("{path}/executions")))
        .await;
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let call = Call::new("POST", "/api/v1/sse/tokens").json(json!({"execution_id": id}));
    let token = world.send(call).await.json()["token"].clone();
    let token = token.as_str().expect("a token");
    let stream = format!("/api/v1/sse/executions/{id}/stream?token={token}");
    for (now, status) in [
        (Some(principal.clone()), 200),
        (None, 401),
        (
            Some(Principal {
                organizations: vec![OrganizationId::new()],
                ..principal.clone()
            }),
            401,
        ),
        (
            Some(Principal {
                scopes: vec![Scope::ExecutionsWrite],
                ..principal.clone()
            }),
            401,
        ),
        (Some(principal), 200),
    ] {
        let told = format!("{now:?}");
        authenticator.set(now);
        let response = world.open(Call::new("GET", stream.clone())).await;
        assert_eq!(response.status().as_u16(), status, "{told}");
    }
}

#[tokio::test]
async fn no_event_is_lost_whatever_it_fell_between() {
    let world = World::new().await;
    for cut in 0..6 {
        let path = world.start(json!([
            {"id": "a", "type": "echo"}, {"id": "b", "type": "echo"}, {"id": "n", "type": "gated"},
        ])).await;
        // Let the gated step end, so that the execution continues while its stream is opened.
        world.gate.notify_one();
        let call = Call::new("GET", stream_of(&path)).token("user");
        let text = world
            .send(call.header("last-event-id", format!("{cut}-0")))
            .await
            .text;
        let frames = parse(&text);
        let gap = frames.iter().any(|frame| frame.event == "gap");
        let ids: Vec<_> = frames.iter().filter_map(|frame| frame.id.clone()).collect();
        let first = if gap { 1 } else { cut + 1 };
        let expected: Vec<_> = (first..first + ids.len())
            .map(|seq| format!("{seq}-0"))
            .collect();
        assert_eq!(ids, expected);
        assert_eq!(
            frames.last().map(|f| f.event.as_str()),
            Some("execution.completed")
        );
    }
}
