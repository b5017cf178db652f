use std::{collections::BTreeMap, sync::Arc};

use docg_core::{
    actions,
    i18n::Locale,
    ids::{ExecutionId, NodeId, OrganizationId, StepId, WorkflowId},
    observe::JsonText,
    preflight,
    query::{self, ExecutionRecord},
    repair::ActionInput,
    run,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::openapi::{names, wire};

/// An execution of a workflow, with all that a page needs.
#[derive(Serialize, ToSchema)]
pub(crate) struct Execution {
    #[schema(value_type = Uuid)]
    id: ExecutionId,
    #[schema(value_type = Uuid)]
    workflow_id: WorkflowId,
    /// The version of the workflow with which the execution was created.
    workflow_version: u32,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    /// The execution's title for people, made from the workflow's `settings.title`.
    #[schema(value_type = Option<String>)]
    title: Option<Arc<str>>,
    #[schema(value_type = names::Status)]
    status: run::Status,
    /// Why the execution waits, needs a review or failed, in the reader's language; null if it does none of these.
    reason: Option<String>,
    /// True if part of the stored execution cannot be read, else left out. Its ids and its status are right
    /// in any case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    unreadable: bool,
    /// The progress in percent. It never falls, and is 100 exactly when the execution is completed.
    #[schema(maximum = 100)]
    progress: u8,
    #[schema(value_type = Option<wire::CurrentStep>)]
    current_step: Option<Arc<run::CurrentStep>>,
    #[schema(value_type = Option<wire::WaitingFor>)]
    waiting_for: Option<run::WaitingFor>,
    /// The last error, in the reader's language.
    last_error_human: Option<String>,
    /// The last error, for technicians. Null without the scope `executions:debug`.
    last_error_tech: Option<String>,
    error_code: Option<String>,
    /// Left out of summaries.
    #[serde(skip_serializing_if = "Part::is_left_out")]
    #[schema(value_type = Option<PreflightSummary>)]
    preflight_summary: Part<Option<PreflightSummary>>,
    #[schema(value_type = names::DeliveryState)]
    delivery_state: run::DeliveryState,
    #[schema(value_type = names::SignatureState)]
    signature_state: run::SignatureState,
    #[schema(value_type = Vec<wire::RecommendedAction>)]
    recommended_actions: Vec<Value>,
    /// The times of the phases that have begun, by name. Left out of summaries.
    #[serde(skip_serializing_if = "Part::is_left_out")]
    #[schema(value_type = BTreeMap<String, PhaseTimes>)]
    phase_metrics: Part<BTreeMap<&'static str, PhaseTimes>>,
    /// The id of the chain of calls to which the execution belongs.
    #[schema(value_type = String)]
    correlation_id: Arc<str>,
    /// The kind of trigger that started the execution, such as `manual`.
    #[schema(value_type = String)]
    trigger_type: Arc<str>,
    /// The trigger data for display: redacted, and cut if it is large. Steps get it unchanged. Left out of
    /// summaries.
    #[serde(skip_serializing_if = "Part::is_left_out")]
    #[schema(value_type = Value)]
    trigger_data: Part<JsonText>,
    /// The execution that this one retries.
    #[schema(value_type = Option<Uuid>)]
    retry_of: Option<ExecutionId>,
    /// The execution whose document this one uses.
    #[schema(value_type = Option<Uuid>)]
    follows: Option<ExecutionId>,
    dry_run: bool,
    /// The last phase to run.
    #[schema(value_type = Option<names::Phase>)]
    until_phase: Option<run::Phase>,
    /// The attempt: 1, and one more for each retry in the chain.
    attempt: u32,
    /// The version, which grows with each change; the entity tag for `If-Match`.
    version: u64,
    #[schema(value_type = names::Timestamp)]
    created_at: Timestamp,
    #[schema(value_type = Option<names::Timestamp>)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<names::Timestamp>)]
    completed_at: Option<Timestamp>,
    #[schema(value_type = names::Timestamp)]
    updated_at: Timestamp,
}

/// A part of an execution that summaries leave out.
#[derive(Serialize)]
#[serde(untagged)]
enum Part<T> {
    Shown(T),
    LeftOut,
}

impl<T> Part<T> {
    const fn is_left_out(&self) -> bool {
        matches!(self, Self::LeftOut)
    }
}

impl Execution {
    /// The execution without its large parts.
    pub(crate) fn summary(self) -> Self {
        Self {
            preflight_summary: Part::LeftOut,
            phase_metrics: Part::LeftOut,
            trigger_data: Part::LeftOut,
            ..self
        }
    }
}

/// The times of a phase.
#[derive(Serialize, ToSchema)]
struct PhaseTimes {
    #[schema(value_type = names::Timestamp)]
    started_at: Timestamp,
    #[schema(value_type = Option<names::Timestamp>)]
    completed_at: Option<Timestamp>,
    /// Time spent working, in milliseconds.
    duration_ms: u64,
    /// Time spent waiting for people, in milliseconds.
    waiting_ms: u64,
}

/// The issues that preflight found.
#[derive(Serialize, ToSchema)]
struct PreflightSummary {
    blocking_count: u32,
    warning_count: u32,
    #[schema(value_type = Option<names::Timestamp>)]
    completed_at: Option<Timestamp>,
    /// The issues by domain.
    #[schema(value_type = BTreeMap<String, Vec<wire::Issue>>)]
    groups: Value,
}

/// The execution object. `technical` is true if the reader sees texts for technicians.
pub(crate) fn execution(
    record: &ExecutionRecord,
    actions: &[actions::RecommendedAction],
    trigger_data: JsonText,
    locale: Locale,
    technical: bool,
) -> Execution {
    let e = &record.execution;
    let error = e.shown_error();
    let error = error.as_deref();
    Execution {
        id: e.id,
        workflow_id: e.workflow_id,
        workflow_version: e.workflow_version,
        organization_id: e.organization_id,
        title: e.title.clone(),
        status: e.status,
        reason: e.reason().map(|reason| reason.render(locale)),
        unreadable: record.unreadable,
        progress: e.progress,
        current_step: e.current_step.clone(),
        waiting_for: e.waiting_for.clone(),
        last_error_human: error.map(|error| error.human.render(locale)),
        last_error_tech: error
            .filter(|_| technical)
            .and_then(|error| error.tech.clone()),
        error_code: error.map(|error| error.code.to_string()),
        preflight_summary: Part::Shown(
            e.preflight
                .as_ref()
                .map(|summary| preflight_summary(summary, locale, technical)),
        ),
        delivery_state: e.delivery_state,
        signature_state: e.signature_state,
        recommended_actions: for_reader(actions, Some(e.id), locale),
        phase_metrics: Part::Shown(
            e.phase_metrics
                .iter()
                .map(|(phase, times)| (phase.as_str(), phase_times(times)))
                .collect(),
        ),
        correlation_id: Arc::clone(&e.correlation_id),
        trigger_type: Arc::clone(&e.trigger_type),
        trigger_data: Part::Shown(trigger_data),
        retry_of: e.retry_of,
        follows: e.follows,
        dry_run: e.dry_run,
        until_phase: e.until_phase,
        attempt: e.attempt,
        version: e.version,
        created_at: e.created_at,
        started_at: e.started_at,
        completed_at: e.completed_at,
        updated_at: e.updated_at,
    }
}

/// The actions in the reader's language; those on an execution with the calls that carry them out.
fn for_reader(
    actions: &[actions::RecommendedAction],
    execution: Option<ExecutionId>,
    locale: Locale,
) -> Vec<Value> {
    let shown = |action: &actions::RecommendedAction| {
        let mut shown = action.for_reader(locale);
        let call = action.call.as_ref().zip(execution);
        shown["call"] = json!(call.map(|(call, id)| json!({
            "method": "POST",
            "path": format!("/api/v1/executions/{id}/{}", call.name),
            "body": call.body,
        })));
        let input = |input: &ActionInput| {
            json!({
                "pointer": input.pointer,
                "label": input.label,
                "value": input.value,
                "schema": input.schema,
            })
        };
        shown["inputs"] = action.inputs.iter().map(input).collect();
        shown["loses"] = json!(action.loses);
        shown
    };
    actions.iter().map(shown).collect()
}

fn phase_times(times: &run::PhaseTimes) -> PhaseTimes {
    PhaseTimes {
        started_at: times.started_at,
        completed_at: times.completed_at,
        duration_ms: times.duration_ms,
        waiting_ms: times.waiting_ms,
    }
}

fn preflight_summary(
    summary: &preflight::PreflightSummary,
    locale: Locale,
    technical: bool,
) -> PreflightSummary {
    PreflightSummary {
        blocking_count: summary.blocking_count,
        warning_count: summary.warning_count,
        completed_at: summary.completed_at,
        groups: summary.groups(locale, Some(technical)),
    }
}

/// The numbers of executions.
#[derive(Serialize, ToSchema)]
pub(crate) struct Counts {
    /// The number of executions in each status.
    #[schema(value_type = BTreeMap<String, u64>)]
    by_status: BTreeMap<&'static str, u64>,
    /// The waiting executions, by the kind of wait.
    waiting: BTreeMap<String, WaitCount>,
}

/// The executions that wait for one kind of thing.
#[derive(Serialize, ToSchema)]
struct WaitCount {
    count: u64,
    /// When the oldest of these waits began; null if there is none.
    #[schema(value_type = Option<names::Timestamp>)]
    oldest_since: Option<Timestamp>,
}

pub(crate) fn counts(counts: &query::ExecutionCounts) -> Counts {
    let statuses = run::Status::ALL.into_iter();
    let kinds = run::WaitKind::ALL.into_iter();
    Counts {
        by_status: statuses
            .map(|status| (status.as_str(), counts.by_status[status as usize]))
            .collect(),
        waiting: kinds
            .map(|kind| {
                let waits = counts.waiting[kind as usize];
                let name = super::json(&kind).as_str().unwrap_or_default().to_owned();
                let (count, oldest_since) = (waits.count, waits.oldest_since);
                (
                    name,
                    WaitCount {
                        count,
                        oldest_since,
                    },
                )
            })
            .collect(),
    }
}

/// Executions, in the order of the query.
#[derive(Serialize, ToSchema)]
pub(crate) struct Executions {
    #[schema(value_type = Vec<Execution>)]
    pub(crate) executions: Vec<Value>,
    /// The cursor of the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
    pub(crate) has_more: bool,
}

/// The result of an execution's last preflight.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExecutionPreflight {
    preflight_summary: Option<PreflightSummary>,
    #[schema(value_type = Vec<wire::RecommendedAction>)]
    recommended_actions: Vec<Value>,
}

