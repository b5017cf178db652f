use std::{collections::HashSet, slice, sync::Arc};

use super::desk::{LEASE, Worker, at_once, commit, create, due, ids, take, work};
use crate::{
    conformance::{
        StoreUnderTest,
        fixtures::{self, CommitFixture, RunFixture, at, workflow},
    },
    ids::{ExecutionId, OrganizationId},
    ports::{Claimed, NewExecution, Unserved},
    run::Status,
};

/// A claim returns the execution's whole state as it was stored, and an empty inbox.
pub async fn what_is_due_is_given_with_its_whole_state(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let run = RunFixture::of(OrganizationId::new()).build();
    let id = create(&*store, run.clone()).await;
    let worker = Worker::new();
    let claim = worker.due(&*store, at(0), 10).await;
    assert_eq!(claim.claimed.len(), 1);
    assert_eq!(claim.claimed[0].state, run.state);
    assert_eq!(claim.claimed[0].signals, []);
    assert_eq!(claim.claimed[0].lease.execution_id, id);
    assert_eq!(claim.claimed[0].lease.worker_id, worker.id);
}

/// A new execution is due at its `due_at`, whatever its `wake_at`. An execution without `due_at` is not due.
pub async fn what_is_not_due_is_not_given(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let [later, never] = [Some(at(100)), None].map(|due_at| NewExecution {
        due_at,
        ..RunFixture::of(organization).wake_at(at(5)).build()
    });
    let later = create(&*store, later).await;
    create(&*store, never).await;
    assert_eq!(due(&*store, at(99)).await, []);
    assert_eq!(due(&*store, at(100)).await, [later]);
    assert_eq!(due(&*store, at(101)).await, []);
}

/// Executions with a higher priority are claimed first. At equal priority within an organization, the
/// execution that has been due for longest is claimed first.
pub async fn higher_priority_then_longer_due_comes_first(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let run = |priority: i16, wake_at: i64| {
        create(
            &*store,
            RunFixture::of(organization)
                .priority(priority)
                .wake_at(at(wake_at))
                .build(),
        )
    };
    let third = run(0, 10).await;
    let second = run(5, 20).await;
    let last = run(-3, 1).await;
    let fourth = run(0, 15).await;
    let first = run(5, 10).await;
    let worker = Worker::new();
    assert_eq!(
        ids(&worker.due(&*store, at(20), 3).await),
        [first, second, third]
    );
    assert_eq!(ids(&worker.due(&*store, at(20), 3).await), [fourth, last]);
}

/// If many workers claim concurrently, each execution is claimed only once.
pub async fn many_workers_get_each_execution_once(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let organizations = [OrganizationId::new(), OrganizationId::new()];
    let mut created = HashSet::new();
    for index in 0..60 {
        created.insert(create(&**store, RunFixture::of(organizations[index % 2]).build()).await);
    }
    let given = at_once(store, peer, 8, |_, store| async move {
        let worker = Worker::new();
        let mut given: Vec<ExecutionId> = Vec::new();
        loop {
            let some = ids(&worker.due(&*store, at(0), 4).await);
            if some.is_empty() {
                return given;
            }
            given.extend(some);
        }
    })
    .await;
    // A claim may return nothing while other claims run; a claim after them finds the rest.
    let mut given: Vec<_> = given.into_iter().flatten().collect();
    given.extend(due(&**store, at(0)).await);
    assert_eq!(given.len(), created.len(), "each is given once");
    assert_eq!(given.into_iter().collect::<HashSet<_>>(), created);
}

/// Of many concurrent claims of one execution by id, one succeeds.
pub async fn of_many_claims_of_one_execution_one_gets_it(under_test: StoreUnderTest) {
    let StoreUnderTest { store, peer, .. } = &under_test;
    let id = create(&**store, RunFixture::of(OrganizationId::new()).build()).await;
    let got = at_once(store, peer, 8, |_, store| async move {
        Worker::new().one(&*store, at(0), id).await.is_some()
    });
    assert_eq!(got.await.into_iter().filter(|got| *got).count(), 1);
}

/// A leased execution cannot be claimed, neither as due nor by id, not even by the lease holder.
pub async fn what_is_leased_is_not_given(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let worker = Worker::new();
    assert!(worker.one(&*store, at(0), id).await.is_some());
    assert_eq!(due(&*store, at(1)).await, []);
    assert!(worker.one(&*store, at(1), id).await.is_none());
    assert!(Worker::new().one(&*store, at(1), id).await.is_none());
}

