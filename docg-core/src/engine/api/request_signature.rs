//! A new execution that requests signatures on the document of a completed one.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    ControlRequest, IdempotencyKey, Started,
    start::{chain_faults, refuse_faults},
};
use crate::{
    engine::{Command, Engine, EngineError, FieldFault, machine::NewExecutionFacts},
    i18n::Text,
    ids::{ExecutionId, NodeId},
    limits,
    run::{Inputs, Phase, Step, StepStatus},
    signature::MAX_SIGNERS,
    storable,
    workflow::{Node, NodeSpec, OnError, Registry, RetryPolicy, Settings, Workflow},
};

/// The trigger type of executions that request signatures on the document of another execution.
pub const REQUEST_SIGNATURE: &str = "request_signature";
/// The parameters that a node type must take to request signatures.
const PARAMS: [&str; 3] = ["provider", "file", "signers"];

/// The node type and the default provider by which [`Engine::request_signature`] requests signatures.
#[derive(Debug, Clone)]
pub(crate) struct SignatureNode {
    pub(crate) node_type: Arc<str>,
    pub(crate) provider: Arc<str>,
}

impl SignatureNode {
    /// The node type's spec, if it takes the needed parameters and runs in the signature phase.
    fn spec<'r>(&self, registry: &'r Registry) -> Option<&'r NodeSpec> {
        let spec = registry.get(&self.node_type)?.spec();
        let takes = PARAMS.iter().all(|name| spec.find_param(name).is_some());
        (takes && spec.phases.contains(&Phase::Signature)).then_some(spec)
    }
}

/// The signers of a document, and the provider that asks them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RequestSignature {
    /// The signature provider; `None` takes the engine's default.
    pub provider: Option<String>,
    /// A list of `{email, name?, order?}`. Preflight of the new execution checks it.
    pub signers: Vec<Value>,
    /// The correlation id, which related calls share; `None` takes that of the completed execution.
    pub correlation_id: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
    /// The idempotency key. If it is set, a repeat of this request returns the first execution.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl RequestSignature {
    /// A request to these signers through the default provider.
    #[must_use]
    pub fn new(signers: Vec<Value>) -> Self {
        Self {
            signers,
            ..Self::default()
        }
    }

    /// Sets the signature provider.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = Some(name.into());
        self
    }

    origin_setters!();

    /// The part of the request that must be equal in a repeat: what it asks for, without who asks and when.
    fn content(&self, execution: ExecutionId) -> Value {
        json!({
            "call": "request_signature",
            "execution_id": execution,
            "provider": self.provider,
            "signers": self.signers,
        })
    }
}

