//! Tests of the bus on a Redis cluster: the conformance suite, failures, a failover and the cleanup.
#![cfg(feature = "cluster")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, config, next, open, publish, raw, soon, subscribe};
use docg_bus_redis::RedisBus;
use docg_core::{
    conformance::{
        BusCapabilities, BusUnderTest,
        fixtures::{events, events_of},
    },
    ids::OrganizationId,
    ports::{BusError, EventBus},
};
use docg_test_servers::redis::{Keyspace, PrivateCluster, PrivateServer};
use futures::StreamExt;

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

/// The number of keys on each server.
async fn sizes(cluster: &PrivateCluster) -> Vec<u64> {
    let mut sizes = Vec::new();
    for server in cluster.servers() {
        sizes.push(ask(&mut raw(&server.url()).await, "DBSIZE").await);
    }
    sizes
}

#[tokio::test]
async fn executions_are_spread_over_servers_and_read_together() {
    let cluster = PrivateCluster::start(3);
    let bus = open(config(&cluster.url())).await;
    let all: Vec<_> = (0..100).map(|_| events(2)).collect();
    let mut readers = Vec::new();
    for events in &all {
        readers.push(subscribe(&bus, events[0].execution_id, 0).await);
    }
    for half in [0, 1] {
        let batch: Vec<_> = all.iter().map(|events| events[half].clone()).collect();
        publish(&bus, &batch).await;
    }
    for (live, events) in readers.iter_mut().zip(&all) {
        assert_eq!(next(live, 2).await, [1, 2]);
        let mut late = subscribe(&bus, events[0].execution_id, 0).await;
        assert_eq!(next(&mut late, 2).await, [1, 2]);
    }
    let sizes = sizes(&cluster).await;
    assert!(sizes.iter().all(|keys| *keys > 10), "{sizes:?}");
}

/// A publish may break off after the execution's stream has the events and before the firehose has them.
#[tokio::test]
async fn a_publish_that_was_half_done_is_made_whole_by_the_next() {
    let cluster = PrivateCluster::start(1);
    let mut connection = raw(&cluster.servers()[0].url()).await;
    let bus = open(config(&cluster.url())).await;
    let events = events(4);
    let head = format!("docg:{{firehose}}:head:{}", events[0].execution_id);
    publish(&bus, &events[..3]).await;
    let length = "XLEN docg:{firehose}";
    assert_eq!(ask::<u64>(&mut connection, length).await, 3);
    // Reset the head, as if the firehose lacked the last two events.
    let _: String = ask(&mut connection, &format!("SET {head} 1")).await;
    publish(&bus, &events[..3]).await;
    publish(&bus, &events[..3]).await;
    assert_eq!(ask::<u64>(&mut connection, length).await, 5);
    // Reset the head again. Then publish only the fourth event, as another process might.
    let _: String = ask(&mut connection, &format!("SET {head} 1")).await;
    let refused = soon(bus.publish(&events[3..])).await;
    let behind = BusError::Behind {
        execution: events[0].execution_id,
        head: 1,
        from: 2,
    };
    assert_eq!(refused, Err(behind));
    publish(&bus, &events[1..]).await;
    assert_eq!(ask::<u64>(&mut connection, length).await, 8);
}

#[tokio::test]
async fn a_server_that_is_killed_is_noticed_and_its_return_too() {
    let cluster = PrivateCluster::start(3);
    let bus = open(config(&cluster.url()).timeout(Duration::from_secs(2))).await;
    let all: Vec<_> = (0..30).flat_map(|_| events(1)).collect();
    publish(&bus, &all).await;
    for server in cluster.servers() {
        server.kill();
        // Some of the thirty executions have their streams on this server.
        let refused = soon(bus.publish(&all)).await;
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
        for event in &all {
            let reader = async {
                loop {
                    bus.ready().await;
                    if let Ok(reader) = bus.subscribe(event.execution_id, 0).await {
                        break reader;
                    }
                }
            };
            assert_eq!(next(&mut soon(reader).await, 1).await, [1]);
        }
    }
}

/// The server that has the firehose.
async fn owner(cluster: &PrivateCluster) -> &PrivateServer {
    for server in cluster.servers() {
        let mut length = redis::cmd("XLEN");
        length.arg("docg:{firehose}");
        let mut connection = raw(&server.url()).await;
        if length.query_async::<()>(&mut connection).await.is_ok() {
            return server;
        }
    }
    panic!("no server has it");
}

/// A cluster's connection silently continues at the replica, so the bus itself must detect the gap.
#[tokio::test]
async fn a_replica_that_lacks_the_last_run_and_takes_over_is_a_gap_to_lists() {
    let cluster = PrivateCluster::start(3);
    let primary = owner(&cluster).await;
    let replica = cluster.replica_of(primary);
    let ports = cluster.servers().iter().map(PrivateServer::port);
    let hosts: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis+cluster://{}", hosts.join(","));
    let bus = open(config(&url).timeout(Duration::from_secs(2))).await;
    let organization = OrganizationId::new();
    let list = bus.subscribe_organization(organization, None);
    let mut list = soon(list).await.expect("subscribes");
    publish(&bus, &events_of(organization, 1)).await;
    let listed = soon(list.next()).await.expect("goes on");
    let position = listed.expect("is an event").position;
    let mut connection = raw(&primary.url()).await;
    let _: String = ask(&mut connection, "SET {firehose}replicated yes").await;
    assert_eq!(ask::<u64>(&mut connection, "WAIT 1 10000").await, 1);
    // From here on the replica gets nothing more from its primary.
    replica.pause();
    let _: u64 = ask(&mut connection, "CLIENT KILL TYPE replica").await;
    publish(&bus, &events_of(organization, 1)).await;
    soon(list.next()).await.expect("goes on").expect("is told");
    primary.kill();
    replica.resume();
    let mut connection = raw(&replica.url()).await;
    let _: String = ask(&mut connection, "CLUSTER FAILOVER TAKEOVER").await;
    let end = soon(list.next()).await.expect("goes on");
    assert!(matches!(end, Err(BusError::Unavailable(_))), "{end:?}");
    let back = async {
        loop {
            bus.ready().await;
            let back = bus.subscribe_organization(organization, Some(position.clone()));
            match back.await {
                Err(BusError::Unavailable(_)) => {}
                back => break back,
            }
        }
    };
    assert_eq!(soon(back).await.err(), Some(BusError::UnknownPosition));
}

/// The URL may name a server whose host lost its power, while the cluster continues without it.
#[tokio::test]
async fn a_named_server_that_does_not_answer_keeps_nobody_from_the_others() {
    let cluster = PrivateCluster::start(2);
    // A listener that accepts no connections.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = silent.local_addr().expect("is bound");
    let url = cluster.url().replace("://", &format!("://{address},"));
    let bus = open(config(&url).timeout(Duration::from_secs(2))).await;
    let events = events(3);
    publish(&bus, &events).await;
    let mut reader = subscribe(&bus, events[0].execution_id, 0).await;
    assert_eq!(next(&mut reader, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn cleanup_goes_through_all_servers() {
    let cluster = PrivateCluster::start(3);
    let bus = open(config(&cluster.url()).stream_ttl(Duration::from_secs(1_000))).await;
    let all: Vec<_> = (0..50).flat_map(|_| events(1)).collect();
    publish(&bus, &all).await;
    let config = config(&cluster.url()).stream_ttl(Duration::from_secs(100));
    let shorter = open(config).await;
    let done = soon(shorter.cleanup()).await.expect("cleans up");
    assert_eq!((done.seen, done.expiring), (50, 50));
}
