//! Two workers, of which one is cut off from the store in the middle of a run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use docg_core::{
    conformance::{Fault, FaultyStore},
    engine::{Engine, StartRequest, WorkerOptions},
    ids::{OrganizationId, WorkflowId},
    observe::Actor,
    ports::{ExecutionReader, Store},
    prelude::*,
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

const PATIENCE: Duration = Duration::from_secs(20);

/// An engine whose effect says that it has begun, and ends when it may.
fn engine(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    begun: &mpsc::UnboundedSender<()>,
    gate: &Arc<Notify>,
) -> Engine {
    let (begun, gate) = (begun.clone(), Arc::clone(gate));
    let spec = NodeSpec::new("effect", Phase::Save);
    let quick = effect(NodeSpec::new("quick", Phase::Save), |_, _: Value| async {
        StepOutcome::done(json!({}))
    });
    Engine::builder(store, Arc::new(MemoryBus::default()))
        .clock(clock)
        .step(quick.probe(|_, _| async { Probe::NotDone }))
        .step(effect(spec, move |_, _: Value| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            async move {
                begun.send(()).expect("the test listens");
                gate.notified().await;
                StepOutcome::done(json!({}))
            }
        }))
        .build()
}

#[tokio::test]
async fn who_was_cut_off_does_not_take_what_its_successor_wrote_for_its_own() {
    let store = Arc::new(MemoryStore::default());
    let (begun, mut effects) = mpsc::unbounded_channel();
    let gate = Arc::<Notify>::default();

    // The first cannot say that it begins the effect, nor that it still lives.
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
    let first = engine(Arc::new(faulty), Arc::new(SystemClock), &begun, &gate);
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let nodes = json!([{"id": "a", "type": "quick"}, {"id": "b", "type": "effect"}]);
    let draft = json!({"name": "test", "nodes": nodes});
    let draft = serde_json::from_value(draft).expect("readable");
    let stored = first.put_workflow(organization, workflow, draft, None);
    stored.await.expect("a valid definition");
    let first_workers = first
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let id = first.start(request).await.expect("accepted");
    let id = id.record.execution.id;
    tries.recv().await.expect("it tries to commit");

    // For the second it is an hour later, and the first's lease has run out long ago.
    let later = Timestamp::now() + Duration::from_secs(3_600);
    let second = engine(
        store.clone(),
        Arc::new(ManualClock::new(later)),
        &begun,
        &gate,
    );
    let second_workers = second
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let started = tokio::time::timeout(PATIENCE, effects.recv()).await;
    started.expect("the second begins the effect");

    // The first tries again while the version is the one that it wanted to write.
    cut_off.store(false, Ordering::SeqCst);
    let asks_for_its_lease = async { while tries.recv().await.expect("it goes on") != "renew" {} };
    tokio::select! {
        () = asks_for_its_lease => {}
        _ = effects.recv() => panic!("the effect began twice"),
        () = tokio::time::sleep(PATIENCE) => panic!("the first gave up without asking"),
    }
    first_workers.shutdown().await;
    assert!(effects.try_recv().is_err(), "the effect began twice");

    gate.notify_one();
    let reading = async {
        loop {
            let record = store.execution(organization, id).await.expect("reads");
            if record.expect("is there").execution.status == Status::Completed {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let completed = tokio::time::timeout(PATIENCE, reading).await;
    completed.expect("the second completes it");
    second_workers.shutdown().await;
}
