//! The organization stream, for dashboards. It comes from the bus alone: if the bus lost events, the reader
//! gets a gap and reads the list of executions again.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

use crate::{
    engine::{Engine, Inner},
    ids::OrganizationId,
    ports::{BusError, ListEvent, OrganizationStream},
};

/// The pause before the next attempt to subscribe to a bus that is down.
const AGAIN: Duration = Duration::from_secs(1);

/// An item of an organization stream.
#[derive(Debug, Clone, PartialEq)]
pub enum OrganizationItem {
    /// An event of one of the organization's executions.
    Event(ListEvent),
    /// Events may have been missed: read the list of executions again.
    Gap,
}

/// The organization stream: creations, changes of status, progress and ends of all of an organization's
/// executions. It does not end by itself. Dropping it ends its subscription.
pub struct OrganizationFeed(BoxStream<'static, OrganizationItem>);

impl Stream for OrganizationFeed {
    type Item = OrganizationItem;
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<OrganizationItem>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for OrganizationFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrganizationFeed")
    }
}

impl Engine {
    /// An organization's events from now on, or after a position that an earlier feed returned. If the bus no
    /// longer knows the position, a [`OrganizationItem::Gap`] comes first.
    ///
    /// Returns once the feed has subscribed, or once the bus has turned out to be down.
    pub async fn organization_feed(
        &self,
        organization: OrganizationId,
        after: Option<String>,
    ) -> OrganizationFeed {
        let mut reader = Reader {
            inner: Arc::clone(&self.inner),
            organization,
            missed: after.is_some(),
            after,
            live: None,
            ready: VecDeque::new(),
        };
        // Subscribe before this returns, so that events which the caller causes next are not missed.
        reader.connect().await;
        let items = stream::unfold(reader, |mut reader| async move {
            let item = reader.next().await;
            Some((item, reader))
        });
        OrganizationFeed(items.boxed())
    }
}

struct Reader {
    inner: Arc<Inner>,
    organization: OrganizationId,
    /// The last known position.
    after: Option<String>,
    /// True if a subscription from now on, without a position, would miss events.
    missed: bool,
    live: Option<OrganizationStream>,
    ready: VecDeque<OrganizationItem>,
}

impl Reader {
    async fn next(&mut self) -> OrganizationItem {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            let Some(live) = &mut self.live else {
                tokio::time::sleep(AGAIN).await;
                self.connect().await;
                continue;
            };
            match live.next().await {
                Some(Ok(event)) => {
                    self.after = Some(event.position.clone());
                    return OrganizationItem::Event(event);
                }
                ended => {
                    self.live = None;
                    if let Some(Err(BusError::UnknownPosition)) = ended {
                        // The bus still knows the position, but lost events after it.
                        self.after = None;
                    }
                    self.missed = true;
                    self.connect().await;
                }
            }
        }
    }

    /// Subscribes, after the last position if possible. If the bus is down, the reader tries again later.
    async fn connect(&mut self) {
        let bus = &self.inner.bus;
        let from = |after| bus.subscribe_organization(self.organization, after);
        let (subscribed, goes_on) = match &self.after {
            Some(after) => match from(Some(after.clone())).await {
                Err(BusError::UnknownPosition) => (from(None).await, false),
                subscribed => (subscribed, true),
            },
            None => (from(None).await, !self.missed),
        };
        match subscribed {
            Ok(live) => {
                self.live = Some(live);
                if !goes_on {
                    self.after = None;
                    self.ready.push_back(OrganizationItem::Gap);
                }
                self.missed = false;
            }
            Err(reason) => {
                tracing::debug!(organization_id = %self.organization, "no list events: {reason}");
                self.missed = true;
            }
        }
    }
}
