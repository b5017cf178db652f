//! Encoding of stream frames.

use bytes::Bytes;
use docg_core::{event::Event, i18n::Locale};
use serde_json::Value;

/// A frame with an event of docg. Its parts need no escaping: id and type hold no line break, and the
/// JSON is on one line.
pub(super) fn event(event: &Event, id: &str, locale: Locale) -> Bytes {
    let data = event.encode(locale);
    let event_type = event.event_type();
    Bytes::from(format!("id: {id}\nevent: {event_type}\ndata: {data}\n\n"))
}

/// A frame about the stream itself. It has no id, so that the reader keeps its last event id.
pub(super) fn control(name: &'static str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The first frame: the time in milliseconds before a reader reconnects, and the current state. `retry`
/// shares the frame, because some readers take a frame with only `retry` for a message without data.
pub(super) fn connected(retry_millis: u64, data: &Value) -> Bytes {
    Bytes::from(format!(
        "retry: {retry_millis}\nevent: connected\ndata: {data}\n\n"
    ))
}

/// The sequence number in an event id, such as 12 in `12-0`; `None` if the id has another form.
pub(super) fn parse_id(id: &str) -> Option<u64> {
    let (seq, rest) = id.split_once('-')?;
    (rest == "0" && seq.len() <= 19 && seq.bytes().all(|b| b.is_ascii_digit()))
        .then(|| seq.parse().ok())?
}
