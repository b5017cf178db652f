//! Helpers that the test files share.
#![allow(dead_code, reason = "each test file takes what it needs")]

pub(crate) mod address;

use std::{sync::Arc, time::Duration};

use docg_bus_redis::{RedisBus, RedisConfig};
use docg_core::{
    event::Event,
    ids::ExecutionId,
    ports::{BusError, EventBus, EventStream},
};
use futures::StreamExt;
use redis::aio::MultiplexedConnection;

/// Waits for what must come soon, so that a test fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("comes in time")
}

/// A configuration with a timeout that is long enough for a busy machine.
pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig::new(url)
        .expect("is a URL")
        .timeout(Duration::from_secs(5))
        .stream_ttl(Duration::from_secs(120))
}

/// Opens a bus, and waits until it has connected.
pub(crate) async fn open(config: RedisConfig) -> Arc<RedisBus> {
    let bus = RedisBus::open(config).expect("is a configuration");
    soon(bus.ready()).await;
    Arc::new(bus)
}

/// Opens a connection of the test's own, which belongs to no bus.
pub(crate) async fn raw(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("is a URL");
    // Longer than any command of the tests takes.
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(10)))
        .set_response_timeout(Some(Duration::from_secs(10)));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("connects")
}

/// Sends a command that is written as for `redis-cli`, and returns the answer.
pub(crate) async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    question: &str,
) -> T {
    let mut cmd = redis::Cmd::new();
    question.split(' ').for_each(|word| {
        cmd.arg(word);
    });
    cmd.query_async(connection).await.expect("answers")
}

/// The ids of the connections that publish: neither the reading connection nor the one that asks here.
pub(crate) async fn publishing(connection: &mut MultiplexedConnection) -> Vec<String> {
    let clients: String = ask(connection, "CLIENT LIST").await;
    let is = |client: &str, cmd: &str| client.contains(&format!(" cmd={cmd}"));
    let publishing = clients
        .lines()
        .filter(|client| !is(client, "xread") && !is(client, "client"));
    let id = |client: &str| {
        client
            .split(' ')
            .next()?
            .strip_prefix("id=")
            .map(str::to_owned)
    };
    publishing.filter_map(id).collect()
}

pub(crate) async fn subscribe(bus: &RedisBus, execution: ExecutionId, after: u64) -> EventStream {
    soon(bus.subscribe(execution, after))
        .await
        .expect("subscribes")
}

/// Reads the next `count` events, and returns their numbers.
pub(crate) async fn next(stream: &mut EventStream, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        let event = soon(stream.next()).await.expect("goes on");
        seqs.push(event.expect("is an event").seq);
    }
    seqs
}

/// Reads a stream to its end, and returns the error that ends it.
pub(crate) async fn end(stream: &mut EventStream) -> BusError {
    loop {
        match soon(stream.next()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error,
            None => panic!("it ends without a reason"),
        }
    }
}

pub(crate) async fn publish(bus: &RedisBus, events: &[Arc<Event>]) {
    soon(bus.publish(events)).await.expect("publishes");
}
