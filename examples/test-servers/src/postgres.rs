//! PostgreSQL: a fresh database for each test, and servers that a test may break.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use uuid::Uuid;

use crate::process::{Program, Running, home, in_path, is_root, require, run};

/// The advisory lock that a process holds while it makes a template database.
const TEMPLATES: i64 = 0x646f_6367_7465_7374;

/// The server that all tests share. Its grace period bridges the moments in which no process uses it.
const SHARED: Program = Program {
    stop: "INT",
    command,
    prepare,
    is_private: false,
    grace_seconds: 10,
};

const PRIVATE: Program = Program {
    is_private: true,
    grace_seconds: 2,
    ..SHARED
};

/// A server for measurements.
const DURABLE: Program = Program {
    command: durable_command,
    ..PRIVATE
};

/// A database for one test. It is dropped when this value is dropped.
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    admin: PgConnectOptions,
}

impl Database {
    /// An empty database, on the server of `DATABASE_URL`, or else on a server that all test processes share
    /// and that stops by itself.
    pub async fn empty() -> Self {
        Self::create(shared().await, None).await
    }

    /// A copy of a template database. `prepare` gets the URL of an empty database and makes it the template.
    /// The first process makes the template; later processes reuse it by its name. If `prepare` changes,
    /// `template` must change too.
    pub async fn copy_of(template: &str, prepare: impl AsyncFnOnce(String)) -> Self {
        let admin = shared().await;
        let template = format!("docg_template_{template}");
        let mut connection = connect(&admin).await;
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(TEMPLATES)
            .execute(&mut connection)
            .await
            .expect("locks");
        let known = sqlx::query("SELECT FROM pg_database WHERE datname = $1")
            .bind(&template)
            .fetch_optional(&mut connection)
            .await
            .expect("reads");
        if known.is_none() {
            let unfinished = Self::create(admin.clone(), None).await;
            prepare(unfinished.url.clone()).await;
            let rename = format!("ALTER DATABASE {} RENAME TO {template}", unfinished.name);
            // Retry: connections that were just closed may still be listed.
            let patience = Instant::now() + Duration::from_secs(10);
            while let Err(error) = sqlx::query(AssertSqlSafe(rename.clone()))
                .execute(&mut connection)
                .await
            {
                assert!(
                    Instant::now() < patience,
                    "cannot keep the template: {error}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let database = Self::create(admin, Some(&template)).await;
        // Closing the connection ends its session and releases the advisory lock.
        let _ = connection.close().await;
        database
    }

    /// The URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn create(admin: PgConnectOptions, template: Option<&str>) -> Self {
        let name = format!("docg_test_{}", Uuid::new_v4().simple());
        let template = template.unwrap_or("template0");
        let mut connection = connect(&admin).await;
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|e| panic!("cannot create a database: {e}"));
        let _ = connection.close().await;
        let url = admin.clone().database(&name).to_url_lossy().to_string();
        Self { url, name, admin }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // Use another thread, because this one may be running an async runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let Ok(mut connection) = PgConnection::connect_with(&admin).await else {
                    return;
                };
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let _ = sqlx::query(AssertSqlSafe(drop))
                    .execute(&mut connection)
                    .await;
            });
        });
        let _ = dropping.join();
    }
}

