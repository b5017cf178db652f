//! Pending deliveries: reports to docg, mails to signers whose turn has come, and reminders.
//!
//! An entry is written before the fact that it reports is recorded, and removed once the receiver has
//! answered. So a crash at any point loses no delivery. If the fact is never recorded, the entry is dropped.

use std::{collections::HashMap, time::Duration};

use docg_core::{
    signature::{NewSigner, RequestStatus, SHORTEST_REMINDING_MS},
    time::Timestamp,
};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Desk,
    envelope::{DecisionKind, Envelope},
    invitation::Occasion,
    link::SignerRef,
    webhook::{self, Report},
};
use crate::files::{FilesError, RecordKind};

/// The interval at which the outbox looks for entries without being woken: other processes write entries too.
const POLL: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time after which an undelivered entry is dropped: nobody waits for the delivery any more.
const GIVE_UP_MS: u64 = 7 * 24 * 3_600_000;
/// The time after which an entry is dropped if the fact that it announces is not recorded.
const GRACE_MS: u64 = 60_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    envelope: String,
    signer: String,
    what: What,
    /// The earliest time of the delivery.
    due_at: Timestamp,
    written_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum What {
    Viewed,
    Signed,
    Declined,
    Invite,
    Remind { number: u64, every_ms: u64 },
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Viewed => "viewed",
            Self::Signed => "signed",
            Self::Declined => "declined",
            Self::Invite => "invite",
            Self::Remind { .. } => "remind",
        }
    }
}

impl Desk {
    pub(super) async fn announce_view(&self, signer: &SignerRef) -> Result<(), FilesError> {
        self.post(signer, What::Viewed, 0).await
    }

    pub(super) async fn announce_decision(
        &self,
        signer: &SignerRef,
        kind: DecisionKind,
    ) -> Result<(), FilesError> {
        let what = match kind {
            DecisionKind::Signed => What::Signed,
            DecisionKind::Declined => What::Declined,
        };
        self.post(signer, what, 0).await
    }

    /// Wakes the outbox. Called once an announced fact is recorded, so that the outbox reports it at once.
    pub(super) fn wake_outbox(&self) {
        self.0.posted.notify_one();
    }

    pub(super) async fn plan_reminder(
        &self,
        envelope: &Envelope,
        signer: &NewSigner,
    ) -> Result<(), FilesError> {
        let Some(every_ms) = envelope.remind_every_ms else {
            return Ok(());
        };
        let every_ms = every_ms.max(SHORTEST_REMINDING_MS);
        let signer = SignerRef::new(&envelope.id, &signer.email);
        let what = What::Remind {
            number: 1,
            every_ms,
        };
        let (name, entry) = entry(&signer, what, every_ms);
        // A reminder that is already planned stays as it is.
        let files = &self.0.files;
        files
            .create_record(RecordKind::Outbox, &name, &entry)
            .await
            .map(|_| ())
    }

    async fn post(&self, signer: &SignerRef, what: What, in_ms: u64) -> Result<(), FilesError> {
        let (name, entry) = entry(signer, what, in_ms);
        self.0
            .files
            .put_record(RecordKind::Outbox, &name, &entry)
            .await
    }
}

fn entry(signer: &SignerRef, what: What, in_ms: u64) -> (String, Entry) {
    let now = Timestamp::now();
    let entry = Entry {
        envelope: signer.envelope.clone(),
        signer: signer.signer.clone(),
        what,
        due_at: now.plus_millis(in_ms),
        written_at: now,
    };
    (format!("{}.{}", signer.record_name(), what.name()), entry)
}

/// Delivers the outbox's entries, in the process that serves HTTP.
pub struct Outbox {
    desk: Desk,
    target: Url,
    client: reqwest::Client,
    /// Entries to skip until a time: reminders that are not due, and failed deliveries, with the length of
    /// their last pause. After a restart every due entry is tried at once.
    paused: HashMap<String, (Duration, Instant)>,
}

/// The fate of an entry after its delivery.
enum Verdict {
    Remove,
    Keep,
}

