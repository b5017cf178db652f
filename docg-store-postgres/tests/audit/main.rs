//! Attempts to change the audit trail, on a real PostgreSQL server.

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{ClaimRequest, ClaimWhat, ExecutionStore},
    run::Status,
};
use docg_store_postgres::{
    AuditFault, AuditReport, AuditTrust, CheckpointKey, CheckpointSummary, PgStore, PgStoreConfig,
    grants_sql, verify_audit_export,
};
use docg_test_servers::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgPoolOptions};
use uuid::Uuid;

#[path = "../support/mod.rs"]
mod support;

mod checkpoints;
mod exports;
mod orphans;
mod purging;
mod statuses;

struct World {
    store: PgStore,
    organization: OrganizationId,
    key: CheckpointKey,
    database: Database,
}

impl World {
    async fn new() -> Self {
        let database = support::migrated().await;
        let store = PgStore::connect(database.url(), PgStoreConfig::default())
            .await
            .expect("connects");
        Self {
            store,
            organization: OrganizationId::new(),
            key: CheckpointKey::from_seed([7; 32]),
            database,
        }
    }

    /// Creates an execution that has ended, with four audit rows.
    async fn execution(&self) -> ExecutionId {
        let run = RunFixture::of(self.organization).build();
        let id = run.state.execution.id;
        self.store.create(run).await.expect("stores");
        let request = ClaimRequest {
            worker_id: WorkerId::new(),
            what: ClaimWhat::One(id),
            now: at(0),
            lease_until: at(60_000),
        };
        let claim = self.store.claim(request).await.expect("claims");
        let commit = CommitFixture::on(&claim.claimed[0])
            .audit("document.generated")
            .audit("document.sent")
            .audit("execution.completed")
            .status(Status::Completed)
            .build();
        self.store.commit(commit).await.expect("commits");
        id
    }

    async fn checkpoint(&self) -> CheckpointSummary {
        let made = self
            .store
            .checkpoint_audit(self.organization, &self.key, at(9))
            .await;
        made.expect("signs").expect("something has moved")
    }

    /// Purges executions that ended before `before`, then the audit rows of purged executions. Returns the
    /// number of executions whose audit rows it deleted.
    async fn purge_audit(&self, before: i64) -> usize {
        self.store.purge(at(before), 10).await.expect("purges");
        let purge = self.store.purge_audit(at(before), 10, &self.key, at(2_000));
        let made = purge.await.expect("purges");
        made.iter().map(|checkpoint| checkpoint.chains).sum()
    }

    fn trust(&self) -> AuditTrust {
        AuditTrust::keys([self.key.public_key()])
    }

    async fn verify(&self) -> AuditReport {
        self.verify_with(&self.trust()).await
    }

    async fn verify_with(&self, trust: &AuditTrust) -> AuditReport {
        self.store
            .verify_audit(self.organization, None, trust)
            .await
            .expect("can be read")
    }

    async fn export(&self) -> String {
        let mut out = Vec::new();
        self.store
            .export_audit(self.organization, None, &mut out)
            .await
            .expect("writes");
        String::from_utf8(out).expect("is text")
    }

    /// Runs SQL as a superuser who bypasses the guards.
    async fn forge(&self, sql: String) {
        let mut connection = PgConnection::connect(self.database.url())
            .await
            .expect("connects");
        connection
            .execute("SET session_replication_role = replica")
            .await
            .expect("may");
        let done = connection
            .execute(AssertSqlSafe(sql))
            .await
            .expect("forges");
        assert_ne!(done.rows_affected(), 0, "something was forged");
    }
}

#[tokio::test]
async fn every_guarded_table_refuses_changes_even_to_its_owner() {
    let world = World::new().await;
    world.execution().await;
    world.execution().await;
    world.checkpoint().await;
    assert_eq!(world.store.purge(at(1_000), 1).await.expect("purges"), 1);
    let purge = world.store.purge_audit(at(1_000), 1, &world.key, at(2_000));
    assert_eq!(purge.await.expect("purges")[0].chains, 1);
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    for (table, column) in [
        ("audit_events", "action = 'x'"),
        ("audit_heads", "audit_seq = 1"),
        ("audit_checkpoints", "seq = 7"),
        ("audit_checkpoint_heads", "audit_seq = 1"),
        ("audit_purges", "purged_at = now()"),
    ] {
        for change in [
            format!("UPDATE docg.{table} SET {column}"),
            format!("DELETE FROM docg.{table}"),
            format!("TRUNCATE docg.{table}"),
        ] {
            let refused = connection.execute(AssertSqlSafe(change.clone())).await;
            let error = refused.expect_err(&change).to_string();
            assert!(error.contains("never changed"), "{change}: {error}");
        }
    }
    // The guards' exceptions, for erasure and for purging, allow no other change.
    for (door, change) in [
        (
            "erasure",
            "UPDATE docg.audit_events SET actor_id = 'somebody else'",
        ),
        (
            "erasure",
            "UPDATE docg.audit_events SET actor_id = NULL, hash = prev_hash",
        ),
        ("erasure", "DELETE FROM docg.audit_events"),
        ("retention", "UPDATE docg.audit_events SET action = 'x'"),
        ("retention", "TRUNCATE docg.audit_events"),
    ] {
        let set = format!("SET docg.audit_{door} = on");
        connection.execute(AssertSqlSafe(set)).await.expect("sets");
        connection.execute(change).await.expect_err(change);
        connection.execute("RESET ALL").await.expect("resets");
    }
}

