//! `http-request`: a node type that calls an HTTP service. `call` makes the call within limits, `guard` keeps
//! it out of the server's own network, and `verdict` decides whether an answer fails the step.

mod call;
mod guard;
mod verdict;

use std::sync::Arc;

use async_trait::async_trait;
use docg_core::{
    error::StepFailure,
    preflight::Issue,
    run::Phase,
    workflow::{
        ComputeHandler, EffectContext, EffectHandler, Handler, NodeSpec, ParamKind, ParamSpec,
        Probe, Resolution, StepContext, StepOutcome, handler::CheckRequest, read_params,
    },
};
use serde_json::{Value, json};

use call::{Params, call};

struct HttpRequest {
    spec: NodeSpec,
    allow_private: bool,
}

/// The handler of the node type `http-request`.
pub(super) fn handler(allow_private: bool) -> Handler {
    crate::tls::prepare();
    let methods = vec!["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
    let spec = NodeSpec::new("http-request", Phase::Trigger)
        .any_phase()
        .param(ParamSpec::required("method", ParamKind::OneOf(methods)))
        .param(ParamSpec::required("url", ParamKind::Url))
        .param(ParamSpec::optional("headers", ParamKind::Object))
        .param(ParamSpec::optional("body", ParamKind::Json))
        .outputs(["status", "headers", "body"]);
    Handler::Effect(Arc::new(HttpRequest {
        spec,
        allow_private,
    }))
}

#[async_trait]
impl EffectHandler for HttpRequest {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        call::issues(&request, self.allow_private)
    }

    async fn run(&self, context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
        let key = context.idempotency_key();
        let output = call(
            &context,
            read_params::<Params>(params)?,
            Some(key),
            self.allow_private,
        )
        .await?;
        Ok(StepOutcome::Done(output))
    }

    async fn resumed(
        &self,
        context: EffectContext,
        params: Value,
        _resolution: Resolution,
    ) -> Result<StepOutcome, StepFailure> {
        // Never called: this node type never waits.
        self.run(context, params).await
    }

    /// Answers "not done" for an idempotent call, so that it is repeated. For any other call the outcome
    /// stays unknown.
    async fn probe(&self, _context: EffectContext, params: Value) -> Probe {
        match read_params::<Params>(params) {
            Ok(params) if params.is_idempotent() => Probe::NotDone,
            _ => Probe::Unknown,
        }
    }

    fn preview(&self) -> Option<Arc<dyn ComputeHandler>> {
        Some(Arc::new(Preview {
            spec: self.spec.clone(),
            allow_private: self.allow_private,
        }))
    }
}

/// The handler for dry runs: it makes calls that only read, and skips all other calls.
struct Preview {
    spec: NodeSpec,
    allow_private: bool,
}

#[async_trait]
impl ComputeHandler for Preview {
    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    async fn check(&self, request: CheckRequest) -> Vec<Issue> {
        call::issues(&request, self.allow_private)
    }

    async fn run(&self, context: StepContext, params: Value) -> Result<Value, StepFailure> {
        let params = read_params::<Params>(params)?;
        if params.is_safe() {
            return call(&context, params, None, self.allow_private).await;
        }
        Ok(json!({"status": null, "headers": {}, "body": null, "reason": "dry_run"}))
    }
}
