use std::{borrow::Cow, collections::BTreeMap, fmt::Display, sync::Arc};

use chrono::{DateTime, Datelike, Utc};
use docg_core::{
    approval::Approval,
    error::{ErrorContext, codes},
    i18n::Text,
    ids::{ExecutionId, NodeId, OrganizationId},
    observe::{Actor, AuditEvent, JsonText, Target},
    ports::{RunState, Signal},
    query::ExecutionRecord,
    run::{Execution, Heads, Inputs, Phase, PhaseMetrics, PhaseTimes, Step, StepState, WaitKind},
    signature::SignatureRequest,
    storable::Unstorable,
    time::{MAX_DURATION_MS, Timestamp},
    workflow::{Node, Settings, Workflow},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};
use sqlx::{
    Decode, Postgres, Row, Type,
    error::BoxDynError,
    postgres::{PgRow, PgTypeInfo, PgValueFormat, PgValueRef},
};
use uuid::Uuid;

use crate::error::Error;

/// Reads the value of a column.
pub(crate) fn field<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    column: &str,
) -> Result<T, Error> {
    row.try_get(column).map_err(Error::from)
}

/// Reads JSON. It refuses a text with a NUL character, which the store never writes and could not write
/// back.
pub(crate) fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Error> {
    match Unstorable::of_json(json, usize::MAX) {
        Some(fault) => Err(cannot_be_read(what, &fault)),
        None => serde_json::from_str(json).map_err(|e| cannot_be_read(what, &e)),
    }
}

fn cannot_be_read(what: &str, why: &dyn Display) -> Error {
    Error::Corrupt(format!("{what} cannot be read: {why}"))
}

/// Reads a column of JSON, which statements return as text.
pub(crate) fn json_field<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    from_json(column, field(row, column)?)
}

fn optional_json<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, Error> {
    let json: Option<&str> = field(row, column)?;
    json.map(|json| from_json(column, json)).transpose()
}

/// Reads a text that names one of a type's variants.
fn named<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<T, Error> {
    let name: &str = field(row, column)?;
    variant(column, name)
}

fn variant<T: DeserializeOwned>(what: &str, name: &str) -> Result<T, Error> {
    serde_json::from_value(Value::from(name))
        .map_err(|e| Error::Corrupt(format!("{what} cannot be read: {e}")))
}

/// The time that readers see if the stored time cannot be read.
pub(super) const EPOCH: Timestamp = Timestamp::from_millis(0);

/// A stored time. The driver's own types panic on `infinity` and on years that are out of range; this
/// type reports them as errors.
struct Moment(DateTime<Utc>);

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return Ok(Self(Decode::<Postgres>::decode(value)?));
        }
        /// Microseconds from 1970, where this program counts from, to 2000, where the server does.
        const EPOCH: i64 = 946_684_800_000_000;
        let micros: i64 = Decode::<Postgres>::decode(value)?;
        let since_1970 = micros.checked_add(EPOCH);
        let time = since_1970.and_then(DateTime::from_timestamp_micros);
        let time = time.filter(|time| (1..=9_999).contains(&time.year()));
        Ok(Self(
            time.ok_or("a time before or after all that there are")?,
        ))
    }
}

pub(crate) fn time(row: &PgRow, column: &str) -> Result<Timestamp, Error> {
    field::<Moment>(row, column).map(|moment| moment.0.into())
}

pub(crate) fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>, Error> {
    let moment: Option<Moment> = field(row, column)?;
    Ok(moment.map(|moment| moment.0.into()))
}

/// All valid stored numbers are below this bound. Counting could not go on from a damaged number above it.
const LARGEST: i64 = 1 << 62;

pub(crate) fn number<T: TryFrom<i64>>(row: &PgRow, column: &str) -> Result<T, Error> {
    let number: i64 = field(row, column)?;
    let read = T::try_from(number).ok().filter(|_| number < LARGEST);
    read.ok_or_else(|| Error::Corrupt(format!("{column} is {number}")))
}

