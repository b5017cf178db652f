//! Signs checkpoints of the organizations' audit trails at intervals. The last checkpoint of each
//! organization is noted in a file beside the signing key. If somebody removes the last checkpoints from the
//! database, the rest of the trail still verifies; only the note shows that checkpoints are missing.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use docg_core::{ids::OrganizationId, time::Timestamp};
use docg_store_postgres::{AuditTrust, CheckpointKey, CheckpointSummary, PgStore};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The name of the file, in the data directory, with the noted checkpoints.
const FILE: &str = "checkpoints.json";

/// The time from the server's start to the first round, which signs a checkpoint of each audit trail.
const FIRST: Duration = Duration::from_secs(10);

/// The pause between two rounds that sign checkpoints.
const PERIOD: Duration = Duration::from_secs(600);

/// The longest duration of the last round, which runs when the server stops.
pub(crate) const LAST: Duration = Duration::from_secs(3);

/// The pause before a failed round is retried. It doubles with each failure in a row, up to `PERIOD`.
const RETRY: Duration = Duration::from_secs(60);

/// The file with the last checkpoint of each organization.
#[derive(Debug, Clone)]
pub struct Checkpoints(PathBuf);

/// A checkpoint that is noted in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    seq: u64,
    #[serde(with = "hex")]
    hash: [u8; 32],
}

impl Checkpoints {
    /// The checkpoints of the installation with this data directory.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Signs and notes checkpoints of all audit trails at intervals, and a last time when `stop` is
    /// cancelled.
    pub async fn keep(self, database: Arc<PgStore>, key: CheckpointKey, stop: CancellationToken) {
        let sign = || self.sign_all(&database, &key);
        stop.run_until_cancelled(repeat(sign)).await;
        if tokio::time::timeout(LAST, sign()).await.is_err() {
            tracing::warn!("the last audit rows get their checkpoint after the next start");
        }
    }

    /// Signs all audit rows that no checkpoint covers yet. Returns true if it succeeded for all
    /// organizations.
    async fn sign_all(&self, database: &PgStore, key: &CheckpointKey) -> bool {
        let note = |made| self.made(&made);
        match database
            .checkpoint_audits(key, Timestamp::now(), note)
            .await
        {
            Ok(failed) => {
                for (organization_id, error) in &failed {
                    tracing::warn!(
                        %organization_id,
                        "a checkpoint of the audit trail will be made later: {error}"
                    );
                }
                failed.is_empty()
            }
            Err(error) => {
                tracing::warn!("the audit trail's checkpoints will be made later: {error}");
                false
            }
        }
    }

    /// Logs and notes a new checkpoint. If the note cannot be written, the older note stays, and the trail
    /// still verifies with it.
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

    /// Adds the noted checkpoints to the checkpoints that a verification requires.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn required(&self, trust: AuditTrust) -> io::Result<AuditTrust> {
        let noted = self.read()?.into_iter();
        Ok(noted.fold(trust, |trust, (organization, noted)| {
            trust.checkpoint(organization, noted.seq, noted.hash)
        }))
    }

    /// The organizations that have a noted checkpoint.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
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

    /// Notes a checkpoint, unless a later one is noted. Other processes may write at the same moment: the
    /// file is replaced atomically, so a note may be lost, but then an older note stays.
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
            // Remove only the file that this call created.
            let _ = std::fs::remove_file(&staged);
        }
        written
    }
}

/// Runs a round after `FIRST`, then one each `PERIOD`. After a round that failed in part, the next round
/// comes sooner.
async fn repeat<F: Future<Output = bool>>(mut round: impl FnMut() -> F) {
    let (mut failures, mut pause) = (0, FIRST);
    loop {
        tokio::time::sleep(pause).await;
        failures = if round().await { 0 } else { failures + 1 };
        pause = wait(failures);
    }
}

/// The pause after this many failed rounds in a row.
fn wait(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => PERIOD,
        Some(before) => RETRY
            .saturating_mul(2_u32.saturating_pow(before))
            .min(PERIOD),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::Instant;

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

    #[tokio::test(start_paused = true)]
    async fn rounds_begin_soon_and_one_that_failed_comes_again_before_the_period() {
        let begin = Instant::now();
        let mut rounds = Vec::new();
        let scripted = repeat(|| {
            rounds.push(begin.elapsed().as_secs());
            // The second and the third round fail, and every round from the fifth on.
            ready(![2, 3].contains(&rounds.len()) && rounds.len() < 5)
        });
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, scripted).await.unwrap_err();
        let between: Vec<u64> = rounds.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(between, [600, 60, 120, 600, 60, 120, 240, 480, 600, 600]);
        assert_eq!(rounds[0], 10);
        assert_eq!(wait(u32::MAX), PERIOD);
    }
}