impl From<Execution> for ExecutionPreflight {
    fn from(execution: Execution) -> Self {
        Self {
            preflight_summary: match execution.preflight_summary {
                Part::Shown(summary) => summary,
                Part::LeftOut => None,
            },
            recommended_actions: execution.recommended_actions,
        }
    }
}

/// The result of a preflight of a workflow and trigger data, without an execution.
#[derive(Serialize, ToSchema)]
pub(crate) struct PreflightReport {
    /// True if no issue is blocking.
    can_execute: bool,
    blocking_count: u32,
    warning_count: u32,
    /// The issues by domain.
    #[schema(value_type = BTreeMap<String, Vec<wire::Issue>>)]
    groups: Value,
    #[schema(value_type = Vec<wire::RecommendedAction>)]
    recommended_actions: Vec<Value>,
}

pub(crate) fn preflight_report(
    summary: &preflight::PreflightSummary,
    actions: &[actions::RecommendedAction],
    locale: Locale,
    technical: bool,
) -> PreflightReport {
    PreflightReport {
        can_execute: summary.can_execute(),
        blocking_count: summary.blocking_count,
        warning_count: summary.warning_count,
        groups: summary.groups(locale, Some(technical)),
        recommended_actions: for_reader(actions, None, locale),
    }
}

/// The new execution that a retry created.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retried {
    #[schema(value_type = Uuid)]
    pub(crate) execution_id: ExecutionId,
    /// The status with which the new execution was created.
    #[schema(value_type = names::Status)]
    pub(crate) status: run::Status,
    #[schema(value_type = Execution)]
    pub(crate) execution: Value,
}

