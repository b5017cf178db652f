//! Streams that are refused, streams that end, and readers that reconnect.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::StatusCode;
use docg_core::{ids::OrganizationId, ports::TtlKey};
use docg_http::{Principal, Scope};
use futures::future::join_all;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    sse::{Changing, parse, stream_of, within},
    support::{Call, World},
};

const LIST: &str = "/api/v1/sse/executions/stream";

/// Starts an execution that runs until the test notifies the world's gate, and returns its path.
async fn open_run(world: &World) -> String {
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    path
}

#[tokio::test]
async fn an_event_source_that_is_refused_for_now_is_told_when_to_come_back() {
    let world = World::with(|options| options.streams_per_organization = 0).await;
    let path = open_run(&world).await;
    for stream in [stream_of(&path), LIST.to_owned()] {
        let call = || Call::new("GET", stream.clone()).token("user");
        world.send(call()).await.problem(429, "too_many_streams");
        let soft = world
            .send(call().header("accept", "text/event-stream"))
            .await;
        assert_eq!(
            soft.status,
            StatusCode::OK,
            "anything else would be for good"
        );
        assert_eq!(soft.header("content-type"), "text/event-stream");
        let retry = soft
            .text
            .strip_prefix("retry: ")
            .and_then(|rest| rest.lines().next());
        let retry: u64 = retry
            .and_then(|millis| millis.parse().ok())
            .expect("a time");
        assert!((30_000..60_000).contains(&retry), "{}", soft.text);
        assert!(!soft.text.contains("data:") && soft.text.ends_with("\n\n"));
    }
    let wrong = Call::new("GET", format!("{LIST}?token=x")).header("accept", "text/event-stream");
    world.send(wrong).await.problem(401, "unauthorized");
}

/// Tokio's time is stopped while the test works, so that the stream does not age on a busy machine.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_age_and_its_reader_is_looked_at_again() {
    let organization = OrganizationId::new();
    let principal = Principal {
        actor: "a".to_owned(),
        organizations: vec![organization],
        scopes: Scope::ALL.to_vec(),
    };
    let authenticator = Arc::new(Changing(Mutex::new(Some(principal))));
    let given = Arc::clone(&authenticator);
    let mut world = World::with(|options| {
        options.authenticator = given;
        // The stream lives long enough to replay the events that the execution already has.
        options.stream_age = Duration::from_secs(1);
    })
    .await;
    world.organization = organization;
    let path = open_run(&world).await;
    let first = parse(&within(world.get(&stream_of(&path))).await.text);
    let retry = first[0].retry.expect("when to come back");
    assert!(retry <= 3_000, "{retry}");
    let last = first.iter().rev().find_map(|frame| frame.id.clone());
    let back = Call::new("GET", stream_of(&path))
        .token("user")
        .header("last-event-id", last.expect("an id"));
    let again = parse(&within(world.send(back)).await.text);
    assert!(
        again.iter().all(|frame| frame.id.is_none()),
        "nothing twice: {again:?}"
    );
    within(world.get(LIST)).await;
    authenticator.set(None);
    for stream in [stream_of(&path), LIST.to_owned()] {
        world.get(&stream).await.problem(401, "unauthorized");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_end_spread_over_the_time_of_a_drain() {
    let (draining, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let given = (draining.clone(), shutdown.clone());
    let world = World::with(|options| {
        (options.draining, options.shutdown) = given;
        options.drain_over = Duration::from_millis(500);
    })
    .await;
    let path = open_run(&world).await;
    draining.cancel();
    let ready = world.send(Call::new("GET", "/readyz")).await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()),
        (503, json!({"status": "shutting_down"}))
    );
    let mut opened = Vec::new();
    for _ in 0..16 {
        let stream = stream_of(&path);
        opened.push(world.open(Call::new("GET", stream).token("user")).await);
    }
    shutdown.cancel();
    let began = Instant::now();
    let ends = join_all(opened.into_iter().map(|stream| async {
        let body = axum::body::to_bytes(stream.into_body(), usize::MAX);
        body.await.expect("it ends well");
        began.elapsed()
    }));
    let mut ends = within(ends).await;
    ends.sort_unstable();
    let spread = ends[ends.len() - 1] - ends[0];
    assert!(spread > Duration::from_millis(100), "{ends:?}");
}

#[tokio::test]
async fn streams_are_never_compressed() {
    let world = World::new().await;
    let path = world.completed().await;
    let call = Call::new("GET", stream_of(&path))
        .token("user")
        .header("accept-encoding", "gzip, br, zstd");
    let answer = world.send(call).await;
    assert!(!answer.headers.contains_key("content-encoding"));
    assert!(answer.text.starts_with("retry: "));
}

#[tokio::test]
async fn a_stream_s_token_is_stored_hashed() {
    let world = World::new().await;
    let token = world.post("/api/v1/sse/tokens", json!({})).await.json();
    let token = token["token"].as_str().expect("a token");
    let stored = |key: &str| {
        let key = TtlKey {
            organization_id: None,
            kind: "sse_token",
            key: key.to_owned(),
        };
        let world = &world;
        async move { world.engine.recall(&key).await.expect("readable") }
    };
    assert_eq!(stored(token).await, None);
    let hashed = stored(&hex::encode(Sha256::digest(token)))
        .await
        .expect("stored");
    assert!(!hashed.value.to_string().contains(token));
}
