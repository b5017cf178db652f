//! Executions, commits and events for tests. The defaults are valid; a test sets only the values it needs.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    approval::{Approval, Approver},
    event::{Event, EventData},
    ids::{
        ApprovalId, AuditId, EventId, ExecutionId, LogId, NodeId, OrganizationId, SignalId,
        SignatureRequestId, StepId, WorkflowId,
    },
    observe::{Actor, AuditDraft, AuditEvent, ChainLink, LogDomain, LogEntry, LogLevel, Redaction},
    ports::{
        Claimed, Commit, FirstClaim, Idempotency, LeaseAfter, NewExecution, RunState, Signal,
        SignalKind,
    },
    run::{
        Awaited, AwaitedThing, DeliveryState, Execution, Heads, Inputs, Phase, PhaseMetrics,
        SignatureState, Status, Step, StepState,
    },
    signature::{FollowUp, RequestStatus, SignatureRequest, Signer, SignerStatus},
    time::Timestamp,
    workflow::{Node, OnError, RetryPolicy, Settings, Workflow, handler::OnExpiry},
};

/// The time `millis` milliseconds after 2026-01-15T00:00:00Z, the time at which all cases begin.
#[must_use]
pub const fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_768_435_200_000 + millis)
}

/// The first version of a workflow with one node of each given type, created at `at(0)`.
#[must_use]
pub fn workflow(organization_id: OrganizationId, node_types: &[&str]) -> Workflow {
    let node = |(index, node_type): (usize, &&str)| {
        Arc::new(Node {
            id: NodeId::from(format!("n{index}")),
            node_type: Arc::from(*node_type),
            label: Arc::from(format!("Step {index}")),
            phase: Phase::Render,
            when: None,
            params: Map::new(),
            retry: RetryPolicy::default(),
            timeout_ms: 60_000,
            on_error: OnError::Fail,
        })
    };
    Workflow {
        id: WorkflowId::new(),
        organization_id,
        name: "Contract".to_owned(),
        version: 1,
        input_schema: Map::new(),
        settings: Settings::default(),
        nodes: node_types.iter().enumerate().map(node).collect(),
        created_at: at(0),
        updated_at: at(0),
        unreadable: false,
    }
}

/// Builds a [`NewExecution`]: queued, due at once, with its first event, log entry and audit row.
#[derive(Debug, Clone)]
#[must_use]
pub struct RunFixture {
    workflow: Arc<Workflow>,
    created_at: Timestamp,
    wake_at: Option<Timestamp>,
    priority: i16,
    idempotency: Option<Idempotency>,
    claim: Option<FirstClaim>,
    title: Option<Arc<str>>,
    correlation_id: Arc<str>,
}

impl RunFixture {
    /// An execution of an organization, of a workflow with two nodes, created and due at `at(0)`.
    pub fn of(organization: OrganizationId) -> Self {
        Self::with(Arc::new(workflow(organization, &["extract", "render"])))
    }

    /// An execution of a workflow, created and due at `at(0)`.
    pub fn with(workflow: Arc<Workflow>) -> Self {
        Self {
            workflow,
            created_at: at(0),
            wake_at: Some(at(0)),
            priority: 0,
            idempotency: None,
            claim: None,
            title: None,
            correlation_id: Arc::from("correlation"),
        }
    }

    /// Sets the title.
    pub fn title(mut self, title: Option<&str>) -> Self {
        self.title = title.map(Arc::from);
        self
    }

    /// Sets the correlation id.
    pub fn correlation_id(mut self, id: &str) -> Self {
        self.correlation_id = Arc::from(id);
        self
    }

    /// Sets the time at which the execution is created and due.
    pub fn created_at(mut self, time: Timestamp) -> Self {
        self.created_at = time;
        self.wake_at = Some(time);
        self
    }

    /// Sets the time at which the execution is due.
    pub fn wake_at(mut self, time: impl Into<Option<Timestamp>>) -> Self {
        self.wake_at = time.into();
        self
    }

    /// Sets the execution's priority.
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the idempotency key, and a byte that stands for the request's body.
    pub fn key(mut self, key: &str, body: u8) -> Self {
        self.idempotency = Some(Idempotency {
            key: key.to_owned(),
            fingerprint: [body; 32],
        });
        self
    }

    /// Sets the claim with which the execution is stored and leased at once.
    pub fn claim(mut self, claim: FirstClaim) -> Self {
        self.claim = Some(claim);
        self
    }

