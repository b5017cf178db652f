use std::collections::HashSet;

use super::desk::{LEASE, at_once, commit, create, due, everything, refused, take, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{CommitFixture, RunFixture, at, signal},
    },
    ids::{ExecutionId, OrganizationId},
    ports::{Committed, Signal, Store, StoreErrorKind},
    run::Status,
};

/// Stores an execution that is due only after a signal.
async fn waiting(store: &dyn Store, organization: OrganizationId) -> ExecutionId {
    create(store, RunFixture::of(organization).wake_at(None).build()).await
}

/// If an execution waits, or is due much later, a signal makes it due at once.
pub async fn a_signal_makes_a_waiting_execution_due(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let far = create(
        &*store,
        RunFixture::of(organization).wake_at(at(1_000_000)).build(),
    )
    .await;
    for id in [id, far] {
        store
            .signal(signal(organization, id, at(10)))
            .await
            .expect("signals");
    }
    let mut found = due(&*store, at(10)).await;
    found.sort();
    assert_eq!(found, [id, far]);
}

/// A signal changes no run state, only the inbox.
pub async fn a_signal_changes_nothing_but_the_inbox(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let mut expected = everything(&*store, organization, id).await;
    let mut sent = signal(organization, id, at(10));
    sent.if_version = Some(3);
    store.signal(sent.clone()).await.expect("signals");
    expected.signals.push(sent);
    let found = everything(&*store, organization, id).await;
    let version =
        |it: &super::desk::Everything| it.record.as_ref().map(|record| record.execution.version);
    assert_eq!(version(&found), version(&expected));
    assert_eq!(
        (found.steps, found.events, found.signals),
        (expected.steps, expected.events, expected.signals)
    );
}

/// Readers and claims see the inbox in order of arrival.
pub async fn signals_keep_their_order(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        // All signals have the same time, so that only the order of arrival can decide.
        sent.push(signal(organization, id, at(10)));
        store
            .signal(sent[sent.len() - 1].clone())
            .await
            .expect("signals");
    }
    assert_eq!(store.signals(id).await.expect("reads"), sent);
    let claimed = take(&*store, at(10), id).await;
    assert_eq!(claimed.signals, sent);

    let settled = CommitFixture::on(&claimed).settle(&sent[1..3]).build();
    assert_eq!(
        commit(&*store, settled).await,
        Committed {
            signals_pending: true,
            share_awaited: false,
        }
    );
    assert_eq!(
        store.signals(id).await.expect("reads"),
        [&sent[..1], &sent[3..]].concat()
    );
}

/// A signal that is sent twice is in the inbox once.
pub async fn a_repeated_signal_changes_nothing(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let sent = signal(organization, id, at(10));
    for _ in 0..3 {
        store.signal(sent.clone()).await.expect("signals");
    }
    assert_eq!(store.signals(id).await.expect("reads"), [sent]);
}

/// A settled signal that is sent again does not return to the inbox.
pub async fn a_settled_signal_that_is_repeated_stays_settled(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let sent = signal(organization, id, at(10));
    store.signal(sent.clone()).await.expect("signals");
    work(&*store, at(10), id, |it| {
        CommitFixture::on(it).settle(&it.signals).build()
    })
    .await;
    store.signal(sent).await.expect("is known");
    assert_eq!(store.signals(id).await.expect("reads"), []);
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}

/// A signal does not make a leased execution due. The answer to the lease holder's next commit reports the
/// signal.
pub async fn a_signal_to_a_leased_execution_waits_for_its_holder(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let claimed = take(&*store, at(0), id).await;
    let sent = signal(organization, id, at(1));
    store.signal(sent.clone()).await.expect("signals");
    assert_eq!(due(&*store, at(2)).await, []);
    let until = at(0).plus_millis(LEASE);
    let first = commit(&*store, CommitFixture::on(&claimed).keep(until).build()).await;
    assert_eq!(
        first,
        Committed {
            signals_pending: true,
            share_awaited: false,
        }
    );
    assert_eq!(due(&*store, at(2)).await, []);
    let settled = CommitFixture::on(&claimed)
        .with(|execution| execution.version += 1)
        .but(|commit| commit.expected_version += 1)
        .settle(&[sent])
        .build();
    assert_eq!(
        commit(&*store, settled).await,
        Committed {
            signals_pending: false,
            share_awaited: false,
        }
    );
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}

