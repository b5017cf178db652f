//! Texts with characters that not every store keeps. Each is kept unchanged, or rejected by an error that
//! names the field, and no execution becomes impossible to commit. Tested on both stores.

use std::{sync::Arc, time::Duration};

use docg_core::{
    approval::{Decision, token_hash},
    engine::{
        ControlRequest, Engine, EngineError, Repair, RetryRequest, StartRequest, WorkerOptions,
    },
    event::EventData,
    ids::{ExecutionId, OrganizationId, WorkflowId},
    observe::{Actor, AuditDraft, LogDraft, LogLevel},
    ports::{EventBus, Settlement, Store},
    prelude::*,
    query::{ExecutionRecord, LogQuery},
    workflow::handler::NewApproval,
};
use docg_store_memory::{MemoryBus, MemoryStore};
use docg_store_postgres::{PgStore, PgStoreConfig};
use futures::StreamExt;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

mod support;

/// Texts with characters that stores, JSON readers or terminals may treat as more than text.
fn odd_text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        '\0',
        '\u{1}',
        '\t',
        '\n',
        '\u{1b}',
        '\u{7f}',
        '\u{85}',
        '\u{2028}',
        '\u{feff}',
        '\u{202e}',
        '\u{fffe}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{fffd}',
        '\u{10ffff}',
        '"',
        '\\',
        '{',
        '/',
        'u',
        '0',
    ]);
    prop::collection::vec(prop_oneof![odd, any::<char>()], 1..6)
        .prop_map(|text| format!("x{}", text.into_iter().collect::<String>()))
}

