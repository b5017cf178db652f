use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, Utc};
use docg_core::{
    approval::Approval,
    error::ErrorContext,
    event::Event,
    ids::{ExecutionId, NodeId, OrganizationId},
    observe::{Actor, AuditEvent, JsonText, LogEntry, Target},
    ports::{ExecutionRecord, RunState, Signal},
    run::{Execution, Heads, Inputs, Phase, PhaseMetrics, PhaseTimes, Status, Step},
    signature::SignatureRequest,
    time::Timestamp,
    workflow::Workflow,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow};
use uuid::Uuid;

use crate::error::Error;

/// A column's value.
pub(crate) fn field<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    column: &str,
) -> Result<T, Error> {
    row.try_get(column).map_err(Error::from)
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|e| Error::Corrupt(format!("{what} cannot be read: {e}")))
}

/// A column of JSON, which statements give as text.
pub(crate) fn json_field<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    from_json(column, field(row, column)?)
}

fn optional_json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, Error> {
    let json: Option<&str> = field(row, column)?;
    json.map(|json| from_json(column, json)).transpose()
}

/// A text that is one of a type's names.
fn named<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    let name: &str = field(row, column)?;
    variant(column, name)
}

fn variant<T: DeserializeOwned>(what: &str, name: &str) -> Result<T, Error> {
    serde_json::from_value(Value::from(name))
        .map_err(|e| Error::Corrupt(format!("{what} cannot be read: {e}")))
}

pub(crate) fn time(row: &PgRow, column: &str) -> Result<Timestamp, Error> {
    let time: DateTime<Utc> = field(row, column)?;
    Ok(time.into())
}

fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, Error> {
    let time: Option<DateTime<Utc>> = field(row, column)?;
    Ok(time.map(Timestamp::from))
}

pub(crate) fn number<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<T, Error> {
    let number: i64 = field(row, column)?;
    T::try_from(number).map_err(|_| Error::Corrupt(format!("{column} is {number}")))
}

pub(crate) fn bytes32(row: &PgRow, column: &str) -> Result<[u8; 32], Error> {
    let bytes: &[u8] = field(row, column)?;
    bytes
        .try_into()
        .map_err(|_| Error::Corrupt(format!("{column} has {} bytes, not 32", bytes.len())))
}

pub(crate) fn execution(row: &PgRow) -> Result<Execution, Error> {
    let code: Option<String> = field(row, "error_code")?;
    let error = code
        .map(|code| {
            Ok::<_, Error>(ErrorContext {
                code: Cow::Owned(code),
                human: json_field(row, "last_error_human")?,
                tech: field(row, "last_error_tech")?,
            })
        })
        .transpose()?;
    let progress: i16 = field(row, "progress")?;
    let optional_id = |column| -> Result<Option<ExecutionId>, Error> {
        Ok(field::<Option<Uuid>>(row, column)?.map(ExecutionId))
    };
    let optional_name = |column| -> Result<Option<&str>, Error> { field(row, column) };
    Ok(Execution {
        id: field::<Uuid>(row, "id")?.into(),
        workflow_id: field::<Uuid>(row, "workflow_id")?.into(),
        workflow_version: number(row, "workflow_version")?,
        organization_id: field::<Uuid>(row, "organization_id")?.into(),
        status: named(row, "status")?,
        progress: u8::try_from(progress)
            .map_err(|_| Error::Corrupt(format!("progress is {progress}")))?,
        current_step: optional_json(row, "current_step")?,
        waiting_for: optional_json(row, "waiting_for")?,
        error,
        preflight: optional_json(row, "preflight_summary")?,
        delivery_state: named(row, "delivery_state")?,
        signature_state: named(row, "signature_state")?,
        phase_metrics: phase_metrics(field(row, "phase_metrics")?)?,
        correlation_id: field::<&str>(row, "correlation_id")?.into(),
        traceparent: field::<Option<&str>>(row, "traceparent")?.map(Arc::from),
        created_by: json_field(row, "created_by")?,
        trigger_type: field::<&str>(row, "trigger_type")?.into(),
        retry_of: optional_id("retry_of")?,
        follows: optional_id("follows")?,
        dry_run: field(row, "dry_run")?,
        until_phase: optional_name("until_phase")?
            .map(|name| variant::<Phase>("until_phase", name))
            .transpose()?,
        attempt: number(row, "attempt")?,
        version: number(row, "version")?,
        created_at: time(row, "created_at")?,
        started_at: optional_time(row, "started_at")?,
        completed_at: optional_time(row, "completed_at")?,
        updated_at: time(row, "updated_at")?,
        paused_from: optional_name("paused_from")?
            .map(|name| variant::<Status>("paused_from", name))
            .transpose()?,
        preflight_due: field(row, "preflight_due")?,
        delivery_confirmed: field(row, "delivery_confirmed")?,
        priority: field(row, "priority")?,
        wake_at: optional_time(row, "wake_at")?,
        heads: Heads {
            event_seq: number(row, "event_seq")?,
            log_seq: number(row, "log_seq")?,
            audit_seq: number(row, "audit_seq")?,
            audit_hash: bytes32(row, "audit_hash")?,
        },
    })
}

