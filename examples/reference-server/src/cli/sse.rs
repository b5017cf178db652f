//! Reads a stream of server-sent events (HTML standard, section 9.2.6).

use std::time::Duration;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SseEvent {
    /// The event's type. `message` if the stream does not name one.
    pub(super) event: String,
    pub(super) data: String,
}

/// Parses an event stream from bytes as they arrive.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    event: String,
    data: Vec<String>,
    /// The id of the last event that had an id.
    pub(super) last_id: Option<String>,
    pub(super) retry: Option<Duration>,
}

impl Parser {
    /// The parser for the next connection. It keeps the last id and the retry delay, and drops a partial
    /// event.
    pub(super) fn for_next_connection(self) -> Self {
        Self {
            last_id: self.last_id,
            retry: self.retry,
            ..Self::default()
        }
    }

    /// Adds bytes, and returns the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<SseEvent> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some((line, length)) = self.next_line() {
            self.buffer.drain(..length);
            events.extend(self.line(&line));
        }
        events
    }

    /// The next whole line, and its length in bytes with the line end.
    fn next_line(&self) -> Option<(String, usize)> {
        let end = self
            .buffer
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))?;
        let length = match (self.buffer[end], self.buffer.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            // The next byte decides whether the line ends with CR or with CR LF.
            (b'\r', None) => return None,
            _ => end + 1,
        };
        // The HTML standard requires that invalid UTF-8 is replaced (section 9.2.5). The text only goes to
        // the terminal.
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        Some((line, length))
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let (event, data) = (
                std::mem::take(&mut self.event),
                std::mem::take(&mut self.data),
            );
            let event = if event.is_empty() {
                "message".to_owned()
            } else {
                event
            };
            return (!data.is_empty()).then(|| SseEvent {
                event,
                data: data.join("\n"),
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => self.data.push(value.to_owned()),
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis),
            // A comment or an unknown field.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: &str, data: &str) -> SseEvent {
        SseEvent {
            event: event.to_owned(),
            data: data.to_owned(),
        }
    }

    const STREAM: &[u8] =
        b"retry: 1500\n: comment\nevent: a\nid: 1-0\ndata: one\ndata:two\n\nid: 2-0\ndata: {\"x\":1}\r\n\r\nevent: lost\n\n";

    #[test]
    fn events_come_out_whole_however_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = STREAM
                .chunks(size)
                .flat_map(|chunk| parser.feed(chunk))
                .collect();
            assert_eq!(
                events,
                [event("a", "one\ntwo"), event("message", "{\"x\":1}")],
                "{size}"
            );
            assert_eq!(parser.last_id.as_deref(), Some("2-0"));
            assert_eq!(parser.retry, Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn an_event_without_an_id_keeps_the_last_one() {
        let mut parser = Parser::default();
        parser.feed(b"id: 7-0\ndata: a\n\nevent: heartbeat\ndata: b\n\n");
        assert_eq!(parser.last_id.as_deref(), Some("7-0"));
    }
}
