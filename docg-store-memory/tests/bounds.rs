//! What happens at the bounds.

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at, events, fact, signal},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{
        BusError, ClaimRequest, ClaimWhat, Claimed, Created, EventBus, Memo, MemoKey, MemoStore,
        RunReader, RunStore, StoreErrorKind,
    },
    run::Status,
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
async fn a_full_store_takes_no_run_until_one_is_purged() {
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
async fn a_full_inbox_takes_no_signal_until_one_is_settled() {
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
async fn expired_memos_make_room_for_new_ones() {
    let store = MemoryStore::new(StoreConfig::default().max_memos(2));
    let memo = |key: &str, expires: i64| Memo {
        key: MemoKey {
            organization_id: None,
            kind: "test",
            key: key.to_owned(),
        },
        value: fact(),
        expires_at: at(expires),
    };
    store.remember(memo("a", 10), at(0)).await.expect("stores");
    store.remember(memo("b", 20), at(0)).await.expect("stores");
    let refused = store
        .remember(memo("c", 30), at(9))
        .await
        .expect_err("is full");
    assert_eq!(refused.kind, StoreErrorKind::Full);
    store
        .remember(memo("c", 30), at(10))
        .await
        .expect("takes the place of the first");
    assert!(
        store
            .recall(&memo("b", 0).key, at(10))
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
    // What is read stays, though it is the oldest.
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
async fn a_listener_that_falls_behind_misses_wakes_and_hears_the_latest() {
    let bus = MemoryBus::new(BusConfig::default().wake_buffer(4));
    let mut wakes = bus.wakes().await.expect("listens");
    let ids: Vec<_> = (0..10).map(|_| ExecutionId::new()).collect();
    for id in &ids {
        bus.wake(*id).await.expect("wakes");
    }
    assert_eq!(wakes.by_ref().take(4).collect::<Vec<_>>().await, ids[6..]);
}
