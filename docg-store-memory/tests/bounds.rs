//! The store and the bus at their bounds.

use std::sync::Arc;

use docg_core::{
    conformance::fixtures::{self, CommitFixture, RunFixture, at, events, fact, signal},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{
        BusError, ClaimRequest, ClaimWhat, Claimed, Created, EventBus, ExecutionReader,
        ExecutionStore, NewExecution, StoreErrorKind, TtlEntry, TtlKey, TtlStore,
    },
    run::{Status, Step},
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use futures::{FutureExt, StreamExt};

async fn take(store: &MemoryStore, id: ExecutionId) -> Claimed {
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: at(0),
        lease_until: at(100),
    };
    store
        .claim(request)
        .await
        .expect("claims")
        .claimed
        .remove(0)
}

#[tokio::test]
async fn a_full_store_refuses_executions_until_one_is_purged() {
    let store = MemoryStore::new(StoreConfig::default().max_executions(2));
    let organization = OrganizationId::new();
    let first = RunFixture::of(organization).build();
    let first_id = first.state.execution.id;
    store.create(first).await.expect("stores");
    store
        .create(RunFixture::of(organization).build())
        .await
        .expect("stores");
    let third = RunFixture::of(organization).key("k", 1).build();
    let third_id = third.state.execution.id;
    let refused = store.create(third.clone()).await.expect_err("is full");
    assert_eq!(refused.kind, StoreErrorKind::Full);
    assert_eq!(
        store
            .execution(organization, third_id)
            .await
            .expect("reads"),
        None
    );

    let end = CommitFixture::on(&take(&store, first_id).await)
        .status(Status::Canceled)
        .build();
    store.commit(end).await.expect("commits");
    assert_eq!(store.purge(at(1_000), 10).await.expect("purges"), 1);
    assert_eq!(store.len(), 1);
    assert_eq!(
        store.create(third).await.expect("stores"),
        Created::New { lease: None }
    );
}

#[tokio::test]
async fn a_full_inbox_refuses_signals_until_one_is_settled() {
    let store = MemoryStore::new(StoreConfig::default().max_inbox(2));
    let organization = OrganizationId::new();
    let run = RunFixture::of(organization).build();
    let id = run.state.execution.id;
    store.create(run).await.expect("stores");
    for _ in 0..2 {
        store
            .signal(signal(organization, id, at(0)))
            .await
            .expect("signals");
    }
    let third = signal(organization, id, at(0));
    assert_eq!(
        store.signal(third.clone()).await.expect_err("is full").kind,
        StoreErrorKind::Full
    );
    let claimed = take(&store, id).await;
    store
        .commit(CommitFixture::on(&claimed).settle(&claimed.signals).build())
        .await
        .expect("commits");
    store.signal(third).await.expect("signals");
}

#[tokio::test]
async fn expired_ttl_entries_make_room_for_new_ones() {
    let store = MemoryStore::new(StoreConfig::default().max_ttl_entries(2));
    let entry = |key: &str, expires: i64| TtlEntry {
        key: TtlKey {
            organization_id: None,
            kind: "test",
            key: key.to_owned(),
        },
        value: fact(),
        expires_at: at(expires),
    };
    store.remember(entry("a", 10), at(0)).await.expect("stores");
    store.remember(entry("b", 20), at(0)).await.expect("stores");
    let refused = store
        .remember(entry("c", 30), at(9))
        .await
        .expect_err("is full");
    assert_eq!(refused.kind, StoreErrorKind::Full);
    store
        .remember(entry("c", 30), at(10))
        .await
        .expect("takes the place of the first");
    assert!(
        store
            .recall(&entry("b", 0).key, at(10))
            .await
            .expect("reads")
            .is_some()
    );
}

#[tokio::test]
async fn the_bus_forgets_the_execution_that_was_quiet_longest() {
    let bus = MemoryBus::new(BusConfig::default().max_executions(2));
    let (read, quiet, new, newer) = (events(2), events(2), events(2), events(2));
    let mut reader = bus
        .subscribe(read[0].execution_id, 0)
        .await
        .expect("subscribes");
    for events in [&read, &quiet, &new, &newer] {
        bus.publish(&events[..1]).await.expect("publishes");
    }
    // An execution with a reader stays, though it is the oldest.
    bus.publish(&read[1..]).await.expect("publishes");
    for seq in 1..=2 {
        assert_eq!(
            reader
                .next()
                .await
                .expect("goes on")
                .expect("is an event")
                .seq,
            seq
        );
    }
    let mut of_new = bus
        .subscribe(newer[0].execution_id, 0)
        .await
        .expect("subscribes");
    assert_eq!(
        of_new
            .next()
            .await
            .expect("goes on")
            .expect("is an event")
            .seq,
        1
    );
    let mut of_quiet = bus
        .subscribe(quiet[0].execution_id, 0)
        .await
        .expect("subscribes");
    assert!(
        of_quiet.next().now_or_never().is_none(),
        "it is as unknown as if it had never been"
    );
    bus.publish(&quiet[1..])
        .await
        .expect_err("the first is missing");
    bus.restore(&quiet[1..]).await.expect("takes it");
    let hole = of_quiet
        .next()
        .await
        .expect("is told")
        .expect_err("the first is missing");
    assert_eq!(hole, BusError::TooOld { after: 0 });
}

#[tokio::test]
async fn streams_end_with_the_bus() {
    let bus = MemoryBus::default();
    let mut reader = bus
        .subscribe(ExecutionId::new(), 0)
        .await
        .expect("subscribes");
    let mut wakes = bus.wakes().await.expect("listens");
    drop(bus);
    assert_eq!(reader.next().await, None);
    assert_eq!(wakes.next().await, None);
}

