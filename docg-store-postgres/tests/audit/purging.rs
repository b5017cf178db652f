//! Erased and purged audit rows, and forgeries that look like an erasure or a purge.

use std::{
    io::{self, Write},
    sync::{Arc, mpsc},
};

use docg_core::{
    conformance::fixtures::at,
    ids::ExecutionId,
    ports::{ExecutionReader, ExecutionStore},
    query::AuditQuery,
};
use docg_store_postgres::{AuditFault, AuditTrust, verify_audit_export};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::oneshot;

use crate::World;

#[tokio::test]
async fn rows_of_executions_that_are_there_are_not_purged() {
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
    let purged = world
        .store
        .purge_audit(at(1_000), 10, &world.key, at(2_000))
        .await;
    assert_eq!(purged.expect("finds nothing"), []);
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
    let query = AuditQuery::of(world.organization, id).limit(10);
    for row in world.store.audit(query).await.expect("reads").items {
        assert_eq!((&*row.actor.actor_id, row.salt), ("", None));
        assert_eq!(row.metadata.as_str(), "null");
    }
    assert!(world.verify().await.is_valid());
    let trusted = world.trust();
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

    assert_eq!(world.purge_audit(1).await, 0, "it is early");
    let purge = async || {
        let purged = world
            .store
            .purge_audit(at(1_000), 10, &world.key, at(2_000))
            .await;
        purged.expect("purges")
    };
    let [made] = purge().await[..] else {
        panic!("one organization has one");
    };
    assert_eq!((made.seq, made.chains), (2, 1));
    assert_eq!(purge().await, [], "it is done");
    let report = world.verify().await;
    assert_eq!((report.chains, report.rows), (2, 4));
    let report = world.verify().await;
    assert_eq!((report.purged, report.faults), (1, vec![]));
    let trusted = world.trust();
    let export = world.export().await;
    let report = verify_audit_export(export.as_bytes(), &trusted).expect("can be read");
    assert_eq!(report, world.verify().await);
    // The signed checkpoint alone proves the purge: the trail is valid without the database's records of it.
    world
        .forge(
            "WITH purges AS (DELETE FROM docg.audit_purges) DELETE FROM docg.audit_heads"
                .to_owned(),
        )
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
    let expected = cut_behind_a_checkpoint(execution_id);
    assert_eq!(world.verify().await.faults, [expected]);
}

/// The fault of a chain whose fourth row was removed after the first checkpoint had signed it.
fn cut_behind_a_checkpoint(execution_id: ExecutionId) -> AuditFault {
    AuditFault::Rewritten {
        execution_id,
        seq: 4,
        checkpoint: 1,
    }
}

#[tokio::test]
async fn a_role_that_serves_cannot_have_it_signed_that_rows_were_purged() {
    // The forgeries use every right of the database role with which servers run.
    for plant in [
        "UPDATE docg.executions SET audit_seq = 0, checkpointed = -1",
        "WITH unsigned AS (
            INSERT INTO docg.audit_unsigned SELECT organization_id, id FROM docg.executions),
         purged AS (
            INSERT INTO docg.audit_purges SELECT id, organization_id, now() FROM docg.executions)
         INSERT INTO docg.audit_heads
         SELECT id, organization_id, 0, decode(repeat('00', 32), 'hex'), ended_at
         FROM docg.executions",
    ] {
        let world = World::new().await;
        let execution_id = world.execution().await;
        world.checkpoint().await;
        world.forge(plant.to_owned()).await;
        let signs = world
            .store
            .checkpoint_audit(world.organization, &world.key, at(9));
        assert_eq!(signs.await.expect("looks"), None, "{plant}");
        world
            .forge(
                "WITH heads AS (DELETE FROM docg.audit_heads),
                 rows AS (DELETE FROM docg.audit_events) DELETE FROM docg.executions"
                    .to_owned(),
            )
            .await;
        let expected = cut_behind_a_checkpoint(execution_id);
        assert_eq!(world.verify().await.faults, [expected], "{plant}");
    }
}

#[tokio::test]
async fn what_was_noted_to_be_signed_of_a_run_that_is_there_holds_up_nothing() {
    let world = World::new().await;
    world.execution().await;
    let note = "INSERT INTO docg.audit_unsigned SELECT organization_id, id FROM docg.executions";
    world.forge(note.to_owned()).await;
    assert_eq!(world.checkpoint().await.chains, 1);
    world.execution().await;
    let note = format!("{note} ON CONFLICT DO NOTHING");
    world.forge(note).await;
    assert_eq!(world.store.purge(at(1_000), 10).await.expect("purges"), 2);
    world.checkpoint().await;
    assert_eq!(world.verify().await.faults, []);
}