/// Reads a row's sequence number. It accepts damaged numbers, so that a list with a damaged row stays
/// readable: a negative number becomes 0, which no valid row has.
pub(crate) fn seq(row: &PgRow, column: &str) -> Result<u64, Error> {
    let seq: i64 = field(row, column)?;
    Ok(u64::try_from(seq).unwrap_or_default())
}

pub(crate) fn bytes32(row: &PgRow, column: &str) -> Result<[u8; 32], Error> {
    let bytes: &[u8] = field(row, column)?;
    bytes
        .try_into()
        .map_err(|_| Error::Corrupt(format!("{column} has {} bytes, not 32", bytes.len())))
}

/// Replaces those values of a row that cannot be read, and keeps the error of the first.
#[derive(Default)]
pub(crate) struct Lenient {
    pub(super) fault: Option<Error>,
}

impl Lenient {
    pub(super) fn or<T>(&mut self, read: Result<T, Error>, instead: T) -> T {
        read.unwrap_or_else(|error| {
            self.fault = self.fault.take().or(Some(error));
            instead
        })
    }

    pub(super) fn or_default<T: Default>(&mut self, read: Result<T, Error>) -> T {
        self.or(read, T::default())
    }

    /// Returns `read` if every value could be read, else the first error.
    fn strict<T>(self, read: T) -> Result<T, Error> {
        self.fault.map_or(Ok(read), Err)
    }

    /// The error that is shown for a record with an unreadable value.
    fn context(&self) -> Option<ErrorContext> {
        let fault = self.fault.as_ref()?;
        Some(ErrorContext {
            code: Cow::Borrowed(codes::UNREADABLE),
            human: Text::key("error-unreadable"),
            tech: Some(fault.to_string()),
        })
    }
}

fn error_context(row: &PgRow) -> Result<Option<ErrorContext>, Error> {
    let code: Option<String> = field(row, "error_code")?;
    code.map(|code| {
        Ok(ErrorContext {
            code: Cow::Owned(code),
            human: json_field(row, "last_error_human")?,
            tech: field(row, "last_error_tech")?,
        })
    })
    .transpose()
}

fn progress(row: &PgRow) -> Result<u8, Error> {
    let progress: i16 = field(row, "progress")?;
    u8::try_from(progress).map_err(|_| Error::Corrupt(format!("progress is {progress}")))
}

fn optional_named<T: DeserializeOwned>(row: &PgRow, column: &str) -> Result<Option<T>, Error> {
    let name: Option<&str> = field(row, column)?;
    name.map(|name| variant(column, name)).transpose()
}

