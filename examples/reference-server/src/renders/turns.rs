//! Turns at a scarce resource, shared fairly between organizations.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use docg_core::ids::OrganizationId;
use tokio::sync::oneshot;

/// Hands out turns. Waiting organizations are served in rotation, each with its oldest request. If there are
/// several turns, one organization alone never holds all of them, so that no other waits for all of its work.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    per_organization: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    held: HashMap<OrganizationId, usize>,
    /// The organizations that wait, in the order in which they are served.
    waiting: VecDeque<(OrganizationId, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A turn of an organization. Dropping this value ends the turn.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    organization: OrganizationId,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        let at_once = at_once.max(1);
        Arc::new(Self {
            state: Mutex::new(State {
                free: at_once,
                held: HashMap::new(),
                waiting: VecDeque::new(),
            }),
            per_organization: (at_once - 1).max(1),
        })
    }

    /// Waits for a turn. Dropping the future gives up the place in the queue.
    pub(super) async fn take(self: &Arc<Self>, organization: OrganizationId) -> Turn {
        loop {
            let (sender, receiver) = oneshot::channel();
            self.state().wait(organization, sender);
            self.serve();
            // The receiver fails only if the queue is dropped, and the queue lives as long as `self`.
            if let Ok(turn) = receiver.await {
                return turn;
            }
        }
    }

    fn serve(self: &Arc<Self>) {
        loop {
            // Release the lock before sending: a turn that nobody receives is dropped at once, and its drop
            // locks again.
            let next = self.state().next(self.per_organization);
            let Some((organization, sender)) = next else {
                return;
            };
            let turns = Arc::clone(self);
            drop(sender.send(Turn {
                turns,
                organization,
            }));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is harmless: no code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, organization: OrganizationId, sender: oneshot::Sender<Turn>) {
        let mut known = self.waiting.iter_mut();
        match known.find(|(known, _)| *known == organization) {
            Some((_, senders)) => senders.push_back(sender),
            None => self.waiting.push_back((organization, [sender].into())),
        }
    }

    /// Removes the next request that may be served from the queue, and counts its turn as held.
    fn next(&mut self, per_organization: usize) -> Option<(OrganizationId, oneshot::Sender<Turn>)> {
        if self.free == 0 {
            return None;
        }
        let may = |(organization, _): &(OrganizationId, _)| {
            self.held.get(organization).copied().unwrap_or(0) < per_organization
        };
        let (organization, mut senders) =
            self.waiting.remove(self.waiting.iter().position(may)?)?;
        let sender = senders.pop_front()?;
        if !senders.is_empty() {
            self.waiting.push_back((organization, senders));
        }
        self.free -= 1;
        *self.held.entry(organization).or_insert(0) += 1;
        Some((organization, sender))
    }

    fn end(&mut self, organization: OrganizationId) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(&organization) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&organization);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().end(self.organization);
        self.turns.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn an_organization_with_many_renders_leaves_a_place_for_others() {
        let turns = Turns::new(3);
        let (busy, other) = (OrganizationId::new(), OrganizationId::new());
        let _held = [turns.take(busy).await, turns.take(busy).await];
        assert!(turns.take(busy).now_or_never().is_none(), "the last place");
        assert!(turns.take(other).now_or_never().is_some());
    }

    #[tokio::test]
    async fn organizations_are_served_one_after_the_other() {
        let turns = Turns::new(1);
        let (busy, other) = (OrganizationId::new(), OrganizationId::new());
        let held = turns.take(busy).await;
        let (mut first, mut second) = (Box::pin(turns.take(busy)), Box::pin(turns.take(busy)));
        let mut others = Box::pin(turns.take(other));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut others).is_pending());
        drop(held);
        let Poll::Ready(turn) = poll!(&mut first) else {
            panic!("the first to ask");
        };
        drop(turn);
        assert!(poll!(&mut second).is_pending(), "the other is next");
        assert!(poll!(&mut others).is_ready());
    }

    #[tokio::test]
    async fn a_place_that_nobody_waits_for_any_more_goes_to_the_next() {
        let turns = Turns::new(1);
        let (one, other) = (OrganizationId::new(), OrganizationId::new());
        let held = turns.take(one).await;
        let mut gone: Vec<_> = (0..50).map(|_| Box::pin(turns.take(one))).collect();
        for waiting in &mut gone {
            assert!(poll!(waiting).is_pending());
        }
        let mut next = Box::pin(turns.take(other));
        assert!(poll!(&mut next).is_pending());
        drop(gone);
        drop(held);
        assert!(poll!(&mut next).is_ready());
        drop(next);
        assert!(turns.state().waiting.is_empty() && turns.state().held.is_empty());
    }
}
