use super::desk::{all_executions, commit, create, due, everything, take, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at},
    },
    ids::{ExecutionId, OrganizationId, SignalId},
    ports::Store,
    run::Status,
    time::Timestamp,
};

async fn ended(store: &dyn Store, organization: OrganizationId, when: Timestamp) -> ExecutionId {
    let id = create(store, RunFixture::of(organization).build()).await;
    work(store, at(0), id, |it| {
        CommitFixture::on(it)
            .at(when)
            .status(Status::Completed)
            .build()
    })
    .await;
    id
}

/// After a purge, no read finds any part of the purged execution.
pub async fn old_ended_executions_go_with_all_that_is_theirs(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let run = RunFixture::of(organization).build();
    let id = create(&*store, run).await;
    let claimed = take(&*store, at(0), id).await;
    let envelope = SignalId::new().to_string();
    let request = fixtures::signature_request(&claimed.state.execution, &envelope);
    let token = fixtures::token_hash();
    let approval = fixtures::approval(&claimed.state.execution, &[token]);
    let all = CommitFixture::on(&claimed)
        .at(at(10))
        .status(Status::Failed)
        .events(3)
        .audit("execution.failed")
        .signature(request.clone())
        .approval(approval)
        .build();
    commit(&*store, all).await;

    assert_eq!(store.purge(at(11), 100).await.expect("purges"), 1);
    let left = everything(&*store, organization, id).await;
    assert_eq!(
        (left.record, left.steps, left.events),
        (None, vec![], vec![])
    );
    assert_eq!(
        (left.logs, left.audit, left.signals),
        (vec![], vec![], vec![])
    );
    assert_eq!(store.snapshot(organization, id).await.expect("reads"), None);
    assert_eq!(
        store
            .signature_request(organization, request.id)
            .await
            .expect("reads"),
        None
    );
    assert_eq!(
        store
            .signature_by_envelope("builtin", &envelope)
            .await
            .expect("reads"),
        None
    );
    assert_eq!(store.approval_by_token(token).await.expect("reads"), None);
    assert_eq!(
        store
            .unpublished(at(1_000), None, 100)
            .await
            .expect("reads"),
        []
    );
    assert!(
        store
            .executions(all_executions(organization))
            .await
            .expect("reads")
            .items
            .is_empty()
    );
    assert_eq!(store.purge(at(1_000), 100).await.expect("purges"), 0);
}

/// An execution with pending signals is not purged, however long ago it ended: a worker settles the signals
/// first.
pub async fn what_has_signals_pending_is_not_purged(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let (late, other) = (
        ended(&*store, organization, at(10)).await,
        ended(&*store, organization, at(11)).await,
    );
    let sent = fixtures::signal(organization, late, at(20));
    store.signal(sent.clone()).await.expect("signals");
    // The execution with a signal does not keep the other execution from being purged.
    assert_eq!(store.purge(at(1_000), 1).await.expect("purges"), 1);
    assert_eq!(store.purge(at(1_000), 1).await.expect("purges"), 0);
    let found = store.execution(organization, other).await.expect("reads");
    assert_eq!(found, None);

    assert_eq!(due(&*store, at(20)).await, [late]);
    let lapsed = at(20).plus_millis(super::desk::LEASE);
    work(&*store, lapsed, late, |it| {
        assert_eq!(it.signals, std::slice::from_ref(&sent));
        CommitFixture::on(it).settle(&[sent]).build()
    })
    .await;
    assert_eq!(store.purge(at(1_000), 1).await.expect("purges"), 1);
}

/// A purge keeps executions that ended at the given time or later, and executions that have not ended.
pub async fn nothing_else_goes(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let open = create(
        &*store,
        RunFixture::of(organization).created_at(at(0)).build(),
    )
    .await;
    let waits = create(&*store, RunFixture::of(organization).wake_at(None).build()).await;
    let at_the_moment = ended(&*store, organization, at(10)).await;
    let later = ended(&*store, organization, at(11)).await;
    let old = ended(&*store, organization, at(9)).await;
    assert_eq!(store.purge(at(10), 100).await.expect("purges"), 1);
    for id in [open, waits, at_the_moment, later] {
        assert!(
            store
                .execution(organization, id)
                .await
                .expect("reads")
                .is_some()
        );
        assert!(
            !store
                .steps(organization, id)
                .await
                .expect("reads")
                .is_empty()
        );
    }
    assert_eq!(
        store.execution(organization, old).await.expect("reads"),
        None
    );
    assert_eq!(due(&*store, at(10)).await, [open]);
}

/// A purge removes at most `limit` executions.
pub async fn no_more_goes_than_asked_for(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    for _ in 0..7 {
        ended(&*store, organization, at(5)).await;
    }
    for (gone, left) in [(3, 4), (3, 1), (1, 0), (0, 0)] {
        assert_eq!(store.purge(at(10), 3).await.expect("purges"), gone);
        assert_eq!(
            store
                .executions(all_executions(organization))
                .await
                .expect("reads")
                .items
                .len(),
            left
        );
    }
}

/// Purging an execution frees its idempotency key.
pub async fn a_purged_key_is_free_again(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).key("k", 1).build()).await;
    work(&*store, at(0), id, |it| {
        CommitFixture::on(it).status(Status::Canceled).build()
    })
    .await;
    assert_eq!(store.purge(at(10), 10).await.expect("purges"), 1);
    create(&*store, RunFixture::of(organization).key("k", 2).build()).await;
}
