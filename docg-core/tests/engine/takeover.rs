//! Two workers: the first is cut off from the store in the middle of an execution, and the second takes over.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use docg_core::{
    conformance::{Fault, FaultyStore},
    engine::EngineBuilder,
    ports::Store,
    prelude::*,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::world::{PATIENCE, World, an_hour_later, soon};

/// Builds an engine with an effect that sends to `begun` when it begins, and ends when the gate is notified.
fn builder(
    store: Arc<dyn Store>,
    begun: &mpsc::UnboundedSender<()>,
    gate: &Arc<Notify>,
) -> EngineBuilder {
    let (begun, gate) = (begun.clone(), Arc::clone(gate));
    let spec = NodeSpec::new("effect", Phase::Save);
    let quick = effect(NodeSpec::new("quick", Phase::Save), |_, _: Value| async {
        StepOutcome::done(json!({}))
    });
    Engine::builder(store, Arc::new(MemoryBus::default()))
        .step(quick.probe(|_, _| async { Probe::NotDone }))
        .step(effect(spec, move |_, _: Value| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            async move {
                begun.send(()).expect("the test listens");
                gate.notified().await;
                StepOutcome::done(json!({}))
            }
        }))
}

#[tokio::test]
async fn a_worker_that_was_cut_off_does_not_take_its_successors_commit_for_its_own() {
    let store = Arc::new(MemoryStore::default());
    let (begun, mut effects) = mpsc::unbounded_channel();
    let gate = Arc::<Notify>::default();

    // While cut off, the first worker can neither commit the effect's intent nor renew its lease.
    let cut_off = Arc::new(AtomicBool::new(true));
    let (tried, mut tries) = mpsc::unbounded_channel();
    let is_cut_off = Arc::clone(&cut_off);
    let faulty = FaultyStore::new(store.clone(), move |call| {
        let concerned = matches!(call.operation, "commit" | "renew");
        if concerned {
            let _ = tried.send(call.operation);
        }
        (concerned && is_cut_off.load(Ordering::SeqCst)).then_some(Fault::Before)
    });
    let first = World::new(builder(Arc::new(faulty), &begun, &gate));
    let nodes = json!([{"id": "a", "type": "quick"}, {"id": "b", "type": "effect"}]);
    let workflow = first.put(nodes).await;
    let first_workers = first.workers();
    let id = first.accept(first.request(workflow)).await;
    tries.recv().await.expect("it tries to commit");

    // By the second worker's clock, the first worker's lease expired long ago.
    let second = first.beside(builder(store, &begun, &gate).clock(an_hour_later()));
    let second_workers = second.workers();
    soon(effects.recv())
        .await
        .expect("the second begins the effect");

    // Reconnect the first worker. It repeats its commit, and the stored version has the number that it wanted
    // to write.
    cut_off.store(false, Ordering::SeqCst);
    let renews = async { while tries.recv().await.expect("it goes on") != "renew" {} };
    tokio::select! {
        () = renews => {}
        _ = effects.recv() => panic!("the effect began twice"),
        () = tokio::time::sleep(PATIENCE) => panic!("the first gave up without a renewal"),
    }
    first_workers.shutdown().await;
    assert!(effects.try_recv().is_err(), "the effect began twice");

    gate.notify_one();
    second.until_status(id, Status::Completed).await;
    second_workers.shutdown().await;
}
