//! Publishing events on the bus.
//!
//! On one server a script adds each event to its execution's stream and to the firehose, atomically and in
//! one round trip. The stream's entry ids are the events' numbers. So the script sees whether an event is
//! already in the stream, follows the stream's last event, or leaves a gap.

use std::sync::{Arc, LazyLock};

use docg_core::{event::Event, ids::ExecutionId};
use redis::{RedisResult, Script};

use crate::{
    bus::Shared,
    codec::{Encoded, encode},
    connect::Connection,
    error::Error,
};

/// The maximum number of events in one call of a script. Redis does nothing else while a script runs.
const BATCH: usize = 200;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/firehose.lua"),
        include_str!("scripts/stream.lua"),
        include_str!("scripts/publish.lua")
    ))
});

static APPEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/stream.lua"),
        include_str!("scripts/append.lua")
    ))
});

/// An execution whose events were refused because they leave a gap, and the number of the last event in
/// its stream, or 0 if the stream is empty.
pub(crate) type Refused = (ExecutionId, u64);

/// The events that an empty stream accepts: only the execution's first event, or any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    #[cfg(feature = "cluster")]
    WithTheFirst,
    WithAny,
}

/// Publishes events in their order.
pub(crate) async fn publish(shared: &Shared, events: &[Arc<Event>]) -> Result<(), Error> {
    for batch in events.chunks(BATCH) {
        let refused = shared
            .link
            .run(|connection| publish_batch(shared, batch, connection))
            .await?;
        check(shared, batch, refused)?;
    }
    Ok(())
}

/// Adds an execution's events to its stream, but not to the firehose.
pub(crate) async fn restore(shared: &Shared, events: &[Arc<Event>]) -> Result<(), Error> {
    for batch in events.chunks(BATCH) {
        let refused = shared
            .link
            .run(|connection| restore_batch(shared, batch, connection))
            .await?;
        check(shared, batch, refused)?;
    }
    Ok(())
}

/// Turns a refusal into an error that names the missing events.
fn check(shared: &Shared, batch: &[Arc<Event>], refused: Option<Refused>) -> Result<(), Error> {
    let Some((execution, head)) = refused else {
        return Ok(());
    };
    let first = batch.iter().find(|event| event.execution_id == execution);
    // If the stream is empty, ask only for as many earlier events as a stream keeps.
    let kept = shared.config.stream_maxlen.get();
    let reach = first.map_or(1, |event| event.seq.saturating_sub(kept).max(1));
    let from = if head > 0 { head + 1 } else { reach };
    Err(Error::Behind {
        execution,
        head,
        from,
    })
}

async fn publish_batch(
    shared: &Shared,
    batch: &[Arc<Event>],
    mut connection: Connection,
) -> RedisResult<Option<Refused>> {
    #[cfg(feature = "cluster")]
    if let Connection::Cluster(connection) = connection {
        return crate::cluster::publish(shared, batch, connection).await;
    }
    let Shared { config, keys, .. } = shared;
    let mut call = PUBLISH.prepare_invoke();
    call.key(&keys.firehose)
        .arg(config.stream_maxlen.get())
        .arg(config.firehose_maxlen.get())
        .arg(config.stream_ttl.as_secs());
    let mut executions: Vec<ExecutionId> = Vec::new();
    for event in batch {
        let id = event.execution_id;
        // Search from the end, because events of one execution mostly come together.
        let known = executions.iter().rposition(|known| *known == id);
        let stream = known.unwrap_or_else(|| {
            executions.push(id);
            call.key(keys.execution(id));
            executions.len() - 1
        });
        let Encoded { wire, stored_data } = encode(event);
        // Lua counts from one and the first key is the firehose, so the first stream has the number 2.
        call.arg(stream + 2)
            .arg(id.to_string())
            .arg(event.seq)
            .arg(list_of(event))
            .arg(wire)
            .arg(stored_data.unwrap_or_default());
    }
    let refused: Option<(usize, u64)> = call.invoke_async(&mut connection).await?;
    Ok(refused.and_then(|(key, head)| Some((*executions.get(key.checked_sub(2)?)?, head))))
}

async fn restore_batch(
    shared: &Shared,
    batch: &[Arc<Event>],
    mut connection: Connection,
) -> RedisResult<Option<Refused>> {
    let Some(last) = batch.last() else {
        return Ok(None);
    };
    let (id, events) = (last.execution_id, batch.iter());
    let encoded: Vec<_> = events
        .map(|event| (event.seq, encode(event).wire))
        .collect();
    let behind = append(shared, id, &encoded, Beginning::WithAny, &mut connection).await?;
    #[cfg(feature = "cluster")]
    if let (Connection::Cluster(connection), None) = (&mut connection, behind) {
        crate::cluster::announced(shared, last, connection).await?;
    }
    Ok(behind.map(|head| (id, head)))
}

/// Adds events to an execution's stream. If they leave a gap, returns the number of the stream's last event.
pub(crate) async fn append(
    shared: &Shared,
    execution: ExecutionId,
    events: &[(u64, impl AsRef<str>)],
    beginning: Beginning,
    connection: &mut impl redis::aio::ConnectionLike,
) -> RedisResult<Option<u64>> {
    let Shared { config, keys, .. } = shared;
    let mut append = APPEND.key(keys.execution(execution));
    append
        .arg(config.stream_maxlen.get())
        .arg(config.stream_ttl.as_secs())
        .arg(u8::from(beginning == Beginning::WithAny));
    for (seq, json) in events {
        append.arg(*seq).arg(json.as_ref());
    }
    append.invoke_async(connection).await
}

/// The organization whose stream contains an event; empty if the event is not a list event.
pub(crate) fn list_of(event: &Event) -> String {
    if event.data.is_for_lists() {
        event.organization_id.to_string()
    } else {
        String::new()
    }
}
