//! The parts that tests share: an engine over memory, and an organization that runs workflows on it.

use std::{future::Future, sync::Arc, time::Duration};

use docg_core::{
    engine::{ControlAnswer, ControlRequest, EngineBuilder, OrganizationFeed, Workers},
    event::{Event, EventData},
    prelude::*,
    run::{Execution, Step},
    time::{Clock, ManualClock, Timestamp},
};
use docg_store_memory::{MemoryBus, MemoryStore};
use futures::StreamExt;
use serde_json::{Value, json};

/// The timeout for whatever a test waits for: long enough even on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Builds an engine over a store and a bus of its own.
pub(crate) fn builder() -> EngineBuilder {
    Engine::builder(Arc::<MemoryStore>::default(), Arc::<MemoryBus>::default())
}

/// A computing step that returns its parameters.
pub(crate) fn echo(spec: NodeSpec) -> Handler {
    compute(spec, |_, params: Value| async move { Ok(params) })
}

/// A process, and the organization whose workflows it runs.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) organization: OrganizationId,
}

impl World {
    pub(crate) fn new(builder: EngineBuilder) -> Self {
        Self::of(OrganizationId::new(), builder)
    }

    pub(crate) fn of(organization: OrganizationId, builder: EngineBuilder) -> Self {
        Self {
            engine: builder.build(),
            organization,
        }
    }

    /// Another process, with an engine of its own, for the same organization.
    pub(crate) fn beside(&self, builder: EngineBuilder) -> Self {
        Self::of(self.organization, builder)
    }

    /// This process, with another organization.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            organization: OrganizationId::new(),
        }
    }

    pub(crate) fn workers(&self) -> Workers {
        self.workers_with(WorkerOptions::default())
    }

    pub(crate) fn workers_with(&self, options: WorkerOptions) -> Workers {
        let workers = self.engine.start_workers(options);
        workers.expect("no other workers run")
    }

    /// Stores a workflow of these nodes.
    pub(crate) async fn put(&self, nodes: Value) -> WorkflowId {
        let workflow = WorkflowId::new();
        let draft = serde_json::from_value(json!({"name": "test", "nodes": nodes}));
        let draft = draft.expect("a readable definition");
        let stored = self
            .engine
            .put_workflow(self.organization, workflow, draft, None);
        stored.await.expect("a valid definition");
        workflow
    }

    pub(crate) fn request(&self, workflow: WorkflowId) -> StartRequest {
        StartRequest::new(self.organization, workflow, Actor::user("somebody"))
    }

    /// Makes a start request, and returns the id of the execution.
    pub(crate) async fn accept(&self, request: StartRequest) -> ExecutionId {
        let started = self.engine.start(request).await.expect("accepted");
        started.record.execution.id
    }

    /// Starts an execution of these nodes.
    pub(crate) async fn start(&self, nodes: Value) -> ExecutionId {
        self.start_with(nodes, json!({})).await
    }

    /// Starts an execution of these nodes with this trigger data.
    pub(crate) async fn start_with(&self, nodes: Value, data: Value) -> ExecutionId {
        let workflow = self.put(nodes).await;
        self.accept(self.request(workflow).trigger_data(data)).await
    }

    pub(crate) fn control(&self, id: ExecutionId) -> ControlRequest {
        ControlRequest::new(self.organization, id, Actor::user("somebody"))
    }

    /// Cancels an execution that this process has leased, or that is not leased, so that the cancel is
    /// applied at once.
    pub(crate) async fn cancel(&self, id: ExecutionId) -> Execution {
        let answer = self.engine.cancel(self.control(id), None).await;
        applied(answer.expect("allowed"))
    }

    pub(crate) async fn execution(&self, id: ExecutionId) -> Execution {
        let record = self.engine.execution(self.organization, id).await;
        record.expect("stored").execution
    }

    pub(crate) async fn steps(&self, id: ExecutionId) -> Vec<Step> {
        let steps = self.engine.steps(self.organization, id).await;
        steps.expect("stored")
    }

    pub(crate) async fn organization_feed(&self) -> OrganizationFeed {
        self.engine.organization_feed(self.organization, None).await
    }

    /// Reads the feed until an event fits, and returns all events up to it.
    pub(crate) async fn until(
        &self,
        id: ExecutionId,
        fits: impl Fn(&Event) -> bool,
    ) -> Vec<Arc<Event>> {
        let feed = self.engine.feed(self.organization, id, 0).await;
        let mut feed = feed.expect("a feed");
        let mut events = Vec::new();
        soon(async {
            while let Some(event) = feed.next().await {
                let event = event.expect("readable");
                let found = fits(&event);
                events.push(event);
                if found {
                    return;
                }
            }
            panic!("{id} ended before the event");
        })
        .await;
        events
    }

    /// Reads the feed until an event of this type.
    pub(crate) async fn until_event(&self, id: ExecutionId, event_type: &str) {
        self.until(id, |event| event.event_type() == event_type)
            .await;
    }

    pub(crate) async fn until_completed(&self, id: ExecutionId) {
        self.until_event(id, "execution.completed").await;
    }

    /// Reads the feed until the execution waits for people or has ended.
    pub(crate) async fn until_rest(&self, id: ExecutionId) -> Vec<Arc<Event>> {
        self.until(id, |event| match event.data {
            EventData::ApprovalRequested { .. } | EventData::SignatureRequested { .. } => true,
            EventData::StatusChanged { to, .. } => to == Status::NeedsReview,
            _ => event.status.is_terminal(),
        })
        .await
    }

    /// Reads the stored execution until it has this status.
    pub(crate) async fn until_status(&self, id: ExecutionId, status: Status) -> Execution {
        soon(async {
            loop {
                let execution = self.execution(id).await;
                if execution.status == status {
                    return execution;
                }
                time_passes().await;
            }
        })
        .await
    }
}

/// Waits for the future, and fails after [`PATIENCE`].
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(PATIENCE, event).await;
    happened.expect("it happens")
}

/// Lets all tasks run. If tokio's time is stopped, it moves on by a millisecond.
pub(crate) async fn time_passes() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Lets all tasks run until they wait for something, without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn applied(answer: ControlAnswer) -> Execution {
    match answer {
        ControlAnswer::Applied(record) => record.execution,
        ControlAnswer::Pending => panic!("this process holds it and applies the call"),
    }
}

/// A clock by which the leases of a dead process have expired.
pub(crate) fn an_hour_later() -> Arc<dyn Clock> {
    let later = Timestamp::now() + Duration::from_secs(3_600);
    Arc::new(ManualClock::new(later))
}

/// A value nested so deep that code which reads or drops it recursively overflows the stack.
pub(crate) fn bottomless() -> Value {
    (0..20_000).fold(json!([]), |inner, _| Value::Array(vec![inner]))
}
