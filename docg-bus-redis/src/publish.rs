//! How events get onto the bus.
//!
//! On one server a script adds each event to its execution's stream and to the firehose, as one
//! unit and in one round trip. The stream tells whether the event is new: its entries' ids are the
//! events' numbers, and Redis refuses one that does not follow.

use std::sync::{Arc, LazyLock};

use docg_core::{event::Event, ids::ExecutionId};
use redis::{RedisResult, Script};

use crate::{bus::Shared, codec::encode, connect::Connection, error::Error};

/// Events that one call of a script takes on: Redis does nothing else meanwhile.
const BATCH: usize = 200;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/firehose.lua"),
        include_str!("scripts/publish.lua")
    ))
});

/// Publishes events in their order.
pub(crate) async fn publish(shared: &Shared, events: &[Arc<Event>]) -> Result<(), Error> {
    for batch in events.chunks(BATCH) {
        shared
            .link
            .run(|connection| publish_batch(shared, batch, connection))
            .await?;
    }
    Ok(())
}

async fn publish_batch(
    shared: &Shared,
    batch: &[Arc<Event>],
    mut connection: Connection,
) -> RedisResult<()> {
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
        // From the end: events of one execution mostly come together.
        let known = executions.iter().rposition(|known| *known == id);
        let stream = known.unwrap_or_else(|| {
            executions.push(id);
            call.key(keys.execution(id));
            executions.len() - 1
        });
        // Lua counts from one, and the firehose is first.
        call.arg(stream + 2)
            .arg(id.to_string())
            .arg(event.seq)
            .arg(list_of(event))
            .arg(encode(event));
    }
    call.invoke_async(&mut connection).await
}

/// The organization in whose list an event is; empty for none.
pub(crate) fn list_of(event: &Event) -> String {
    if event.data.is_for_lists() {
        event.organization_id.to_string()
    } else {
        String::new()
    }
}
