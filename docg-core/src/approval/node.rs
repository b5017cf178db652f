//! The node type `approval`: asks people, and goes on when they have agreed.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Sha256;

use super::token_hash;
use crate::{
    error::{FieldFault, StepFailure, codes},
    i18n::{Locale, Text},
    limits::{self, PEOPLE},
    preflight::{Domain, Issue, parse_address},
    run::Phase,
    time::{Millis, Timestamp},
    workflow::{
        ComputeHandler, EffectContext, EffectHandler, Handler, NodeSpec, ParamKind, ParamSpec,
        Probe, Resolution, StepOutcome, Wait,
        handler::{CheckRequest, NewApproval, OnExpiry},
    },
};

/// 160 bits: nobody guesses them, and a mail need not break the line that the link stands in.
const TOKEN_BYTES: usize = 20;

/// Brings approvers their tokens: by mail, by chat, in an application's own inbox.
#[async_trait]
pub trait ApprovalNotifier: Send + Sync + 'static {
    /// Brings an approver their token. After a crash the same invitation may come again, with the
    /// same token and the same [key](Invitation::idempotency_key).
    ///
    /// # Errors
    ///
    /// A failure of the step. Approvers who had been told before are asked again, with the same
    /// token, when it is repeated by the retry policy.
    async fn invite(
        &self,
        context: &EffectContext,
        invitation: Invitation,
    ) -> Result<(), StepFailure>;
}

/// What an approver is to be told.
#[derive(Clone)]
#[non_exhaustive]
pub struct Invitation {
    /// Who is asked.
    pub email: String,
    /// All that they need to decide, and to be kept from everybody else.
    pub token: String,
    /// What the workflow has to say to them.
    pub message: Option<String>,
    /// When it is decided without them.
    pub expires_at: Option<Timestamp>,
    /// Names this invitation, in every attempt.
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

/// The node type `approval`, for any phase, with the parameters `approvers`, `quorum` (1 where it is
/// not given), `message`, `expires_in_ms` and `on_expiry` (`fail`, `approve` or `review`), and the
/// output `decision`, `decided_by` and `comment`. One refusal fails the step, whatever the quorum.
///
/// Tokens are derived from `key`, so that a repeat after a crash gives out the same ones. Keep it
/// secret, and the same in all processes.
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
        // The same invitation again does no harm, and only asking again leads on to the wait.
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
    approvers: Approvers,
    quorum: Option<u32>,
    message: Option<String>,
    expires_in_ms: Option<Millis>,
    on_expiry: Option<OnExpiry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Approvers {
    One(String),
    Many(Vec<String>),
}

/// What is wrong with who is asked.
enum Fault {
    Address { index: usize, text: String },
    Duplicate { index: usize, email: String },
    Quorum { quorum: u64, count: usize },
    TooMany { count: usize },
    Message(FieldFault),
}

impl Fault {
    fn code(&self) -> &'static str {
        match self {
            Self::Address { .. } => codes::INVALID_EMAIL_FORMAT,
            Self::Duplicate { .. } => codes::DUPLICATE_APPROVER,
            Self::Quorum { .. } => codes::INVALID_QUORUM,
            Self::TooMany { .. } | Self::Message(_) => codes::INVALID_FIELD_FORMAT,
        }
    }

    fn field(&self) -> String {
        match self {
            Self::Address { index, .. } | Self::Duplicate { index, .. } => {
                format!("approvers.{index}")
            }
            Self::Quorum { .. } => "quorum".to_owned(),
            Self::TooMany { .. } => "approvers".to_owned(),
            Self::Message(_) => "message".to_owned(),
        }
    }

    fn human(&self, label: &str) -> Text {
        let text = match self {
            Self::Address { .. } => {
                Text::key("issue-invalid-email-format").with("field", self.field())
            }
            Self::Duplicate { email, .. } => {
                Text::key("issue-duplicate-approver").with("email", email)
            }
            Self::Quorum { quorum, count } => Text::key("issue-invalid-quorum")
                .with("quorum", quorum)
                .with("count", count),
            Self::TooMany { .. } | Self::Message(_) => {
                Text::key("issue-invalid-field-format").with("field", self.field())
            }
        };
        text.with("label", label)
    }

    fn tech(&self) -> String {
        match self {
            Self::Address { text, .. } => format!("{text:?} is no e-mail address"),
            Self::Duplicate { email, .. } => format!("{email} is in the list twice"),
            Self::Quorum { quorum, count } => {
                format!("a quorum of {quorum} cannot be reached by {count} approvers")
            }
            Self::TooMany { count } => format!("{count} approvers, of at most {PEOPLE}"),
            Self::Message(fault) => fault.detail.render(Locale::En),
        }
    }

    fn issue(&self, label: &str) -> Issue {
        let domain = match self {
            Self::Address { .. } | Self::Duplicate { .. } => Domain::Delivery,
            Self::Quorum { .. } | Self::TooMany { .. } | Self::Message(_) => Domain::Data,
        };
        Issue::blocking(domain, self.code(), self.human(label))
            .field(self.field())
            .tech(self.tech())
    }

