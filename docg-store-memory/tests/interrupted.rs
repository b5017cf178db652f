//! An execution that kills whoever takes it is parked after some tries, and harms nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use docg_core::{
    engine::{
        ControlRequest, Engine, Fact, Observer, Resume, StartRequest, WorkerOptions, Workers,
    },
    error::codes,
    ids::{OrganizationId, WorkflowId},
    observe::Actor,
    ports::MAX_TAKEOVERS,
    prelude::*,
    run::{Execution, WaitKind},
    time::{ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

/// Panics in the driver of whoever claims, so often.
struct Killer {
    claims: AtomicU32,
    kills: u32,
    claimed: mpsc::UnboundedSender<u32>,
}

impl Observer for Killer {
    fn observe(&self, fact: &Fact<'_>) {
        if let Fact::Claimed { .. } = fact {
            let claim = self.claims.fetch_add(1, Ordering::SeqCst) + 1;
            self.claimed.send(claim).expect("the test listens");
            assert!(claim > self.kills, "the worker dies");
        }
    }
}

struct World {
    clock: ManualClock,
    engine: Engine,
    workers: Workers,
    organization: OrganizationId,
    claimed: mpsc::UnboundedReceiver<u32>,
    /// How often the handler was called.
    calls: Arc<AtomicU32>,
    /// How often it was asked whether its effect had happened.
    probes: Arc<AtomicU32>,
}

impl World {
    /// Workers that die of the first `kills` claims.
    fn new(kills: u32) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let calls = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&calls);
        let probes = Arc::<AtomicU32>::default();
        let asked = Arc::clone(&probes);
        let store = Arc::new(MemoryStore::default());
        let spec = NodeSpec::new("effect", Phase::Save);
        let engine = Engine::builder(store, Arc::new(MemoryBus::default()))
            .clock(Arc::new(clock.clone()))
            .step(
                effect(spec, move |_, _: Value| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async { StepOutcome::done(json!({})) }
                })
                .probe(move |_, _| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    async { Probe::NotDone }
                }),
            )
            .build();
        let (sender, claimed) = mpsc::unbounded_channel();
        engine.observe(Arc::new(Killer {
            claims: AtomicU32::new(0),
            kills,
            claimed: sender,
        }));
        let workers = engine
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        Self {
            clock,
            engine,
            workers,
            organization: OrganizationId::new(),
            claimed,
            calls,
            probes,
        }
    }

    async fn start(&self) -> ExecutionId {
        let workflow = WorkflowId::new();
        let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "effect"}]});
        let draft = serde_json::from_value(draft).expect("readable");
        let stored = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = self.engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    /// Lets time pass until that many claims were made.
    async fn claims(&mut self, wanted: u32) {
        let claims = async {
            loop {
                match self.claimed.try_recv() {
                    Ok(claim) if claim == wanted => return,
                    Ok(_) => {}
                    Err(_) => {
                        self.clock.advance(Duration::from_secs(1));
                        for _ in 0..20 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
            }
        };
        let claimed = tokio::time::timeout(PATIENCE, claims).await;
        claimed.expect("leases run out, and others claim");
    }

    /// The execution, once it has come to this status.
    async fn status(&self, id: ExecutionId, status: Status) -> Execution {
        let reading = async {
            loop {
                let record = self.engine.execution(self.organization, id).await;
                let execution = record.expect("is there").execution;
                if execution.status == status {
                    return execution;
                }
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reading).await;
        reached.unwrap_or_else(|_| panic!("{id} does not become {status}"))
    }

    fn request(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("somebody"))
    }
}

#[tokio::test]
async fn an_execution_that_kills_its_workers_waits_for_a_person_and_others_go_on() {
    let mut world = World::new(MAX_TAKEOVERS);
    let id = world.start().await;
    world.claims(MAX_TAKEOVERS + 1).await;
    let parked = world.status(id, Status::NeedsReview).await;
    let error = parked.error.expect("says why");
    assert_eq!(error.code, codes::TOO_MANY_INTERRUPTIONS);
    assert_eq!(parked.waiting_for.expect("waits").kind, WaitKind::Review);
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);

    let other = world.start().await;
    world.status(other, Status::Completed).await;
    // A person has it tried again, from the first count on.
    let resumed = world.engine.resume(world.request(id), Resume::default());
    resumed.await.expect("is allowed");
    world.status(id, Status::Completed).await;
    assert_eq!(world.calls.load(Ordering::SeqCst), 2);
    world.workers.shutdown().await;
}

#[tokio::test]
async fn one_that_dies_less_often_goes_on() {
    let mut world = World::new(MAX_TAKEOVERS - 1);
    let id = world.start().await;
    world.claims(MAX_TAKEOVERS).await;
    world.status(id, Status::Completed).await;
    assert_eq!(world.probes.load(Ordering::SeqCst), 0, "nothing had begun");
    world.workers.shutdown().await;
}

#[tokio::test]
async fn a_cancel_that_nobody_lived_to_apply_ends_it_without_asking_its_handlers() {
    let mut world = World::new(MAX_TAKEOVERS);
    let id = world.start().await;
    world.claims(2).await;
    let canceled = world.engine.cancel(world.request(id), None).await;
    canceled.expect("is accepted");
    world.claims(MAX_TAKEOVERS + 1).await;
    world.status(id, Status::Canceled).await;
    assert_eq!(world.calls.load(Ordering::SeqCst), 0);
    assert_eq!(world.probes.load(Ordering::SeqCst), 0);
    world.workers.shutdown().await;
}