#[tokio::test]
async fn a_role_that_serves_can_do_all_its_work_and_cannot_touch_the_trail() {
    let world = World::new().await;
    let role = format!("docg_app_{}", Uuid::new_v4().simple());
    let mut owner = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    let create = format!("CREATE ROLE {role}; {}", grants_sql(&role));
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(&mut owner)
        .await
        .expect("grants");
    assert_eq!(
        world.store.audit_privileges().await.expect("reads"),
        Some("is a superuser"),
        "the tests' own role"
    );

    let set_role = format!("SET ROLE {role}");
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .after_connect(move |connection, _| {
            let set_role = set_role.clone();
            Box::pin(async move {
                connection.execute(AssertSqlSafe(set_role)).await?;
                Ok(())
            })
        })
        .connect(world.database.url())
        .await
        .expect("connects");
    let app = World {
        store: PgStore::new(pool.clone(), PgStoreConfig::default()),
        ..World::new().await
    };
    assert_eq!(app.store.audit_privileges().await.expect("reads"), None);
    let id = app.execution().await;
    app.checkpoint().await;
    assert!(app.verify().await.is_valid());
    app.store.migrate().await.expect("has nothing to do");
    for change in [
        "UPDATE docg.audit_events SET action = 'x'",
        "DELETE FROM docg.audit_events",
        "TRUNCATE docg.audit_events",
        "ALTER TABLE docg.audit_events DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
    ] {
        pool.execute(change).await.expect_err(change);
    }
    app.store
        .erase_audit(app.organization, id)
        .await
        .expect_err("is for the owner");
    assert_eq!(app.store.purge(at(1_000), 10).await.expect("purges"), 1);
    assert!(app.verify().await.is_valid());
    pool.close().await;
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(drop))
        .execute(&mut owner)
        .await
        .expect("drops");
}

#[tokio::test]
async fn a_forged_chain_shows_where_it_was_forged() {
    for (forgery, seq) in [
        (
            "UPDATE docg.audit_events SET action = 'document.saved' WHERE seq = 2",
            2,
        ),
        (
            "UPDATE docg.audit_events SET metadata = '{\"why\": \"other\"}' WHERE seq = 3",
            3,
        ),
        (
            "UPDATE docg.audit_events SET actor_id = 'dev' WHERE seq = 1",
            1,
        ),
        (
            "UPDATE docg.audit_events SET timestamp = timestamp + interval '1 s' WHERE seq = 4",
            4,
        ),
        (
            "UPDATE docg.audit_events SET salt = NULL, actor_id = 'mallory',
                metadata = '{\"forged\": true}' WHERE seq = 2",
            2,
        ),
        (
            "UPDATE docg.audit_events SET salt = NULL, actor_id = NULL WHERE seq = 3",
            3,
        ),
        (
            "UPDATE docg.audit_events SET salt = NULL, metadata = NULL WHERE seq = 4",
            4,
        ),
        ("DELETE FROM docg.audit_events WHERE seq = 2", 2),
        ("DELETE FROM docg.audit_events WHERE seq = 4", 4),
        (
            "UPDATE docg.executions SET audit_hash = decode(repeat('ab', 32), 'hex')",
            4,
        ),
    ] {
        let world = World::new().await;
        let execution_id = world.execution().await;
        assert!(world.verify().await.is_valid());
        world.forge(forgery.to_owned()).await;
        let faults = world.verify().await.faults;
        assert_eq!(
            faults,
            [AuditFault::Chain { execution_id, seq }],
            "{forgery}"
        );
        let export = world.export().await;
        let report =
            verify_audit_export(export.as_bytes(), &AuditTrust::default()).expect("can be read");
        assert_eq!(report.faults, faults, "the export shows it too");
    }
}
