//! The node type `approval`: its step asks people, and continues once they have approved.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Sha256;

use super::token_hash;
use crate::{
    address::{Address, AddressKey, Addresses},
    error::{FieldFault, StepFailure, codes},
    i18n::{Locale, Text},
    limits,
    preflight::{Domain, Issue},
    run::Phase,
    time::{Millis, Timestamp},
    workflow::{
        ComputeHandler, EffectContext, EffectHandler, Handler, NodeSpec, ParamKind, ParamSpec,
        Probe, Resolution, StepOutcome, Wait,
        handler::{CheckRequest, NewApproval, OnExpiry},
        read_params,
    },
};

/// The length of a token. 160 bits cannot be guessed, and the link still fits on one line of a mail.
const TOKEN_BYTES: usize = 20;

/// Delivers tokens to approvers: by mail, by chat, or to an application's own inbox.
#[async_trait]
pub trait ApprovalNotifier: Send + Sync + 'static {
    /// Delivers a token to an approver. After a crash the same invitation may be repeated, with the same
    /// token and the same [key](Invitation::idempotency_key).
    ///
    /// # Errors
    ///
    /// The failure of the step. If the step is retried, approvers who were already invited are invited again,
    /// with the same token.
    async fn invite(
        &self,
        context: &EffectContext,
        invitation: Invitation,
    ) -> Result<(), StepFailure>;
}

/// The content of an invitation to an approver.
#[derive(Clone)]
#[non_exhaustive]
pub struct Invitation {
    /// The approver's address, as given.
    pub email: String,
    /// The approver's token: enough to vote, so keep it from everybody else.
    pub token: String,
    /// The workflow's message to the approver.
    pub message: Option<String>,
    /// When the approval expires.
    pub expires_at: Option<Timestamp>,
    /// The idempotency key of this invitation, the same in every attempt.
    pub idempotency_key: String,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("email", &self.email)
            .field("idempotency_key", &self.idempotency_key)
            .finish_non_exhaustive()
    }
}

/// The node type `approval`, for any phase.
///
/// Parameters are `approvers`, `quorum` (default 1), `message`, `expires_in_ms` and `on_expiry` (`fail`,
/// `approve` or `review`); outputs are `decision`, `decided_by` and `comment`. One refusal fails the step,
/// whatever the quorum.
///
/// Tokens are derived from `key`, so that an invitation that is repeated after a crash has the same token.
/// Keep the key secret, and use the same key in all processes.
///
/// ```
/// use std::sync::Arc;
///
/// use docg_core::{approval, prelude::*};
///
/// struct Console;
///
/// #[async_trait::async_trait]
/// impl approval::ApprovalNotifier for Console {
///     async fn invite(
///         &self,
///         _context: &EffectContext,
///         invitation: approval::Invitation,
///     ) -> Result<(), StepFailure> {
///         println!("{}: https://example.com/approvals/{}", invitation.email, invitation.token);
///         Ok(())
///     }
/// }
///
/// let handler = approval::node([7; 32], Arc::new(Console));
/// assert_eq!(&*handler.spec().node_type, "approval");
/// ```
#[must_use]
pub fn node(key: [u8; 32], notifier: Arc<dyn ApprovalNotifier>) -> Handler {
    let on_expiry = ParamKind::OneOf(vec!["fail", "approve", "review"]);
    let spec = NodeSpec::new("approval", Phase::Save)
        .any_phase()
        .param(ParamSpec::required("approvers", ParamKind::EmailList))
        .param(ParamSpec::optional("quorum", ParamKind::Integer))
        .param(ParamSpec::optional("message", ParamKind::Text))
        .param(ParamSpec::optional("expires_in_ms", ParamKind::Duration))
        .param(ParamSpec::optional("on_expiry", on_expiry))
        .outputs(["decision", "decided_by", "comment"])
        .without_document()
        // After a crash the step invites the approvers again, with the same tokens, and then waits. The
        // repeated invitations do no harm.
        .safe_to_repeat()
        .timeout_ms(180_000);
    Handler::Effect(Arc::new(ApprovalNode {
        spec,
        key,
        notifier,
    }))
}