/// The request was passed on to the worker that holds the execution's lease.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignalSent {
    status: &'static str,
}

/// The executions that an event has reached.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventReached {
    #[schema(value_type = Vec<Uuid>)]
    pub(crate) executions: Vec<ExecutionId>,
}

/// The answer to a request that was passed on to the worker that holds the execution's lease.
pub(crate) const SIGNAL_SENT: SignalSent = SignalSent {
    status: "signal_sent",
};

/// The steps of an execution, in order.
#[derive(Serialize, ToSchema)]
pub(crate) struct Steps {
    pub(crate) steps: Vec<Step>,
}

/// One step of an execution.
#[derive(Serialize, ToSchema)]
pub(crate) struct Step {
    #[schema(value_type = Uuid)]
    id: StepId,
    #[schema(value_type = Uuid)]
    execution_id: ExecutionId,
    #[schema(value_type = String)]
    node_id: NodeId,
    /// The same as `node_id`.
    #[schema(value_type = String)]
    step_id: NodeId,
    #[schema(value_type = String)]
    node_type: Arc<str>,
    /// A label for people.
    #[schema(value_type = String)]
    label: Arc<str>,
    #[schema(value_type = names::Phase)]
    phase: run::Phase,
    /// The 0-based position in the workflow.
    position: u32,
    #[schema(value_type = names::StepStatus)]
    status: run::StepStatus,
    /// The number of attempts that ended with a result. It is 0 if a retry reused the output.
    attempt: u32,
    #[schema(value_type = Option<names::Timestamp>)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<names::Timestamp>)]
    completed_at: Option<Timestamp>,
    duration_ms: Option<u64>,
    error_code: Option<String>,
    /// The error, in the reader's language.
    error_human: Option<String>,
    /// The same as `error_human`.
    error_details: Option<String>,
    /// The error, for technicians. Null without the scope `executions:debug`.
    error_tech: Option<String>,
    /// The parameters after variables were resolved: redacted, and cut if they are large.
    #[schema(value_type = Value)]
    data_in: Option<JsonText>,
    /// The output: redacted, and cut if it is large.
    #[schema(value_type = Value)]
    data_out: Option<JsonText>,
    /// The execution whose output a retry reused for this step.
    #[schema(value_type = Option<Uuid>)]
    reused_from: Option<ExecutionId>,
}

pub(crate) fn step(step: &run::Step, locale: Locale, technical: bool) -> Step {
    let error = step.error.as_ref();
    let human = error.map(|error| error.human.render(locale));
    Step {
        id: step.id,
        execution_id: step.execution_id,
        node_id: step.node_id.clone(),
        step_id: step.node_id.clone(),
        node_type: Arc::clone(&step.node_type),
        label: Arc::clone(&step.label),
        phase: step.phase,
        position: step.position,
        status: step.status(),
        attempt: step.attempt,
        started_at: step.started_at,
        completed_at: step.completed_at,
        duration_ms: step.duration_ms(),
        error_code: error.map(|error| error.code.to_string()),
        error_human: human.clone(),
        error_details: human,
        error_tech: error
            .filter(|_| technical)
            .and_then(|error| error.tech.clone()),
        data_in: step.data_in.clone(),
        data_out: step.data_out.clone(),
        reused_from: step.reused_from,
    }
}