/// Reads an execution. Only its ids and its status must be readable.
fn execution(row: &PgRow, read: &mut Lenient) -> Result<Execution, Error> {
    let optional_id = |column| -> Result<Option<ExecutionId>, Error> {
        Ok(field::<Option<Uuid>>(row, column)?.map(ExecutionId))
    };
    Ok(Execution {
        id: field::<Uuid>(row, "id")?.into(),
        workflow_id: field::<Uuid>(row, "workflow_id")?.into(),
        workflow_version: read.or_default(number(row, "workflow_version")),
        organization_id: field::<Uuid>(row, "organization_id")?.into(),
        title: read.or_default(field::<Option<&str>>(row, "title").map(|it| it.map(Arc::from))),
        status: named(row, "status")?,
        progress: read.or_default(progress(row)),
        current_step: read.or_default(optional_json(row, "current_step")),
        waiting_for: read.or_default(optional_json(row, "waiting_for")),
        error: read.or_default(error_context(row)),
        preflight: read.or_default(optional_json(row, "preflight_summary")),
        delivery_state: read.or_default(named(row, "delivery_state")),
        signature_state: read.or_default(named(row, "signature_state")),
        phase_metrics: read.or_default(field(row, "phase_metrics").and_then(phase_metrics)),
        correlation_id: read.or(
            field::<&str>(row, "correlation_id").map(Arc::from),
            Arc::from(""),
        ),
        traceparent: read
            .or_default(field::<Option<&str>>(row, "traceparent").map(|it| it.map(Arc::from))),
        created_by: read.or(json_field(row, "created_by"), Arc::new(Actor::system())),
        trigger_type: read.or(
            field::<&str>(row, "trigger_type").map(Arc::from),
            Arc::from(""),
        ),
        retry_of: read.or_default(optional_id("retry_of")),
        follows: read.or_default(optional_id("follows")),
        dry_run: read.or_default(field(row, "dry_run")),
        until_phase: read.or_default(optional_named(row, "until_phase")),
        attempt: read.or_default(number(row, "attempt")),
        version: read.or_default(number(row, "version")),
        created_at: read.or(time(row, "created_at"), EPOCH),
        started_at: read.or_default(optional_time(row, "started_at")),
        completed_at: read.or_default(optional_time(row, "completed_at")),
        updated_at: read.or(time(row, "updated_at"), EPOCH),
        paused_from: read.or_default(optional_named(row, "paused_from")),
        preflight_due: read.or_default(field(row, "preflight_due")),
        delivery_confirmed: read.or_default(field(row, "delivery_confirmed")),
        priority: read.or_default(field(row, "priority")),
        wake_at: read.or_default(optional_time(row, "wake_at")),
        heads: Heads {
            event_seq: read.or_default(number(row, "event_seq")),
            log_seq: read.or_default(number(row, "log_seq")),
            audit_seq: read.or_default(number(row, "audit_seq")),
            audit_hash: read.or(bytes32(row, "audit_hash"), [0; 32]),
        },
    })
}

/// The times of a phase, stored as an array.
#[derive(Deserialize)]
struct StoredTimes(
    i64,
    Option<i64>,
    u64,
    u64,
    Option<i64>,
    // The time since when the phase waits. Rows of older versions lack it.
    #[serde(default)] Option<i64>,
);

fn phase_metrics(json: &str) -> Result<PhaseMetrics, Error> {
    let stored: BTreeMap<Phase, StoredTimes> = from_json("phase_metrics", json)?;
    let mut metrics = PhaseMetrics::default();
    for (phase, times) in stored {
        let StoredTimes(started, completed, duration_ms, waiting_ms, resumed, waiting) = times;
        metrics.0[phase as usize] = Some(PhaseTimes {
            started_at: Timestamp::from_millis(started),
            completed_at: completed.map(Timestamp::from_millis),
            duration_ms: duration_ms.min(MAX_DURATION_MS),
            waiting_ms: waiting_ms.min(MAX_DURATION_MS),
            resumed_at: resumed.map(Timestamp::from_millis),
            waiting_since: waiting.map(Timestamp::from_millis),
        });
    }
    Ok(metrics)
}

pub(crate) fn record(row: &PgRow) -> Result<ExecutionRecord, Error> {
    let mut read = Lenient::default();
    let mut execution = execution(row, &mut read)?;
    let inputs = read.or_default(inputs(row));
    if let Some(unreadable) = read.context() {
        execution.error = Some(unreadable);
    }
    let mut record = ExecutionRecord::new(execution, Arc::new(inputs));
    record.unreadable = read.fault.is_some();
    Ok(record)
}

/// Marks an execution as unreadable although its own row can be read: another row, such as a step's,
/// cannot.
pub(crate) fn mark_unreadable(record: &mut ExecutionRecord, why: Error) {
    record.execution.error = Lenient { fault: Some(why) }.context();
    record.unreadable = true;
}

fn inputs(row: &PgRow) -> Result<Inputs, Error> {
    Ok(Inputs {
        trigger_data: json_field(row, "trigger_data")?,
        node_overrides: json_field(row, "node_overrides")?,
        start_at: optional_time(row, "start_at")?,
        events: optional_json(row, "kept_events")?.unwrap_or_default(),
    })
}

