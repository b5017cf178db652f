//! The server's own notes, each a JSON file in the file storage.

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Serialize, de::DeserializeOwned};

use super::{Files, FilesError};

/// The subject of a note. The notes of each kind are in a folder of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A mail is about to be handed to the mail server.
    MailIntent,
    /// The mail server accepted a mail.
    MailSent,
    /// A request for signatures.
    Envelope,
    /// A signer has looked at the document.
    Viewed,
    /// A signer has decided.
    Decision,
    /// A pending delivery of the built-in signature provider.
    Outbox,
    /// The hash of a template when an organization last used it.
    Template,
    /// A test note, to check that a name can be written only once.
    Probe,
}

impl RecordKind {
    const fn folder(self) -> &'static str {
        match self {
            Self::MailIntent => "mail-intents",
            Self::MailSent => "sent",
            Self::Envelope => "envelopes",
            Self::Viewed => "viewed",
            Self::Decision => "decisions",
            Self::Outbox => "outbox",
            Self::Template => "templates",
            Self::Probe => "probes",
        }
    }

    /// Builds the path of a note. The program makes names from hashes and numbers; any other name is a bug.
    fn path(self, name: &str) -> Result<Path, FilesError> {
        let plain = !name.is_empty()
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain {
            return Err(FilesError::NotFound(name.to_owned()));
        }
        Ok(Path::parse(format!(
            "records/{}/{name}.json",
            self.folder()
        ))?)
    }
}

impl Files {
    /// Writes a note. It replaces an older note of that name.
    ///
    /// # Errors
    ///
    /// If the note cannot be written.
    pub async fn put_record<T: Serialize + Sync>(
        &self,
        kind: RecordKind,
        name: &str,
        record: &T,
    ) -> Result<(), FilesError> {
        self.put(&kind.path(name)?, json(record)?, PutMode::Overwrite)
            .await
    }

    /// Writes a note, unless a note of that name exists. Returns true if this note was written.
    ///
    /// # Errors
    ///
    /// If the note cannot be written.
    pub async fn create_record<T: Serialize + Sync>(
        &self,
        kind: RecordKind,
        name: &str,
        record: &T,
    ) -> Result<bool, FilesError> {
        let path = kind.path(name)?;
        let put = self
            .store
            .put_opts(&path, json(record)?.into(), PutMode::Create.into());
        match put.await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns true if [`create_record`](Self::create_record) cannot overwrite a note in this storage.
    /// Signers' decisions rely on that: only the first one counts. The test note is removed.
    ///
    /// # Errors
    ///
    /// If the test note cannot be written or removed.
    pub async fn probe_writes_once(&self) -> Result<bool, FilesError> {
        let name = uuid::Uuid::new_v4().to_string();
        self.create_record(RecordKind::Probe, &name, &"first")
            .await?;
        let second = self
            .create_record(RecordKind::Probe, &name, &"second")
            .await;
        self.delete_record(RecordKind::Probe, &name).await?;
        Ok(!second?)
    }

    /// Reads a note.
    ///
    /// # Errors
    ///
    /// If the note exists and cannot be read.
    pub async fn record<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        name: &str,
    ) -> Result<Option<T>, FilesError> {
        match self.get(&kind.path(name)?).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| FilesError::Other(format!("record {name}: {e}"))),
            Err(FilesError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a note. A missing note is no error.
    ///
    /// # Errors
    ///
    /// If the note exists and cannot be removed.
    pub async fn delete_record(&self, kind: RecordKind, name: &str) -> Result<(), FilesError> {
        match self.store.delete(&kind.path(name)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The names of all notes of a kind, in alphabetical order.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub async fn record_names(&self, kind: RecordKind) -> Result<Vec<String>, FilesError> {
        let folder = Path::parse(format!("records/{}", kind.folder()))?;
        let entries: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        let mut names: Vec<String> = entries
            .iter()
            .filter_map(|entry| entry.location.filename()?.strip_suffix(".json"))
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn json<T: Serialize>(record: &T) -> Result<bytes::Bytes, FilesError> {
    serde_json::to_vec(record)
        .map(Into::into)
        .map_err(|e| FilesError::Other(e.to_string()))
}