/// A server for one test, which may break it. It ends when this value is dropped.
#[derive(Debug)]
pub struct PrivateServer(Running, &'static Program);

impl PrivateServer {
    /// Starts a server. It does not wait for the disk, so it is faster than a server that loses nothing.
    pub async fn start() -> Self {
        Self::of(&PRIVATE).await
    }

    /// Starts a server for measurements: each commit waits for the disk, as in production, and
    /// `pg_stat_statements` counts.
    pub async fn start_durable() -> Self {
        Self::of(&DURABLE).await
    }

    async fn of(program: &'static Program) -> Self {
        let server = blocking(move || {
            let dir = home(&format!("postgres-{}", Uuid::new_v4().simple()));
            Self(Running::join(dir, program), program)
        })
        .await;
        ready(&options(server.0.port)).await;
        server
    }

    /// The URL of the database `postgres`, as superuser.
    #[must_use]
    pub fn url(&self) -> String {
        options(self.0.port).to_url_lossy().to_string()
    }

    /// Ends the server at once, like a crash, except that clients are notified (`pg_ctl stop -m immediate`).
    pub fn stop(&self) {
        self.0.end("QUIT");
    }

    /// Ends the server in an orderly way (`pg_ctl stop -m fast`): sessions are told that an administrator
    /// ends them.
    pub fn stop_fast(&self) {
        self.0.end("INT");
    }

    /// Kills the server's main process; its other processes notice that and end.
    pub fn kill(&self) {
        self.0.end("KILL");
    }

    /// Restarts the server on the same port, with its data.
    pub async fn start_again(&self) {
        let Self(running, program) = self;
        std::thread::scope(|scope| {
            scope.spawn(|| running.start_again(program));
        });
        ready(&options(running.port)).await;
    }

    /// Changes a setting by `ALTER SYSTEM`, for new and existing sessions of the server.
    pub async fn configure(&self, name: &str, value: &str) {
        let mut connection = connect(&options(self.0.port)).await;
        let set = format!("ALTER SYSTEM SET {name} = '{value}'");
        let writable = "SET default_transaction_read_only = off".to_owned();
        for statement in [writable, set, "SELECT pg_reload_conf()".to_owned()] {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await
                .unwrap_or_else(|e| panic!("cannot set {name}: {e}"));
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.0.remove();
    }
}

async fn shared() -> PgConnectOptions {
    if let Some(url) = env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        return PgConnectOptions::from_str(&url)
            .unwrap_or_else(|e| panic!("DATABASE_URL is no address of a database: {e}"));
    }
    // Keep the server's lock until this process ends: it shows that the server is in use.
    static SERVER: OnceLock<Running> = OnceLock::new();
    let port = blocking(|| {
        SERVER
            .get_or_init(|| Running::join(home("postgres"), &SHARED))
            .port
    })
    .await;
    let options = options(port);
    ready(&options).await;
    options
}

fn options(port: u16) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("docg")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .disable_statement_logging()
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options)
        .await
        .unwrap_or_else(|e| panic!("these tests need a PostgreSQL server: {e}"))
}

