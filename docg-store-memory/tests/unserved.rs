//! Executions under way that no running worker can claim: their logs say so.

use std::{sync::Arc, time::Duration};

use docg_core::{
    approval::{Decision, token_hash},
    engine::{ControlRequest, EngineBuilder, Resume},
    event::EventData,
    i18n::Locale,
    observe::LogLevel,
    prelude::*,
    query::LogQuery,
    time::{ManualClock, Timestamp},
    workflow::handler::NewApproval,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const MINUTES: Duration = Duration::from_secs(180);

/// What an execution is at when the last worker that has its node type stops.
#[derive(Debug, Clone, Copy)]
enum At {
    Retry,
    Approval,
    Review,
}

fn answer(at: At) -> Result<StepOutcome, StepFailure> {
    match at {
        At::Retry => Err(StepFailure::retryable("away", "It is away.")),
        At::Review => Err(StepFailure::review("unclear", "It is unclear.")),
        At::Approval => {
            let approvers = vec![("ann@example.com".to_owned(), token_hash("token"))];
            Ok(StepOutcome::Wait(Wait::Approval(NewApproval::new(
                approvers,
            ))))
        }
    }
}

struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    bus: Arc<MemoryBus>,
}

impl World {
    fn builder(&self) -> EngineBuilder {
        let other = effect(NodeSpec::new("other", Phase::Save), |_, _: Value| async {
            StepOutcome::done(json!({}))
        });
        Engine::builder(self.store.clone(), self.bus.clone())
            .clock(Arc::new(self.clock.clone()))
            .step(other)
    }
}

/// Starts an execution and stops all workers that have its node type.
async fn left_alone(world: &World, at: At) -> (OrganizationId, ExecutionId) {
    let spec = NodeSpec::new("rare", Phase::Save).safe_to_repeat();
    let rare = effect(spec, move |_, _: Value| async move { answer(at) });
    let engine = world.builder().step(rare).build();
    let workers = engine
        .start_workers(WorkerOptions::default())
        .expect("no other workers run");
    let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
    let nodes = json!([{"id": "n", "type": "rare", "phase": "save"}]);
    let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes})).expect("readable");
    let stored = engine.put_workflow(organization, workflow, draft, None);
    stored.await.expect("a valid definition");
    let request = StartRequest::new(organization, workflow, Actor::user("somebody"));
    let id = engine.start(request).await.expect("accepted");
    let id = id.record.execution.id;
    let mut feed = engine.feed(organization, id, 0).await.expect("a feed");
    while let Some(event) = feed.next().await {
        let data = &event.expect("readable").data;
        if matches!(
            data,
            EventData::StepFailed { .. } | EventData::ApprovalRequested { .. }
        ) {
            break;
        }
    }
    workers.shutdown().await;
    (organization, id)
}

/// The warnings of an execution that name the node type.
async fn warnings(engine: &Engine, organization: OrganizationId, id: ExecutionId) -> Vec<String> {
    let query = LogQuery::of(organization, id).level(LogLevel::Warn);
    let logs = engine.logs(query).await.expect("reads").items;
    let texts = [Locale::En, Locale::PtBr]
        .into_iter()
        .flat_map(|locale| logs.iter().map(move |it| it.message_human.render(locale)));
    texts.filter(|text| text.contains("“rare”")).collect()
}

#[tokio::test]
async fn the_log_of_an_execution_under_way_says_once_that_no_worker_can_claim_it() {
    for at in [At::Retry, At::Approval, At::Review] {
        let world = World {
            clock: ManualClock::new(Timestamp::from_millis(1_700_000_000_000)),
            store: Arc::default(),
            bus: Arc::default(),
        };
        let (organization, id) = left_alone(&world, at).await;
        let engines = [world.builder().build(), world.builder().build()];
        let [first, second] = &engines;
        let _workers = first
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        match at {
            At::Retry => {}
            At::Approval => {
                let voted = first.vote("token", Decision::Approved, None).await;
                voted.expect("counted");
            }
            At::Review => {
                let control = ControlRequest::new(organization, id, Actor::user("ann"));
                let resumed = first.resume(control, Resume::default()).await;
                resumed.expect("resumed");
            }
        }
        let told = async {
            while warnings(first, organization, id).await.is_empty() {
                world.clock.advance(MINUTES);
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.unwrap_or_else(|_| panic!("{at:?}: nothing is logged"));
        // Neither the same process nor another one repeats it.
        let _others = second
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        for _ in 0..200 {
            world.clock.advance(MINUTES);
            tokio::task::yield_now().await;
        }
        let texts = warnings(first, organization, id).await;
        assert_eq!(texts.len(), 2, "once in each language: {texts:?}");
        assert_ne!(texts[0], texts[1]);
        let record = first.execution(organization, id).await.expect("stored");
        assert!(!record.execution.status.is_terminal(), "{at:?}");
    }
}
