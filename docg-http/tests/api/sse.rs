use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Call, World};

/// A frame as a strict reader sees it (HTML standard, section 9.2.6).
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: Option<String>,
    event: String,
    data: String,
    retry: Option<u64>,
}

/// Reads a stream; anything that the standard would ignore in silence is an error here.
fn parse(text: &str) -> Vec<Frame> {
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
        frames.push(frame);
    }
    frames
}

impl Frame {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("JSON")
    }
}

fn stream_of(path: &str) -> String {
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
    let connected = frames[1].json();
    assert_eq!(
        (frames[1].event.as_str(), &frames[1].id),
        ("connected", &None)
    );
    assert_eq!(
        (&connected["status"], &connected["progress"]),
        (&json!("completed"), &json!(100))
    );
    let events = &frames[2..];
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
    let all = parse(&world.get(&stream_of(&path)).await.text).split_off(2);
    let last = all.last().and_then(|e| e.id.clone()).expect("an id");
    for cut in 0..all.len() - 1 {
        let id = all[cut].id.clone().expect("an id");
        let call = Call::new("GET", format!("{}?last_event_id=9-0", stream_of(&path)))
            .token("user")
            .header("last-event-id", id);
        let rest = parse(&world.send(call).await.text).split_off(2);
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
    let all = parse(&world.get(&stream_of(&path)).await.text).split_off(2);
    for (id, reason) in [
        ("garbage", "unknown_id"),
        ("$", "unknown_id"),
        ("9999-0", "ahead"),
        ("1-1", "unknown_id"),
        ("99999999999999999999-0", "unknown_id"),
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
        assert_eq!((frames[2].event.as_str(), &frames[2].id), ("gap", &None));
        assert_eq!(
            (&frames[2].json()["reason"], &frames[2].json()["earliest"]),
            (&json!(reason), &json!("1-0"))
        );
        assert_eq!(frames[3..], all[..], "then from the earliest that is left");
    }
}

#[tokio::test]
async fn an_idle_stream_says_that_it_lives_and_goes_live_without_a_seam() {
    let world = World::with(|options| options.heartbeat = Duration::from_millis(20)).await;
    let path = world.start(json!([{"id": "n", "type": "gated"}])).await;
    world.until(&path, "step.started").await;
    let stream = stream_of(&path);
    let reading = world.get(&stream);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.gate.notify_one();
    };
    let (answer, ()) = tokio::join!(reading, ending);
    let frames = parse(&answer.text);
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
