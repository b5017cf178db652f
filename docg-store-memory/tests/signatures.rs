//! Open signature requests, looked after by a clock that is moved by hand: asked about, reminded of, given
//! up, withdrawn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use docg_core::{
    engine::{ControlAnswer, ControlRequest, Workers},
    event::{Event, EventData},
    ids::SignatureRequestId,
    prelude::*,
    query::ExecutionRecord,
    run::SignatureState,
    signature::{
        Envelope, EnvelopeRequest, ProviderError, ProviderUpdate, SignatureProvider,
        SignatureRequest, SignerFactKind, WebhookError, WebhookRequest,
    },
    time::{Clock, ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

const ONE: &str = "one@example.com";
const TWO: &str = "two@example.com";
const MINUTE: Duration = Duration::from_secs(60);
/// Nothing takes longer, on however slow a machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// How often the provider was called for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    asked: u32,
    reminded: u32,
    withdrawn: u32,
}

/// What the provider answers when it is asked; `None` never ends.
type Answer = Option<Result<Vec<SignerFact>, ProviderError>>;

/// A provider whose webhooks name an envelope, which somebody has looked at.
#[derive(Default)]
struct Desk {
    answers: Mutex<VecDeque<Answer>>,
    withdrawals: Mutex<VecDeque<ProviderError>>,
    calls: watch::Sender<Calls>,
}

#[async_trait]
impl SignatureProvider for Desk {
    fn name(&self) -> &str {
        "desk"
    }
    async fn create(&self, request: EnvelopeRequest) -> Result<Envelope, ProviderError> {
        Ok(Envelope::new(request.idempotency_key))
    }
    async fn find(&self, _: &EnvelopeRequest) -> Result<Option<Envelope>, ProviderError> {
        Ok(None)
    }
    async fn signed_document(&self, request: &SignatureRequest) -> Result<Value, ProviderError> {
        Ok(request.file.clone())
    }
    async fn status(&self, request: &SignatureRequest) -> Result<Vec<SignerFact>, ProviderError> {
        assert_eq!(request.details, json!({"drawer": 3}), "as the step gave it");
        self.calls.send_modify(|calls| calls.asked += 1);
        let answer = self.answers.lock().expect("not poisoned").pop_front();
        match answer {
            Some(Some(answer)) => answer,
            Some(None) => std::future::pending().await,
            None => Ok(Vec::new()),
        }
    }
    async fn remind(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        self.calls.send_modify(|calls| calls.reminded += 1);
        Ok(())
    }
    async fn cancel(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        self.calls.send_modify(|calls| calls.withdrawn += 1);
        let failure = self.withdrawals.lock().expect("not poisoned").pop_front();
        failure.map_or(Ok(()), Err)
    }
    fn reminds_itself(&self) -> bool {
        false
    }
    fn read_webhook(&self, webhook: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        let envelope = String::from_utf8_lossy(&webhook.body).into_owned();
        Ok(ProviderUpdate {
            dedupe_key: format!("{envelope}/viewed"),
            envelope_id: Some(envelope),
            facts: vec![SignerFact {
                email: Some(ONE.to_owned()),
                kind: SignerFactKind::Viewed,
                at: Timestamp::from_millis(1_700_000_000_000),
                reason: None,
            }],
        })
    }
}

struct World {
    engine: Engine,
    clock: Arc<ManualClock>,
    desk: Arc<Desk>,
    organization: OrganizationId,
    execution: ExecutionId,
    _workers: Workers,
}

