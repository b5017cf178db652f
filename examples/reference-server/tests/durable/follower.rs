//! Follows the events of an execution as an EventSource does: after every break it reconnects with the last
//! id, at any server that answers.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

use crate::{client::frame, program::DEADLINE, server::Servers};

/// The silence after which a follower leaves a server. Heartbeats arrive more often.
const SILENCE: Duration = Duration::from_secs(8);

/// The events and breaks that a follower has seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Value>,
    /// The number of streams that the follower opened.
    pub(crate) opened: usize,
    /// The number of streams that broke off before their end.
    pub(crate) broken: usize,
    pub(crate) heartbeats: usize,
}

impl Seen {
    /// The events of this type for a node's step.
    pub(crate) fn of<'a>(
        &'a self,
        event_type: &'a str,
        node: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let is = move |event: &&Value| {
            event["event_type"] == event_type && event["data"]["node_id"] == node
        };
        self.events.iter().filter(is)
    }
}

pub(crate) struct Follower {
    id: String,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Starts following an execution.
    pub(crate) fn start(servers: &Servers, id: &str) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(follow(servers.clone(), id.to_owned(), sender));
        let id = id.to_owned();
        Self { id, seen, task }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until `reached` is true of the events and breaks that the follower has seen.
    pub(crate) async fn until(&mut self, what: &str, reached: impl FnMut(&Seen) -> bool) -> Seen {
        let reading = tokio::time::timeout(DEADLINE, self.seen.wait_for(reached)).await;
        if let Ok(Ok(seen)) = reading.map(|seen| seen.map(|seen| seen.clone())) {
            return seen;
        }
        panic!("{} never came to {what}: {:#?}", self.id, self.seen());
    }

    /// Waits until a node's step has an event of this type.
    pub(crate) async fn until_it_has(&mut self, event_type: &str, node: &str) -> Seen {
        let what = format!("{event_type} of {node}");
        self.until(&what, |seen| seen.of(event_type, node).next().is_some())
            .await
    }

    /// Waits until a node's step has started this many times. Returns the last start's event.
    pub(crate) async fn until_it_started(&mut self, node: &str, times: usize) -> Value {
        let what = format!("{times} starts of {node}");
        let began = |seen: &Seen| seen.of("step.started", node).nth(times - 1).cloned();
        let seen = self.until(&what, |seen| began(seen).is_some()).await;
        began(&seen).expect("it was seen")
    }

    /// Follows the execution to its end. Asserts that every event came once and in order, despite all breaks.
    pub(crate) async fn finish(mut self) -> Seen {
        let ended = tokio::time::timeout(DEADLINE, &mut self.task).await;
        let Ok(ended) = ended else {
            panic!("{} has no end: {:#?}", self.id, self.seen());
        };
        ended.expect("what it read was right");
        let seen = self.seen();
        let last = seen.events.last().expect("there are events");
        let ends = ["completed", "failed", "canceled"].map(|end| format!("execution.{end}"));
        let last = last["event_type"].as_str().expect("a type");
        assert!(ends.iter().any(|end| end == last), "{last} is no end");
        seen
    }
}

async fn follow(servers: Servers, id: String, seen: watch::Sender<Seen>) {
    for turn in 0.. {
        let server = servers.turn(turn);
        let path = format!("/api/v1/sse/executions/{id}/stream");
        let last = seen.borrow().events.len();
        let request = server
            .request(Method::GET, &path)
            .header("Last-Event-ID", format!("{last}-0"));
        match tokio::time::timeout(SILENCE, request.send()).await {
            Ok(Ok(answer)) if answer.status() == StatusCode::NO_CONTENT => return,
            Ok(Ok(answer)) if answer.status().is_success() => {
                seen.send_modify(|seen| seen.opened += 1);
                if !read(answer, &seen).await {
                    seen.send_modify(|seen| seen.broken += 1);
                }
            }
            // The server is down, or has not started yet.
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads a stream. Returns true if it ended regularly, and false if it broke.
async fn read(answer: reqwest::Response, seen: &watch::Sender<Seen>) -> bool {
    let mut text = String::new();
    let mut body = answer.bytes_stream();
    loop {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(bytes))) => text.push_str(std::str::from_utf8(&bytes).expect("ASCII")),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        while let Some((block, rest)) = text.split_once("\n\n") {
            assert!(!block.contains("event: gap"), "nothing was purged: {block}");
            if block.contains("event: heartbeat") {
                seen.send_modify(|seen| seen.heartbeats += 1);
            }
            if let Some((id, _, event)) = frame(block) {
                seen.send_modify(|seen| {
                    let seq = seen.events.len() + 1;
                    assert_eq!(id, format!("{seq}-0"), "a hole or a repeat: {event}");
                    assert_eq!(event["seq"], seq, "{event}");
                    seen.events.push(event);
                });
            }
            text = rest.to_owned();
        }
    }
}
