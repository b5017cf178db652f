//! Open signature requests by a clock that the tests move: the provider is asked, signers are reminded, and requests
//! expire and are withdrawn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use docg_core::{
    engine::Workers,
    ids::SignatureRequestId,
    prelude::*,
    run::{Execution, SignatureState},
    signature::{
        Envelope, EnvelopeRequest, ProviderError, ProviderUpdate, SignatureProvider,
        SignatureRequest, SignerFactKind, WebhookError, WebhookRequest,
    },
    time::{Clock, ManualClock, Timestamp},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::{World, builder, soon};

const ONE: &str = "one@example.com";
const TWO: &str = "two@example.com";
const MINUTE: Duration = Duration::from_secs(60);

/// How often the provider was called, by purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    asked: u32,
    reminded: u32,
    withdrawn: u32,
}

/// An answer of the provider; `None` if it never answers.
type Answer = Option<Result<Vec<SignerFact>, ProviderError>>;

/// A signature provider with prepared answers. Its webhooks report that a signer has viewed the envelope in
/// their body.
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

/// An execution that waits for two signatures.
struct Signing {
    world: World,
    clock: Arc<ManualClock>,
    desk: Arc<Desk>,
    id: ExecutionId,
    _workers: Workers,
}

impl Signing {
    async fn new() -> Self {
        Self::with(|request, _| request).await
    }

    /// Starts an execution whose signature request is changed by the closure, which also gets the time at
    /// which the step began.
    async fn with(
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
        let builder = builder()
            .step(sign)
            .signature_provider(desk.clone())
            .clock(clock.clone())
            .options(|options| options.signature_timeout = Duration::from_millis(200));
        let world = World::new(builder);
        let workers = world.workers();
        let id = world.start(json!([{"id": "sign", "type": "sign"}])).await;
        world.until_event(id, "signature.requested").await;
        Self {
            world,
            clock,
            desk,
            id,
            _workers: workers,
        }
    }