impl World {
    /// A run that waits for two signatures.
    async fn waiting(
        change: impl Fn(NewSignatureRequest, Timestamp) -> NewSignatureRequest + Send + Sync + 'static,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_700_000_000_000)));
        let desk = Arc::new(Desk::default());
        let spec = NodeSpec::new("sign", Phase::Signature);
        let sign = effect(spec, move |context, _: Value| {
            let signers = [NewSigner::new(ONE), NewSigner::new(TWO)];
            let request = NewSignatureRequest::new("desk", context.idempotency_key(), signers);
            let request = request.details(json!({"drawer": 3}));
            let request = change(request, context.started_at);
            async { Ok(StepOutcome::Wait(Wait::Signatures(request))) }
        });
        let engine = Engine::builder(
            Arc::new(MemoryStore::default()),
            Arc::new(MemoryBus::default()),
        )
        .step(sign)
        .signature_provider(Arc::clone(&desk) as _)
        .clock(Arc::clone(&clock) as _)
        .options(|options| options.signature_timeout = Duration::from_millis(200))
        .build();
        let workers = engine
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
        let nodes = json!([{"id": "sign", "type": "sign"}]);
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}));
        let draft = draft.expect("a readable definition");
        let put = engine.put_workflow(organization, workflow, draft, None);
        put.await.expect("a valid definition");
        let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
        let started = engine.start(request).await.expect("accepted");
        let world = Self {
            engine,
            clock,
            desk,
            organization,
            execution: started.record.execution.id,
            _workers: workers,
        };
        let requested = |event: &Event| matches!(event.data, EventData::SignatureRequested { .. });
        world.until(requested).await;
        world
    }

    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut queue = self.desk.answers.lock().expect("not poisoned");
        queue.extend(answers);
    }

    async fn called(&self, fits: impl Fn(&Calls) -> bool) -> Calls {
        let mut calls = self.desk.calls.subscribe();
        let called = tokio::time::timeout(DEADLINE, calls.wait_for(fits)).await;
        *called.expect("in time").expect("the desk is there")
    }

    async fn until(&self, fits: impl Fn(&Event) -> bool) {
        let feed = self.engine.feed(self.organization, self.execution, 0);
        let mut feed = feed.await.expect("a feed");
        let reading = async {
            while let Some(event) = feed.next().await {
                if fits(&event.expect("readable")) {
                    return;
                }
            }
            panic!("the run ended before");
        };
        tokio::time::timeout(DEADLINE, reading)
            .await
            .expect("it happens");
    }

    async fn until_completed(&self) {
        self.until(|event| matches!(event.data, EventData::Completed { .. }))
            .await;
    }

    async fn until_failed(&self) -> ExecutionRecord {
        self.until(|event| matches!(event.data, EventData::Failed { .. }))
            .await;
        self.record().await
    }

    async fn record(&self) -> ExecutionRecord {
        let record = self.engine.execution(self.organization, self.execution);
        record.await.expect("stored")
    }

    /// Waits until the run rests again, after what it was woken for.
    async fn until_wakes_at(&self, at: Timestamp) {
        let resting = async {
            while self.record().await.execution.wake_at != Some(at) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, resting)
            .await
            .expect("it rests");
    }

    async fn report(&self, facts: Vec<SignerFact>) {
        let waiting = self.record().await.execution.waiting_for;
        let id = &waiting.expect("it waits").detail["signature_request_id"];
        let id: SignatureRequestId = id.as_str().and_then(|id| id.parse().ok()).expect("an id");
        let report =
            self.engine
                .report_signers(self.organization, id, facts, Actor::webhook("desk"));
        report.await.expect("taken");
    }

    fn signed(&self) -> Vec<SignerFact> {
        [ONE, TWO]
            .map(|email| SignerFact::signed(email, self.clock.now()))
            .into()
    }

    async fn code(&self) -> String {
        let error = self.record().await.execution.error;
        error.expect("an error").code.into_owned()
    }
}

#[tokio::test]
async fn signatures_that_no_webhook_tells_of_are_found_by_asking() {
    let world = World::waiting(|request, _| request).await;
    let one = vec![SignerFact::signed(ONE, world.clock.now())];
    let down = ProviderError::Unavailable("down".to_owned());
    world.answers([Some(Err(down)), Some(Ok(one)), Some(Ok(world.signed()))]);
    world.clock.advance(5 * MINUTE);
    world.called(|calls| calls.asked == 1).await;
    // It did not answer, so it is asked again soon; it did, so it is asked within the hour.
    world.until_wakes_at(world.clock.now() + MINUTE).await;
    world.clock.advance(MINUTE);
    world.called(|calls| calls.asked == 2).await;
    world
        .until(|event| matches!(event.data, EventData::SignerSigned { .. }))
        .await;
    world.clock.advance(60 * MINUTE);
    world.until_completed().await;
    assert_eq!(world.called(|_| true).await.withdrawn, 0);
}

