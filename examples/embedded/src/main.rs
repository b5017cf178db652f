#![doc = include_str!("../README.md")]

use std::{error::Error, sync::Arc};

use docg_core::prelude::*;
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

fn spec(name: &'static str, phase: Phase) -> NodeSpec {
    NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
}

async fn pass(_: StepContext, data: Value) -> Result<Value, StepFailure> {
    Ok(data)
}

async fn send(context: EffectContext, _: Value) -> Result<StepOutcome, StepFailure> {
    match context.attempt {
        1 => Err(StepFailure::retryable("rate_limit", "The server is busy.")),
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
    let (store, bus) = <(Arc<MemoryStore>, Arc<MemoryBus>)>::default();
    let save = |_, saved: Value| async { StepOutcome::done(saved) };
    let engine = Engine::builder(store, bus)
        .step(compute(spec("extract", Phase::Trigger), pass))
        .step(compute(spec("render", Phase::Render), pass))
        .step(effect(spec("save", Phase::Save).safe_to_repeat(), save))
        .step(effect(spec("send", Phase::Delivery).safe_to_repeat(), send))
        .step(effect(spec("sign", Phase::Signature), sign))
        .build();
    let workers = engine.start_workers(WorkerOptions::default())?;
    let (org, id) = (OrganizationId::new(), WorkflowId::new());
    let workflow = serde_json::from_str(include_str!("contract.json"))?;
    engine.put_workflow(org, id, workflow, None).await?;
    let start = StartRequest::new(org, id, Actor::user("embedded"))
        .trigger_data(json!({"deal": {"amount": 120_000}}));
    let run = engine.start(start).await?.record.execution.id;
    let mut events = engine.feed(org, run, 0).await?;
    while let Some(event) = events.next().await.transpose()? {
        eprintln!("{event}");
        if let Some(id) = event.data.requested_signatures() {
            let signed = vec![SignerFact::signed("signer@example.com", event.timestamp)];
            let desk = Actor::user("front desk");
            engine.report_signers(org, id, signed, desk).await?;
        }
    }
    workers.shutdown().await;
    Ok(())
}
