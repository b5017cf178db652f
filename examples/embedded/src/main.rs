//! Five steps, one of them retried, and a wait for a signature - on the memory adapters.

use std::{error::Error, sync::Arc};

use docg_core::{event::EventData, prelude::*};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

fn spec(name: &'static str, phase: Phase) -> NodeSpec {
    NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
}

async fn send(context: EffectContext, _: Value) -> Result<StepOutcome, StepFailure> {
    match context.attempt {
        1 => Err(StepFailure::retryable(
            "service_unavailable",
            "The mail server is busy.",
        )),
        attempt => StepOutcome::done(json!({"accepted_at_attempt": attempt})),
    }
}

async fn sign(context: EffectContext, _: Value) -> Result<StepOutcome, StepFailure> {
    let signers = [NewSigner::new("signer@example.com")];
    let request = NewSignatureRequest::new("desk", context.idempotency_key(), signers);
    Ok(StepOutcome::Wait(Wait::Signatures(request)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, bus) = (MemoryStore::default(), MemoryBus::default());
    let save = |_, saved: Value| async { StepOutcome::done(saved) };
    let engine = Engine::builder(Arc::new(store), Arc::new(bus))
        .step(compute(
            spec("extract", Phase::Trigger),
            |_, deal: Value| async { Ok(deal) },
        ))
        .step(compute(
            spec("render", Phase::Render),
            |_, text: Value| async { Ok(text) },
        ))
        .step(effect(spec("save", Phase::Save).safe_to_repeat(), save))
        .step(effect(spec("send", Phase::Delivery).safe_to_repeat(), send))
        .step(effect(spec("sign", Phase::Signature), sign))
        .build();
    let workers = engine.start_workers(WorkerOptions::default());

    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let definition = serde_json::from_str(include_str!("contract.json"))?;
    engine
        .put_workflow(organization, workflow, definition, None)
        .await?;
    let start = StartRequest::new(organization, workflow, Actor::user("embedded"))
        .trigger_data(json!({"deal": {"amount": 120_000}}));
    let run = engine.start(start).await?.record.execution.id;

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
            let signed = vec![SignerFact::signed("signer@example.com", engine.now())];
            let desk = Actor::user("front desk");
            engine
                .report_signers(organization, signature_request_id, signed, desk)
                .await?;
        }
    }
    workers.shutdown().await;
    Ok(())
}
