use std::sync::Arc;

use super::desk::{
    LEASE, Worker, all_executions, at_once, commit, create, due, everything, refused, take,
};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{CommitFixture, RunFixture, at},
    },
    ids::{ExecutionId, OrganizationId},
    ports::{Claimed, Created, FirstClaim, NewExecution, Store, StoreErrorKind},
    run::Status,
};

impl Worker {
    /// Stores an execution with a claim for this worker. Returns the claimed execution, or the id of an
    /// execution that was stored without a lease.
    async fn create(&self, store: &dyn Store, run: RunFixture) -> Result<Claimed, ExecutionId> {
        let claim = FirstClaim {
            worker_id: self.id,
            lease_until: at(0).plus_millis(LEASE),
            per_organization: self.per_organization,
        };
        let run: NewExecution = run.claim(claim).build();
        let (id, state) = (run.state.execution.id, run.state.clone());
        match store.create(run).await.expect("stores") {
            Created::New { lease: Some(lease) } => Ok(Claimed::new(lease, state)),
            Created::New { lease: None } => Err(id),
            Created::Existing(id) => panic!("it is new, and not {id}"),
        }
    }
}

/// A lease from creation is like a lease from a claim: no other worker gets the execution before the lease
/// expires, and the next claim after that is a takeover.
pub async fn a_run_can_be_leased_as_it_is_stored(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let worker = Worker::new();
    let run = RunFixture::of(organization);
    let held = worker.create(&*store, run).await.expect("is leased");
    let id = held.lease.execution_id;
    assert_eq!(held.lease.worker_id, worker.id);
    let found = everything(&*store, organization, id).await;
    assert_eq!(
        found.record.expect("is there").execution,
        held.state.execution
    );
    assert_eq!(due(&*store, at(LEASE.cast_signed() - 1)).await, []);
    assert!(Worker::new().one(&*store, at(1), id).await.is_none());
    let kept = CommitFixture::on(&held).events(1).keep(at(20_000)).build();
    commit(&*store, kept).await;
    let after = take(&*store, at(20_000), id).await;
    assert!(after.taken_over);
    assert!(after.lease.fence > held.lease.fence);
}

/// A lease from creation can be released, and the execution is then due for every worker.
pub async fn what_was_leased_as_it_was_stored_can_be_given_back(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let run = RunFixture::of(OrganizationId::new());
    let held = Worker::new().create(&*store, run).await.expect("is leased");
    let id = held.lease.execution_id;
    store.release(&[held.lease], at(1)).await.expect("releases");
    let claimed = Worker::new().due(&*store, at(1), 1).await.claimed.remove(0);
    assert_eq!(
        (claimed.lease.execution_id, claimed.taken_over),
        (id, false)
    );
    assert!(claimed.lease.fence > held.lease.fence);
}

/// If the organization already has its share of leases, an execution is stored without a lease. Leases from
/// claims and from creation both count against the share until they expire.
pub async fn leases_of_new_runs_are_of_their_organizations_share(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let mut worker = Worker::new();
    worker.per_organization = 2;
    let run = || RunFixture::of(organization);
    let first = worker.create(&*store, run()).await.expect("is leased");
    let by_claim = create(&*store, run().build()).await;
    take(&*store, at(0), by_claim).await;
    let waiting = worker
        .create(&*store, run())
        .await
        .expect_err("is too much");
    let other = RunFixture::of(OrganizationId::new());
    worker.create(&*store, other).await.expect("is another's");
    assert_eq!(worker.due(&*store, at(0), 10).await.claimed.len(), 0);

    let done = CommitFixture::on(&first).status(Status::Canceled).build();
    commit(&*store, done).await;
    worker.create(&*store, run()).await.expect("one came free");
    assert_eq!(worker.due(&*store, at(1), 10).await.claimed.len(), 0);
    let later = at(0).plus_millis(LEASE);
    let run = run().created_at(later);
    worker
        .create(&*store, run)
        .await
        .expect("they have run out");
    assert!(due(&*store, later).await.contains(&waiting));
}

/// Concurrent claims and creations together give an organization no more leases than its share.
pub async fn of_runs_stored_at_once_no_more_than_the_share_are_leased(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    for _ in 0..8 {
        create(&**store, RunFixture::of(organization).build()).await;
    }
    let leased = at_once(store, peer, 16, |index, store| async move {
        let mut worker = Worker::new();
        worker.per_organization = 5;
        if index % 4 < 2 {
            worker.due(&*store, at(0), 2).await.claimed.len()
        } else {
            let run = RunFixture::of(organization);
            usize::from(worker.create(&*store, run).await.is_ok())
        }
    });
    let leased: usize = leased.await.into_iter().sum();
    assert!(leased <= 5, "{leased} are leased");
    let mut worker = Worker::new();
    worker.per_organization = 5;
    let rest = worker.due(&**store, at(0), 10).await.claimed.len();
    assert_eq!(leased + rest, 5, "nothing of the share is lost");
}

/// A creation with a repeated key leases no execution.
pub async fn a_repeated_key_leases_nothing(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let first = create(&*store, RunFixture::of(organization).key("k", 1).build()).await;
    let claim = FirstClaim {
        worker_id: Worker::new().id,
        lease_until: at(0).plus_millis(LEASE),
        per_organization: 1,
    };
    let again = RunFixture::of(organization)
        .key("k", 1)
        .claim(claim)
        .build();
    let created = store.create(again).await.expect("answers");
    assert_eq!(created, Created::Existing(first));
    assert_eq!(due(&*store, at(0)).await, [first]);
}

/// Readers find a new execution exactly as it was created.
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

/// A second call with the same key and body returns the first execution and stores nothing.
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

/// A key that was used with another body is refused, and nothing is stored.
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

/// Two organizations may use the same key, and one organization may use several keys.
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

/// Many creations with one key come at once: one creation stores its execution, and the others get the id of
/// that execution.
pub async fn of_concurrent_creates_with_one_key_one_is_new(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organization = OrganizationId::new();
    let results = at_once(store, peer, 16, |_, store| async move {
        let run = RunFixture::of(organization).key("k", 1).build();
        let id = run.state.execution.id;
        match store.create(run).await.expect("answers") {
            Created::New { .. } => (true, id),
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

/// A refused creation leaves its key unused.
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

/// A creation with the id of a stored execution is refused, and the stored execution stays unchanged.
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

/// If the events of a creation are not numbered 1, 2, 3 without gaps, the creation is refused, and nothing is
/// stored.
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
