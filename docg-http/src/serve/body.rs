//! Bodies that report whether the server or the client has to act next.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::{Hand, Running, Turn};

/// A request's body took longer than [`ServeOptions::body_timeout`](crate::ServeOptions::body_timeout).
#[derive(Debug, thiserror::Error)]
#[error("the body was not there within {0:?}")]
pub(crate) struct BodyTimedOut(Duration);

/// A request's body. Reading fails if the body takes too long as a whole, so that a client cannot hold the
/// server up with a byte each second.
pub(super) struct ReceivedBody {
    body: Incoming,
    hand: Hand,
    limit: Duration,
    /// The timer for the whole body. It starts when the server first has to wait for data.
    over: Option<Pin<Box<Sleep>>>,
    is_awaited: bool,
}

impl ReceivedBody {
    pub(super) fn new(body: Incoming, hand: Hand, limit: Duration) -> Self {
        Self {
            body,
            hand,
            limit,
            over: None,
            is_awaited: false,
        }
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if self.is_awaited {
                self.is_awaited = false;
                self.hand.turn(Turn::Server);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        if !self.is_awaited {
            self.is_awaited = true;
            self.hand.turn(Turn::Sending(Instant::now()));
        }
        let limit = self.limit;
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        over.as_mut()
            .poll(context)
            .map(|()| Some(Err(axum::Error::new(BodyTimedOut(limit)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. The request counts as running until this body is dropped.
pub(super) struct SentBody {
    body: Body,
    running: Running,
}

impl SentBody {
    pub(super) fn new(body: Body, running: Running) -> Self {
        running.turn(Turn::Taking(Instant::now()));
        Self { body, running }
    }
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // The connection asks for the next frame once the client has taken the last one.
        self.running.turn(match frame {
            Poll::Pending => Turn::Server,
            Poll::Ready(_) => Turn::Taking(Instant::now()),
        });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
