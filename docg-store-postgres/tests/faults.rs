//! Faults of a database as its clients see them, on a real PostgreSQL server.

use std::{io::Write, path::PathBuf, process::Command, sync::Arc, time::Duration};

use docg_core::{
    conformance::fixtures::{CommitFixture, RunFixture, at},
    ids::{ExecutionId, OrganizationId, WorkerId},
    ports::{
        Claim, ClaimRequest, ClaimWhat, Claimed, Created, ExecutionReader, ExecutionStore,
        NewExecution, StoreErrorKind,
    },
    query::EventQuery,
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::PrivateServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgPoolOptions};
use uuid::Uuid;

mod support;

async fn open(url: &str, config: PgStoreConfig) -> PgStore {
    PgStore::connect(url, config).await.expect("connects")
}

async fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&mut connection)
        .await
        .expect("runs");
}

fn run() -> NewExecution {
    RunFixture::of(OrganizationId::new()).build()
}

async fn claimed(store: &PgStore) -> Claimed {
    let run = run();
    let id = run.state.execution.id;
    assert_eq!(
        store.create(run).await.expect("stores"),
        Created::New { lease: None }
    );
    claim(store, id).await.claimed.pop().expect("is free")
}

async fn claim(store: &PgStore, id: ExecutionId) -> Claim {
    let request = ClaimRequest {
        worker_id: WorkerId::new(),
        what: ClaimWhat::One(id),
        now: at(0),
        lease_until: at(60_000),
    };
    store.claim(request).await.expect("claims")
}

/// SQL that makes the next inserts of events fail with an SQLSTATE, as on a server in trouble.
fn failing_with(sqlstate: &str, condition: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{sqlstate}'; END $$;
         CREATE TRIGGER trouble BEFORE INSERT ON docg.journal
         FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION public.trouble();"
    )
}

#[tokio::test]
async fn an_exhausted_pool_is_unavailable_after_a_bounded_wait() {
    let database = support::migrated().await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(1))
        .connect(database.url())
        .await
        .expect("connects");
    let store = PgStore::new(pool.clone(), PgStoreConfig::default());
    let host = pool.acquire().await.expect("is free");
    let asked = tokio::time::timeout(Duration::from_secs(20), store.create(run())).await;
    let error = asked.expect("is bounded").expect_err("is refused");
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    drop(host);
    assert_eq!(
        store.create(run()).await.expect("has room again"),
        Created::New { lease: None }
    );
}

#[tokio::test]
async fn troubles_are_told_apart_and_leave_nothing_behind() {
    for (sqlstate, expected) in [
        ("53100", StoreErrorKind::Full),
        ("25006", StoreErrorKind::Unavailable),
        ("57P01", StoreErrorKind::Unavailable),
        ("53300", StoreErrorKind::Unavailable),
        ("22P05", StoreErrorKind::Invalid),
    ] {
        let database = support::migrated().await;
        let store = open(database.url(), PgStoreConfig::default()).await;
        let claimed = claimed(&store).await;
        sql(database.url(), &failing_with(sqlstate, "true")).await;
        let commit = CommitFixture::on(&claimed).events(1).build();
        let error = store.commit(commit.clone()).await.expect_err("is refused");
        assert_eq!(error.kind, expected, "{sqlstate}: {error}");
        sql(database.url(), "DROP TRIGGER trouble ON docg.journal").await;
        store
            .commit(commit)
            .await
            .expect("nothing was written before, and it works again");
    }
}

