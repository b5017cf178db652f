//! What an application calls: it stores workflows, starts and retries executions, controls them, and passes on
//! what people and signature providers answer.
//!
//! A call on an existing execution goes through the signal inbox; see `control`.

/// The setters that every request for a new execution has.
macro_rules! origin_setters {
    () => {
        /// Sets the correlation id, which related calls share.
        #[must_use]
        pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
            let id: String = id.into();
            self.correlation_id = id.into();
            self
        }

        /// Sets the W3C trace context.
        #[must_use]
        pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
            self.traceparent = Some(traceparent.into());
            self
        }

        /// Returns the first execution if this request is repeated with the same key.
        #[must_use]
        pub fn idempotency_key(mut self, key: impl Into<IdempotencyKey>) -> Self {
            self.idempotency_key = Some(key.into());
            self
        }
    };
}

pub(super) mod approvals;
pub(super) mod control;
pub(super) mod events;
pub(super) mod idempotency;
pub(super) mod request_signature;
pub(super) mod resume;
pub(super) mod signatures;
pub(super) mod start;
pub(super) mod workflows;

pub use approvals::{OpenApproval, RefusedVote, VoteAnswer, VoteRefusal};
pub use control::{ControlAnswer, ControlRequest};
pub use events::NamedEvent;
pub use idempotency::IdempotencyKey;
pub use request_signature::{REQUEST_SIGNATURE, RequestSignature};
pub use resume::{Repair, Resume};
pub use signatures::WebhookAnswer;
pub use start::{RetryRequest, StartRequest, Started, StepRef};
pub use workflows::PutWorkflow;
