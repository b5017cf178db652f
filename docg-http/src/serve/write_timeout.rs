use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::metrics::Metrics;

/// A listener that closes a connection if its client takes no data for some time.
///
/// `axum::serve` waits without limit until it can write, so a client that never reads could hold its
/// connection and the data buffered for it forever. Time in which there is nothing to write does not
/// count. [`serve`](crate::serve) has this limit too, and others.
///
/// ```no_run
/// # async fn serve(app: axum::Router, options: docg_http::HttpOptions) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let metrics = options.metrics.clone().unwrap_or_default();
/// let listener = docg_http::WriteTimeout::new(listener, options.slow_reader, metrics);
/// axum::serve(listener, app).await
/// # }
/// ```
#[derive(Debug)]
pub struct WriteTimeout<L> {
    listener: L,
    patience: Duration,
    metrics: Metrics,
}

impl<L> WriteTimeout<L> {
    /// Wraps `listener`. A connection is closed if its client takes no byte for `patience`; `metrics` count
    /// the closed connections.
    pub fn new(listener: L, patience: Duration, metrics: Metrics) -> Self {
        Self {
            listener,
            patience,
            metrics,
        }
    }
}

impl<L: Listener> Listener for WriteTimeout<L> {
    type Io = TimedWrites<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        let io = TimedWrites::new(io, self.patience, self.metrics.clone());
        (io, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that a [`WriteTimeout`] accepted. A write fails if the client takes no data in time.
#[derive(Debug)]
pub struct TimedWrites<Io> {
    io: Io,
    patience: Duration,
    metrics: Metrics,
    /// The timer of the pending write, if the client is not taking data.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<Io> TimedWrites<Io> {
    pub(super) fn new(io: Io, patience: Duration, metrics: Metrics) -> Self {
        Self {
            io,
            patience,
            metrics,
            stalled: None,
        }
    }

    /// Returns a finished write unchanged. A pending write fails once it has waited for `patience`.
    fn timed<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        self.metrics.connection_closed_as_slow();
        tracing::info!("a connection whose client took nothing for {patience:?} was closed");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for TimedWrites<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for TimedWrites<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.timed(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.timed(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.timed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        self.timed(context, shut)
    }
}