/// A claim by id succeeds if the execution is due, waits, or has ended.
pub async fn one_by_name_is_given_due_or_not_ended_or_not(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    let later = create(
        &*store,
        RunFixture::of(organization).wake_at(at(1_000_000)).build(),
    )
    .await;
    let never = create(&*store, RunFixture::of(organization).wake_at(None).build()).await;
    let ended = create(&*store, RunFixture::of(organization).build()).await;
    work(&*store, at(0), ended, |it| {
        CommitFixture::on(it).status(Status::Canceled).build()
    })
    .await;
    for id in [later, never, ended] {
        assert!(Worker::new().one(&*store, at(2), id).await.is_some());
    }
}

/// A claim of an unknown id returns nothing, and is no error.
pub async fn one_that_is_not_there_is_not_given(StoreUnderTest { store, .. }: StoreUnderTest) {
    assert!(
        Worker::new()
            .one(&*store, at(0), ExecutionId::new())
            .await
            .is_none()
    );
}

/// Each claim of an execution has a higher fencing token than the claim before, however the earlier lease
/// ended.
pub async fn fences_grow_with_every_claim(StoreUnderTest { store, .. }: StoreUnderTest) {
    let id = create(&*store, RunFixture::of(OrganizationId::new()).build()).await;
    let first = take(&*store, at(0), id).await;
    store
        .release(&[first.lease], at(1))
        .await
        .expect("releases");
    let second = Worker::new().due(&*store, at(1), 1).await.claimed.remove(0);
    assert!(second.lease.fence > first.lease.fence);
    commit(&*store, CommitFixture::on(&second).build()).await;
    let third = take(&*store, at(2), id).await;
    assert!(third.lease.fence > second.lease.fence);
    let fourth = take(&*store, at(2).plus_millis(LEASE), id).await;
    assert!(fourth.lease.fence > third.lease.fence);
}

/// A worker gets an execution only if it knows all node types of its workflow.
pub async fn only_what_the_worker_can_run_is_given(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let of_types = |node_types: &[&str]| {
        RunFixture::with(Arc::new(workflow(organization, node_types))).build()
    };
    let both = create(&*store, of_types(&["render", "extract", "render"])).await;
    let render = create(&*store, of_types(&["render"])).await;
    let send = create(&*store, of_types(&["render", "send"])).await;
    let mut worker = Worker::new();
    for (known, expected) in [
        (&["other"][..], vec![]),
        (&["render"], vec![render]),
        (&["extract", "render"], vec![both]),
    ] {
        worker.node_types = known.iter().copied().map(Arc::from).collect();
        assert_eq!(ids(&worker.due(&*store, at(0), 10).await), expected);
    }
    worker.node_types = ["send", "extract", "other", "render"].map(Arc::from).into();
    assert_eq!(ids(&worker.due(&*store, at(0), 10).await), [send]);
}

/// Executions that were due before a given time, and that the worker cannot run, are reported by their
/// node types, across organizations.
pub async fn what_the_worker_cannot_run_is_told(StoreUnderTest { store, .. }: StoreUnderTest) {
    let of_types = |node_types: &[&str]| {
        RunFixture::with(Arc::new(workflow(OrganizationId::new(), node_types))).build()
    };
    let unserved = async |known: &[&str], before: i64| {
        let known = known.iter().copied().map(Arc::from).collect();
        let found = store.unserved(known, at(before)).await;
        let mut found = found.expect("reads");
        found.sort_by(|a, b| a.node_types.cmp(&b.node_types));
        found
    };
    let told = |node_types: &[&str], runs: &[&NewExecution]| {
        let executions = runs.iter().map(|run| &run.state.execution);
        let mut executions: Vec<_> = executions.map(|it| (it.id, it.organization_id)).collect();
        executions.sort_unstable();
        Unserved {
            node_types: node_types.iter().copied().map(Arc::from).collect(),
            due_since: at(0),
            executions: executions
                .into_iter()
                .map(|(id, owner)| (owner, id))
                .collect(),
        }
    };
    let renders = of_types(&["render"]);
    let sends = [of_types(&["send", "render"]), of_types(&["render", "send"])];
    let render = told(&["render"], &[&renders]);
    let send = told(&["render", "send"], &[&sends[0], &sends[1]]);
    let one_left = told(&["render", "send"], &[&sends[1]]);
    create(&*store, renders).await;
    let [first, second] = sends;
    let first = create(&*store, first).await;
    let second = create(&*store, second).await;
    assert_eq!(unserved(&["render"], 1).await, slice::from_ref(&send));
    assert_eq!(unserved(&["other"], 1).await, [render, send.clone()]);
    assert_eq!(unserved(&["send", "render", "other"], 1).await, []);
    assert_eq!(
        unserved(&["render"], 0).await,
        [],
        "it is due since just now"
    );
    take(&*store, at(0), first).await;
    assert_eq!(unserved(&["render"], 1).await, [one_left]);
    let claimed = take(&*store, at(0), second).await;
    assert_eq!(unserved(&["render"], 1).await, []);
    let ended = CommitFixture::on(&claimed).status(Status::Canceled).build();
    commit(&*store, ended).await;
    assert_eq!(unserved(&["render"], 1).await, []);
}

