//! An organization stream: those events of one organization that a list of executions shows. A reader that
//! resumes first gets the past events, read from the firehose (the Redis stream with the events of all
//! executions), and then live ones.

use std::{collections::VecDeque, sync::Arc};

use docg_core::{
    ids::OrganizationId,
    ports::{BusError, ListEvent, OrganizationStream},
};
use futures::{StreamExt, stream};

use crate::{
    bus::Shared,
    codec::{Entry, EntryId, entry_of},
    firehose::last_entry,
    hub::{Listed, Live},
};

/// The number of past entries that one read fetches. The next read follows once they are used up.
const PAGE: usize = 500;

/// Subscribes to live events first and reads past events afterwards, so that no event is missed in between.
pub(crate) async fn subscribe(
    shared: Arc<Shared>,
    organization: OrganizationId,
    after: Option<String>,
) -> Result<OrganizationStream, BusError> {
    let after = match after {
        Some(position) => {
            let id = entry_of(&position).ok_or(BusError::UnknownPosition)?;
            Some((id, position))
        }
        None => None,
    };
    let live = shared.hub.listen_to_organization(organization).await?;
    let mut list = List {
        shared,
        organization,
        seen: EntryId::default(),
        past: VecDeque::new(),
        is_past_over: true,
        live,
    };
    match after {
        None => {
            let cmd = last_entry(&list.shared.keys.firehose);
            let last: Vec<Entry> = list.shared.link.ask(&cmd).await?;
            list.seen = last.first().map_or(EntryId::default(), |entry| entry.id);
        }
        Some((id, position)) => {
            list.read_past(id).await?;
            let first = list.past.pop_front();
            if first.is_none_or(|entry| entry.position(&list.live.replication_id) != position) {
                return Err(BusError::UnknownPosition);
            }
            list.seen = id;
        }
    }
    let events = stream::unfold(Some(list), |list| async move {
        let mut list = list?;
        match list.next().await {
            Ok(event) => event.map(|event| (Ok(event), Some(list))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(events.boxed())
}

struct List {
    shared: Arc<Shared>,
    organization: OrganizationId,
    /// The last entry of the firehose that was examined, also if it is of another organization.
    seen: EntryId,
    past: VecDeque<Entry>,
    is_past_over: bool,
    live: Live<Listed>,
}

impl List {
    async fn next(&mut self) -> Result<Option<ListEvent>, BusError> {
        loop {
            if let Some(entry) = self.past.pop_front() {
                if !self.seen.is_followed_by(entry.id) {
                    return Err(BusError::UnknownPosition);
                }
                self.seen = entry.id;
                if entry.organization() == Some(self.organization) {
                    let event = entry.announced().ok_or(BusError::UnknownPosition)?;
                    let position = entry.position(&self.live.replication_id);
                    return Ok(Some(ListEvent { position, event }));
                }
            } else if !self.is_past_over {
                let EntryId { major, minor } = self.seen;
                let minor = minor.saturating_add(1);
                self.read_past(EntryId { major, minor }).await?;
            } else {
                let Some(listed) = self.live.next().await? else {
                    return Ok(None);
                };
                if listed.id > self.seen {
                    self.seen = listed.id;
                    return Ok(Some(ListEvent {
                        position: listed.position.to_string(),
                        event: listed.event,
                    }));
                }
            }
        }
    }

    async fn read_past(&mut self, from: EntryId) -> Result<(), BusError> {
        let key = &self.shared.keys.firehose;
        let page = self.shared.range(key, from, PAGE).await?;
        self.is_past_over = page.len() < PAGE;
        self.past = page.into();
        Ok(())
    }
}
