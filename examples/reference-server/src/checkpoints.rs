//! The last checkpoint of each organization's audit trail, kept beside the key that signs them. Who
//! removes the last checkpoints from the database leaves a trail that holds: here it is known that
//! there were more.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use docg_core::ids::OrganizationId;
use docg_store_postgres::{AuditTrust, CheckpointSummary};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file in the data directory.
const FILE: &str = "checkpoints.json";

/// Where the last checkpoints are noted.
#[derive(Debug, Clone)]
pub struct Checkpoints(PathBuf);

/// A checkpoint, as it is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    seq: u64,
    #[serde(with = "hex")]
    hash: [u8; 32],
}

impl Checkpoints {
    /// Those of the installation whose data directory this is.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Logs a checkpoint that was made, and notes it. Where it cannot be noted the one before stays,
    /// which verifies too.
    pub fn made(&self, checkpoint: &CheckpointSummary) {
        tracing::info!(
            organization_id = %checkpoint.organization_id,
            seq = checkpoint.seq,
            chains = checkpoint.chains,
            hash = hex::encode(checkpoint.hash),
            "a checkpoint of the audit trail was signed"
        );
        if let Err(e) = self.note(checkpoint) {
            tracing::warn!("{} cannot be written: {e}", self.0.display());
        }
    }

    /// Requires what is noted of the trails to be verified.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn required(&self, trust: AuditTrust) -> io::Result<AuditTrust> {
        let noted = self.read()?.into_iter();
        Ok(noted.fold(trust, |trust, (organization, noted)| {
            trust.checkpoint(organization, noted.seq, noted.hash)
        }))
    }

    /// Whose checkpoints are noted.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn organizations(&self) -> io::Result<Vec<OrganizationId>> {
        Ok(self.read()?.into_keys().collect())
    }

    fn read(&self) -> io::Result<BTreeMap<OrganizationId, Noted>> {
        match std::fs::read(&self.0) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(e),
        }
    }

    /// Other processes may note theirs at the same moment: a file is whole at all times, and a note
    /// that is lost leaves an older one.
    fn note(&self, made: &CheckpointSummary) -> io::Result<()> {
        let mut noted = self.read()?;
        let is_known = |noted: &Noted| noted.seq >= made.seq;
        if noted.get(&made.organization_id).is_some_and(is_known) {
            return Ok(());
        }
        let (seq, hash) = (made.seq, made.hash);
        noted.insert(made.organization_id, Noted { seq, hash });
        let staged = self.0.with_extension(format!("{}.part", Uuid::new_v4()));
        let written = std::fs::write(&staged, serde_json::to_vec_pretty(&noted)?)
            .and_then(|()| std::fs::rename(&staged, &self.0));
        if written.is_err() {
            // Nothing but what this call has made.
            let _ = std::fs::remove_file(&staged);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_checkpoint_of_each_organization_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(folder.path());
        assert_eq!(checkpoints.organizations().unwrap(), []);
        let (one, other) = (OrganizationId::new(), OrganizationId::new());
        for (organization_id, seq) in [(one, 1), (other, 7), (one, 3), (one, 2)] {
            checkpoints.made(&CheckpointSummary {
                organization_id,
                seq,
                chains: 1,
                hash: [seq as u8; 32],
            });
        }
        let noted = checkpoints.read().unwrap();
        let of = |organization| noted.get(organization).cloned();
        let expected = |seq: u8| {
            Some(Noted {
                seq: seq.into(),
                hash: [seq; 32],
            })
        };
        assert_eq!((of(&one), of(&other)), (expected(3), expected(7)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
