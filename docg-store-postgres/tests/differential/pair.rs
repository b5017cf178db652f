//! The two stores, the state of the test, and the calls made on both stores.

use std::{fmt::Debug, sync::Arc};

use docg_core::{
    conformance::fixtures::{
        self, CommitFixture, RunFixture, at, nested, signal, signature_request, token_hash,
    },
    ids::{ExecutionId, OrganizationId, SignatureRequestId, WorkerId, WorkflowId},
    observe::{LogDomain, LogLevel},
    ports::{
        ClaimRequest, ClaimWhat, Claimed, Commit, Created, ExecutionReader, ExecutionStore,
        FirstClaim, Lease, LeaseAfter, NewExecution, Renewed, ResumeSignal, Signal, SignalKind,
        StoreError, StoreErrorKind, TtlEntry, TtlKey, TtlStore, Unpublished, WorkflowStore,
    },
    query::{
        AuditQuery, EventQuery, ExecutionQuery, ExecutionRecord, LogQuery, Page, WorkflowQuery,
    },
    run::{Inputs, Status, StepState},
    time::Timestamp,
    workflow::Workflow,
};
use docg_store_memory::MemoryStore;
use docg_store_postgres::PgStore;
use serde_json::{Map, Value, json};

use super::calls::{Call, Change, Odd, Which};

/// The duration of a lease, in milliseconds.
const LEASE: u64 = 10_000;
const ALL: usize = 1_000;

/// One lease, as each store granted it. The fencing tokens of the two stores may differ.
struct Held {
    memory: Lease,
    postgres: Lease,
    claimed: Claimed,
}

pub(crate) struct Pair {
    memory: MemoryStore,
    postgres: PgStore,
    now: i64,
    organizations: [OrganizationId; 2],
    /// Two workflows for each organization.
    workflows: Vec<Arc<Workflow>>,
    workers: [WorkerId; 2],
    runs: Vec<(NewExecution, Arc<Workflow>)>,
    held: Vec<Held>,
    signals: Vec<Signal>,
    requests: Vec<(OrganizationId, SignatureRequestId, String)>,
    tokens: Vec<[u8; 32]>,
}

/// Checks that the answers of both stores are equal, except for the words of an error.
fn same<T: Debug + PartialEq>(
    what: &dyn Debug,
    memory: Result<T, StoreError>,
    postgres: Result<T, StoreError>,
) -> Result<T, StoreErrorKind> {
    let (memory, postgres) = (memory.map_err(|e| e.kind), postgres.map_err(|e| e.kind));
    assert_eq!(memory, postgres, "memory left, Postgres right: {what:?}");
    memory
}

fn value(odd: Odd) -> Value {
    match odd {
        Odd::Nul => json!("a\0b"),
        Odd::Nested(levels) => nested(levels),
    }
}

macro_rules! both {
    ($self:ident, $what:expr, $method:ident($($argument:expr),*)) => {
        same(
            &$what,
            $self.memory.$method($($argument),*).await,
            $self.postgres.$method($($argument),*).await,
        )
    };
}

impl Pair {
    pub(crate) fn new(postgres: PgStore) -> Self {
        let organizations = [OrganizationId::new(), OrganizationId::new()];
        let workflow = |index: usize| {
            let types: &[&str] = [&["extract", "render"][..], &["render", "send"][..]][index % 2];
            Arc::new(fixtures::workflow(organizations[index / 2], types))
        };
        Self {
            memory: MemoryStore::default(),
            postgres,
            now: 0,
            organizations,
            workflows: (0..4).map(workflow).collect(),
            workers: [WorkerId::new(), WorkerId::new()],
            runs: Vec::new(),
            held: Vec::new(),
            signals: Vec::new(),
            requests: Vec::new(),
            tokens: Vec::new(),
        }
    }

    pub(crate) async fn close(self) {
        self.postgres.close().await;
    }

    fn now(&self) -> Timestamp {
        at(self.now)
    }

    fn organization(&self, which: Which) -> OrganizationId {
        self.organizations[which % self.organizations.len()]
    }

