//! Executions under way that no running worker can claim: their logs name the missing node types.

use std::{sync::Arc, time::Duration};

use docg_core::{
    approval::{Decision, token_hash},
    engine::{EngineBuilder, Resume},
    i18n::Locale,
    observe::LogLevel,
    prelude::*,
    query::LogQuery,
    time::{ManualClock, Timestamp},
    workflow::handler::NewApproval,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use serde_json::{Value, json};

use crate::world::{World, soon};

const MINUTES: Duration = Duration::from_secs(180);

/// The reason why an execution waits when the last worker with its node type stops.
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
            let approval = NewApproval::new(approvers);
            Ok(StepOutcome::Wait(Wait::Approval(approval)))
        }
    }
}

/// Starts an execution, and stops all workers that have its node type once it waits.
async fn left_alone(builder: EngineBuilder, at: At) -> (World, ExecutionId) {
    let spec = NodeSpec::new("rare", Phase::Save).safe_to_repeat();
    let rare = effect(spec, move |_, _: Value| async move { answer(at) });
    let world = World::new(builder.step(rare));
    let workers = world.workers();
    let nodes = json!([{"id": "n", "type": "rare", "phase": "save"}]);
    let id = world.start(nodes).await;
    let event_type = match at {
        At::Retry | At::Review => "step.failed",
        At::Approval => "approval.requested",
    };
    world.until_event(id, event_type).await;
    workers.shutdown().await;
    (world, id)
}

/// The warnings of an execution that name the node type, in each language.
async fn warnings(world: &World, id: ExecutionId) -> Vec<String> {
    let query = LogQuery::of(world.organization, id).level(LogLevel::Warn);
    let logs = world.engine.logs(query).await.expect("reads").items;
    let texts = [Locale::En, Locale::PtBr]
        .into_iter()
        .flat_map(|locale| logs.iter().map(move |it| it.message_human.render(locale)));
    texts.filter(|text| text.contains("“rare”")).collect()
}

#[tokio::test]
async fn the_log_of_an_execution_under_way_says_once_that_no_worker_can_claim_it() {
    for at in [At::Retry, At::Approval, At::Review] {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let (store, bus) = (Arc::<MemoryStore>::default(), Arc::<MemoryBus>::default());
        let builder = || {
            let spec = NodeSpec::new("other", Phase::Save);
            Engine::builder(store.clone(), bus.clone())
                .clock(Arc::new(clock.clone()))
                .step(effect(spec, |_, _: Value| async {
                    StepOutcome::done(json!({}))
                }))
        };
        let (gone, id) = left_alone(builder(), at).await;
        let (first, second) = (gone.beside(builder()), gone.beside(builder()));
        let _workers = first.workers();
        match at {
            At::Retry => {}
            At::Approval => {
                let voted = first.engine.vote("token", Decision::Approved, None).await;
                voted.expect("counted");
            }
            At::Review => {
                let resumed = first.engine.resume(first.control(id), Resume::default());
                resumed.await.expect("resumed");
            }
        }
        soon(async {
            while warnings(&first, id).await.is_empty() {
                clock.advance(MINUTES);
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Neither the first process nor the second one logs the warning again.
        let _others = second.workers();
        for _ in 0..200 {
            clock.advance(MINUTES);
            tokio::task::yield_now().await;
        }
        let texts = warnings(&first, id).await;
        assert_eq!(texts.len(), 2, "once in each language: {texts:?}");
        assert_ne!(texts[0], texts[1]);
        let status = first.execution(id).await.status;
        assert!(!status.is_terminal(), "{at:?}");
    }
}