    /// Builds the execution with a fresh id.
    #[must_use]
    pub fn build(self) -> NewExecution {
        let mut execution = self.execution();
        let steps = self
            .workflow
            .nodes
            .iter()
            .zip(0..)
            .map(|(node, position)| step(execution.id, node, position));
        let steps = steps.collect();
        let trigger_type = Arc::clone(&execution.trigger_type);
        let event = event(&mut execution, EventData::ExecutionCreated { trigger_type });
        let log = log(&mut execution, LogLevel::Ok, LogDomain::Execution, None);
        let audit = audit(&mut execution, "execution.started");
        NewExecution {
            due_at: execution.wake_at,
            state: RunState {
                execution,
                inputs: Arc::new(Inputs {
                    trigger_data: Arc::new(json!({"customer": "Example Ltd", "total": 12})),
                    node_overrides: Map::new(),
                    start_at: Some(at(3)),
                    events: Vec::new(),
                }),
                workflow: self.workflow,
                steps,
                signature: None,
                approval: None,
            },
            events: vec![event],
            logs: vec![Arc::new(log)],
            audit: vec![Arc::new(audit)],
            idempotency: self.idempotency,
            claim: self.claim,
        }
    }

    fn execution(&self) -> Execution {
        Execution {
            title: self.title.clone(),
            id: ExecutionId::new(),
            workflow_id: self.workflow.id,
            workflow_version: self.workflow.version,
            organization_id: self.workflow.organization_id,
            status: Status::Queued,
            progress: 0,
            current_step: None,
            waiting_for: None,
            error: None,
            preflight: None,
            delivery_state: DeliveryState::Pending,
            signature_state: SignatureState::Pending,
            phase_metrics: PhaseMetrics::default(),
            correlation_id: Arc::clone(&self.correlation_id),
            traceparent: None,
            created_by: Arc::new(Actor::user("ops")),
            trigger_type: Arc::from("manual"),
            retry_of: None,
            follows: None,
            dry_run: false,
            until_phase: None,
            attempt: 1,
            version: 1,
            created_at: self.created_at,
            started_at: None,
            completed_at: None,
            updated_at: self.created_at,
            paused_from: None,
            preflight_due: true,
            delivery_confirmed: false,
            priority: self.priority,
            wake_at: self.wake_at,
            heads: Heads::default(),
        }
    }
}

fn step(execution_id: ExecutionId, node: &Node, position: u32) -> Step {
    Step {
        id: StepId::new(),
        execution_id,
        node_id: node.id.clone(),
        node_type: Arc::clone(&node.node_type),
        label: Arc::clone(&node.label),
        phase: node.phase,
        position,
        state: StepState::Pending,
        attempt: 0,
        attempts_before: 0,
        takeovers: 0,
        waiting_ms: 0,
        started_at: None,
        completed_at: None,
        error: None,
        data_in: None,
        data_out: None,
        output: None,
        awaits: None,
        reused_from: None,
    }
}

/// Creates the next event of an execution, and advances the execution's last event number.
pub fn event(execution: &mut Execution, data: EventData) -> Arc<Event> {
    execution.heads.event_seq += 1;
    Arc::new(Event {
        event_id: EventId::new(),
        seq: execution.heads.event_seq,
        timestamp: execution.updated_at,
        execution_id: execution.id,
        workflow_id: execution.workflow_id,
        organization_id: execution.organization_id,
        correlation_id: Arc::clone(&execution.correlation_id),
        status: execution.status,
        progress: execution.progress,
        current_step: execution.current_step.clone(),
        data,
    })
}

/// Creates the next log entry of an execution, and advances the execution's last log number.
pub fn log(
    execution: &mut Execution,
    level: LogLevel,
    domain: LogDomain,
    step_id: Option<NodeId>,
) -> LogEntry {
    execution.heads.log_seq += 1;
    LogEntry {
        id: LogId::new(),
        seq: execution.heads.log_seq,
        execution_id: execution.id,
        step_id,
        // All entries have the same time, so that a store cannot use the time as the position of a page.
        timestamp: execution.created_at,
        level,
        domain,
        message_human: "It went on.".into(),
        message_tech: Some("fixture".to_owned()),
        details_tech: Some(json!({"size": 3}).into()),
        correlation_id: Arc::clone(&execution.correlation_id),
    }
}

