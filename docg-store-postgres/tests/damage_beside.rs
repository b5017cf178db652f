//! Executions with an unreadable part, in their own row or in another table's: the answers that callers get,
//! and the effect of a cancel.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use docg_core::{
    approval::{self, ApprovalNotifier, Decision, Invitation},
    engine::{Command, ControlAnswer, ControlRequest, EngineError, Resume, RetryRequest},
    error::codes,
    ports::{ExecutionReader, ExecutionStore},
    prelude::*,
    query::{AuditQuery, ExecutionQuery},
};
use docg_store_memory::MemoryBus;
use docg_store_postgres::{PgStore, PgStoreConfig};
use docg_test_servers::postgres::Database;
use futures::StreamExt;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

mod support;

const DAMAGES: [&str; 4] = [
    "UPDATE docg.execution_steps SET node_id = 'zzz' WHERE execution_id = '$id'",
    "UPDATE docg.execution_steps SET attempt = -1 WHERE execution_id = '$id'",
    "UPDATE docg.execution_data SET definition_hash = sha256('x') WHERE execution_id = '$id'",
    "DELETE FROM docg.execution_steps WHERE execution_id = '$id'",
];

/// A notifier that keeps the token of the last invitation.
#[derive(Default)]
struct Inbox(Mutex<String>);

#[async_trait::async_trait]
impl ApprovalNotifier for Inbox {
    async fn invite(&self, _: &EffectContext, invitation: Invitation) -> Result<(), StepFailure> {
        *self.0.lock().expect("not poisoned") = invitation.token;
        Ok(())
    }
}

struct World {
    engine: Engine,
    store: Arc<PgStore>,
    inbox: Arc<Inbox>,
    organization: OrganizationId,
    database: Database,
}

impl World {
    async fn new() -> Self {
        let database = support::migrated().await;
        let store = PgStore::connect(database.url(), PgStoreConfig::default()).await;
        let (store, inbox) = (Arc::new(store.expect("connects")), Arc::<Inbox>::default());
        let engine = Engine::builder(Arc::clone(&store) as _, Arc::new(MemoryBus::default()))
            .step(approval::node([3; 32], Arc::clone(&inbox) as _))
            .build();
        Self {
            engine,
            store,
            inbox,
            organization: OrganizationId::new(),
            database,
        }
    }

    /// Starts an execution that waits for an approval; returns it with the approver's token.
    async fn waiting(&self) -> (ExecutionId, String) {
        let node = json!({"id": "ok", "type": "approval", "phase": "save",
            "params": {"approvers": ["ann@example.com"]}});
        let draft = json!({"name": "Leave", "nodes": [node]});
        let draft = serde_json::from_value(draft).expect("a draft");
        let workflow = WorkflowId::new();
        let put = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        put.await.expect("is valid");
        let request = StartRequest::new(self.organization, workflow, Actor::user("somebody"));
        let started = self.engine.start(request).await.expect("starts");
        let id = started.record.execution.id;
        let workers = self
            .engine
            .start_workers(WorkerOptions::concurrency(1))
            .expect("no other workers run");
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("a feed");
        while let Some(event) = feed.next().await {
            if event.expect("can be read").event_type() == "approval.requested" {
                break;
            }
        }
        workers.shutdown().await;
        (id, self.inbox.0.lock().expect("not poisoned").clone())
    }

    async fn damage(&self, sql: &str) {
        let connection = PgConnection::connect(self.database.url()).await;
        let mut connection = connection.expect("connects");
        let set_aside = "SET session_replication_role = replica";
        connection.execute(set_aside).await.expect("may");
        let sql = AssertSqlSafe(sql.to_owned());
        let done = connection.execute(sql).await.expect("damages");
        assert_ne!(done.rows_affected(), 0);
    }

    fn request(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("somebody"))
    }
}

fn is_unreadable<T>(answer: &Result<T, EngineError>, expected: &[Command]) -> bool {
    matches!(answer, Err(EngineError::Unreadable { allowed, .. }) if allowed == expected)
}

