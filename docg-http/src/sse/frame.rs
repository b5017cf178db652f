//! Frames as they go over the wire.

use bytes::Bytes;
use docg_core::{event::Event, i18n::Locale};
use serde_json::Value;

/// An event of docg. Its id and type have no line break by construction, and JSON on one line has
/// none.
pub(super) fn event(event: &Event, id: &str, locale: Locale) -> Bytes {
    let data = event.encode(locale);
    let event_type = event.event_type();
    Bytes::from(format!("id: {id}\nevent: {event_type}\ndata: {data}\n\n"))
}

/// A frame about the stream itself: without an id, so that the reader's last id stays.
pub(super) fn control(name: &'static str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The first frame: how long a reader waits before it comes back, in milliseconds, and how things
/// are. (A `retry` in a block of its own is a message without data to some readers.)
pub(super) fn connected(retry_millis: u64, data: &Value) -> Bytes {
    Bytes::from(format!(
        "retry: {retry_millis}\nevent: connected\ndata: {data}\n\n"
    ))
}

/// The sequence number of an event id; `None` where it has another form.
pub(super) fn parse_id(id: &str) -> Option<u64> {
    let (seq, rest) = id.split_once('-')?;
    (rest == "0" && seq.len() <= 19 && seq.bytes().all(|b| b.is_ascii_digit()))
        .then(|| seq.parse().ok())?
}
