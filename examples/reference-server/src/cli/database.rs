//! The commands that work on the database itself, without a server.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
};

use docg_core::{
    ids::ExecutionId,
    ports::{RunStore, StoreError},
    time::Timestamp,
};
use docg_store_postgres::{
    AuditReport, CheckpointKey, PgStore, migrations_sql, verify_audit_export,
};

use super::CliError;
use crate::{
    backend,
    builtin_signature::Secret,
    options::{Options, PurgeArgs, VerifyArgs},
};

/// So many go at once, so that workers never wait for long.
const BATCH: usize = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Brings the schema up to date.
///
/// # Errors
///
/// Where there is no database, or it does not let us.
pub async fn migrate(options: &Options) -> Result<(), CliError> {
    open(options).await?.migrate().await.map_err(failed)
}

/// The migrations as plain SQL, for those who run them themselves.
#[must_use]
pub fn migrations() -> String {
    migrations_sql()
}

/// Removes what ended long ago. The number of executions and of audit rows that went.
///
/// # Errors
///
/// Where there is no database, or it does not let us: audit rows go by the schema's owner alone.
pub async fn purge(options: &Options, args: &PurgeArgs) -> Result<(usize, usize), CliError> {
    let store = open(options).await?;
    let now = Timestamp::now();
    let before = |days: u32| Timestamp::from_millis(now.as_millis() - i64::from(days) * DAY_MS);
    let mut executions = 0;
    loop {
        let purged = store.purge(before(args.older_than_days), BATCH).await;
        match purged.map_err(failed)? {
            0 => break,
            purged => executions += purged,
        }
    }
    let mut rows = 0;
    if let Some(days) = args.audit_older_than_days {
        loop {
            let purged = store.purge_audit(before(days), BATCH, now).await;
            match purged.map_err(failed)? {
                0 => break,
                purged => rows += purged,
            }
        }
        if let Some(key) = checkpoint_key(options)? {
            backend::checkpoint_all(&store, &key)
                .await
                .map_err(failed)?;
        }
    }
    Ok((executions, rows))
}

/// Erases the personal data of an execution's audit trail. The number of rows that had any.
///
/// # Errors
///
/// Where there is no database, or it does not let us: that is for the schema's owner alone.
pub async fn erase(options: &Options, execution: ExecutionId) -> Result<u64, CliError> {
    let store = open(options).await?;
    let mut rows = 0;
    // One of them has it.
    for organization in store.audited_organizations().await.map_err(failed)? {
        let erased = store.erase_audit(organization, execution).await;
        rows += erased.map_err(failed)?;
    }
    Ok(rows)
}

/// Verifies the audit trails of all organizations in the database, or that of one execution.
///
/// # Errors
///
/// Where that could not be done, which says nothing about the trails.
pub async fn verify_database(
    options: &Options,
    args: &VerifyArgs,
) -> Result<AuditReport, CliError> {
    let store = open(options).await?;
    let trusted = trusted(options)?;
    let execution = args.execution.map(ExecutionId);
    let mut all = AuditReport::default();
    for organization in store.audited_organizations().await.map_err(failed)? {
        let report = store.verify_audit(organization, execution, &trusted).await;
        let report = report.map_err(failed)?;
        all.chains += report.chains;
        all.rows += report.rows;
        all.checkpoints += report.checkpoints;
        all.purged += report.purged;
        all.faults.extend(report.faults);
    }
    match execution {
        Some(id) if all.chains == 0 => Err(CliError::Usage(format!(
            "--execution: there is no audit trail of {id}"
        ))),
        _ => Ok(all),
    }
}

/// Verifies a file that [`export`] has written; `None` where it is of another form.
///
/// # Errors
///
/// Where that could not be done, which says nothing about the trail.
pub fn verify_export(
    options: &Options,
    args: &VerifyArgs,
) -> Result<Option<AuditReport>, CliError> {
    let Some(path) = &args.export else {
        return Ok(None);
    };
    let error = |why: std::io::Error| CliError::File {
        file: path.display().to_string(),
        why: why.to_string(),
    };
    let mut file = BufReader::new(File::open(path).map_err(error)?);
    let begins = file.fill_buf().map_err(error)?;
    if !begins.starts_with(b"{\"docg_audit_export\"") {
        return Ok(None);
    }
    verify_audit_export(file, &trusted(options)?)
        .map(Some)
        .map_err(error)
}

/// Writes the audit trails of all organizations, or of one execution, as lines of JSON.
///
/// # Errors
///
/// Where there is no database, or `out` takes no more.
pub async fn export(
    options: &Options,
    execution: Option<ExecutionId>,
    mut out: impl Write + Send,
) -> Result<(), CliError> {
    let store = open(options).await?;
    for organization in store.audited_organizations().await.map_err(failed)? {
        store
            .export_audit(organization, execution, &mut out)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn open(options: &Options) -> Result<PgStore, CliError> {
    let url = options.database_url.as_deref().ok_or_else(|| {
        CliError::Usage("this works on a database: give --database-url (DATABASE_URL)".to_owned())
    })?;
    backend::connect(url, options)
        .await
        .map_err(|e| CliError::Usage(e.to_string()))
}

/// The keys that this installation's checkpoints may be signed with.
fn trusted(options: &Options) -> Result<Vec<[u8; 32]>, CliError> {
    let key = checkpoint_key(options)?;
    Ok(key.iter().map(CheckpointKey::public_key).collect())
}

/// The key that this installation signs checkpoints with, if it has one.
fn checkpoint_key(options: &Options) -> Result<Option<CheckpointKey>, CliError> {
    let path = options.data_dir.join("signature.key");
    if !path.exists() {
        return Ok(None);
    }
    let secret = Secret::load_or_create(&path).map_err(|e| CliError::Usage(e.to_string()))?;
    Ok(Some(backend::checkpoint_key(&secret)))
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn failed(error: StoreError) -> CliError {
    CliError::Usage(format!("--database-url: {error}"))
}
