//! The number of connections to Redis does not grow with the number of readers.

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, config, next, open, publish, raw, subscribe};
use docg_core::{
    conformance::fixtures::{events, events_of},
    ids::OrganizationId,
    ports::EventBus,
};
use docg_test_servers::redis::PrivateServer;
use futures::{StreamExt, future::join_all};

#[tokio::test]
async fn a_thousand_readers_share_two_connections() {
    let server = PrivateServer::start();
    let bus = open(config(&server.url())).await;
    let organization = OrganizationId::new();
    let all: Vec<_> = (0..1_000).map(|_| events_of(organization, 3)).collect();
    let mut readers = Vec::new();
    for events in &all {
        publish(&bus, &events[..1]).await;
        readers.push(subscribe(&bus, events[0].execution_id, 0).await);
    }
    let list = bus.subscribe_organization(organization, None).await;
    let mut list = list.expect("subscribes");
    let _wakes = bus.wakes().await.expect("listens");
    for (reader, events) in readers.iter_mut().zip(&all) {
        assert_eq!(next(reader, 1).await, [1]);
        publish(&bus, &events[1..]).await;
        assert_eq!(next(reader, 2).await, [2, 3]);
        for _ in 0..2 {
            common::soon(list.next())
                .await
                .expect("goes on")
                .expect("is an event");
        }
    }
    let mut connection = raw(&server.url()).await;
    let clients: String = ask(&mut connection, "CLIENT LIST").await;
    // One of the connections is the test's own.
    assert_eq!(clients.lines().count() - 1, 2, "{clients}");
    drop((readers, list, bus));
    // The bus's connections close when the bus is dropped.
    let gone = async {
        loop {
            let clients: String = ask(&mut connection, "CLIENT LIST").await;
            if clients.lines().count() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    common::soon(gone).await;
}

/// Reads of past events by many readers must not delay Redis so much that it seems to be down.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_that_come_at_once_all_get_the_past() {
    let server = PrivateServer::start();
    let bus = open(config(&server.url()).timeout(Duration::from_millis(750))).await;
    let events = events(200);
    let id = events[0].execution_id;
    publish(&bus, &events).await;
    let readers = (0..400).map(|_| {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move {
            let mut reader = subscribe(&bus, id, 0).await;
            assert_eq!(next(&mut reader, 3).await, [1, 2, 3]);
        })
    });
    for reader in join_all(readers).await {
        reader.expect("gets the past");
    }
    bus.check().await.expect("is up");
}

#[tokio::test]
async fn readers_that_left_cost_nothing() {
    let server = PrivateServer::start();
    let bus = open(config(&server.url())).await;
    let events = events(1_000);
    let id = events[0].execution_id;
    for _ in 0..100 {
        drop(subscribe(&bus, id, 0).await);
    }
    let mut stays = subscribe(&bus, id, 0).await;
    for some in events.chunks(100) {
        publish(&bus, some).await;
        let seqs: Vec<_> = some.iter().map(|event| event.seq).collect();
        assert_eq!(next(&mut stays, 100).await, seqs);
    }
}
