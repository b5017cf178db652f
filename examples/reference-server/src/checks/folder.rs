//! Checks of the data directory, its content, and the files that the options name.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use tokio::time::timeout;
use url::Url;

use super::Finding;
use crate::{
    auth_file,
    builtin_signature::Secret,
    checkpoints::Checkpoints,
    files::{Files, FilesError},
    options::Options,
    serve::{FILES_FOLDER, SECRET_FILE},
    workflows,
};

/// The name of the lock file. By its lock, a server detects that another server uses the data directory.
const LOCK_FILE: &str = "server.lock";
/// The time limit for a bucket's answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn data_dir(options: &Options) -> Vec<Finding> {
    let folder = &options.data_dir;
    let probed = fs::create_dir_all(folder).and_then(|()| probe(folder));
    let Err(error) = probed else {
        return Vec::new();
    };
    let to_do = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the server's user write there, or name another folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its disk",
        _ => "name a folder that can be made and written",
    };
    vec![Finding::refused(format!(
        "--data-dir {}: {error}: {to_do}",
        folder.display()
    ))]
}

/// Writes and removes a file: only a write reveals missing rights, full disks and read-only systems.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".docg-probe-{}", uuid::Uuid::new_v4()));
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(b"docg")?;
        file.sync_all()
    });
    // Ignore the error: if the file could not be created, there is nothing to remove.
    let _ = fs::remove_file(&path);
    written
}

/// The lock that a server holds while it uses a data directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

/// Another server uses the data directory, and the two do not share a database.
#[derive(Debug, thiserror::Error)]
#[error(
    "--data-dir {0}: another server uses this folder, and {1}. Stop it, give each its own folder, or \
     have both share a database (--database-url)"
)]
pub struct LockError(String, &'static str);

impl Lock {
    /// Locks the data directory. Servers with a database share a data directory; a server without a database
    /// needs one for itself.
    pub(crate) fn take(options: &Options) -> Result<Self, LockError> {
        let path = options.data_dir.join(LOCK_FILE);
        let has_database = options.database_url.is_some();
        let opened = fs::create_dir_all(&options.data_dir)
            .and_then(|()| File::options().create(true).append(true).open(&path));
        // Ignore the error here: the check of the data directory reports it.
        let Ok(file) = opened else {
            return Ok(Self { _file: None });
        };
        let locked = if has_database {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => Ok(Self { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(LockError(
                options.data_dir.display().to_string(),
                if has_database {
                    "it has no database"
                } else {
                    "this one has no database"
                },
            )),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{}: {error}: a second server would not be noticed",
                    path.display()
                );
                Ok(Self { _file: None })
            }
        }
    }
}

/// Opens the file storage that the options name.
pub(crate) fn opened(options: &Options) -> Result<Files, FilesError> {
    match &options.files_url {
        // Do not quote the option's text in the error: it may hold a key.
        Some(url) => match Url::parse(url.expose()) {
            Ok(url) => Files::at_url(&url),
            Err(e) => Err(FilesError::Other(format!("not a URL: {e}"))),
        },
        None => Files::in_folder(options.data_dir.join(FILES_FOLDER)),
    }
}

/// The option, for messages, that says where documents are stored.
fn files_option(options: &Options) -> String {
    match &options.files_url {
        Some(_) => "--files-url".to_owned(),
        None => format!("--data-dir {}", options.data_dir.display()),
    }
}

/// Shortens an error to one line. Of a bucket's answer only the error code is kept, because the answer
/// repeats the request and the access key.
fn brief(error: &FilesError) -> String {
    let text = error.to_string();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) => format!("the storage answers {code}"),
        None => text.lines().next().unwrap_or_default().to_owned(),
    }
}

/// Names the variables with a bucket's settings, and says which of the keys are not set.
fn of_bucket(options: &Options) -> String {
    let url = options.files_url.as_ref();
    if !url.is_some_and(|url| url.expose().starts_with("s3:")) {
        return String::new();
    }
    let named =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| {
            match std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
                true => name.to_owned(),
                false => format!("{name} (not set)"),
            }
        });
    format!(
        ". The keys come from {}, the region from AWS_REGION, and the address of a server other than \
         Amazon's from AWS_ENDPOINT",
        named.join(" and ")
    )
}

pub(super) async fn files(options: &Options) -> Vec<Finding> {
    let option = files_option(options);
    let files = match opened(options) {
        Ok(files) => files,
        Err(error) => return vec![Finding::refused(format!("{option}: {error}"))],
    };
    let verdict = match timeout(PATIENCE, files.probe_writes_once()).await {
        Ok(Ok(true)) => return Vec::new(),
        Ok(Ok(false)) => Finding::refused(format!(
            "{option}: the storage ignores If-None-Match: of two decisions about one document both would \
             count. Use one that has conditional writes, as Amazon S3 and MinIO do"
        )),
        Ok(Err(error @ FilesError::Other(_))) => Finding::warned(format!(
            "{option}: {}: documents cannot be kept until that is mended{}",
            brief(&error),
            of_bucket(options)
        )),
        Ok(Err(error)) => {
            Finding::refused(format!("{option}: {}{}", brief(&error), of_bucket(options)))
        }
        Err(_) => Finding::warned(format!(
            "{option}: no answer within {PATIENCE:?}: documents cannot be kept until it answers{}",
            of_bucket(options)
        )),
    };
    vec![verdict]
}

