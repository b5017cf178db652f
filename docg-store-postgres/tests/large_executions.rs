//! A claim loads only a few large executions at once. Later claims load the others.

use std::{collections::HashSet, sync::Arc};

use docg_core::{
    conformance::fixtures::{RunFixture, at},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{Claim, ClaimRequest, ClaimWhat, ExecutionStore},
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use serde_json::{Value, json};
use uuid::Uuid;

mod support;

async fn due(store: &PgStore, now: i64) -> Claim {
    let node_types = ["extract", "render"].map(Arc::from).into();
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::Due {
            limit: 10,
            per_organization: 10,
            node_types,
        },
        now: at(now),
        lease_until: at(now + 1_000),
    };
    store.claim(request).await.expect("claims")
}

/// A value of which the database stores more than a megabyte even after compression.
fn large() -> Value {
    let text = |_| Uuid::new_v4().simple().to_string();
    json!({"texts": (0..60_000).map(text).collect::<Vec<_>>()})
}

async fn create(store: &PgStore, organization: OrganizationId, data: Option<Value>) -> ExecutionId {
    let mut run = RunFixture::of(organization).build();
    if let Some(data) = data {
        Arc::make_mut(&mut run.state.inputs).trigger_data = data.into();
    }
    let id = run.state.execution.id;
    store.create(run).await.expect("stores");
    id
}

#[tokio::test]
async fn a_claim_loads_one_very_large_execution_and_leaves_the_others_as_they_were() {
    let database = support::migrated().await;
    let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let store = store.expect("connects");
    let (busy, other) = (OrganizationId::new(), OrganizationId::new());
    let mut large_ones = HashSet::new();
    for _ in 0..3 {
        large_ones.insert(create(&store, busy, Some(large())).await);
    }
    let mut small_ones = HashSet::new();
    for _ in 0..3 {
        small_ones.insert(create(&store, other, None).await);
    }
    // In the first round no worker has held the executions. In the second, the worker of the first has died.
    for (now, takeovers) in [(0, 0), (2_000, 1)] {
        let mut small_left = small_ones.clone();
        let mut large_left = large_ones.clone();
        for others in (0..3).rev() {
            let claim = due(&store, now).await;
            let mut loaded = 0;
            for claimed in &claim.claimed {
                let id = claimed.lease.execution_id;
                loaded += usize::from(large_left.remove(&id));
                assert!(large_ones.contains(&id) || small_left.remove(&id));
                assert_eq!(claimed.takeovers, takeovers);
                assert_eq!(claimed.taken_over, takeovers > 0);
            }
            assert_eq!(loaded, 1);
            assert!(
                small_left.is_empty(),
                "the small ones wait for none of them"
            );
            assert_eq!(claim.next_due == Some(at(now)), others > 0);
        }
        assert!(large_left.is_empty());
        assert_eq!(due(&store, now).await.claimed.len(), 0);
    }
}
