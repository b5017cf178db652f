//! The commands that work on the database directly, without a server.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::{ExecutionStore, StoreError, StoreErrorKind},
    time::Timestamp,
};
use docg_store_postgres::{
    AuditFault, AuditReport, AuditTrust, CheckpointKey, PgStore, grants_sql, migrations_sql,
    verify_audit_export, verify_audit_export_of,
};

use super::{CliError, local};
use crate::{
    backend,
    checkpoints::Checkpoints,
    options::{Options, PrintMigrationsArgs, PurgeArgs},
};

/// The number of executions or trails that one transaction purges, so that workers never wait for long.
const BATCH: usize = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Migrates the schema to the newest version.
///
/// # Errors
///
/// If there is no database, or the user lacks the rights.
pub async fn migrate(options: &Options) -> Result<(), CliError> {
    open(options).await?.migrate().await.map_err(failed)
}

/// The migrations as plain SQL, for operators who run them with their own tools.
#[must_use]
pub fn migrations(args: &PrintMigrationsArgs) -> String {
    match &args.grants {
        Some(role) => grants_sql(role),
        None => migrations_sql(),
    }
}

/// Purges executions that ended long ago, and old audit trails if the arguments say so. Returns the number of
/// purged executions and of purged trails.
///
/// # Errors
///
/// If there is no database, or the user lacks the rights. Only the schema's owner may purge audit rows, and
/// only with the key that signs the purge.
pub async fn purge(options: &Options, args: &PurgeArgs) -> Result<(usize, usize), CliError> {
    let store = open(options).await?;
    let audit = match args.audit_older_than_days {
        Some(days) => Some((
            days,
            checkpoint_key(options)?.ok_or_else(|| no_key(options))?,
        )),
        None => None,
    };
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
    let mut trails = 0;
    if let Some((days, key)) = audit {
        let noted = Checkpoints::of(&options.data_dir);
        loop {
            let purged = store.purge_audit(before(days), BATCH, &key, now).await;
            let made = match purged {
                Ok(made) if made.is_empty() => break,
                Ok(made) => made,
                // Earlier batches stay purged; the next run of the command purges the rest.
                Err(e) if e.kind == StoreErrorKind::Conflict => {
                    tracing::warn!("some audit rows stay until the next purge: {e}");
                    break;
                }
                Err(e) => return Err(failed(e)),
            };
            for checkpoint in &made {
                noted.made(checkpoint);
                trails += checkpoint.chains;
            }
        }
    }
    Ok((executions, trails))
}

/// Erases the personal data in an execution's audit trail. Returns the number of rows that had such data.
///
/// # Errors
///
/// If there is no database, or no such execution, or the user lacks the rights: only the schema's owner may
/// erase.
pub async fn erase(options: &Options, execution: ExecutionId) -> Result<u64, CliError> {
    let store = open(options).await?;
    let mut rows = 0;
    for organization in organizations(&store, Some(execution)).await? {
        let erased = store.erase_audit(organization, execution).await;
        rows += erased.map_err(failed)?;
    }
    Ok(rows)
}

/// Verifies the audit trails of all organizations in the database, or of one execution.
///
/// # Errors
///
/// If the verification could not be done. The trails may be valid or not.
pub(super) async fn verify(
    options: &Options,
    execution: Option<ExecutionId>,
) -> Result<AuditReport, CliError> {
    let store = open(options).await?;
    let key = checkpoint_key(options)?;
    let noted = Checkpoints::of(&options.data_dir);
    let unreadable = |e: std::io::Error| CliError::Usage(format!("--data-dir: {e}"));
    let trust = noted.required(trust(key.as_ref())).map_err(unreadable)?;
    let mut all = AuditReport::default();
    let mut organizations = organizations(&store, execution).await?;
    if execution.is_none() {
        organizations.extend(noted.organizations().map_err(unreadable)?);
        organizations.sort_unstable();
        organizations.dedup();
    }
    for organization in organizations {
        let report = store.verify_audit(organization, execution, &trust).await;
        all.merge(report.map_err(failed)?);
    }
    judged(all, key.is_some(), options)
}

/// Verifies a file that [`export`] has written. `None` if the file has another format.
///
/// # Errors
///
/// If the verification could not be done. The trail may be valid or not.
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
    let key = checkpoint_key(options)?;
    // Require no noted checkpoints: the file may be older than the last of them.
    let trust = trust(key.as_ref());
    let report = match execution {
        Some(id) => verify_audit_export_of(id, file, &trust),
        None => verify_audit_export(file, &trust),
    };
    let report = report.map_err(io_error)?;
    if report.chains == 0 && report.faults.iter().all(AuditFault::is_of_signature) {
        return Err(error(match execution {
            Some(id) => format!("there is no audit trail of {id} in it"),
            None => "there is no audit trail in it".to_owned(),
        }));
    }
    judged(report, key.is_some(), options).map(Some)
}

/// Removes the faults of signatures from a report if there is no key to check them with. Fails if these were
/// the only faults, because the trail is then neither valid nor invalid.
fn judged(
    mut report: AuditReport,
    has_key: bool,
    options: &Options,
) -> Result<AuditReport, CliError> {
    let faults = report.faults.len();
    if !has_key {
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

/// Writes the audit trails of all organizations, or of one execution, as JSON Lines.
///
/// # Errors
///
/// If there is no database, or no such execution, or `out` cannot be written.
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

/// All organizations that have audit trails. With `execution`, only the organization that owns its trail.
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
    let url = options.database_url.as_ref().ok_or_else(|| {
        CliError::Usage("this works on a database: give --database-url (DATABASE_URL)".to_owned())
    })?;
    backend::connect(url.expose(), options)
        .await
        .map_err(|e| CliError::Usage(e.to_string()))
}

/// The keys that a verification trusts: this installation's key, if there is one.
fn trust(key: Option<&CheckpointKey>) -> AuditTrust {
    AuditTrust::keys(key.map(CheckpointKey::public_key))
}

/// The key with which this installation signs checkpoints, if it has one.
fn checkpoint_key(options: &Options) -> Result<Option<CheckpointKey>, CliError> {
    let secret = local::secret(options)?;
    Ok(secret.map(|secret| backend::checkpoint_key(&secret)))
}

fn no_key(options: &Options) -> CliError {
    CliError::Usage(format!(
        "audit rows go only where that is signed, and {} has no key: give the --data-dir of the \
         servers",
        options.data_dir.display()
    ))
}

#[allow(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn failed(error: StoreError) -> CliError {
    CliError::Usage(format!("--database-url: {error}"))
}
