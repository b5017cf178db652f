//! Writes mail as `.eml` files if no SMTP server is configured.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::{files::FilesError, private};

/// Writes a mail file atomically. When the function returns, the file is on the disk.
pub(super) async fn put(folder: &Path, name: &str, message: Vec<u8>) -> Result<(), FilesError> {
    let (folder, file) = (folder.to_owned(), file(folder, name));
    let written = tokio::task::spawn_blocking(move || {
        private::create_dir_all(&folder)?;
        let mut staged = file.clone();
        staged.set_extension(format!("{}.part", uuid::Uuid::new_v4()));
        let written = private::create_new(&staged).and_then(|mut handle| {
            handle.write_all(&message)?;
            handle.sync_all()?;
            std::fs::rename(&staged, &file)?;
            std::fs::File::open(&folder)?.sync_all()
        });
        if written.is_err() {
            // Remove only the file that this call created.
            let _ = std::fs::remove_file(&staged);
        }
        written
    });
    let written = written
        .await
        .map_err(|e| FilesError::Other(e.to_string()))?;
    written.map_err(|e| FilesError::from_io(&e))
}

/// The recipients of a mail that was written to the folder. `None` if it was not written.
pub(super) async fn recipients(
    folder: &Path,
    name: &str,
) -> Result<Option<Vec<String>>, FilesError> {
    match tokio::fs::read(file(folder, name)).await {
        Ok(mail) => Ok(Some(super::message::recipients(&mail))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FilesError::from_io(&e)),
    }
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{}.eml", &name[..40]))
}
