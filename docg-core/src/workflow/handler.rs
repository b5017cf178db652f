//! The traits that do a node's work.
//!
//! A handler either computes ([`ComputeHandler`]) or has an effect ([`EffectHandler`]). The two are separate
//! types, so that a dry run cannot be given a handler with an effect.
//!
//! A handler may be told to stop at any time: [`cancellation`](super::context::StepFacts::cancellation)
//! fires, and [`stop_reason`](super::context::StepFacts::stop_reason) tells why. See
//! [`StopReason`](super::StopReason) for the right answer, and for the consequences of other answers.
//!
//! Handlers are async and must not block their thread: run long computations in
//! `tokio::task::spawn_blocking`. A blocking handler cannot be dropped at its deadline, and delays everything
//! else on its thread.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    context::{EffectContext, StepContext},
    func::{Misfit, read},
    spec::NodeSpec,
    variables::has_variables,
};
use crate::{
    error::{StepFailure, codes},
    i18n::Text,
    ids::{ApprovalId, NodeId, OrganizationId},
    preflight::{Domain, Issue},
    signature::{NewSignatureRequest, SignatureRequest},
    time::Timestamp,
};

/// A node type's implementation, as registered with the engine.
#[derive(Clone)]
pub enum Handler {
    /// A handler that only computes. Dry runs call it too.
    Compute(Arc<dyn ComputeHandler>),
    /// A handler with an effect. Dry runs never call it.
    Effect(Arc<dyn EffectHandler>),
}

impl Handler {
    /// The declaration of the node type.
    #[must_use]
    pub fn spec(&self) -> &NodeSpec {
        match self {
            Self::Compute(handler) => handler.spec(),
            Self::Effect(handler) => handler.spec(),
        }
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handler({})", self.spec().node_type)
    }
}

/// The input of a handler's preflight check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckRequest {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node being checked.
    pub node_id: NodeId,
    /// The node's name, for people.
    pub label: Arc<str>,
    /// The parameters, filled from the trigger data alone. Variables that only a later step fills still hold
    /// their `{{path}}`.
    pub params: Map<String, Value>,
    /// The trigger data.
    pub trigger: Arc<Value>,
    /// The parameters that [`sound_params`](Self::sound_params) leaves out.
    pub(crate) unsound: BTreeSet<String>,
}

impl CheckRequest {
    /// A request to check a node.
    #[must_use]
    pub fn new(
        organization_id: OrganizationId,
        node_id: NodeId,
        label: Arc<str>,
        params: Map<String, Value>,
        trigger: Arc<Value>,
    ) -> Self {
        let open = params.iter().filter(|(_, value)| has_variables(value));
        Self {
            organization_id,
            node_id,
            label,
            unsound: open.map(|(name, _)| name.clone()).collect(),
            params,
            trigger,
        }
    }

    /// The parameters that are known and of their declared kinds. Leaves out values that only a later step
    /// gives, and values that preflight has already refused.
    #[must_use]
    pub fn sound_params(&self) -> Map<String, Value> {
        let params = self.params.iter();
        let sound = params.filter(|(name, _)| !self.unsound.contains(*name));
        sound
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The known values that [`read_params`](super::read_params) would refuse when the step runs. Missing
    /// parameters are not reported.
    #[must_use]
    pub fn misfits<P: DeserializeOwned>(&self) -> Vec<Issue> {
        match read::<P>(Value::Object(self.sound_params())) {
            // Preflight's own rules report required parameters that are missing.
            Ok(_)
            | Err(Misfit {
                is_missing_param: true,
                ..
            }) => Vec::new(),
            Err(misfit) => {
                let text = Text::key("issue-invalid-parameter-format")
                    .with("label", &self.label)
                    .with("field", &misfit.field);
                let issue = Issue::blocking(Domain::Data, codes::INVALID_FIELD_FORMAT, text)
                    .at(self.node_id.clone())
                    .field(&misfit.field);
                vec![issue.tech(misfit)]
            }
        }
    }
}

/// A handler that only computes, without effects outside: extracting, converting, rendering.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ComputeHandler: Send + Sync + 'static {
    /// The declaration of the node type.
    fn spec(&self) -> &NodeSpec;
    /// Preflight checks beyond those of the declared parameters.
    async fn check(&self, request: CheckRequest) -> Vec<Issue>;
    /// Does the work. The engine may call this method again at any time.
    ///
    /// # Errors
    ///
    /// The failure's class tells whether the step is retried, needs review, or has failed for good. If told
    /// to stop, the handler returns [`StepFailure::stopped`].
    async fn run(&self, context: StepContext, params: Value) -> Result<Value, StepFailure>;
}

