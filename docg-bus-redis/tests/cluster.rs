//! The bus on a cluster.
#![cfg(feature = "cluster")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, config, end, events_and_head, next, open, publish, raw, soon, subscribe};
use docg_bus_redis::RedisBus;
use docg_core::{
    conformance::{BusCapabilities, BusUnderTest, fixtures::events},
    ports::{BusError, EventBus},
};
use docg_test_servers::redis::{Keyspace, PrivateServer};

async fn small() -> BusUnderTest {
    let keys = Keyspace::in_cluster();
    let config = config(keys.url())
        .prefix(keys.prefix())
        .expect("is a prefix")
        .timeout(Duration::from_secs(10))
        .stream_maxlen(100)
        .firehose_maxlen(100)
        .subscriber_buffer(20);
    let bus = || Arc::new(RedisBus::open(config.clone()).expect("is a configuration"));
    let bounds = BusCapabilities::default().history(100, 150).backlog(20, 22);
    BusUnderTest::from(bus()).peer(bus()).capabilities(bounds)
}

docg_core::bus_conformance!(small);

/// A publish that ended before the firehose had the events.
#[tokio::test]
async fn a_publish_that_was_half_done_is_made_whole_by_the_next() {
    let server = PrivateServer::start_cluster();
    let mut connection = raw(&server.url()).await;
    let bus = open(config(&cluster(&server))).await;
    let (events, head) = events_and_head(3);
    let mut reader = subscribe(&bus, events[0].execution_id, 0).await;
    publish(&bus, &events[..1]).await;
    assert_eq!(next(&mut reader, 1).await, [1]);
    publish(&bus, &events[1..]).await;
    assert_eq!(next(&mut reader, 2).await, [2, 3]);
    // As if the last two had not got there.
    let _: String = ask(&mut connection, &format!("SET {head} 1")).await;
    let before: u64 = ask(&mut connection, "XLEN docg:{firehose}").await;
    publish(&bus, &events).await;
    publish(&bus, &events).await;
    let after: u64 = ask(&mut connection, "XLEN docg:{firehose}").await;
    assert_eq!(after - before, 2);
}

#[tokio::test]
async fn a_killed_cluster_is_noticed_and_its_return_too() {
    let server = PrivateServer::start_cluster();
    let bus = open(config(&cluster(&server)).timeout(Duration::from_secs(1))).await;
    let all = events(3);
    let mut reader = subscribe(&bus, all[0].execution_id, 0).await;
    publish(&bus, &all[..1]).await;
    assert_eq!(next(&mut reader, 1).await, [1]);
    server.kill();
    assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
    let refused = soon(bus.publish(&events(1))).await;
    assert!(matches!(refused, Err(BusError::Unavailable(_))));
    server.start_again();
    let works = async {
        loop {
            bus.ready().await;
            if bus.publish(&all).await.is_ok() {
                break;
            }
        }
    };
    soon(works).await;
    let mut reader = subscribe(&bus, all[0].execution_id, 0).await;
    assert_eq!(next(&mut reader, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn cleanup_goes_through_a_cluster() {
    let server = PrivateServer::start_cluster();
    let mut connection = raw(&server.url()).await;
    let bus = open(config(&cluster(&server))).await;
    let all: Vec<_> = (0..50).map(|_| events(1).remove(0)).collect();
    publish(&bus, &all).await;
    let key = format!("docg:exec:{}", all[7].execution_id);
    let _: i64 = ask(&mut connection, &format!("PERSIST {key}")).await;
    let done = soon(bus.cleanup()).await.expect("cleans up");
    assert_eq!((done.seen, done.expiring), (50, 1));
    let left: i64 = ask(&mut connection, &format!("TTL {key}")).await;
    assert!((1..=120).contains(&left), "{left}");
}

fn cluster(server: &PrivateServer) -> String {
    format!("redis+cluster://127.0.0.1:{}", server.port())
}
