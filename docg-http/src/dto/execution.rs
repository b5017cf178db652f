use docg_core::{
    actions::RecommendedAction,
    i18n::Locale,
    observe::Redaction,
    ports::ExecutionRecord,
    preflight::PreflightSummary,
    run::{PhaseTimes, Step},
};
use serde_json::{Map, Value, json};

/// The execution object. `technical` says whether the reader sees texts for technicians.
pub(crate) fn execution(
    record: &ExecutionRecord,
    actions: &[RecommendedAction],
    redaction: &Redaction,
    locale: Locale,
    technical: bool,
) -> Value {
    let e = &record.execution;
    let error = e.error.as_ref();
    json!({
        "id": e.id,
        "workflow_id": e.workflow_id,
        "workflow_version": e.workflow_version,
        "organization_id": e.organization_id,
        "status": e.status,
        "progress": e.progress,
        "current_step": e.current_step,
        "waiting_for": e.waiting_for,
        "last_error_human": error.map(|error| error.human.render(locale)),
        "last_error_tech": error.filter(|_| technical).and_then(|error| error.tech.as_deref()),
        "error_code": error.map(|error| &error.code),
        "preflight_summary": e.preflight.as_ref().map(|summary| preflight_summary(summary, locale, technical)),
        "delivery_state": e.delivery_state,
        "signature_state": e.signature_state,
        "recommended_actions": actions.iter().map(|action| action.for_reader(locale)).collect::<Vec<_>>(),
        "phase_metrics": e
            .phase_metrics
            .iter()
            .map(|(phase, times)| (phase.as_str().to_owned(), phase_times(times)))
            .collect::<Map<_, _>>(),
        "correlation_id": e.correlation_id,
        "trigger_type": e.trigger_type,
        "trigger_data": redaction.snapshot(&record.inputs.trigger_data),
        "retry_of": e.retry_of,
        "follows": e.follows,
        "dry_run": e.dry_run,
        "until_phase": e.until_phase,
        "attempt": e.attempt,
        "version": e.version,
        "created_at": e.created_at,
        "started_at": e.started_at,
        "completed_at": e.completed_at,
        "updated_at": e.updated_at,
    })
}

fn phase_times(times: &PhaseTimes) -> Value {
    json!({
        "started_at": times.started_at,
        "completed_at": times.completed_at,
        "duration_ms": times.duration_ms,
        "waiting_ms": times.waiting_ms,
    })
}

fn preflight_summary(summary: &PreflightSummary, locale: Locale, technical: bool) -> Value {
    json!({
        "blocking_count": summary.blocking_count,
        "warning_count": summary.warning_count,
        "completed_at": summary.completed_at,
        "groups": summary.groups(locale, Some(technical)),
    })
}

pub(crate) fn step(step: &Step, locale: Locale, technical: bool) -> Value {
    let error = step.error.as_ref();
    let human = error.map(|error| error.human.render(locale));
    let mut value = json!({
        "id": step.id,
        "execution_id": step.execution_id,
        "node_id": step.node_id,
        "step_id": step.node_id,
        "node_type": step.node_type,
        "label": step.label,
        "phase": step.phase,
        "position": step.position,
        "status": step.status,
        "attempt": step.attempt,
        "started_at": step.started_at,
        "completed_at": step.completed_at,
        "duration_ms": step.duration_ms(),
        "error_code": error.map(|error| &error.code),
        "error_human": human,
        "error_details": human,
        "error_tech": error.filter(|_| technical).and_then(|error| error.tech.as_deref()),
        "data_in": step.data_in,
        "data_out": step.data_out,
    });
    if let Some(from) = step.reused_from {
        value["reused_from"] = json!(from);
    }
    value
}