/// A handler with an effect: saving, sending, requesting signatures.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EffectHandler: Send + Sync + 'static {
    /// The declaration of the node type.
    fn spec(&self) -> &NodeSpec;
    /// Preflight checks beyond those of the declared parameters.
    async fn check(&self, request: CheckRequest) -> Vec<Issue>;
    /// Does the work, or begins the work and asks to wait. The engine may call this method more than once for
    /// a step: use [`EffectContext::idempotency_key`].
    ///
    /// # Errors
    ///
    /// The failure's class tells whether the step is retried, needs review, has failed for good, or has an
    /// unknown outcome. If told to stop before the effect, the handler returns [`StepFailure::stopped`].
    /// After a request to stop, any other error that is not retryable leaves the outcome unknown.
    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure>;
    /// Continues after a successful wait that [`run`](Self::run) asked for. The engine may call this method
    /// again at any time, because the step's effect was the request to people.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run). Here only [`outcome_unknown`](StepFailure::outcome_unknown) leaves the
    /// outcome unknown.
    async fn resumed(
        &self,
        context: EffectContext,
        params: Value,
        resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure>;
    /// Tells whether the effect happened: after a crash, after an attempt with an unknown outcome, and after
    /// an attempt that failed when told to stop. Not called if the node type is declared safe to repeat.
    async fn probe(&self, context: EffectContext, params: Value) -> Probe;
    /// The handler that a dry run calls instead of this one, for nodes of the trigger and render phases.
    /// `None` skips the step.
    fn preview(&self) -> Option<Arc<dyn ComputeHandler>>;
}

/// The successful result of a handler with an effect.
#[derive(Debug, Clone)]
pub enum StepOutcome {
    /// The step is done, with this output.
    Done(Value),
    /// The step has begun its effect, and continues after this wait.
    Wait(Wait),
}

/// A step's wait: for people, for a moment, or for an event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Wait {
    /// Signatures on a document. The engine tracks the signers.
    Signatures(NewSignatureRequest),
    /// A decision by approvers. The engine collects the votes.
    Approval(NewApproval),
    /// A moment. A moment that has passed does not delay the step.
    Until(Timestamp),
    /// An event from outside.
    Event(NewEventWait),
}

impl Wait {
    /// A wait for an event with this name and any key, without expiry.
    #[must_use]
    pub fn event(name: impl Into<String>) -> Self {
        Self::Event(NewEventWait::new(name))
    }
}

/// A handler's wait for an event. If the event has arrived before, the step continues at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEventWait {
    /// The event's name, such as `payment.received`.
    pub name: String,
    /// The key that tells this event from others with the name, such as an order's number. `None` accepts every
    /// key, and the event can then only be sent to the execution itself.
    pub key: Option<String>,
    /// When the wait expires, which fails the step; `None` for never. At most ten years ahead.
    pub expires_at: Option<Timestamp>,
}

impl NewEventWait {
    /// A wait for an event with this name and any key, without expiry.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: None,
            expires_at: None,
        }
    }

    /// Sets the key that the event must have.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets when the wait expires.
    #[must_use]
    pub fn expires_at(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }
}