struct ApprovalNode {
    spec: NodeSpec,
    key: [u8; 32],
    notifier: Arc<dyn ApprovalNotifier>,
}

#[derive(Deserialize)]
struct Params {
    approvers: Addresses,
    quorum: Option<u64>,
    message: Option<String>,
    expires_in_ms: Option<Millis>,
    on_expiry: Option<OnExpiry>,
}

/// A fault of the approvers, the quorum or the message.
enum Fault {
    Duplicate { index: usize, email: String },
    Quorum { quorum: u64, count: usize },
    Message(FieldFault),
}

impl Fault {
    fn code(&self) -> &'static str {
        match self {
            Self::Duplicate { .. } => codes::DUPLICATE_APPROVER,
            Self::Quorum { .. } => codes::INVALID_QUORUM,
            Self::Message(_) => codes::INVALID_FIELD_FORMAT,
        }
    }

    fn field(&self) -> String {
        match self {
            Self::Duplicate { index, .. } => format!("approvers.{index}"),
            Self::Quorum { .. } => "quorum".to_owned(),
            Self::Message(_) => "message".to_owned(),
        }
    }

    fn human(&self, label: &str) -> Text {
        let text = match self {
            Self::Duplicate { email, .. } => {
                Text::key("issue-duplicate-approver").with("email", email)
            }
            Self::Quorum { quorum, count } => Text::key("issue-invalid-quorum")
                .with("quorum", quorum)
                .with("count", count),
            Self::Message(_) => Text::key("issue-invalid-field-format").with("field", self.field()),
        };
        text.with("label", label)
    }

    fn tech(&self) -> String {
        match self {
            Self::Duplicate { email, .. } => format!("{email} is in the list twice"),
            Self::Quorum { quorum, count } => {
                format!("a quorum of {quorum} cannot be reached by {count} approvers")
            }
            Self::Message(fault) => fault.detail.render(Locale::En),
        }
    }

    fn issue(&self, label: &str) -> Issue {
        let domain = match self {
            Self::Duplicate { .. } => Domain::Delivery,
            Self::Quorum { .. } | Self::Message(_) => Domain::Data,
        };
        Issue::blocking(domain, self.code(), self.human(label))
            .field(self.field())
            .tech(self.tech())
    }

    fn failure(&self, label: &str) -> StepFailure {
        StepFailure::review(self.code(), self.human(label)).tech(self.tech())
    }
}

/// The faults of approvers and quorum. An address that is not known yet is `None`.
fn faults(approvers: &[Option<Address>], quorum: Option<u64>) -> Vec<Fault> {
    let mut seen: HashSet<AddressKey> = HashSet::new();
    let mut faults = Vec::new();
    for (index, address) in approvers.iter().enumerate() {
        let Some(address) = address else { continue };
        if !seen.insert(address.key()) {
            faults.push(Fault::Duplicate {
                index,
                email: address.email().to_owned(),
            });
        }
    }
    let (quorum, count) = (quorum.unwrap_or(1), approvers.len());
    if quorum == 0 || quorum > count as u64 {
        faults.push(Fault::Quorum { quorum, count });
    }
    faults
}

fn message_fault(message: Option<&str>) -> Option<Fault> {
    limits::MESSAGE
        .fault("/message", message?)
        .map(Fault::Message)
}

/// The faults that preflight finds, besides parameters of a wrong kind. A value that an earlier step will
/// give is checked when this step runs.
fn faults_so_far(params: &Map<String, Value>) -> Vec<Fault> {
    let message = params.get("message").and_then(Value::as_str);
    let message = message_fault(message.filter(|text| !text.contains("{{")));
    message
        .into_iter()
        .chain(faults_of_approvers(params))
        .collect()
}

