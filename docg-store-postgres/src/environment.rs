//! Checks that a database, and the connection to it, are fit for a store.

use docg_core::{ports::StoreError, time::Timestamp};
use sqlx::postgres::PgArguments;

use crate::{PgStore, codec::field, error::Error, migrate, store::warn_once};

/// The oldest supported PostgreSQL version, in the form of `server_version_num`.
const OLDEST: i32 = 140_000;
/// The tolerated difference between this process's clock and the database's.
const SKEW_MS: u64 = 2_000;

/// A fault of the database or of the role's rights, with the way to correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// The encoding is not UTF8. The server would refuse some texts, or keep them as unchecked bytes.
    #[error(
        "the database's encoding is {0}: create one with ENCODING 'UTF8' TEMPLATE template0, and move \
         the data there"
    )]
    Encoding(String),
    /// The server is older than PostgreSQL 14, so statements would fail.
    #[error("the server is PostgreSQL {0}: version 14 or later is needed")]
    Version(String),
    /// The server is a standby, so nothing can be written.
    #[error(
        "the server is a standby and takes no writes: connect to the primary, at an address that follows it \
         at a failover"
    )]
    Standby,
    /// Transactions are read-only by default, so nothing can be written.
    #[error(
        "default_transaction_read_only is on, for the server, the database or the role: set it to off"
    )]
    ReadOnly,
    /// The schema was made by a later version of this library.
    #[error(
        "the schema has migration {found}, and this program knows {known} at most: deploy the version \
         that made it, or a later one"
    )]
    Newer {
        /// The schema's last migration.
        found: i32,
        /// The last migration that this library knows.
        known: i32,
    },
    /// The schema is missing, or older than this library.
    #[error(
        "the schema has migration {found} of {known}: run `reference-server migrate` \
         (PgStore::migrate), or have its owner run what `reference-server print-migrations` prints \
         (migrations_sql)"
    )]
    Unmigrated {
        /// The schema's last migration; 0 if there is no schema.
        found: i32,
        /// The last migration that this library knows.
        known: i32,
    },
    /// A table of the schema is missing, as after an incomplete restore.
    #[error("the table docg.{0} is missing: restore the database from a backup that is complete")]
    Missing(&'static str),
    /// The role lacks rights that the store needs.
    #[error(
        "the role may not read and write {0}: have the schema's owner run what `reference-server \
         print-migrations --grants ROLE` prints (grants_sql)"
    )]
    Rights(String),
    /// `synchronous_commit` is off, so a crash of the server may lose acknowledged commits.
    #[error(
        "synchronous_commit is off: a crash of the server loses what was acknowledged last. Set it to \
         on, for the server, the database or the role"
    )]
    Asynchronous,
    /// The clock of this process differs from the database's, in milliseconds.
    #[error("the clock here is {0} ms off the database's: have both synchronized (NTP)")]
    Skew(i64),
}

impl DatabaseFault {
    /// True if a store must not work on this database. Any other fault is worth a warning only.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Asynchronous | Self::Skew(_) => false,
            Self::Encoding(_)
            | Self::Version(_)
            | Self::Standby
            | Self::ReadOnly
            | Self::Newer { .. }
            | Self::Unmigrated { .. }
            | Self::Missing(_)
            | Self::Rights(_) => true,
        }
    }

    /// True if the fault lies in the server or the database, so that no migration or grant corrects it.
    fn is_of_server(&self) -> bool {
        !matches!(self, Self::Unmigrated { .. } | Self::Rights(_))
    }
}

impl PgStore {
    /// Checks the server, the database, the schema and the role's rights; returns fatal faults first.
    /// [`connect`](Self::connect) does this too and refuses faults that no migration corrects. An application
    /// calls this at its start if it passes in a pool, or if something else migrates the schema.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer.
    pub async fn faults(&self) -> Result<Vec<DatabaseFault>, StoreError> {
        let mut faults = self.find_faults().await.map_err(|e| e.at("faults"))?;
        faults.sort_by_key(|fault| !fault.is_fatal());
        Ok(faults)
    }

    /// Refuses a server or database that is unfit for a store, and warns of faults that are not fatal.
    pub(crate) async fn refuse_faults(&self) -> Result<(), Error> {
        for fault in self.find_faults().await? {
            if !fault.is_fatal() {
                warn_once(fault.to_string());
            } else if fault.is_of_server() {
                return Err(Error::Environment(fault));
            }
        }
        Ok(())
    }