/// A handler's new approval request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewApproval {
    /// The id of the request; the handler needs it for the links that it sends.
    pub id: ApprovalId,
    /// The approvers' addresses, each with the SHA-256 of the token in the approver's link.
    pub approvers: Vec<(String, [u8; 32])>,
    /// The message to the approvers.
    pub message: Option<String>,
    /// The number of approvals needed. One refusal rejects the request.
    pub quorum: u32,
    /// When the request expires; `None` for never. The engine rejects a time that is not after the step's
    /// [`started_at`](crate::workflow::context::StepFacts::started_at), or more than ten years after it.
    pub expires_at: Option<Timestamp>,
    /// The consequence if the request expires.
    pub on_expiry: OnExpiry,
}

impl NewApproval {
    /// A request for one approval by any of these approvers, without expiry. Each address comes with the
    /// [hash](crate::approval::token_hash) of the token in the approver's link.
    #[must_use]
    pub fn new(approvers: Vec<(String, [u8; 32])>) -> Self {
        Self {
            id: ApprovalId::new(),
            approvers,
            message: None,
            quorum: 1,
            expires_at: None,
            on_expiry: OnExpiry::default(),
        }
    }
}

/// The consequence if the approvers do not decide in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The step fails.
    #[default]
    Fail,
    /// The expiry counts as approval.
    Approve,
    /// A person decides.
    Review,
}

/// The successful end of a wait.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Resolution {
    /// All signers have signed.
    Signed(Box<SignatureRequest>),
    /// The approvers have approved.
    Approved(Value),
    /// The moment has come.
    Elapsed(Timestamp),
    /// The event has arrived.
    Event {
        /// The event's name.
        name: String,
        /// The event's content.
        payload: Arc<Value>,
    },
}

/// The answer of a handler's probe: did the effect happen?
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// The effect happened, with this output.
    Done(Value),
    /// The effect happened: people have been asked, as this wait describes. The handler runs again to pick
    /// the wait up. If no attempt is left, the step waits; if the execution is canceled, the request is
    /// withdrawn.
    Begun(Wait),
    /// The effect did not happen; running the step is safe.
    NotDone,
    /// The handler cannot tell. A person decides.
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workflow::read_params;

    #[derive(Debug, Deserialize)]
    struct Sized {
        #[serde(rename = "bytes")]
        _bytes: u32,
    }

    #[derive(Debug, Deserialize)]
    struct Params {
        #[serde(rename = "file")]
        _file: Sized,
        #[serde(rename = "others", default)]
        _others: Vec<Sized>,
        #[serde(rename = "note")]
        _note: Option<String>,
    }

    fn found(params: Value) -> Vec<(Option<String>, Option<String>)> {
        let Value::Object(params) = params else {
            panic!("no parameters")
        };
        let request = CheckRequest::new(
            OrganizationId::new(),
            NodeId::from("n"),
            "N".into(),
            params,
            Arc::new(Value::Null),
        );
        let issues = request.misfits::<Params>().into_iter();
        issues.map(|it| (it.field, it.message_tech)).collect()
    }

    #[test]
    fn preflight_names_each_misfit_that_the_step_would_refuse() {
        for (params, field, why) in [
            (json!({"file": {}}), "file", "the field “bytes” is required"),
            (
                json!({"file": {"bytes": 1}, "others": [{}]}),
                "others[0]",
                "the field “bytes” is required",
            ),
            (
                json!({"file": {"bytes": -1}}),
                "file.bytes",
                "expected a whole number",
            ),
            (
                json!({"file": {"bytes": 1}, "note": {}}),
                "note",
                "expected a text",
            ),
            (json!({"others": {}}), "others", "expected an array"),
        ] {
            let found = found(params.clone());
            let [(Some(at), Some(tech))] = &found[..] else {
                panic!("{params}: {found:?}")
            };
            assert_eq!(at, field);
            assert!(tech.contains(why), "{tech}");
            let failure = read_params::<Params>(params).expect_err("the step refuses it");
            if field != "others" {
                assert_eq!(failure.context.tech.as_ref(), Some(tech));
            }
        }
        assert_eq!(
            found(json!({"note": "x"})),
            [],
            "a whole parameter is missing"
        );
        assert_eq!(
            found(json!({"file": "{{steps.a.file}}"})),
            [],
            "only a later step tells"
        );
    }
}