fn faults_of_approvers(params: &Map<String, Value>) -> Vec<Fault> {
    let quorum = params.get("quorum").and_then(Value::as_u64);
    let address = |item: &Value| item.as_str()?.parse().ok();
    let approvers: Vec<Option<Address>> = match params.get("approvers") {
        Some(Value::Array(items)) if !items.is_empty() => items.iter().map(address).collect(),
        Some(one) if address(one).is_some() => vec![address(one)],
        // The approvers are not known yet, and only a quorum of zero is certainly wrong.
        _ if quorum == Some(0) => vec![None],
        _ => return Vec::new(),
    };
    faults(&approvers, quorum)
}

impl Params {
    /// The approvers and the quorum, or the first fault of the parameters.
    fn asked(&self) -> Result<(Vec<Address>, u32), Fault> {
        if let Some(fault) = message_fault(self.message.as_deref()) {
            return Err(fault);
        }
        let approvers = self.approvers.clone().into_vec();
        let known: Vec<_> = approvers.iter().cloned().map(Some).collect();
        match faults(&known, self.quorum).into_iter().next() {
            Some(fault) => Err(fault),
            // The quorum fits into `u32`: it is at most the number of addresses.
            None => Ok((approvers, self.quorum.unwrap_or(1) as u32)),
        }
    }
}

impl ApprovalNode {
    /// Derives an approver's token, which is the same in every attempt. If a person makes the step ask again
    /// after an earlier approval, the tokens differ, because that is a new question.
    fn token(&self, context: &EffectContext, email: &str) -> String {
        // A keyed hash (HMAC, RFC 2104): without the key nobody can compute a token.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        let key = context.idempotency_key();
        let before = context.previous_approval.map(|id| id.to_string());
        let before = before.unwrap_or_default();
        for part in ["docg.approval.v1", &key, &before, email] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex::encode(&mac.finalize().into_bytes()[..TOKEN_BYTES])
    }
}

#[async_trait]
impl EffectHandler for ApprovalNode {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        let found = faults_so_far(&request.params);
        let found = found.iter().map(|fault| fault.issue(&request.label));
        request
            .misfits::<Params>()
            .into_iter()
            .chain(found)
            .collect()
    }

    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
        let params: Params = read_params(params)?;
        let (approvers, quorum) = params
            .asked()
            .map_err(|fault| fault.failure(&context.label))?;
        let expires_at = params
            .expires_in_ms
            .map(|millis| context.started_at.plus_millis(millis.get()));
        let mut asked = Vec::with_capacity(approvers.len());
        for approver in approvers {
            let email = approver.email().to_owned();
            let token = self.token(&context, &email);
            let hash = token_hash(&token);
            let invitation = Invitation {
                email: email.clone(),
                token,
                message: params.message.clone(),
                expires_at,
                // The token's hash identifies this approval and approver without revealing the token.
                idempotency_key: format!("approval/{}", hex::encode(hash)),
            };
            self.notifier.invite(&context, invitation).await?;
            asked.push((email, hash));
        }
        let mut asked = NewApproval::new(asked);
        asked.message = params.message;
        asked.quorum = quorum;
        asked.expires_at = expires_at;
        asked.on_expiry = params.on_expiry.unwrap_or_default();
        Ok(StepOutcome::Wait(Wait::Approval(asked)))
    }

    async fn resumed(
        &self,
        _context: EffectContext,
        _params: Value,
        resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure> {
        match resolution {
            Resolution::Approved(decision) => Ok(StepOutcome::Done(decision)),
            Resolution::Signed(_) | Resolution::Elapsed(_) | Resolution::Event { .. } => {
                let text = Text::key("error-parameters-do-not-fit");
                let failure = StepFailure::fatal(codes::INVALID_FIELD_FORMAT, text);
                Err(failure.tech("the wait for an approval ended with something else"))
            }
        }
    }

    async fn probe(&self, _context: EffectContext, _params: Value) -> Probe {
        Probe::NotDone
    }

    fn preview(&self) -> Option<Arc<dyn ComputeHandler>> {
        None
    }
}
