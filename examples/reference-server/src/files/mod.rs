//! Everything that the server keeps in files, over `object_store`.
//!
//! Three rooms, and no way from one into another:
//!
//! - `documents/<organization>/<execution>/<node>/<name>`: what steps made. A workflow may name such a
//!   document, so whatever names one is checked: the organization, the form of the path, and the
//!   content against its SHA-256.
//! - `saved/<organization>/<folder>/<execution>/<node>/<name>`: where `save-file` puts documents for people.
//! - `records/<kind>/<name>.json`: the server's own notes (sent mails, envelopes, the outbox). Nothing
//!   that comes from outside ever becomes part of such a path.
//!
//! Every write is atomic, and synced to the disk or acknowledged by the bucket before it counts as done.

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

/// The largest document that is kept and read: mails and pages are made of whole documents.
const MAX_DOCUMENT: u64 = 32 * 1024 * 1024;

/// Where files are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    store: Arc<dyn ObjectStore>,
    /// What URLs of files begin with.
    base: Url,
    /// The folder, where it is one of this machine.
    root: Option<PathBuf>,
}

/// Which step of which run a document belongs to.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The run.
    pub execution_id: ExecutionId,
    /// The step's node.
    pub node_id: NodeId,
}

/// A file that was put where people look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Where it is.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Files {
    /// Files in a folder of this machine, which is made where there is none.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be made or opened.
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

    /// Files where a URL says: `file:///absolute/path`, or with the feature `s3` also
    /// `s3://bucket/prefix`, for which the environment has the usual `AWS_…` variables.
    ///
    /// # Errors
    ///
    /// [`FilesError::Unsupported`] for every other scheme; where the bucket's settings are wrong; else
    /// as [`Files::in_folder`].
    pub fn at_url(url: &Url) -> Result<Self, FilesError> {
        // It would be part of every saved file's URL.
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
        // Others' variables need not be UTF-8.
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

    /// Keeps a document that a step made. The same step writes over what it wrote before.
    ///
    /// # Errors
    ///
    /// [`FilesError::TooLarge`] where it could not be read again; else where it cannot be written.
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

    /// Keeps the signed form of a document. It keeps the title.
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

    /// The content of a document, which must be the organization's own and unchanged.
    ///
    /// # Errors
    ///
    /// [`FilesError::NotFound`] also where the document is another organization's;
    /// [`FilesError::Changed`] where the content is not what was kept.
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

    /// Puts a file where people look for it. The place follows from the step, so that a repeat writes
    /// the same file, and no other step or run writes over it, whatever its file is called.
    ///
    /// # Errors
    ///
    /// [`FilesError::BadFolder`] for a folder that leaves the organization's; else where it cannot be
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

    /// Whether a folder can be written, by writing to it: permissions, full disks and files in the
    /// folder's place show only then. Nothing is left behind, and a folder of this machine is not made.
    ///
    /// # Errors
    ///
    /// What stands in the way.
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
            // The nearest folder that there is decides whether the rest can be made.
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
            // Absent where it could not be made.
            let _ = std::fs::remove_file(&probe);
            written
        });
        let written = probed.await.map_err(|e| FilesError::Other(e.to_string()))?;
        written.map_err(|e| FilesError::from_io(&e))
    }

    /// Whether nothing is kept yet.
    ///
    /// # Errors
    ///
    /// Where that cannot be seen.
    pub async fn is_empty(&self) -> Result<bool, FilesError> {
        Ok(self.store.list(None).try_next().await?.is_none())
    }

    fn url_of(&self, path: &Path) -> String {
        let mut url = self.base.clone();
        // Of a URL without segments, such as `mailto:`, there are no files.
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
