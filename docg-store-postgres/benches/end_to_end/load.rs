//! Executions of five effects through the whole engine, from the start to the end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use docg_core::{
    engine::{Fact, Observer, Workers},
    event::EventData,
    ports::EventBus,
    prelude::*,
};
use docg_store_postgres::{PgStore, PgStoreConfig};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout_at};

pub(crate) const STEPS: usize = 5;
const ORGANIZATIONS: usize = 16;

/// Counts the executions that ended, and lets the next one start for each.
#[derive(Clone)]
struct Ends {
    places: Arc<Semaphore>,
    completed: Arc<AtomicUsize>,
}

impl Observer for Ends {
    fn observe(&self, fact: &Fact<'_>) {
        if matches!(fact, Fact::StatusChanged { to } if *to == Status::Completed) {
            self.completed.fetch_add(1, Ordering::Relaxed);
            self.places.add_permits(1);
        }
    }
}

/// How long after its start a reader saw something of an execution.
pub(crate) struct Seen {
    pub(crate) first_step: Duration,
    pub(crate) ended: Duration,
}

pub(crate) struct Load {
    engine: Engine,
    workers: Workers,
    workflows: Vec<(OrganizationId, WorkflowId)>,
    ends: Ends,
}

impl Load {
    /// An engine with so many workers, as a process would have it.
    pub(crate) async fn new(url: &str, bus: Arc<dyn EventBus>, concurrency: usize) -> Self {
        let store = PgStore::connect(url, PgStoreConfig::default()).await;
        let ends = Ends {
            places: Arc::new(Semaphore::new(0)),
            completed: Arc::default(),
        };
        let spec = NodeSpec::new("effect", Phase::Save)
            .any_phase()
            .safe_to_repeat();
        let engine = Engine::builder(Arc::new(store.expect("connects")), bus)
            .step(effect(spec, |_, _: Value| async {
                StepOutcome::done(json!({}))
            }))
            .build();
        engine.observe(Arc::new(ends.clone()));
        let options = WorkerOptions::concurrency(concurrency);
        let workers = engine.start_workers(options).expect("no other workers run");
        let mut workflows = Vec::new();
        for _ in 0..ORGANIZATIONS {
            let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
            let node = |n: usize| json!({"id": format!("n{n}"), "type": "effect", "phase": "save"});
            let nodes: Vec<_> = (0..STEPS).map(node).collect();
            let draft = json!({"name": "Five effects", "nodes": nodes});
            let draft = serde_json::from_value(draft).expect("a definition");
            let stored = engine.put_workflow(organization, workflow, draft, None);
            stored.await.expect("stores");
            workflows.push((organization, workflow));
        }
        Self {
            engine,
            workers,
            workflows,
            ends,
        }
    }

    /// Keeps so many executions in flight for some time. Returns how many ended, and the time that they took.
    pub(crate) async fn run(&self, in_flight: usize, time: Duration) -> (usize, Duration) {
        let before = self.completed();
        let began = Instant::now();
        self.ends.places.add_permits(in_flight);
        self.start_for(time).await;
        // Wait for the last ones, so that nothing runs on into the next measurement.
        let all = u32::try_from(in_flight).expect("a few");
        let places = self.ends.places.acquire_many(all).await;
        places.expect("stays open").forget();
        (self.completed() - before, began.elapsed())
    }

    /// Does the same beside other processes, which may take over executions that start here, and which hand over
    /// as many. Returns how many ended here in this time, and leaves the last ones to the workers.
    pub(crate) async fn run_beside_others(&self, in_flight: usize, time: Duration) -> usize {
        self.ends.places.add_permits(in_flight);
        self.start_for(time / 4).await;
        let before = self.completed();
        self.start_for(time).await;
        self.completed() - before
    }

    fn completed(&self) -> usize {
        self.ends.completed.load(Ordering::Relaxed)
    }

    /// Starts an execution for each that ends, until the time is over.
    async fn start_for(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut started = 0;
        while let Ok(place) = timeout_at(end.into(), self.ends.places.acquire()).await {
            place.expect("stays open").forget();
            let (engine, request) = (self.engine.clone(), self.request(started));
            tokio::spawn(async move { engine.start(request).await.expect("starts") });
            started += 1;
        }
    }

    /// Runs one execution of an organization, and returns when a reader saw it.
    pub(crate) async fn run_one(&self, organization: usize) -> Seen {
        let began = Instant::now();
        let request = self.request(organization);
        let organization = request.organization_id;
        let started = self.engine.start(request).await.expect("starts");
        let id = started.record.execution.id;
        let feed = self.engine.feed(organization, id, 0).await;
        let mut feed = feed.expect("follows");
        let mut first_step = None;
        while let Some(event) = feed.next().await {
            if matches!(event.expect("an event").data, EventData::StepStarted { .. }) {
                first_step.get_or_insert(began.elapsed());
            }
        }
        let ended = began.elapsed();
        let place = self.ends.places.acquire().await;
        place.expect("stays open").forget();
        Seen {
            first_step: first_step.expect("it has steps"),
            ended,
        }
    }

    /// Starts so many executions of one organization, some at a time, whether they are worked on or not.
    pub(crate) async fn flood(&self, organization: usize, executions: usize) {
        let starts =
            stream::iter(0..executions).map(|_| self.engine.start(self.request(organization)));
        let mut starts = starts.buffer_unordered(32);
        while let Some(started) = starts.next().await {
            started.expect("starts");
        }
    }

    pub(crate) async fn end(self) {
        self.workers.shutdown().await;
    }

    fn request(&self, number: usize) -> StartRequest {
        let (organization, workflow) = self.workflows[number % ORGANIZATIONS];
        StartRequest::new(organization, workflow, Actor::user("bench"))
    }
}