/// Reads the run state. The definition is passed in, because many executions share one.
pub(crate) fn run_state(row: &PgRow, workflow: Arc<Workflow>) -> Result<RunState, Error> {
    let mut read = Lenient::default();
    let execution = execution(row, &mut read)?;
    let execution = read.strict(execution)?;
    let signature: Option<SignatureRequest> = optional_json(row, "signature")?;
    let approval: Option<Approval> = optional_json(row, "approval")?;
    let steps = steps(execution.id, field(row, "steps")?)?;
    check_steps(&execution, &steps, &workflow)?;
    let is_gone = match execution.waiting_for.as_ref().map(|waits| waits.kind) {
        Some(WaitKind::Signature) => signature.is_none(),
        Some(WaitKind::Approval) => approval.is_none(),
        _ => false,
    };
    if is_gone {
        let id = execution.id;
        return Err(Error::Corrupt(format!("what {id} waits for is not there")));
    }
    Ok(RunState {
        inputs: Arc::new(inputs(row)?),
        steps,
        workflow,
        signature,
        approval,
        execution,
    })
}

/// Checks that each node has its step, in the same place, and that the current step is one of them.
fn check_steps(execution: &Execution, steps: &[Step], workflow: &Workflow) -> Result<(), Error> {
    let fits = |(index, (step, node)): (usize, (&Step, &Arc<Node>))| {
        step.position as usize == index && step.node_id == node.id
    };
    let current = execution.current_step.as_ref();
    if steps.len() == workflow.nodes.len()
        && steps.iter().zip(&workflow.nodes).enumerate().all(fits)
        && current.is_none_or(|current| (current.index as usize) < steps.len())
    {
        return Ok(());
    }
    let id = execution.id;
    Err(Error::Corrupt(format!(
        "the steps of {id} are not those of its definition"
    )))
}

/// Reads the run state that a cancel needs, if the execution cannot be read completely. A cancel touches
/// neither steps nor definition, so both are empty.
pub(crate) fn reduced_state(row: &PgRow) -> Result<RunState, Error> {
    let ExecutionRecord {
        mut execution,
        inputs,
        ..
    } = record(row)?;
    execution.current_step = None;
    Ok(RunState {
        inputs,
        steps: Vec::new(),
        workflow: Arc::new(no_workflow(&execution)),
        signature: optional_json(row, "signature").unwrap_or_default(),
        approval: optional_json(row, "approval").unwrap_or_default(),
        execution,
    })
}

/// An empty definition, for a run state whose definition is not used.
fn no_workflow(execution: &Execution) -> Workflow {
    Workflow {
        id: execution.workflow_id,
        organization_id: execution.organization_id,
        name: String::new(),
        version: execution.workflow_version,
        input_schema: Map::new(),
        settings: Settings::default(),
        nodes: Vec::new(),
        created_at: execution.created_at,
        updated_at: execution.updated_at,
        unreadable: true,
    }
}

/// A step as statements return it, in a JSON array; its error is in three parts.
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
    awaits: Option<docg_core::run::Awaited>,
    error_code: Option<String>,
    error_human: Option<docg_core::i18n::Text>,
    error_tech: Option<String>,
    outcome: docg_core::run::Outcome,
    // Each value is in an array of one, because a handler may return `null`, which differs from no value.
    data_in: Option<(JsonText,)>,
    data_out: Option<(JsonText,)>,
    output: Option<(Arc<Value>,)>,
    reused_from: Option<ExecutionId>,
}

/// The part of a step that is shown if the rest cannot be read.
#[derive(Deserialize)]
struct StepHead {
    id: Uuid,
    node_id: NodeId,
    node_type: Arc<str>,
    label: Arc<str>,
    phase: Phase,
    position: i64,
    status: docg_core::run::StepStatus,
}

pub(crate) fn steps(execution_id: ExecutionId, json: &str) -> Result<Vec<Step>, Error> {
    let stored: Vec<StoredStep> = from_json("steps", json)?;
    let step = |it| step(execution_id, it);
    stored.into_iter().map(step).collect()
}