/// All workers together never lease more executions of an organization than its share. After a release, the
/// organization can get another lease.
pub async fn an_organization_gets_no_more_than_its_share(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    for _ in 0..6 {
        create(&*store, RunFixture::of(organization).build()).await;
    }
    let (mut one, mut two) = (Worker::new(), Worker::new());
    (one.per_organization, two.per_organization) = (3, 3);
    let first = one.due(&*store, at(0), 2).await;
    assert_eq!(first.claimed.len(), 2);
    assert_eq!(
        two.due(&*store, at(0), 10).await.claimed.len(),
        1,
        "another worker's leases count"
    );
    assert_eq!(one.due(&*store, at(0), 10).await.claimed.len(), 0);

    let done = CommitFixture::on(&first.claimed[0])
        .status(Status::Canceled)
        .build();
    commit(&*store, done).await;
    let kept = CommitFixture::on(&first.claimed[1])
        .keep(at(LEASE.cast_signed()))
        .build();
    commit(&*store, kept).await;
    assert_eq!(
        two.due(&*store, at(1), 10).await.claimed.len(),
        1,
        "one lease has come free"
    );
}

/// An expired lease no longer counts against its organization's share of leases.
pub async fn leases_that_ran_out_do_not_count_as_share(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let organization = OrganizationId::new();
    for _ in 0..4 {
        create(&*store, RunFixture::of(organization).build()).await;
    }
    let mut worker = Worker::new();
    worker.per_organization = 2;
    assert_eq!(worker.due(&*store, at(0), 10).await.claimed.len(), 2);
    let now = at(0).plus_millis(LEASE);
    assert_eq!(worker.due(&*store, now, 10).await.claimed.len(), 2);
}

/// If one organization has many due executions, a later execution of another organization is still claimed.
pub async fn a_flood_leaves_room_for_other_organizations(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let (flood, other) = (OrganizationId::new(), OrganizationId::new());
    for _ in 0..20 {
        create(&*store, RunFixture::of(flood).wake_at(at(0)).build()).await;
    }
    let late = create(&*store, RunFixture::of(other).wake_at(at(5)).build()).await;
    let mut worker = Worker::new();
    worker.per_organization = 4;
    let given = ids(&worker.due(&*store, at(5), 8).await);
    assert_eq!(given.len(), 5, "the share of the one and all of the other");
    assert!(given.contains(&late));
}

/// If organizations take turns, an execution that is due late is claimed before another organization has its
/// full share of leases.
pub async fn organizations_take_turns(
    StoreUnderTest {
        store,
        capabilities,
        ..
    }: StoreUnderTest,
) {
    let (flood, other) = (OrganizationId::new(), OrganizationId::new());
    for _ in 0..20 {
        create(&*store, RunFixture::of(flood).wake_at(at(0)).build()).await;
    }
    let late = create(&*store, RunFixture::of(other).wake_at(at(5)).build()).await;
    let given = ids(&Worker::new().due(&*store, at(5), 4).await);
    assert_eq!(given.len(), 4);
    assert!(given.contains(&late) || !capabilities.takes_turns);
}

/// An ended execution is not due, whether a later lease on it was released or expired.
pub async fn what_has_ended_is_not_given(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    for status in [Status::Completed, Status::Failed, Status::Canceled] {
        let id = create(&*store, RunFixture::of(organization).build()).await;
        work(&*store, at(0), id, |it| {
            CommitFixture::on(it).status(status).build()
        })
        .await;
        let claimed = take(&*store, at(2), id).await;
        store
            .release(&[claimed.lease], at(3))
            .await
            .expect("releases");
        take(&*store, at(4), id).await;
    }
    assert_eq!(due(&*store, at(1_000_000)).await, []);
}

