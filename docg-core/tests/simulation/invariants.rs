//! The invariants of an execution that is at rest, checked on its stored records.

use std::{collections::HashMap, sync::Arc};

use docg_core::{
    event::{Event, EventData},
    ids::OrganizationId,
    observe::{Actor, AuditEvent, actions, verify_chain},
    ports::ExecutionReader,
    prelude::*,
    query::{AuditQuery, EventQuery},
    run::{CurrentStep, Execution, Step, StepStatus},
};
use docg_store_memory::MemoryStore;

use crate::{outside::Outside, people::Asked};

/// All records of an execution.
pub(crate) struct Trail {
    execution: Execution,
    steps: Vec<Step>,
    events: Vec<Arc<Event>>,
    audit: Vec<Arc<AuditEvent>>,
}

impl Trail {
    pub(crate) async fn read(
        store: &MemoryStore,
        organization_id: OrganizationId,
        execution_id: ExecutionId,
    ) -> Self {
        let record = store.execution(organization_id, execution_id);
        let steps = store.steps(organization_id, execution_id);
        let events = store.events(EventQuery::of(organization_id, execution_id).limit(usize::MAX));
        let audit = store.audit(AuditQuery::of(organization_id, execution_id).limit(usize::MAX));
        Self {
            execution: record.await.expect("reads").expect("is there").execution,
            steps: steps.await.expect("reads"),
            events: events.await.expect("reads"),
            audit: audit.await.expect("reads").items,
        }
    }
}

impl Trail {
    pub(crate) fn status(&self) -> Status {
        self.execution.status
    }
}

/// The state of an execution according to its events.
struct Folded {
    status: Status,
    progress: u8,
    current_step: Option<Arc<CurrentStep>>,
    steps: HashMap<NodeId, StepStatus>,
    has_ended: bool,
}

/// Applies the events in order, and checks that each event fits the state before it.
fn fold(events: &[Arc<Event>]) -> Folded {
    let mut folded = Folded {
        status: Status::Queued,
        progress: 0,
        current_step: None,
        steps: HashMap::new(),
        has_ended: false,
    };
    let mut paused_from = None;
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq, "no hole, no repeat");
        assert!(!folded.has_ended, "nothing comes after the end: {event}");
        assert!(event.progress >= folded.progress, "progress never falls");
        match &event.data {
            EventData::StatusChanged { from, to, .. } => {
                assert_eq!(*from, folded.status);
                assert_eq!(from.check(*to, paused_from), Ok(()), "it is in the table");
                paused_from = (*to == Status::Paused).then_some(*from);
                folded.status = *to;
                // A resume from `needs_review` makes the failed step pending, which has no event of its own.
                if *from == Status::NeedsReview && !to.is_terminal() {
                    let current = event.current_step.as_ref();
                    let step = current.and_then(|step| folded.steps.get_mut(&step.node_id));
                    if let Some(failed) = step.filter(|status| **status == StepStatus::Failed) {
                        *failed = StepStatus::Pending;
                    }
                }
            }
            EventData::StepStarted { node_id, .. } => {
                let before = folded.steps.insert(node_id.clone(), StepStatus::Running);
                assert_ne!(before, Some(StepStatus::Success), "{node_id} had a result");
            }
            EventData::StepCompleted { node_id, .. } => {
                let before = folded.steps.insert(node_id.clone(), StepStatus::Success);
                assert_ne!(before, Some(StepStatus::Success), "{node_id} has a result");
            }
            EventData::StepFailed {
                node_id,
                will_retry,
                ..
            } => {
                let status = match will_retry {
                    true => StepStatus::Pending,
                    false => StepStatus::Failed,
                };
                folded.steps.insert(node_id.clone(), status);
            }
            EventData::StepSkipped { node_id, .. } => {
                folded.steps.insert(node_id.clone(), StepStatus::Skipped);
            }
            EventData::Completed { .. } | EventData::Failed { .. } | EventData::Canceled { .. } => {
                folded.has_ended = true
            }
            _ => {}
        }
        assert_eq!(event.status, folded.status, "{event} shows its moment");
        folded.progress = event.progress;
        folded.current_step.clone_from(&event.current_step);
        assert_eq!(
            event.progress == 100,
            event.status == Status::Completed,
            "100 exactly when completed"
        );
    }
    folded
}

