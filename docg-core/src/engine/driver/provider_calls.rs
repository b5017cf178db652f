//! The engine's own calls to signature providers, outside of any step: to ask for the state of a request, to
//! remind its signers, and to withdraw an ended request.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{
        Inner,
        machine::{Checked, Input},
    },
    signature::{ProviderError, RequestStatus, SignatureProvider, SignatureRequest, SignerFact},
};

/// The longest pause that a provider can ask for; a longer pause is cut to this.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The number of attempts to withdraw a request, and the pause after the first attempt. The pause doubles.
const WITHDRAWALS: (u32, Duration) = (4, Duration::from_secs(2));

impl Inner {
    fn provider_of(&self, request: &SignatureRequest) -> Option<&Arc<dyn SignatureProvider>> {
        let mut providers = self.providers.iter();
        providers.find(|provider| provider.name() == request.provider)
    }

    /// Asks the provider for the state of a request.
    pub(in crate::engine) async fn check_signatures(&self, request: &SignatureRequest) -> Input {
        let Some(provider) = self.provider_of(request) else {
            return Input::SignaturesChecked(Checked::Nobody);
        };
        let checked = match self.in_time(provider.status(request)).await {
            Ok(facts) => Checked::Answered(printable(facts)),
            Err(error) => {
                tracing::warn!(execution_id = %request.execution_id, "signatures could not be checked: {error}");
                Checked::Failed(error)
            }
        };
        Input::SignaturesChecked(checked)
    }

    /// Asks the provider to remind the signers. The call runs in a task of its own, so that no signal
    /// interrupts it.
    pub(in crate::engine) async fn remind(self: &Arc<Self>, request: &SignatureRequest) -> Input {
        let (inner, request) = (Arc::clone(self), request.clone());
        let reminding = tokio::spawn(async move {
            match inner.provider_of(&request) {
                Some(provider) => inner.in_time(provider.remind(&request)).await,
                None => Ok(()),
            }
        });
        let broken = |e: tokio::task::JoinError| Err(ProviderError::Unknown(e.to_string()));
        Input::Reminded(reminding.await.unwrap_or_else(broken))
    }

    /// Withdraws a request that ended without all signatures, in a task of its own. Nothing waits for that
    /// task, because the execution has ended or gone on. If all attempts fail, the provider's own deadline
    /// ends the request.
    pub(in crate::engine) fn withdraw(self: &Arc<Self>, request: &SignatureRequest) {
        let ended = match request.status {
            RequestStatus::Declined | RequestStatus::Expired | RequestStatus::Canceled => true,
            RequestStatus::Signing | RequestStatus::Signed => false,
        };
        let Some(provider) = self.provider_of(request).filter(|_| ended).cloned() else {
            return;
        };
        let (inner, request) = (Arc::clone(self), request.clone());
        tokio::spawn(async move {
            let (tries, mut pause) = WITHDRAWALS;
            for attempt in 1..=tries {
                let Err(error) = inner.in_time(provider.cancel(&request)).await else {
                    return;
                };
                let execution_id = request.execution_id;
                if attempt == tries || !error.may_pass() {
                    tracing::warn!(%execution_id, "a signature request was not withdrawn: {error}");
                    return;
                }
                let asked =
                    Duration::from_millis(error.retry_after_ms().unwrap_or(0)).min(LONGEST_WAIT);
                tokio::time::sleep(pause.max(asked)).await;
                pause *= 2;
            }
        });
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let time = self.options.signature_timeout;
        let slow = || ProviderError::TimedOut(format!("no answer within {} s", time.as_secs()));
        tokio::time::timeout(time, call)
            .await
            .unwrap_or_else(|_| Err(slow()))
    }
}

/// Facts about signers in the form that stores can keep.
pub(in crate::engine) fn printable(facts: Vec<SignerFact>) -> Vec<SignerFact> {
    facts.into_iter().map(SignerFact::printable).collect()
}