/// If a commit releases the lease while signals are pending, the execution is due at once.
pub async fn a_release_with_signals_pending_is_due_at_once(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let claimed = take(&*store, at(0), id).await;
    let sent = signal(organization, id, at(1));
    store.signal(sent.clone()).await.expect("signals");
    let done = commit(
        &*store,
        CommitFixture::on(&claimed).wake_at(at(1_000_000)).build(),
    )
    .await;
    assert_eq!(
        done,
        Committed {
            signals_pending: true,
            share_awaited: false,
        }
    );
    let again = super::desk::Worker::new().due(&*store, at(1), 1).await;
    assert_eq!(again.claimed[0].signals, [sent]);
}

/// While the inbox has a signal that a commit does not settle, the commit is refused as a whole if it ends
/// the execution. Other commits are accepted.
pub async fn an_end_is_refused_until_it_settles_the_inbox(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let claimed = take(&*store, at(0), id).await;
    let ends = |settled: &[Signal]| {
        CommitFixture::on(&claimed)
            .status(Status::Canceled)
            .settle(settled)
            .build()
    };
    let (first, second) = (
        signal(organization, id, at(1)),
        signal(organization, id, at(2)),
    );
    store.signal(first.clone()).await.expect("signals");
    let before = everything(&*store, organization, id).await;
    for settled in [&[][..], std::slice::from_ref(&second)] {
        let kind = refused(store.commit(ends(settled)).await);
        assert_eq!(kind, StoreErrorKind::Signaled);
    }
    assert_eq!(everything(&*store, organization, id).await, before);
    store.signal(second.clone()).await.expect("signals");
    let kind = refused(store.commit(ends(std::slice::from_ref(&first))).await);
    assert_eq!(kind, StoreErrorKind::Signaled);
    let lost = CommitFixture::on(&claimed)
        .status(Status::Canceled)
        .but(|commit| commit.lease.fence += 1)
        .build();
    assert_eq!(refused(store.commit(lost).await), StoreErrorKind::Conflict);
    commit(&*store, ends(&[first, second])).await;
    let record = store.execution(organization, id).await.expect("reads");
    let status = record.expect("is there").execution.status;
    assert_eq!(status, Status::Canceled);
}

/// An ended execution that gets a signal is due until the signal is settled.
pub async fn a_signal_to_an_ended_execution_makes_it_due(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), id, |it| {
        CommitFixture::on(it).status(Status::Completed).build()
    })
    .await;
    store
        .signal(signal(organization, id, at(5)))
        .await
        .expect("signals");
    assert_eq!(due(&*store, at(5)).await, [id]);
    let now = at(5).plus_millis(LEASE);
    work(&*store, now, id, |it| {
        CommitFixture::on(it).settle(&it.signals).build()
    })
    .await;
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}

/// A signal to another organization's execution, or to an unknown one, is refused as not found.
pub async fn another_organizations_signal_is_refused(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let id = waiting(&*store, organization).await;
    let foreign = signal(OrganizationId::new(), id, at(1));
    assert_eq!(
        refused(store.signal(foreign).await),
        StoreErrorKind::NotFound
    );
    let lost = signal(organization, ExecutionId::new(), at(1));
    assert_eq!(refused(store.signal(lost).await), StoreErrorKind::NotFound);
    assert_eq!(store.signals(id).await.expect("reads"), []);
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}

/// Signals that arrive concurrently with commits are each in the inbox once and settled once.
pub async fn concurrent_signals_all_arrive(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let id = waiting(&**store, organization).await;
    let results = at_once(store, peer, 12, |index, store| async move {
        let mut seen = Vec::new();
        if index < 8 {
            for _ in 0..5 {
                store
                    .signal(signal(organization, id, at(1)))
                    .await
                    .expect("signals");
            }
        } else {
            for _ in 0..10 {
                if let Some(claimed) = super::desk::Worker::new().one(&*store, at(2), id).await {
                    seen.extend(claimed.signals.iter().map(|signal| signal.id));
                    commit(
                        &*store,
                        CommitFixture::on(&claimed).settle(&claimed.signals).build(),
                    )
                    .await;
                }
            }
        }
        seen
    })
    .await;
    let mut seen: Vec<_> = results.into_iter().flatten().collect();
    work(&**store, at(3), id, |it| {
        seen.extend(it.signals.iter().map(|signal| signal.id));
        CommitFixture::on(it).settle(&it.signals).build()
    })
    .await;
    assert_eq!(seen.len(), 40, "each is handed out once");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 40);
    assert_eq!(due(&**store, at(1_000_000)).await, []);
}