/// A disk of a few MiB for tables. Dropping the value removes it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts the disk; `None` if this process may not mount.
    fn mounted() -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("docg-disk-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&dir).expect("creates");
        let disk = Self(dir);
        let options = ["-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs"];
        let mount = Command::new("mount").args(options).arg(&disk.0).status();
        mount.is_ok_and(|status| status.success()).then_some(disk)
    }

    /// Makes a folder on the disk that belongs to the server's user.
    fn folder(&self) -> PathBuf {
        let folder = self.0.join("tables");
        std::fs::create_dir(&folder).expect("creates");
        let owner = Command::new("chown").arg("postgres").arg(&folder).status();
        assert!(owner.is_ok_and(|status| status.success()));
        folder
    }

    /// Fills the rest of the disk, and returns the file that does so.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).expect("creates");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn a_disk_that_is_full_takes_nothing_until_it_has_room() {
    let Some(disk) = SmallDisk::mounted() else {
        assert!(
            std::env::var_os("DOCG_TEST_NO_MOUNT").is_some(),
            "no small disk can be mounted here, which takes root and its right to mount; \
             DOCG_TEST_NO_MOUNT=1 goes without this test"
        );
        return;
    };
    let server = PrivateServer::start().await;
    let store = open(&server.url(), PgStoreConfig::default()).await;
    store.migrate().await.expect("migrates");
    let tablespace = format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        disk.folder().display()
    );
    sql(&server.url(), &tablespace).await;
    let small = "ALTER TABLE docg.execution_steps SET TABLESPACE small";
    sql(&server.url(), small).await;
    let claimed = claimed(&store).await;
    let filler = disk.fill();
    let mut step = claimed.state.steps[0].clone();
    // Random text, so that compression does not shrink it.
    let output: String = (0..10_000).map(|_| Uuid::new_v4().to_string()).collect();
    step.output = Some(Arc::new(output.into()));
    let commit = CommitFixture::on(&claimed)
        .events(1)
        .but(|commit| commit.steps = vec![step])
        .build();
    let error = store.commit(commit.clone()).await.expect_err("has no room");
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    std::fs::remove_file(filler).expect("makes room");
    store
        .commit(commit)
        .await
        .expect("nothing was written before, and it works again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_is_run_again_until_it_is_won() {
    let database = support::migrated().await;
    let store = open(database.url(), PgStoreConfig::default()).await;
    let claimed = claimed(&store).await;
    // Two attempts fail. The sequence counts them, because a rollback does not reset it.
    sql(
        database.url(),
        "CREATE SEQUENCE public.attempts;
         CREATE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
            IF nextval('public.attempts') <= 2 THEN
                RAISE EXCEPTION 'a race' USING ERRCODE = '40001';
            END IF;
            RETURN NEW;
         END $$;
         CREATE TRIGGER trouble BEFORE INSERT ON docg.journal
         FOR EACH ROW EXECUTE FUNCTION public.trouble();",
    )
    .await;
    let commit = CommitFixture::on(&claimed).events(1).build();
    store.commit(commit).await.expect("the third attempt wins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_commit_fails_alone() {
    let database = support::migrated().await;
    // Send one batch at a time, so that the commits share a batch.
    let config = PgStoreConfig::default().batches_at_once(1);
    let store = Arc::new(open(database.url(), config).await);
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(claimed(&store).await);
    }
    let poisoned = all[7].lease.execution_id;
    let condition = format!("NEW.execution_id = '{poisoned}'");
    sql(database.url(), &failing_with("22P05", &condition)).await;
    let commits = all.iter().map(|it| {
        let (store, commit) = (Arc::clone(&store), CommitFixture::on(it).events(2).build());
        tokio::spawn(async move { store.commit(commit).await.map_err(|error| error.kind) })
    });
    let commits: Vec<_> = commits.collect();
    for (claimed, commit) in all.iter().zip(commits) {
        let result = commit.await.expect("does not panic");
        let id = claimed.lease.execution_id;
        assert_eq!(result.is_err(), id == poisoned);
        let query = EventQuery::of(claimed.state.execution.organization_id, id).limit(10);
        let events = store.events(query).await.expect("reads");
        assert_eq!(events.len(), if id == poisoned { 1 } else { 3 });
    }
}