/// Reads a single step, in reduced form if it cannot be read completely.
pub(crate) fn lenient_step(execution_id: ExecutionId, json: &str) -> Result<Step, Error> {
    let read = from_json("step", json).and_then(|stored| step(execution_id, stored));
    let Err(error) = read else { return read };
    // Parse without the check for NUL characters, which the rest of the step may contain. The head comes
    // from columns of type text, which cannot contain any.
    let head: StepHead = serde_json::from_str(json).map_err(|e| cannot_be_read("step", &e))?;
    let mut read = Lenient::default();
    read.or_default(Err::<(), _>(error));
    Ok(Step {
        id: head.id.into(),
        execution_id,
        node_id: head.node_id,
        node_type: head.node_type,
        label: head.label,
        phase: head.phase,
        position: u32::try_from(head.position).unwrap_or_default(),
        state: StepState::from_status(head.status),
        attempt: 0,
        attempts_before: 0,
        takeovers: 0,
        started_at: None,
        completed_at: None,
        waiting_ms: 0,
        awaits: None,
        error: read.context(),
        data_in: None,
        data_out: None,
        output: None,
        reused_from: None,
    })
}

fn step(execution_id: ExecutionId, it: StoredStep) -> Result<Step, Error> {
    let (status, activity, outcome) = (it.status, it.activity, it.outcome);
    let state = StepState::from_stored(status, activity, outcome).ok_or_else(|| {
        let found = format!("status {status} with activity {activity:?} and outcome {outcome:?}");
        cannot_be_read("step", &found)
    })?;
    Ok(Step {
        id: it.id.into(),
        execution_id,
        node_id: it.node_id,
        node_type: it.node_type,
        label: it.label,
        phase: it.phase,
        position: it.position,
        state,
        attempt: it.attempt,
        attempts_before: it.attempts_before,
        takeovers: it.takeovers,
        started_at: it.started_at,
        completed_at: it.completed_at,
        waiting_ms: it.waiting_ms,
        awaits: it.awaits,
        error: it
            .error_code
            .zip(it.error_human)
            .map(|(code, human)| ErrorContext {
                code: Cow::Owned(code),
                human,
                tech: it.error_tech,
            }),
        data_in: it.data_in.map(|(value,)| value),
        data_out: it.data_out.map(|(value,)| value),
        output: it.output.map(|(value,)| value),
        reused_from: it.reused_from,
    })
}

/// Reads the signal inbox, a JSON array of signals.
pub(crate) fn signals(json: Option<&str>) -> Result<Vec<Signal>, Error> {
    json.map_or(Ok(Vec::new()), |json| from_json("signals", json))
}

/// Reads an audit row. Erased values are empty. Unreadable values are replaced, and then the row does not
/// verify.
pub(crate) fn audit_event(row: &PgRow) -> Result<AuditEvent, Error> {
    let mut read = Lenient::default();
    let nobody = Actor::system().actor_type;
    Ok(AuditEvent {
        id: field::<Uuid>(row, "id")?.into(),
        seq: seq(row, "seq")?,
        organization_id: OrganizationId(field(row, "organization_id")?),
        execution_id: field::<Uuid>(row, "execution_id")?.into(),
        timestamp: read.or(time(row, "timestamp"), EPOCH),
        action: Cow::Owned(field(row, "action")?),
        target: Target {
            kind: Cow::Owned(field(row, "target_type")?),
            id: field(row, "target_id")?,
        },
        actor: Actor {
            actor_type: read.or(named(row, "actor_type"), nobody),
            actor_id: field::<Option<&str>>(row, "actor_id")?
                .unwrap_or_default()
                .into(),
        },
        metadata: read
            .or_default(optional_json(row, "metadata"))
            .unwrap_or_default(),
        salt: field(row, "salt")?,
        commitment: read.or_default(bytes32(row, "commitment")),
        prev_hash: read.or_default(bytes32(row, "prev_hash")),
        hash: read.or_default(bytes32(row, "hash")),
    })
}