/// The accepted result; `None` if the input was rejected properly. A failure of the store fails the test.
fn answered<T>(answer: Result<T, EngineError>, what: &str) -> Option<T> {
    match answer {
        Ok(given) => Some(given),
        Err(EngineError::InvalidInput(_) | EngineError::InvalidWorkflow(_)) => None,
        Err(EngineError::InvalidTransition { .. } | EngineError::NotFound(_)) => None,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// A handler that returns, logs and audits the text of its parameter in every field that takes a text.
async fn says(context: EffectContext, params: Value) -> Result<StepOutcome, StepFailure> {
    let text = params["text"].as_str().unwrap_or_default().to_owned();
    let entry = LogDraft::new(LogLevel::Ok, text.clone()).tech(&text);
    context.log_entry(entry.details(json!({&text: text})));
    context.audit(AuditDraft::new(text.clone(), json!({&text: text})).on(text.clone(), &text));
    let token = token_hash(&format!("{}", context.execution_id));
    match params["as"].as_str().unwrap_or_default() {
        "output" => Ok(StepOutcome::Done(json!({&text: text}))),
        "failure" => Err(StepFailure::fatal(text.clone(), text.clone()).tech(text)),
        "review" => Err(StepFailure::review(text.clone(), text.clone()).tech(text)),
        "unknown" => Err(StepFailure::outcome_unknown(text.clone(), text)),
        _ => {
            let mut asked = NewApproval::new(vec![("ana@example.com".to_owned(), token)]);
            asked.message = Some(text);
            Ok(StepOutcome::Wait(Wait::Approval(asked)))
        }
    }
}

struct World {
    engine: Engine,
    organization: OrganizationId,
}

impl World {
    fn over(store: Arc<dyn Store>) -> Self {
        let bus: Arc<dyn EventBus> = Arc::new(MemoryBus::default());
        let spec = NodeSpec::new("says", Phase::Save)
            .any_phase()
            .param(ParamSpec::optional("text", ParamKind::Json))
            .param(ParamSpec::optional("as", ParamKind::Text));
        Self {
            engine: Engine::builder(store, bus).step(effect(spec, says)).build(),
            organization: OrganizationId::new(),
        }
    }

    async fn put(&self, draft: Value) -> Option<WorkflowId> {
        let id = WorkflowId::new();
        let draft = serde_json::from_value(draft).expect("readable");
        let put = self
            .engine
            .put_workflow(self.organization, id, draft, None)
            .await;
        answered(put, "put_workflow").map(|_| id)
    }

    fn request(&self, workflow: WorkflowId) -> StartRequest {
        StartRequest::new(self.organization, workflow, Actor::user("ana"))
    }

    fn control(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("ana"))
    }

    /// Waits until the execution has ended or waits for a person.
    async fn rest(&self, id: ExecutionId) -> ExecutionRecord {
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("a feed");
        let rests = async {
            while let Some(event) = feed.next().await {
                match event.expect("readable").data {
                    EventData::StatusChanged { to, .. }
                        if to.is_terminal() || to == Status::NeedsReview =>
                    {
                        break;
                    }
                    EventData::ApprovalRequested { .. } => break,
                    _ => {}
                }
            }
        };
        let rested = tokio::time::timeout(Duration::from_secs(30), rests).await;
        rested.expect("its commits do not fail for ever");
        self.engine
            .execution(self.organization, id)
            .await
            .expect("stored")
    }

    async fn say(&self, text: &str) {
        let engine = &self.engine;
        let named = json!({"name": text, "nodes": [{"id": "n", "type": "says"}]});
        self.put(named).await;
        for node in [
            json!({"id": text, "type": "says"}),
            json!({"id": "n", "type": "says", "label": text}),
            json!({"id": "n", "type": "says", "when": format!("trigger.x == {text:?}")}),
            json!({"id": "n", "type": "says", "params": {text: text}}),
        ] {
            self.put(json!({"name": "w", "nodes": [node]})).await;
        }
        for how in ["output", "failure", "review", "unknown", "approval"] {
            let params = json!({"text": "{{trigger.text}}", "as": how});
            let nodes = json!([{"id": "n", "type": "says", "phase": "save", "params": params}]);
            let workflow = self.put(json!({"name": "w", "nodes": nodes})).await;
            let workflow = workflow.expect("nothing is odd about it");
            let data = json!({"text": text, text: text});
            let mut request = self.request(workflow);
            request.trigger_data = data.clone();
            let mut odd = self.request(workflow);
            odd.trigger_type = text.to_owned();
            odd.correlation_id = text.to_owned();
            answered(engine.start(odd).await, "start by odd names");
            // If the text is rejected as trigger data, start with a harmless text.
            let id = match answered(engine.start(request.clone()).await, "start") {
                Some(started) => {
                    assert_eq!(*started.record.inputs.trigger_data, data);
                    started.record.execution.id
                }
                None => {
                    request.trigger_data = json!({"text": "y"});
                    let started = engine
                        .start(request)
                        .await
                        .expect("nothing is odd about it");
                    started.record.execution.id
                }
            };
            self.rest(id).await;
            let changes = || json!({text: text}).as_object().cloned().expect("an object");
            for settlement in [Some(Settlement::ConfirmDone(json!({text: text}))), None] {
                let mut repair = Repair::default().param("n", text, json!(text)).param(
                    "n",
                    "as",
                    json!("output"),
                );
                repair.trigger_data = changes();
                repair.settlement = settlement;
                let resumed = engine.resume(self.control(id), repair.into());
                answered(resumed.await, "resume");
            }
            let voted = engine
                .vote(&id.to_string(), Decision::Rejected, Some(text.to_owned()))
                .await;
            if !matches!(voted, Err(EngineError::VoteRefused(_))) {
                answered(voted, "vote");
            }
            answered(
                engine.pause(self.control(id), Some(text.to_owned())).await,
                "pause",
            );
            answered(
                engine.cancel(self.control(id), Some(text.to_owned())).await,
                "cancel",
            );
            answered(
                engine.cancel(self.control(id), None).await,
                "cancel without a reason",
            );
            let mut retry = RetryRequest::default();
            retry.trigger_data = Some(data);
            answered(engine.retry(self.control(id), retry).await, "retry");
            let logs = LogQuery::of(self.organization, id);
            assert!(!engine.logs(logs).await.expect("readable").items.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_are_kept_or_refused_and_leave_no_execution_that_cannot_go_on() {
    let database = support::migrated().await;
    let postgres = PgStore::connect(database.url(), PgStoreConfig::default()).await;
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(MemoryStore::default()),
        Arc::new(postgres.expect("connects")),
    ];
    let mut runner = TestRunner::new(Config::default());
    let mut texts = vec!["x\0".to_owned(), "$serde_json::private::Number".to_owned()];
    texts.extend((0..12).map(|_| odd_text().new_tree(&mut runner).expect("a text").current()));
    for store in stores {
        let world = World::over(store);
        let workers = world
            .engine
            .start_workers(WorkerOptions::default())
            .expect("no other workers run");
        for text in &texts {
            world.say(text).await;
        }
        workers.shutdown().await;
    }
}
