//! How events get onto a cluster, where an execution's stream and the firehose lie on different
//! servers.
//!
//! No script can reach both, so each has one of its own, and each can be repeated without harm: a
//! publish that ended between them is made whole by the next. The firehose comes second, because
//! whoever has read an event live must find it in the stream.

use std::sync::{Arc, LazyLock};

use docg_core::{event::Event, ids::ExecutionId};
use futures::future::try_join_all;
use redis::{RedisResult, Script, cluster_async::ClusterConnection};

use crate::{bus::Shared, codec::encode, publish::list_of};

static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/append.lua")));
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(
        include_str!("scripts/firehose.lua"),
        include_str!("scripts/announce.lua")
    ))
});

pub(crate) async fn publish(
    shared: &Shared,
    batch: &[Arc<Event>],
    mut connection: ClusterConnection,
) -> RedisResult<()> {
    let encoded: Vec<String> = batch.iter().map(|event| encode(event)).collect();
    let mut executions: Vec<(ExecutionId, Vec<(u64, &str)>)> = Vec::new();
    let Shared { config, keys, .. } = shared;
    let mut announce = ANNOUNCE.prepare_invoke();
    announce
        .key(&keys.firehose)
        .arg(config.firehose_maxlen.get())
        .arg(config.stream_ttl.as_secs());
    for (event, json) in batch.iter().zip(&encoded) {
        let id = event.execution_id;
        let known = executions.iter().rposition(|(known, _)| *known == id);
        let index = known.unwrap_or_else(|| {
            executions.push((id, Vec::new()));
            announce.key(keys.head(id));
            executions.len() - 1
        });
        executions[index].1.push((event.seq, json));
        announce
            .arg(index + 2)
            .arg(id.to_string())
            .arg(event.seq)
            .arg(list_of(event))
            .arg(json);
    }
    let appends = executions.iter().map(|(id, events)| {
        let mut connection = connection.clone();
        async move {
            let mut append = APPEND.key(keys.execution(*id));
            append
                .arg(config.stream_maxlen.get())
                .arg(config.stream_ttl.as_secs());
            for (seq, json) in events {
                append.arg(*seq).arg(*json);
            }
            append.invoke_async::<()>(&mut connection).await
        }
    });
    try_join_all(appends).await?;
    announce.invoke_async(&mut connection).await
}
