//! Organizations with more executions than their share of leases: no worker is idle while it may claim a due
//! execution. Tested on the memory store and the PostgreSQL store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use docg_core::{
    engine::{Engine, Fact, Observer, StartRequest, WorkerOptions},
    ids::{OrganizationId, WorkflowId},
    observe::Actor,
    ports::{EventBus, Store},
    prelude::*,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::Database;
use serde_json::{Value, json};
use tokio::sync::mpsc;

mod support;

/// A test exceeds this time if a single execution waits until a worker polls.
const PATIENCE: Duration = Duration::from_secs(10);

struct Completions(mpsc::UnboundedSender<()>);

impl Observer for Completions {
    fn observe(&self, fact: &Fact<'_>) {
        if matches!(fact, Fact::StatusChanged { to } if *to == Status::Completed) {
            // An error means that the test has already ended.
            let _ = self.0.send(());
        }
    }
}

/// The executions and the worker processes of a test.
struct Plan {
    /// The number of executions of each organization.
    backlog: Vec<usize>,
    processes: Vec<WorkerOptions>,
    /// True if the processes hear each other's wake-ups.
    share_a_bus: bool,
}

/// Both stores. The PostgreSQL store works as long as the returned database lives.
async fn stores() -> (Database, HashMap<&'static str, Arc<dyn Store>>) {
    let database = support::migrated().await;
    let postgres = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let postgres: Arc<dyn Store> = Arc::new(postgres.expect("connects"));
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let stores = HashMap::from([("memory", memory), ("postgres", postgres)]);
    (database, stores)
}

fn engine(store: &Arc<dyn Store>, bus: &Arc<dyn EventBus>) -> Engine {
    let spec = NodeSpec::new("nothing", Phase::Render);
    Engine::builder(Arc::clone(store), Arc::clone(bus))
        .step(compute(spec, |_, _: Value| async { Ok(json!({})) }))
        .build()
}

async fn all_is_done_without_a_poll(plan: Plan) {
    let (_database, stores) = stores().await;
    for (name, store) in &stores {
        let bus: Arc<dyn EventBus> = Arc::new(MemoryBus::default());
        let starting = engine(store, &bus);
        for executions in &plan.backlog {
            let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
            let draft = json!({"name": "test", "nodes": [{"id": "a", "type": "nothing"}]});
            let draft = serde_json::from_value(draft).expect("readable");
            let stored = starting.put_workflow(organization, workflow, draft, None);
            stored.await.expect("a valid definition");
            for _ in 0..*executions {
                let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
                starting.start(request).await.expect("accepted");
            }
        }
        let (sender, mut completed) = mpsc::unbounded_channel();
        let begin = |options: &WorkerOptions| {
            let own: Arc<dyn EventBus> = Arc::new(MemoryBus::default());
            let engine = engine(store, if plan.share_a_bus { &bus } else { &own });
            engine.observe(Arc::new(Completions(sender.clone())));
            engine
                .start_workers(*options)
                .expect("no other workers run")
        };
        let workers: Vec<_> = plan.processes.iter().map(begin).collect();
        let total = plan.backlog.iter().sum::<usize>();
        let all = async {
            for _ in 0..total {
                completed.recv().await.expect("engines live");
            }
        };
        let done = tokio::time::timeout(PATIENCE, all).await;
        done.unwrap_or_else(|_| panic!("{name}: {} of {total} wait", total - completed.len()));
        for workers in workers {
            workers.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_backlog_of_one_organization_is_worked_off_at_once() {
    all_is_done_without_a_poll(Plan {
        backlog: vec![200],
        processes: vec![WorkerOptions::default()],
        share_a_bus: true,
    })
    .await;
}

#[tokio::test]
async fn one_worker_works_off_a_backlog_at_once() {
    all_is_done_without_a_poll(Plan {
        backlog: vec![20],
        processes: vec![WorkerOptions::concurrency(1)],
        share_a_bus: true,
    })
    .await;
}

#[tokio::test]
async fn organizations_with_small_shares_are_worked_off_at_once_by_several_processes() {
    all_is_done_without_a_poll(Plan {
        backlog: vec![30, 1, 30, 7],
        processes: vec![
            WorkerOptions::concurrency(8).per_organization(1),
            WorkerOptions::concurrency(16).per_organization(2),
        ],
        share_a_bus: true,
    })
    .await;
}

#[tokio::test]
async fn processes_that_do_not_hear_of_one_another_look_again_soon() {
    all_is_done_without_a_poll(Plan {
        backlog: vec![60],
        processes: vec![WorkerOptions::concurrency(8).per_organization(3); 2],
        share_a_bus: false,
    })
    .await;
}
