//! The store: one file for each group of statements.
//!
//! [`create`] and [`commit`] write executions, in batches. [`claim`] leases executions to workers and
//! takes the leases back. [`signals`], [`publishing`] and [`purge`] hold the other writes; [`reads`],
//! [`workflows`] and [`ttl`] match their names. [`definitions`] caches rows that never change, and
//! [`damaged`] remembers damaged rows that lists cannot detect themselves.

mod children;
mod claim;
mod commit;
mod create;
mod damaged;
mod definitions;
mod executions;
mod lists;
mod publishing;
mod purge;
mod reads;
mod signals;
mod sql;
mod ttl;
mod workflows;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use docg_core::ports::StoreError;
use sqlx::{
    ConnectOptions, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    batch::Batcher,
    codec::Encoder,
    config::PgStoreConfig,
    database::{Database, Losses},
    error::Error,
    migrate,
};
use commit::CommitItem;
use create::CreateItem;
use damaged::Damaged;
use definitions::Definitions;

/// The query parameters of a URL that the driver understands.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

fn read(url: &str) -> Result<PgConnectOptions, Error> {
    let right = "postgres://user:password@host:5432/database";
    // The driver itself accepts any scheme.
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(Error::Invalid(format!(
            "not a PostgreSQL URL; expected {right}"
        )));
    }
    // The driver's error may repeat a part of the URL, and so of the password.
    known_parameters(url).parse().map_err(|_| {
        // `url`'s error texts are constants.
        let why = url::Url::parse(url).err();
        let why = why.map_or_else(String::new, |error| format!(" ({error})"));
        let hint = "other characters than letters and digits in a password are written as %XX";
        Error::Invalid(format!(
            "the URL cannot be read{why}; expected {right}; {hint}"
        ))
    })
}