#[tokio::test]
async fn every_call_but_cancel_is_told_at_once_that_the_execution_cannot_be_read() {
    for damage in DAMAGES {
        let world = World::new().await;
        let engine = &world.engine;
        let (id, token) = world.waiting().await;
        let read = async || {
            let record = engine.inspected(world.organization, id).await;
            record.expect("is shown")
        };
        assert!(!read().await.unreadable);
        world.damage(&damage.replace("$id", &id.to_string())).await;
        let record = read().await;
        assert!(record.unreadable, "{damage}");
        let error = record.execution.error.expect("says so");
        assert_eq!(error.code, codes::UNREADABLE);

        let list = ExecutionQuery::of(world.organization).limit(10);
        let listed = engine.executions(list).await.expect("lists").items;
        assert!(listed[0].unreadable, "{damage}");

        let began = Instant::now();
        let vote = engine.vote(&token, Decision::Approved, None).await;
        assert!(
            is_unreadable(&vote, &[Command::Cancel]),
            "{damage}: {vote:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(2), "{damage}");
        let inbox = world.store.signals(id).await.expect("can be read");
        assert!(
            inbox.is_empty(),
            "a vote that was refused does not count later"
        );

        let canceled = engine
            .cancel(world.request(id), None)
            .await
            .expect("cancels");
        assert!(
            matches!(canceled, ControlAnswer::Applied(it) if it.execution.status == Status::Canceled)
        );
        assert!(read().await.unreadable, "{damage}");
        let query = AuditQuery::of(world.organization, id);
        let audit = world.store.audit(query).await.expect("can be read").items;
        let last = audit.last().expect("a row").metadata.to_value();
        assert_eq!(last["unreadable"], true, "{damage}: {last}");
        let retry = engine
            .retry(world.request(id), RetryRequest::default())
            .await;
        assert!(is_unreadable(&retry, &[]), "{damage}: {retry:?}");
        let resume = engine.resume(world.request(id), Resume::default()).await;
        assert!(resume.is_err());
    }
}

#[tokio::test]
async fn an_execution_that_waits_for_what_is_gone_says_so() {
    let world = World::new().await;
    let (id, token) = world.waiting().await;
    let gone = format!("DELETE FROM docg.approvals WHERE execution_id = '{id}'");
    world.damage(&gone).await;
    let record = world.engine.inspected(world.organization, id).await;
    assert!(record.expect("is shown").unreadable);
    let vote = world.engine.vote(&token, Decision::Approved, None).await;
    assert!(matches!(vote, Err(EngineError::NotFound(_))), "{vote:?}");
    world
        .engine
        .cancel(world.request(id), None)
        .await
        .expect("cancels");
}

#[tokio::test]
async fn an_execution_that_was_repaired_goes_on() {
    let world = World::new().await;
    let (id, token) = world.waiting().await;
    let rename = |to: &str| {
        format!("UPDATE docg.execution_steps SET node_id = '{to}' WHERE execution_id = '{id}'")
    };
    world.damage(&rename("zzz")).await;
    let vote = world.engine.vote(&token, Decision::Approved, None).await;
    assert!(is_unreadable(&vote, &[Command::Cancel]));
    world.damage(&rename("ok")).await;
    world
        .engine
        .vote(&token, Decision::Approved, None)
        .await
        .expect("counts");
}

#[tokio::test]
async fn a_cancel_leaves_what_cannot_be_read_as_it_is_stored() {
    for (column, damaged) in [
        ("phase_metrics", "1"),
        ("preflight_summary", "[]"),
        ("current_step", "{\"index\": 1e400}"),
    ] {
        let world = World::new().await;
        let (id, _) = world.waiting().await;
        world
            .damage(&format!(
                "UPDATE docg.executions SET {column} = '{damaged}' WHERE id = '{id}'"
            ))
            .await;
        let canceled = world.engine.cancel(world.request(id), None).await;
        canceled.expect("cancels");
        let connection = PgConnection::connect(world.database.url()).await;
        let sql = format!("SELECT {column}::text FROM docg.executions WHERE id = '{id}'");
        let stored: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection.expect("connects"))
            .await
            .expect("reads");
        assert_eq!(stored, damaged);
        let record = world.engine.inspected(world.organization, id).await;
        assert!(record.expect("is shown").unreadable, "{column}");
    }
}