#[tokio::test]
async fn a_listener_that_falls_behind_gets_the_latest_wakes() {
    let bus = MemoryBus::new(BusConfig::default().wake_buffer(4));
    let mut wakes = bus.wakes().await.expect("listens");
    let ids: Vec<_> = (0..10).map(|_| ExecutionId::new()).collect();
    for id in &ids {
        bus.wake(*id).await.expect("wakes");
    }
    assert_eq!(wakes.by_ref().take(4).collect::<Vec<_>>().await, ids[6..]);
}

/// An execution with so many bytes of trigger data.
fn heavy(organization: OrganizationId, bytes: usize) -> NewExecution {
    let mut run = RunFixture::of(organization).build();
    let data = serde_json::json!({"text": "x".repeat(bytes)});
    Arc::make_mut(&mut run.state.inputs).trigger_data = Arc::new(data);
    run
}

#[tokio::test]
async fn a_store_that_is_full_of_bytes_purges_ended_executions_and_then_refuses() {
    let store = MemoryStore::new(StoreConfig::default().max_bytes(1_000_000));
    let organization = OrganizationId::new();
    let mut ids = Vec::new();
    let refused = loop {
        let run = heavy(organization, 100_000);
        let id = run.state.execution.id;
        match store.create(run).await {
            Ok(_) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert!((5..=10).contains(&ids.len()), "{} runs", ids.len());
    assert_eq!(refused.kind, StoreErrorKind::Full);
    assert!(
        refused.message.contains("max_bytes is 1000000"),
        "{refused}"
    );
    assert!(store.bytes() <= 1_000_000);
    // A cancel is still accepted, because it makes room.
    let cancel = signal(organization, ids[0], at(0));
    store.signal(cancel).await.expect("is taken");

    let claimed = take(&store, ids[0]).await;
    let end = CommitFixture::on(&claimed).settle(&claimed.signals);
    let end = end.status(Status::Canceled).build();
    store.commit(end).await.expect("commits");
    let ended = store.execution(organization, ids[0]).await.expect("reads");
    assert!(ended.is_some(), "it can be read after its end");
    store
        .create(heavy(organization, 100_000))
        .await
        .expect("there is room");
    assert_eq!(
        store.execution(organization, ids[0]).await.expect("reads"),
        None,
        "it made the room"
    );
    assert!(
        store
            .execution(organization, ids[1])
            .await
            .expect("reads")
            .is_some()
    );
}

#[tokio::test]
async fn an_execution_that_can_never_fit_is_refused_and_removes_nothing() {
    let store = MemoryStore::new(StoreConfig::default().max_bytes(20_000));
    let organization = OrganizationId::new();
    let small = RunFixture::of(organization).build();
    let id = small.state.execution.id;
    store.create(small).await.expect("there is room");
    let claimed = take(&store, id).await;
    // A commit is kept even if it needs more room than there is.
    let output = Step {
        output: Some(Arc::new(serde_json::json!("y".repeat(50_000)))),
        ..claimed.state.steps[0].clone()
    };
    let end = CommitFixture::on(&claimed).but(|commit| commit.steps = vec![output]);
    store
        .commit(end.status(Status::Canceled).build())
        .await
        .expect("commits");
    let refused = store.create(heavy(organization, 10_000_000)).await;
    let refused = refused.expect_err("cannot fit");
    assert_eq!(refused.kind, StoreErrorKind::Full);
    assert!(refused.message.contains("max_bytes is 20000"), "{refused}");
    let ended = store.execution(organization, id).await.expect("reads");
    assert!(ended.is_some());
}

#[tokio::test]
async fn a_purged_execution_frees_its_bytes() {
    let store = MemoryStore::default();
    let organization = OrganizationId::new();
    for envelope in ["one", "two", "three"] {
        let run = heavy(organization, 10_000);
        let id = run.state.execution.id;
        store.create(run).await.expect("stores");
        store
            .signal(signal(organization, id, at(0)))
            .await
            .expect("signals");
        let claimed = take(&store, id).await;
        let request = fixtures::signature_request(&claimed.state.execution, envelope);
        let step = Step {
            output: Some(Arc::new(serde_json::json!({"text": "y".repeat(5_000)}))),
            ..claimed.state.steps[0].clone()
        };
        let before = store.bytes();
        let made = CommitFixture::on(&claimed)
            .settle(&claimed.signals)
            .events(3)
            .signature(request)
            .but(|commit| commit.steps = vec![step])
            .status(Status::Canceled)
            .build();
        store.commit(made).await.expect("commits");
        assert!(store.bytes() > before, "an output is more than a signal");
    }
    assert!(store.bytes() > 45_000);
    assert_eq!(store.purge(at(1_000), 10).await.expect("purges"), 3);
    assert_eq!(store.bytes(), 0);
}

#[tokio::test]
async fn a_bus_that_is_full_of_bytes_forgets_the_oldest_events() {
    let bus = MemoryBus::new(BusConfig::default().max_bytes(200_000));
    let first = events(3);
    bus.publish(&first).await.expect("publishes");
    let others: Vec<_> = (0..2_000).map(|_| events(1)).collect();
    for events in &others {
        bus.publish(events).await.expect("publishes");
    }
    let too_old = bus.subscribe(first[0].execution_id, 0).await.map(drop);
    assert_eq!(too_old, Err(BusError::TooOld { after: 0 }));
    let last = others.last().expect("some");
    let mut reader = bus
        .subscribe(last[0].execution_id, 0)
        .await
        .expect("subscribes");
    let event = reader.next().await.expect("goes on").expect("is an event");
    assert_eq!(event.seq, 1);
}
