//! The audit trail against those who would change it, on a real server.

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{AuditQuery, ClaimRequest, ClaimWhat, RunReader, RunStore},
    run::Status,
};
use docg_store_postgres::{
    AuditFault, AuditReport, CheckpointKey, PgStore, PgStoreConfig, grants_sql,
    verify_audit_export, verify_audit_export_of,
};
use docg_test_servers::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgPoolOptions};
use uuid::Uuid;

mod support;

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

    /// An execution with four audit rows that has ended.
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

    async fn checkpoint(&self) {
        let made = self
            .store
            .checkpoint_audit(self.organization, &self.key, at(9))
            .await;
        assert!(made.expect("signs").is_some(), "something has moved");
    }

    async fn verify(&self) -> AuditReport {
        let trusted = [self.key.public_key()];
        self.store
            .verify_audit(self.organization, None, &trusted)
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

    /// What a superuser can do, who sets the guards aside.
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
    let let_go = world.store.purge_audit(at(1_000), 1, at(2_000)).await;
    assert_eq!(let_go.expect("purges"), 1);
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
    // The doors are narrow.
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
async fn rows_of_executions_that_are_there_are_not_let_go() {
    let world = World::new().await;
    world.execution().await;
    let mut connection = PgConnection::connect(world.database.url())
        .await
        .expect("connects");
    connection
        .execute("SET docg.audit_retention = on")
        .await
        .expect("sets");
    connection
        .execute("DELETE FROM docg.audit_events")
        .await
        .expect_err("is refused");
    assert_eq!(
        world
            .store
            .purge_audit(at(1_000), 10, at(2_000))
            .await
            .expect("finds nothing"),
        0
    );
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
        let report = verify_audit_export(export.as_bytes(), &[]).expect("can be read");
        assert_eq!(report.faults, faults, "the export shows it too");
    }
}

#[tokio::test]
async fn a_checkpoint_shows_what_a_chain_alone_cannot() {
    // A tail that was cut together with its head, and a chain that has gone altogether.
    for forgery in [
        "WITH cut AS (DELETE FROM docg.audit_events WHERE seq > 2)
         UPDATE docg.executions e SET audit_seq = 2, audit_hash = a.hash
         FROM docg.audit_events a WHERE a.execution_id = e.id AND a.seq = 2",
        "WITH rows AS (DELETE FROM docg.audit_events) DELETE FROM docg.executions",
    ] {
        let world = World::new().await;
        let execution_id = world.execution().await;
        world.checkpoint().await;
        assert!(world.verify().await.is_valid());
        world.forge(forgery.to_owned()).await;
        let expected = AuditFault::Rewritten {
            execution_id,
            seq: 4,
            checkpoint: 1,
        };
        assert_eq!(world.verify().await.faults, [expected], "{forgery}");
    }
}

#[tokio::test]
async fn checkpoints_follow_one_another_and_cannot_be_forged() {
    let world = World::new().await;
    world.execution().await;
    world.checkpoint().await;
    let none = world
        .store
        .checkpoint_audit(world.organization, &world.key, at(10))
        .await;
    assert_eq!(none.expect("looks"), None, "nothing has moved");
    world.execution().await;
    world.checkpoint().await;
    let report = world.verify().await;
    assert_eq!((report.checkpoints, report.chains, report.rows), (2, 2, 8));
    assert!(report.is_valid());

    let organization_id = world.organization;
    let other = world
        .store
        .verify_audit(organization_id, None, &[[1; 32]])
        .await;
    let signature = |seq| AuditFault::Signature {
        organization_id,
        seq,
    };
    assert_eq!(
        other.expect("can be read").faults,
        [signature(1), signature(2)]
    );

    world
        .forge("DELETE FROM docg.audit_checkpoints WHERE seq = 1".to_owned())
        .await;
    let faults = world.verify().await.faults;
    assert_eq!(
        faults,
        [AuditFault::Checkpoints {
            organization_id,
            seq: 2
        }]
    );
}

