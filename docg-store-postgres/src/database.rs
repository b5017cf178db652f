//! Runs statements on the connection pool. Statements are bounded in time and retried after a lost race. A
//! connection on which a statement may still run does not go back to the pool.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
};
use tracing::Instrument;

use crate::error::{Error, Meaning};

/// The maximum number of attempts for a statement that loses races against other transactions.
const ATTEMPTS: u64 = 8;

/// The maximum wait for a locked row in a statement that serves several callers. A healthy worker locks a
/// row for a shorter time.
const ROW_WAIT: Duration = Duration::from_secs(1);

/// An SQL condition that is always true and bounds how long the rest of the statement waits for a row,
/// without a round trip and whatever the session's limit is. The parameter is the
/// [`row_wait`](Database::row_wait). Put it where the rows are found, before they are locked.
macro_rules! waits_briefly {
    ($parameter:literal) => {
        concat!(
            "(SELECT set_config('lock_timeout', ",
            $parameter,
            ", true)) IS NOT NULL"
        )
    };
}
pub(crate) use waits_briefly;

/// A statement's parameters, in order.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => {{
        let mut arguments = sqlx::postgres::PgArguments::default();
        $(sqlx::Arguments::add(&mut arguments, $value).map_err(sqlx::Error::Encode)?;)*
        arguments
    }};
}
pub(crate) use arguments;

/// A statement with its parameters.
pub(crate) type Statement = (&'static str, PgArguments);

#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) timeout: Duration,
    pub(crate) losses: Losses,
}

/// The time when a connection was last lost. The cause may have broken other connections too, so none that
/// was made before this time is used again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses(Arc<Mutex<Option<Instant>>>);

impl Losses {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// True if a connection that was made `age` ago may be used.
    pub(crate) fn spare(&self, age: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| age < last.elapsed())
    }
}

impl Database {
    /// The maximum wait for a locked row, in milliseconds, as the text of a setting.
    pub(crate) fn row_wait(&self) -> String {
        let wait = ROW_WAIT.min(self.timeout / 3);
        wait.as_millis().max(1).to_string()
    }

    /// Runs a statement that changes something, as a transaction of its own.
    pub(crate) async fn write(
        &self,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Error> {
        self.transaction(vec![(sql, arguments)]).await
    }

    /// Runs statements as one transaction. Returns the rows of the last.
    pub(crate) async fn transaction(
        &self,
        statements: Vec<Statement>,
    ) -> Result<Vec<PgRow>, Error> {
        let connection = self.connection().await?;
        self.run_apart(connection, statements).await
    }

    /// Runs statements in a separate task. If the caller were dropped while it ran them itself, the pool
    /// would get the connection back only when the statement ends, however late.
    async fn run_apart(
        &self,
        mut connection: PoolConnection<Postgres>,
        statements: Vec<Statement>,
    ) -> Result<Vec<PgRow>, Error> {
        let database = self.clone();
        let run = async move { database.run_on(&mut connection, &statements).await };
        let running = tokio::spawn(run.in_current_span());
        running.await.unwrap_or(Err(Error::GivenUp))
    }

    /// Runs a statement as [`write`](Self::write) does, on the caller's connection. The caller must not be
    /// dropped meanwhile.
    pub(crate) async fn write_on(
        &self,
        connection: &mut PoolConnection<Postgres>,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Error> {
        self.run_on(connection, &[(sql, arguments)]).await
    }

    async fn run_on(
        &self,
        connection: &mut PoolConnection<Postgres>,
        statements: &[Statement],
    ) -> Result<Vec<PgRow>, Error> {
        let mut attempt = 1;
        loop {
            let result = self.once(connection, statements).await;
            match &result {
                Err(error) if error.meaning() == Some(Meaning::Again) && attempt < ATTEMPTS => {
                    tracing::debug!(
                        attempt,
                        "a statement lost a race and is tried again: {error}"
                    );
                    tokio::time::sleep(Duration::from_millis(attempt * attempt)).await;
                    attempt += 1;
                }
                _ => return result,
            }
        }
    }

    /// Runs a statement that changes nothing. If the connection has died or become unusable since its last
    /// use, the statement runs again on another one, at most once for each connection of the pool.
    pub(crate) async fn read(
        &self,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Error> {
        let mut left = self.pool.options().get_max_connections();
        loop {
            let connection = self.connection().await?;
            let statement = vec![(sql, arguments.clone())];
            let result = self.run_apart(connection, statement).await;
            match &result {
                Err(error @ Error::Driver(_))
                    if error.meaning() == Some(Meaning::Gone) && left > 0 =>
                {
                    left -= 1;
                }
                _ => return result,
            }
        }
    }

    /// Opens a snapshot: all its reads see the database as of now, however long they take.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot {
            database: self.clone(),
            connection: self.connection().await?,
            is_open: true,
        };
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        snapshot.read(begin, PgArguments::default()).await?;
        Ok(snapshot)
    }

    pub(crate) async fn connection(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.pool.acquire().await?)
    }

    async fn once(
        &self,
        connection: &mut PoolConnection<Postgres>,
        statements: &[Statement],
    ) -> Result<Vec<PgRow>, Error> {
        let run = run(connection, statements);
        let result = match tokio::time::timeout(self.timeout, run).await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::TimedOut(self.timeout)),
        };
        if let Err(error) = &result
            && (error.meaning() == Some(Meaning::Gone) || !self.is_undone(connection).await)
        {
            connection.close_on_drop();
            self.losses.note();
        }
        result
    }

    /// Waits until the server has rolled back a refused statement. The server reports the error before it
    /// rolls back, and until then other statements find the rows locked and skip them.
    async fn is_undone(&self, connection: &mut PoolConnection<Postgres>) -> bool {
        let undone = tokio::time::timeout(self.timeout, connection.ping()).await;
        matches!(undone, Ok(Ok(())))
    }
}

pub(crate) struct Snapshot {
    database: Database,
    connection: PoolConnection<Postgres>,
    is_open: bool,
}

impl Snapshot {
    pub(crate) async fn read(
        &mut self,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Error> {
        let statement = [(sql, arguments)];
        self.database.once(&mut self.connection, &statement).await
    }

    /// Ends the transaction and returns the connection to the pool.
    pub(crate) async fn end(mut self) -> Result<(), Error> {
        self.read("COMMIT", PgArguments::default()).await?;
        self.is_open = false;
        Ok(())
    }
}

/// Closes the connection if its transaction is open or a statement may still run, so that no other caller
/// gets it.
impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}

/// Runs the statements; a single one is a transaction by itself.
async fn run(
    connection: &mut PgConnection,
    statements: &[Statement],
) -> Result<Vec<PgRow>, sqlx::Error> {
    if let [(sql, arguments)] = statements {
        return sqlx::query_with(*sql, arguments.clone())
            .fetch_all(connection)
            .await;
    }
    let mut transaction = connection.begin().await?;
    let mut rows = Vec::new();
    for (sql, arguments) in statements {
        let query = sqlx::query_with(*sql, arguments.clone());
        rows = query.fetch_all(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(rows)
}