/// A phase's times, in an array.
#[derive(Deserialize)]
struct StoredTimes(
    i64,
    Option<i64>,
    u64,
    u64,
    Option<i64>,
    // What was stored before it was measured has none.
    #[serde(default)] Option<i64>,
);

fn phase_metrics(json: &str) -> Result<PhaseMetrics, Error> {
    let stored: std::collections::BTreeMap<Phase, StoredTimes> = from_json("phase_metrics", json)?;
    let mut metrics = PhaseMetrics::default();
    for (phase, times) in stored {
        let StoredTimes(started, completed, duration_ms, waiting_ms, resumed, waiting) = times;
        metrics.0[phase as usize] = Some(PhaseTimes {
            started_at: Timestamp::from_millis(started),
            completed_at: completed.map(Timestamp::from_millis),
            duration_ms,
            waiting_ms,
            resumed_at: resumed.map(Timestamp::from_millis),
            waiting_since: waiting.map(Timestamp::from_millis),
        });
    }
    Ok(metrics)
}

pub(crate) fn record(row: &PgRow) -> Result<ExecutionRecord, Error> {
    Ok(ExecutionRecord {
        execution: execution(row)?,
        inputs: Arc::new(inputs(row)?),
    })
}

fn inputs(row: &PgRow) -> Result<Inputs, Error> {
    Ok(Inputs {
        trigger_data: json_field(row, "trigger_data")?,
        node_overrides: json_field(row, "node_overrides")?,
    })
}

/// All but the definition, which many runs share and which is found apart.
pub(crate) fn run_state(row: &PgRow, workflow: Arc<Workflow>) -> Result<RunState, Error> {
    let execution = execution(row)?;
    let signature: Option<SignatureRequest> = optional_json(row, "signature")?;
    let approval: Option<Approval> = optional_json(row, "approval")?;
    Ok(RunState {
        inputs: Arc::new(inputs(row)?),
        steps: steps(execution.id, field(row, "steps")?)?,
        workflow,
        signature,
        approval,
        execution,
    })
}

/// A step as statements give it: one of a JSON array, its error in three parts.
#[derive(Deserialize)]
struct StoredStep {
    id: Uuid,
    node_id: NodeId,
    node_type: Arc<str>,
    label: Arc<str>,
    phase: Phase,
    position: u32,
    status: docg_core::run::StepStatus,
    activity: docg_core::run::Activity,
    attempt: u32,
    attempts_before: u32,
    takeovers: u32,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    waiting_ms: u64,
    error_code: Option<String>,
    error_human: Option<docg_core::i18n::Text>,
    error_tech: Option<String>,
    outcome: docg_core::run::Outcome,
    // Each in an array of one: `null` is also a value that a handler may give.
    data_in: Option<(JsonText,)>,
    data_out: Option<(JsonText,)>,
    output: Option<(Arc<Value>,)>,
    reused_from: Option<ExecutionId>,
}

pub(crate) fn steps(execution_id: ExecutionId, json: &str) -> Result<Vec<Step>, Error> {
    let stored: Vec<StoredStep> = from_json("steps", json)?;
    let step = |it: StoredStep| Step {
        id: it.id.into(),
        execution_id,
        node_id: it.node_id,
        node_type: it.node_type,
        label: it.label,
        phase: it.phase,
        position: it.position,
        status: it.status,
        activity: it.activity,
        attempt: it.attempt,
        attempts_before: it.attempts_before,
        takeovers: it.takeovers,
        started_at: it.started_at,
        completed_at: it.completed_at,
        waiting_ms: it.waiting_ms,
        error: it
            .error_code
            .zip(it.error_human)
            .map(|(code, human)| ErrorContext {
                code: Cow::Owned(code),
                human,
                tech: it.error_tech,
            }),
        outcome: it.outcome,
        data_in: it.data_in.map(|(value,)| value),
        data_out: it.data_out.map(|(value,)| value),
        output: it.output.map(|(value,)| value),
        reused_from: it.reused_from,
    };
    Ok(stored.into_iter().map(step).collect())
}