#[tokio::test]
async fn rows_that_were_purged_do_not_come_back() {
    let world = World::new().await;
    let execution_id = world.execution().await;
    let keep = "CREATE TABLE public.kept AS SELECT * FROM docg.audit_events";
    sqlx::raw_sql(keep)
        .execute(
            &mut PgConnection::connect(world.database.url())
                .await
                .expect("connects"),
        )
        .await
        .expect("copies");
    assert_eq!(world.purge_audit(1_000).await, 1);
    assert_eq!(world.verify().await.faults, []);
    let back = "INSERT INTO docg.audit_events SELECT * FROM public.kept";
    world.forge(back.to_owned()).await;
    let fault = AuditFault::NotPurged {
        execution_id,
        checkpoint: 1,
    };
    assert_eq!(world.verify().await.faults, [fault]);
    // A new checkpoint over the rows that came back does not make them valid.
    world
        .forge(
            "WITH purges AS (DELETE FROM docg.audit_purges)
             INSERT INTO docg.audit_unsigned
             SELECT organization_id, execution_id FROM docg.audit_heads"
                .to_owned(),
        )
        .await;
    world.checkpoint().await;
    assert_eq!(world.verify().await.faults, [fault, fault]);
}

#[tokio::test]
async fn only_chains_that_verify_and_are_old_are_purged() {
    for (forgery, before) in [
        // A forger tries to have a young chain purged, or a chain that was changed.
        (
            "UPDATE docg.audit_heads SET ended_at = ended_at - interval '9 years'",
            0,
        ),
        (
            "UPDATE docg.audit_events SET action = 'x' WHERE seq = 2",
            1_000,
        ),
        (
            "WITH cut AS (DELETE FROM docg.audit_events WHERE seq > 2)
             UPDATE docg.audit_heads h SET audit_seq = 2, audit_hash = a.hash
             FROM docg.audit_events a WHERE a.execution_id = h.execution_id AND a.seq = 2",
            1_000,
        ),
    ] {
        let world = World::new().await;
        world.execution().await;
        world.checkpoint().await;
        assert_eq!(world.store.purge(at(1_000), 1).await.expect("purges"), 1);
        world.forge(forgery.to_owned()).await;
        assert_eq!(world.purge_audit(before).await, 0, "{forgery}");
        // The forged chain stays, and other chains are still purged.
        world.execution().await;
        assert_eq!(
            world.purge_audit(1_000).await,
            if before == 0 { 2 } else { 1 }
        );
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_said_of_what_was_purged() {
    let world = World::new().await;
    world.execution().await;
    world.checkpoint().await;
    assert_eq!(world.purge_audit(1_000).await, 1);
    let report = world.verify_with(&AuditTrust::default()).await;
    let of_signature = report.faults.iter().filter(|it| it.is_of_signature());
    assert_eq!((of_signature.count(), report.faults.len()), (2, 2));
}

/// A writer of an export that pauses at the first chain and lets another task act.
struct Interrupted {
    taken: Vec<u8>,
    begun: Option<oneshot::Sender<()>>,
    go_on: mpsc::Receiver<()>,
}

impl Write for Interrupted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.taken.extend_from_slice(bytes);
        let record = br#""record":"chain""#;
        let has_one = self.taken.windows(record.len()).any(|it| it == record);
        if let Some(begun) = self.begun.take_if(|_| has_one) {
            begun.send(()).expect("somebody waits");
            tokio::task::block_in_place(|| self.go_on.recv()).expect("it is done");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_is_purged_while_it_is_read_is_not_taken_for_a_forgery() {
    let world = Arc::new(World::new().await);
    world.execution().await;
    world.checkpoint().await;
    assert_eq!(world.store.purge(at(1_000), 10).await.expect("purges"), 1);
    // Let a chain that is not purged be read before the purged one.
    world.execution().await;
    let (begun, has_begun) = oneshot::channel();
    let (done, go_on) = mpsc::channel();
    let mut export = Interrupted {
        taken: Vec::new(),
        begun: Some(begun),
        go_on,
    };
    let reader = Arc::clone(&world);
    let reading = tokio::spawn(async move {
        let (store, organization) = (&reader.store, reader.organization);
        let read = store.export_audit(organization, None, &mut export).await;
        read.map(|()| export.taken)
    });
    has_begun.await.expect("the checkpoints are read");
    let purge = world
        .store
        .purge_audit(at(1_000), 10, &world.key, at(2_000));
    assert_eq!(purge.await.expect("purges")[0].chains, 1);
    done.send(()).expect("the reader waits");
    let export = reading.await.expect("does not panic").expect("writes");
    let report = verify_audit_export(&*export, &world.trust()).expect("can be read");
    assert_eq!(report.faults, []);
    assert_eq!(world.verify().await.faults, [], "nor afterwards");
}