/// Creates the next audit row in an execution's chain, and advances the chain's head.
pub fn audit(execution: &mut Execution, action: &'static str) -> AuditEvent {
    let draft =
        AuditDraft::new(Cow::Borrowed(action), json!({"why": "fixture"})).by(Actor::user("ops"));
    let row = AuditEvent::chained(
        draft,
        ChainLink {
            id: AuditId::new(),
            seq: execution.heads.audit_seq + 1,
            organization_id: execution.organization_id,
            execution_id: execution.id,
            timestamp: execution.created_at,
            salt: Uuid::new_v4(),
            prev_hash: execution.heads.audit_hash,
        },
        &Redaction::default(),
    );
    execution.heads.audit_seq = row.seq;
    execution.heads.audit_hash = row.hash;
    row
}

/// Events 1 to `last` of one execution, of a kind that organization streams include.
#[must_use]
pub fn events(last: u64) -> Vec<Arc<Event>> {
    events_of(OrganizationId::new(), last)
}

/// Events 1 to `last` of one execution of an organization, of a kind that organization streams include.
#[must_use]
pub fn events_of(organization: OrganizationId, last: u64) -> Vec<Arc<Event>> {
    let mut execution = RunFixture::of(organization).execution();
    (1..=last)
        .map(|_| event(&mut execution, EventData::Progress { progress: 1 }))
        .collect()
}

/// The first event of an execution, of a kind that organization streams leave out.
#[must_use]
pub fn unlisted_event(organization: OrganizationId) -> Arc<Event> {
    let mut execution = RunFixture::of(organization).execution();
    let resumed_by = "ops".to_owned();
    event(&mut execution, EventData::Resumed { resumed_by })
}

/// Builds a [`Commit`] on a claimed execution.
#[derive(Debug, Clone)]
#[must_use]
pub struct CommitFixture(Commit);

impl CommitFixture {
    /// A commit at `at(1)` that changes only the version and releases the lease.
    pub fn on(claimed: &Claimed) -> Self {
        let mut execution = claimed.state.execution.clone();
        execution.version += 1;
        execution.updated_at = at(1);
        Self(Commit {
            lease: claimed.lease,
            expected_version: claimed.state.execution.version,
            execution,
            is_reduced: false,
            inputs: None,
            steps: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
            audit: Vec::new(),
            settled: Vec::new(),
            signature: None,
            approval: None,
            published: None,
            made_progress: true,
            then: LeaseAfter::Release { due_at: None },
        })
    }

    /// Lets the closure change the execution that the commit stores.
    pub fn with(mut self, change: impl FnOnce(&mut Execution)) -> Self {
        change(&mut self.0.execution);
        self
    }

    /// Lets the closure change any part of the commit.
    pub fn but(mut self, change: impl FnOnce(&mut Commit)) -> Self {
        change(&mut self.0);
        self
    }

    /// Sets the status. A terminal status ends the execution at the time of the commit.
    pub fn status(mut self, status: Status) -> Self {
        let execution = &mut self.0.execution;
        execution.status = status;
        if status.is_terminal() {
            execution.completed_at = Some(execution.updated_at);
            execution.wake_at = None;
        }
        self
    }

    /// Sets the time of the commit. Call it before [`status`](Self::status).
    pub fn at(mut self, time: Timestamp) -> Self {
        self.0.execution.updated_at = time;
        self
    }

    /// Sets the time at which the execution is due again.
    pub fn wake_at(mut self, time: impl Into<Option<Timestamp>>) -> Self {
        self.0.execution.wake_at = time.into();
        self
    }

    /// Keeps the lease until a time.
    pub fn keep(mut self, until: Timestamp) -> Self {
        self.0.then = LeaseAfter::Keep(until);
        self
    }

    /// Adds `count` events.
    pub fn events(mut self, count: usize) -> Self {
        let commit = &mut self.0;
        commit.events.extend(
            (0..count).map(|_| event(&mut commit.execution, EventData::Progress { progress: 1 })),
        );
        self
    }

    /// Adds a log entry.
    pub fn log(mut self, level: LogLevel, domain: LogDomain, step: Option<&str>) -> Self {
        let entry = log(&mut self.0.execution, level, domain, step.map(NodeId::from));
        self.0.logs.push(Arc::new(entry));
        self
    }