/// Waits until the server accepts clients. It starts to listen a moment earlier.
async fn ready(options: &PgConnectOptions) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        match PgConnection::connect_with(options).await {
            Ok(connection) => break drop(connection.close().await),
            Err(error) => assert!(Instant::now() < patience, "no way in: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Copies a database cluster into the directory. `initdb` takes seconds, so it makes this cluster only once.
fn prepare(dir: &Path) {
    let programs = programs();
    let version = programs.display().to_string().replace('/', "-");
    let clusters = home(&format!("clusters{version}"));
    let lock = fs::File::create(clusters.join("lock")).expect("the directory is ours");
    lock.lock().expect("flock works here");
    let cluster = clusters.join("data");
    if !cluster.exists() {
        let unfinished = clusters.join("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        give_away(&clusters);
        let mut initdb = as_server_user(&clusters);
        initdb.push(programs.join("initdb").into());
        initdb.push("--pgdata".into());
        initdb.push(unfinished.clone().into());
        let settings = "--auth=trust --username=docg --encoding=UTF8 --no-locale --no-sync";
        initdb.extend(settings.split(' ').map(OsString::from));
        run(&initdb[0], &initdb[1..]);
        fs::rename(&unfinished, &cluster).expect("renames");
    }
    run(
        "cp",
        [
            OsString::from("-R"),
            "-p".into(),
            cluster.into(),
            dir.join("data").into(),
        ],
    );
    give_away(dir);
}

fn command(dir: &Path, port: u16) -> Vec<OsString> {
    let mut command = as_server_user(dir);
    command.push(programs().join("postgres").into());
    command.push("-D".into());
    command.push(dir.join("data").into());
    // Keep the server small and do not wait for the disk: tests end servers but never the machine, so no
    // write is lost.
    let port = format!("port={port}");
    for setting in [
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=400",
        "shared_buffers=64MB",
        "dynamic_shared_memory_type=mmap",
        "max_wal_size=512MB",
        "log_min_messages=warning",
        "fsync=off",
    ] {
        command.extend(["-c".into(), setting.into()]);
    }
    command
}

fn durable_command(dir: &Path, port: u16) -> Vec<OsString> {
    let mut command = command(dir, port);
    // Of two values of a setting, the server takes the last.
    for setting in [
        "fsync=on",
        "shared_buffers=256MB",
        "max_wal_size=4GB",
        "shared_preload_libraries=pg_stat_statements",
    ] {
        command.extend(["-c".into(), setting.into()]);
    }
    command
}

/// The path of one of the server's programs, such as `pgbench`.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let beside = programs().join(name);
    let found = beside
        .is_file()
        .then_some(beside)
        .or_else(|| in_path(name).map(|dir| dir.join(name)));
    found.unwrap_or_else(|| panic!("the program {name} of PostgreSQL is missing"))
}

/// The command prefix that runs the server as another user: PostgreSQL refuses to run as root.
fn as_server_user(dir: &Path) -> Vec<OsString> {
    if !is_root(dir.parent().unwrap_or(dir)) {
        return Vec::new();
    }
    require("setpriv", "util-linux");
    [
        "setpriv",
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]
    .map(OsString::from)
    .into()
}

fn give_away(dir: &Path) {
    if is_root(dir.parent().unwrap_or(dir)) {
        run(
            "chown",
            [OsString::from("-R"), "postgres:".into(), dir.into()],
        );
    }
}

/// The folder with the server's programs: from `PATH`, or else the newest version that a distribution has
/// installed.
fn programs() -> PathBuf {
    let complete = |dir: &PathBuf| {
        ["initdb", "postgres"]
            .iter()
            .all(|it| dir.join(it).is_file())
    };
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = installed
        .map(|entry| entry.path().join("bin"))
        .filter(complete)
        .max_by_key(|dir| {
            let version = dir.parent().and_then(|it| it.file_name());
            version
                .and_then(|it| it.to_str())
                .and_then(|it| it.parse::<u32>().ok())
        });
    in_path("initdb").filter(complete).or(newest).expect(
        "these tests need a PostgreSQL server, version 14 or later: install it (on Debian the \
         package postgresql), or give one in DATABASE_URL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(url: &str) -> Result<i32, sqlx::Error> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query_scalar("SELECT 1")
            .fetch_one(&mut connection)
            .await
    }

    #[tokio::test]
    async fn databases_are_apart_and_gone_with_their_value() {
        let one = Database::empty().await;
        let other = Database::empty().await;
        assert_ne!(one.url(), other.url());
        assert_eq!(answer(one.url()).await.expect("answers"), 1);
        let url = one.url().to_owned();
        drop(one);
        assert!(answer(&url).await.is_err(), "it is gone");
    }

    #[tokio::test]
    async fn a_template_is_made_once_and_copied() {
        let name = format!("t{}", Uuid::new_v4().simple());
        let made = std::sync::atomic::AtomicUsize::new(0);
        let make = async |url: String| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut connection = PgConnection::connect(&url).await.expect("connects");
            sqlx::raw_sql("CREATE TABLE t AS SELECT 7 AS n")
                .execute(&mut connection)
                .await
                .expect("creates");
        };
        for _ in 0..2 {
            let copy = Database::copy_of(&name, make).await;
            let mut connection = PgConnection::connect(copy.url()).await.expect("connects");
            let n: i32 = sqlx::query_scalar("SELECT n FROM t")
                .fetch_one(&mut connection)
                .await
                .expect("is copied");
            assert_eq!(n, 7);
        }
        assert_eq!(made.into_inner(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_private_server_can_be_killed_and_started_again() {
        let server = PrivateServer::start().await;
        let dir = server.0.dir.clone();
        for end in [
            PrivateServer::kill,
            PrivateServer::stop,
            PrivateServer::stop_fast,
        ] {
            end(&server);
            assert!(answer(&server.url()).await.is_err());
            server.start_again().await;
            assert_eq!(answer(&server.url()).await.expect("answers"), 1);
        }
        drop(server);
        assert!(!dir.exists());
    }
}
