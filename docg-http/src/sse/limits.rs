use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use docg_core::ids::OrganizationId;
use tokio::sync::Notify;

/// Counts and limits open streams, in all and by organization.
#[derive(Debug)]
pub(crate) struct StreamLimits {
    total: usize,
    per_organization: usize,
    open: Mutex<HashMap<OrganizationId, usize>>,
    /// Notified when the last stream closes.
    none_open: Notify,
}

/// Counts as one open stream. Dropping it makes room for another stream.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    limits: Arc<StreamLimits>,
    organization: OrganizationId,
}

impl StreamLimits {
    pub(crate) fn new(total: usize, per_organization: usize) -> Self {
        Self {
            total,
            per_organization,
            open: Mutex::default(),
            none_open: Notify::new(),
        }
    }

    /// Resolves when no stream is open.
    pub(crate) async fn none_open(&self) {
        loop {
            let mut closed = pin!(self.none_open.notified());
            // Register before checking, so that a close in between is not missed.
            closed.as_mut().enable();
            if self
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
            {
                return;
            }
            closed.await;
        }
    }

    /// Counts one more open stream; `None` if a limit is reached.
    pub(crate) fn enter(self: &Arc<Self>, organization: OrganizationId) -> Option<StreamPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= self.total {
            return None;
        }
        let own = open.get(&organization).copied().unwrap_or_default();
        if own >= self.per_organization {
            return None;
        }
        open.insert(organization, own + 1);
        Some(StreamPlace {
            limits: Arc::clone(self),
            organization,
        })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self
            .limits
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.organization);
            }
            if open.is_empty() {
                self.limits.none_open.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_was_refused_holds_no_place() {
        let limits = Arc::new(StreamLimits::new(10, 0));
        assert!(limits.enter(OrganizationId::new()).is_none());
        assert!(limits.none_open().now_or_never().is_some());

        let limits = Arc::new(StreamLimits::new(10, 1));
        let organization = OrganizationId::new();
        let place = limits.enter(organization).expect("there is one");
        assert!(limits.enter(organization).is_none());
        assert!(limits.none_open().now_or_never().is_none());
        drop(place);
        assert!(limits.none_open().now_or_never().is_some());
    }
}
