//! Tests of a property that only the memory store has: ended executions take no place in its queue.

use std::sync::Arc;

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at, signal},
    ids::{OrganizationId, WorkerId},
    ports::{Claim, ClaimRequest, ClaimWhat, ExecutionStore},
    run::Status,
};

use super::MemoryStore;

async fn claim(store: &MemoryStore, now: i64) -> Claim {
    let node_types: Arc<[Arc<str>]> = ["extract", "render"].map(Arc::from).into();
    let what = ClaimWhat::Due {
        limit: 100,
        per_organization: 100,
        node_types,
    };
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what,
        now: at(now),
        lease_until: at(now + 100),
    };
    store.claim(request).await.expect("claims")
}

#[tokio::test]
async fn what_has_ended_or_waits_for_a_signal_is_not_in_the_queue() {
    let store = MemoryStore::default();
    let organization = OrganizationId::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let run = RunFixture::of(organization).build();
        ids.push(run.state.execution.id);
        store.create(run).await.expect("stores");
    }
    let claimed = claim(&store, 0).await.claimed;
    assert_eq!(store.queue().len(), 3);
    store
        .commit(
            CommitFixture::on(&claimed[0])
                .status(Status::Completed)
                .build(),
        )
        .await
        .expect("commits");
    store
        .commit(CommitFixture::on(&claimed[1]).wake_at(None).build())
        .await
        .expect("commits");
    assert_eq!(store.queue().len(), 1);
    store
        .signal(signal(organization, claimed[1].lease.execution_id, at(5)))
        .await
        .expect("signals");
    assert_eq!(store.queue().len(), 2);
    store
        .commit(
            CommitFixture::on(&claimed[2])
                .status(Status::Failed)
                .build(),
        )
        .await
        .expect("commits");
    assert_eq!(store.queue().len(), 1);
}

#[tokio::test]
async fn a_tenant_that_comes_later_is_served_in_turn() {
    let store = MemoryStore::default();
    let tenants = [(); 3].map(|()| OrganizationId::new());
    for tenant in tenants {
        for _ in 0..3 {
            store
                .create(RunFixture::of(tenant).build())
                .await
                .expect("stores");
        }
    }
    let served: Vec<_> = claim(&store, 0)
        .await
        .claimed
        .iter()
        .map(|it| it.state.execution.organization_id)
        .collect();
    for round in served.chunks(3) {
        assert!(
            tenants.iter().all(|tenant| round.contains(tenant)),
            "each once a round: {served:?}"
        );
    }
}
