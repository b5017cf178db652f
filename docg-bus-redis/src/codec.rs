//! The fields of stream entries.
//!
//! The field `event` is the envelope of schema v1, for any program that reads the stream. Its texts are
//! in English. docg's own readers translate texts, and need the texts' keys for that. So an entry of the
//! firehose, which only docg reads, has a second field if the event has texts: `stored_data` is the
//! envelope's `data` with keys. The streams of executions have only `event`. A reader of past events is
//! sent to the store for the few events with texts.

use std::{fmt, str::FromStr, sync::Arc};

use docg_core::{
    event::Event,
    i18n::Locale,
    ids::{ExecutionId, OrganizationId},
};
use redis::{FromRedisValue, ParsingError, Value};
use serde_json::{Map, Value as Json, json};

const STORED_DATA: &str = "stored_data";

/// An event, encoded as the fields of an entry.
pub(crate) struct Encoded {
    /// The field `event`.
    pub(crate) wire: String,
    /// The field `stored_data`, if it differs from the data in `event`.
    pub(crate) stored_data: Option<String>,
}

pub(crate) fn encode(event: &Event) -> Encoded {
    let wire = event.encode(Locale::En);
    let stored = serde_json::to_value(&event.data)
        .ok()
        .and_then(|mut tagged| tagged.get_mut("data").map(Json::take));
    // `data` is the envelope's last member, so compare the envelope's end.
    let differs = |stored: &Json| {
        wire.strip_suffix('}')
            .is_none_or(|wire| !wire.ends_with(&format!("\"data\":{stored}")))
    };
    let stored_data = stored.filter(differs).map(|mut stored| {
        remove_technical(&mut stored);
        stored.to_string()
    });
    Encoded { wire, stored_data }
}

/// Removes technical messages, which belong in logs and never in events.
fn remove_technical(value: &mut Json) {
    match value {
        Json::Object(members) => {
            members.remove("message_tech");
            members.values_mut().for_each(remove_technical);
        }
        Json::Array(items) => items.iter_mut().for_each(remove_technical),
        _ => {}
    }
}

/// Decodes an event from the fields of an entry of the firehose.
fn decode(wire: &str, stored_data: Option<&str>) -> serde_json::Result<Event> {
    let mut members: Map<String, Json> = serde_json::from_str(wire)?;
    if let Some(stored) = stored_data {
        members.insert("data".to_owned(), serde_json::from_str(stored)?);
    }
    serde_json::from_value(Json::Object(members))
}

/// Decodes an event from the field `event` alone; `None` if the event has texts.
fn decode_wire(wire: &str) -> serde_json::Result<Option<Event>> {
    let mut members: Map<String, Json> = serde_json::from_str(wire)?;
    match members.get("event_type").and_then(Json::as_str) {
        Some("step.failed" | "execution.failed") => return Ok(None),
        Some("preflight.completed") => {
            // Every execution has this event. Most preflights find nothing, and their event has no texts.
            let found =
                |count| members.get("data").and_then(|data| data.get(count)) != Some(&0.into());
            if found("blocking_count") || found("warning_count") {
                return Ok(None);
            }
            let completed_at = members.get("timestamp").cloned();
            let summary = json!({
                "blocking_count": 0,
                "warning_count": 0,
                "completed_at": completed_at,
                "issues": [],
            });
            members.insert("data".to_owned(), json!({"summary": summary}));
        }
        _ => {}
    }
    serde_json::from_value(Json::Object(members)).map(Some)
}

/// The id of an entry in a Redis stream: `<major>-<minor>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct EntryId {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl EntryId {
    /// The id of the event with this number in its execution's stream.
    pub(crate) fn of_seq(seq: u64) -> Self {
        Self {
            major: seq,
            minor: 0,
        }
    }

    /// True if `next` is the entry directly after this one in the firehose. In the firehose, `major` is the
    /// time at which the firehose began, and `minor` counts 1, 2, 3 …; the id 0-0 stands before the first
    /// entry.
    pub(crate) fn is_followed_by(self, next: Self) -> bool {
        (self == Self::default() || self.major == next.major)
            && self.minor.checked_add(1) == Some(next.minor)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.major, self.minor)
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let (major, minor) = id.split_once('-').unwrap_or((id, ""));
        Ok(Self {
            major: major.parse()?,
            minor: minor.parse()?,
        })
    }
}

/// An entry of any stream.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    /// The fields whose values are text.
    fields: Vec<(String, String)>,
}

impl Entry {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find_map(|(field, value)| (field == name).then_some(value.as_str()))
    }

    pub(crate) fn execution(&self) -> Option<ExecutionId> {
        self.field("execution")?.parse().ok()
    }

    /// The organization whose stream contains the event; `None` if lists do not show the event.
    pub(crate) fn organization(&self) -> Option<OrganizationId> {
        self.field("organization")?.parse().ok()
    }

    /// The event in an entry of the firehose; `None` if another program wrote the entry.
    pub(crate) fn announced(&self) -> Option<Arc<Event>> {
        let decoded = decode(self.field("event")?, self.field(STORED_DATA));
        self.readable(decoded.map(Some))
    }

    /// The event in an entry of an execution's stream; `None` if another program wrote the entry, or if only
    /// the store has the event's texts in all languages.
    pub(crate) fn event(&self) -> Option<Arc<Event>> {
        self.readable(decode_wire(self.field("event")?))
    }

    fn readable(&self, decoded: serde_json::Result<Option<Event>>) -> Option<Arc<Event>> {
        match decoded {
            Ok(event) => event.map(Arc::new),
            Err(error) => {
                tracing::warn!(entry = %self.id, "an event on the bus cannot be read: {error}");
                None
            }
        }
    }

    /// The position of this entry, from which a reader of an organization stream continues. After a
    /// failover another entry may have the same id, and later entries may be lost. So the position also
    /// names the event and the history of the data.
    pub(crate) fn position(&self, replication_id: &str) -> String {
        let execution = self.field("execution").unwrap_or_default();
        // The end of a UUID is random, so 8 characters are enough to tell executions apart.
        let end = execution
            .get(execution.len().saturating_sub(8)..)
            .unwrap_or_default();
        let seq = self.field("seq").unwrap_or_default();
        // A replication id is random too, so 8 characters of it are enough.
        let history = replication_id.get(..8).unwrap_or(replication_id);
        format!("{}-{end}.{seq}.{history}", self.id)
    }
}