    fn workflow(&self, organization: Which, which: Which) -> Arc<Workflow> {
        let first = organization % self.organizations.len() * 2;
        Arc::clone(&self.workflows[first + which % 2])
    }

    fn run(&self, which: Which) -> Option<&NewExecution> {
        let count = self.runs.len();
        self.runs.get(which.checked_rem(count)?).map(|(run, _)| run)
    }

    fn leases(&self, which: &[Which]) -> (Vec<Lease>, Vec<Lease>) {
        let count = self.held.len();
        let held = which
            .iter()
            .filter_map(|which| self.held.get(which.checked_rem(count)?));
        held.map(|held| (held.memory, held.postgres)).unzip()
    }

    /// Makes a call on both stores.
    pub(crate) async fn make(&mut self, call: &Call) {
        match call {
            Call::Wait(millis) => self.now += millis,
            Call::Create {
                organization,
                workflow,
                priority,
                due_in,
                key,
                claim,
            } => {
                let workflow = self.workflow(*organization, *workflow);
                // Let no two executions be due at the same time: each store may order those differently.
                self.now += 1;
                let due = due_in.map(|millis| at(self.now + millis * 100));
                let mut run = RunFixture::with(Arc::clone(&workflow)).created_at(self.now());
                run = run.wake_at(due).priority(*priority);
                if let Some((key, body)) = key {
                    run = run.key(&format!("key {key}"), *body);
                }
                if let Some((worker, per_organization)) = claim {
                    run = run.claim(FirstClaim {
                        worker_id: self.workers[worker % self.workers.len()],
                        lease_until: self.now().plus_millis(LEASE),
                        per_organization: *per_organization,
                    });
                }
                let run = run.build();
                let created = both!(self, call, create(run.clone()));
                if let Ok(Created::New { lease }) = created {
                    if let Some(lease) = lease {
                        let claimed = Claimed::new(lease, run.state.clone());
                        self.held.push(Held {
                            memory: lease,
                            postgres: lease,
                            claimed,
                        });
                    }
                    self.runs.push((run, workflow));
                }
            }
            Call::CreateAgain(which) => {
                let Some(run) = self.run(*which).cloned() else {
                    return;
                };
                let (owner, id) = (run.state.execution.organization_id, run.state.execution.id);
                // Each store may decide whether the id of a purged execution is free again.
                let found = both!(self, call, execution(owner, id));
                if found.is_ok_and(|found| found.is_some()) {
                    let _ = both!(self, call, create(run.clone()));
                }
            }
            Call::ClaimDue {
                worker,
                per_organization,
                all_types,
            } => {
                let types: &[&str] = if *all_types {
                    &["extract", "render", "send"]
                } else {
                    &["extract", "render"]
                };
                let what = ClaimWhat::Due {
                    limit: ALL,
                    per_organization: *per_organization,
                    node_types: types.iter().copied().map(Arc::from).collect(),
                };
                self.claim(call, *worker, what).await;
            }
            Call::ClaimOne { worker, run } => {
                if let Some(run) = self.run(*run) {
                    let what = ClaimWhat::One(run.state.execution.id);
                    self.claim(call, *worker, what).await;
                }
            }
            Call::Commit(change) => self.commit(change).await,
            Call::Renew(which) => self.renew(call, which).await,
            Call::Release(which) => {
                let (memory, postgres) = self.leases(which);
                let now = self.now();
                let memory = self.memory.release(&memory, now).await;
                let _ = same(call, memory, self.postgres.release(&postgres, now).await);
            }
            Call::Signal { run, own, odd } => {
                let Some(run) = self.run(*run) else { return };
                let execution = &run.state.execution;
                let organization = match own {
                    true => execution.organization_id,
                    false => OrganizationId::new(),
                };
                let mut signal = signal(organization, execution.id, self.now());
                if let Some(odd) = odd {
                    signal.kind = SignalKind::Resume(ResumeSignal {
                        nodes: Map::from_iter([("n0".to_owned(), value(*odd))]),
                        ..ResumeSignal::default()
                    });
                }
                if both!(self, call, signal(signal.clone())).is_ok() {
                    self.signals.push(signal);
                }
            }
            Call::SignalAgain(which) => {
                let count = self.signals.len();
                if let Some(index) = which.checked_rem(count) {
                    let _ = both!(self, call, signal(self.signals[index].clone()));
                }
            }
            Call::Unpublished => self.unpublished(call).await,
            Call::MarkPublished { run, seq } => {
                let Some(run) = self.run(*run) else { return };
                let published = [(run.state.execution.id, *seq)];
                let _ = both!(self, call, mark_published(&published));
            }
            Call::Purge(age) => {
                let _ = both!(self, call, purge(at(self.now - age), ALL));
            }
            Call::PutWorkflow {
                organization,
                workflow,
                off_by,
            } => {
                let mut workflow = Workflow::clone(&self.workflow(*organization, *workflow));
                let (owner, id) = (workflow.organization_id, workflow.id);
                let latest = both!(self, call, latest_version(owner, id)).expect("reads");
                workflow.version = latest + 1 + off_by;
                workflow.updated_at = self.now();
                let _ = both!(self, call, put_workflow(workflow.clone()));
            }
            Call::DeleteWorkflow {
                organization,
                workflow,
            } => {
                let workflow = self.workflow(*organization, *workflow);
                let (owner, id) = (workflow.organization_id, workflow.id);
                let _ = both!(self, call, delete_workflow(owner, id));
            }
            Call::Remember {
                organization,
                key,
                lasts,
            } => {
                let entry = self.entry(*organization, *key, *lasts);
                let _ = both!(self, call, remember(entry.clone(), self.now()));
            }
            Call::Replace {
                organization,
                key,
                lasts,
            } => {
                let entry = self.entry(*organization, *key, *lasts);
                let _ = both!(self, call, replace(entry.clone()));
            }
            Call::Recall { organization, key } => {
                let key = self.entry(*organization, *key, 0).key;
                let _ = both!(self, call, recall(&key, self.now()));
            }
            Call::List {
                organization,
                workflow,
                status,
                limit,
            } => {
                let organization_id = self.organization(*organization);
                let workflow_id = workflow.map(|which| self.workflow(*organization, which).id);
                self.list(organization_id, workflow_id, *status, *limit)
                    .await;
            }
            Call::Read { run, own, limit } => {
                let Some(run) = self.run(*run) else { return };
                let execution = &run.state.execution;
                let (owner, id) = (execution.organization_id, execution.id);
                self.read(if *own { owner } else { OrganizationId::new() }, id, *limit)
                    .await;
            }
        }
    }

