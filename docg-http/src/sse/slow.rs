use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Closes streams whose reader does not take its frames.
///
/// A connection that cannot write asks for no further frame, so its stream cannot detect the stall
/// itself. One task checks all open streams; the task runs while any stream is open.
pub(crate) struct SlowReaders {
    patience: Duration,
    metrics: Metrics,
    open: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    streams: Vec<Weak<Mutex<Reader>>>,
    watching: bool,
}

struct Reader {
    frames: Option<BoxStream<'static, Bytes>>,
    /// When the reader was given its last frame. `None` if the reader has taken it and waits for the next.
    given_at: Option<Instant>,
}

/// The frames of one stream. The stream ends early if its reader does not take frames in time.
pub(super) struct WatchedFrames {
    reader: Arc<Mutex<Reader>>,
    patience: Duration,
    metrics: Metrics,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SlowReaders {
    pub(crate) fn new(patience: Duration, metrics: Metrics) -> Self {
        Self {
            patience,
            metrics,
            open: Mutex::default(),
        }
    }

    pub(super) fn watch(self: &Arc<Self>, frames: BoxStream<'static, Bytes>) -> WatchedFrames {
        let reader = Arc::new(Mutex::new(Reader {
            frames: Some(frames),
            // Count the time from the start: a stalled connection may never ask for the first frame.
            given_at: Some(Instant::now()),
        }));
        let mut open = lock(&self.open);
        open.streams.push(Arc::downgrade(&reader));
        if !open.watching {
            open.watching = true;
            tokio::spawn(Self::close_stalled(Arc::downgrade(self), self.patience));
        }
        WatchedFrames {
            reader,
            patience: self.patience,
            metrics: self.metrics.clone(),
        }
    }

    async fn close_stalled(readers: Weak<Self>, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 2).await;
            let Some(readers) = readers.upgrade() else {
                return;
            };
            let mut stalled = Vec::new();
            {
                let mut open = lock(&readers.open);
                open.streams.retain(|stream| {
                    let Some(reader) = stream.upgrade() else {
                        return false;
                    };
                    let mut reader = lock(&reader);
                    if reader.is_stalled(patience) {
                        stalled.extend(reader.frames.take());
                        readers.metrics.stream_closed_as_slow();
                    }
                    reader.frames.is_some()
                });
                if open.streams.is_empty() {
                    open.watching = false;
                    // Release this lock first: dropping a stalled stream takes the lock of
                    // `StreamLimits`, and no task should hold both.
                    drop(open);
                    return;
                }
            }
            if !stalled.is_empty() {
                tracing::info!(
                    "{} streams whose readers stalled were closed",
                    stalled.len()
                );
            }
        }
    }
}

impl Reader {
    fn is_stalled(&self, patience: Duration) -> bool {
        self.given_at
            .is_some_and(|given| given.elapsed() > patience)
    }
}

impl Stream for WatchedFrames {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut reader = lock(&self.reader);
        if reader.is_stalled(self.patience) && reader.frames.take().is_some() {
            self.metrics.stream_closed_as_slow();
        }
        let Some(frames) = &mut reader.frames else {
            return Poll::Ready(None);
        };
        let polled = frames.poll_next_unpin(context);
        match &polled {
            Poll::Ready(Some(_)) => reader.given_at = Some(Instant::now()),
            Poll::Ready(None) => reader.frames = None,
            Poll::Pending => reader.given_at = None,
        }
        polled
    }
}