/// Checks that events, steps and audit trail agree, and that the execution is not stuck.
pub(crate) fn check_run(trail: &Trail) {
    let Trail {
        execution,
        steps,
        events,
        audit,
    } = trail;
    let folded = fold(events);
    let state = (folded.status, folded.progress, folded.current_step);
    let stored = (
        execution.status,
        execution.progress,
        execution.current_step.clone(),
    );
    assert_eq!(state, stored, "the events fold to the state");
    assert_eq!(folded.has_ended, execution.status.is_terminal());
    assert_eq!(execution.heads.event_seq, events.len() as u64);
    for step in steps {
        let told = folded.steps.get(&step.node_id).copied();
        let told = told.unwrap_or(StepStatus::Pending);
        // Schema v1 has no event for a step that became pending again because its worker released it.
        let is_released = (told, step.status()) == (StepStatus::Running, StepStatus::Pending);
        assert!(
            told == step.status() || is_released,
            "{} is {}, and {told} according to its events: {events:#?}",
            step.node_id,
            step.status()
        );
    }

    let report = verify_chain(audit, execution.heads.audit_seq, execution.heads.audit_hash);
    assert_eq!(report.fault, None, "the audit chain verifies");
    let changes = events.iter().filter_map(|event| match &event.data {
        EventData::StatusChanged { from, to, .. } => Some((from.as_str(), to.as_str())),
        _ => None,
    });
    let rows: Vec<_> = audit.iter().map(|row| row.metadata.to_value()).collect();
    let named = rows
        .iter()
        .filter_map(|row| Some((row.get("from")?.as_str()?, row.get("to")?.as_str()?)));
    assert!(
        changes.eq(named),
        "a row for each change of status: {audit:#?}"
    );

    if execution.status == Status::Canceled {
        assert_eq!(execution.error, None, "a cancel is no error");
    }

    let waits_for_people = execution
        .waiting_for
        .as_ref()
        .is_some_and(|waiting| waiting.kind.is_for_people());
    assert!(
        execution.status.is_terminal() || waits_for_people,
        "it is stuck: {execution:#?} {steps:#?}"
    );
    // If a worker died in a step of a paused execution, the step stays open until the execution is resumed,
    // and is probed then.
    let is_at_work = steps.iter().any(|step| step.state.is_open());
    assert!(
        !is_at_work || execution.status == Status::Paused,
        "nothing is under way: {steps:#?}"
    );
}

/// Checks that no call was applied or ignored twice, that every pending call was handled, and that an
/// accepted cancel won.
pub(crate) fn check_calls(trail: &Trail, asked: &[Asked]) {
    for call in asked.iter().filter(|it| it.execution == trail.execution.id) {
        if call.is_cancel {
            let status = trail.execution.status;
            assert_eq!(status, Status::Canceled, "an accepted cancel wins");
        }
        let is_its = |actor: &Actor| *actor == call.actor;
        let its_rows: Vec<_> = trail
            .audit
            .iter()
            .filter(|row| is_its(&row.actor))
            .collect();
        let ignored = its_rows
            .iter()
            .filter(|row| row.action == actions::SIGNAL_IGNORED)
            .count();
        match ignored {
            0 => {}
            1 => assert_eq!(its_rows.len(), 1, "applied and ignored: {its_rows:#?}"),
            more => panic!("ignored {more} times"),
        }
        let applied = its_rows
            .iter()
            .filter(|row| {
                [actions::PAUSED, actions::RESUMED, actions::CANCELED].contains(&&*row.action)
            })
            .count();
        assert!(applied <= 1, "applied {applied} times: {its_rows:#?}");
        if call.is_pending {
            assert_eq!(
                applied + ignored,
                1,
                "a pending call has a row: {its_rows:#?}"
            );
        }
    }
}

/// Checks that only effects that are safe to repeat were repeated, and that every successful effect happened.
pub(crate) fn check_effects(trail: &Trail, outside: &Outside) {
    for step in &trail.steps {
        let times = outside.effects_of(trail.execution.id, &step.node_id);
        let (is_effect, may_repeat) = match &*step.node_type {
            "repeatable" | "sign" => (true, true),
            "probed" | "unprobed" => (true, false),
            _ => (false, false),
        };
        assert!(
            times <= 1 || may_repeat,
            "the effect of {} happened {times} times: {:#?}",
            step.node_id,
            trail.events
        );
        if is_effect && step.status() == StepStatus::Success {
            assert!(times >= 1, "{} is done, and was not", step.node_id);
        }
    }
}

/// Checks that a reader has seen every event once, in order.
pub(crate) fn check_reader(trail: &Trail, after: u64, seen: &[Arc<Event>]) {
    let expected = trail.events.iter().filter(|event| event.seq > after);
    assert!(
        expected.eq(seen),
        "a reader after {after} has seen {:?} of {}",
        seen.iter().map(|event| event.seq).collect::<Vec<_>>(),
        trail.events.len()
    );
}