    fn entry(&self, organization: Which, key: Which, lasts: i64) -> TtlEntry {
        TtlEntry {
            key: TtlKey {
                organization_id: (!organization.is_multiple_of(3))
                    .then(|| self.organization(organization)),
                kind: "sse_token",
                key: format!("entry {key}"),
            },
            value: json!({"at": self.now, "text": "já não é \u{1F58B}"}),
            expires_at: at(self.now + lasts),
        }
    }

    async fn claim(&mut self, call: &Call, worker: Which, what: ClaimWhat) {
        let request = ClaimRequest {
            worker_id: self.workers[worker % self.workers.len()],
            what,
            now: self.now(),
            lease_until: self.now().plus_millis(LEASE),
        };
        let mut memory = self
            .memory
            .claim(request.clone())
            .await
            .expect("claims")
            .claimed;
        let mut postgres = self.postgres.claim(request).await.expect("claims").claimed;
        memory.sort_by_key(|claimed| claimed.lease.execution_id);
        postgres.sort_by_key(|claimed| claimed.lease.execution_id);
        let comparable = |claimed: &[Claimed]| {
            let one = |claimed: &Claimed| {
                let Claimed {
                    taken_over,
                    takeovers,
                    state,
                    signals,
                    published,
                    ..
                } = claimed.clone();
                (taken_over, takeovers, state, signals, published)
            };
            claimed.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(comparable(&memory), comparable(&postgres), "{call:?}");
        for (claimed, postgres) in memory.into_iter().zip(postgres) {
            self.held.push(Held {
                memory: claimed.lease,
                postgres: postgres.lease,
                claimed,
            });
        }
    }

    async fn renew(&self, call: &Call, which: &[Which]) {
        let (memory, postgres) = self.leases(which);
        let until = self.now().plus_millis(LEASE);
        let sorted = |renewed: Renewed| {
            [renewed.lost, renewed.signaled].map(|leases| {
                let mut ids: Vec<_> = leases.iter().map(|lease| lease.execution_id).collect();
                ids.sort();
                ids.dedup();
                ids
            })
        };
        let memory = self.memory.renew(&memory, until).await.map(sorted);
        let postgres = self.postgres.renew(&postgres, until).await.map(sorted);
        let _ = same(call, memory, postgres);
    }

    async fn unpublished(&self, call: &Call) {
        let sorted = |mut all: Vec<Unpublished>| {
            all.sort_by_key(|one| one.execution_id);
            all
        };
        let memory = self
            .memory
            .unpublished(self.now(), None, ALL)
            .await
            .map(sorted);
        let postgres = self
            .postgres
            .unpublished(self.now(), None, ALL)
            .await
            .map(sorted);
        let _ = same(call, memory, postgres);
    }

    async fn commit(&mut self, change: &Change) {
        let Some(index) = change.lease.checked_rem(self.held.len()) else {
            return;
        };
        let commit = self.decided(index, change);
        let held = &self.held[index];
        let mut postgres = commit.clone();
        postgres.lease = held.postgres;
        let answers = (
            self.memory.commit(commit.clone()).await,
            self.postgres.commit(postgres).await,
        );
        if same(change, answers.0, answers.1).is_err() {
            return;
        }
        if let Some(request) = &commit.signature {
            let envelope = request.envelope_id.clone();
            self.requests
                .push((request.organization_id, request.id, envelope));
        }
        let approvers = commit
            .approval
            .iter()
            .flat_map(|approval| &approval.approvers);
        self.tokens
            .extend(approvers.map(|approver| approver.token_hash));
        let state = &mut self.held[index].claimed.state;
        for step in &commit.steps {
            state.steps[step.position as usize] = step.clone();
        }
        state.execution = commit.execution;
        if !matches!(commit.then, LeaseAfter::Keep(_)) {
            self.held.remove(index);
        }
    }

    /// Builds the commit of a present or past lease holder.
    fn decided(&self, index: usize, change: &Change) -> Commit {
        let claimed = &self.held[index].claimed;
        let execution = &claimed.state.execution;
        let was_over = execution.status.is_terminal();
        let mut fixture = CommitFixture::on(claimed).at(self.now());
        // An ended execution stays ended; only its inbox is emptied.
        if let Some(status) = change.status.filter(|_| !was_over) {
            fixture = fixture.wake_at(change.wake_in.map(|millis| at(self.now + millis)));
            fixture = fixture.status(status);
        }
        if !was_over {
            fixture = fixture.events(change.events);
        }
        for _ in 0..change.logs {
            fixture = fixture.log(LogLevel::Ok, LogDomain::Step, Some("n0"));
        }
        if change.audit {
            fixture = fixture.audit("document.generated");
        }
        if change.signature && !was_over {
            let envelope = format!("envelope {} of {}", self.requests.len(), execution.id);
            fixture = fixture.signature(signature_request(execution, &envelope));
        }
        if change.approval && !was_over {
            fixture = fixture.approval(fixtures::approval(execution, &[token_hash()]));
        }
        let settled: Vec<_> = claimed
            .signals
            .iter()
            .take(change.settle)
            .cloned()
            .collect();
        let mut commit = fixture.settle(&settled).build();
        if change.steps && !was_over {
            let mut step = claimed.state.steps[0].clone();
            step.state = StepState::Succeeded;
            step.attempt += 1;
            let output = || json!({"n": 1e21, "text": "ação", "at": self.now});
            step.output = Some(change.odd.map_or_else(output, value).into());
            commit.steps.push(step);
        }
        if change.inputs && !was_over {
            commit.inputs = Some(Arc::new(Inputs {
                trigger_data: Arc::new(json!({"repaired": self.now, "odd": change.odd.map(value)})),
                node_overrides: Map::from_iter([("n0".to_owned(), json!({"a": 1}))]),
                ..(*claimed.state.inputs).clone()
            }));
        }
        if change.published {
            commit.published = Some(commit.execution.heads.event_seq);
        }
        let over = commit.execution.status.is_terminal();
        if let Some(millis) = change.keep.filter(|_| !over) {
            commit.then = LeaseAfter::Keep(at(self.now + millis));
        }
        if change.stale {
            commit.expected_version += 1;
        }
        if change.hole && !commit.events.is_empty() {
            commit.events.remove(0);
        }
        commit
    }

    async fn list(
        &self,
        organization_id: OrganizationId,
        workflow_id: Option<WorkflowId>,
        status: Option<Status>,
        limit: usize,
    ) {
        let mut after = None;
        loop {
            let query = ExecutionQuery::of(organization_id)
                .workflow_id(workflow_id)
                .status(status)
                .after(after)
                .limit(limit);
            let memory = self.memory.executions(query.clone()).await;
            let postgres = self.postgres.executions(query.clone()).await;
            let parts = |page: Page<_>| (page.items, page.has_more);
            let page = same(&query, memory.map(parts), postgres.map(parts));
            let (items, has_more) = page.expect("reads");
            after = items
                .last()
                .map(|last: &ExecutionRecord| (last.execution.created_at, last.execution.id));
            if !has_more {
                return;
            }
        }
    }

    /// Compares everything that readers see of an execution.
    async fn read(&self, organization_id: OrganizationId, id: ExecutionId, limit: usize) {
        let what = format!("run {id}");
        let _ = both!(self, what, execution(organization_id, id));
        let _ = both!(self, what, steps(organization_id, id));
        let _ = both!(self, what, snapshot(organization_id, id));
        let _ = both!(self, what, signals(id));
        let execution_id = id;
        for after in [0, 1, 3] {
            let query = EventQuery::of(organization_id, execution_id)
                .after(after)
                .limit(limit);
            let _ = both!(self, query, events(query));
            let query = AuditQuery::of(organization_id, execution_id)
                .after(after)
                .limit(limit);
            let memory = self
                .memory
                .audit(query)
                .await
                .map(|page| (page.items, page.has_more));
            let postgres = self
                .postgres
                .audit(query)
                .await
                .map(|page| (page.items, page.has_more));
            let _ = same(&query, memory, postgres);
            for level in [None, Some(LogLevel::Ok), Some(LogLevel::Error)] {
                let domain = level.map(|_| LogDomain::Step);
                let step_id = None;
                let query = LogQuery::of(organization_id, execution_id)
                    .level(level)
                    .domain(domain)
                    .step_id(step_id)
                    .after(after)
                    .limit(limit);
                let memory = self.memory.logs(query.clone()).await;
                let postgres = self.postgres.logs(query.clone()).await;
                let parts = |page: Page<_>| (page.items, page.has_more);
                let _ = same(&query, memory.map(parts), postgres.map(parts));
            }
        }
    }

    /// Compares everything in both stores.
    pub(crate) async fn compare_all(&self) {
        for (run, _) in &self.runs {
            let execution = &run.state.execution;
            self.read(execution.organization_id, execution.id, ALL)
                .await;
        }
        for organization_id in self.organizations {
            self.list(organization_id, None, None, 2).await;
            let query = WorkflowQuery::of(organization_id).limit(ALL);
            let memory = self.memory.workflows(query).await.map(|page| page.items);
            let _ = same(
                &query,
                memory,
                self.postgres.workflows(query).await.map(|page| page.items),
            );
        }
        for (organization, id, envelope) in &self.requests {
            let _ = both!(self, id, signature_request(*organization, *id));
            let _ = both!(self, id, signature_by_envelope("builtin", envelope));
        }
        for token in &self.tokens {
            let _ = both!(self, token, approval_by_token(*token));
        }
    }
}