    /// Queues the provider's next answers to status questions.
    fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut queue = self.desk.answers.lock().expect("not poisoned");
        queue.extend(answers);
    }

    async fn called(&self, fits: impl Fn(&Calls) -> bool) -> Calls {
        let mut calls = self.desk.calls.subscribe();
        *soon(calls.wait_for(fits)).await.expect("the desk is there")
    }

    async fn until_event(&self, event_type: &str) {
        self.world.until_event(self.id, event_type).await;
    }

    async fn until_completed(&self) {
        self.world.until_completed(self.id).await;
    }

    async fn execution(&self) -> Execution {
        self.world.execution(self.id).await
    }

    /// Waits until the execution rests, with this time as its `wake_at`.
    async fn until_wakes_at(&self, at: Timestamp) {
        soon(async {
            while self.execution().await.wake_at != Some(at) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn report(&self, facts: Vec<SignerFact>) {
        let waiting = self.execution().await.waiting_for;
        let id = &waiting.expect("it waits").detail["signature_request_id"];
        let id: SignatureRequestId = id.as_str().and_then(|id| id.parse().ok()).expect("an id");
        let World {
            engine,
            organization,
        } = &self.world;
        let report = engine.report_signers(*organization, id, facts, Actor::webhook("desk"));
        report.await.expect("taken");
    }

    fn signed(&self) -> Vec<SignerFact> {
        [ONE, TWO]
            .map(|email| SignerFact::signed(email, self.clock.now()))
            .into()
    }

    async fn code(&self) -> String {
        let error = self.execution().await.error;
        error.expect("an error").code.into_owned()
    }
}

#[tokio::test]
async fn signatures_whose_webhooks_were_lost_are_found_by_asking_the_provider() {
    let it = Signing::new().await;
    let one = vec![SignerFact::signed(ONE, it.clock.now())];
    let down = ProviderError::Unavailable("down".to_owned());
    it.answers([Some(Err(down)), Some(Ok(one)), Some(Ok(it.signed()))]);
    it.clock.advance(5 * MINUTE);
    it.called(|calls| calls.asked == 1).await;
    // After a failure the provider is asked again in a minute; after an answer, within an hour.
    it.until_wakes_at(it.clock.now() + MINUTE).await;
    it.clock.advance(MINUTE);
    it.called(|calls| calls.asked == 2).await;
    it.until_event("signature.signer.signed").await;
    it.clock.advance(60 * MINUTE);
    it.until_completed().await;
    assert_eq!(it.called(|_| true).await.withdrawn, 0);
}

#[tokio::test]
async fn signers_are_reminded_until_they_have_signed() {
    let it = Signing::with(|request, _| request.remind_every_ms(120_000)).await;
    let begun = it.clock.now();
    it.until_wakes_at(begun + 2 * MINUTE).await;
    it.clock.advance(2 * MINUTE);
    it.called(|calls| calls.reminded == 1).await;
    it.until_wakes_at(begun + 4 * MINUTE).await;
    it.clock.advance(2 * MINUTE);
    it.called(|calls| calls.reminded == 2).await;
    it.report(it.signed()).await;
    it.until_completed().await;
    it.clock.advance(60 * MINUTE);
    assert_eq!(it.called(|_| true).await.reminded, 2);
}

#[tokio::test]
async fn an_expired_request_is_withdrawn_after_the_provider_was_asked_once_more() {
    let it = Signing::with(|request, now| request.expires_at(now + 2 * MINUTE)).await;
    // The first withdrawal fails, so the engine retries it.
    let busy = ProviderError::Unavailable("busy".to_owned());
    it.desk
        .withdrawals
        .lock()
        .expect("not poisoned")
        .push_back(busy);
    it.clock.advance(2 * MINUTE);
    it.until_event("execution.failed").await;
    let state = it.execution().await.signature_state;
    assert_eq!(state, SignatureState::Expired);
    assert_eq!(it.code().await, "signature_expired");
    assert_eq!(it.called(|calls| calls.withdrawn == 2).await.asked, 1);
}

#[tokio::test]
async fn a_refusal_ends_the_execution_at_once_and_withdraws_the_request() {
    let it = Signing::new().await;
    let refusal = SignerFact::new(TWO, SignerFactKind::Declined, it.clock.now());
    it.report(vec![refusal.because(Some("no".to_owned()))])
        .await;
    assert_eq!(
        it.execution().await.status,
        Status::Failed,
        "when the report was answered"
    );
    assert_eq!(it.code().await, "signature_declined");
    it.called(|calls| calls.withdrawn == 1).await;
}

#[tokio::test]
async fn an_expiry_that_the_provider_reports_ends_the_execution_at_once() {
    let it = Signing::new().await;
    let expiry = SignerFact::of_all(SignerFactKind::Expired, it.clock.now());
    it.report(vec![SignerFact::signed(ONE, it.clock.now()), expiry])
        .await;
    assert_eq!(it.execution().await.status, Status::Failed);
    assert_eq!(it.code().await, "signature_expired");
}

#[tokio::test]
async fn a_canceled_execution_withdraws_its_request() {
    let it = Signing::new().await;
    it.world.cancel(it.id).await;
    it.called(|calls| calls.withdrawn == 1).await;
}

#[tokio::test]
async fn a_report_is_applied_at_once_while_the_provider_is_asked() {
    let it = Signing::new().await;
    it.answers([None, None]);
    it.clock.advance(5 * MINUTE);
    it.called(|calls| calls.asked == 1).await;
    it.report(it.signed()).await;
    it.until_completed().await;
}

#[tokio::test]
async fn a_provider_that_never_answers_does_not_hold_up_the_execution() {
    let it = Signing::new().await;
    it.answers([None]);
    it.clock.advance(5 * MINUTE);
    it.called(|calls| calls.asked == 1).await;
    it.until_wakes_at(it.clock.now() + MINUTE).await;
    it.clock.advance(MINUTE);
    it.called(|calls| calls.asked == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_comes_again_is_answered_at_once_and_changes_nothing() {
    let it = Signing::new().await;
    let delivers = async || {
        let webhook = WebhookRequest {
            headers: Vec::new(),
            body: format!("{}/sign", it.id).into_bytes(),
        };
        let received = it.world.engine.receive_webhook("desk", webhook);
        // A call that has to wait for the lease holder's answer would take longer than this second.
        let received = tokio::time::timeout(Duration::from_secs(1), received).await;
        received.expect("at once").expect("taken").duplicate
    };
    assert!(!delivers().await);
    let version = it.execution().await.version;
    assert!(delivers().await);
    assert_eq!(it.execution().await.version, version);
}
