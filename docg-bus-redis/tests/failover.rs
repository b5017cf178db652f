//! Another server takes over, or the same server comes back, with data that lack the last published
//! events. The bus completes an execution's stream from the store. It tells every reader of an organization's
//! list that there is a gap, readers that reconnect included.

mod common;

use std::{sync::Arc, time::Duration};

use common::{address::Address, ask, config, open, publish, publishing, raw, soon};
use docg_bus_redis::RedisBus;
use docg_core::{
    conformance::fixtures::{events, events_of},
    engine::{Engine, OrganizationFeed, OrganizationItem},
    event::Event,
    ids::OrganizationId,
    ports::{BusError, EventBus},
};
use docg_store_memory::MemoryStore;
use docg_test_servers::redis::PrivateServer;
use futures::StreamExt;

/// The bus's timeout for an answer of Redis, well above what a busy machine takes.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the bus's reading connection waits before it checks the server.
const BLOCK: Duration = Duration::from_millis(500);

async fn quick(url: &str) -> Arc<RedisBus> {
    open(config(url).timeout(TIMEOUT).block(BLOCK)).await
}

/// The feed of an organization's list, as dashboards read it.
async fn feed(
    bus: &Arc<RedisBus>,
    organization: OrganizationId,
    after: Option<&str>,
) -> OrganizationFeed {
    let engine = Engine::builder(Arc::new(MemoryStore::default()), bus.clone()).build();
    soon(engine.organization_feed(organization, after.map(str::to_owned))).await
}

async fn is_gap(feed: &mut OrganizationFeed) -> bool {
    soon(feed.next()).await == Some(OrganizationItem::Gap)
}

/// Checks that the feed's next item is this event, and returns the event's position.
async fn told(feed: &mut OrganizationFeed, event: &Event) -> String {
    match soon(feed.next()).await {
        Some(OrganizationItem::Event(listed)) if *listed.event == *event => listed.position,
        other => panic!("{other:?} in place of {event:?}"),
    }
}

/// Waits until a replica of the server has all published events.
async fn replicated(server: &PrivateServer) {
    let mut connection = raw(&server.url()).await;
    let _: String = ask(&mut connection, "SET replicated yes").await;
    let replicas: u64 = ask(&mut connection, "WAIT 1 10000").await;
    assert_eq!(replicas, 1);
}

/// Cuts the connections that publish.
async fn cut_publishing(server: &PrivateServer) {
    let mut connection = raw(&server.url()).await;
    for id in publishing(&mut connection).await {
        let _: u64 = ask(&mut connection, &format!("CLIENT KILL ID {id}")).await;
    }
}

/// Publishes an event of another organization, as soon as the bus has a connection.
async fn publish_at_last(bus: &RedisBus) {
    let published = async {
        while bus.publish(&events(1)).await.is_err() {
            bus.ready().await;
        }
    };
    soon(published).await;
}

/// All events of the execution were published during the failover, so none is published again.
#[tokio::test]
async fn a_run_that_a_failover_took_whole_is_a_gap_to_its_list() {
    let (primary, replica) = (PrivateServer::start(), PrivateServer::start());
    replica.follow(&primary);
    let address = Address::of(&primary).await;
    let bus = quick(&address.url()).await;
    let organization = OrganizationId::new();
    let mut open = feed(&bus, organization, None).await;
    let (kept, lost) = (events_of(organization, 2), events_of(organization, 3));
    publish(&bus, &kept).await;
    told(&mut open, &kept[0]).await;
    let position = told(&mut open, &kept[1]).await;
    replicated(&primary).await;
    // From here on the replica gets nothing more from its primary.
    replica.promote();
    publish(&bus, &lost).await;
    primary.kill();
    address.lead_to(&replica);
    soon(bus.ready()).await;
    let mut back = feed(&bus, organization, Some(&position)).await;
    assert!(is_gap(&mut back).await);
    for event in &lost {
        told(&mut open, event).await;
    }
    assert!(is_gap(&mut open).await);
    let next = events_of(organization, 1);
    publish(&bus, &next).await;
    let position = told(&mut open, &next[0]).await;
    assert_eq!(told(&mut back, &next[0]).await, position);
    // A reader that reconnects at a position after the failover gets no gap.
    let mut back = feed(&bus, organization, Some(&position)).await;
    let next = events_of(organization, 1);
    publish(&bus, &next).await;
    told(&mut back, &next[0]).await;
}

