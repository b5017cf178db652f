use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use docg_core::ids::OrganizationId;

/// Counts open streams, in all and by organization.
#[derive(Debug)]
pub(crate) struct StreamLimits {
    total: usize,
    per_organization: usize,
    open: Mutex<HashMap<OrganizationId, usize>>,
}

/// A place for one stream; dropping it frees the place.
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
        }
    }

    /// A place, if there is one.
    pub(crate) fn enter(self: &Arc<Self>, organization: OrganizationId) -> Option<StreamPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= self.total {
            return None;
        }
        let own = open.entry(organization).or_default();
        if *own >= self.per_organization {
            return None;
        }
        *own += 1;
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
        }
    }
}
