//! The shared part of tests of whole workflows: an engine in this process, with the server's node types.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use docg_core::{
    engine::{Engine, StartRequest, WorkerOptions, Workers},
    ids::{ExecutionId, NodeId, OrganizationId, WorkflowId},
    observe::Actor,
    query::ExecutionRecord,
    run::{Status, Step},
    workflow::WorkflowDraft,
};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use futures::StreamExt;
use reference_server::{
    approvals::Approvals,
    files::{Document, Files, Origin},
    mail::Mailer,
    nodes::{self, Services},
    pdf::Templates,
    renders::{Limits, Renderer},
};
use serde_json::{Value, json};

/// The server's program, which also renders in child processes.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_reference-server");

/// A time limit that even a slow machine meets.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// An engine with workers and its own folder.
pub(crate) struct Harness {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) files: Files,
    pub(crate) engine: Engine,
    pub(crate) organization: OrganizationId,
    workers: Workers,
}

/// An execution that has ended, or waits for a person.
pub(crate) struct Ran {
    pub(crate) record: ExecutionRecord,
    pub(crate) steps: Vec<Step>,
    pub(crate) actions: Vec<String>,
}

impl Ran {
    pub(crate) fn status(&self) -> Status {
        self.record.execution.status
    }

    pub(crate) fn code(&self) -> &str {
        self.record
            .execution
            .error
            .as_ref()
            .map_or("", |error| &error.code)
    }

    pub(crate) fn tech(&self) -> &str {
        let error = self.record.execution.error.as_ref();
        error.and_then(|error| error.tech.as_deref()).unwrap_or("")
    }

    /// The code of the first blocking issue, or else of the error.
    pub(crate) fn blame(&self) -> String {
        let preflight = self.record.execution.preflight.as_ref();
        let issue = preflight.and_then(|summary| summary.blocking().next());
        issue.map_or_else(|| self.code().to_owned(), |issue| issue.code.to_string())
    }

    pub(crate) fn output(&self, node: &str) -> &Value {
        let step = self.steps.iter().find(|step| step.node_id == *node);
        step.and_then(|step| step.output.as_deref())
            .unwrap_or(&Value::Null)
    }
}

/// A renderer with child processes, like the server's.
pub(crate) fn renderer() -> Renderer {
    let mut limits = Limits::default();
    // A low limit, so that even on a busy machine a document that is too large fails within the deadline.
    limits.time = Duration::from_secs(4);
    Renderer::with_program(PROGRAM, Templates::bundled(), limits)
}

/// Approvals whose links lead to no server.
pub(crate) fn approvals(files: &Files, mailer: &Mailer) -> Approvals {
    let public_url = "https://docg.example.com/".parse().expect("a URL");
    Approvals::new(files.clone(), mailer.clone(), [7; 32], public_url)
}

impl Harness {
    pub(crate) fn new(mailer: impl FnOnce(&Files, &std::path::Path) -> Mailer) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = Files::in_folder(folder.path().join("files")).expect("a folder");
        let mailer = mailer(&files, folder.path());
        let services = Services {
            files: files.clone(),
            approvals: approvals(&files, &mailer),
            mailer,
            renderer: renderer(),
            providers: Vec::new(),
            allow_private_http: true,
            test_nodes: Some(folder.path().to_owned()),
        };
        Self::with(folder, services)
    }

    /// A harness that writes mails as files.
    pub(crate) fn offline() -> Self {
        Self::new(|files, folder| {
            let from = "docg@example.com".parse().expect("an address");
            Mailer::folder(folder.join("mail"), from, files.clone())
        })
    }

    pub(crate) fn with(folder: tempfile::TempDir, services: Services) -> Self {
        let store = Arc::new(MemoryStore::new(StoreConfig::default()));
        let bus = Arc::new(MemoryBus::new(BusConfig::default()));
        let mut builder = Engine::builder(store, bus);
        for handler in nodes::handlers(&services) {
            builder = builder.step(handler);
        }
        let engine = builder.build();
        let workers = engine
            .start_workers(WorkerOptions::concurrency(4))
            .expect("no other workers run");
        let organization = OrganizationId::new();
        Self {
            folder,
            files: services.files,
            engine,
            organization,
            workers,
        }
    }

    /// Stores a document as an earlier step would.
    pub(crate) async fn document(&self, content: &[u8]) -> Document {
        let origin = Origin {
            organization_id: self.organization,
            execution_id: ExecutionId::new(),
            node_id: NodeId::from("render"),
        };
        let content = content.to_vec().into();
        self.files
            .put_document(&origin, "Contract 7", content, None)
            .await
            .expect("written")
    }

    /// Starts a workflow of these nodes.
    pub(crate) async fn start(&self, nodes: Value, trigger: Value, dry_run: bool) -> ExecutionId {
        let workflow = WorkflowId::new();
        let draft: WorkflowDraft =
            serde_json::from_value(json!({"name": "Test", "nodes": nodes})).expect("a workflow");
        let put = self
            .engine
            .put_workflow(self.organization, workflow, draft, None)
            .await;
        put.expect("it can run");
        let mut request = StartRequest::new(self.organization, workflow, Actor::user("test"))
            .trigger_data(trigger);
        request.dry_run = dry_run;
        self.engine
            .start(request)
            .await
            .expect("it starts")
            .record
            .execution
            .id
    }

    /// Runs a workflow of these nodes until it ends or waits for a person.
    pub(crate) async fn run(&self, nodes: Value, trigger: Value) -> Ran {
        let id = self.start(nodes, trigger, false).await;
        self.rest(id).await
    }

    /// Waits until an execution has ended or waits for a person.
    pub(crate) async fn rest(&self, id: ExecutionId) -> Ran {
        self.until(id, |status| {
            status.is_terminal() || status == Status::NeedsReview
        })
        .await
    }

    /// Waits until an execution has ended.
    pub(crate) async fn ended(&self, id: ExecutionId) -> Ran {
        self.until(id, Status::is_terminal).await
    }

    /// Waits until an execution's status is one of these.
    pub(crate) async fn until(&self, id: ExecutionId, reached: impl Fn(Status) -> bool) -> Ran {
        let mut feed = self
            .engine
            .feed(self.organization, id, 0)
            .await
            .expect("it is there");
        let resting = async {
            while let Some(event) = feed.next().await {
                if reached(event.expect("events are read").status) {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, resting)
            .await
            .expect("it comes to rest");
        let record = self
            .engine
            .execution(self.organization, id)
            .await
            .expect("it is there");
        let steps = self
            .engine
            .steps(self.organization, id)
            .await
            .expect("it is there");
        let actions = self.engine.recommended_actions(&record.execution, &steps);
        let actions = actions
            .into_iter()
            .map(|action| action.action.into_owned())
            .collect();
        Ran {
            record,
            steps,
            actions,
        }
    }
}
