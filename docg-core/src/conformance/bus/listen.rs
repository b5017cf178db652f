//! Helpers of the cases for buses.

use std::time::Duration;

use futures::StreamExt;

use crate::{
    ids::ExecutionId,
    ports::{BusError, EventBus, EventStream},
};

/// Waits for a result under a timeout, so that a case fails instead of hanging.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("comes in time")
}

pub(super) async fn subscribe(
    bus: &dyn EventBus,
    execution: ExecutionId,
    after: u64,
) -> EventStream {
    soon(bus.subscribe(execution, after))
        .await
        .expect("subscribes")
}

/// The sequence numbers of the next `count` events.
pub(super) async fn next(stream: &mut EventStream, count: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        seqs.push(
            soon(stream.next())
                .await
                .expect("goes on")
                .expect("is an event")
                .seq,
        );
    }
    seqs
}

/// The sequence numbers of all events until the stream ends, and the error that ended the stream.
pub(super) async fn rest(stream: &mut EventStream) -> (Vec<u64>, Option<BusError>) {
    let mut seqs = Vec::new();
    loop {
        match soon(stream.next()).await {
            Some(Ok(event)) => seqs.push(event.seq),
            Some(Err(error)) => {
                assert!(
                    soon(stream.next()).await.is_none(),
                    "an error ends the stream"
                );
                return (seqs, Some(error));
            }
            None => return (seqs, None),
        }
    }
}

pub(super) fn seqs(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}
