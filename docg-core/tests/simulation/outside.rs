//! The outside world, which effects change. It counts effects, and survives the death of any process.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use docg_core::{
    approval::{ApprovalNotifier, Invitation},
    prelude::*,
    signature::{
        Envelope, EnvelopeRequest, ProviderError, ProviderUpdate, SignatureProvider,
        SignatureRequest, WebhookError, WebhookRequest,
    },
    time::{Clock, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{clock::WallClock, process::Life};

pub(crate) const SIGNER: &str = "signer@example.com";
pub(crate) const APPROVER: &str = "approver@example.com";

/// The course of one call of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Done,
    /// The effect happens at once.
    Quick,
    /// The effect happens after so many milliseconds.
    Slow(u64),
    /// The handler does not return by itself.
    Hang,
    Retry,
    Review,
    Fatal,
    Panic,
    /// The effect happens, and the handler does not know the outcome.
    UnknownDone,
    /// The effect does not happen, and the handler does not know the outcome.
    UnknownNot,
    /// The effect happens, and the handler panics.
    DonePanic,
    /// The effect happens, and the handler reports a failure. Used only for handlers that were told to stop.
    DoneFatal,
}

impl Act {
    fn takes_effect(self) -> bool {
        matches!(
            self,
            Self::Done
                | Self::Quick
                | Self::Slow(_)
                | Self::UnknownDone
                | Self::DonePanic
                | Self::DoneFatal
        )
    }

    fn takes(self) -> Duration {
        match self {
            Self::Slow(millis) => Duration::from_millis(millis),
            Self::Quick => Duration::ZERO,
            Self::Hang => Duration::MAX,
            _ => Duration::from_millis(200),
        }
    }
}

/// A handler's answer after it has been told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Late {
    /// The handler reports that nothing happened.
    #[default]
    Stopped,
    /// The effect still happens, and the handler reports success.
    Done,
    Retry,
    Review,
    Fatal,
    /// The effect happens, and the handler reports a failure.
    DoneFatal,
    UnknownDone,
    UnknownNot,
    Panic,
    DonePanic,
    /// The handler does not answer.
    Never,
}

impl Late {
    pub(crate) const ALL: [Self; 11] = [
        Self::Stopped,
        Self::Done,
        Self::Retry,
        Self::Review,
        Self::Fatal,
        Self::DoneFatal,
        Self::UnknownDone,
        Self::UnknownNot,
        Self::Panic,
        Self::DonePanic,
        Self::Never,
    ];

    /// What the handler does after it was told to stop; `None` for [`Late::Stopped`], when it reports that it
    /// stopped.
    fn act(self) -> Option<Act> {
        Some(match self {
            Self::Stopped => return None,
            Self::Done => Act::Done,
            Self::Retry => Act::Retry,
            Self::Review => Act::Review,
            Self::Fatal => Act::Fatal,
            Self::DoneFatal => Act::DoneFatal,
            Self::UnknownDone => Act::UnknownDone,
            Self::UnknownNot => Act::UnknownNot,
            Self::Panic => Act::Panic,
            Self::DonePanic => Act::DonePanic,
            Self::Never => Act::Hang,
        })
    }
}

type Place = (ExecutionId, NodeId);

#[derive(Debug)]
pub(crate) struct Outside {
    clock: Arc<WallClock>,
    calls: Mutex<HashMap<Place, usize>>,
    effects: Mutex<HashMap<Place, usize>>,
    tokens: Mutex<HashMap<ExecutionId, String>>,
    signed: Mutex<HashSet<String>>,
}

impl Outside {
    pub(crate) fn new(clock: Arc<WallClock>) -> Self {
        Self {
            clock,
            calls: Mutex::default(),
            effects: Mutex::default(),
            tokens: Mutex::default(),
            signed: Mutex::default(),
        }
    }

    /// The number of times that a node's effect happened.
    pub(crate) fn effects_of(&self, execution: ExecutionId, node: &NodeId) -> usize {
        let effects = self.effects.lock().expect("no panic");
        let count = effects.get(&(execution, node.clone()));
        count.copied().unwrap_or_default()
    }

