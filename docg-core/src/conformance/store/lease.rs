use super::desk::{LEASE, Worker, commit, create, due, everything, refused, take};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at},
    },
    ids::OrganizationId,
    ports::{Claimed, Lease, Renewed, StoreErrorKind},
    run::Status,
};

/// Other workers cannot claim a leased execution until the lease expires, and then they can.
pub async fn a_lease_holds_until_its_end(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    take(&*store, at(0), id).await;
    let end = LEASE.cast_signed();
    assert_eq!(due(&*store, at(end - 1)).await, []);
    assert!(Worker::new().one(&*store, at(end - 1), id).await.is_none());
    assert_eq!(due(&*store, at(end)).await, [id]);
}

/// A claim is a takeover only if the previous lease expired, not if a release or a commit ended it.
pub async fn a_takeover_is_told_from_what_was_given_back(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let fresh = take(&*store, at(0), id).await;
    assert!(!fresh.taken_over, "nobody had it");
    store
        .release(&[fresh.lease], at(1))
        .await
        .expect("releases");
    let released = take(&*store, at(1), id).await;
    assert!(!released.taken_over, "it was given back");
    commit(&*store, CommitFixture::on(&released).build()).await;
    let committed = take(&*store, at(2), id).await;
    assert!(!committed.taken_over, "a commit let it go");
    let end = at(2).plus_millis(LEASE);
    let by_name = take(&*store, end, id).await;
    assert!(by_name.taken_over, "the lease ran out");
    let due = Worker::new().due(&*store, end.plus_millis(LEASE), 1).await;
    assert!(due.claimed[0].taken_over, "and again, found as due");
}

/// Until another worker claims the execution, the holder of an expired lease can still commit, and so extend
/// the lease.
pub async fn who_ran_out_may_commit_until_somebody_takes_over(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let end = at(0).plus_millis(LEASE);
    // Meanwhile a worker that does not know these node types looks for due executions, and claims nothing.
    let mut other = Worker::new();
    other.node_types = [].into();
    assert_eq!(other.due(&*store, end, 1).await.claimed.len(), 0);
    let until = end.plus_millis(LEASE);
    commit(&*store, CommitFixture::on(&claimed).keep(until).build()).await;
    assert_eq!(due(&*store, end).await, []);
    assert_eq!(due(&*store, until).await, [id]);
}

/// After a takeover, commits of the old worker are refused as a whole.
pub async fn what_ran_out_is_taken_over_and_its_holder_refused(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let id = create(&*store, RunFixture::of(organization).build()).await;
    let old = take(&*store, at(0), id).await;
    let new = Worker::new()
        .due(&*store, at(0).plus_millis(LEASE), 1)
        .await
        .claimed
        .remove(0);
    assert_eq!(new.state, old.state);
    let before = everything(&*store, organization, id).await;
    let late = CommitFixture::on(&old)
        .status(Status::Canceled)
        .events(1)
        .audit("execution.canceled")
        .build();
    assert_eq!(refused(store.commit(late).await), StoreErrorKind::Conflict);
    assert_eq!(everything(&*store, organization, id).await, before);
    commit(&*store, CommitFixture::on(&new).events(1).build()).await;
}

/// A renewed lease is valid until its new end.
pub async fn renewing_prolongs(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let until = at(0).plus_millis(3 * LEASE);
    assert_eq!(
        store.renew(&[claimed.lease], until).await.expect("renews"),
        Renewed::default()
    );
    assert_eq!(due(&*store, at(0).plus_millis(2 * LEASE)).await, []);
    commit(&*store, CommitFixture::on(&claimed).keep(until).build()).await;
    assert_eq!(due(&*store, until).await, [id]);
}

/// Renewing reports the leases that are lost, and extends the others.
pub async fn renewing_returns_what_is_lost(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let mut leases = Vec::new();
    for _ in 0..4 {
        let id = create(&*store, RunFixture::of(organization).build()).await;
        leases.push(take(&*store, at(0), id).await.lease);
    }
    let taken_over = leases[1];
    store.release(&[taken_over], at(1)).await.expect("releases");
    take(&*store, at(1), taken_over.execution_id).await;
    let given_back = leases[2];
    store.release(&[given_back], at(1)).await.expect("releases");
    let unknown = Lease {
        execution_id: crate::ids::ExecutionId::new(),
        ..leases[0]
    };
    leases.push(unknown);

    let until = at(0).plus_millis(5 * LEASE);
    let mut lost = store.renew(&leases, until).await.expect("renews").lost;
    lost.sort_by_key(|lease| lease.execution_id);
    let mut expected = [taken_over, given_back, unknown];
    expected.sort_by_key(|lease| lease.execution_id);
    assert_eq!(lost, expected);
    let mut found = due(&*store, at(1).plus_millis(LEASE)).await;
    found.sort();
    let mut ran_out = [taken_over.execution_id, given_back.execution_id];
    ran_out.sort();
    assert_eq!(
        found, ran_out,
        "the lost ones were not prolonged, the others were"
    );
}

