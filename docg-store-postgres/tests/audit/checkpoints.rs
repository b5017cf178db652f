//! What signed checkpoints show.

use docg_core::conformance::fixtures::at;
use docg_store_postgres::{AuditFault, AuditTrust, CheckpointSummary, verify_audit_export};

use crate::World;

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