    fn failure(&self, label: &str) -> StepFailure {
        StepFailure::review(self.code(), self.human(label)).tech(self.tech())
    }
}

/// An approver's plain address, or what is wrong with it.
fn address(index: usize, text: &str) -> Result<String, Fault> {
    parse_address(text).ok_or_else(|| Fault::Address {
        index,
        text: text.chars().take(100).collect(),
    })
}

fn duplicates(emails: &[(usize, String)]) -> impl Iterator<Item = Fault> {
    let mut seen = HashSet::new();
    emails.iter().filter_map(move |(index, email)| {
        let fault = || Fault::Duplicate {
            index: *index,
            email: email.clone(),
        };
        (!seen.insert(email.to_lowercase())).then(fault)
    })
}

fn quorum_fault(quorum: u64, count: usize) -> Option<Fault> {
    (quorum == 0 || quorum > count as u64).then_some(Fault::Quorum { quorum, count })
}

fn message_fault(message: Option<&str>) -> Option<Fault> {
    limits::MESSAGE
        .fault("/message", message?)
        .map(Fault::Message)
}

/// What the declared parameters do not tell. What only a later step gives is left to the run.
fn faults(params: &Map<String, Value>) -> Vec<Fault> {
    let is_open = |text: &str| text.contains("{{");
    let message = params.get("message").and_then(Value::as_str);
    let message = message_fault(message.filter(|text| !is_open(text)));
    message
        .into_iter()
        .chain(faults_of_approvers(params))
        .collect()
}

fn faults_of_approvers(params: &Map<String, Value>) -> Vec<Fault> {
    let is_open = |text: &str| text.contains("{{");
    let listed: Vec<&Value> = match params.get("approvers") {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one @ Value::String(text)) if !is_open(text) => vec![one],
        _ => return Vec::new(),
    };
    // Those that are no addresses are found by the parameter's kind.
    let known: Vec<_> = listed
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, parse_address(item.as_str()?)?)))
        .collect();
    let quorum = params.get("quorum").and_then(Value::as_u64);
    duplicates(&known)
        .chain(quorum.and_then(|quorum| quorum_fault(quorum, listed.len())))
        .collect()
}

impl Params {
    fn read(params: Value) -> Result<Self, StepFailure> {
        Self::deserialize(params).map_err(|e| {
            let text = Text::key("error-parameters-do-not-fit");
            StepFailure::review(codes::INVALID_FIELD_FORMAT, text).tech(e)
        })
    }

    /// Who is asked and how many of them must agree.
    fn asked(&self) -> Result<(Vec<String>, u32), Fault> {
        let given = match &self.approvers {
            Approvers::One(one) => std::slice::from_ref(one),
            Approvers::Many(many) => many,
        };
        if given.len() > PEOPLE {
            return Err(Fault::TooMany { count: given.len() });
        }
        if let Some(fault) = message_fault(self.message.as_deref()) {
            return Err(fault);
        }
        let emails = given
            .iter()
            .enumerate()
            .map(|(index, text)| Ok((index, address(index, text)?)))
            .collect::<Result<Vec<_>, Fault>>()?;
        if let Some(fault) = duplicates(&emails).next() {
            return Err(fault);
        }
        let quorum = self.quorum.unwrap_or(1);
        match quorum_fault(u64::from(quorum), emails.len()) {
            Some(fault) => Err(fault),
            None => Ok((emails.into_iter().map(|(_, email)| email).collect(), quorum)),
        }
    }
}

impl ApprovalNode {
    /// The same in every attempt to ask, and another one where the step has asked before and a person
    /// has it ask anew: then it is another question.
    fn token(&self, context: &EffectContext, email: &str) -> String {
        // HMAC takes keys of every length (RFC 2104).
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
        faults(&request.params)
            .iter()
            .map(|fault| fault.issue(&request.label))
            .collect()
    }

    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
        let params = Params::read(params)?;
        let (emails, quorum) = params
            .asked()
            .map_err(|fault| fault.failure(&context.label))?;
        let expires_at = params
            .expires_in_ms
            .map(|millis| context.started_at.plus_millis(millis.get()));
        let mut approvers = Vec::with_capacity(emails.len());
        for email in emails {
            let token = self.token(&context, &email);
            let hash = token_hash(&token);
            let invitation = Invitation {
                email: email.clone(),
                token,
                message: params.message.clone(),
                expires_at,
                // The token's hash names the question and the approver, and gives nothing away.
                idempotency_key: format!("approval/{}", hex::encode(hash)),
            };
            self.notifier.invite(&context, invitation).await?;
            approvers.push((email, hash));
        }
        let mut asked = NewApproval::new(approvers);
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
            Resolution::Signed(_) => {
                let text = Text::key("error-parameters-do-not-fit");
                let failure = StepFailure::fatal(codes::INVALID_FIELD_FORMAT, text);
                Err(failure.tech("the wait for an approval ended with signatures"))
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