/// The old primary continues for a moment beside the promoted one. A reader at the promoted server does
/// not notice the failover, and may have read its lists before the execution existed.
#[tokio::test]
async fn a_run_that_was_published_to_the_old_primary_is_a_gap_to_who_reads_at_the_new_one() {
    let (old, new) = (PrivateServer::start(), PrivateServer::start());
    new.follow(&old);
    let address = Address::of(&old).await;
    let publisher = quick(&address.url()).await;
    let organization = OrganizationId::new();
    publish(&publisher, &events_of(organization, 1)).await;
    replicated(&old).await;
    new.promote();
    address.lead_to(&new);
    let reader = quick(&address.url()).await;
    let mut list = feed(&reader, organization, None).await;
    let known = events_of(organization, 1);
    publish(&reader, &known).await;
    let position = told(&mut list, &known[0]).await;
    publish(&publisher, &events_of(organization, 1)).await;
    old.follow(&new);
    assert!(is_gap(&mut list).await);
    soon(publisher.ready()).await;
    for bus in [&reader, &publisher] {
        let mut back = feed(bus, organization, Some(&position)).await;
        assert!(is_gap(&mut back).await);
    }
    let next = events_of(organization, 1);
    publish(&publisher, &next).await;
    told(&mut list, &next[0]).await;
}

/// Readers are told of the gap even if the new server has no data yet.
#[tokio::test]
async fn a_run_that_was_published_to_the_old_server_is_a_gap_to_who_reads_at_an_empty_one() {
    let (old, new) = (PrivateServer::start(), PrivateServer::start());
    let address = Address::of(&old).await;
    let publisher = quick(&address.url()).await;
    address.lead_to(&new);
    let reader = quick(&address.url()).await;
    let organization = OrganizationId::new();
    let mut list = feed(&reader, organization, None).await;
    publish(&publisher, &events_of(organization, 1)).await;
    old.kill();
    assert!(is_gap(&mut list).await);
    soon(publisher.ready()).await;
    let mut connection = raw(&new.url()).await;
    assert!(ask::<i64>(&mut connection, "TTL docg:{firehose}").await > 0);
    let next = events_of(organization, 1);
    publish(&publisher, &next).await;
    told(&mut list, &next[0]).await;
}

/// The publishing connection moves to the old server and back between two checks of the reading one.
#[tokio::test]
async fn a_run_that_was_published_to_the_old_server_for_a_moment_is_a_gap_too() {
    let (old, new) = (PrivateServer::start(), PrivateServer::start());
    let address = Address::of(&new).await;
    let publisher = open(config(&address.url()).block(Duration::from_secs(4))).await;
    let reader = quick(&new.url()).await;
    let organization = OrganizationId::new();
    let mut list = feed(&reader, organization, None).await;
    for (left, next) in [(&new, &old), (&old, &new)] {
        address.lead_to(next);
        cut_publishing(left).await;
        publish_at_last(&publisher).await;
    }
    assert!(is_gap(&mut list).await);
}

