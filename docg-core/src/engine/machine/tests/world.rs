//! The test world: one execution that a test moves by hand, without a driver or a store. The invariants are
//! checked after every decision.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::*;
use crate::{
    error::StepFailure,
    event::{Event, EventData},
    ids::{CountingIds, IdSource, OrganizationId, SignalId, WorkflowId},
    observe::{Actor, AuditEvent, LogEntry, Redaction, verify_chain},
    ports::{MAX_TAKEOVERS, Signal, SignalKind},
    preflight::{Domain, Issue},
    run::{Execution, Inputs, Phase, Status, Step, StepState, WaitKind},
    time::Timestamp,
    workflow::{
        DryRegistry, NodeSpec, ParamKind, ParamSpec, Registry, StopReason, Workflow, WorkflowDraft,
        compute, effect, validate::validate,
    },
};

pub(super) struct World {
    pub(super) registry: Registry,
    dry: DryRegistry,
    pub(super) redaction: Redaction,
    ids: CountingIds,
    pub(super) now: Timestamp,
    pub(super) state: RunState,
    pub(super) next: Next,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) audit: Vec<Arc<AuditEvent>>,
    pub(super) logs: Vec<Arc<LogEntry>>,
    pub(super) settled: usize,
    /// The answer of a handler that is probed before a person ends the execution.
    pub(super) effect: Probe,
    /// How often a handler was probed because a person ends the execution.
    pub(super) probes_to_end: usize,
}

/// A claim after the last worker died.
pub(super) fn taken_over() -> Input {
    Input::Claimed(ClaimFacts {
        taken_over: true,
        takeovers: 1,
        unreadable: false,
    })
}

/// A claim after too many workers have died.
pub(super) fn interrupted() -> Input {
    Input::Claimed(ClaimFacts {
        taken_over: true,
        takeovers: MAX_TAKEOVERS,
        unreadable: false,
    })
}

pub(super) struct Options {
    pub(super) nodes: Value,
    pub(super) settings: Value,
    pub(super) dry_run: bool,
    pub(super) until_phase: Option<Phase>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: all_phases(),
            settings: json!({}),
            dry_run: false,
            until_phase: None,
        }
    }
}

