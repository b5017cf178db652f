//! The server's file storage, over `object_store`.
//!
//! The storage has three areas, and no path leads from one area into another:
//!
//! - `documents/<organization>/<execution>/<node>/<name>`: documents that steps made. A workflow may name
//!   such a document, so a reference is always checked: the organization, the form of the path, and the
//!   content against its SHA-256.
//! - `saved/<organization>/<folder>/<execution>/<node>/<name>`: documents that `save-file` saved for people.
//! - `records/<kind>/<name>.json`: the server's own notes (sent mails, envelopes, the outbox). No part of
//!   such a path comes from outside.
//!
//! Every write is atomic. It counts as done once it is synced to the disk or acknowledged by the bucket.

mod document;
mod error;
mod names;
mod records;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use docg_core::ids::{ExecutionId, NodeId, OrganizationId};
use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem,
    path::Path,
};
#[cfg(feature = "s3")]
use object_store::{parse_url_opts, prefix::PrefixStore};
use sha2::{Digest, Sha256};
use url::Url;

pub use document::Document;
pub use error::FilesError;
use names::clean_filename;
pub use records::RecordKind;

/// The largest document that is stored and read, in bytes. Mails and pages need the whole document in memory.
const MAX_DOCUMENT: u64 = 32 * 1024 * 1024;

/// The file storage. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// The URL that the URLs of all files begin with.
    base: Url,
    /// The folder of the files. `None` if they are in a bucket.
    root: Option<PathBuf>,
}

/// The step of an execution that a document belongs to.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The step's node.
    pub node_id: NodeId,
}

/// A file that was saved for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The URL of the file.
    pub url: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

impl Files {
    /// Stores files in a folder of this machine, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// If the folder cannot be created or opened.
    pub fn in_folder(root: impl Into<PathBuf>) -> Result<Self, FilesError> {
        let root = root.into();
        crate::private::create_dir_all(&root).map_err(|e| FilesError::from_io(&e))?;
        let root = root.canonicalize().map_err(|e| FilesError::from_io(&e))?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let base = Url::from_directory_path(&root)
            .map_err(|()| FilesError::Other(format!("{} has no URL", root.display())))?;
        Ok(Self {
            store: Arc::new(store),
            base,
            root: Some(root),
        })
    }

    /// Stores files at a URL: `file:///absolute/path`, or with the feature `s3` also `s3://bucket/prefix`.
    /// The usual `AWS_…` variables have the settings of the bucket.
    ///
    /// # Errors
    ///
    /// [`FilesError::Unsupported`] for every other scheme. An error if the bucket's settings are wrong.
    /// Otherwise as [`Files::in_folder`].
    pub fn at_url(url: &Url) -> Result<Self, FilesError> {
        // Refuse secrets: they would be part of every saved file's URL.
        let has_secret = !url.username().is_empty() || url.password().is_some();
        if has_secret || url.query().is_some() {
            let text =
                "a URL of files has no user, password or query: keys come from AWS_… variables";
            return Err(FilesError::Other(text.to_owned()));
        }
        let unsupported = || FilesError::Unsupported(url.scheme().to_owned());
        match url.scheme() {
            "file" => Self::in_folder(url.to_file_path().map_err(|()| unsupported())?),
            #[cfg(feature = "s3")]
            "s3" => Self::in_bucket(url),
            _ => Err(unsupported()),
        }
    }