    /// Adds an audit row.
    pub fn audit(mut self, action: &'static str) -> Self {
        let row = audit(&mut self.0.execution, action);
        self.0.audit.push(Arc::new(row));
        self
    }

    /// Sets the signature request.
    pub fn signature(mut self, request: SignatureRequest) -> Self {
        self.0.signature = Some(request);
        self
    }

    /// Sets the approval.
    pub fn approval(mut self, approval: Approval) -> Self {
        self.0.approval = Some(approval);
        self
    }

    /// Settles signals, which removes them from the inbox.
    pub fn settle(mut self, signals: &[Signal]) -> Self {
        self.0
            .settled
            .extend(signals.iter().map(|signal| signal.id));
        self
    }

    /// Returns the commit. If the commit does not keep the lease, it releases the lease with the due time
    /// that follows from the execution's state.
    #[must_use]
    pub fn build(self) -> Commit {
        let mut commit = self.0;
        if !matches!(commit.then, LeaseAfter::Keep(_)) {
            commit.then = LeaseAfter::release(&commit.execution);
        }
        commit
    }
}

/// A signal with a fresh id.
#[must_use]
pub fn signal(
    organization_id: OrganizationId,
    execution_id: ExecutionId,
    received_at: Timestamp,
) -> Signal {
    Signal {
        id: SignalId::new(),
        execution_id,
        organization_id,
        actor: Actor::user("ops"),
        received_at,
        if_version: None,
        kind: SignalKind::Pause {
            reason: Some("a question".to_owned()),
        },
    }
}

/// A signature request of one signer, with a fresh id.
#[must_use]
pub fn signature_request(execution: &Execution, envelope_id: &str) -> SignatureRequest {
    SignatureRequest {
        id: SignatureRequestId::new(),
        execution_id: execution.id,
        organization_id: execution.organization_id,
        node_id: NodeId::from("n1"),
        provider: "builtin".to_owned(),
        envelope_id: envelope_id.to_owned(),
        status: RequestStatus::Signing,
        signers: vec![Signer {
            email: "one@example.com".to_owned(),
            name: Some("One".to_owned()),
            order: Some(1),
            status: SignerStatus::Pending,
            viewed_at: None,
            signed_at: None,
            declined_at: None,
            reason: None,
        }],
        file: json!({"name": "contract.pdf"}),
        created_at: at(1),
        expires_at: Some(at(1_000_000)),
        completed_at: None,
        details: json!({"place": 7}),
        follow_up: FollowUp {
            remind_every_ms: Some(60_000),
            remind_at: Some(at(2)),
            check_at: Some(at(3)),
            checked_at: None,
            failed_checks: 2,
        },
        unreadable: false,
    }
}

/// An open approval with one approver for each given token hash, and a fresh id.
#[must_use]
pub fn approval(execution: &Execution, tokens: &[[u8; 32]]) -> Approval {
    let approver = |(index, token_hash): (usize, &[u8; 32])| Approver {
        email: format!("approver{index}@example.com"),
        token_hash: *token_hash,
        vote: None,
        comment: None,
        voted_at: None,
    };
    Approval {
        id: ApprovalId::new(),
        execution_id: execution.id,
        organization_id: execution.organization_id,
        node_id: NodeId::from("n1"),
        message: Some("Please approve.".to_owned()),
        approvers: tokens.iter().enumerate().map(approver).collect(),
        quorum: 1,
        decision: None,
        decided_by: None,
        created_at: at(1),
        decided_at: None,
        expires_at: Some(at(1_000_000)),
        on_expiry: OnExpiry::Fail,
        unreadable: false,
    }
}

/// A token hash that no other test uses, because tests may share a store.
#[must_use]
pub fn token_hash() -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    hash[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    hash
}

/// A value of nested arrays and objects with `levels` levels.
#[must_use]
pub fn nested(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, level| match level % 2 {
        0 => json!([inner]),
        _ => json!({"inner": inner}),
    })
}

/// A JSON value that differs at each call.
#[must_use]
pub fn fact() -> Value {
    json!({"nonce": Uuid::new_v4()})
}

/// A step's wait for an event.
pub(crate) fn awaited(name: &str, key: Option<&str>) -> Awaited {
    Awaited {
        what: AwaitedThing::Event {
            name: name.to_owned(),
            key: key.map(str::to_owned),
        },
        until: Some(at(1_000)),
        is_over: false,
        payload: Arc::default(),
    }
}