/// Removes the parameters that the driver does not know from a URL: it would log their values.
fn known_parameters(url: &str) -> String {
    let Some((base, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let (known, unknown): (Vec<_>, Vec<_>) = query.split('&').partition(|pair| {
        let name = key(pair);
        PARAMETERS.contains(&name) || name.starts_with("options[")
    });
    if !unknown.is_empty() {
        warn_once(ignored(query, &unknown));
    }
    format!("{base}?{}", known.join("&"))
}

fn key(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// Names the ignored parameters, unless they may be part of a password that contains a `?`.
fn ignored(query: &str, unknown: &[&str]) -> String {
    let is_name = |pair: &&&str| {
        let of_names = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        pair.contains('=') && key(pair).bytes().all(of_names)
    };
    let names: Vec<_> = unknown
        .iter()
        .filter(is_name)
        .map(|pair| key(pair))
        .collect();
    if query.contains('@') || names.len() < unknown.len() {
        return format!(
            "{} parameters of the database's URL are ignored: they mean nothing here. Special \
             characters of a password are written as %XX",
            unknown.len()
        );
    }
    format!(
        "parameters of the database's URL that mean nothing here are ignored: {}",
        names.join(", ")
    )
}

/// Logs a warning once per process, because programs connect once to check and once to work.
pub(crate) fn warn_once(text: String) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.contains(&text) {
        tracing::warn!("{text}");
        told.insert(text);
    }
}

/// Finds why there is no connection. A pool retries until its timeout and then reports only that.
async fn cause(error: sqlx::Error, database: &PgConnectOptions, config: &PgStoreConfig) -> Error {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return Error::of_connecting(error);
    }
    match tokio::time::timeout(config.acquire_timeout, database.connect()).await {
        Ok(Err(cause)) => Error::of_connecting(cause),
        Ok(Ok(_)) => error.into(),
        Err(_) => Error::Silent(format!("{}:{}", database.get_host(), database.get_port())),
    }
}

/// The largest timeout, in milliseconds, that PostgreSQL accepts.
const LONGEST: u128 = 0x7fff_ffff;

/// Adds the store's session settings to the connection options. They override the defaults of the
/// database and the role, unless a pooler withholds them from the server. They are sent as the session
/// starts: behind a pooler, a setting made by a statement would stay for the session's next client.
///
/// The server ends a statement that takes too long. If only the client gave up, the statement would keep
/// waiting at the server and run in the end. The server's limit is shorter than the client's, because its
/// answer proves that nothing was written. The client bounds a transaction of several statements as a
/// whole, so there the client's limit may come first. A stricter isolation level would only make
/// workers lose races. Each statement is planned once: planning a commit for its parameters takes longer than
/// the commit, and no better plan comes of it.
fn settled(database: PgConnectOptions, timeout: Duration) -> PgConnectOptions {
    let timeout = timeout.as_millis();
    let [statement, lock] =
        [timeout * 9 / 10, timeout / 3].map(|limit| limit.clamp(1, LONGEST).to_string());
    database.options([
        ("statement_timeout", statement.as_str()),
        ("lock_timeout", &lock),
        ("default_transaction_isolation", "read committed"),
        ("plan_cache_mode", "force_generic_plan"),
        // A plan made while a table is small would go on to read all of it when it has grown.
        ("enable_seqscan", "off"),
        // Compiling a statement takes longer than to run it.
        ("jit", "off"),
    ])
}

/// A store that keeps everything in a PostgreSQL database, in the schema `docg`.
///
/// Share it behind an `Arc`. Any number of processes may work on one database.
pub struct PgStore {
    pub(crate) database: Database,
    pub(crate) encoder: Encoder,
    config: PgStoreConfig,
    commits: Batcher<CommitItem>,
    creations: Batcher<CreateItem>,
    definitions: Definitions,
    damaged: Damaged,
}

impl fmt::Debug for PgStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl PgStore {
    /// Connects by a URL such as `postgres://user:password@host/database`. It does not migrate the
    /// schema: see [`migrate`](Self::migrate).
    ///
    /// The session's time limits are sent in `options` when a session starts. PgBouncer refuses `options`
    /// unless `ignore_startup_parameters` lists it; then the limits of the database or the role apply.
    ///
    /// # Errors
    ///
    /// `Invalid` if the URL is not a PostgreSQL URL, or if the database is unfit; then the error's source is
    /// a [`DatabaseFault`](crate::DatabaseFault). `Unavailable` if the database does not answer, or
    /// refuses the connection.
    pub async fn connect(url: &str, config: PgStoreConfig) -> Result<Self, StoreError> {
        let database = read(url).map_err(|e| e.at("connect"))?;
        let database = settled(database, config.timeout);
        let losses = Losses::default();
        let spared = losses.clone();
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(config.acquire_timeout)
            // A round trip for each use costs too much. A ping after an idle second finds dead connections.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let is_spared = spared.spare(meta.age);
                Box::pin(async move {
                    if is_spared && meta.idle_for > Duration::from_secs(1) {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(is_spared)
                })
            });
        let pool = match pool.connect_with(database.clone()).await {
            Ok(pool) => pool,
            Err(error) => return Err(cause(error, &database, &config).await.at("connect")),
        };
        let store = Self::on(pool, config, losses);
        store.refuse_faults().await.map_err(|e| e.at("connect"))?;
        store.warn_of_privileges().await;
        Ok(store)
    }

    /// Makes a store on the host's pool. The pool's limits on connections and waiting apply, and its
    /// sessions stay as they are. They should use `read committed`, PostgreSQL's default, and set a
    /// `statement_timeout` and a `lock_timeout`, so that the server ends slow statements. Without these, a
    /// statement that was given up goes on at the server, and a write may succeed after its caller was
    /// told that it failed.
    #[must_use]
    pub fn new(pool: PgPool, config: PgStoreConfig) -> Self {
        Self::on(pool, config, Losses::default())
    }

    fn on(pool: PgPool, config: PgStoreConfig, losses: Losses) -> Self {
        let database = Database {
            pool,
            timeout: config.timeout,
            losses,
        };
        Self {
            encoder: Encoder {
                max_json_bytes: config.max_json_bytes,
            },
            commits: Batcher::new(database.clone(), config.batch_size, config.max_batches),
            creations: Batcher::new(database.clone(), config.batch_size, config.max_batches),
            definitions: Definitions::default(),
            damaged: Damaged::default(),
            database,
            config,
        }
    }

    /// Brings the schema `docg` up to date. Several processes may call this at once. The host's own
    /// migrations are not affected, because docg's have their own table.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer or the role may not create; `Corrupt` if an applied
    /// migration differs from this version's, or is newer.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migrate::run(&self.database.pool)
            .await
            .map_err(|e| e.at("migrate"))
    }

    /// Closes the pool after the statements under way have ended.
    pub async fn close(&self) {
        self.database.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_parameters_are_named_and_parts_of_passwords_are_not() {
        for (query, named) in [
            ("connect_timeout=5&sslmode=require", true),
            ("target_session_attrs=canary", true),
            ("canary", false),
            ("Canary7=x", false),
            ("canary=x@host/docg", false),
        ] {
            let unknown: Vec<_> = query.split('&').take(1).collect();
            let told = ignored(query, &unknown);
            assert_eq!(told.contains(key(unknown[0])), named, "{query}: {told}");
            assert!(!told.contains("canary"), "{told}");
        }
        let url = "postgres://user@host/docg?connect_timeout=5&sslmode=require";
        let expected = "postgres://user@host/docg?sslmode=require";
        assert_eq!(known_parameters(url), expected);
    }
}
