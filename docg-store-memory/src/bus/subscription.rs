//! A live reader: the sender's half in the ring, and the stream that the reader holds.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use docg_core::{event::Event, ports::BusError};
use futures::Stream;
use tokio::sync::mpsc;

/// The half of a live reader that the ring holds.
pub(super) struct Subscriber {
    live: mpsc::Sender<Arc<Event>>,
    /// The `seq` of the last event that was sent to the reader or is in its replay.
    sent: u64,
    cut_off: Arc<OnceLock<BusError>>,
}

/// The half of a live reader that the reader holds, as a stream.
pub(super) struct Subscription {
    replay: VecDeque<Arc<Event>>,
    live: mpsc::Receiver<Arc<Event>>,
    /// The reason why the ring cut the reader off, if it did.
    cut_off: Arc<OnceLock<BusError>>,
    is_over: bool,
}

impl Subscriber {
    pub(super) fn new(
        replay: VecDeque<Arc<Event>>,
        sent: u64,
        buffer: usize,
    ) -> (Self, Subscription) {
        let (sender, live) = mpsc::channel(buffer.max(1));
        let cut_off = Arc::new(OnceLock::new());
        let subscription = Subscription {
            replay,
            live,
            cut_off: Arc::clone(&cut_off),
            is_over: false,
        };
        (
            Self {
                live: sender,
                sent,
                cut_off,
            },
            subscription,
        )
    }

    /// Sends an event to the reader. Returns `false` if the reader is gone or cut off.
    pub(super) fn send(&mut self, event: &Arc<Event>) -> bool {
        if event.seq <= self.sent {
            return true;
        }
        let reason = if event.seq == self.sent + 1 {
            match self.live.try_send(Arc::clone(event)) {
                Ok(()) => {
                    self.sent = event.seq;
                    return true;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(_)) => BusError::Lagged,
            }
        } else {
            BusError::TooOld { after: self.sent }
        };
        // Set the reason before the sender is dropped, because the reader looks for it when the channel ends.
        let _ = self.cut_off.set(reason);
        false
    }

    pub(super) fn is_gone(&self) -> bool {
        self.live.is_closed()
    }
}

impl Stream for Subscription {
    type Item = Result<Arc<Event>, BusError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.replay.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        self.live.poll_recv(context).map(|event| {
            event.map(Ok).or_else(|| {
                self.is_over = true;
                self.cut_off.get().cloned().map(Err)
            })
        })
    }
}
