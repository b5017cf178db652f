//! Statements that wait too long for a row, callers that give up on them, and sessions that changed
//! meanwhile.

use std::{sync::Arc, time::Duration};

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at, signal},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{
        ClaimRequest, ClaimWhat, Claimed, ExecutionReader, ExecutionStore, Lease, StoreErrorKind,
    },
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};

mod support;

const PATIENCE: Duration = Duration::from_secs(20);

async fn connect(database: &Database) -> PgConnection {
    PgConnection::connect(database.url())
        .await
        .expect("connects")
}

async fn open(database: &Database, config: PgStoreConfig) -> Arc<PgStore> {
    let store = PgStore::connect(database.url(), config).await;
    Arc::new(store.expect("connects"))
}

async fn claimed(store: &PgStore, organization: OrganizationId) -> Claimed {
    let run = RunFixture::of(organization).build();
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(run.state.execution.id),
        now: at(0),
        lease_until: at(60_000),
    };
    store.create(run).await.expect("stores");
    let mut claim = store.claim(request).await.expect("claims");
    claim.claimed.pop().expect("is free")
}

/// A connection pool as an application may bring it: without time limits at the server.
async fn host_pool(database: &Database, connections: u32) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .connect(database.url())
        .await;
    pool.expect("connects")
}

/// Locks an execution's row for as long as the connection lives.
async fn hold(connection: &mut PgConnection, id: ExecutionId) {
    let sql = format!("BEGIN; SELECT id FROM docg.executions WHERE id = '{id}' FOR UPDATE");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .expect("locks");
}