    async fn find_faults(&self) -> Result<Vec<DatabaseFault>, Error> {
        let sql = "SELECT
                current_setting('server_encoding') AS encoding,
                current_setting('server_version') AS version,
                current_setting('server_version_num')::integer AS version_number,
                pg_is_in_recovery() AS is_standby,
                current_setting('default_transaction_read_only') = 'on' AS is_read_only,
                current_setting('synchronous_commit') = 'off' AS is_asynchronous,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
                coalesce(has_table_privilege((
                    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'docg' AND c.relname = 'migrations'), 'SELECT'), false)
                    AND has_schema_privilege((
                        SELECT oid FROM pg_namespace WHERE nspname = 'docg'), 'USAGE')
                    AS may_read_version,
                (SELECT coalesce(array_agg(c.relname::text), '{}')
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'docg' AND c.relkind IN ('r', 'p', 'v')) AS tables,
                (SELECT min(n.nspname || '.' || c.relname)
                    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'docg' AND c.relkind IN ('r', 'p') AND NOT (
                        has_schema_privilege(n.oid, 'USAGE')
                        AND has_table_privilege(c.oid, 'SELECT')
                        AND (c.relname IN ('migrations', 'lines')
                            OR has_table_privilege(c.oid, 'INSERT')))) AS forbidden";
        let began = Timestamp::now();
        let rows = self.database.read(sql, PgArguments::default()).await?;
        let ended = Timestamp::now();
        let Some(row) = rows.first() else {
            return Ok(Vec::new());
        };
        let is = |column| Ok::<bool, Error>(field::<Option<bool>>(row, column)?.unwrap_or(false));
        let mut faults = Vec::new();
        let encoding: String = field(row, "encoding")?;
        if encoding != "UTF8" {
            faults.push(DatabaseFault::Encoding(encoding));
        }
        if field::<i32>(row, "version_number")? < OLDEST {
            faults.push(DatabaseFault::Version(field(row, "version")?));
        }
        if is("is_standby")? {
            faults.push(DatabaseFault::Standby);
        } else if is("is_read_only")? {
            faults.push(DatabaseFault::ReadOnly);
        }
        let forbidden: Option<String> = field(row, "forbidden")?;
        let found = if is("may_read_version")? {
            self.version().await?
        } else {
            0
        };
        let known = migrate::newest();
        if let Some(table) = forbidden {
            faults.push(DatabaseFault::Rights(table));
        } else if found < known {
            faults.push(DatabaseFault::Unmigrated { found, known });
        } else if found > known {
            faults.push(DatabaseFault::Newer { found, known });
        } else {
            let tables: Vec<String> = field(row, "tables")?;
            let is_there = |table: &&str| tables.iter().any(|it| it == table);
            let missing = migrate::tables().find(|table| !is_there(table));
            faults.extend(missing.map(DatabaseFault::Missing));
        }
        if is("is_asynchronous")? {
            faults.push(DatabaseFault::Asynchronous);
        }
        faults.extend(skew(
            began,
            Timestamp::from_millis(field(row, "now_ms")?),
            ended,
        ));
        Ok(faults)
    }

    /// The version of the last migration that was applied.
    async fn version(&self) -> Result<i32, Error> {
        let sql = "SELECT coalesce(max(version), 0) AS version FROM docg.migrations";
        let rows = self.database.read(sql, PgArguments::default()).await?;
        rows.first().map_or(Ok(0), |row| field(row, "version"))
    }
}

/// The clock fault, if the database's time is more than `SKEW_MS` before the query began or after it ended.
fn skew(began: Timestamp, there: Timestamp, ended: Timestamp) -> Option<DatabaseFault> {
    let (ahead, behind) = (began.millis_since(there), there.millis_since(ended));
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    if ahead > SKEW_MS {
        Some(DatabaseFault::Skew(signed(ahead)))
    } else if behind > SKEW_MS {
        Some(DatabaseFault::Skew(-signed(behind)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_what_the_question_took_and_a_little() {
        let at = Timestamp::from_millis;
        for (began, there, ended, off) in [
            (10_000, 10_000, 10_010, None),
            (10_000, 11_000, 20_000, None),
            (10_000, 8_000, 10_010, None),
            (10_000, 7_999, 10_010, Some(2_001)),
            (10_000, 13_010, 10_010, Some(-3_000)),
        ] {
            let found = skew(at(began), at(there), at(ended));
            assert_eq!(found, off.map(DatabaseFault::Skew), "{there}");
        }
    }
}
