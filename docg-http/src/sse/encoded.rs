use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use docg_core::{event::Event, i18n::Locale, ids::EventId};

use super::frame;

/// The number of slots of the cache, each for one frame.
const PLACES: usize = 1024;
/// The largest frame that the cache keeps, in bytes. This and [`PLACES`] bound the cache's memory.
const LARGEST: usize = 16 * 1024;

/// A cache of recent frames: an event is encoded once, and all its readers share the bytes. Each frame
/// belongs in one slot, and replaces the frame that the slot held before.
pub(crate) struct EncodedEvents {
    places: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    event: EventId,
    /// The event's id in the frame. It differs between an execution's stream and its organization's.
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
        // Choose the slot by the end of the event's UUID: it is random in every version that docg creates.
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
