//! Five steps, one of them retried, and a wait for a signature - on the memory adapters.

use std::{error::Error, sync::Arc};

use docg_core::engine::{StartRequest, WorkerOptions};
use docg_core::signature::{NewSignatureRequest, NewSigner, SignerFact};
use docg_core::{event::EventData, observe::Actor, prelude::*, time::Timestamp};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

fn engine() -> Engine {
    let spec = |name: &'static str, phase| {
        NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
    };
    Engine::builder(
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryBus::default()),
    )
    .step(compute(
        spec("extract", Phase::Trigger),
        |_, p: Value| async move { Ok(json!({"deal": p["in"]})) },
    ))
    .step(compute(
        spec("render", Phase::Render),
        |_, p: Value| async move { Ok(json!({"text": p["in"].to_string()})) },
    ))
    .step(effect(
        spec("save", Phase::Save).safe_to_repeat(),
        |_, _: Value| async { StepOutcome::done(json!({})) },
    ))
    .step(effect(
        spec("send", Phase::Delivery).safe_to_repeat(),
        |context, _: Value| async move {
            match context.attempt {
                1 => Err(StepFailure::retryable(
                    "service_unavailable",
                    "The mail server is busy.",
                )),
                attempt => StepOutcome::done(json!({"accepted_at_attempt": attempt})),
            }
        },
    ))
    .step(effect(
        spec("sign", Phase::Signature),
        |context, _: Value| async move {
            let signers = [NewSigner::new("signer@example.com")];
            Ok(StepOutcome::Wait(Wait::Signatures(
                NewSignatureRequest::new("desk", context.idempotency_key(), signers),
            )))
        },
    ))
    .build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (engine, organization, workflow) = (engine(), OrganizationId::new(), WorkflowId::new());
    let workers = engine.start_workers(WorkerOptions::default());
    let definition: WorkflowDraft = serde_json::from_value(json!({"name": "Contract", "nodes": [
        {"id": "extract", "type": "extract", "params": {"in": "{{trigger.deal}}"}},
        {"id": "render", "type": "render", "params": {"in": "{{steps.extract.deal}}"}, "when": "trigger.deal.amount > 0"},
        {"id": "save", "type": "save", "params": {"in": "{{steps.render.text}}"}},
        {"id": "send", "type": "send", "retry": {"max_attempts": 3, "initial_ms": 50}},
        {"id": "sign", "type": "sign"},
    ]}))?;
    engine
        .put_workflow(organization, workflow, definition, None)
        .await?;
    let start = StartRequest::new(organization, workflow, Actor::user("embedded"));
    let run = engine
        .start(start.trigger_data(json!({"deal": {"amount": 120_000}})))
        .await?
        .record
        .execution
        .id;
    let mut events = engine.feed(organization, run, 0).await?;
    while let Some(event) = events.next().await.transpose()? {
        eprintln!(
            "{:>3}% {:<9} {}",
            event.progress,
            event.status,
            event.event_type()
        );
        if let EventData::SignatureRequested {
            signature_request_id,
            ..
        } = event.data
        {
            let signed = vec![SignerFact::signed("signer@example.com", Timestamp::now())];
            engine
                .report_signers(
                    organization,
                    signature_request_id,
                    signed,
                    Actor::user("front desk"),
                )
                .await?;
        }
    }
    workers.shutdown().await;
    Ok(())
}
