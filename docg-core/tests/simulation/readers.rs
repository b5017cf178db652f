//! A reader watches an execution as a browser does: if the stream breaks off, the reader asks another process
//! for all events after the last event that it has seen.

use std::{sync::Arc, time::Duration};

use docg_core::{event::Event, ids::OrganizationId, prelude::*};
use futures::StreamExt;
use tokio::sync::watch;

use crate::process::Life;

/// A process that serves readers.
pub(crate) type Server = (Engine, Life);

/// Reads every event after the number `after`, and keeps `seen` up to date with the events read so far.
pub(crate) async fn watch_run(
    servers: watch::Receiver<Vec<Server>>,
    organization: OrganizationId,
    id: ExecutionId,
    after: u64,
    seen: watch::Sender<Vec<Arc<Event>>>,
) {
    for turn in 0.. {
        let (engine, life) = {
            let servers = servers.borrow();
            servers[turn % servers.len()].clone()
        };
        let last = seen.borrow().last().map_or(after, |event| event.seq);
        let reading = async {
            let mut feed = engine.feed(organization, id, last).await.ok()?;
            loop {
                match feed.next().await {
                    Some(Ok(event)) => seen.send_modify(|seen| seen.push(event)),
                    Some(Err(_)) => return None,
                    None => return Some(()),
                }
            }
        };
        let ended = tokio::select! {
            ended = reading => ended,
            () = life.over() => None,
        };
        if ended.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