/// The inbox, as a JSON array of signals.
pub(crate) fn signals(json: Option<&str>) -> Result<Vec<Signal>, Error> {
    json.map_or(Ok(Vec::new()), |json| from_json("signals", json))
}

/// An event, with what it repeats of its execution.
pub(crate) fn event(row: &PgRow) -> Result<Arc<Event>, Error> {
    let kind: &str = field(row, "event_type")?;
    let data: Value = json_field(row, "data")?;
    let tagged = json!({"event_type": kind, "data": data});
    let progress: i16 = field(row, "progress")?;
    Ok(Arc::new(Event {
        event_id: field::<Uuid>(row, "event_id")?.into(),
        seq: number(row, "seq")?,
        timestamp: time(row, "timestamp")?,
        execution_id: field::<Uuid>(row, "execution_id")?.into(),
        workflow_id: field::<Uuid>(row, "workflow_id")?.into(),
        organization_id: field::<Uuid>(row, "organization_id")?.into(),
        correlation_id: field::<&str>(row, "correlation_id")?.into(),
        status: named(row, "status")?,
        progress: u8::try_from(progress)
            .map_err(|_| Error::Corrupt(format!("progress is {progress}")))?,
        current_step: optional_json(row, "current_step")?,
        data: serde_json::from_value(tagged)
            .map_err(|e| Error::Corrupt(format!("an event of type {kind} cannot be read: {e}")))?,
    }))
}

pub(crate) fn log_entry(row: &PgRow) -> Result<LogEntry, Error> {
    Ok(LogEntry {
        id: field::<Uuid>(row, "id")?.into(),
        seq: number(row, "seq")?,
        execution_id: field::<Uuid>(row, "execution_id")?.into(),
        step_id: field::<Option<&str>>(row, "step_id")?.map(NodeId::from),
        timestamp: time(row, "timestamp")?,
        level: named(row, "level")?,
        domain: named(row, "domain")?,
        message_human: json_field(row, "message_human")?,
        message_tech: field(row, "message_tech")?,
        details_tech: optional_json(row, "details_tech")?,
        correlation_id: field::<&str>(row, "correlation_id")?.into(),
    })
}

/// An audit row. What has been erased is empty.
pub(crate) fn audit_event(row: &PgRow) -> Result<AuditEvent, Error> {
    Ok(AuditEvent {
        id: field::<Uuid>(row, "id")?.into(),
        seq: number(row, "seq")?,
        organization_id: OrganizationId(field(row, "organization_id")?),
        execution_id: field::<Uuid>(row, "execution_id")?.into(),
        timestamp: time(row, "timestamp")?,
        action: Cow::Owned(field(row, "action")?),
        target: Target {
            kind: Cow::Owned(field(row, "target_type")?),
            id: field(row, "target_id")?,
        },
        actor: Actor {
            actor_type: named(row, "actor_type")?,
            actor_id: field::<Option<&str>>(row, "actor_id")?
                .unwrap_or_default()
                .into(),
        },
        metadata: optional_json(row, "metadata")?.unwrap_or_default(),
        salt: field(row, "salt")?,
        commitment: bytes32(row, "commitment")?,
        prev_hash: bytes32(row, "prev_hash")?,
        hash: bytes32(row, "hash")?,
    })
}

pub(crate) fn signature_request(json: Option<&str>) -> Result<Option<SignatureRequest>, Error> {
    json.map(|json| from_json("signature request", json))
        .transpose()
}

pub(crate) fn approval(json: Option<&str>) -> Result<Option<Approval>, Error> {
    json.map(|json| from_json("approval", json)).transpose()
}

pub(crate) fn workflow(row: &PgRow) -> Result<Workflow, Error> {
    let input_schema: Map<String, Value> = json_field(row, "input_schema")?;
    Ok(Workflow {
        id: field::<Uuid>(row, "id")?.into(),
        organization_id: field::<Uuid>(row, "organization_id")?.into(),
        name: field(row, "name")?,
        version: number(row, "version")?,
        input_schema,
        settings: json_field(row, "settings")?,
        nodes: json_field(row, "nodes")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}
