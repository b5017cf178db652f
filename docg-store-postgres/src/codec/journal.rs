//! The journal. Each of its rows holds the events and log entries of one commit, as two arrays of JSON. A
//! commit often has several of both, and a row of its own for each would cost more than its content.
//!
//! The numbers of events and log entries are not in the JSON: they follow from the row's last numbers and the
//! lengths of the arrays.

use std::sync::Arc;

use docg_core::{
    event::{Event, EventData},
    i18n::Text,
    ids::{EventId, ExecutionId, LogId, NodeId, OrganizationId, WorkflowId},
    observe::{JsonText, LogDomain, LogEntry, LogLevel},
    run::{CurrentStep, Execution, Status},
    time::Timestamp,
};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    Encoder,
    decode::{Columns, EPOCH, Lenient, field, from_json},
    int, row,
    rows::of_execution,
};
use crate::error::Error;

row! {
    JournalRow {
        execution_id: Uuid = "uuid[]",
        last_event: i64 = "int8[]",
        last_log: i64 = "int8[]",
        events: String = "text[]::json[]",
        logs: String = "text[]::json[]",
    }
}

/// An event as it is stored. What it shares with its execution is stored only with the execution.
#[derive(Serialize)]
struct NewEvent<'e> {
    event_id: EventId,
    timestamp: Timestamp,
    status: Status,
    progress: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_step: Option<&'e CurrentStep>,
    #[serde(flatten)]
    data: &'e EventData,
}

/// A log entry as it is stored. The correlation id is left out if it is the execution's.
#[derive(Serialize)]
struct NewEntry<'e> {
    id: LogId,
    timestamp: Timestamp,
    level: LogLevel,
    domain: LogDomain,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<&'e NodeId>,
    message_human: &'e Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_tech: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details_tech: Option<&'e JsonText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'e str>,
}

impl JournalRow {
    /// The row of a commit; `None` if it has neither events nor log entries.
    pub(crate) fn of(
        execution: &Execution,
        events: &[Arc<Event>],
        logs: &[Arc<LogEntry>],
        encoder: Encoder,
    ) -> Result<Option<Self>, Error> {
        if events.is_empty() && logs.is_empty() {
            return Ok(None);
        }
        let events = events
            .iter()
            .map(|event| new_event(event, execution, encoder));
        let logs = logs
            .iter()
            .map(|entry| new_entry(entry, execution, encoder));
        Ok(Some(Self {
            execution_id: execution.id.0,
            last_event: int(execution.heads.event_seq),
            last_log: int(execution.heads.log_seq),
            events: array(events)?,
            logs: array(logs)?,
        }))
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.events.len() + self.logs.len()
    }
}

/// The array of items that are JSON already.
fn array(items: impl Iterator<Item = Result<String, Error>>) -> Result<String, Error> {
    let mut array = String::from("[");
    for item in items {
        if array.len() > 1 {
            array.push(',');
        }
        array.push_str(&item?);
    }
    array.push(']');
    Ok(array)
}

fn new_event(event: &Event, execution: &Execution, encoder: Encoder) -> Result<String, Error> {
    of_execution("event", event.execution_id, execution)?;
    if event.workflow_id != execution.workflow_id
        || event.organization_id != execution.organization_id
        || event.correlation_id != execution.correlation_id
    {
        return Err(Error::Invalid(format!(
            "event {} of {} names another workflow, organization or correlation",
            event.seq, event.execution_id
        )));
    }
    let stored = NewEvent {
        event_id: event.event_id,
        timestamp: event.timestamp,
        status: event.status,
        progress: event.progress,
        current_step: event.current_step.as_deref(),
        data: &event.data,
    };
    encoder.record(event.event_type(), &stored)
}

fn new_entry(entry: &LogEntry, execution: &Execution, encoder: Encoder) -> Result<String, Error> {
    of_execution("log entry", entry.execution_id, execution)?;
    let stored = NewEntry {
        id: entry.id,
        timestamp: entry.timestamp,
        level: entry.level,
        domain: entry.domain,
        step_id: entry.step_id.as_ref(),
        message_human: &entry.message_human,
        message_tech: entry.message_tech.as_deref(),
        details_tech: entry.details_tech.as_ref(),
        correlation_id: (entry.correlation_id != execution.correlation_id)
            .then_some(&*entry.correlation_id),
    };
    encoder.record("log entry", &stored)
}

