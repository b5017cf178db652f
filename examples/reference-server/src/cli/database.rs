//! The commands that work on the database itself, without a server.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use docg_core::{
    ids::{ExecutionId, OrganizationId},
    ports::{RunStore, StoreError, StoreErrorKind},
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
pub fn migrations(args: &PrintMigrationsArgs) -> String {
    match &args.grants {
        Some(role) => grants_sql(role),
        None => migrations_sql(),
    }
}

/// Removes what ended long ago. The number of executions and of audit trails that went.
///
/// # Errors
///
/// Where there is no database, or it does not let us: audit rows go by the schema's owner alone, and
/// with the key that signs it.
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
                // What has gone has gone; the next call takes the rest.
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

/// Erases the personal data of an execution's audit trail. The number of rows that had any.
///
/// # Errors
///
/// Where there is no database, or no such execution, or it does not let us: that is for the schema's
/// owner alone.
pub async fn erase(options: &Options, execution: ExecutionId) -> Result<u64, CliError> {
    let store = open(options).await?;
    let mut rows = 0;
    for organization in organizations(&store, Some(execution)).await? {
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
    let key = checkpoint_key(options)?;
    // It may be from before the last checkpoints, so none is required of it.
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

/// Without a key, what is signed can be neither right nor wrong; the rest can be wrong.
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
    let url = options.database_url.as_ref().ok_or_else(|| {
        CliError::Usage("this works on a database: give --database-url (DATABASE_URL)".to_owned())
    })?;
    backend::connect(url.expose(), options)
        .await
        .map_err(|e| CliError::Usage(e.to_string()))
}

/// What trails are held against: the key of this installation.
fn trust(key: Option<&CheckpointKey>) -> AuditTrust {
    AuditTrust::keys(key.map(CheckpointKey::public_key))
}

/// The key that this installation signs checkpoints with, if it has one.
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
