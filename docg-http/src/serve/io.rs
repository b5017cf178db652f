use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::{Activity, Place},
    refusal,
};

/// A connection that reports reads to its [`Activity`], and counts as open until it is dropped.
pub(super) struct WatchedIo<Io> {
    io: Io,
    activity: Arc<Activity>,
    _place: Place,
    /// An answer that replaces one of the HTTP library, with the number of bytes already written.
    own: Option<(Vec<u8>, usize)>,
}

impl<Io> WatchedIo<Io> {
    pub(super) fn new(io: Io, place: Place) -> Self {
        Self {
            io,
            activity: place.activity(),
            _place: place,
            own: None,
        }
    }

    /// Replaces the HTTP library's empty answer to an invalid request by one with a body. False if `bytes`
    /// are any other answer, which is left as it is.
    fn takes_over(&mut self, bytes: &[u8]) -> bool {
        if !self.activity.awaits_head() {
            return false;
        }
        let answer = refusal::in_words(bytes);
        let is_taken = answer.is_some();
        self.own = answer.map(|answer| (answer, 0)).or(self.own.take());
        is_taken
    }
}

impl<Io: AsyncWrite + Unpin> WatchedIo<Io> {
    /// Writes the rest of the replacing answer.
    fn poll_own(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((answer, written)) = &mut self.own {
            if *written == answer.len() {
                self.own = None;
                break;
            }
            *written += ready!(Pin::new(&mut self.io).poll_write(context, &answer[*written..]))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for WatchedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for WatchedIo<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(context))?;
        if self.takes_over(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(context))?;
        if let [only] = slices
            && self.takes_over(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
