//! Exported trails verify without the database.

use docg_core::ids::{ExecutionId, OrganizationId};
use docg_store_postgres::{AuditFault, verify_audit_export, verify_audit_export_of};

use crate::World;

#[tokio::test]
async fn an_export_verifies_without_a_database_and_any_change_shows() {
    let world = World::new().await;
    let first = world.execution().await;
    world.execution().await;
    world.checkpoint().await;
    let trusted = world.trust();
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
        // Only a checkpoint can be left out unnoticed, because no other line refers to it.
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
    // The heading is not signed. With a changed heading, a missing chain is still reported.
    let renamed = format!(
        "{}\n{}",
        lines[0].replace("organization", "execution"),
        lines[1]
    );
    verify_audit_export(renamed.as_bytes(), &trusted).expect_err("of which execution?");
    let report = verify_audit_export_of(first, renamed.as_bytes(), &trusted);
    let is_missing = [AuditFault::Rewritten {
        execution_id: first,
        seq: 4,
        checkpoint: 1,
    }];
    assert_eq!(report.expect("can be read").faults, is_missing);
    let mut one = Vec::new();
    let of_one = world
        .store
        .export_audit(world.organization, Some(first), &mut one)
        .await;
    of_one.expect("writes");
    let report = verify_audit_export_of(first, one.as_slice(), &trusted).expect("can be read");
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
    let trusted = world.trust();
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
    // A chain that lacks its rows is reported as a fault of that chain, and not of another.
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
