//! An execution's event stream: the stored past, then live events.

use std::{collections::VecDeque, sync::Arc};

use docg_core::{
    event::Event,
    ids::ExecutionId,
    ports::{BusError, EventStream},
};
use futures::{StreamExt, stream};

use crate::{
    bus::Shared,
    codec::{Entry, EntryId},
    hub::Live,
};

/// The number of past events that one read fetches. The next read follows when the reader has taken them all.
const PAGE: usize = 200;

/// Opens an execution's stream after the event number `after`. Subscribes to live events before it reads past
/// events, so that no event is missed in between.
pub(crate) async fn subscribe(
    shared: Arc<Shared>,
    execution: ExecutionId,
    after: u64,
) -> Result<EventStream, BusError> {
    let live = shared.hub.listen_to_execution(execution).await?;
    let mut subscription = Subscription {
        key: shared.keys.execution(execution),
        shared,
        sent: after,
        past: VecDeque::new(),
        is_past_over: false,
        live,
    };
    subscription.read_past().await?;
    if let Some(first) = subscription.past.front() {
        subscription.check_follows(first.id.major)?;
    }
    let events = stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        match subscription.next().await {
            Ok(event) => event.map(|event| (Ok(event), Some(subscription))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(events.boxed())
}

struct Subscription {
    shared: Arc<Shared>,
    key: String,
    /// The number of the last event that the reader has.
    sent: u64,
    past: VecDeque<Entry>,
    is_past_over: bool,
    live: Live<Arc<Event>>,
}

impl Subscription {
    async fn next(&mut self) -> Result<Option<Arc<Event>>, BusError> {
        loop {
            let event = if let Some(entry) = self.past.pop_front() {
                let after = self.sent;
                entry.event().ok_or(BusError::TooOld { after })?
            } else if !self.is_past_over {
                self.read_past().await?;
                continue;
            } else {
                match self.live.next().await? {
                    Some(event) => event,
                    None => return Ok(None),
                }
            };
            if event.seq > self.sent {
                self.check_follows(event.seq)?;
                self.sent = event.seq;
                return Ok(Some(event));
            }
        }
    }

    fn check_follows(&self, seq: u64) -> Result<(), BusError> {
        if seq == self.sent + 1 {
            Ok(())
        } else {
            Err(BusError::TooOld { after: self.sent })
        }
    }

    async fn read_past(&mut self) -> Result<(), BusError> {
        let Some(first) = self.sent.checked_add(1) else {
            self.is_past_over = true;
            return Ok(());
        };
        let first = EntryId::of_seq(first);
        let page = self.shared.range(&self.key, first, PAGE).await?;
        self.is_past_over = page.len() < PAGE;
        self.past = page.into();
        Ok(())
    }
}