/// The new server at first refuses the write that tells readers of the gap. The bus must try it again.
#[tokio::test]
async fn a_run_that_was_published_to_the_old_server_is_a_gap_once_the_new_one_takes_writes() {
    let old = PrivateServer::start();
    let new = PrivateServer::start_with(|_| "maxmemory 1\n".to_owned());
    // The publishing connection is opened first, so it leads to the old server.
    let address = Address::moving(&old, &new).await;
    new.kill();
    let config = config(&address.url()).timeout(TIMEOUT).block(BLOCK);
    let publisher = RedisBus::open(config).expect("is a configuration");
    publish(&publisher, &events(1)).await;
    new.start_again();
    let reader = quick(&new.url()).await;
    let mut connection = raw(&new.url()).await;
    let mut list = feed(&reader, OrganizationId::new(), None).await;
    let refused = async {
        while !ask::<String>(&mut connection, "INFO errorstats")
            .await
            .contains("errorstat_OOM")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(refused).await;
    let _: String = ask(&mut connection, "CONFIG SET maxmemory 0").await;
    assert!(is_gap(&mut list).await);
}

/// The old primary continues, so the waiting connection gets no error, although nobody publishes there
/// any more. The bus must notice that it publishes to another server.
#[tokio::test]
async fn readers_do_not_stay_where_nobody_publishes_any_more() {
    let (old, new) = (PrivateServer::start(), PrivateServer::start());
    new.follow(&old);
    let address = Address::of(&old).await;
    let bus = quick(&address.url()).await;
    let organization = OrganizationId::new();
    let mut list = feed(&bus, organization, None).await;
    new.promote();
    address.lead_to(&new);
    cut_publishing(&old).await;
    // This publish reaches the new primary.
    publish_at_last(&bus).await;
    assert!(is_gap(&mut list).await);
    let next = events_of(organization, 1);
    publish(&bus, &next).await;
    told(&mut list, &next[0]).await;
}

/// The new process first publishes at one server and reads at the other. It knew neither before.
#[tokio::test]
async fn a_process_that_comes_while_the_address_moves_gets_to_one_server() {
    let (old, new) = (PrivateServer::start(), PrivateServer::start());
    let address = Address::moving(&old, &new).await;
    let bus = quick(&address.url()).await;
    let organization = OrganizationId::new();
    let mut list = feed(&bus, organization, None).await;
    let told = async {
        loop {
            // Ignore an error: the event was refused, or went to the server that the bus has left.
            let _ = bus.publish(&events_of(organization, 1)).await;
            let next = tokio::time::timeout(BLOCK, list.next()).await;
            if matches!(next, Ok(Some(OrganizationItem::Event(_)))) {
                break;
            }
        }
    };
    soon(told).await;
}

/// The process to which the reader returns started after the failover, and knows only the position.
#[tokio::test]
async fn a_snapshot_that_lacks_the_last_runs_is_a_gap_to_who_comes_back() {
    let server = PrivateServer::start();
    let bus = quick(&server.url()).await;
    let organization = OrganizationId::new();
    let mut open = feed(&bus, organization, None).await;
    let kept = events_of(organization, 1);
    publish(&bus, &kept).await;
    let position = told(&mut open, &kept[0]).await;
    let _: String = ask(&mut raw(&server.url()).await, "SAVE").await;
    publish(&bus, &events_of(organization, 1)).await;
    server.kill();
    server.start_again();
    let later = quick(&server.url()).await;
    let length: u64 = ask(&mut raw(&server.url()).await, "XLEN docg:{firehose}").await;
    assert_eq!(length, 1);
    let mut back = feed(&later, organization, Some(&position)).await;
    assert!(is_gap(&mut back).await);
}

/// A server starts a new history of its data when its first replica connects. Nothing is lost and the
/// connection stays, but positions name the history, so the bus must notice the change.
#[tokio::test]
async fn a_new_history_is_noticed_on_a_connection_that_stays() {
    let (server, replica) = (PrivateServer::start(), PrivateServer::start());
    let bus = quick(&server.url()).await;
    let organization = OrganizationId::new();
    let list = bus.subscribe_organization(organization, None);
    let mut list = list.await.expect("subscribes");
    replica.follow(&server);
    // Publish without a pause: the bus must notice the new history even if it is never idle.
    let flood = async {
        loop {
            // Ignore an error: the bus may have just abandoned the connection.
            let _ = bus.publish(&events_of(organization, 1)).await;
        }
    };
    let end = async { while soon(list.next()).await.expect("goes on").is_ok() {} };
    tokio::select! {
        () = flood => {}
        () = end => {}
    }
}

/// A replica may be behind its primary, or still follow a primary that a failover has replaced.
#[tokio::test]
async fn a_replica_is_not_used() {
    let (primary, replica) = (PrivateServer::start(), PrivateServer::start());
    replica.follow(&primary);
    let bus = RedisBus::open(config(&replica.url()).timeout(TIMEOUT)).expect("is a configuration");
    let refused = soon(bus.subscribe_organization(OrganizationId::new(), None)).await;
    let is_replica = BusError::Unavailable("Redis is a replica".to_owned());
    assert_eq!(refused.err(), Some(is_replica.clone()));
    assert_eq!(soon(bus.publish(&events(1))).await, Err(is_replica));
    replica.promote();
    soon(bus.ready()).await;
    let list = soon(bus.subscribe_organization(OrganizationId::new(), None)).await;
    assert!(list.is_ok());
}