impl Engine {
    /// Creates a new execution that requests signatures on the document of a completed one. The completed
    /// execution stays unchanged. The document is the `file` of the last step that produced one.
    ///
    /// The new execution has one node, of the type set by
    /// [`EngineBuilder::signature_requests`](crate::engine::EngineBuilder::signature_requests). It runs like
    /// any other execution, and its preflight checks the signers. Its trigger data hold `provider`, `file`
    /// and `signers`, so that a person can correct them in a review.
    ///
    /// # Errors
    ///
    /// `NotFound`; `InvalidTransition` if the execution is not completed; `Unreadable`; `VersionMismatch`;
    /// `NoDocument`; `SignaturesNotConfigured`; `InvalidInput` if the provider is blank, there are more than
    /// [`MAX_SIGNERS`] signers, a signer is nested too deep, or a text breaks its [limit](crate::limits);
    /// `KeyReused`.
    pub async fn request_signature(
        &self,
        request: ControlRequest,
        mut how: RequestSignature,
    ) -> Result<Started, EngineError> {
        let signers = how.signers.iter_mut().enumerate();
        let too_deep: Vec<_> = signers
            .filter_map(|(index, signer)| {
                storable::refuse_deep(signer, || format!("/signers/{index}"))
            })
            .collect();
        let called = chain_faults(
            &request.actor,
            how.correlation_id.as_deref(),
            how.traceparent.as_deref(),
            how.idempotency_key.as_ref(),
        );
        let of_provider = limits::PROVIDER.of_field(how.provider.as_deref());
        let too_many = (how.signers.len() > MAX_SIGNERS).then(|| {
            let text = Text::key("fault-too-many").with("most", MAX_SIGNERS);
            FieldFault::new("/signers", "too_many", text)
        });
        let of_signers = how.signers.iter().enumerate().flat_map(|(index, signer)| {
            [limits::NAME, limits::EMAIL]
                .into_iter()
                .filter_map(move |limit| {
                    let text = signer.get(limit.name)?.as_str()?;
                    limit.fault(&format!("/signers/{index}/{}", limit.name), text)
                })
        });
        refuse_faults(
            of_provider
                .into_iter()
                .chain(too_many)
                .chain(called)
                .chain(too_deep)
                .chain(of_signers),
        )?;
        let (organization, id) = (request.organization_id, request.execution_id);
        let key = how.idempotency_key.take();
        let idempotency = key.map(|key| key.into_stored(|| how.content(id)));
        let (record, _) = self.allowed(&request, Command::RequestSignature).await?;
        let old = &record.execution;
        let configured = self.inner.signature_node.as_ref();
        let configured = configured.ok_or(EngineError::SignaturesNotConfigured)?;
        let spec = configured
            .spec(&self.inner.registry)
            .ok_or(EngineError::SignaturesNotConfigured)?;
        // A dry run renders only a preview, which is saved nowhere.
        let steps = match old.dry_run {
            true => Vec::new(),
            false => self.inner.store.steps(organization, id).await?,
        };
        let file = document(&steps).ok_or(EngineError::NoDocument)?;
        let snapshot = self.inner.store.snapshot(organization, id).await?;
        let followed = snapshot.ok_or(EngineError::NotFound("execution"))?;
        let provider = how
            .provider
            .unwrap_or_else(|| configured.provider.to_string());
        let correlation_id = how
            .correlation_id
            .map_or_else(|| Arc::clone(&old.correlation_id), Into::into);
        let data = json!({"provider": provider, "file": file, "signers": how.signers});
        self.create(NewExecutionFacts {
            workflow: Arc::new(one_node(&followed, spec)),
            inputs: Inputs {
                trigger_data: data.into(),
                ..Inputs::default()
            },
            created_by: request.actor,
            trigger_type: REQUEST_SIGNATURE.into(),
            dry_run: false,
            until_phase: None,
            correlation_id,
            traceparent: how.traceparent.map(Into::into),
            retry_of: None,
            follows: Some(old.id),
            attempt: 1,
            reuse: Vec::new(),
            idempotency,
        })
        .await
    }
}

/// The `file` of the last step that produced a file.
fn document(steps: &[Step]) -> Option<Value> {
    let done = steps
        .iter()
        .rev()
        .filter(|step| step.status() == StepStatus::Success);
    done.filter_map(|step| step.output.as_ref()?.get("file"))
        .find(|file| !file.is_null())
        .cloned()
}

/// The workflow of the new execution. It has the id of the completed execution's workflow, and is stored only
/// with the new execution.
fn one_node(followed: &Workflow, spec: &NodeSpec) -> Workflow {
    // The caller's values are passed as trigger data, so a `{{path}}` inside them is text and not a variable.
    let params = PARAMS.map(|name| (name.to_owned(), format!("{{{{trigger.{name}}}}}").into()));
    let node = Node {
        id: NodeId::from(REQUEST_SIGNATURE),
        node_type: Arc::clone(&spec.node_type),
        label: Arc::clone(&spec.node_type),
        phase: Phase::Signature,
        when: None,
        params: Map::from_iter(params),
        retry: RetryPolicy::default(),
        timeout_ms: spec.timeout_ms,
        on_error: OnError::Fail,
    };
    Workflow {
        id: followed.id,
        organization_id: followed.organization_id,
        name: followed.name.clone(),
        version: followed.version,
        input_schema: Map::new(),
        settings: Settings {
            confirm_before_delivery: false,
            ..followed.settings.clone()
        },
        nodes: vec![Arc::new(node)],
        created_at: followed.created_at,
        updated_at: followed.updated_at,
        unreadable: false,
    }
}
