//! What an application calls: it stores workflows, starts and retries executions, controls them, and passes on
//! what people and signature providers answer.
//!
//! A call on an existing execution goes through the signal inbox; see `control`.

pub(super) mod approvals;
pub(super) mod control;
pub(super) mod idempotency;
pub(super) mod request_signature;
pub(super) mod resume;
pub(super) mod signatures;
pub(super) mod start;
pub(super) mod workflows;

pub use approvals::{OpenApproval, RefusedVote, VoteAnswer, VoteRefusal};
pub use control::{ControlAnswer, ControlRequest};
pub use idempotency::IdempotencyKey;
pub use request_signature::{REQUEST_SIGNATURE, RequestSignature};
pub use resume::{Repair, Resume};
pub use signatures::WebhookAnswer;
pub use start::{RetryRequest, StartRequest, Started, StepRef};
pub use workflows::PutWorkflow;