impl Outbox {
    /// Creates an outbox that reports to `target`, docg's webhook for this provider.
    ///
    /// # Errors
    ///
    /// If the HTTP client cannot be created.
    pub fn new(desk: Desk, target: Url) -> Result<Self, reqwest::Error> {
        crate::tls::prepare();
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(15))
            .build()?;
        let paused = HashMap::new();
        Ok(Self {
            desk,
            target,
            client,
            paused,
        })
    }

    /// Delivers entries until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let desk = self.desk.clone();
        loop {
            let pause = match self.work(&stop).await {
                Ok(pause) => pause,
                Err(e) => {
                    tracing::warn!("the outbox of the built-in signatures cannot be read: {e}");
                    POLL
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = desk.0.posted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Delivers due entries. Returns the time until the next check.
    async fn work(&mut self, stop: &CancellationToken) -> Result<Duration, FilesError> {
        let mut names = self.desk.0.files.record_names(RecordKind::Outbox).await?;
        self.paused
            .retain(|name, _| names.binary_search(name).is_ok());
        // Deliver views first: the last signature ends the execution's wait, and a view that is reported
        // after that signature comes too late.
        names.sort_by_key(|name| !name.ends_with(What::Viewed.name()));
        let mut next = POLL;
        for name in names {
            if stop.is_cancelled() {
                break;
            }
            let paused = self
                .paused
                .get(&name)
                .map(|(_, until)| until.duration_since(Instant::now()));
            if let Some(left) = paused.filter(|left| !left.is_zero()) {
                next = next.min(left);
                continue;
            }
            let now = Timestamp::now();
            let files = self.desk.0.files.clone();
            let entry: Option<Entry> = match files.record(RecordKind::Outbox, &name).await {
                Ok(entry) => entry,
                // An unreadable entry must not hold up the other entries.
                Err(e) => {
                    tracing::warn!(name, "an entry of the outbox cannot be read: {e}");
                    self.pause(&name);
                    continue;
                }
            };
            let Some(entry) = entry else { continue };
            if entry.due_at > now {
                // Check the entry again within a minute, even if it is due much later: the clock may be set.
                let left = Duration::from_millis(entry.due_at.millis_since(now)).min(LONGEST_PAUSE);
                self.paused
                    .insert(name, (Duration::ZERO, Instant::now() + left));
                next = next.min(left);
                continue;
            }
            let given_up = now.millis_since(entry.due_at) > GIVE_UP_MS;
            match self.deliver(&name, &entry).await {
                Ok(Verdict::Remove) => {
                    files.delete_record(RecordKind::Outbox, &name).await?;
                    self.paused.remove(&name);
                }
                Ok(Verdict::Keep) => {
                    self.paused.remove(&name);
                }
                Err(why) if given_up => {
                    tracing::error!(name, "given up after a week: {why}");
                    files.delete_record(RecordKind::Outbox, &name).await?;
                }
                Err(why) => {
                    let pause = self.pause(&name);
                    tracing::debug!(name, ?pause, "will be delivered again: {why}");
                    next = next.min(pause);
                }
            }
        }
        Ok(next.max(Duration::from_millis(10)))
    }

    fn pause(&mut self, name: &str) -> Duration {
        let before = self.paused.get(name).map(|(pause, _)| *pause);
        let before = before.filter(|pause| !pause.is_zero());
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.paused
            .insert(name.to_owned(), (pause, Instant::now() + pause));
        pause
    }

    async fn deliver(&self, name: &str, entry: &Entry) -> Result<Verdict, String> {
        let text = |e: FilesError| e.to_string();
        let desk = &self.desk;
        let Some(envelope) = desk.envelope(&entry.envelope).await.map_err(text)? else {
            return Ok(Verdict::Remove);
        };
        let signer = SignerRef {
            envelope: entry.envelope.clone(),
            signer: entry.signer.clone(),
        };
        let Some(person) = envelope.signer(&signer).cloned() else {
            return Ok(Verdict::Remove);
        };
        let decision = desk.decision(&signer).await.map_err(text)?;
        let (at, reason) = match entry.what {
            What::Invite | What::Remind { .. } => {
                return self
                    .write(entry, &envelope, &person, decision.is_some())
                    .await;
            }
            What::Viewed => (desk.viewed_at(&signer).await.map_err(text)?, None),
            What::Signed | What::Declined => {
                let (earlier, _) = self::entry(&signer, What::Viewed, 0);
                let look: Option<Entry> = desk
                    .0
                    .files
                    .record(RecordKind::Outbox, &earlier)
                    .await
                    .map_err(text)?;
                if look.is_some() {
                    return Err("the look before it is not delivered yet".to_owned());
                }
                let wanted = match entry.what {
                    What::Signed => DecisionKind::Signed,
                    _ => DecisionKind::Declined,
                };
                match decision.filter(|decision| decision.kind == wanted) {
                    Some(decision) => (Some(decision.at), decision.reason),
                    None => (None, None),
                }
            }
        };
        let Some(at) = at else {
            // The entry announces a fact that is not recorded yet, or never will be.
            let old = Timestamp::now().millis_since(entry.written_at) > GRACE_MS;
            return if old {
                Ok(Verdict::Remove)
            } else {
                Err("not done yet".to_owned())
            };
        };
        let report = Report {
            event: format!("signer.{}", entry.what.name()),
            delivery_id: name.to_owned(),
            envelope_id: envelope.id.clone(),
            signer_email: person.email,
            at,
            reason,
        };
        self.report(&report).await?;
        if entry.what == What::Signed {
            self.invite_next(&envelope).await.map_err(text)?;
        }
        Ok(Verdict::Remove)
    }

    async fn report(&self, report: &Report) -> Result<(), String> {
        let body = serde_json::to_vec(report).map_err(|e| e.to_string())?;
        let signature = webhook::signature(&self.desk.0.secret, &body);
        let request = self
            .client
            .post(self.target.clone())
            .header("content-type", "application/json")
            .header(webhook::HEADER, signature)
            .body(body);
        let response = request.send().await.map_err(|e| e.to_string())?;
        // A 404 means that docg has not stored the waiting execution yet, or has lost it. It is retried too.
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("docg answered {status}")),
        }
    }

    /// Invites the signers whose turn comes after a signature.
    async fn invite_next(&self, envelope: &Envelope) -> Result<(), FilesError> {
        let decisions = self.desk.decisions(envelope).await?;
        if decisions.any_declined() {
            return Ok(());
        }
        for signer in envelope.due(&decisions) {
            // A signer who was invited before gets no second mail, because it would have the same key.
            let signer = SignerRef::new(&envelope.id, &signer.email);
            self.desk.post(&signer, What::Invite, 0).await?;
        }
        self.desk.wake_outbox();
        Ok(())
    }

    /// Sends a mail to a signer. If the mail's outcome is unknown, reports that to docg.
    async fn send(
        &self,
        envelope: &Envelope,
        person: &NewSigner,
        occasion: Occasion,
    ) -> Result<(), String> {
        let written = self.desk.write_to(envelope, person, occasion).await;
        if written.map_err(|e| e.to_string())? {
            return Ok(());
        }
        let told = self.desk.report_unconfirmed(envelope, person).await;
        told.map_err(|e| e.to_string())
    }

    async fn write(
        &self,
        entry: &Entry,
        envelope: &Envelope,
        person: &NewSigner,
        decided: bool,
    ) -> Result<Verdict, String> {
        let text = |e: FilesError| e.to_string();
        let decisions = self.desk.decisions(envelope).await.map_err(text)?;
        let status = self.desk.request_status(envelope).await;
        let status = status.map_err(|e| e.to_string())?;
        let ended = status.is_some_and(|status| status != RequestStatus::Signing);
        let expired = envelope.is_expired(Timestamp::now());
        if decided || ended || expired || decisions.any_declined() {
            return Ok(Verdict::Remove);
        }
        let What::Remind { number, every_ms } = entry.what else {
            self.send(envelope, person, Occasion::Invitation).await?;
            self.desk
                .plan_reminder(envelope, person)
                .await
                .map_err(text)?;
            return Ok(Verdict::Remove);
        };
        let occasion = Occasion::Reminder(number);
        self.send(envelope, person, occasion).await?;
        let signer = SignerRef::new(&envelope.id, &person.email);
        let next = What::Remind {
            number: number + 1,
            every_ms,
        };
        // The entry of the next reminder has the same name, so it replaces the entry of this reminder.
        self.desk
            .post(&signer, next, every_ms)
            .await
            .map_err(text)?;
        Ok(Verdict::Keep)
    }
}