impl FromRedisValue for Entry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields): (String, Vec<(Value, Value)>) = redis::from_redis_value(value)?;
        let id = id
            .parse()
            .map_err(|_| ParsingError::from("an entry's id is no pair of numbers"))?;
        // Leave out fields that are not text, which only other programs write. An error here would hide the
        // other entries of the same read.
        let text = |value| redis::from_redis_value::<String>(value).ok();
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
            .collect();
        Ok(Self { id, fields })
    }
}

/// The id of the firehose's entry that a position names; `None` if the position is malformed.
pub(crate) fn entry_of(position: &str) -> Option<EntryId> {
    position.rsplit_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use docg_core::{
        conformance::fixtures::events,
        event::EventData,
        i18n::Text,
        preflight::{Domain, Issue, PreflightSummary},
        time::Timestamp,
    };

    fn with(data: EventData) -> Event {
        let mut event = (*events(3)[2]).clone();
        event.data = data;
        event
    }

    /// The event that a reader of the firehose gets.
    fn announced(event: &Event) -> Event {
        let Encoded { wire, stored_data } = encode(event);
        decode(&wire, stored_data.as_deref()).expect("is an event")
    }

    /// One event of each kind that has texts, and events of some kinds that have none.
    fn samples() -> Vec<Event> {
        let text = || Text::key("step-failed-human").with("name", "\"x\" {y}");
        let issue = Issue::blocking(Domain::Data, "missing", text());
        vec![
            with(EventData::Progress { progress: 40 }),
            with(EventData::StepCompleted {
                node_id: "a".into(),
                node_type: "render".into(),
                duration_ms: 3,
                output_preview: Some(json!({"b": [1, 2.5, null], "a": "\u{e9}}"}).into()),
            }),
            with(EventData::StepFailed {
                node_id: "a".into(),
                node_type: "render".into(),
                error_code: "timeout".into(),
                error_human: text().into(),
                will_retry: true,
                next_attempt_at: Some(Timestamp::from_millis(1)),
            }),
            with(EventData::Failed {
                error_code: "timeout".into(),
                error_human: text().into(),
            }),
            with(EventData::PreflightCompleted {
                summary: PreflightSummary::new(vec![issue], Timestamp::from_millis(2)).into(),
            }),
        ]
    }

    /// The event of a preflight without findings.
    fn passed() -> Event {
        let timestamp = with(EventData::Progress { progress: 1 }).timestamp;
        with(EventData::PreflightCompleted {
            summary: PreflightSummary::new(Vec::new(), timestamp).into(),
        })
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        for event in samples().into_iter().chain([passed()]) {
            assert_eq!(announced(&event), event);
        }
    }

    #[test]
    fn others_read_schema_v1_in_english() {
        for event in samples() {
            assert_eq!(encode(&event).wire, event.encode(Locale::En));
        }
    }

    #[test]
    fn data_are_there_twice_only_where_texts_are_in_them() {
        let twice: Vec<_> = samples()
            .iter()
            .map(|event| encode(event).stored_data.is_some())
            .collect();
        assert_eq!(twice, [false, false, true, true, true]);
    }

    #[test]
    fn the_wire_form_alone_tells_all_but_texts() {
        let read = |event: &Event| decode_wire(&encode(event).wire).expect("is an event");
        for event in samples() {
            let has_texts = encode(&event).stored_data.is_some();
            assert_eq!(read(&event), (!has_texts).then_some(event));
        }
        let passed = passed();
        assert_eq!(read(&passed), Some(passed));
    }

    #[test]
    fn what_is_for_technicians_stays_out() {
        let issue = Issue::blocking(Domain::Data, "missing", "missing").tech("stack trace");
        let event = with(EventData::PreflightCompleted {
            summary: PreflightSummary::new(vec![issue], Timestamp::from_millis(2)).into(),
        });
        let stored = encode(&event).stored_data.expect("has texts");
        assert!(!stored.contains("stack trace"), "{stored}");
        let back = announced(&event);
        for locale in [Locale::En, Locale::PtBr] {
            assert_eq!(back.encode(locale), event.encode(locale));
        }
    }

    #[test]
    fn ids_are_pairs_of_numbers_and_follow_one_another() {
        let id: EntryId = "7-3".parse().expect("is an id");
        assert_eq!(id.to_string(), "7-3");
        for text in [
            "",
            "7",
            "7-",
            "-3",
            "7-3-1",
            "a-b",
            "7-18446744073709551616",
        ] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
        let next = |id: &str| id.parse().expect("is an id");
        assert!(id.is_followed_by(next("7-4")));
        assert!(!id.is_followed_by(next("7-5")));
        assert!(!id.is_followed_by(next("8-4")));
        assert!(EntryId::default().is_followed_by(next("8-1")));
        assert!(!EntryId::default().is_followed_by(next("8-2")));
    }
}