#[tokio::test]
async fn an_export_verifies_without_a_database_and_any_change_shows() {
    let world = World::new().await;
    let first = world.execution().await;
    world.execution().await;
    world.checkpoint().await;
    let trusted = [world.key.public_key()];
    let export = world.export().await;
    let report = verify_audit_export(export.as_bytes(), &trusted).expect("can be read");
    assert_eq!(report, world.verify().await);
    assert!(report.is_valid());

    let lines: Vec<&str> = export.lines().collect();
    for (index, line) in lines.iter().enumerate().skip(1) {
        let without: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != index)
            .map(|(_, line)| *line)
            .collect();
        let report = verify_audit_export(without.join("\n").as_bytes(), &trusted);
        // Whoever leaves the checkpoint out leaves no trace of it in the rest.
        let shows = !line.contains(r#""record":"checkpoint""#);
        assert_eq!(
            !report.expect("can be read").is_valid(),
            shows,
            "without {line}"
        );
        if index + 1 < lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(index, index + 1);
            let report = verify_audit_export(swapped.join("\n").as_bytes(), &trusted);
            assert!(!report.expect("can be read").is_valid(), "swapped {line}");
        }
    }
    for (from, to) in [
        ("fixture", "facture"),
        ("\"ops\"", "\"dev\""),
        (".sent", ".lost"),
    ] {
        let report = verify_audit_export(export.replacen(from, to, 1).as_bytes(), &trusted);
        assert!(!report.expect("can be read").is_valid(), "{from} -> {to}");
    }
    let mut one = Vec::new();
    let of_one = world
        .store
        .export_audit(world.organization, Some(first), &mut one)
        .await;
    of_one.expect("writes");
    let report = verify_audit_export(one.as_slice(), &trusted).expect("can be read");
    assert_eq!((report.chains, report.is_valid()), (1, true));
}

#[tokio::test]
async fn exports_of_several_organizations_verify_together_and_by_execution() {
    let mut world = World::new().await;
    let (mut ids, mut export) = (Vec::new(), String::new());
    for _ in 0..2 {
        world.organization = OrganizationId::new();
        ids.extend([world.execution().await, world.execution().await]);
        world.checkpoint().await;
        export.push_str(&world.export().await);
        let owner = world.store.audited_organization(ids[ids.len() - 1]).await;
        assert_eq!(owner.expect("reads"), Some(world.organization));
    }
    let trusted = [world.key.public_key()];
    let report = verify_audit_export(export.as_bytes(), &trusted).expect("can be read");
    assert!(report.is_valid(), "{:?}", report.faults);
    assert_eq!((report.chains, report.rows, report.checkpoints), (4, 16, 2));

    let of = |id, export: &str| {
        verify_audit_export_of(id, export.as_bytes(), &trusted).expect("can be read")
    };
    let report = of(ids[2], &export);
    assert_eq!((report.chains, report.is_valid()), (1, true));
    assert_eq!(report.head.map(|(seq, _)| seq), Some(4));
    assert_eq!(of(ExecutionId::new(), &export).chains, 0);
    // What was done to one chain is no fault of another, and a chain that is gone is missed.
    let rows_of = |line: &&str| line.contains(&ids[2].to_string()) && !line.contains("checkpoint");
    let without: Vec<&str> = export.lines().filter(|line| !rows_of(line)).collect();
    let without = without.join("\n");
    assert!(of(ids[3], &without).is_valid());
    let expected = AuditFault::Rewritten {
        execution_id: ids[2],
        seq: 4,
        checkpoint: 1,
    };
    assert_eq!(of(ids[2], &without).faults, [expected]);
}

#[tokio::test]
async fn personal_data_can_be_erased_and_the_chain_still_verifies() {
    let world = World::new().await;
    let id = world.execution().await;
    world.checkpoint().await;
    assert_eq!(
        world
            .store
            .erase_audit(world.organization, id)
            .await
            .expect("erases"),
        4
    );
    assert_eq!(
        world
            .store
            .erase_audit(world.organization, id)
            .await
            .expect("is done"),
        0
    );
    let query = AuditQuery {
        organization_id: world.organization,
        execution_id: id,
        after: 0,
        limit: 10,
    };
    for row in world.store.audit(query).await.expect("reads").items {
        assert_eq!((&*row.actor.actor_id, row.salt), ("", None));
        assert_eq!(row.metadata.as_str(), "null");
    }
    assert!(world.verify().await.is_valid());
    let trusted = [world.key.public_key()];
    let export = world.export().await;
    assert!(!export.contains("\"ops\""));
    assert!(
        verify_audit_export(export.as_bytes(), &trusted)
            .expect("can be read")
            .is_valid()
    );
}