#[tokio::test]
async fn signers_are_reminded_until_they_have_signed() {
    let world = World::waiting(|request, _| request.remind_every_ms(120_000)).await;
    let begun = world.clock.now();
    world.until_wakes_at(begun + 2 * MINUTE).await;
    world.clock.advance(2 * MINUTE);
    world.called(|calls| calls.reminded == 1).await;
    world.until_wakes_at(begun + 4 * MINUTE).await;
    world.clock.advance(2 * MINUTE);
    world.called(|calls| calls.reminded == 2).await;
    world.report(world.signed()).await;
    world.until_completed().await;
    world.clock.advance(60 * MINUTE);
    assert_eq!(world.called(|_| true).await.reminded, 2);
}

#[tokio::test]
async fn who_does_not_sign_in_time_is_asked_about_and_the_request_withdrawn() {
    let world = World::waiting(|request, now| request.expires_at(now + 2 * MINUTE)).await;
    // What the provider does at first not manage is tried again.
    let busy = ProviderError::Unavailable("busy".to_owned());
    world
        .desk
        .withdrawals
        .lock()
        .expect("not poisoned")
        .push_back(busy);
    world.clock.advance(2 * MINUTE);
    let record = world.until_failed().await;
    assert_eq!(record.execution.signature_state, SignatureState::Expired);
    assert_eq!(world.code().await, "signature_expired");
    assert_eq!(world.called(|calls| calls.withdrawn == 2).await.asked, 1);
}

#[tokio::test]
async fn a_refusal_ends_the_run_at_once_and_withdraws_the_request() {
    let world = World::waiting(|request, _| request).await;
    let refusal = SignerFact::new(TWO, SignerFactKind::Declined, world.clock.now());
    world
        .report(vec![refusal.because(Some("no".to_owned()))])
        .await;
    let record = world.record().await;
    assert_eq!(
        record.execution.status,
        Status::Failed,
        "when the report was answered"
    );
    assert_eq!(world.code().await, "signature_declined");
    world.called(|calls| calls.withdrawn == 1).await;
}

#[tokio::test]
async fn an_expiry_that_the_provider_reports_ends_the_run_at_once() {
    let world = World::waiting(|request, _| request).await;
    let expiry = SignerFact::of_all(SignerFactKind::Expired, world.clock.now());
    world
        .report(vec![SignerFact::signed(ONE, world.clock.now()), expiry])
        .await;
    assert_eq!(world.record().await.execution.status, Status::Failed);
    assert_eq!(world.code().await, "signature_expired");
}

#[tokio::test]
async fn a_run_that_is_canceled_withdraws_its_request() {
    let world = World::waiting(|request, _| request).await;
    let actor = Actor::user("somebody");
    let request = ControlRequest::new(world.organization, world.execution, actor);
    let answer = world.engine.cancel(request, None).await.expect("allowed");
    assert!(matches!(answer, ControlAnswer::Applied(_)));
    world.called(|calls| calls.withdrawn == 1).await;
}

#[tokio::test]
async fn a_report_is_applied_at_once_while_the_provider_is_asked() {
    let world = World::waiting(|request, _| request).await;
    world.answers([None, None]);
    world.clock.advance(5 * MINUTE);
    world.called(|calls| calls.asked == 1).await;
    world.report(world.signed()).await;
    world.until_completed().await;
}

#[tokio::test]
async fn a_provider_that_never_answers_does_not_hold_up_the_run() {
    let world = World::waiting(|request, _| request).await;
    world.answers([None]);
    world.clock.advance(5 * MINUTE);
    world.called(|calls| calls.asked == 1).await;
    world.until_wakes_at(world.clock.now() + MINUTE).await;
    world.clock.advance(MINUTE);
    world.called(|calls| calls.asked == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_comes_again_is_answered_at_once_and_changes_nothing() {
    let world = World::waiting(|request, _| request).await;
    let delivers = async || {
        let webhook = WebhookRequest {
            headers: Vec::new(),
            body: format!("{}/sign", world.execution).into_bytes(),
        };
        let received = world.engine.receive_webhook("desk", webhook);
        // Less than a call waits for who holds the run.
        let received = tokio::time::timeout(Duration::from_secs(1), received).await;
        received.expect("at once").expect("taken").duplicate
    };
    assert!(!delivers().await);
    let version = world.record().await.execution.version;
    assert!(delivers().await);
    assert_eq!(world.record().await.execution.version, version);
}