/// Waits until `count` statements wait for a row.
async fn until_waiting(connection: &mut PgConnection, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let reached = async {
        while sqlx::query_scalar::<_, i64>(sql)
            .fetch_one(&mut *connection)
            .await
            .expect("reads")
            != count
        {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("there are never {count} that wait"));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_go_away_take_no_connection_with_them() {
    let database = support::migrated().await;
    let pool = host_pool(&database, 2).await;
    let organization = OrganizationId::new();
    let patient = open(&database, PgStoreConfig::default()).await;
    let id = claimed(&patient, organization).await.lease.execution_id;
    // The statements wait for the row for a third of this timeout, long enough that the test sees both wait.
    let config = PgStoreConfig::default().timeout(Duration::from_secs(6));
    let store = Arc::new(PgStore::new(pool, config));
    let mut holder = connect(&database).await;
    hold(&mut holder, id).await;
    let callers = [1, 2].map(|n| {
        let (store, sent) = (Arc::clone(&store), signal(organization, id, at(n)));
        tokio::spawn(async move { store.signal(sent).await })
    });
    until_waiting(&mut connect(&database).await, 2).await;
    for caller in callers {
        caller.abort();
    }
    let found = tokio::time::timeout(PATIENCE / 2, store.execution(organization, id)).await;
    let found = found.expect("a connection comes free").expect("reads");
    assert!(found.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_given_up_does_not_go_on_at_the_server() {
    let database = support::migrated().await;
    let patient = open(&database, PgStoreConfig::default()).await;
    let config = PgStoreConfig::default().timeout(Duration::from_millis(600));
    let store = open(&database, config).await;
    let held = claimed(&patient, OrganizationId::new()).await;
    let mut holder = connect(&database).await;
    hold(&mut holder, held.lease.execution_id).await;
    let commit = CommitFixture::on(&held).events(1).build();
    for _ in 0..3 {
        let error = store.commit(commit.clone()).await.expect_err("is held up");
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    }
    until_waiting(&mut connect(&database).await, 0).await;
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .expect("lets go");
    patient
        .commit(commit)
        .await
        .expect("nothing was written before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_holds_up_no_other_commit_for_long() {
    let database = support::migrated().await;
    // Send one batch at a time, so that the commits share a batch.
    let config = PgStoreConfig::default().batches_at_once(1);
    for store in [
        open(&database, config.clone()).await,
        Arc::new(PgStore::new(host_pool(&database, 10).await, config)),
    ] {
        let organization = OrganizationId::new();
        let mut all = Vec::new();
        for _ in 0..20 {
            all.push(claimed(&store, organization).await);
        }
        let held = all[7].lease.execution_id;
        let mut holder = connect(&database).await;
        hold(&mut holder, held).await;
        let commits = all.iter().map(|it| {
            let (store, commit) = (Arc::clone(&store), CommitFixture::on(it).events(2).build());
            tokio::spawn(async move { store.commit(commit).await.map_err(|error| error.kind) })
        });
        let commits: Vec<_> = commits.collect();
        for (claimed, commit) in all.iter().zip(commits) {
            // The limit is a third of the default statement timeout. Most statements wait that long for a
            // row. Commits share a statement, so they must wait less.
            let result = tokio::time::timeout(PATIENCE / 2, commit).await;
            let result = result.expect("not for long").expect("does not panic");
            match claimed.lease.execution_id == held {
                true => assert_eq!(result, Err(StoreErrorKind::Unavailable)),
                false => assert!(result.is_ok(), "{result:?}"),
            }
        }
    }
}

/// Makes three leases. The second cannot be renewed, because `holder` locks its execution's row.
async fn leases(store: &PgStore, holder: &mut PgConnection) -> Vec<Lease> {
    let organization = OrganizationId::new();
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(claimed(store, organization).await.lease);
    }
    hold(holder, leases[1].execution_id).await;
    leases
}

/// True if no other worker can claim the execution before the new end of its lease.
async fn is_prolonged(store: &PgStore, lease: &Lease) -> bool {
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(lease.execution_id),
        now: at(70_000),
        lease_until: at(80_000),
    };
    let claim = store.claim(request).await.expect("claims");
    claim.claimed.is_empty()
}

#[tokio::test]
async fn a_row_that_somebody_holds_costs_no_other_execution_its_lease() {
    let database = support::migrated().await;
    let config = PgStoreConfig::default();
    for store in [
        open(&database, config.clone()).await,
        Arc::new(PgStore::new(host_pool(&database, 10).await, config)),
    ] {
        let mut holder = connect(&database).await;
        let leases = leases(&store, &mut holder).await;
        let held = leases[1];
        let renewed = tokio::time::timeout(PATIENCE / 2, store.renew(&leases, at(90_000))).await;
        let renewed = renewed.expect("not for long").expect("renews");
        assert_eq!((renewed.lost, renewed.unknown), (vec![], vec![held]));
        assert!(is_prolonged(&store, &leases[0]).await);
        assert!(is_prolonged(&store, &leases[2]).await);
        // The holder of the second lease cannot know whether it still has the lease, so it renews again.
        let error = store
            .renew(&[held], at(90_000))
            .await
            .expect_err("no answer");
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut holder)
            .await
            .expect("lets go");
        let renewed = store.renew(&[held], at(90_000)).await.expect("renews");
        assert!(renewed.lost.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_while_one_lease_is_waited_for_costs_no_other() {
    let database = support::migrated().await;
    let store = open(&database, PgStoreConfig::default()).await;
    let mut holder = connect(&database).await;
    let leases = leases(&store, &mut holder).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut cutter = connect(&database).await;
    let renewing = {
        let (store, leases) = (Arc::clone(&store), leases.clone());
        tokio::spawn(async move { store.renew(&leases, at(90_000)).await })
    };
    let mut cuts = 0;
    while cuts == 0 && !renewing.is_finished() {
        let cut = sqlx::query(cut).fetch_all(&mut cutter).await.expect("cuts");
        cuts = cut.len();
    }
    assert_eq!(cuts, 1, "it was cut while it waited");
    let renewed = renewing.await.expect("does not panic").expect("renews");
    assert_eq!((renewed.lost, renewed.unknown), (vec![], vec![leases[1]]));
    assert!(is_prolonged(&store, &leases[0]).await);
    assert!(is_prolonged(&store, &leases[2]).await);
}

#[tokio::test]
async fn a_row_that_somebody_holds_has_no_other_execution_published_again() {
    let database = support::migrated().await;
    let store = open(&database, PgStoreConfig::default()).await;
    let organization = OrganizationId::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(claimed(&store, organization).await.lease.execution_id);
    }
    let mut holder = connect(&database).await;
    hold(&mut holder, ids[1]).await;
    let published: Vec<_> = ids.iter().map(|id| (*id, 1)).collect();
    let marked = tokio::time::timeout(PATIENCE, store.mark_published(&published)).await;
    marked.expect("waits for nobody").expect("marks");
    let left = store.unpublished(at(1_000_000), None, 10).await;
    let left: Vec<_> = left
        .expect("reads")
        .iter()
        .map(|it| it.execution_id)
        .collect();
    assert_eq!(left, [ids[1]]);
}

#[tokio::test]
async fn sessions_whose_prepared_statements_are_gone_or_outdated_are_replaced() {
    const SESSIONS: u32 = 3;
    let database = support::migrated().await;
    let pool = host_pool(&database, SESSIONS).await;
    let store = PgStore::new(pool.clone(), PgStoreConfig::default());
    let organization = OrganizationId::new();
    let id = claimed(&store, organization).await.lease.execution_id;
    for change in [
        // A connection pooler drops the statements when it gives a session to another client.
        "DEALLOCATE ALL",
        // A migration may change a column while other processes serve.
        "ALTER TABLE docg.executions ALTER COLUMN trigger_type TYPE varchar(99)",
    ] {
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(pool.acquire().await.expect("connects"));
        }
        // The pool hands the sessions out in turn, so afterwards each has prepared the statement.
        drop(sessions);
        for _ in 0..SESSIONS {
            store.execution(organization, id).await.expect("reads");
        }
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let mut session = pool.acquire().await.expect("connects");
            session.execute(change).await.expect(change);
            sessions.push(session);
        }
        drop(sessions);
        let found = store.execution(organization, id).await.expect(change);
        assert!(found.is_some(), "{change}");
    }
}

/// Makes the database run `look`, a check of the session, at each write of an execution.
async fn look_at_each_write(database: &Database, look: &str) {
    let sql = format!(
        "CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {look}
            RETURN NEW;
        END $$;
        CREATE TRIGGER look BEFORE INSERT OR UPDATE ON docg.executions
        FOR EACH ROW EXECUTE FUNCTION public.look()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connect(database).await)
        .await
        .expect("sets");
}

#[tokio::test]
async fn limits_on_time_are_the_session_s_own_and_no_statement_s() {
    let database = support::migrated().await;
    let look = "IF EXISTS (SELECT FROM pg_settings WHERE source = 'session') THEN
            RAISE EXCEPTION 'somebody else may get what was set';
        END IF;
        IF current_setting('statement_timeout') <> '9s' THEN
            RAISE EXCEPTION 'it is %', current_setting('statement_timeout');
        END IF;";
    look_at_each_write(&database, look).await;
    let config = PgStoreConfig::default().timeout(Duration::from_secs(10));
    claimed(&*open(&database, config).await, OrganizationId::new()).await;
}

#[tokio::test]
async fn workers_run_no_more_races_where_the_database_is_set_to_a_stricter_isolation() {
    let database = support::migrated().await;
    sqlx::raw_sql(
        "DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable',
                current_database());
        END $$",
    )
    .execute(&mut connect(&database).await)
    .await
    .expect("sets");
    let look = "IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'it is %', current_setting('transaction_isolation');
        END IF;";
    look_at_each_write(&database, look).await;
    let store = open(&database, PgStoreConfig::default()).await;
    claimed(&store, OrganizationId::new()).await;
}

#[tokio::test]
async fn every_limit_on_time_can_be_kept() {
    let database = support::migrated().await;
    for timeout in [Duration::MAX, Duration::from_secs(90 * 24 * 3600)] {
        let store = open(&database, PgStoreConfig::default().timeout(timeout)).await;
        claimed(&store, OrganizationId::new()).await;
    }
}
