//! The schema `docg` and its migrations.
//!
//! The migrations are recorded in `docg.migrations`, apart from a host's own migrations.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use sqlx::{Connection, PgPool, Postgres, Row, pool::PoolConnection, raw_sql};

use crate::error::Error;

/// The advisory lock that makes processes migrate one after the other.
const LOCK: i64 = 0x646f_6367_6d69_6772;

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 14] = [
    Migration {
        version: 1,
        name: "executions",
        sql: include_str!("../migrations/0001_executions.sql"),
    },
    Migration {
        version: 2,
        name: "claim",
        sql: include_str!("../migrations/0002_claim.sql"),
    },
    Migration {
        version: 3,
        name: "audit",
        sql: include_str!("../migrations/0003_audit.sql"),
    },
    Migration {
        version: 4,
        name: "signature_follow_up",
        sql: include_str!("../migrations/0004_signature_follow_up.sql"),
    },
    Migration {
        version: 5,
        name: "audit_unsigned",
        sql: include_str!("../migrations/0005_audit_unsigned.sql"),
    },
    Migration {
        version: 6,
        name: "step_waiting",
        sql: include_str!("../migrations/0006_step_waiting.sql"),
    },
    Migration {
        version: 7,
        name: "first_claim",
        sql: include_str!("../migrations/0007_first_claim.sql"),
    },
    Migration {
        version: 8,
        name: "claims",
        sql: include_str!("../migrations/0008_claims.sql"),
    },
    Migration {
        version: 9,
        name: "step_outcome",
        sql: include_str!("../migrations/0009_step_outcome.sql"),
    },
    Migration {
        version: 10,
        name: "request_names",
        sql: include_str!("../migrations/0010_request_names.sql"),
    },
    Migration {
        version: 11,
        name: "faster_claims",
        sql: include_str!("../migrations/0011_faster_claims.sql"),
    },
    Migration {
        version: 12,
        name: "journal",
        sql: include_str!("../migrations/0012_journal.sql"),
    },
    Migration {
        version: 13,
        name: "waits",
        sql: include_str!("../migrations/0013_waits.sql"),
    },
    Migration {
        version: 15,
        name: "lists",
        sql: include_str!("../migrations/0015_lists.sql"),
    },
];

/// The tables that the migrations create, of which some are views by now.
pub(crate) fn tables() -> impl Iterator<Item = &'static str> {
    let created = |migration: &Migration| migration.sql.split("CREATE TABLE docg.").skip(1);
    let name = |rest: &'static str| rest.split_whitespace().next();
    MIGRATIONS.iter().flat_map(created).filter_map(name)
}

const TABLE: &str = "CREATE SCHEMA IF NOT EXISTS docg;
CREATE TABLE IF NOT EXISTS docg.migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);";

impl Migration {
    fn checksum(&self) -> String {
        hex::encode(Sha256::digest(self.sql))
    }
}

/// All migrations as plain SQL, in order, to be run by hand on a database that has none of them.
/// [`PgStore::migrate`](crate::PgStore::migrate) recognizes migrations that were run this way.
///
/// ```
/// let sql = docg_store_postgres::migrations_sql();
/// assert!(sql.contains("CREATE TABLE docg.executions"));
/// ```
#[must_use]
pub fn migrations_sql() -> String {
    let mut sql = format!("BEGIN;\n\n{TABLE}\n");
    for migration in &MIGRATIONS {
        sql.push_str(&format!(
            "\n-- {:04} {}\n\n{}\nINSERT INTO docg.migrations (version, name, checksum) VALUES \
             ({}, '{}', '{}');\n",
            migration.version,
            migration.name,
            migration.sql,
            migration.version,
            migration.name,
            migration.checksum()
        ));
    }
    sql.push_str("\nCOMMIT;\n");
    sql
}

/// SQL that grants `role` exactly the rights that a serving store needs: the role may append to the audit
/// trail and read it, but neither change nor remove rows. The schema's owner runs it after each migration.
///
/// ```
/// let sql = docg_store_postgres::grants_sql("docg_app");
/// assert!(sql.contains(r#"GRANT SELECT, INSERT ON docg.audit_events TO "docg_app";"#));
/// ```
#[must_use]
pub fn grants_sql(role: &str) -> String {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    let mut sql = format!("GRANT USAGE ON SCHEMA docg TO {role};\n");
    let working = [
        "executions",
        "execution_data",
        "execution_steps",
        "journal",
        "definitions",
        "signals",
        "signature_requests",
        "approvals",
        "idempotency_keys",
        "workflows",
        "memos",
        "audit_unsigned",
        "held_back",
        "request_names",
    ];
    for table in working {
        sql.push_str(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON docg.{table} TO {role};\n"
        ));
    }
    let append_only = [
        "node_type_sets",
        "audit_events",
        "audit_heads",
        "audit_checkpoints",
        "audit_checkpoint_heads",
        "audit_purges",
    ];
    for table in append_only {
        sql.push_str(&format!(
            "GRANT SELECT, INSERT ON docg.{table} TO {role};\n"
        ));
    }
    for table in ["migrations", "lines", "execution_events", "execution_logs"] {
        sql.push_str(&format!("GRANT SELECT ON docg.{table} TO {role};\n"));
    }
    sql
}

/// The version of the last migration.
pub(crate) fn newest() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

pub(crate) async fn run(pool: &PgPool) -> Result<(), Error> {
    let mut connection: PoolConnection<Postgres> = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // Migrating a large table may take long, and so may the wait for another process that migrates.
    raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    // Create the schema only if it is missing. So a role that may not create one can still find that it is
    // up to date.
    let is_there: bool = sqlx::query("SELECT to_regclass('docg.migrations') IS NOT NULL AS there")
        .fetch_one(&mut *transaction)
        .await?
        .try_get("there")?;
    if !is_there {
        raw_sql(TABLE).execute(&mut *transaction).await?;
    }
    let applied = sqlx::query("SELECT version, checksum FROM docg.migrations ORDER BY version")
        .fetch_all(&mut *transaction)
        .await?;
    let mut is_applied = HashSet::new();
    for row in &applied {
        let version: i32 = row.try_get("version")?;
        let checksum: String = row.try_get("checksum")?;
        let Some(known) = MIGRATIONS.iter().find(|it| it.version == version) else {
            return Err(Error::Corrupt(format!(
                "the database has migration {version}, which is newer than this program"
            )));
        };
        if known.checksum() != checksum {
            return Err(Error::Corrupt(format!(
                "migration {version} in the database is not that of this program"
            )));
        }
        is_applied.insert(version);
    }
    for migration in &MIGRATIONS {
        if is_applied.contains(&migration.version) {
            continue;
        }
        raw_sql(migration.sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO docg.migrations (version, name, checksum) VALUES ($1, $2, $3)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .execute(&mut *transaction)
            .await?;
        tracing::info!(migration.version, migration.name, "migrated");
    }
    transaction.commit().await?;
    Ok(())
}
