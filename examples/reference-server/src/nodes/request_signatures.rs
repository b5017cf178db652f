//! `request-signatures`: asks people to sign a document, and waits until all of them have signed.

use std::sync::Arc;

use async_trait::async_trait;
use docg_core::{
    error::{StepFailure, codes},
    i18n::Text,
    preflight::{Domain, Issue},
    run::Phase,
    signature::{
        Envelope, EnvelopeRequest, NewSignatureRequest, SHORTEST_REMINDING_MS, SignatureProvider,
        Signers,
    },
    time::Millis,
    workflow::{
        ComputeHandler, EffectContext, EffectHandler, Handler, NodeSpec, ParamKind, ParamSpec,
        Probe, Resolution, StepContext, StepOutcome, Wait, handler::CheckRequest, read_params,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::text;
use crate::files::Document;

/// The node type's name.
pub const REQUEST_SIGNATURES: &str = "request-signatures";

#[derive(Deserialize)]
struct Params {
    provider: String,
    file: Document,
    signers: Signers,
    message: Option<String>,
    expires_in_ms: Option<Millis>,
    remind_every_ms: Option<Millis>,
}

struct RequestSignatures {
    spec: NodeSpec,
    providers: Vec<Arc<dyn SignatureProvider>>,
}

/// The handler of the node type `request-signatures`. A workflow names one of `providers`.
pub(super) fn handler(providers: Vec<Arc<dyn SignatureProvider>>) -> Handler {
    let spec = NodeSpec::new(REQUEST_SIGNATURES, Phase::Signature)
        .param(ParamSpec::required("provider", ParamKind::Connection))
        .param(ParamSpec::required("file", ParamKind::File))
        .param(ParamSpec::required("signers", ParamKind::Signers))
        .param(ParamSpec::optional("message", ParamKind::Text))
        .param(ParamSpec::optional("expires_in_ms", ParamKind::Duration))
        .param(ParamSpec::optional("remind_every_ms", ParamKind::Duration))
        .outputs(["signature_request_id", "envelope_id", "signed_file"])
        .timeout_ms(180_000);
    Handler::Effect(Arc::new(RequestSignatures { spec, providers }))
}

impl RequestSignatures {
    fn read(
        &self,
        context: &EffectContext,
        params: Value,
    ) -> Result<(&Arc<dyn SignatureProvider>, EnvelopeRequest), StepFailure> {
        let params: Params = read_params(params)?;
        let provider = self.provider(&params.provider, context)?;
        // If an earlier request of this step has ended, the new request needs a new key.
        let key = match context.previous_signature {
            Some(ended) => format!("{}/{ended}", context.idempotency_key()),
            None => context.idempotency_key(),
        };
        let (file, signers) = (json!(params.file), params.signers.into_vec());
        let mut request = EnvelopeRequest::new(context.organization_id, key, file, signers);
        request.message = params.message;
        request.expires_at = params
            .expires_in_ms
            .map(|millis| context.started_at.plus_millis(millis.get()));
        request.remind_every_ms = params.remind_every_ms.map(Millis::get);
        Ok((provider, request))
    }

    fn provider(
        &self,
        name: &str,
        context: &StepContext,
    ) -> Result<&Arc<dyn SignatureProvider>, StepFailure> {
        let found = self.providers.iter().find(|known| known.name() == name);
        found.ok_or_else(|| {
            StepFailure::review(
                codes::CONNECTION_ERROR,
                text("issue-connection-error", context, "provider"),
            )
            .tech(format!("this server has no signature provider {name:?}"))
        })
    }
}

/// Makes the wait for the signatures on an envelope.
fn wait_for(
    provider: &dyn SignatureProvider,
    envelope: Envelope,
    request: EnvelopeRequest,
) -> Wait {
    let mut asked =
        NewSignatureRequest::new(provider.name(), envelope.envelope_id, request.signers)
            .file(request.file)
            .details(envelope.details);
    asked.expires_at = request.expires_at;
    asked.remind_every_ms = request
        .remind_every_ms
        .filter(|_| !provider.reminds_itself());
    Wait::Signatures(asked)
}

#[async_trait]
impl EffectHandler for RequestSignatures {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        let every_ms = request
            .params
            .get("remind_every_ms")
            .and_then(Value::as_u64);
        let mut issues = request.misfits::<Params>();
        if !every_ms.is_some_and(|millis| (1..SHORTEST_REMINDING_MS).contains(&millis)) {
            return issues;
        }
        let text = Text::key("issue-reminders-too-frequent").with("label", &request.label);
        let issue = Issue::warning(Domain::Signature, "reminders_too_frequent", text);
        let issue = issue.at(request.node_id).field("remind_every_ms");
        issues.push(issue.tech(format!("the shortest is {SHORTEST_REMINDING_MS}")));
        issues
    }

    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
        let (provider, request) = self.read(&context, params)?;
        let envelope = provider
            .create(request.clone())
            .await
            .map_err(|e| e.into_failure(provider.name(), &context.label))?;
        Ok(StepOutcome::Wait(wait_for(&**provider, envelope, request)))
    }

    async fn resumed(
        &self,
        context: EffectContext,
        _params: Value,
        resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure> {
        let Resolution::Signed(request) = resolution else {
            let failure = StepFailure::fatal(
                codes::INVALID_FIELD_FORMAT,
                Text::key("error-parameters-do-not-fit"),
            );
            return Err(failure.tech("the wait for signatures ended with something else"));
        };
        // Use the provider that took the request, even if the parameters have changed.
        let provider = self.provider(&request.provider, &context)?;
        let signed_file = provider
            .signed_document(&request)
            .await
            .map_err(|e| e.into_failure(provider.name(), &context.label))?;
        Ok(StepOutcome::Done(json!({
            "signature_request_id": request.id,
            "envelope_id": request.envelope_id,
            "signed_file": signed_file,
        })))
    }

    /// Looks for an envelope with the step's idempotency key. If the provider has one, the step waits for the
    /// signatures on it.
    async fn probe(&self, context: EffectContext, params: Value) -> Probe {
        let Ok((provider, request)) = self.read(&context, params) else {
            return Probe::Unknown;
        };
        match provider.find(&request).await {
            Ok(Some(envelope)) => Probe::Begun(wait_for(&**provider, envelope, request)),
            Ok(None) => Probe::NotDone,
            Err(_) => Probe::Unknown,
        }
    }

    fn preview(&self) -> Option<Arc<dyn ComputeHandler>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use docg_core::ids::{NodeId, OrganizationId};

    use super::*;

    #[tokio::test]
    async fn reminders_more_often_than_they_are_sent_are_a_warning() {
        let Handler::Effect(handler) = handler(Vec::new()) else {
            panic!("it has an effect");
        };
        let found = async |every_ms: u64| {
            let params = [("remind_every_ms".to_owned(), json!(every_ms))];
            let request = CheckRequest::new(
                OrganizationId::new(),
                NodeId::from("sign"),
                "Sign".into(),
                params.into_iter().collect(),
                Arc::new(Value::Null),
            );
            let issues = handler.check(request).await;
            issues
                .into_iter()
                .map(|issue| issue.field)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(59_999).await, [Some("remind_every_ms".to_owned())]);
        assert!(found(60_000).await.is_empty());
    }
}
