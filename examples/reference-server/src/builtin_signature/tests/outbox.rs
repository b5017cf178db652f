use std::{sync::Mutex, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use docg_core::signature::{ProviderUpdate, SignerFactKind, WebhookRequest};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::files::RecordKind;

/// A stand-in for docg's webhook that rejects the first deliveries and accepts all later ones.
struct Receiver {
    url: Url,
    taken: mpsc::UnboundedReceiver<WebhookRequest>,
}

struct Refusals {
    left: Mutex<u32>,
    taken: mpsc::UnboundedSender<WebhookRequest>,
}

async fn take(State(state): State<Arc<Refusals>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    {
        let mut left = state.left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return StatusCode::NOT_FOUND;
        }
    }
    let headers = headers.iter().map(|(name, value)| {
        (
            name.to_string(),
            value.to_str().unwrap_or_default().to_owned(),
        )
    });
    let request = WebhookRequest {
        headers: headers.collect(),
        body: body.to_vec(),
    };
    // Ignore an error: the test may have ended and dropped the receiving end of the channel.
    let _ = state.taken.send(request);
    StatusCode::OK
}

impl Receiver {
    async fn refusing_first(left: u32) -> Self {
        let (sender, taken) = mpsc::unbounded_channel();
        let state = Arc::new(Refusals {
            left: Mutex::new(left),
            taken: sender,
        });
        let app = Router::new().route("/hook", post(take)).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url: url.parse().unwrap(),
            taken,
        }
    }

    async fn next(&mut self, fixture: &Fixture) -> ProviderUpdate {
        let next = tokio::time::timeout(Duration::from_secs(30), self.taken.recv());
        let request = next.await.unwrap().unwrap();
        fixture.provider.read_webhook(&request).unwrap()
    }
}

fn start(fixture: &Fixture, receiver: &Receiver) -> CancellationToken {
    let stop = CancellationToken::new();
    let outbox = Outbox::new(fixture.desk.clone(), receiver.url.clone()).unwrap();
    tokio::spawn(outbox.run(stop.clone()));
    stop
}

/// Waits until the outbox is empty.
async fn drained(fixture: &Fixture) {
    let empty = async {
        while !fixture
            .desk
            .0
            .files
            .record_names(RecordKind::Outbox)
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), empty)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_signature_is_reported_until_it_is_taken() {
    let fixture = Fixture::new().await;
    let mut receiver = Receiver::refusing_first(3).await;
    let _stop = start(&fixture, &receiver);
    let envelope = fixture.ask(&[(ONE, None)]).await;
    fixture.sign(&envelope, ONE, "One", 1_000).await;
    fixture.desk.wake_outbox();
    let update = receiver.next(&fixture).await;
    assert_eq!(update.envelope_id.as_deref(), Some(envelope.as_str()));
    assert_eq!(update.facts.len(), 1);
    assert_eq!(update.facts[0].kind, SignerFactKind::Signed);
    assert_eq!(update.facts[0].email.as_deref(), Some(ONE));
    assert_eq!(update.facts[0].at, Timestamp::from_millis(1_000));
    drained(&fixture).await;
}

#[tokio::test]
async fn a_look_is_reported_before_the_signature_however_long_that_takes() {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(&[(ONE, None)]).await;
    let signer = link::SignerRef::new(&envelope, ONE);
    fixture.desk.announce_view(&signer).await.unwrap();
    let at = Timestamp::from_millis(500);
    fixture.desk.view(&signer, at).await.unwrap();
    fixture.sign(&envelope, ONE, "One", 1_000).await;
    let mut receiver = Receiver::refusing_first(3).await;
    let _stop = start(&fixture, &receiver);
    for kind in [SignerFactKind::Viewed, SignerFactKind::Signed] {
        assert_eq!(receiver.next(&fixture).await.facts[0].kind, kind);
    }
    drained(&fixture).await;
}

#[tokio::test]
async fn what_was_not_delivered_before_a_crash_is_delivered_after_it() {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(&[(ONE, None)]).await;
    fixture.sign(&envelope, ONE, "One", 1_000).await;
    // No outbox ran until now, as if the process had died after it recorded the decision.
    let mut receiver = Receiver::refusing_first(0).await;
    let _stop = start(&fixture, &receiver);
    let update = receiver.next(&fixture).await;
    assert_eq!(update.facts[0].kind, SignerFactKind::Signed);
    drained(&fixture).await;
}

