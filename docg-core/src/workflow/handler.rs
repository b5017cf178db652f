//! The traits that do a node's work.
//!
//! A handler either computes ([`ComputeHandler`]) or touches the world ([`EffectHandler`]). The
//! two are apart in types, and a dry run is never given the second.
//!
//! A handler may be told to stop at any time:
//! [`cancellation`](super::context::StepFacts::cancellation) fires, and
//! [`stop_reason`](super::context::StepFacts::stop_reason) says why. See [`StopReason`](super::StopReason)
//! for what to return then, and what becomes of any other answer.
//!
//! Handlers are async and must not block their thread: what computes for long belongs into
//! `tokio::task::spawn_blocking`. One that blocks cannot be dropped at its deadline, and holds up
//! whatever else its thread has to do.

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

/// A node type's implementation, as the engine is given it.
#[derive(Clone)]
pub enum Handler {
    /// Computes; runs in dry runs too.
    Compute(Arc<dyn ComputeHandler>),
    /// Touches the world; never runs in a dry run.
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

/// What a preflight check of a handler is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckRequest {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The node that is checked.
    pub node_id: NodeId,
    /// What people call the node.
    pub label: Arc<str>,
    /// The parameters as far as trigger data alone gives them; what only a later step can tell
    /// still holds its `{{path}}`.
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

    /// The parameters that are known and of their declared kinds. What only a later step can tell, and
    /// what preflight has refused already, is not among them.
    #[must_use]
    pub fn sound_params(&self) -> Map<String, Value> {
        let params = self.params.iter();
        let sound = params.filter(|(name, _)| !self.unsound.contains(*name));
        sound
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Reads the parameters that are known as [`read_params`](super::read_params) does for a step, and
    /// tells what it would refuse. Parameters may be missing.
    #[must_use]
    pub fn misfits<P: DeserializeOwned>(&self) -> Vec<Issue> {
        match read::<P>(Value::Object(self.sound_params())) {
            // Parameters that are required and missing are found by preflight's own rules.
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

/// Work that touches nothing outside: extracting, converting, rendering.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ComputeHandler: Send + Sync + 'static {
    /// What the node type declares.
    fn spec(&self) -> &NodeSpec;
    /// Preflight checks beyond what the declared parameters already give.
    async fn check(&self, request: CheckRequest) -> Vec<Issue>;
    /// Does the work. It may be repeated at any time.
    ///
    /// # Errors
    ///
    /// The failure says itself whether it may be retried, needs review, or is final; told to stop, the
    /// handler returns [`StepFailure::stopped`].
    async fn run(&self, context: StepContext, params: Value) -> Result<Value, StepFailure>;
}

/// Work that touches the world: saving, sending, asking for signatures.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait EffectHandler: Send + Sync + 'static {
    /// What the node type declares.
    fn spec(&self) -> &NodeSpec;
    /// Preflight checks beyond what the declared parameters already give.
    async fn check(&self, request: CheckRequest) -> Vec<Issue>;
    /// Does the work, or begins it and asks to wait. At least once: use
    /// [`EffectContext::idempotency_key`].
    ///
    /// # Errors
    ///
    /// The failure says itself whether it may be retried, needs review, is final, or leaves open
    /// whether the effect happened. Told to stop before the effect, the handler returns
    /// [`StepFailure::stopped`]; an error that is not retryable then leaves open whether the effect
    /// happened.
    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure>;
    /// Goes on after a wait that [`run`](Self::run) asked for has ended well. It may be repeated at any
    /// time: the effect was the asking.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run). Only [`outcome_unknown`](StepFailure::outcome_unknown) leaves anything
    /// open here.
    async fn resumed(
        &self,
        context: EffectContext,
        params: Value,
        resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure>;
    /// Tells whether the effect happened: after a crash, after an attempt that could not tell, and after
    /// one that failed when it was told to stop. Not asked where the node type is declared safe to
    /// repeat.
    async fn probe(&self, context: EffectContext, params: Value) -> Probe;
    /// What a dry run does in this handler's place, for nodes of the trigger and render phases;
    /// `None` skips the step.
    fn preview(&self) -> Option<Arc<dyn ComputeHandler>>;
}

/// What a handler with an effect returns.
#[derive(Debug, Clone)]
pub enum StepOutcome {
    /// The step is done, with this output.
    Done(Value),
    /// The step goes on when this has come.
    Wait(Wait),
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Wait {
    /// Signatures on a document. The engine tracks the signers.
    Signatures(NewSignatureRequest),
    /// A decision of approvers. The engine collects the votes.
    Approval(NewApproval),
}

/// A request for approval, as a handler makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewApproval {
    /// Names the request; the handler needs it for the links that it sends.
    pub id: ApprovalId,
    /// Who may decide, each with the SHA-256 of the token in their link.
    pub approvers: Vec<(String, [u8; 32])>,
    /// What they are told.
    pub message: Option<String>,
    /// How many must agree. One refusal decides.
    pub quorum: u32,
    /// When it is decided without them: after the step's
    /// [`started_at`](crate::workflow::context::StepFacts::started_at), and within ten years.
    pub expires_at: Option<Timestamp>,
    /// What an expiry does.
    pub on_expiry: OnExpiry,
}

impl NewApproval {
    /// Asks for one approval of any of these, without an end. Each comes with the
    /// [hash](crate::approval::token_hash) of the token in their link.
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

/// What happens when approvers do not decide in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The step fails.
    #[default]
    Fail,
    /// It counts as approved.
    Approve,
    /// A person decides.
    Review,
}

/// How a wait ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Resolution {
    /// All have signed.
    Signed(Box<SignatureRequest>),
    /// The approvers agreed.
    Approved(Value),
}

/// What is known of an effect after a crash.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// It happened, with this output.
    Done(Value),
    /// It happened, and this is what the step now waits for. The handler runs again to pick it up;
    /// where it may not any more, the step waits as it is, or what was asked for is withdrawn.
    Begun(Wait),
    /// It did not happen; running it is safe.
    NotDone,
    /// It cannot be told. A person decides.
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
            // What is missing as a whole is told by preflight's own rules.
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