#[tokio::test]
async fn audit_rows_outlive_their_execution_and_go_by_their_own_rule() {
    let world = World::new().await;
    world.execution().await;
    world.execution().await;
    world.checkpoint().await;
    assert_eq!(world.store.purge(at(1_000), 1).await.expect("purges"), 1);
    let report = world.verify().await;
    assert_eq!((report.chains, report.rows, report.purged), (2, 8, 0));
    assert!(report.is_valid());
    let organizations = world.store.audited_organizations().await.expect("reads");
    assert_eq!(organizations, [world.organization]);

    assert_eq!(
        world
            .store
            .purge_audit(at(1), 10, at(2_000))
            .await
            .expect("is early"),
        0
    );
    assert_eq!(
        world
            .store
            .purge_audit(at(1_000), 10, at(2_000))
            .await
            .expect("purges"),
        1
    );
    assert_eq!(
        world
            .store
            .purge_audit(at(1_000), 10, at(2_000))
            .await
            .expect("is done"),
        0
    );
    let report = world.verify().await;
    assert_eq!((report.chains, report.rows, report.purged), (2, 4, 1));
    let [AuditFault::NotSigned { execution_id }] = report.faults[..] else {
        panic!("no checkpoint has signed it yet: {:?}", report.faults);
    };

    world.checkpoint().await;
    let report = world.verify().await;
    assert_eq!((report.purged, report.faults), (1, vec![]));
    let trusted = [world.key.public_key()];
    let export = world.export().await;
    let report = verify_audit_export(export.as_bytes(), &trusted).expect("can be read");
    assert_eq!(report, world.verify().await);
    // The notes are worth nothing: what counts is signed.
    world
        .forge(format!(
            "WITH purges AS (DELETE FROM docg.audit_purges)
             DELETE FROM docg.audit_heads WHERE execution_id = '{execution_id}'"
        ))
        .await;
    assert!(world.verify().await.is_valid());
}

#[tokio::test]
async fn a_note_that_its_time_was_over_excuses_no_chain_that_was_removed() {
    let world = World::new().await;
    let execution_id = world.execution().await;
    world.checkpoint().await;
    world
        .forge(
            "WITH rows AS (DELETE FROM docg.audit_events),
            gone AS (DELETE FROM docg.executions RETURNING *),
            head AS (
                INSERT INTO docg.audit_heads
                SELECT id, organization_id, audit_seq, audit_hash, ended_at FROM gone)
            INSERT INTO docg.audit_purges SELECT id, organization_id, now() FROM gone"
                .to_owned(),
        )
        .await;
    let report = world.verify().await;
    assert_eq!(report.faults, [AuditFault::NotSigned { execution_id }]);
}

#[tokio::test]
async fn a_chain_is_signed_also_where_its_execution_was_purged_first() {
    let world = World::new().await;
    let execution_id = world.execution().await;
    assert_eq!(world.store.purge(at(1_000), 1).await.expect("purges"), 1);
    world.checkpoint().await;
    assert!(world.verify().await.is_valid());
    let again = world
        .store
        .checkpoint_audit(world.organization, &world.key, at(10))
        .await;
    assert_eq!(again.expect("looks"), None, "it is signed");
    world
        .forge(
            "WITH cut AS (DELETE FROM docg.audit_events WHERE seq > 2)
             UPDATE docg.audit_heads h SET audit_seq = 2, audit_hash = a.hash
             FROM docg.audit_events a WHERE a.execution_id = h.execution_id AND a.seq = 2"
                .to_owned(),
        )
        .await;
    let expected = AuditFault::Rewritten {
        execution_id,
        seq: 4,
        checkpoint: 1,
    };
    assert_eq!(world.verify().await.faults, [expected]);
}
