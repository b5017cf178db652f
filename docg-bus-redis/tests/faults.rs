//! Redis hangs, is killed, is emptied and comes back. No call waits longer than the configured timeout, no
//! reader misses an event without an error, and the bus recovers by itself.

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{ask, config, end, next, open, publish, publishing, raw, soon, subscribe};
use docg_bus_redis::RedisBus;
use docg_core::{
    conformance::fixtures::{events, events_of},
    ids::{ExecutionId, OrganizationId},
    ports::{BusError, EventBus},
};
use docg_test_servers::redis::PrivateServer;
use futures::StreamExt;
use redis::aio::MultiplexedConnection;

/// The bus's timeout for an answer of Redis, well above what a busy machine takes.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the bus's reading connection waits before it checks the server.
const BLOCK: Duration = Duration::from_millis(500);

async fn quick(server: &PrivateServer) -> Arc<RedisBus> {
    open(config(&server.url()).timeout(TIMEOUT).block(BLOCK)).await
}

fn is_unavailable<T>(result: Result<T, BusError>) -> bool {
    matches!(result, Err(BusError::Unavailable(_)))
}

fn behind(execution: ExecutionId, head: u64, from: u64) -> BusError {
    BusError::Behind {
        execution,
        head,
        from,
    }
}

/// Checks that every kind of call fails at once. If one kind waited, the 100 rounds would take too long.
async fn assert_fails_fast(bus: &RedisBus) {
    let began = Instant::now();
    for _ in 0..100 {
        assert!(is_unavailable(bus.publish(&events(1)).await));
        assert!(is_unavailable(bus.subscribe(ExecutionId::new(), 0).await));
        let list = bus.subscribe_organization(OrganizationId::new(), None);
        assert!(is_unavailable(list.await));
        assert!(is_unavailable(bus.wake(ExecutionId::new()).await));
        assert!(is_unavailable(bus.wakes().await));
        assert!(is_unavailable(bus.check().await));
    }
    assert!(began.elapsed() < TIMEOUT * 50, "{:?}", began.elapsed());
}

/// Checks that every kind of call works.
async fn assert_works(bus: &RedisBus) {
    soon(bus.ready()).await;
    let events = events(4);
    let mut reader = subscribe(bus, events[0].execution_id, 0).await;
    let mut list = bus
        .subscribe_organization(events[0].organization_id, None)
        .await
        .expect("subscribes");
    let mut wakes = bus.wakes().await.expect("listens");
    publish(bus, &events).await;
    assert_eq!(next(&mut reader, 4).await, [1, 2, 3, 4]);
    soon(list.next())
        .await
        .expect("goes on")
        .expect("is an event");
    bus.wake(events[0].execution_id).await.expect("wakes");
    assert_eq!(soon(wakes.next()).await, Some(events[0].execution_id));
    bus.check().await.expect("answers");
}

#[tokio::test]
async fn a_redis_that_takes_no_events_is_not_healthy() {
    let server = PrivateServer::start();
    let bus = open(config(&server.url())).await;
    bus.check().await.expect("is healthy");
    let mut connection = raw(&server.url()).await;
    let _: String = ask(&mut connection, "CONFIG SET maxmemory 1").await;
    assert!(is_unavailable(bus.publish(&events(1)).await));
    assert!(is_unavailable(bus.check().await));
    let _: String = ask(&mut connection, "CONFIG SET maxmemory 0").await;
    assert_works(&bus).await;
}