#[tokio::test]
async fn what_was_announced_and_never_done_is_not_reported() {
    let fixture = Fixture::new().await;
    let envelope = fixture.ask(&[(ONE, None), (TWO, None)]).await;
    let signer = link::SignerRef::new(&envelope, ONE);
    let declined = envelope::DecisionKind::Declined;
    fixture
        .desk
        .announce_decision(&signer, declined)
        .await
        .unwrap();
    fixture.sign(&envelope, TWO, "Two", 2_000).await;
    let mut receiver = Receiver::refusing_first(0).await;
    let _stop = start(&fixture, &receiver);
    let update = receiver.next(&fixture).await;
    assert_eq!(update.facts[0].email.as_deref(), Some(TWO));
    // The refusal of signer one was announced but never recorded. Now this signer signs: only the signature
    // must be reported.
    fixture.sign(&envelope, ONE, "One", 3_000).await;
    fixture.desk.wake_outbox();
    let update = receiver.next(&fixture).await;
    assert_eq!(update.facts[0].email.as_deref(), Some(ONE));
    assert_eq!(update.facts[0].kind, SignerFactKind::Signed);
}

#[tokio::test]
async fn the_next_turn_is_written_to_when_the_last_one_is_over() {
    let fixture = Fixture::new().await;
    let mut receiver = Receiver::refusing_first(0).await;
    let _stop = start(&fixture, &receiver);
    let envelope = fixture.ask(&[(ONE, Some(1)), (TWO, Some(2))]).await;
    assert_eq!(fixture.receivers(), [ONE]);
    fixture.sign(&envelope, ONE, "One", 1_000).await;
    fixture.desk.wake_outbox();
    receiver.next(&fixture).await;
    drained(&fixture).await;
    assert_eq!(fixture.receivers(), [ONE, TWO]);
}

#[tokio::test]
async fn a_reminder_waits_for_its_time() {
    let fixture = Fixture::new().await;
    let mut request = fixture.request(&[(ONE, None)]);
    request.remind_every_ms = Some(3_600_000);
    let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
    let names = fixture
        .desk
        .0
        .files
        .record_names(RecordKind::Outbox)
        .await
        .unwrap();
    let signer = link::SignerRef::new(&envelope, ONE);
    assert_eq!(names, [format!("{}.remind", signer.record_name())]);
    assert_eq!(fixture.mails().len(), 1);
}

/// Waits until the outbox has planned the reminder with this number. Returns its entry.
async fn reminder(fixture: &Fixture, name: &str, number: u64) -> Value {
    let planned = async {
        loop {
            let files = &fixture.desk.0.files;
            let entry: Option<Value> = files.record(RecordKind::Outbox, name).await.unwrap();
            match entry {
                Some(entry) if entry["what"]["number"] == number => return entry,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let planned = tokio::time::timeout(Duration::from_secs(30), planned);
    planned.await.unwrap()
}

#[tokio::test]
async fn who_has_not_signed_is_reminded_again_and_again_and_nobody_else() {
    let fixture = Fixture::new().await;
    let receiver = Receiver::refusing_first(0).await;
    let mut request = fixture.request(&[(ONE, None)]);
    request.remind_every_ms = Some(3_600_000);
    let envelope = fixture.provider.create(request).await.unwrap().envelope_id;
    let signer = link::SignerRef::new(&envelope, ONE);
    let name = format!("{}.remind", signer.record_name());
    // Make the reminder due, as if an hour had passed, and start a new outbox, which checks all entries at
    // once.
    let come_due = async |mut entry: Value| {
        entry["due_at"] = entry["written_at"].clone();
        let files = &fixture.desk.0.files;
        let put = files.put_record(RecordKind::Outbox, &name, &entry).await;
        put.unwrap();
        start(&fixture, &receiver)
    };
    for number in 1..=2 {
        let stop = come_due(reminder(&fixture, &name, number).await).await;
        let next = reminder(&fixture, &name, number + 1).await;
        stop.cancel();
        assert_ne!(next["due_at"], next["written_at"], "it waits in its turn");
    }
    let token = fixture.token(&envelope, ONE);
    let mails = fixture.mails();
    assert_eq!(mails.len(), 3);
    for (to, text) in &mails {
        assert!(to == ONE && text.contains(&token), "{text}");
    }
    let reminders = mails.iter().filter(|(_, text)| text.contains("Reminder"));
    assert_eq!(reminders.count(), 2);

    fixture.sign(&envelope, ONE, "One", 1_000).await;
    let _stop = come_due(reminder(&fixture, &name, 3).await).await;
    drained(&fixture).await;
    assert_eq!(fixture.mails().len(), 3, "there is nothing to remind of");
}
