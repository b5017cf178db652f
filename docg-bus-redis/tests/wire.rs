//! The keys, entries and TTLs that other programs find in Redis.

mod common;

use std::{sync::Arc, time::Duration};

use common::{ask, config, next, open, publish, raw, soon, subscribe};
use docg_bus_redis::{CleanedUp, RedisConfig};
use docg_core::{
    conformance::fixtures::events,
    event::{Event, EventData},
    i18n::{Locale, Text},
    ports::{BusError, EventBus},
    preflight::PreflightSummary,
};
use docg_test_servers::redis::{Keyspace, PrivateServer};
use futures::StreamExt;
use redis::aio::MultiplexedConnection;

/// An execution's stream as `XRANGE` gives it.
type Stream = Vec<(String, Vec<(String, String)>)>;

async fn fresh() -> (RedisConfig, String, MultiplexedConnection) {
    let keys = Keyspace::fresh();
    let config = config(keys.url())
        .prefix(keys.prefix())
        .expect("is a prefix");
    (config, keys.prefix().to_owned(), raw(keys.url()).await)
}

async fn stream(
    connection: &mut MultiplexedConnection,
    prefix: &str,
    event: &Event,
) -> (String, Stream) {
    let key = format!("{prefix}exec:{}", event.execution_id);
    let entries = ask(connection, &format!("XRANGE {key} - +")).await;
    (key, entries)
}

#[tokio::test]
async fn entries_have_the_events_numbers_and_one_field_with_schema_v1() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config).await;
    let mut events = events(3);
    Arc::make_mut(&mut events[2]).data = EventData::Failed {
        error_code: "timeout".into(),
        error_human: Text::key("step-failed-human").into(),
    };
    publish(&bus, &events).await;
    let (_, entries) = stream(&mut connection, &prefix, &events[0]).await;
    assert_eq!(entries.len(), 3);
    for (event, (id, fields)) in events.iter().zip(&entries) {
        assert_eq!(*id, format!("{}-0", event.seq));
        let [(field, json)] = fields.as_slice() else {
            panic!("one field: {fields:?}");
        };
        assert_eq!(field, "event");
        assert_eq!(*json, event.encode(Locale::En));
    }
}

/// The bus is configured by a URL alone. Other programs rely on the resulting keys, ids and TTL.
#[tokio::test]
async fn the_defaults_are_those_of_the_contract() {
    let server = PrivateServer::start();
    let mut connection = raw(&server.url()).await;
    let bus = open(RedisConfig::new(&server.url()).expect("is a URL")).await;
    let events = events(3);
    publish(&bus, &events[..1]).await;
    let _: String = ask(&mut connection, "CONFIG RESETSTAT").await;
    publish(&bus, &events[1..]).await;
    let stats: String = ask(&mut connection, "INFO commandstats").await;
    let (key, entries) = stream(&mut connection, "docg:", &events[0]).await;
    assert_eq!(key, format!("docg:exec:{}", events[0].execution_id));
    let ids: Vec<_> = entries.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["1-0", "2-0", "3-0"]);
    let left: i64 = ask(&mut connection, &format!("TTL {key}")).await;
    assert!((86_390..=86_400).contains(&left), "{left}");
    // Only the script was called, so it set the TTL in the same round trip.
    assert_eq!(calls(&stats, "evalsha"), Some(1), "{stats}");
    assert_eq!(calls(&stats, "expire"), Some(2), "{stats}");
    let mut keys: Vec<String> = ask(&mut connection, "KEYS *").await;
    keys.sort();
    assert_eq!(keys, [key.as_str(), "docg:{firehose}"]);
}

/// An execution's stream has texts only in English, so a reader of past events is sent to the store for
/// the few events with texts. A live reader, or one of a list, gets the texts' keys from the bus.
#[tokio::test]
async fn texts_are_read_live_with_their_keys_and_later_from_the_store() {
    let (config, _, _) = fresh().await;
    let bus = open(config).await;
    let mut events = events(4);
    Arc::make_mut(&mut events[1]).data = EventData::PreflightCompleted {
        summary: PreflightSummary::new(Vec::new(), events[1].timestamp).into(),
    };
    Arc::make_mut(&mut events[2]).data = EventData::Failed {
        error_code: "timeout".into(),
        error_human: Text::key("step-failed-human").into(),
    };
    let (id, organization) = (events[0].execution_id, events[0].organization_id);
    let mut live = subscribe(&bus, id, 0).await;
    let list = bus.subscribe_organization(organization, None);
    let mut list = soon(list).await.expect("subscribes");
    publish(&bus, &events).await;
    for event in &events {
        assert_eq!(soon(live.next()).await, Some(Ok(Arc::clone(event))));
    }
    let first = soon(list.next())
        .await
        .expect("goes on")
        .expect("is an event");
    let back = bus.subscribe_organization(organization, Some(first.position));
    let mut back = soon(back).await.expect("knows it");
    let failed = soon(back.next())
        .await
        .expect("goes on")
        .expect("is an event");
    assert_eq!(failed.event, events[2]);
    let mut late = subscribe(&bus, id, 0).await;
    for event in &events[..2] {
        assert_eq!(soon(late.next()).await, Some(Ok(Arc::clone(event))));
    }
    let to_the_store = BusError::TooOld { after: 2 };
    assert_eq!(soon(late.next()).await, Some(Err(to_the_store)));
}

/// The number of times that Redis ran a command since its statistics were last reset.
fn calls(stats: &str, command: &str) -> Option<u32> {
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")))?;
    line.split(',').next()?.parse().ok()
}

