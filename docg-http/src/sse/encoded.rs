use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use docg_core::{event::Event, i18n::Locale, ids::EventId};

use super::frame;

/// The number of frames that are kept.
const PLACES: usize = 1024;
/// The largest frame that is kept, in bytes, so that the memory for all is bounded.
const LARGEST: usize = 16 * 1024;

/// A cache of recent frames: an event is encoded once, and all its readers share the bytes. Each event
/// maps to one place, where it replaces the event before.
pub(crate) struct EncodedEvents {
    places: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    event: EventId,
    /// The id in the frame. An execution's stream and its organization's give an event different ids.
    id: String,
    locale: Locale,
    frame: Bytes,
}

impl Default for EncodedEvents {
    fn default() -> Self {
        Self {
            places: (0..PLACES).map(|_| Mutex::default()).collect(),
        }
    }
}

impl EncodedEvents {
    pub(super) fn frame(&self, event: &Event, id: &str, locale: Locale) -> Bytes {
        // The end of the UUID is random in every version that docg creates.
        let spread = event.event_id.0.as_u64_pair().1 ^ locale as u64 ^ (id.len() as u64) << 2;
        let place = &self.places[usize::try_from(spread % PLACES as u64).unwrap_or(0)];
        let kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept
            .as_ref()
            .filter(|kept| kept.event == event.event_id && kept.locale == locale && kept.id == id)
        {
            return kept.frame.clone();
        }
        drop(kept);
        let frame = frame::event(event, id, locale);
        if frame.len() <= LARGEST {
            let kept = Kept {
                event: event.event_id,
                id: id.to_owned(),
                locale,
                frame: frame.clone(),
            };
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
        frame
    }
}
