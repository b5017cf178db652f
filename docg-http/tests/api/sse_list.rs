use axum::{body::BodyDataStream, response::Response};
use futures::StreamExt;
use serde_json::json;

use crate::{
    sse::{Frame, parse, within},
    support::{Call, World},
};

const PATH: &str = "/api/v1/sse/executions/stream";

/// A reader of an organization's stream, which returns one frame at a time and leaves out heartbeats.
struct Reader(BodyDataStream, Vec<Frame>);

impl Reader {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self(response.into_body().into_data_stream(), Vec::new())
    }

    async fn open(world: &World, call: Call) -> Self {
        let mut reader = Self::of(world.open(call).await);
        let connected = reader.next().await;
        assert!(connected.retry.is_some());
        assert_eq!(
            (connected.event.as_str(), &connected.id),
            ("connected", &None)
        );
        let organization = world.organization.to_string();
        assert_eq!(connected.json(), json!({"organization_id": organization}));
        reader
    }

    async fn next(&mut self) -> Frame {
        while self.1.is_empty() {
            let bytes = within(self.0.next())
                .await
                .expect("goes on")
                .expect("bytes");
            let text = std::str::from_utf8(&bytes).expect("UTF-8");
            self.1 = parse(text);
            self.1.retain(|frame| frame.event != "heartbeat");
        }
        self.1.remove(0)
    }

    /// Reads frames up to the first `execution.completed`, and returns them all, including the last.
    async fn until_completed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            let done = frame.event == "execution.completed";
            frames.push(frame);
            if done {
                return frames;
            }
        }
    }
}

fn list() -> Call {
    Call::new("GET", PATH).token("user")
}

fn from(id: &str) -> Call {
    list().header("last-event-id", id)
}

#[tokio::test]
async fn a_list_s_stream_shows_what_happens_to_all_runs() {
    let world = World::new().await;
    let mut reader = Reader::open(&world, list()).await;
    for _ in 0..2 {
        let path = world.completed().await;
        let frames = reader.until_completed().await;
        let id = path.rsplit('/').next().expect("an id");
        let types: Vec<_> = frames.iter().map(|frame| frame.event.as_str()).collect();
        assert_eq!(types[0], "execution.created");
        assert!(
            types.contains(&"execution.status_changed") && types.contains(&"execution.progress")
        );
        assert!(!types.iter().any(|it| it.starts_with("step.")), "{types:?}");
        for frame in &frames {
            assert_eq!(frame.json()["execution_id"], id);
            assert!(frame.id.is_some());
        }
    }
}

#[tokio::test]
async fn a_list_s_stream_goes_on_from_any_id() {
    let world = World::new().await;
    let mut reader = Reader::open(&world, list()).await;
    world.completed().await;
    let all = reader.until_completed().await;
    drop(reader);
    world.completed().await;
    for (cut, frame) in all.iter().enumerate() {
        let id = frame.id.as_deref().expect("an id");
        let mut back = Reader::open(&world, from(id)).await;
        let mut rest = Vec::new();
        for _ in cut + 1..all.len() {
            rest.push(back.next().await);
        }
        assert_eq!(rest, all[cut + 1..]);
        assert_eq!(
            back.next().await.event,
            "execution.created",
            "the next run's"
        );
    }
}

#[tokio::test]
async fn an_id_that_a_list_does_not_know_gives_a_gap_and_goes_on_live() {
    let world = World::new().await;
    for id in ["7-0", "not an id", "%00", "é"] {
        let mut reader = Reader::open(&world, from(id)).await;
        let gap = reader.next().await;
        assert_eq!((gap.event.as_str(), &gap.id), ("gap", &None), "{id}");
        assert_eq!(gap.json()["reason"], "too_old");
        world.completed().await;
        assert_eq!(reader.next().await.event, "execution.created");
    }
    for beginning in ["0", "0-0", ""] {
        let mut reader = Reader::open(&world, from(beginning)).await;
        world.completed().await;
        assert_eq!(reader.next().await.event, "execution.created");
    }
}

#[tokio::test]
async fn a_list_s_stream_is_the_organization_s_own() {
    let world = World::new().await;
    let foreign = Call::new("GET", PATH).token("stranger");
    let mut foreign = Reader::of(world.open(foreign).await);
    assert_eq!(foreign.next().await.event, "connected");
    let mut own = Reader::open(&world, list()).await;
    world.completed().await;
    own.until_completed().await;
    let nothing = tokio::time::timeout(std::time::Duration::from_millis(50), foreign.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let call = Call::new("GET", PATH).token("nothing");
    world.send(call).await.problem(403, "missing_scope");
    world
        .send(Call::new("GET", PATH))
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn a_token_opens_the_stream_that_it_was_given_for_and_no_other() {
    let world = World::new().await;
    let path = world.completed().await;
    let id = path.rsplit('/').next().expect("an id");
    let streams = [
        (json!({}), PATH.to_owned()),
        (
            json!({"execution_id": id}),
            format!("/api/v1/sse/executions/{id}/stream"),
        ),
    ];
    for (body, own) in &streams {
        let token = world.post("/api/v1/sse/tokens", body.clone()).await.json();
        let token = token["token"].as_str().expect("a token");
        for (_, stream) in &streams {
            let call = || Call::new("GET", format!("{stream}?token={token}"));
            if stream == own {
                assert_eq!(world.open(call()).await.status(), 200);
            } else {
                world
                    .send(call())
                    .await
                    .problem(403, "token_for_another_stream");
            }
        }
    }
    let unknown = Call::new("GET", format!("{PATH}?token=unknown"));
    world.send(unknown).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_list_s_stream_counts_as_a_stream_and_ends_at_shutdown() {
    let shutdown = tokio_util::sync::CancellationToken::new();
    let given = shutdown.clone();
    let world = World::with(|options| {
        options.streams_per_organization = 1;
        options.shutdown = given;
    })
    .await;
    let mut reader = Reader::open(&world, list()).await;
    world.send(list()).await.problem(429, "too_many_streams");
    shutdown.cancel();
    assert!(within(reader.0.next()).await.is_none(), "it has ended");
}
