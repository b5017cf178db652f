//! Audit rows whose execution was removed without a purge.

use docg_core::{conformance::fixtures::at, ids::ExecutionId};
use docg_store_postgres::{AuditFault, verify_audit_export, verify_audit_export_of};

use crate::World;

/// Forgeries that remove executions but not their rows, or add rows without an execution.
const FORGERIES: [&str; 3] = [
    "DELETE FROM docg.executions",
    "UPDATE docg.executions SET id = gen_random_uuid(), audit_seq = 0,
        audit_hash = decode(repeat('00', 32), 'hex')",
    "WITH first AS (DELETE FROM docg.audit_events WHERE seq = 1) DELETE FROM docg.executions",
];

#[tokio::test]
async fn rows_of_an_execution_that_was_removed_by_force_are_shown_and_exported() {
    for forgery in FORGERIES {
        for is_signed in [false, true] {
            let world = World::new().await;
            let execution_id = world.execution().await;
            if is_signed {
                world.checkpoint().await;
            }
            world.forge(forgery.to_owned()).await;
            let orphaned = AuditFault::Orphaned { execution_id };
            let organizations = world.store.audited_organizations().await;
            assert_eq!(organizations.expect("reads"), [world.organization]);
            let of = world.store.audited_organization(execution_id).await;
            assert_eq!(of.expect("reads"), Some(world.organization), "{forgery}");
            let report = world.verify().await;
            assert!(report.faults.contains(&orphaned), "{forgery}");
            let trusted = world.trust();
            let of_one = world
                .store
                .verify_audit(world.organization, Some(execution_id), &trusted)
                .await;
            assert!(of_one.expect("reads").faults.contains(&orphaned));
            let export = world.export().await;
            let exported = verify_audit_export(export.as_bytes(), &trusted).expect("can be read");
            assert_eq!(exported, report, "{forgery}");
            let of_one = verify_audit_export_of(execution_id, export.as_bytes(), &trusted);
            assert!(of_one.expect("can be read").faults.contains(&orphaned));
        }
    }
}

#[tokio::test]
async fn rows_under_an_unknown_execution_are_noticed_among_others() {
    let world = World::new().await;
    world.execution().await;
    let unknown = ExecutionId::new();
    world
        .forge(format!(
            "INSERT INTO docg.audit_events
             SELECT '{unknown}', seq, id, organization_id, timestamp, actor_type, actor_id, metadata,
                salt, action, target_type, target_id, commitment, prev_hash, hash
             FROM docg.audit_events"
        ))
        .await;
    let report = world.verify().await;
    assert_eq!((report.chains, report.rows), (1, 8));
    let is_of_unknown = |fault: &AuditFault| fault.to_string().contains(&unknown.to_string());
    assert!(
        report.faults.iter().all(is_of_unknown),
        "{:?}",
        report.faults
    );
    assert!(!report.is_valid());
    // The rows are not valid, so they stay as evidence.
    world.purge_audit(1_000).await;
    assert_eq!(world.verify().await.rows, 4);
}

#[tokio::test]
async fn rows_of_an_execution_that_was_removed_by_force_go_when_their_time_is_over() {
    let world = World::new().await;
    world.execution().await;
    world.checkpoint().await;
    world.forge("DELETE FROM docg.executions".to_owned()).await;
    assert_eq!(world.purge_audit(0).await, 0, "they are young");
    assert_eq!(world.verify().await.rows, 4);
    assert_eq!(world.purge_audit(1_000).await, 1);
    let report = world.verify().await;
    assert_eq!((report.rows, report.faults), (0, vec![]));
    let again = world
        .store
        .purge_audit(at(1_000), 10, &world.key, at(2_000))
        .await;
    assert_eq!(again.expect("finds nothing"), []);
}
