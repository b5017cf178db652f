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
    decode::{Columns, EPOCH, field, from_json},
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
    encoder.json(event.event_type(), &stored)
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
    encoder.json("log entry", &stored)
}

/// What the records of an execution have in common.
pub(crate) struct Shared {
    execution_id: ExecutionId,
    workflow_id: WorkflowId,
    organization_id: OrganizationId,
    correlation_id: Arc<str>,
}

impl Shared {
    /// Reads it from a row with the execution's columns.
    pub(crate) fn of(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            execution_id: field::<Uuid>(row, "id")?.into(),
            workflow_id: field::<Uuid>(row, "workflow_id")?.into(),
            organization_id: field::<Uuid>(row, "organization_id")?.into(),
            correlation_id: field::<&str>(row, "correlation_id")?.into(),
        })
    }

    /// Reads the events of a journal row, each with its number, of which readers see 0 if it is damaged. An
    /// event that cannot be read keeps its place, so that no reader sees a gap.
    pub(crate) fn events(&self, row: &PgRow) -> Result<Vec<(i64, Arc<Event>)>, Error> {
        numbered(row, "events", "last_event", |seq, json| {
            self.event(seq, json)
        })
    }

    /// Reads the log entries of a journal row, each with its number. If an entry cannot be read, its message
    /// states that.
    pub(crate) fn logs(&self, row: &PgRow) -> Result<Vec<(i64, Arc<LogEntry>)>, Error> {
        numbered(row, "logs", "last_log", |seq, json| self.entry(seq, json))
    }

    fn event(&self, seq: u64, json: &str) -> Arc<Event> {
        let columns = Columns::lenient(json);
        let progress: u8 = columns.or_default("progress");
        Arc::new(Event {
            event_id: columns.get("event_id").unwrap_or(EventId(Uuid::nil())),
            seq,
            timestamp: columns.get("timestamp").unwrap_or(EPOCH),
            execution_id: self.execution_id,
            workflow_id: self.workflow_id,
            organization_id: self.organization_id,
            correlation_id: Arc::clone(&self.correlation_id),
            status: columns.get("status").unwrap_or(Status::Running),
            progress: progress.min(100),
            current_step: columns.or_default("current_step"),
            data: from_json("event", json).unwrap_or(EventData::Progress { progress }),
        })
    }

    fn entry(&self, seq: u64, json: &str) -> Arc<LogEntry> {
        let columns = Columns::lenient(json);
        let correlation_id: Option<Arc<str>> = columns.or_default("correlation_id");
        Arc::new(LogEntry {
            id: columns.get("id").unwrap_or(LogId(Uuid::nil())),
            seq,
            execution_id: self.execution_id,
            step_id: columns.or_default("step_id"),
            timestamp: columns.get("timestamp").unwrap_or(EPOCH),
            level: columns.get("level").unwrap_or(LogLevel::Error),
            domain: columns.get("domain").unwrap_or(LogDomain::Execution),
            message_human: columns
                .get("message_human")
                .unwrap_or_else(|_| Text::key("log-unreadable")),
            message_tech: columns.or_default("message_tech"),
            details_tech: columns.or_default("details_tech"),
            correlation_id: correlation_id.unwrap_or_else(|| Arc::clone(&self.correlation_id)),
        })
    }
}

/// Reads the records in `column`, of which the last has the number in `last`. A deleted record is empty. If
/// they are no array, they are read as a single record.
fn numbered<T>(
    row: &PgRow,
    column: &str,
    last: &str,
    read: impl Fn(u64, &str) -> T,
) -> Result<Vec<(i64, T)>, Error> {
    let (json, last): (&str, i64) = (field(row, column)?, field(row, last)?);
    let records: Vec<&RawValue> = match serde_json::from_str(json) {
        Ok(records) => records,
        Err(_) => {
            return Ok(vec![(
                last,
                read(u64::try_from(last).unwrap_or_default(), json),
            )]);
        }
    };
    let before = last.saturating_sub(int(records.len() as u64));
    let numbered = records
        .into_iter()
        .zip(1..)
        .map(|(record, place)| (before.saturating_add(place), record.get()));
    let left = numbered.filter(|(_, json)| *json != "{}");
    Ok(left
        .map(|(seq, json)| (seq, read(u64::try_from(seq).unwrap_or_default(), json)))
        .collect())
}
