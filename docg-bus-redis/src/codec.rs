//! What entries hold.
//!
//! The field `event` is the envelope of schema v1 in English, for whoever reads the stream. Where
//! that has texts in place of their keys, one more member, `stored_data`, holds `data` with the
//! keys: docg's own readers put them into other languages.

use std::{fmt, str::FromStr, sync::Arc};

use docg_core::{
    event::Event,
    i18n::Locale,
    ids::{ExecutionId, OrganizationId},
};
use redis::{FromRedisValue, ParsingError, Value};
use serde_json::{Map, Value as Json};

const STORED_DATA: &str = "stored_data";

/// The field `event`.
pub(crate) fn encode(event: &Event) -> String {
    let mut wire = event.encode(Locale::En);
    let stored = serde_json::to_value(&event.data)
        .ok()
        .and_then(|mut tagged| tagged.get_mut("data").map(Json::take));
    let Some(mut stored) = stored else {
        return wire;
    };
    // `data` is the envelope's last member.
    let same = wire
        .strip_suffix('}')
        .is_some_and(|wire| wire.ends_with(&format!("\"data\":{stored}")));
    if !same {
        remove_technical(&mut stored);
        wire.pop();
        wire.push_str(&format!(",\"{STORED_DATA}\":{stored}}}"));
    }
    wire
}

/// What is for technicians goes into logs, never into events.
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

/// The event that was encoded.
pub(crate) fn decode(json: &str) -> serde_json::Result<Event> {
    let mut members: Map<String, Json> = serde_json::from_str(json)?;
    if let Some(stored) = members.remove(STORED_DATA) {
        members.insert("data".to_owned(), stored);
    }
    serde_json::from_value(Json::Object(members))
}

/// The id of an entry: `<major>-<minor>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct EntryId {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl EntryId {
    /// The id of an execution's event.
    pub(crate) fn of_seq(seq: u64) -> Self {
        Self {
            major: seq,
            minor: 0,
        }
    }

    /// Whether nothing lies between it and another entry of the firehose, whose entries are
    /// numbered 1, 2, 3 … after the moment in which it began; 0-0 stands before the first.
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

    /// Whose list it is for.
    pub(crate) fn organization(&self) -> Option<OrganizationId> {
        self.field("organization")?.parse().ok()
    }

    /// The event, or `None` where something else has written the entry.
    pub(crate) fn event(&self) -> Option<Arc<Event>> {
        match decode(self.field("event")?) {
            Ok(event) => Some(Arc::new(event)),
            Err(error) => {
                tracing::warn!(entry = %self.id, "an event on the bus cannot be read: {error}");
                None
            }
        }
    }

    /// Where a list's reader goes on that has seen the entry. After a failover another entry may
    /// have its id, so the position says which event it was.
    pub(crate) fn position(&self) -> String {
        let execution = self.field("execution").unwrap_or_default();
        // The end of a UUID is chance.
        let end = execution
            .get(execution.len().saturating_sub(8)..)
            .unwrap_or_default();
        let seq = self.field("seq").unwrap_or_default();
        format!("{}-{end}.{seq}", self.id)
    }
}

impl FromRedisValue for Entry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (id, fields): (String, Vec<(String, String)>) = redis::from_redis_value(value)?;
        let id = id
            .parse()
            .map_err(|_| ParsingError::from("an entry's id is no pair of numbers"))?;
        Ok(Self { id, fields })
    }
}

/// Where in the firehose a position is.
pub(crate) fn entry_of(position: &str) -> Option<EntryId> {
    position.rsplit_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use docg_core::{
        conformance::fixtures::events,
        event::EventData,
        i18n::Text,
        preflight::{Domain, Issue, PreflightSummary},
        time::Timestamp,
    };
    use serde_json::json;

    use super::*;

    fn with(data: EventData) -> Event {
        let mut event = (*events(3)[2]).clone();
        event.data = data;
        event
    }

    /// One of each kind of event that has texts, and some that have none.
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

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        for event in samples() {
            assert_eq!(decode(&encode(&event)).expect("is an event"), event);
        }
    }

    #[test]
    fn others_read_schema_v1_in_english() {
        for event in samples() {
            let mut entry: Json = serde_json::from_str(&encode(&event)).expect("is JSON");
            if let Some(entry) = entry.as_object_mut() {
                entry.remove(STORED_DATA);
            }
            let wire: Json = serde_json::from_str(&event.encode(Locale::En)).expect("is JSON");
            assert_eq!(entry, wire);
        }
    }

    #[test]
    fn data_are_there_twice_only_where_texts_are_in_them() {
        let twice: Vec<_> = samples()
            .iter()
            .map(|event| encode(event).contains(STORED_DATA))
            .collect();
        assert_eq!(twice, [false, false, true, true, true]);
    }

    #[test]
    fn what_is_for_technicians_stays_out() {
        let issue = Issue::blocking(Domain::Data, "missing", "missing").tech("stack trace");
        let event = with(EventData::PreflightCompleted {
            summary: PreflightSummary::new(vec![issue], Timestamp::from_millis(2)).into(),
        });
        let entry = encode(&event);
        assert!(!entry.contains("stack trace"), "{entry}");
        let back = decode(&entry).expect("is an event");
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
