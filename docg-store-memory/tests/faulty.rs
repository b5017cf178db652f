//! The decorators that make a port fail, over the memory adapters.

use std::sync::Arc;

use docg_core::{
    conformance::{
        Fault, FaultyBus, FaultyStore,
        fixtures::{RunFixture, at, events},
    },
    ids::OrganizationId,
    ports::{BusError, Created, EventBus, ExecutionReader, ExecutionStore, StoreErrorKind},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;

#[tokio::test]
async fn a_fault_before_the_call_leaves_nothing_and_one_after_it_everything() {
    for (fault, takes_effect) in [(Fault::Before, false), (Fault::After, true)] {
        let inner = Arc::new(MemoryStore::default());
        let store = FaultyStore::failing_nth(inner.clone(), 2, fault);
        let organization = OrganizationId::new();
        let (first, second) = (
            RunFixture::of(organization).build(),
            RunFixture::of(organization).build(),
        );
        let id = second.state.execution.id;
        assert_eq!(
            store.create(first).await.expect("is not the second call"),
            Created::New { lease: None }
        );
        let failed = store.create(second).await.expect_err("is planned");
        assert_eq!(
            (failed.kind, failed.operation),
            (StoreErrorKind::Unavailable, "create")
        );
        assert_eq!(
            store
                .execution(organization, id)
                .await
                .expect("reads")
                .is_some(),
            takes_effect
        );
        assert_eq!(store.calls(), 3);
    }
}

#[tokio::test]
async fn a_fault_after_a_call_that_failed_keeps_its_own_error() {
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), |_| Some(Fault::After));
    let mut broken = RunFixture::of(OrganizationId::new()).build();
    broken.events.extend(events(1));
    assert_eq!(
        store.create(broken).await.expect_err("is refused").kind,
        StoreErrorKind::Invalid
    );
}

#[tokio::test]
async fn the_closure_chooses_by_operation() {
    let inner = Arc::new(MemoryStore::default());
    let store = FaultyStore::new(inner, |call| {
        (call.operation == "purge").then_some(Fault::Before)
    });
    store
        .create(RunFixture::of(OrganizationId::new()).build())
        .await
        .expect("stores");
    assert_eq!(
        store.purge(at(0), 1).await.expect_err("is planned").kind,
        StoreErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_publish_that_failed_afterwards_is_out() {
    let inner = Arc::new(MemoryBus::default());
    let bus = FaultyBus::failing_nth(inner.clone(), 1, Fault::After);
    let events = events(1);
    assert!(matches!(
        bus.publish(&events).await,
        Err(BusError::Unavailable(_))
    ));
    let mut reader = bus
        .subscribe(events[0].execution_id, 0)
        .await
        .expect("subscribes");
    assert_eq!(reader.next().await, Some(Ok(events[0].clone())));
}
