//! The commands that work on the database itself, without a server.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::{RunStore, StoreError},
    time::Timestamp,
};
use docg_store_postgres::{
    AuditFault, AuditReport, CheckpointKey, PgStore, migrations_sql, verify_audit_export,
    verify_audit_export_of,
};

use super::{CliError, local};
use crate::{
    backend,
    options::{Options, PurgeArgs},
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
pub(super) async fn verify(
    options: &Options,
    execution: Option<ExecutionId>,
) -> Result<AuditReport, CliError> {
    let store = open(options).await?;
    let trusted = trusted(options)?;
    let mut all = AuditReport::default();
    for organization in organizations(&store, execution).await? {
        let report = store.verify_audit(organization, execution, &trusted).await;
        all.merge(report.map_err(failed)?);
    }
    judged(all, &trusted, options)
}

/// Verifies a file that [`export`] has written; `None` where it is of another form.
///
/// # Errors
///
/// Where that could not be done, which says nothing about the trail.
pub(super) fn verify_export(
    options: &Options,
    path: &Path,
    execution: Option<ExecutionId>,
) -> Result<Option<AuditReport>, CliError> {
    let error = |why: String| CliError::File {
        file: path.display().to_string(),
        why,
    };
    let io_error = |e: std::io::Error| error(e.to_string());
    let mut file = BufReader::new(File::open(path).map_err(io_error)?);
    let begins = file.fill_buf().map_err(io_error)?;
    if !begins.starts_with(b"{\"docg_audit_export\"") {
        return Ok(None);
    }
    let trusted = trusted(options)?;
    let report = match execution {
        Some(id) => verify_audit_export_of(id, file, &trusted),
        None => verify_audit_export(file, &trusted),
    };
    let report = report.map_err(io_error)?;
    if report.chains == 0 && report.faults.iter().all(AuditFault::is_of_signature) {
        return Err(error(match execution {
            Some(id) => format!("there is no audit trail of {id} in it"),
            None => "there is no audit trail in it".to_owned(),
        }));
    }
    judged(report, &trusted, options).map(Some)
}

/// Without a key, what is signed can be neither right nor wrong; the rest can be wrong.
fn judged(
    mut report: AuditReport,
    trusted: &[[u8; 32]],
    options: &Options,
) -> Result<AuditReport, CliError> {
    let faults = report.faults.len();
    if trusted.is_empty() {
        report.faults.retain(|fault| !fault.is_of_signature());
    }
    if report.is_valid() && faults > 0 {
        return Err(CliError::Usage(format!(
            "the chains hold, but checkpoints are signed, and {} has no key: give the --data-dir \
             of the servers",
            options.data_dir.display()
        )));
    }
    Ok(report)
}

/// Writes the audit trails of all organizations, or of one execution, as lines of JSON.
///
/// # Errors
///
/// Where there is no database, or no such execution, or `out` takes no more.
pub async fn export(
    options: &Options,
    execution: Option<ExecutionId>,
    mut out: impl Write + Send,
) -> Result<(), CliError> {
    let store = open(options).await?;
    for organization in organizations(&store, execution).await? {
        store
            .export_audit(organization, execution, &mut out)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// All who have audit trails, or the one who has that of this execution.
async fn organizations(
    store: &PgStore,
    execution: Option<ExecutionId>,
) -> Result<Vec<OrganizationId>, CliError> {
    let Some(id) = execution else {
        return store.audited_organizations().await.map_err(failed);
    };
    let owner = store.audited_organization(id).await.map_err(failed)?;
    let owner = owner
        .ok_or_else(|| CliError::Usage(format!("--execution: there is no audit trail of {id}")))?;
    Ok(vec![owner])
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
    let secret = local::secret(options)?;
    Ok(secret.map(|secret| backend::checkpoint_key(&secret)))
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn failed(error: StoreError) -> CliError {
    CliError::Usage(format!("--database-url: {error}"))
}