pub(super) async fn key(options: &Options) -> Vec<Finding> {
    let path = options.data_dir.join(SECRET_FILE);
    let shown = path.display();
    if !path.exists() {
        return if has_documents(options).await {
            vec![Finding::refused(format!(
                "{shown} is missing, and there are documents: with a new key every link that was mailed \
                 and every checkpoint of the audit trail would be void. Restore the file from a backup. \
                 If it is lost, put a new one there: openssl rand -hex 32, readable for the server alone"
            ))]
        } else {
            Vec::new()
        };
    }
    if let Err(error) = Secret::load(&path) {
        return vec![Finding::refused(format!(
            "{error}: restore the file from a backup"
        ))];
    }
    match others_may(&path) {
        Others::Nothing => Vec::new(),
        Others::GroupReads => vec![Finding::warned(format!(
            "{shown} can be read by its group, who can then sign in everybody's name: chmod 600 {shown}"
        ))],
        Others::EverybodyReads => vec![Finding::refused(format!(
            "{shown} can be read by every user of this machine, who can then sign in everybody's name: \
             chmod 600 {shown}, and replace it if others may have read it"
        ))],
    }
}

/// True if noted checkpoints or stored documents show that this installation has used a key before.
async fn has_documents(options: &Options) -> bool {
    let noted = Checkpoints::of(&options.data_dir).organizations();
    if noted.is_ok_and(|organizations| !organizations.is_empty()) {
        return true;
    }
    // Errors of opening or reading the storage are reported by another check.
    let Ok(files) = opened(options) else {
        return false;
    };
    matches!(timeout(PATIENCE, files.is_empty()).await, Ok(Ok(false)))
}

pub(super) fn auth_file(options: &Options) -> Vec<Finding> {
    let Some(path) = &options.auth_file else {
        return Vec::new();
    };
    let shown = path.display();
    if path.is_dir() {
        let text = format!("--auth-file {shown} is a folder: name a JSON file of tokens");
        return vec![Finding::refused(text)];
    }
    let short = match auth_file::short_tokens(path) {
        Ok(short) => short,
        Err(error) => return vec![Finding::refused(error.to_string())],
    };
    let mut findings: Vec<_> = short.into_iter().map(Finding::warned).collect();
    if others_may(path) == Others::EverybodyReads {
        findings.push(Finding::warned(format!(
            "--auth-file {shown} can be read by every user of this machine, who can then call with its \
             tokens: chmod 600 {shown}"
        )));
    }
    findings
}

pub(super) fn workflows(options: &Options) -> Vec<Finding> {
    let Some(folder) = &options.workflows else {
        return Vec::new();
    };
    match workflows::in_folder(folder) {
        Ok(_) => Vec::new(),
        Err(faults) => vec![Finding::refused(format!(
            "--workflows {}: {faults}",
            folder.display()
        ))],
    }
}

/// The rights of other users on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Nothing,
    GroupReads,
    EverybodyReads,
}

#[cfg(unix)]
fn others_may(path: &Path) -> Others {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode());
    if mode & 0o007 != 0 {
        Others::EverybodyReads
    } else if mode & 0o070 != 0 {
        Others::GroupReads
    } else {
        Others::Nothing
    }
}

#[cfg(not(unix))]
fn others_may(_: &Path) -> Others {
    Others::Nothing
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;

    #[test]
    fn a_bucket_s_fault_is_told_by_its_code_and_with_the_variables_that_are_looked_for() {
        for code in [
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "NoSuchBucket",
        ] {
            let answer = format!(
                "Server returned 403: <Error><Code>{code}</Code>\n<AWSAccessKeyId>AKIAHIDDEN</AWSAccessKeyId>"
            );
            let told = brief(&FilesError::Misconfigured(answer));
            assert_eq!(told, format!("the storage answers {code}"));
        }
        let told = brief(&FilesError::Other("no route\nat all".to_owned()));
        assert_eq!(told, "the storage failed: no route");
        let of =
            |url| of_bucket(&Cli::parse_from(["reference-server", "--files-url", url]).options);
        let named = of("s3://bucket/prefix");
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_REGION",
            "AWS_ENDPOINT",
        ] {
            assert!(named.contains(name), "{named}");
        }
        assert_eq!(of("file:///documents"), "");
    }
}
