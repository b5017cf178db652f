//! Publishing in a cluster, where an execution's stream and the firehose are on different servers.
//!
//! No script can write to both servers, so the stream and the firehose each have a script. Both scripts can
//! be repeated without harm. If a publish ends after the first script, the next publish completes it: the
//! firehose refuses an event until it has the earlier events of the execution. The firehose is written
//! second, because a reader that got an event live must also find it in the execution's stream.

use std::sync::{Arc, LazyLock};

use docg_core::{event::Event, ids::ExecutionId};
use futures::future::try_join_all;
use redis::{RedisResult, Script, cluster_async::ClusterConnection};

use crate::{
    bus::Shared,
    codec::{Encoded, encode},
    publish::{Beginning, Refused, append, list_of},
};

static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/firehose.lua"),
        include_str!("scripts/announce.lua")
    ))
});

static ANNOUNCED: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/announced.lua")));

pub(crate) async fn publish(
    shared: &Shared,
    batch: &[Arc<Event>],
    mut connection: ClusterConnection,
) -> RedisResult<Option<Refused>> {
    let encoded: Vec<Encoded> = batch.iter().map(|event| encode(event)).collect();
    let mut executions: Vec<(ExecutionId, Vec<(u64, &str)>)> = Vec::new();
    for (event, Encoded { wire, .. }) in batch.iter().zip(&encoded) {
        let id = event.execution_id;
        let known = executions.iter().rposition(|(known, _)| *known == id);
        let index = known.unwrap_or_else(|| {
            executions.push((id, Vec::new()));
            executions.len() - 1
        });
        executions[index].1.push((event.seq, wire));
    }
    let appends = executions.iter().map(|(id, events)| {
        let mut connection = connection.clone();
        async move {
            append(
                shared,
                *id,
                events,
                Beginning::WithTheFirst,
                &mut connection,
            )
            .await
        }
    });
    let heads = try_join_all(appends).await?;
    let executions = executions.iter().map(|(id, _)| *id);
    let (taken, refused): (Vec<_>, Vec<_>) =
        executions.zip(heads).partition(|(_, head)| head.is_none());
    let refused = refused.first().and_then(|(id, head)| Some((*id, (*head)?)));
    if taken.is_empty() {
        return Ok(refused);
    }
    let Shared { config, keys, .. } = shared;
    let mut announce = ANNOUNCE.prepare_invoke();
    announce
        .key(&keys.firehose)
        .arg(config.firehose_maxlen.get())
        .arg(config.stream_ttl.as_secs());
    for (id, _) in &taken {
        announce.key(keys.head(*id));
    }
    for (event, Encoded { wire, stored_data }) in batch.iter().zip(&encoded) {
        let id = event.execution_id;
        let Some(index) = taken.iter().rposition(|(taken, _)| *taken == id) else {
            continue;
        };
        announce
            .arg(index + 2)
            .arg(id.to_string())
            .arg(event.seq)
            .arg(list_of(event))
            .arg(wire)
            .arg(stored_data.as_deref().unwrap_or_default());
    }
    let behind: Option<(usize, u64)> = announce.invoke_async(&mut connection).await?;
    let unannounced =
        behind.and_then(|(key, head)| Some((taken.get(key.checked_sub(2)?)?.0, head)));
    Ok(refused.or(unannounced))
}

/// Records that an execution's events up to `last` need not be added to the firehose again.
pub(crate) async fn announced(
    shared: &Shared,
    last: &Event,
    connection: &mut ClusterConnection,
) -> RedisResult<()> {
    let Shared { config, keys, .. } = shared;
    let mut announced = ANNOUNCED.key(keys.head(last.execution_id));
    announced.arg(last.seq).arg(config.stream_ttl.as_secs());
    announced.invoke_async(connection).await
}
