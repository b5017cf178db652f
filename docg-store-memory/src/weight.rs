//! Estimates of the memory that values take, in bytes: exact enough for a bound, and cheap.

use std::{mem::size_of, sync::Arc};

use docg_core::{
    event::{Event, EventData},
    i18n::Text,
    observe::{AuditEvent, JsonText, LogEntry},
    run::{Inputs, Step},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The overhead of a separate allocation and of its place in a map.
const PIECE: usize = 48;

/// The size of a parsed JSON value. A small object takes ten times as much memory as its text.
pub(crate) fn value(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(self::value).sum(),
            Value::Object(map) => members(map),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

fn members(map: &Map<String, Value>) -> usize {
    map.iter()
        .map(|(key, item)| PIECE + key.len() + value(item))
        .sum()
}

pub(crate) fn json_text(text: Option<&JsonText>) -> usize {
    text.map_or(0, |text| PIECE + text.as_str().len())
}

fn text(text: &Text) -> usize {
    size_of::<Text>()
        + match text {
            Text::Literal(words) => words.len(),
            Text::Key { params, .. } => params.iter().map(|(_, value)| self::text(value)).sum(),
        }
}

pub(crate) fn event(event: &Event) -> usize {
    size_of::<Event>()
        + PIECE
        + match &event.data {
            EventData::StepCompleted { output_preview, .. } => json_text(output_preview.as_ref()),
            EventData::StepFailed { error_human, .. } | EventData::Failed { error_human, .. } => {
                text(error_human)
            }
            // The run state shares the summary, so at worst it is counted twice.
            EventData::PreflightCompleted { summary } => record(&**summary),
            EventData::Paused { reason, .. } | EventData::Canceled { reason, .. } => {
                reason.as_ref().map_or(0, String::len)
            }
            _ => 2 * PIECE,
        }
}

fn log(entry: &LogEntry) -> usize {
    let tech = entry.message_tech.as_ref().map_or(0, String::len);
    size_of::<LogEntry>()
        + PIECE
        + text(&entry.message_human)
        + tech
        + json_text(entry.details_tech.as_ref())
}

fn audit(row: &AuditEvent) -> usize {
    size_of::<AuditEvent>() + PIECE + row.target.id.len() + json_text(Some(&row.metadata))
}

pub(crate) fn inputs(inputs: &Inputs) -> usize {
    let events = inputs.events.iter().map(record).sum::<usize>();
    value(&inputs.trigger_data) + members(&inputs.node_overrides) + events
}

pub(crate) fn step(step: &Step) -> usize {
    let error = step.error.as_ref().map_or(0, |error| {
        text(&error.human) + error.tech.as_ref().map_or(0, String::len)
    });
    size_of::<Step>()
        + error
        + step.awaits.as_ref().map_or(0, record)
        + json_text(step.data_in.as_ref())
        + json_text(step.data_out.as_ref())
        + step.output.as_deref().map_or(0, value)
}

/// The size of events, log entries and audit rows, which are only ever appended.
pub(crate) fn rows(
    events: &[Arc<Event>],
    logs: &[Arc<LogEntry>],
    audit: &[Arc<AuditEvent>],
) -> usize {
    events.iter().map(|it| event(it)).sum::<usize>()
        + logs.iter().map(|it| log(it)).sum::<usize>()
        + audit.iter().map(|it| self::audit(it)).sum::<usize>()
}

/// The size of a rare record, estimated by the length of its JSON.
pub(crate) fn record(record: &impl Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(2 * PIECE);
    // A record that cannot be written as JSON counts only as overhead.
    let _ = serde_json::to_writer(&mut counter, record);
    counter.0
}