/// The columns of a row that comes as JSON, each of which can be read by itself.
#[derive(Default)]
pub(super) struct Columns<'j>(BTreeMap<&'j str, &'j RawValue>);

impl<'j> Columns<'j> {
    pub(super) fn of(what: &str, json: &'j str) -> Result<Self, Error> {
        let columns = serde_json::from_str(json);
        columns.map(Self).map_err(|e| cannot_be_read(what, &e))
    }

    pub(super) fn get<T: DeserializeOwned>(&self, column: &str) -> Result<T, Error> {
        let json = self.0.get(column).map_or("null", |json| json.get());
        from_json(column, json)
    }

    fn or_default<T: DeserializeOwned + Default>(&self, column: &str) -> T {
        self.get(column).unwrap_or_default()
    }
}

/// Reads a signature request, in reduced form if it cannot be read completely.
pub(crate) fn signature_request(json: &str) -> Result<SignatureRequest, Error> {
    let what = "signature request";
    from_json(what, json).or_else(|_: Error| {
        let columns = Columns::of(what, json)?;
        Ok(SignatureRequest {
            id: columns.get("id")?,
            execution_id: columns.get("execution_id")?,
            organization_id: columns.get("organization_id")?,
            node_id: columns.get("node_id")?,
            provider: columns.get("provider")?,
            envelope_id: columns.get("envelope_id")?,
            status: columns.get("status")?,
            signers: columns.or_default("signers"),
            file: columns.or_default("file"),
            created_at: columns.get("created_at").unwrap_or(EPOCH),
            expires_at: columns.or_default("expires_at"),
            completed_at: columns.or_default("completed_at"),
            details: columns.or_default("details"),
            follow_up: columns.or_default("follow_up"),
            unreadable: true,
        })
    })
}

/// Reads an approval, in reduced form if it cannot be read completely.
pub(crate) fn approval(json: &str) -> Result<Approval, Error> {
    let what = "approval";
    from_json(what, json).or_else(|_: Error| {
        let columns = Columns::of(what, json)?;
        Ok(Approval {
            id: columns.get("id")?,
            execution_id: columns.get("execution_id")?,
            organization_id: columns.get("organization_id")?,
            node_id: columns.get("node_id")?,
            message: columns.or_default("message"),
            approvers: columns.or_default("approvers"),
            quorum: columns.get("quorum").unwrap_or(1),
            decision: columns.get("decision")?,
            decided_by: columns.or_default("decided_by"),
            created_at: columns.get("created_at").unwrap_or(EPOCH),
            decided_at: columns.or_default("decided_at"),
            expires_at: columns.or_default("expires_at"),
            on_expiry: columns.get("on_expiry")?,
            unreadable: true,
        })
    })
}

/// Reads a workflow, in reduced form if it cannot be read completely. Its version is the one that the next
/// version follows.
pub(crate) fn workflow(row: &PgRow) -> Result<Workflow, Error> {
    let mut read = Lenient::default();
    let latest = number(row, "latest")?;
    let version: Result<u32, Error> = number(row, "version");
    let version = version.and_then(|version| match version {
        version if version == latest => Ok(version),
        wrong => Err(Error::Corrupt(format!("version is {wrong}"))),
    });
    let mut workflow = Workflow {
        id: field::<Uuid>(row, "id")?.into(),
        organization_id: field::<Uuid>(row, "organization_id")?.into(),
        name: read.or_default(field(row, "name")),
        version: read.or(version, latest),
        input_schema: read.or_default(json_field(row, "input_schema")),
        settings: read.or_default(json_field(row, "settings")),
        nodes: read.or_default(json_field(row, "nodes")),
        created_at: read.or(time(row, "created_at"), EPOCH),
        updated_at: read.or(time(row, "updated_at"), EPOCH),
        unreadable: false,
    };
    if let Some(fault) = &read.fault {
        tracing::error!(workflow_id = %workflow.id, "a workflow cannot be read: {fault}");
        workflow.unreadable = true;
    }
    Ok(workflow)
}
