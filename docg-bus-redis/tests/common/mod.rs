//! What the tests do again and again.
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

/// With a timeout that a busy machine does not run into.
pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig::new(url)
        .expect("is a URL")
        .timeout(Duration::from_secs(5))
        .stream_ttl(Duration::from_secs(120))
}

/// A bus that has connected.
pub(crate) async fn open(config: RedisConfig) -> Arc<RedisBus> {
    let bus = RedisBus::open(config).expect("is a configuration");
    soon(bus.ready()).await;
    Arc::new(bus)
}

/// A connection that is no part of a bus.
pub(crate) async fn raw(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("is a URL");
    // Longer than what the tests make the server do.
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(10)))
        .set_response_timeout(Some(Duration::from_secs(10)));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .expect("connects")
}

/// Asks in the words of `redis-cli`.
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

/// The connections that neither wait for events nor ask this.
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

/// The numbers of the next `count` events.
pub(crate) async fn next(stream: &mut EventStream, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        let event = soon(stream.next()).await.expect("goes on");
        seqs.push(event.expect("is an event").seq);
    }
    seqs
}

/// The error that ends a stream.
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
