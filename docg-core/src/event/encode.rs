use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Event, EventData, SCHEMA_VERSION};
use crate::{i18n::Locale, run::CurrentStep};

/// An event as readers receive it (schema v1), its keys in the order of the schema's documentation.
#[derive(Serialize)]
struct Envelope<'a> {
    schema_version: u32,
    event_id: crate::ids::EventId,
    seq: u64,
    event_type: &'static str,
    timestamp: crate::time::Timestamp,
    execution_id: crate::ids::ExecutionId,
    workflow_id: crate::ids::WorkflowId,
    organization_id: crate::ids::OrganizationId,
    correlation_id: &'a str,
    status: crate::run::Status,
    progress: u8,
    current_step: Option<&'a CurrentStep>,
    data: Value,
}

impl Event {
    /// The event's type on the wire.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        self.data.event_type()
    }

    /// Encodes the event for readers: one line of JSON, its texts in the reader's language. Callers encode
    /// once per language and share the bytes.
    #[must_use]
    pub fn encode(&self, locale: Locale) -> String {
        let envelope = Envelope {
            schema_version: SCHEMA_VERSION,
            event_id: self.event_id,
            seq: self.seq,
            event_type: self.event_type(),
            timestamp: self.timestamp,
            execution_id: self.execution_id,
            workflow_id: self.workflow_id,
            organization_id: self.organization_id,
            correlation_id: &self.correlation_id,
            status: self.status,
            progress: self.progress,
            current_step: self.current_step.as_deref(),
            data: self.data.for_readers(locale),
        };
        // Serializing fails only for maps with non-string keys and for failing Serialize impls; an envelope
        // has neither.
        serde_json::to_string(&envelope).unwrap_or_default()
    }
}

impl EventData {
    fn for_readers(&self, locale: Locale) -> Value {
        match self {
            Self::PreflightCompleted { summary } => json!({
                "blocking_count": summary.blocking_count,
                "warning_count": summary.warning_count,
                "groups": summary.groups_for_readers(locale, false),
            }),
            Self::StepFailed { error_human, .. } | Self::Failed { error_human, .. } => {
                let mut data = self.stored();
                data.insert("error_human".to_owned(), error_human.render(locale).into());
                Value::Object(data)
            }
            _ => Value::Object(self.stored()),
        }
    }

    /// The variant's fields, as serialized by serde.
    fn stored(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut tagged)) => match tagged.remove("data") {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            },
            _ => Map::new(),
        }
    }
}
