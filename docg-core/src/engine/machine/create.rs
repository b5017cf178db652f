//! The first run state and records of a new execution.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Env, Moment, draft::Draft};
use crate::{
    event::EventData,
    i18n::Text,
    ids::{ExecutionId, StepId},
    observe::{Actor, AuditDraft, JsonText, LogLevel, Redaction, actions},
    ports::{Idempotency, NewExecution, RunState},
    run::{
        DeliveryState, Execution, Heads, Inputs, Phase, PhaseMetrics, SignatureState, Status, Step,
        StepState, WaitKind, WaitingFor,
    },
    workflow::{Node, Workflow, title},
};

/// The facts from which an execution is created.
pub(crate) struct NewExecutionFacts {
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) inputs: Inputs,
    pub(crate) created_by: Actor,
    pub(crate) trigger_type: Arc<str>,
    pub(crate) dry_run: bool,
    pub(crate) until_phase: Option<Phase>,
    pub(crate) correlation_id: Arc<str>,
    pub(crate) traceparent: Option<Arc<str>>,
    pub(crate) retry_of: Option<ExecutionId>,
    pub(crate) follows: Option<ExecutionId>,
    pub(crate) attempt: u32,
    /// The outputs that are reused from an earlier execution, each with the position of its step.
    pub(crate) reuse: Vec<(usize, Reuse)>,
    pub(crate) idempotency: Option<Idempotency>,
}

/// An output that is reused from an earlier execution.
pub(crate) struct Reuse {
    pub(crate) from: ExecutionId,
    pub(crate) output: Arc<Value>,
    pub(crate) data_out: Option<JsonText>,
}

pub(crate) fn create<'a>(
    facts: NewExecutionFacts,
    moment: Moment<'a>,
    env: Env<'a>,
) -> NewExecution {
    let now = moment.now;
    let id = ExecutionId(moment.ids.next_id());
    let workflow = facts.workflow;
    let steps = workflow
        .nodes
        .iter()
        .zip(0u32..)
        .map(|(node, position)| pending(StepId(moment.ids.next_id()), id, node, position))
        .collect();
    let execution = Execution {
        id,
        workflow_id: workflow.id,
        workflow_version: workflow.version,
        organization_id: workflow.organization_id,
        title: title(&workflow, &facts.inputs, env.redaction),
        status: Status::Queued,
        progress: 0,
        current_step: None,
        waiting_for: None,
        error: None,
        preflight: None,
        delivery_state: DeliveryState::Pending,
        signature_state: SignatureState::Pending,
        phase_metrics: PhaseMetrics::default(),
        correlation_id: facts.correlation_id,
        traceparent: facts.traceparent,
        created_by: Arc::new(facts.created_by),
        trigger_type: Arc::clone(&facts.trigger_type),
        retry_of: facts.retry_of,
        follows: facts.follows,
        dry_run: facts.dry_run,
        until_phase: facts.until_phase,
        attempt: facts.attempt,
        version: 0,
        created_at: now,
        started_at: None,
        completed_at: None,
        updated_at: now,
        paused_from: None,
        preflight_due: true,
        delivery_confirmed: false,
        priority: workflow.settings.priority,
        wake_at: Some(now),
        heads: Heads::default(),
    };
    let mut execution = execution;
    if let Some(start) = facts.inputs.start_at.filter(|start| *start > now) {
        execution.wake_at = Some(start);
        execution.waiting_for = Some(WaitingFor {
            kind: WaitKind::Timer,
            since: now,
            until: Some(start),
            detail: json!({"starts": true}),
        });
    }
    let state = RunState {
        execution,
        workflow,
        inputs: Arc::new(facts.inputs),
        steps,
        signature: None,
        approval: None,
    };
    let mut draft = Draft::new(state, moment, env);
    draft.event(EventData::ExecutionCreated {
        trigger_type: facts.trigger_type,
    });
    draft.log_run(LogLevel::Ok, Text::key("log-created"));
    if let Some(retried) = facts.retry_of {
        let actor = (*draft.execution().created_by).clone();
        let reused: Vec<_> = facts
            .reuse
            .iter()
            .map(|(index, _)| draft.node(*index).id.clone())
            .collect();
        let facts = json!({"retry_of": retried, "reused_steps": reused});
        draft.audit(AuditDraft::new(actions::RETRIED, facts).by(actor));
        draft.log_run(LogLevel::Ok, Text::key("log-retry-of").with("id", retried));
    }
    for (index, reuse) in facts.reuse {
        let node = draft.node(index);
        let step = draft.edit_step(index);
        step.state = StepState::Succeeded;
        step.reused_from = Some(reuse.from);
        step.output = Some(reuse.output);
        step.data_out = reuse.data_out;
        step.started_at = Some(now);
        step.completed_at = Some(now);
        draft.log_step(
            LogLevel::Ok,
            &node,
            Text::key("log-step-reused").with("label", &node.label),
            None,
        );
    }
    draft.edit().version += 1;
    let (state, records) = draft.into_parts();
    NewExecution {
        due_at: state.execution.wake_at,
        state,
        events: records.events,
        logs: records.logs,
        audit: records.audit,
        idempotency: facts.idempotency,
        claim: None,
    }
}

/// The title of an execution of this workflow with these inputs.
pub(super) fn title(
    workflow: &Workflow,
    inputs: &Inputs,
    redaction: &Redaction,
) -> Option<Arc<str>> {
    let template = workflow.settings.title.as_deref()?;
    title::title(template, &inputs.trigger_data, redaction).map(Arc::from)
}

fn pending(id: StepId, execution_id: ExecutionId, node: &Node, position: u32) -> Step {
    Step {
        id,
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
        started_at: None,
        completed_at: None,
        waiting_ms: 0,
        error: None,
        data_in: None,
        data_out: None,
        output: None,
        awaits: None,
        reused_from: None,
    }
}