    /// The token of the newest invitation to the approver of an execution.
    pub(crate) fn token_of(&self, execution: ExecutionId) -> Option<String> {
        let tokens = self.tokens.lock().expect("no panic");
        tokens.get(&execution).cloned()
    }

    /// Records that the signer has signed at the provider.
    pub(crate) fn sign(&self, envelope: &str) {
        let mut signed = self.signed.lock().expect("no panic");
        signed.insert(envelope.to_owned());
    }

    pub(crate) fn signed_at(&self) -> Timestamp {
        self.clock.now()
    }

    /// The planned course of this call of a handler.
    fn next_act(&self, context: &StepContext, params: &Value) -> Act {
        let place = (context.execution_id, context.node_id.clone());
        let mut calls = self.calls.lock().expect("no panic");
        let call = calls.entry(place).or_default();
        let act = params["acts"].get(*call).cloned();
        *call += 1;
        act.map_or(Act::Done, |act| {
            serde_json::from_value(act).expect("an act")
        })
    }

    /// Runs a handler. If it is told to stop, it gives the answer `late` of its node; if the lease is lost,
    /// it always reports `stopped`.
    pub(crate) async fn act(
        &self,
        life: &Life,
        context: &EffectContext,
        params: &Value,
    ) -> Result<(), StepFailure> {
        let mut act = self.next_act(context, params);
        context.progress(0.5);
        tokio::select! {
            biased;
            () = context.cancellation.cancelled() => {
                let late = serde_json::from_value(params["late"].clone());
                act = match late.unwrap_or_else(|_| Late::default()).act() {
                    Some(act) if context.stop_reason() != Some(StopReason::LeaseLost) => act,
                    _ => return Err(StepFailure::stopped()),
                };
                if act == Act::Hang {
                    std::future::pending().await
                }
            }
            () = tokio::time::sleep(act.takes()) => {}
        }
        life.goes_on().await;
        if act.takes_effect() {
            let place = (context.execution_id, context.node_id.clone());
            *self
                .effects
                .lock()
                .expect("no panic")
                .entry(place)
                .or_default() += 1;
        }
        match act {
            Act::Done | Act::Quick | Act::Slow(_) | Act::Hang => Ok(()),
            Act::Retry => Err(StepFailure::retryable("busy", "It is busy.")),
            Act::Review => Err(StepFailure::review("unclear", "A person has to look.")),
            Act::Fatal | Act::DoneFatal => {
                Err(StepFailure::fatal("impossible", "It cannot be done."))
            }
            Act::UnknownDone | Act::UnknownNot => {
                Err(StepFailure::outcome_unknown("lost", "The answer is lost."))
            }
            // Panic without printing a message.
            Act::Panic | Act::DonePanic => std::panic::resume_unwind(Box::new("as planned")),
        }
    }

    /// Probes the outcome of an effect.
    pub(crate) async fn probe(&self, life: &Life, context: &EffectContext) -> Probe {
        life.goes_on().await;
        match self.effects_of(context.execution_id, &context.node_id) {
            0 => Probe::NotDone,
            _ => Probe::Done(json!({})),
        }
    }
}

#[async_trait]
impl ApprovalNotifier for Outside {
    async fn invite(
        &self,
        context: &EffectContext,
        invitation: Invitation,
    ) -> Result<(), StepFailure> {
        let mut tokens = self.tokens.lock().expect("no panic");
        tokens.insert(context.execution_id, invitation.token);
        Ok(())
    }
}

#[async_trait]
impl SignatureProvider for Outside {
    fn name(&self) -> &str {
        "outside"
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
        let signed = self.signed.lock().expect("no panic");
        let fact = signed
            .contains(&request.envelope_id)
            .then(|| SignerFact::signed(SIGNER, self.clock.now()));
        Ok(fact.into_iter().collect())
    }
    async fn remind(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn cancel(&self, _: &SignatureRequest) -> Result<(), ProviderError> {
        Ok(())
    }
    fn reminds_itself(&self) -> bool {
        true
    }
    fn read_webhook(&self, _: &WebhookRequest) -> Result<ProviderUpdate, WebhookError> {
        Err(WebhookError::Unauthenticated)
    }
}