/// An ended execution with a signal is due from the time of the signal, not from the end of an earlier lease.
pub async fn what_has_ended_is_due_since_its_signal(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let end = 2 + LEASE.cast_signed();
    for is_released in [true, false] {
        let id = create(&*store, RunFixture::of(organization).build()).await;
        work(&*store, at(0), id, |it| {
            CommitFixture::on(it).status(Status::Completed).build()
        })
        .await;
        let lease = take(&*store, at(2), id).await.lease;
        if is_released {
            store.release(&[lease], at(3)).await.expect("releases");
        }
        // After the lease has expired, a claim finds no due execution.
        assert_eq!(due(&*store, at(end)).await, []);
        let before = RunFixture::of(organization).wake_at(at(end + 1)).build();
        let before = create(&*store, before).await;
        let signal = fixtures::signal(organization, id, at(end + 2));
        store.signal(signal).await.expect("signals");
        for expected in [before, id] {
            let found = Worker::new().due(&*store, at(end + 3), 1).await;
            assert_eq!(ids(&found), [expected]);
        }
    }
}

/// The `next_due` of a claim is never later than the time at which the next execution becomes due.
pub async fn next_due_is_not_too_late(StoreUnderTest { store, .. }: StoreUnderTest) {
    let organization = OrganizationId::new();
    let worker = Worker::new();
    create(
        &*store,
        RunFixture::of(organization).wake_at(at(500)).build(),
    )
    .await;
    create(
        &*store,
        RunFixture::of(organization)
            .wake_at(at(300))
            .priority(-1)
            .build(),
    )
    .await;
    let none_yet = worker.due(&*store, at(0), 10).await;
    assert!(
        none_yet.next_due.is_none_or(|next| next <= at(300)),
        "{none_yet:?}"
    );
    create(&*store, RunFixture::of(organization).wake_at(at(0)).build()).await;
    create(&*store, RunFixture::of(organization).wake_at(at(0)).build()).await;
    let one_more = worker.due(&*store, at(1), 1).await;
    assert!(
        one_more.next_due.is_none_or(|next| next <= at(1)),
        "another is due already: {one_more:?}"
    );
    worker.due(&*store, at(1), 10).await;
    let leased = worker.due(&*store, at(600), 10).await;
    assert!(
        leased
            .next_due
            .is_none_or(|next| next <= at(1).plus_millis(LEASE)),
        "leases end: {leased:?}"
    );
}

/// A claim reports if it held back executions because their organization had its share of leases. The next
/// commit that releases one of the organization's leases then sets `share_awaited`; no other commit sets it.
pub async fn a_claim_that_the_share_cuts_short_is_told_when_a_lease_is_released(
    StoreUnderTest { store, .. }: StoreUnderTest,
) {
    let (busy, other) = (OrganizationId::new(), OrganizationId::new());
    for _ in 0..4 {
        create(&*store, RunFixture::of(busy).build()).await;
    }
    let mut worker = Worker::new();
    worker.per_organization = 2;
    let first = worker.due(&*store, at(0), 10).await;
    assert_eq!(first.claimed.len(), 2);
    assert!(first.held_back);
    let released = |it: &Claimed| CommitFixture::on(it).status(Status::Completed).build();

    let others = create(&*store, RunFixture::of(other).build()).await;
    let ended = work(&*store, at(0), others, released).await;
    assert!(!ended.share_awaited, "it is another organization's");
    let kept = CommitFixture::on(&first.claimed[0])
        .keep(at(LEASE.cast_signed()))
        .build();
    let version = kept.execution.version;
    assert!(
        !commit(&*store, kept).await.share_awaited,
        "nothing is free"
    );
    let ended = released(&first.claimed[1]);
    assert!(commit(&*store, ended).await.share_awaited);
    let mut ended = released(&first.claimed[0]);
    ended.expected_version = version;
    ended.execution.version = version + 1;
    assert!(!commit(&*store, ended).await.share_awaited, "it was told");

    let rest = worker.due(&*store, at(1), 10).await;
    assert_eq!(rest.claimed.len(), 2);
    assert!(!rest.held_back, "nothing is left");
    let send = Arc::new(workflow(busy, &["send"]));
    create(&*store, RunFixture::with(send).build()).await;
    worker.node_types = ["extract", "render"].map(Arc::from).into();
    let none = worker.due(&*store, at(1), 10).await;
    assert!(!none.held_back, "it could not take that anyway");
    let ended = released(&rest.claimed[0]);
    assert!(!commit(&*store, ended).await.share_awaited);
}
