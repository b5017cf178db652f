//! Purging many old executions delays no worker.

use std::{sync::Arc, time::Duration};

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at, signal},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{ClaimRequest, ClaimWhat, Claimed, ExecutionStore},
    run::Status,
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use sqlx::{Connection, PgConnection};

mod support;

/// Makes deletions of the journal wait for an advisory lock, so that a purge keeps its rows locked.
const HELD_UP: &str = "
    CREATE FUNCTION public.hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock(42); RETURN OLD; END $$;
    CREATE TRIGGER hold_up BEFORE DELETE ON docg.journal
    FOR EACH ROW EXECUTE FUNCTION public.hold_up();
    SELECT pg_advisory_lock(42)";

fn claim(what: ClaimWhat) -> ClaimRequest {
    ClaimRequest {
        worker_id: WorkerId::new(),
        what,
        now: at(0),
        lease_until: at(60_000),
    }
}

async fn claimed(store: &PgStore, organization: OrganizationId) -> Claimed {
    let run = RunFixture::of(organization).build();
    let one = ClaimWhat::One(run.state.execution.id);
    store.create(run).await.expect("stores");
    let mut claim = store.claim(claim(one)).await.expect("claims");
    claim.claimed.pop().expect("is free")
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_on_while_a_batch_is_being_purged() {
    let database = support::migrated().await;
    let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let store = Arc::new(store.expect("connects"));
    let organization = OrganizationId::new();
    for _ in 0..200 {
        let old = claimed(&store, organization).await;
        let ended = CommitFixture::on(&old).status(Status::Completed).build();
        store.commit(ended).await.expect("commits");
    }
    let held = claimed(&store, organization).await;
    let mut other = PgConnection::connect(database.url())
        .await
        .expect("connects");
    sqlx::raw_sql(HELD_UP)
        .execute(&mut other)
        .await
        .expect("locks");

    let purging = Arc::clone(&store);
    let purging = tokio::spawn(async move { purging.purge(at(1_000), 500).await });
    let waits = "SELECT count(*) FROM pg_locks
        WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let begun = async {
        while sqlx::query_scalar::<_, i64>(waits)
            .fetch_one(&mut other)
            .await
            .expect("reads")
            == 0
        {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, begun)
        .await
        .expect("it has begun");

    let work = async {
        let run = RunFixture::of(organization).build();
        let id = run.state.execution.id;
        store.create(run).await.expect("stores");
        let due = ClaimWhat::Due {
            limit: 8,
            per_organization: 8,
            node_types: ["extract", "render"].map(Arc::from).into(),
        };
        let found = store.claim(claim(due)).await.expect("claims").claimed;
        let found: Vec<ExecutionId> = found.iter().map(|it| it.lease.execution_id).collect();
        assert_eq!(found, [id]);
        let lost = store.renew(&[held.lease], at(90_000)).await;
        assert_eq!(lost.expect("renews").lost, []);
        let sent = signal(organization, held.lease.execution_id, at(1));
        store.signal(sent.clone()).await.expect("signals");
        let ended = CommitFixture::on(&held)
            .events(3)
            .settle(&[sent])
            .status(Status::Completed)
            .build();
        store.commit(ended).await.expect("commits");
        // A second purge skips the executions that the first is purging.
        store.purge(at(0), 500).await.expect("purges")
    };
    let purged = tokio::time::timeout(patience, work).await;
    assert_eq!(purged.expect("nobody waits"), 0);
    assert!(!purging.is_finished(), "it was under way all the time");

    sqlx::query("SELECT pg_advisory_unlock(42)")
        .execute(&mut other)
        .await
        .expect("unlocks");
    assert_eq!(purging.await.expect("ends").expect("purges"), 200);
}

#[tokio::test]
async fn a_definition_that_could_not_go_with_its_last_execution_goes_later() {
    let database = support::migrated().await;
    let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let store = store.expect("connects");
    let old = claimed(&store, OrganizationId::new()).await;
    let ended = CommitFixture::on(&old).status(Status::Completed).build();
    store.commit(ended).await.expect("commits");
    let mut other = PgConnection::connect(database.url())
        .await
        .expect("connects");
    sqlx::raw_sql(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'not now'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON docg.definitions
        FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    .execute(&mut other)
    .await
    .expect("sets");
    assert_eq!(store.purge(at(1_000), 10).await.expect("has purged"), 1);
    let definitions = "SELECT count(*) FROM docg.definitions";
    let count = sqlx::query_scalar::<_, i64>(definitions);
    assert_eq!(count.fetch_one(&mut other).await.expect("reads"), 1);
    sqlx::raw_sql("DROP TRIGGER refuse ON docg.definitions")
        .execute(&mut other)
        .await
        .expect("sets");
    assert_eq!(store.purge(at(1_000), 10).await.expect("purges"), 0);
    let count = sqlx::query_scalar::<_, i64>(definitions);
    assert_eq!(count.fetch_one(&mut other).await.expect("reads"), 0);
}