    #[cfg(feature = "s3")]
    fn in_bucket(url: &Url) -> Result<Self, FilesError> {
        // Skip variables that are not UTF-8: they are for other programs.
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str()?.to_ascii_lowercase();
            Some((name, value.into_string().ok()?)).filter(|(name, _)| name.starts_with("aws_"))
        });
        let (bucket, prefix) = parse_url_opts(url, settings)?;
        Ok(Self {
            store: Arc::new(PrefixStore::new(bucket, prefix)),
            base: url.clone(),
            root: None,
        })
    }

    /// Stores a document that a step made. If the step runs again, it overwrites its earlier document.
    ///
    /// # Errors
    ///
    /// [`FilesError::TooLarge`] if the content is too large to be read again. An error if it cannot be
    /// written.
    pub async fn put_document(
        &self,
        origin: &Origin,
        filename: &str,
        content: Bytes,
        language: Option<String>,
    ) -> Result<Document, FilesError> {
        let bytes = content.len() as u64;
        if bytes > MAX_DOCUMENT {
            return Err(FilesError::TooLarge(bytes));
        }
        let title = names::title_of(filename, "pdf");
        let filename = clean_filename(filename, "pdf");
        let document = Document {
            path: names::document_path(origin, &filename),
            filename,
            title,
            content_type: "application/pdf".to_owned(),
            bytes,
            sha256: hex::encode(Sha256::digest(&content)),
            language,
        };
        self.put(&Path::parse(&document.path)?, content, PutMode::Overwrite)
            .await?;
        Ok(document)
    }

    /// Stores the signed form of a document, with the title of the original.
    ///
    /// # Errors
    ///
    /// As [`put_document`](Self::put_document).
    pub async fn put_signed(
        &self,
        origin: &Origin,
        original: &Document,
        content: Bytes,
    ) -> Result<Document, FilesError> {
        let (filename, language) = (original.signed_filename(), original.language.clone());
        let signed = self
            .put_document(origin, &filename, content, language)
            .await?;
        Ok(Document {
            title: Some(original.title().to_owned()),
            ..signed
        })
    }

    /// Reads a document. It must belong to the organization and be unchanged.
    ///
    /// # Errors
    ///
    /// [`FilesError::NotFound`] also if the document belongs to another organization; [`FilesError::Changed`]
    /// if the content has changed since it was stored.
    pub async fn read_document(
        &self,
        organization: OrganizationId,
        document: &Document,
    ) -> Result<Bytes, FilesError> {
        if !names::is_document_of(&document.path, organization) {
            return Err(FilesError::NotFound(document.path.clone()));
        }
        let content = self.get(&Path::parse(&document.path)?).await?;
        if hex::encode(Sha256::digest(&content)) != document.sha256.to_ascii_lowercase() {
            return Err(FilesError::Changed(document.path.clone()));
        }
        Ok(content)
    }

    /// Saves a file for people. Its path contains the execution and the node. So a step that runs again
    /// overwrites its own file, and no other step overwrites it, even with the same file name.
    ///
    /// # Errors
    ///
    /// [`FilesError::BadFolder`] for a folder outside the organization's. An error if the file cannot be
    /// written.
    pub async fn save(
        &self,
        origin: &Origin,
        folder: &str,
        filename: &str,
        content: Bytes,
    ) -> Result<Saved, FilesError> {
        let folder = names::folder_path(origin.organization_id, folder)?;
        let (execution, node) = (origin.execution_id, &origin.node_id);
        let filename = clean_filename(filename, "pdf");
        let path = Path::parse(format!("{folder}/{execution}/{node}/{filename}"))?;
        let saved = Saved {
            url: self.url_of(&path),
            bytes: content.len() as u64,
            sha256: hex::encode(Sha256::digest(&content)),
        };
        self.put(&path, content, PutMode::Overwrite).await?;
        Ok(saved)
    }

    /// Checks that a folder can be written, by writing to it. Only a write reveals missing permissions, a
    /// full disk or a file in the folder's place. The test file is removed. If the folder is on this machine
    /// and missing, it is not created.
    ///
    /// # Errors
    ///
    /// The reason why the folder cannot be written.
    pub async fn probe_folder(
        &self,
        organization: OrganizationId,
        folder: &str,
    ) -> Result<(), FilesError> {
        let path = Path::parse(names::folder_path(organization, folder)?)?;
        let name = format!(".docg-probe-{}", uuid::Uuid::new_v4());
        let Some(root) = self.root.clone() else {
            let probe = path.join(name);
            self.put(&probe, Bytes::from_static(b"docg"), PutMode::Overwrite)
                .await?;
            return Ok(self.store.delete(&probe).await?);
        };
        let wanted = root.join(path.as_ref());
        let probed = tokio::task::spawn_blocking(move || {
            // The nearest existing folder decides whether the rest can be created.
            let existing = wanted
                .ancestors()
                .take_while(|path| path.starts_with(&root))
                .find(|path| path.exists())
                .unwrap_or(&root);
            let probe = existing.join(name);
            let written = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&probe)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"docg"));
            // Ignore the error: if the file could not be created, there is nothing to remove.
            let _ = std::fs::remove_file(&probe);
            written
        });
        let written = probed.await.map_err(|e| FilesError::Other(e.to_string()))?;
        written.map_err(|e| FilesError::from_io(&e))
    }

    /// True if nothing is stored yet.
    ///
    /// # Errors
    ///
    /// If the storage cannot be listed.
    pub async fn is_empty(&self) -> Result<bool, FilesError> {
        Ok(self.store.list(None).try_next().await?.is_none())
    }

    fn url_of(&self, path: &Path) -> String {
        let mut url = self.base.clone();
        // URLs without segments, such as `mailto:`, are rejected when `Files` is created.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.as_ref().split('/'));
        }
        url.into()
    }

    async fn put(&self, path: &Path, content: Bytes, mode: PutMode) -> Result<(), FilesError> {
        let options = PutOptions::from(mode);
        self.store
            .put_opts(path, PutPayload::from(content), options)
            .await?;
        Ok(())
    }

    async fn get(&self, path: &Path) -> Result<Bytes, FilesError> {
        let found = self.store.get(path).await?;
        if found.meta.size > MAX_DOCUMENT {
            return Err(FilesError::TooLarge(found.meta.size));
        }
        Ok(found.bytes().await?)
    }
}

#[cfg(test)]
mod tests;