/// Renewing reports the executions that have pending signals, until a commit settles the signals.
pub async fn renewing_tells_who_has_signals(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let mut claimed = Vec::new();
    for _ in 0..3 {
        let id = create(&*store, RunFixture::of(organization).build()).await;
        claimed.push(take(&*store, at(0), id).await);
    }
    let leases: Vec<Lease> = claimed.iter().map(|claimed| claimed.lease).collect();
    let inbox: Vec<_> = leases[1..]
        .iter()
        .map(|lease| fixtures::signal(organization, lease.execution_id, at(1)))
        .collect();
    for signal in &inbox {
        store.signal(signal.clone()).await.expect("signals");
    }
    let given_back = leases[2];
    store.release(&[given_back], at(1)).await.expect("releases");
    let until = at(0).plus_millis(LEASE);
    assert_eq!(
        store.renew(&leases, until).await.expect("renews"),
        Renewed::new(vec![given_back], vec![leases[1]])
    );
    let settling = CommitFixture::on(&claimed[1]).settle(&inbox[..1]);
    commit(&*store, settling.keep(until).build()).await;
    assert_eq!(
        store.renew(&leases[..2], until).await.expect("renews"),
        Renewed::default()
    );
}

/// A commit that keeps the lease extends it.
pub async fn a_commit_that_keeps_the_lease_prolongs_it(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let until = at(0).plus_millis(2 * LEASE);
    commit(&*store, CommitFixture::on(&claimed).keep(until).build()).await;
    assert_eq!(due(&*store, at(0).plus_millis(2 * LEASE - 1)).await, []);
    assert_eq!(due(&*store, until).await, [id]);
}

/// If a commit with an earlier end of the lease arrives after a renewal with a later end, the later end
/// stays.
pub async fn a_late_commit_does_not_shorten_a_lease_that_was_renewed(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let claimed = take(&*store, at(0), id).await;
    let (overtaken, until) = (at(0).plus_millis(LEASE), at(0).plus_millis(3 * LEASE));
    store.renew(&[claimed.lease], until).await.expect("renews");
    let late = CommitFixture::on(&claimed).keep(overtaken).build();
    commit(&*store, late).await;
    assert_eq!(due(&*store, overtaken).await, []);
    assert_eq!(due(&*store, until).await, [id]);
}

/// After a release without a commit the execution is due at once, even if it was not due before.
pub async fn giving_back_makes_due_at_once(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let waiting = create(&*store, RunFixture::of(organization).wake_at(None).build()).await;
    let later = create(
        &*store,
        RunFixture::of(organization).wake_at(at(1_000_000)).build(),
    )
    .await;
    let mut leases = Vec::new();
    for id in [waiting, later] {
        leases.push(take(&*store, at(0), id).await.lease);
    }
    store.release(&leases, at(1)).await.expect("releases");
    let mut found = due(&*store, at(1)).await;
    found.sort();
    assert_eq!(found, [waiting, later]);
}

/// A worker that lost its lease cannot release the lease of the new holder.
pub async fn giving_back_a_lost_lease_changes_nothing(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let old = take(&*store, at(0), id).await;
    let new = take(&*store, at(0).plus_millis(LEASE), id).await;
    store
        .release(&[old.lease], at(0).plus_millis(LEASE))
        .await
        .expect("is ignored");
    assert_eq!(due(&*store, at(1).plus_millis(LEASE)).await, []);
    commit(&*store, CommitFixture::on(&new).build()).await;
}

/// Claims count the takeovers of an execution, also across commits without progress. A release or a commit
/// with progress resets the count.
pub async fn takeovers_are_counted_until_a_commit_makes_progress(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let mut now = at(0);
    let mut took_over = async |by_name: bool| {
        now = now.plus_millis(LEASE);
        let claimed = match by_name {
            true => take(&*store, now, id).await,
            false => Worker::new().due(&*store, now, 1).await.claimed.remove(0),
        };
        (claimed.takeovers, claimed)
    };
    assert_eq!(took_over(true).await.0, 0, "nobody had it");
    assert_eq!(took_over(true).await.0, 1);
    let (count, claimed) = took_over(false).await;
    assert_eq!(count, 2);
    let kept = |it: &Claimed, made_progress| {
        CommitFixture::on(it)
            .keep(at(0))
            .but(|commit| commit.made_progress = made_progress)
            .build()
    };
    commit(&*store, kept(&claimed, false)).await;
    let (count, claimed) = took_over(false).await;
    assert_eq!(count, 3, "it was no further");
    commit(&*store, kept(&claimed, true)).await;
    let (count, claimed) = took_over(true).await;
    assert_eq!(count, 1);
    store
        .release(&[claimed.lease], at(0))
        .await
        .expect("releases");
    assert_eq!(took_over(false).await.0, 1, "it was given back");
    assert_eq!(took_over(false).await.0, 2);
}
