//! What cannot be read any more, by damage or by another version, holds up nothing else.

use std::sync::Arc;

use docg_core::{
    conformance::fixtures::{RunFixture, at, signal},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{Claim, ClaimRequest, ClaimWhat, RunStore},
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

mod support;

struct World {
    store: PgStore,
    organization: OrganizationId,
    database: Database,
}

impl World {
    async fn new() -> Self {
        let database = support::migrated().await;
        let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
        Self {
            store: store.expect("connects"),
            organization: OrganizationId::new(),
            database,
        }
    }

    async fn create(&self) -> ExecutionId {
        let run = RunFixture::of(self.organization).build();
        let id = run.state.execution.id;
        self.store.create(run).await.expect("stores");
        id
    }

    async fn claim(&self, now: i64) -> Claim {
        let request = ClaimRequest {
            worker_id: WorkerId::new(),
            what: ClaimWhat::Due {
                limit: 64,
                per_organization: 64,
                node_types: ["extract", "render"].map(Arc::from).into(),
            },
            now: at(now),
            lease_until: at(now + 1_000),
        };
        self.store.claim(request).await.expect("claims")
    }

    async fn damage(&self, sql: &str) {
        let mut connection = PgConnection::connect(self.database.url())
            .await
            .expect("connects");
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .expect("damages");
        assert_ne!(done.rows_affected(), 0, "something was damaged");
    }
}

fn ids(claim: &Claim) -> Vec<ExecutionId> {
    let claimed = claim.claimed.iter();
    let mut ids: Vec<_> = claimed.map(|it| it.lease.execution_id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn an_execution_that_cannot_be_read_does_not_keep_others_from_being_claimed() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for damage in [
        "UPDATE docg.execution_steps SET output = '$deep' WHERE execution_id = '$id' AND position = 0",
        "UPDATE docg.execution_data SET trigger_data = '$deep' WHERE execution_id = '$id'",
        "UPDATE docg.executions SET waiting_for = '{}' WHERE id = '$id'",
        "WITH d AS (INSERT INTO docg.definitions VALUES (sha256('x'), '{}') RETURNING hash)
         UPDATE docg.execution_data SET definition_hash = sha256('x') WHERE execution_id = '$id'",
        "WITH pending AS (UPDATE docg.executions SET signals_pending = 1 WHERE id = '$id')
         INSERT INTO docg.signals (id, execution_id, organization_id, kind, signal, received_at)
         SELECT gen_random_uuid(), e.id, e.organization_id, 'pause', '{}', now()
         FROM docg.executions e WHERE e.id = '$id'",
    ] {
        let world = World::new().await;
        let mut good = Vec::new();
        for _ in 0..3 {
            good.push(world.create().await);
        }
        let bad = world.create().await;
        let damage = damage
            .replace("$id", &bad.to_string())
            .replace("$deep", &deep);
        world.damage(&damage).await;
        good.sort_unstable();
        assert_eq!(ids(&world.claim(0).await), good, "{damage}");
        // It is not due again at once, and the others are not when their leases run out.
        assert_eq!(ids(&world.claim(999).await), []);
        assert_eq!(ids(&world.claim(1_000).await), good, "{damage}");
    }
}

#[tokio::test]
async fn a_signal_that_cannot_be_read_does_not_hide_the_others() {
    let world = World::new().await;
    let id = world.create().await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(signal(world.organization, id, at(0)));
        world
            .store
            .signal(sent[sent.len() - 1].clone())
            .await
            .expect("signals");
    }
    let damage = format!(
        "UPDATE docg.signals SET signal = '{{}}' WHERE id = '{}'",
        sent[1].id
    );
    world.damage(&damage).await;
    sent.remove(1);
    assert_eq!(world.store.signals(id).await.expect("reads"), sent);
}

#[tokio::test]
async fn the_schema_refuses_a_status_that_is_none() {
    let world = World::new().await;
    world.create().await;
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    for table in ["executions", "execution_steps", "execution_events"] {
        let sql = format!("UPDATE docg.{table} SET status = 'done'");
        let refused = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        let error = refused.expect_err(table);
        let error = error.as_database_error().expect("the server's");
        assert!(error.is_check_violation(), "{table}: {error}");
    }
}
