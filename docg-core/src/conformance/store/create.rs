use std::sync::Arc;

use super::desk::{all_executions, at_once, create, due, everything, refused};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{RunFixture, at},
    },
    ids::OrganizationId,
    ports::{Created, StoreErrorKind},
};

/// What was created is what readers find.
pub async fn a_new_run_is_there_whole(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let run = RunFixture::of(organization).build();
    let id = create(&*store, run.clone()).await;

    let found = everything(&*store, organization, id).await;
    let record = found.record.expect("is there");
    assert_eq!(record.execution, run.state.execution);
    assert_eq!(record.inputs, run.state.inputs);
    assert_eq!(found.steps, run.state.steps);
    assert_eq!(found.events, run.events);
    assert_eq!(found.logs, run.logs);
    assert_eq!(found.audit, run.audit);
    assert_eq!(found.signals, []);
    assert_eq!(
        store.snapshot(organization, id).await.expect("reads"),
        Some(run.state.workflow)
    );
}

/// A second call with the same key and body names the first run and stores nothing.
pub async fn a_repeated_key_gives_the_first_run(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let first = create(&*store, RunFixture::of(organization).key("k", 1).build()).await;
    let again = RunFixture::of(organization).key("k", 1).build();
    let again_id = again.state.execution.id;
    assert_eq!(
        store.create(again).await.expect("answers"),
        Created::Existing(first)
    );
    assert_eq!(
        store
            .execution(organization, again_id)
            .await
            .expect("reads"),
        None
    );
}

/// A key that came with another body is refused, and nothing is stored.
pub async fn a_key_with_another_body_is_refused(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    create(&*store, RunFixture::of(organization).key("k", 1).build()).await;
    let other = RunFixture::of(organization).key("k", 2).build();
    let other_id = other.state.execution.id;
    assert_eq!(
        refused(store.create(other).await),
        StoreErrorKind::KeyReused
    );
    assert_eq!(
        store
            .execution(organization, other_id)
            .await
            .expect("reads"),
        None
    );
}

/// Two organizations may use the same key, and so may one organization two keys.
pub async fn a_key_is_bound_to_its_organization(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    create(&*store, RunFixture::of(organization).key("k", 1).build()).await;
    create(&*store, RunFixture::of(organization).key("K", 1).build()).await;
    create(
        &*store,
        RunFixture::of(OrganizationId::new()).key("k", 2).build(),
    )
    .await;
}

/// Of many calls with one key at once, one stores and the others learn its id.
pub async fn of_concurrent_creates_with_one_key_one_is_new(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let results = at_once(store, peer, 16, |_, store| async move {
        let run = RunFixture::of(organization).key("k", 1).build();
        let id = run.state.execution.id;
        match store.create(run).await.expect("answers") {
            Created::New => (true, id),
            Created::Existing(id) => (false, id),
        }
    })
    .await;
    let new: Vec<_> = results.iter().filter(|(is_new, _)| *is_new).collect();
    assert_eq!(new.len(), 1, "one is new");
    assert!(
        results.iter().all(|(_, id)| *id == new[0].1),
        "all learn the same id"
    );
    assert_eq!(
        store
            .executions(all_executions(organization))
            .await
            .expect("reads")
            .items
            .len(),
        1
    );
}

/// A run that was refused has not used its key up.
pub async fn a_refused_create_does_not_use_its_key_up(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut broken = RunFixture::of(organization).key("k", 1).build();
    broken.events.clear();
    broken
        .events
        .push(crate::conformance::fixtures::events(2).remove(1));
    assert_eq!(refused(store.create(broken).await), StoreErrorKind::Invalid);
    create(&*store, RunFixture::of(organization).key("k", 2).build()).await;
}

/// A run with the id of another is refused, and the other stays as it was.
pub async fn a_taken_id_is_refused_whole(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let before = everything(&*store, organization, id).await;
    let mut other = RunFixture::of(organization).priority(9).key("k", 1).build();
    other.state.execution.id = id;
    other
        .state
        .steps
        .iter_mut()
        .for_each(|step| step.execution_id = id);
    other
        .logs
        .iter_mut()
        .for_each(|entry| Arc::make_mut(entry).execution_id = id);
    other
        .audit
        .iter_mut()
        .for_each(|row| Arc::make_mut(row).execution_id = id);
    assert_eq!(refused(store.create(other).await), StoreErrorKind::Conflict);
    assert_eq!(everything(&*store, organization, id).await, before);
    create(&*store, RunFixture::of(organization).key("k", 2).build()).await;
}

/// The first events must be 1, 2, 3; a run with a hole in them is refused, and nothing is stored.
pub async fn first_events_with_a_hole_are_refused(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let mut run = RunFixture::of(organization).build();
    let id = run.state.execution.id;
    let mut skipping = (*run.events[0]).clone();
    skipping.seq = 3;
    run.state.execution.heads.event_seq = 3;
    run.events.push(skipping.into());
    assert_eq!(refused(store.create(run).await), StoreErrorKind::Invalid);
    assert_eq!(
        store.execution(organization, id).await.expect("reads"),
        None
    );
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}