/// The ids of an execution that all its events and log entries have.
pub(crate) struct ExecutionIds {
    execution_id: ExecutionId,
    workflow_id: WorkflowId,
    organization_id: OrganizationId,
    correlation_id: Arc<str>,
}

impl ExecutionIds {
    /// Reads the ids from a row with the execution's columns.
    pub(crate) fn of(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            execution_id: field::<Uuid>(row, "id")?.into(),
            workflow_id: field::<Uuid>(row, "workflow_id")?.into(),
            organization_id: field::<Uuid>(row, "organization_id")?.into(),
            correlation_id: field::<&str>(row, "correlation_id")?.into(),
        })
    }

    /// Reads the events of a journal row, each with its stored number. An event that cannot be read keeps its
    /// place, so that no reader sees a gap.
    pub(crate) fn events(&self, row: &PgRow) -> Result<Vec<(i64, Arc<Event>)>, Error> {
        self.numbered(row, "events", "last_event", |seq, json, read| {
            let columns = read.or_default(Columns::of("event", json));
            let progress: u8 = read.or_default(columns.get("progress"));
            Event {
                event_id: read.or(columns.get("event_id"), EventId(Uuid::nil())),
                seq,
                timestamp: read.or(columns.get("timestamp"), EPOCH),
                execution_id: self.execution_id,
                workflow_id: self.workflow_id,
                organization_id: self.organization_id,
                correlation_id: Arc::clone(&self.correlation_id),
                status: read.or(columns.get("status"), Status::Running),
                progress: progress.min(100),
                current_step: read.or_default(columns.get("current_step")),
                data: read.or(from_json("event", json), EventData::Progress { progress }),
            }
        })
    }

    /// Reads the log entries of a journal row, each with its stored number. If an entry's message cannot be
    /// read, the entry states that.
    pub(crate) fn logs(&self, row: &PgRow) -> Result<Vec<(i64, Arc<LogEntry>)>, Error> {
        self.numbered(row, "logs", "last_log", |seq, json, read| {
            let columns = read.or_default(Columns::of("log entry", json));
            let message = columns.get("message_human");
            let correlation_id: Option<Arc<str>> = read.or_default(columns.get("correlation_id"));
            LogEntry {
                id: read.or(columns.get("id"), LogId(Uuid::nil())),
                seq,
                execution_id: self.execution_id,
                step_id: read.or_default(columns.get("step_id")),
                timestamp: read.or(columns.get("timestamp"), EPOCH),
                level: read.or(columns.get("level"), LogLevel::Error),
                domain: read.or(columns.get("domain"), LogDomain::Execution),
                message_human: read.or(message, Text::key("log-unreadable")),
                message_tech: read.or_default(columns.get("message_tech")),
                details_tech: read.or_default(columns.get("details_tech")),
                correlation_id: correlation_id.unwrap_or_else(|| Arc::clone(&self.correlation_id)),
            }
        })
    }

    /// Reads the records in `column`, of which the last has the number in `last`. Readers see the number 0 for
    /// a damaged one. A deleted record is empty. If the column is no array, it is read as a single record that
    /// cannot be read. The first fault of a record is logged.
    fn numbered<T>(
        &self,
        row: &PgRow,
        column: &str,
        last: &str,
        read: impl Fn(u64, &str, &mut Lenient) -> T,
    ) -> Result<Vec<(i64, Arc<T>)>, Error> {
        let (json, last): (&str, i64) = (field(row, column)?, field(row, last)?);
        let records: Vec<&str> = match serde_json::from_str::<Vec<&RawValue>>(json) {
            Ok(records) => records.into_iter().map(RawValue::get).collect(),
            Err(_) => vec!["null"],
        };
        let before = last.saturating_sub(int(records.len() as u64));
        let numbered = records.into_iter().zip(1..);
        let left = numbered.filter(|(json, _)| *json != "{}");
        let read = |(json, place)| {
            let seq = before.saturating_add(place);
            let mut lenient = Lenient::default();
            let record = read(u64::try_from(seq).unwrap_or_default(), json, &mut lenient);
            if let Some(fault) = lenient.fault {
                let id = self.execution_id;
                tracing::error!(execution_id = %id, seq, "one of its {column} cannot be read: {fault}");
            }
            (seq, Arc::new(record))
        };
        Ok(left.map(read).collect())
    }
}