/// A workflow with a node in every phase.
pub(super) fn all_phases() -> Value {
    let retry = json!({"max_attempts": 2, "initial_ms": 100});
    json!([
        {"id": "extract", "type": "extract", "params": {"in": "{{trigger.deal}}"}},
        {"id": "render", "type": "render", "params": {"in": "{{steps.extract}}"}, "retry": retry},
        {"id": "save", "type": "save", "retry": retry},
        {"id": "send", "type": "send", "retry": retry},
        {"id": "sign", "type": "sign", "retry": retry},
    ])
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    let spec = |name: &'static str, phase| {
        NodeSpec::new(name, phase).param(ParamSpec::optional("in", ParamKind::Json))
    };
    let nothing =
        |_: crate::workflow::EffectContext, _: Value| async { StepOutcome::done(json!({})) };
    registry.add(compute(
        spec("extract", Phase::Trigger),
        |_, p: Value| async move { Ok(p) },
    ));
    registry.add(compute(
        spec("render", Phase::Render),
        |_, p: Value| async move { Ok(p) },
    ));
    registry.add(effect(spec("save", Phase::Save).safe_to_repeat(), nothing).into());
    registry.add(effect(spec("send", Phase::Delivery), nothing).into());
    registry.add(effect(spec("sign", Phase::Signature), nothing).into());
    registry.add(
        effect(
            spec("approval", Phase::Delivery)
                .any_phase()
                .without_document(),
            nothing,
        )
        .into(),
    );
    registry
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        let registry = registry();
        let draft: WorkflowDraft = serde_json::from_value(
            json!({"name": "test", "nodes": options.nodes, "settings": options.settings}),
        )
        .expect("a readable definition");
        let valid = validate(draft, &registry).expect("a valid definition");
        let now = Timestamp::from_millis(1_000_000);
        let workflow = Arc::new(Workflow {
            id: WorkflowId::new(),
            organization_id: OrganizationId::new(),
            name: valid.name,
            version: 1,
            input_schema: valid.input_schema,
            settings: valid.settings,
            nodes: valid.nodes,
            created_at: now,
            updated_at: now,
            unreadable: false,
        });
        let (dry, redaction, mut ids) =
            (registry.dry(), Redaction::default(), CountingIds::default());
        let facts = NewExecutionFacts {
            workflow,
            inputs: Inputs {
                trigger_data: json!({"deal": {"amount": 5}}).into(),
                ..Inputs::default()
            },
            created_by: Actor::user("somebody"),
            trigger_type: "manual".into(),
            dry_run: options.dry_run,
            until_phase: options.until_phase,
            correlation_id: "correlation".into(),
            traceparent: None,
            retry_of: None,
            follows: None,
            attempt: 1,
            reuse: Vec::new(),
            idempotency: None,
        };
        let env = Env {
            registry: &registry,
            dry: &dry,
            redaction: &redaction,
            signature_check_ms: 3_600_000,
        };
        let run = create(
            facts,
            Moment {
                now,
                recorded: now,
                ids: &mut ids,
                role: Role::Worker,
                attendance: Attendance::Nobody,
            },
            env,
        );
        let mut world = Self {
            registry,
            dry,
            redaction,
            ids,
            now,
            state: run.state,
            next: Next::Rest,
            events: run.events,
            audit: run.audit,
            logs: run.logs,
            settled: 0,
            effect: Probe::Unknown,
            probes_to_end: 0,
        };
        world.check();
        world
    }

    pub(super) fn execution(&self) -> &Execution {
        &self.state.execution
    }

    pub(super) fn status(&self) -> Status {
        self.state.execution.status
    }

    pub(super) fn apply(&mut self, inputs: Vec<Input>) {
        self.apply_as(inputs, Role::Worker);
    }

    /// Decides as a holder in this role. The handler has returned; if it is probed before a person ends the
    /// execution, it answers `effect`.
    pub(super) fn apply_as(&mut self, inputs: Vec<Input>, role: Role) {
        self.decide(inputs, role, Attendance::Nobody);
        if let Next::ProbeToEnd { index, signals, .. } = &mut self.next {
            let (index, signals) = (*index, std::mem::take(signals));
            self.probes_to_end += 1;
            let answer = Input::Probed {
                index,
                effect: self.effect.clone(),
                notes: Notes::default(),
                told: Some(StopReason::Cancel),
            };
            let inputs = vec![answer, Input::Arrived(signals)];
            self.decide(inputs, role, Attendance::Nobody);
        }
    }

    fn env(&self) -> Env<'_> {
        Env {
            registry: &self.registry,
            dry: &self.dry,
            redaction: &self.redaction,
            signature_check_ms: 3_600_000,
        }
    }

    /// Makes a decision, stores its records in the world, and checks the invariants.
    pub(super) fn decide(&mut self, inputs: Vec<Input>, role: Role, attendance: Attendance) {
        let before = self.state.clone();
        let mut ids = std::mem::take(&mut self.ids);
        let moment = Moment {
            now: self.now,
            recorded: self.now,
            ids: &mut ids,
            role,
            attendance,
        };
        let shown = format!("{inputs:?}");
        let decision = decide(self.state.clone(), inputs, moment, self.env())
            .unwrap_or_else(|e| panic!("{e} on {shown} with {:#?}", before.execution));
        self.ids = ids;
        assert_eq!(
            decision.state.execution.version,
            before.execution.version + u64::from(!decision.records.is_empty()),
            "the version counts commits"
        );
        if before.execution.status.is_terminal() {
            let changed = Execution {
                version: 0,
                updated_at: self.now,
                heads: decision.state.execution.heads,
                ..decision.state.execution.clone()
            };
            let unchanged = Execution {
                version: 0,
                updated_at: self.now,
                heads: changed.heads,
                ..before.execution.clone()
            };
            assert_eq!(changed, unchanged, "a terminal execution never changes");
            assert!(
                decision.records.events.is_empty(),
                "nor does it say anything more"
            );
        }
        if let Some(without_end) = decision.without_end {
            self.check_canceled_before_its_end(*without_end);
        }
        self.state = decision.state;
        self.next = decision.next;
        self.settled += decision.records.settled.len();
        self.events.extend(decision.records.events);
        self.audit.extend(decision.records.audit);
        self.logs.extend(decision.records.logs);
        self.check();
    }

    /// Checks that a cancel which arrived before an execution ended by itself wins over that end.
    fn check_canceled_before_its_end(&mut self, (state, records): (RunState, Records)) {
        let cancel = self.signal(SignalKind::Cancel { reason: None });
        let mut ids = std::mem::take(&mut self.ids);
        let moment = Moment {
            now: self.now,
            recorded: self.now,
            ids: &mut ids,
            role: Role::Worker,
            attendance: Attendance::Nobody,
        };
        let decision = decide(state, vec![cancel], moment, self.env()).expect("it is in the table");
        self.ids = ids;
        let settled = &decision.records.settled;
        assert!(settled.iter().all(|it| !records.settled.contains(it)));
        assert_eq!(decision.state.execution.status, Status::Canceled);
        assert_eq!(decision.state.execution.error, None);
    }

    /// Checks the invariants of the run state and of all records so far.
    fn check(&mut self) {
        let execution = &self.state.execution;
        // Events have no gaps, each carries the state of its own moment, and together they lead to the final
        // state.
        let (mut status, mut progress, mut paused_from) = (Status::Queued, 0, None);
        for (event, seq) in self.events.iter().zip(1..) {
            assert_eq!(event.seq, seq, "no hole, no repeat");
            assert!(event.progress >= progress, "progress never falls");
            progress = event.progress;
            if let EventData::StatusChanged { from, to, .. } = &event.data {
                assert_eq!(*from, status, "`from` is the status of the event before");
                assert_eq!(
                    from.check(*to, paused_from),
                    Ok(()),
                    "every change is in the table"
                );
                paused_from = (*to == Status::Paused).then_some(*from);
                status = *to;
            }
            assert_eq!(
                event.status, status,
                "each event shows the status of its moment"
            );
        }
        assert_eq!(
            (status, progress),
            (execution.status, execution.progress),
            "events fold to the state"
        );
        assert_eq!(execution.heads.event_seq, self.events.len() as u64);
        assert_eq!(
            execution.progress == 100,
            execution.status == Status::Completed,
            "100 exactly when completed"
        );
        // The audit chain verifies and has a row for every change of status.
        let report = verify_chain(
            &self.audit,
            execution.heads.audit_seq,
            execution.heads.audit_hash,
        );
        assert_eq!(report.fault, None);
        let changes = self
            .events
            .iter()
            .filter(|e| matches!(e.data, EventData::StatusChanged { .. }))
            .count();
        let told = self
            .audit
            .iter()
            .filter(|row| row.metadata.to_value().get("from").is_some())
            .count();
        assert_eq!(changes, told, "one audit row for each change of status");
        // Log entries have no gaps.
        assert!(
            self.logs
                .iter()
                .zip(1..)
                .all(|(entry, seq)| entry.seq == seq)
        );
        // A resting execution has a reason in `waiting_for` or a `wake_at`; during a wait for a retry, both.
        if matches!(self.next, Next::Rest)
            && !execution.status.is_terminal()
            && execution.status != Status::Queued
        {
            let waiting = execution.waiting_for.as_ref();
            assert!(
                waiting.is_some() || execution.wake_at.is_some(),
                "nothing waits without a reason: {execution:#?}"
            );
            if waiting.is_some_and(|w| w.kind == WaitKind::Retry)
                && execution.status != Status::Paused
            {
                assert!(execution.wake_at.is_some());
            }
        }
        if execution.status.is_terminal() {
            assert_eq!(execution.wake_at, None);
            assert_eq!(execution.waiting_for, None);
            assert!(
                self.state
                    .steps
                    .iter()
                    .all(|step| !step.state.is_open() && step.state != StepState::Waiting),
                "no step runs after the end"
            );
            assert!(execution.completed_at.is_some());
        }
        // A step or execution that waits for people shows no error of an earlier attempt.
        let failed = |step: &&Step| matches!(step.state, StepState::Failed(_));
        for step in &self.state.steps {
            let waits = step.state == StepState::Waiting;
            assert!(!waits || step.error.is_none(), "{step:#?}");
        }
        let waiting = execution.waiting_for.as_ref();
        if waiting.is_some_and(|it| it.kind.is_for_people())
            && execution.status != Status::NeedsReview
            && execution.status != Status::Paused
            && let Some(error) = &execution.error
        {
            let mut left_behind = self.state.steps.iter().filter(failed);
            assert!(
                left_behind.any(|step| step.error.as_ref() == Some(error)),
                "{error:#?}"
            );
        }
        // At most one step is under way, and all steps before it have ended.
        let first_open = self
            .state
            .steps
            .iter()
            .position(|step| !step.state.is_ended())
            .unwrap_or(usize::MAX);
        for (index, step) in self.state.steps.iter().enumerate() {
            assert!(
                index <= first_open || step.started_at.is_none(),
                "steps run in order"
            );
        }
    }

    pub(super) fn signal(&mut self, kind: SignalKind) -> Input {
        Input::Signal(Signal {
            id: SignalId(self.ids.next_id()),
            execution_id: self.state.execution.id,
            organization_id: self.state.execution.organization_id,
            actor: Actor::user("somebody"),
            received_at: self.now,
            if_version: None,
            kind,
        })
    }

    pub(super) fn send(&mut self, kind: SignalKind) {
        let signal = self.signal(kind);
        self.apply(vec![signal]);
    }

    pub(super) fn finish_step(&mut self, result: Result<StepOutcome, StepFailure>) {
        let index = self.open_index().expect("a step is under way");
        self.apply(vec![Input::StepFinished {
            index,
            result,
            notes: Notes::default(),
            told: None,
        }]);
    }

    pub(super) fn open_index(&self) -> Option<usize> {
        match &self.next {
            Next::Run { index, .. } | Next::Resume { index, .. } | Next::Probe { index, .. } => {
                Some(*index)
            }
            _ => None,
        }
    }

    pub(super) fn pass_preflight(&mut self) {
        self.apply(vec![Input::Preflight {
            issues: Vec::new(),
            started_at: self.now,
        }]);
    }

    /// Lets everything succeed until the execution rests or ends.
    pub(super) fn run_well(&mut self) {
        for _ in 0..200 {
            self.now = self.now.plus_millis(1);
            match &self.next {
                Next::Preflight => self.pass_preflight(),
                Next::Run { .. } | Next::Resume { .. } => {
                    self.finish_step(Ok(StepOutcome::Done(json!({"ok": true}))))
                }
                Next::Probe { index, .. } => {
                    let input = Input::Probed {
                        index: *index,
                        effect: Probe::NotDone,
                        notes: Notes::default(),
                        told: None,
                    };
                    self.apply(vec![input]);
                }
                Next::Rest if self.execution().wake_at.is_some() && !self.waits_for_people() => {
                    self.now = self.now.max(self.execution().wake_at.unwrap_or(self.now));
                    self.apply(Vec::new());
                }
                Next::CheckSignatures => {
                    let checked = Checked::Answered(Vec::new());
                    self.apply(vec![Input::SignaturesChecked(checked)]);
                }
                Next::Remind => self.apply(vec![Input::Reminded(Ok(()))]),
                Next::Rest | Next::Done => return,
                Next::Attend | Next::Stop { .. } | Next::ProbeToEnd { .. } => {
                    panic!("{:?}", self.next)
                }
            }
        }
        panic!(
            "the run does not come to rest: {:?} {:#?} {:#?}",
            self.next, self.state.execution, self.state.steps
        );
    }

    pub(super) fn waits_for_people(&self) -> bool {
        self.execution()
            .waiting_for
            .as_ref()
            .is_some_and(|waiting| waiting.kind.is_for_people())
    }

    /// Lets everything succeed up to the step of this node, and leaves that step under way.
    pub(super) fn run_to(&mut self, node: &str) {
        self.apply(Vec::new());
        for _ in 0..50 {
            match &self.next {
                Next::Preflight => self.pass_preflight(),
                Next::Run { index, .. } if self.state.steps[*index].node_id.as_str() == node => {
                    return;
                }
                Next::Run { .. } => self.finish_step(Ok(StepOutcome::Done(json!({"ok": true})))),
                other => panic!("{other:?} on the way to {node}"),
            }
        }
        panic!("no step {node}");
    }

    pub(super) fn event_types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.event_type()).collect()
    }

    pub(super) fn statuses(&self) -> Vec<&'static str> {
        let changes = self.events.iter().filter_map(|event| match &event.data {
            EventData::StatusChanged { to, .. } => Some(to.as_str()),
            _ => None,
        });
        changes.collect()
    }
}

pub(super) fn blocking_issue() -> Issue {
    Issue::blocking(
        Domain::Data,
        "missing_required_field",
        "The customer is missing.",
    )
    .field("trigger.customer")
}