#[tokio::test]
async fn publishing_again_adds_nothing_and_fills_what_was_left_out() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config).await;
    let events = events(5);
    publish(&bus, &events[..3]).await;
    publish(&bus, &events[..3]).await;
    publish(&bus, &events[1..]).await;
    let (_, entries) = stream(&mut connection, &prefix, &events[0]).await;
    let ids: Vec<_> = entries.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["1-0", "2-0", "3-0", "4-0", "5-0"]);
    let firehose: u64 = ask(&mut connection, &format!("XLEN {prefix}{{firehose}}")).await;
    assert_eq!(firehose, 5);
}

#[tokio::test]
async fn each_publish_renews_the_time_to_live() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config.stream_ttl(Duration::from_secs(600))).await;
    let events = events(2);
    let key = format!("{prefix}exec:{}", events[0].execution_id);
    for event in &events {
        publish(&bus, std::slice::from_ref(event)).await;
        let left: i64 = ask(&mut connection, &format!("TTL {key}")).await;
        assert!((590..=600).contains(&left), "{left}");
        let _: i64 = ask(&mut connection, &format!("EXPIRE {key} 5")).await;
    }
    publish(&bus, &events).await;
    bus.wake(events[0].execution_id).await.expect("wakes");
    let keys: Vec<String> = ask(&mut connection, &format!("KEYS {prefix}*")).await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys {
        let left: i64 = ask(&mut connection, &format!("TTL {key}")).await;
        assert!((590..=600).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn streams_are_trimmed_and_their_newest_events_kept() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config.stream_maxlen(50)).await;
    let events = events(500);
    publish(&bus, &events).await;
    let (_, entries) = stream(&mut connection, &prefix, &events[0]).await;
    assert!((50..=150).contains(&entries.len()), "{}", entries.len());
    assert_eq!(entries.last().map(|(id, _)| id.as_str()), Some("500-0"));
}

/// A batch with events of two executions takes one call of the script, and nothing else but PINGs.
#[tokio::test]
async fn a_publish_is_one_round_trip() {
    let server = PrivateServer::start();
    let mut connection = raw(&server.url()).await;
    let bus = open(config(&server.url()).block(Duration::from_secs(5))).await;
    let (one, two) = (events(20), events(20));
    let mixed: Vec<_> = one.iter().chain(&two).cloned().collect();
    // The first publish loads the script into Redis, so do not count it.
    publish(&bus, &mixed[..1]).await;
    let _: String = ask(&mut connection, "CONFIG RESETSTAT").await;
    publish(&bus, &mixed[1..]).await;
    let stats: String = ask(&mut connection, "INFO commandstats").await;
    assert_eq!(calls(&stats, "evalsha"), Some(1), "{stats}");
    assert_eq!(calls(&stats, "eval"), None, "{stats}");
    assert_eq!(calls(&stats, "xadd"), Some(78), "{stats}");
}

#[tokio::test]
async fn what_another_program_wrote_sends_readers_to_the_store() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config).await;
    let events = events(1);
    publish(&bus, &events).await;
    let key = format!("{prefix}exec:{}", events[0].execution_id);
    let _: String = ask(&mut connection, &format!("XADD {key} 2-0 event nonsense")).await;
    let mut reader = subscribe(&bus, events[0].execution_id, 0).await;
    assert_eq!(next(&mut reader, 1).await, [1]);
    assert_eq!(
        common::end(&mut reader).await,
        BusError::TooOld { after: 1 }
    );
}

/// A listener skips an entry that is not text, and gets the wake-ups after it.
#[tokio::test]
async fn a_wake_up_that_is_no_text_is_passed_over() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config).await;
    let execution = events(1)[0].execution_id;
    let mut wakes = bus.wakes().await.expect("listens");
    let mut add = redis::cmd("XADD");
    add.arg(format!("{prefix}{{firehose}}:wakes"))
        .arg("*")
        .arg("execution")
        .arg(b"\xff");
    let added: redis::RedisResult<()> = add.query_async(&mut connection).await;
    added.expect("is added");
    bus.wake(execution).await.expect("wakes");
    assert_eq!(soon(wakes.next()).await, Some(execution));
    bus.check().await.expect("is up");
}

#[tokio::test]
async fn cleanup_gives_every_stream_an_end() {
    let (config, prefix, mut connection) = fresh().await;
    let bus = open(config.stream_ttl(Duration::from_secs(100))).await;
    let all: Vec<_> = (0..1_200).map(|_| events(1).remove(0)).collect();
    publish(&bus, &all).await;
    let key = |index: usize| format!("{prefix}exec:{}", all[index].execution_id);
    for index in 0..10 {
        let _: i64 = ask(&mut connection, &format!("PERSIST {}", key(index))).await;
    }
    let _: i64 = ask(&mut connection, &format!("EXPIRE {} 100000", key(10))).await;
    let _: i64 = ask(&mut connection, &format!("EXPIRE {} 50", key(11))).await;
    let CleanedUp { seen, expiring, .. } = soon(bus.cleanup()).await.expect("cleans up");
    // SCAN may return a key twice.
    assert!(seen >= 1_200, "{seen}");
    assert_eq!(expiring, 11);
    for index in 0..12 {
        let left: i64 = ask(&mut connection, &format!("TTL {}", key(index))).await;
        assert!((1..=100).contains(&left), "{left}");
    }
    let left: i64 = ask(&mut connection, &format!("TTL {}", key(11))).await;
    assert!(left <= 50, "an earlier end stays: {left}");
    let again = soon(bus.cleanup()).await.expect("cleans up");
    assert_eq!(again.expiring, 0);
}
