//! Forgeries that signed checkpoints reveal.

use std::time::Duration;

use docg_core::{conformance::fixtures::at, ids::OrganizationId, ports::StoreErrorKind};
use docg_store_postgres::{AuditFault, AuditTrust, CheckpointSummary, verify_audit_export};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::World;

impl World {
    /// Makes the database run `look`, lines of PL/pgSQL, before it stores a new checkpoint.
    async fn before_each_checkpoint(&self, look: &str) {
        let sql = format!(
            "CREATE SEQUENCE public.looks;
            CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN {look} RETURN NEW; END $$;
            CREATE TRIGGER look BEFORE INSERT ON docg.audit_checkpoints
            FOR EACH ROW EXECUTE FUNCTION public.look()"
        );
        self.run(sql).await;
    }

    async fn run(&self, sql: String) {
        let mut connection = PgConnection::connect(self.database.url())
            .await
            .expect("connects");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .expect("may");
    }
}

#[tokio::test]
async fn an_organization_that_cannot_be_signed_for_holds_up_no_other() {
    let mut world = World::new().await;
    let mut organizations = [(); 4].map(|()| OrganizationId::new());
    organizations.sort_unstable();
    for organization in organizations {
        world.organization = organization;
        world.execution().await;
    }
    let [beaten, first, full, last] = organizations;
    world
        .before_each_checkpoint(&format!(
            "IF NEW.organization_id = '{beaten}' THEN RAISE unique_violation; END IF;
            IF NEW.organization_id = '{full}' THEN RAISE disk_full; END IF;"
        ))
        .await;
    let round = async || {
        let mut made = Vec::new();
        let note = |checkpoint: CheckpointSummary| made.push(checkpoint.organization_id);
        let failed = world.store.checkpoint_audits(&world.key, at(9), note).await;
        let failed = failed.expect("knows who there is").into_iter();
        let failed: Vec<_> = failed.map(|(id, error)| (id, error.kind)).collect();
        (made, failed)
    };
    let (made, failed) = round().await;
    assert_eq!(made, [first, last]);
    assert_eq!(
        failed,
        [
            (beaten, StoreErrorKind::Conflict),
            (full, StoreErrorKind::Full)
        ]
    );
    world
        .run("DROP TRIGGER look ON docg.audit_checkpoints".to_owned())
        .await;
    assert_eq!(round().await, (vec![beaten, full], vec![]));
    assert_eq!(round().await, (vec![], vec![]));
}

#[tokio::test]
async fn an_organization_whose_chains_move_all_the_time_is_signed_for_once_a_round() {
    let world = World::new().await;
    world.execution().await;
    // Make all chains look as if they had grown again by the time a checkpoint is stored.
    let moves = "CREATE FUNCTION public.moves() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE docg.executions SET checkpointed = 0; RETURN NULL; END $$;
        CREATE TRIGGER moves AFTER INSERT ON docg.audit_checkpoints
        FOR EACH ROW EXECUTE FUNCTION public.moves()";
    world.run(moves.to_owned()).await;
    let mut made = 0;
    let round = world
        .store
        .checkpoint_audits(&world.key, at(9), |_| made += 1);
    let round = tokio::time::timeout(Duration::from_secs(10), round).await;
    assert!(round.expect("it ends").expect("signs").is_empty());
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_checkpoint_that_another_process_was_ahead_of_is_made_of_what_is_left() {
    let world = World::new().await;
    world.execution().await;
    // The first two attempts fail. The sequence counts them, because a rollback does not reset it.
    world
        .before_each_checkpoint(
            "IF nextval('public.looks') < 3 THEN RAISE unique_violation; END IF;",
        )
        .await;
    assert_eq!(world.checkpoint().await.seq, 1);
    assert!(world.verify().await.is_valid());
}

#[tokio::test]
async fn rows_that_no_checkpoint_covers_are_counted() {
    let world = World::new().await;
    world.execution().await;
    assert_eq!(world.verify().await.unsigned, 4);
    world.checkpoint().await;
    assert_eq!(world.verify().await.unsigned, 0);
    world.execution().await;
    assert_eq!(world.verify().await.unsigned, 4);
}

#[tokio::test]
async fn a_checkpoint_shows_what_a_chain_alone_cannot() {
    // Each forgery leaves only chains that verify: it cuts a chain's end with its head, or removes a chain.
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
        .verify_audit(organization_id, None, &AuditTrust::keys([[1; 32]]))
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
async fn checkpoints_of_an_organization_whose_rows_are_all_gone_tell_of_it() {
    let world = World::new().await;
    let execution_id = world.execution().await;
    world.checkpoint().await;
    world
        .forge(
            "WITH rows AS (DELETE FROM docg.audit_events) DELETE FROM docg.executions".to_owned(),
        )
        .await;
    let organizations = world.store.audited_organizations().await.expect("reads");
    assert_eq!(organizations, [world.organization]);
    let of = world.store.audited_organization(execution_id).await;
    assert_eq!(of.expect("reads"), Some(world.organization));
    assert!(!world.verify().await.is_valid());
}

#[tokio::test]
async fn the_last_checkpoints_cannot_be_removed_where_they_are_known() {
    let world = World::new().await;
    world.execution().await;
    let first = world.checkpoint().await;
    let id = world.execution().await;
    let last = world.checkpoint().await;
    let knows = |made: CheckpointSummary| {
        world
            .trust()
            .checkpoint(made.organization_id, made.seq, made.hash)
    };
    for known in [first, last] {
        assert_eq!(world.verify_with(&knows(known)).await.faults, []);
    }
    world
        .forge(format!(
            "WITH made AS (DELETE FROM docg.audit_checkpoints WHERE seq = 2),
             heads AS (DELETE FROM docg.audit_checkpoint_heads WHERE checkpoint_seq = 2),
             rows AS (DELETE FROM docg.audit_events WHERE execution_id = '{id}')
             DELETE FROM docg.executions WHERE id = '{id}'"
        ))
        .await;
    assert_eq!(world.verify().await.faults, [], "nothing here shows it");
    let missing = AuditFault::Missing {
        organization_id: world.organization,
        seq: 2,
    };
    assert_eq!(world.verify_with(&knows(first)).await.faults, []);
    assert_eq!(world.verify_with(&knows(last)).await.faults, [missing]);
    let export = world.export().await;
    let twice = format!("{export}{}", World::new().await.export().await);
    let report = verify_audit_export(twice.as_bytes(), &knows(last)).expect("can be read");
    assert_eq!(report.faults, [missing]);
    let report = verify_audit_export(twice.as_bytes(), &knows(first)).expect("can be read");
    assert_eq!(report.faults, []);
}