#[tokio::test]
async fn a_statement_that_hangs_is_given_up() {
    let database = support::migrated().await;
    let patient = open(database.url(), PgStoreConfig::default()).await;
    let claimed = claimed(&patient).await;
    let config = PgStoreConfig::default().timeout(Duration::from_millis(300));
    let store = open(database.url(), config).await;
    let mut blocker = PgConnection::connect(database.url())
        .await
        .expect("connects");
    let mut transaction = blocker.begin().await.expect("begins");
    sqlx::query("SELECT id FROM docg.executions FOR UPDATE")
        .fetch_all(&mut *transaction)
        .await
        .expect("locks");
    let commit = CommitFixture::on(&claimed).events(1).build();
    let asked = tokio::time::timeout(Duration::from_secs(10), store.commit(commit.clone())).await;
    let error = asked.expect("is bounded").expect_err("is given up");
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    transaction.rollback().await.expect("rolls back");
    // The outcome of the commit is unknown; the execution's version shows whether it took effect.
    let execution = &claimed.state.execution;
    let found = patient
        .execution(execution.organization_id, execution.id)
        .await
        .expect("reads");
    if found.expect("is there").execution.version == commit.expected_version {
        match patient.commit(commit).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Conflict, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_survives_every_end_of_the_server() {
    let server = PrivateServer::start().await;
    let store = open(&server.url(), PgStoreConfig::default()).await;
    store.migrate().await.expect("migrates");
    for end in [
        PrivateServer::kill,
        PrivateServer::stop,
        PrivateServer::stop_fast,
    ] {
        let claimed = claimed(&store).await;
        let commit = CommitFixture::on(&claimed)
            .events(1)
            .keep(at(60_000))
            .build();
        store.commit(commit).await.expect("commits");
        end(&server);
        let next = CommitFixture::on(&claimed)
            .with(|execution| execution.version += 1)
            .but(|commit| commit.expected_version += 1)
            .with(|execution| execution.heads.event_seq += 1)
            .events(1)
            .build();
        let error = store
            .commit(next.clone())
            .await
            .expect_err("there is no server");
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        server.start_again().await;
        let execution = &claimed.state.execution;
        let found = store
            .execution(execution.organization_id, execution.id)
            .await;
        let version = found.expect("is back").expect("is there").execution.version;
        assert_eq!(
            version, 2,
            "what was answered is there, what was refused is not"
        );
        store.commit(next).await.expect("goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_left_for_the_new_primary() {
    let server = PrivateServer::start().await;
    let store = open(&server.url(), PgStoreConfig::default().max_connections(1)).await;
    store.migrate().await.expect("migrates");
    let claimed = claimed(&store).await;
    let backend = async || {
        let mut connection = PgConnection::connect(&server.url())
            .await
            .expect("connects");
        let pids: Vec<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .fetch_all(&mut connection)
        .await
        .expect("reads");
        pids
    };
    let before = backend().await;
    server
        .configure("default_transaction_read_only", "on")
        .await;
    let commit = CommitFixture::on(&claimed).events(1).build();
    // A session may apply the new setting only from its next statement on, so repeat until a statement fails.
    let error = loop {
        match store.create(run()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    // The caller gets the error before the store closes the connection, so wait until it is closed.
    let dropped = async {
        while backend().await.iter().any(|pid| before.contains(pid)) {
            tokio::task::yield_now().await;
        }
    };
    let dropped = tokio::time::timeout(Duration::from_secs(20), dropped).await;
    dropped.expect("the connection is dropped");
    server
        .configure("default_transaction_read_only", "off")
        .await;
    let asked = tokio::time::timeout(Duration::from_secs(20), async {
        while store.commit(commit.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    asked.await.expect("goes on with the primary");
}

#[tokio::test]
async fn who_cannot_connect_is_told_why() {
    let address = format!("127.0.0.1:{}", docg_test_servers::ports::reserve());
    for (url, kind, told) in [
        (
            format!("postgres://u:hidden@{address}/docg"),
            StoreErrorKind::Unavailable,
            "refused",
        ),
        (
            "mysql://u:hidden@localhost/docg".to_owned(),
            StoreErrorKind::Invalid,
            "postgres://",
        ),
        (
            "postgres://u:hidden@localhost:port/docg".to_owned(),
            StoreErrorKind::Invalid,
            "port",
        ),
        (String::new(), StoreErrorKind::Invalid, "postgres://"),
    ] {
        let config = PgStoreConfig::default().acquire_timeout(Duration::from_secs(1));
        let error = PgStore::connect(&url, config).await.expect_err("cannot");
        let text = error.to_string();
        assert!(
            error.kind == kind && text.contains(told),
            "{url}: {error:?}"
        );
        assert!(!text.contains("hidden"), "{text}");
    }
}
