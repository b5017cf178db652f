//! Sets a TTL on streams that would otherwise stay forever.

use docg_core::ports::BusError;
use redis::RedisResult;

use crate::{
    bus::Shared,
    connect::{Connection, Node, primaries},
};

/// The number of keys examined in one round trip.
const BATCH: usize = 500;

/// The result of a cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CleanedUp {
    /// The number of executions' streams that were examined.
    pub seen: u64,
    /// The number of examined streams whose TTL was set.
    pub expiring: u64,
}

/// Sets the configured TTL on each execution's stream that has no TTL or a longer one.
pub(crate) async fn clean_up(shared: &Shared) -> Result<CleanedUp, BusError> {
    let mut done = CleanedUp::default();
    for node in shared.link.run(primaries).await? {
        let mut cursor = String::from("0");
        loop {
            let (next, keys): (String, Vec<String>) = shared
                .link
                .run(|connection| scan(shared, connection, &node, &cursor))
                .await?;
            done.seen += keys.len() as u64;
            done.expiring += shared
                .link
                .run(|connection| expire(shared, connection, &node, &keys))
                .await?;
            if next == "0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(done)
}

async fn scan(
    shared: &Shared,
    mut connection: Connection,
    node: &Node,
    cursor: &str,
) -> RedisResult<(String, Vec<String>)> {
    let mut scan = redis::pipe();
    scan.cmd("SCAN")
        .arg(cursor)
        .arg("MATCH")
        .arg(shared.keys.executions())
        .arg("COUNT")
        .arg(BATCH)
        .arg("TYPE")
        .arg("stream");
    let (page,) = connection.ask_node(node, scan).await?;
    Ok(page)
}

async fn expire(
    shared: &Shared,
    mut connection: Connection,
    node: &Node,
    keys: &[String],
) -> RedisResult<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    let ttl = i64::try_from(shared.config.stream_ttl.as_secs()).unwrap_or(i64::MAX);
    let mut ttls = redis::pipe();
    keys.iter().for_each(|key| {
        ttls.cmd("TTL").arg(key);
    });
    let ttls: Vec<i64> = connection.ask_node(node, ttls).await?;
    let mut expires = redis::pipe();
    // -1 means that the key has no TTL, -2 that it no longer exists.
    for (key, _) in keys
        .iter()
        .zip(ttls)
        .filter(|(_, left)| *left == -1 || *left > ttl)
    {
        expires.cmd("EXPIRE").arg(key).arg(ttl);
    }
    if expires.is_empty() {
        return Ok(0);
    }
    let done: Vec<u64> = connection.ask_node(node, expires).await?;
    Ok(done.iter().sum())
}
