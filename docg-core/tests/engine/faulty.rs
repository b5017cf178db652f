//! The decorators `FaultyStore` and `FaultyBus`, which make calls of a port fail.

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
async fn a_call_with_a_fault_before_it_has_no_effect_and_with_one_after_it_has() {
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
async fn a_call_that_fails_by_itself_keeps_its_error_despite_a_fault_after_it() {
    let store = FaultyStore::new(Arc::new(MemoryStore::default()), |_| Some(Fault::After));
    let mut broken = RunFixture::of(OrganizationId::new()).build();
    broken.events.extend(events(1));
    assert_eq!(
        store.create(broken).await.expect_err("is refused").kind,
        StoreErrorKind::Invalid
    );
}

#[tokio::test]
async fn the_closure_chooses_faults_by_operation() {
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
async fn events_are_published_if_only_the_answer_to_their_publish_is_lost() {
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