/// Makes the call that finds Redis dead. It may take as long as the timeout; later calls fail at once.
async fn notice(bus: &RedisBus) {
    let began = Instant::now();
    assert!(is_unavailable(bus.publish(&events(1)).await));
    assert!(began.elapsed() < TIMEOUT * 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_killed_server_is_noticed_and_its_return_too() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let events = events(3);
    let mut reader = subscribe(&bus, events[0].execution_id, 0).await;
    let organization = events[0].organization_id;
    let mut list = bus
        .subscribe_organization(organization, None)
        .await
        .expect("subscribes");
    let mut wakes = bus.wakes().await.expect("listens");
    publish(&bus, &events[..1]).await;
    assert_eq!(next(&mut reader, 1).await, [1]);
    server.kill();
    assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
    soon(list.next()).await.expect("goes on").expect("was sent");
    assert!(is_unavailable(soon(list.next()).await.expect("goes on")));
    notice(&bus).await;
    assert_fails_fast(&bus).await;
    server.start_again();
    assert_works(&bus).await;
    // A listener for wake-ups can go on with the stream that it opened before.
    bus.wake(events[0].execution_id).await.expect("wakes");
    let awaited = async { while wakes.next().await.expect("goes on") != events[0].execution_id {} };
    soon(awaited).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_and_its_return_too() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let events = events(6);
    let id = events[0].execution_id;
    let mut reader = subscribe(&bus, id, 0).await;
    publish(&bus, &events[..1]).await;
    assert_eq!(next(&mut reader, 1).await, [1]);
    server.pause();
    let began = Instant::now();
    notice(&bus).await;
    assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
    assert!(began.elapsed() < TIMEOUT * 10, "{:?}", began.elapsed());
    assert_fails_fast(&bus).await;
    server.resume();
    soon(bus.ready()).await;
    // The server that hung kept its events.
    let mut reader = subscribe(&bus, id, 0).await;
    publish(&bus, &events[1..]).await;
    assert_eq!(next(&mut reader, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_works(&bus).await;
}

#[tokio::test]
async fn a_bus_opens_before_its_server() {
    let server = PrivateServer::start();
    server.kill();
    let bus = RedisBus::open(config(&server.url()).timeout(TIMEOUT)).expect("is a configuration");
    notice(&bus).await;
    assert_fails_fast(&bus).await;
    server.start_again();
    assert_works(&bus).await;
}

#[tokio::test]
async fn cut_connections_are_replaced() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    for _ in 0..3 {
        let mut reader = subscribe(&bus, ExecutionId::new(), 0).await;
        let _: u64 = ask(&mut connection, "CLIENT KILL TYPE normal SKIPME yes").await;
        assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
        notice(&bus).await;
        assert_works(&bus).await;
    }
}

/// Servers and proxies cut idle connections. The bus must replace a cut one before the next publish.
#[tokio::test]
async fn a_connection_that_was_cut_while_nobody_used_it_fails_no_publish() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    // Find the reader's connection, which is not to be cut. Between two blocking `XREAD`s it looks like a connection
    // that publishes.
    let reader = soon(waiting(&bus, &mut connection)).await;
    let mut cut = publishing(&mut connection).await;
    cut.retain(|id| *id != reader);
    for id in &cut {
        let _: u64 = ask(&mut connection, &format!("CLIENT KILL ID {id}")).await;
    }
    let replaced = async {
        loop {
            let there = publishing(&mut connection).await;
            if there.iter().any(|id| *id != reader && !cut.contains(id)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(replaced).await;
    soon(bus.ready()).await;
    publish(&bus, &events(1)).await;
}

/// The id of the connection that waits for events.
async fn waiting(bus: &RedisBus, connection: &mut MultiplexedConnection) -> String {
    loop {
        bus.ready().await;
        let clients: String = ask(connection, "CLIENT LIST").await;
        let waiting = clients.lines().find(|line| line.contains("cmd=xread"));
        let field = waiting.and_then(|line| line.split(' ').next());
        if let Some(id) = field.and_then(|field| field.strip_prefix("id=")) {
            return id.to_owned();
        }
    }
}

/// Only the reading connection is cut, while events are published. The reader gets an error, and finds
/// the missed events when it subscribes again.
#[tokio::test]
async fn a_reader_that_was_cut_off_misses_nothing() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    let events = events(60);
    let id = events[0].execution_id;
    let mut reader = subscribe(&bus, id, 0).await;
    let mut read = Vec::new();
    for (index, some) in events.chunks(5).enumerate() {
        publish(&bus, some).await;
        if index % 4 == 2 {
            let client = soon(waiting(&bus, &mut connection)).await;
            let _: u64 = ask(&mut connection, &format!("CLIENT KILL ID {client}")).await;
        }
    }
    while read.len() < events.len() {
        match soon(reader.next()).await.expect("goes on") {
            Ok(event) => read.push(event.seq),
            Err(BusError::Unavailable(_)) => {
                soon(bus.ready()).await;
                reader = subscribe(&bus, id, read.last().copied().unwrap_or(0)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(read, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_emptied_server_is_noticed_and_filled_again() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    let events = events(8);
    let id = events[0].execution_id;
    let organization = events[0].organization_id;
    let mut reader = subscribe(&bus, id, 0).await;
    let mut list = bus
        .subscribe_organization(organization, None)
        .await
        .expect("subscribes");
    publish(&bus, &events[..5]).await;
    assert_eq!(next(&mut reader, 5).await, [1, 2, 3, 4, 5]);
    let mut position = String::new();
    for _ in 0..5 {
        let listed = soon(list.next()).await.expect("goes on");
        position = listed.expect("is an event").position;
    }
    let _: String = ask(&mut connection, "FLUSHALL").await;
    // Open readers may have missed events. They get an error, even if nobody publishes.
    assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
    assert!(is_unavailable(soon(list.next()).await.expect("goes on")));
    soon(bus.ready()).await;
    let back = bus.subscribe_organization(organization, Some(position.clone()));
    assert_eq!(back.await.err(), Some(BusError::UnknownPosition));
    // The next event is refused until the events before it are restored. Lists have had those already.
    let mut reader = subscribe(&bus, id, 5).await;
    let list = bus.subscribe_organization(organization, None);
    let mut list = list.await.expect("subscribes");
    let refused = soon(bus.publish(&events[5..6])).await;
    assert_eq!(refused, Err(behind(id, 0, 1)));
    soon(bus.restore(&events[..5])).await.expect("takes it");
    publish(&bus, &events[5..6]).await;
    assert_eq!(next(&mut reader, 1).await, [6]);
    let listed = soon(list.next()).await.expect("goes on");
    assert_eq!(listed.expect("is an event").event.seq, 6);
    let mut from_the_first = subscribe(&bus, id, 0).await;
    assert_eq!(next(&mut from_the_first, 6).await, [1, 2, 3, 4, 5, 6]);
    let back = bus.subscribe_organization(organization, Some(position));
    assert_eq!(back.await.err(), Some(BusError::UnknownPosition));
    // Events that are already there may be published again: readers do not get them a second time.
    publish(&bus, &events[..6]).await;
    publish(&bus, &events[6..]).await;
    assert_eq!(next(&mut reader, 2).await, [7, 8]);
}

/// After a flush, old events may be published again before new ones. A reader that has the old events
/// gets only the new ones.
#[tokio::test]
async fn old_events_in_an_emptied_server_are_no_news() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    let events = events(8);
    let id = events[0].execution_id;
    publish(&bus, &events[..5]).await;
    let _: String = ask(&mut connection, "FLUSHALL").await;
    let mut at_five = loop {
        soon(bus.ready()).await;
        let mut reader = subscribe(&bus, id, 5).await;
        // If the bus had not noticed the flush yet, the reader gets an error below and tries again.
        publish(&bus, &events[..3]).await;
        soon(bus.restore(&events[..5])).await.expect("takes it");
        publish(&bus, &events[5..6]).await;
        match soon(reader.next()).await.expect("goes on") {
            Ok(event) => {
                assert_eq!(event.seq, 6);
                break reader;
            }
            Err(error) => assert!(matches!(error, BusError::Unavailable(_)), "{error}"),
        }
    };
    publish(&bus, &events[6..]).await;
    assert_eq!(next(&mut at_five, 2).await, [7, 8]);
    let mut from_the_first = subscribe(&bus, id, 0).await;
    assert_eq!(next(&mut from_the_first, 8).await, [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Restored events are not sent to live readers. A reader that waited for them is sent to the store.
#[tokio::test]
async fn a_hole_ends_a_live_stream() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let events = events(4);
    let mut reader = subscribe(&bus, events[0].execution_id, 0).await;
    soon(bus.restore(&events[..3])).await.expect("takes it");
    publish(&bus, &events[3..]).await;
    assert_eq!(end(&mut reader).await, BusError::TooOld { after: 0 });
}

/// The bus asks only for as many lost events as a stream keeps. The restored stream has no hole.
#[tokio::test]
async fn a_long_stream_that_was_lost_has_no_hole_when_it_is_back() {
    let server = PrivateServer::start();
    let bus = open(config(&server.url()).stream_maxlen(100)).await;
    let mut connection = raw(&server.url()).await;
    let events = events(301);
    let id = events[0].execution_id;
    publish(&bus, &events[..300]).await;
    let _: String = ask(&mut connection, "FLUSHALL").await;
    let refused = soon(bus.publish(&events[300..])).await;
    assert_eq!(refused, Err(behind(id, 0, 201)));
    soon(bus.restore(&events[200..300]))
        .await
        .expect("takes it");
    publish(&bus, &events[300..]).await;
    let key = format!("docg:exec:{id}");
    let entries: Vec<(String, Vec<String>)> =
        ask(&mut connection, &format!("XRANGE {key} - +")).await;
    let ids: Vec<_> = entries.into_iter().map(|(id, _)| id).collect();
    let expected: Vec<_> = (201..=301).map(|seq| format!("{seq}-0")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn scripts_that_were_forgotten_are_brought_again() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    for _ in 0..3 {
        let _: String = ask(&mut connection, "SCRIPT FLUSH").await;
        assert_works(&bus).await;
    }
}

/// A primary that has become a replica refuses writes until it is a primary again, or until the address
/// leads to another server.
#[tokio::test]
async fn a_failover_is_waited_out() {
    let server = PrivateServer::start();
    let primary = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    let demote = format!("REPLICAOF 127.0.0.1 {}", primary.port());
    let _: String = ask(&mut connection, &demote).await;
    let refused = soon(bus.publish(&events(1))).await;
    assert!(is_unavailable(refused));
    let _: String = ask(&mut connection, "REPLICAOF NO ONE").await;
    let works_again = async {
        loop {
            soon(bus.ready()).await;
            if bus.publish(&events(1)).await.is_ok() {
                break;
            }
        }
    };
    soon(works_again).await;
    soon(bus.ready()).await;
    assert_works(&bus).await;
}

/// After a failover that lost an event, another event may have the same id. A reader that continues from
/// the lost event must learn of the gap.
#[tokio::test]
async fn a_position_of_which_another_event_has_taken_the_place_is_unknown() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut connection = raw(&server.url()).await;
    let organization = OrganizationId::new();
    let mut list = bus
        .subscribe_organization(organization, None)
        .await
        .expect("subscribes");
    publish(&bus, &events_of(organization, 1)).await;
    let listed = soon(list.next()).await.expect("goes on");
    let position = listed.expect("is an event").position;
    let id = position
        .rsplit_once('-')
        .map(|(id, _)| id)
        .expect("has an id");
    // As after a failover: give the same entry id to another event.
    let other = events_of(organization, 1).remove(0);
    let _: u64 = ask(&mut connection, "DEL docg:{firehose}").await;
    let again = format!(
        "XADD docg:{{firehose}} {id} execution {} seq 1 organization {organization} event {{}}",
        other.execution_id
    );
    let _: String = ask(&mut connection, &again).await;
    let back = loop {
        match bus
            .subscribe_organization(organization, Some(position.clone()))
            .await
        {
            Err(BusError::Unavailable(_)) => soon(bus.ready()).await,
            back => break back,
        }
    };
    assert_eq!(back.err(), Some(BusError::UnknownPosition));
}

#[tokio::test]
async fn a_closed_bus_ends_its_streams() {
    let server = PrivateServer::start();
    let bus = quick(&server).await;
    let mut reader = subscribe(&bus, ExecutionId::new(), 0).await;
    drop(bus);
    assert!(matches!(end(&mut reader).await, BusError::Unavailable(_)));
}
