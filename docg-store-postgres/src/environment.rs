//! Whether a database, and the way to it, can be relied on.

use docg_core::{ports::StoreError, time::Timestamp};
use sqlx::postgres::PgArguments;

use crate::{PgStore, codec::field, error::Error, migrate, store::warn_once};

/// The oldest version that the statements are written for, as `server_version_num` counts.
const OLDEST: i32 = 140_000;
/// By so much clocks may differ.
const SKEW_MS: u64 = 2_000;

/// What is wrong with a database or with what the role may do there, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseFault {
    /// Texts in other characters would be refused, or kept as bytes that nobody checks.
    #[error(
        "the database's encoding is {0}: create one with ENCODING 'UTF8' TEMPLATE template0, and move \
         the data there"
    )]
    Encoding(String),
    /// Statements would fail.
    #[error("the server is PostgreSQL {0}: version 14 or later is needed")]
    Version(String),
    /// Nothing can be written.
    #[error(
        "the server is a standby and takes no writes: connect to the primary, at an address that follows it \
         at a failover"
    )]
    Standby,
    /// Nothing can be written.
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
        /// The schema's.
        found: i32,
        /// This library's.
        known: i32,
    },
    /// The schema is missing, or older than this library.
    #[error(
        "the schema has migration {found} of {known}: run `reference-server migrate` \
         (PgStore::migrate), or have its owner run what `reference-server print-migrations` prints \
         (migrations_sql)"
    )]
    Unmigrated {
        /// The schema's; 0 if there is none.
        found: i32,
        /// This library's.
        known: i32,
    },
    /// The role cannot work.
    #[error(
        "the role may not read and write {0}: have the schema's owner run what `reference-server \
         print-migrations --grants ROLE` prints (grants_sql)"
    )]
    Rights(String),
    /// A crash of the server may lose what was acknowledged.
    #[error(
        "synchronous_commit is off: a crash of the server loses what was acknowledged last. Set it to \
         on, for the server, the database or the role"
    )]
    Asynchronous,
    /// Times that processes write differ.
    #[error("the clock here is {0} ms off the database's: have both synchronized (NTP)")]
    Skew(i64),
}

impl DatabaseFault {
    /// Whether a store must not work there. The rest is worth a warning.
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
            | Self::Rights(_) => true,
        }
    }

    /// Whether it is about the server or the database, which no migration changes.
    fn is_of_server(&self) -> bool {
        !matches!(self, Self::Unmigrated { .. } | Self::Rights(_))
    }
}

impl PgStore {
    /// Looks at the server, the database, the schema and what the role may do there, fatal faults first.
    /// [`connect`](Self::connect) does this and refuses what no migration mends. An application that
    /// hands over a pool, or leaves migrating to others, calls it at its start.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the database does not answer.
    pub async fn faults(&self) -> Result<Vec<DatabaseFault>, StoreError> {
        let mut faults = self.find_faults().await.map_err(|e| e.at("faults"))?;
        faults.sort_by_key(|fault| !fault.is_fatal());
        Ok(faults)
    }

    /// Refuses a server or database that a store cannot work on, and warns of what is only unwise.
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

    /// The last migration that was applied.
    async fn version(&self) -> Result<i32, Error> {
        let sql = "SELECT coalesce(max(version), 0) AS version FROM docg.migrations";
        let rows = self.database.read(sql, PgArguments::default()).await?;
        rows.first().map_or(Ok(0), |row| field(row, "version"))
    }
}

/// How far the database's clock is outside the time that the question took.
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
