//! Serves a router over TCP, with a limit on every resource that a client can hold.
//!
//! [`serve`] accepts connections. [`activity`] tracks for each connection whether client or server has
//! to act next, and since when. [`io`] reports reads to [`activity`]; [`body`] reports the progress of
//! bodies. [`refusal`] adds a body to answers that the HTTP library leaves empty.

mod activity;
mod body;
mod io;
mod options;
mod refusal;
mod write_timeout;

use std::{
    convert::Infallible, io::ErrorKind, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use docg_core::i18n::Locale;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tower::ServiceExt;

use crate::{metrics::ClosedFor, problem::Problem};
use activity::{Activity, Connections, Place};
use body::{ReceivedBody, SentBody};
use io::WatchedIo;

pub(crate) use body::BodyTimedOut;
pub use options::{ServeOptions, open_files};
pub use write_timeout::{TimedWrites, WriteTimeout};

/// How long a connection that is asked to end may take to finish its answer.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the server accepts no connection after `accept` failed.
const REST: Duration = Duration::from_millis(100);
/// The shortest time between two log entries about a lack of connections, or a failed `accept`.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How many new clients are answered 503 at the same time if all connections are in use. Others are
/// disconnected without an answer.
const TOLD_AT_ONCE: usize = 4;
/// HTTP/1: the largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// HTTP/2: the largest size of one request's header fields, uncompressed, in bytes.
const MAX_HEADER_LIST: u32 = 32 * 1024;
/// HTTP/2: how many streams a client may reset before the server has accepted them (rapid reset).
const MAX_PENDING_RESETS: usize = 20;

/// Serves `router` on `listener` until [`ServeOptions::shutdown`] is cancelled and every connection has
/// ended. If the future is dropped, all connections are closed at once.
///
/// `axum::serve` lets a client keep a connection for as long as it likes, so that silent clients can use
/// up a process's open files. Here a connection ends if its client
///
/// - sends no whole request head within [`ServeOptions::head_timeout`],
/// - sends no request for [`ServeOptions::idle_timeout`],
/// - takes no byte of an answer for [`ServeOptions::slow_reader`].
///
/// A body that is not complete within [`ServeOptions::body_timeout`] fails. Event streams last as long
/// as their reader takes the data.
///
/// If [`ServeOptions::connections`] connections are open, the one that has been idle longest is closed for
/// a new one. If none is idle, the one is closed that has waited longest for its client, at least a second.
/// If there is neither, the new client is answered 503. If the process can open no more files, a connection
/// is closed by the same rule, the log says what to do, and accepting continues after a moment.
///
/// An HTTP/1.1 request without exactly one `Host` is answered 400, as RFC 9112 requires.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// use docg_http::{ServeOptions, serve};
///
/// // Of the process's open files, 64 are kept for the database, other services and files.
/// let options = ServeOptions::keeping_files(64);
/// let stop = options.shutdown.clone();
/// tokio::spawn(async move {
///     tokio::signal::ctrl_c().await.ok();
///     stop.cancel();
/// });
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// serve(listener, app, options).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve(listener: TcpListener, router: Router, options: ServeOptions) {
    let options = Arc::new(options);
    let connections = Arc::new(Connections::new(options.metrics.clone()));
    let mut tasks = JoinSet::new();
    let mut watch = interval(options.watch_every());
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut door = Door::default();
    loop {
        tokio::select! {
            () = options.shutdown.cancelled() => break,
            Some(_) = tasks.join_next() => {}
            _ = watch.tick() => connections.close_overdue(&options),
            () = sleep_until(door.closed_until), if door.closed_until > Instant::now() => {}
            accepted = listener.accept(), if door.closed_until <= Instant::now() => match accepted {
                Ok((stream, address)) => {
                    if connections.count() >= options.connections {
                        let is_room_made = connections.close_oldest_idle();
                        door.complain_of_limit(&options, is_room_made);
                        if !is_room_made {
                            options.metrics.connection_closed(ClosedFor::Full);
                            door.refuse(stream, &mut tasks);
                            continue;
                        }
                    }
                    let (place, options) = (connections.enter(), Arc::clone(&options));
                    tasks.spawn(connection(stream, address, router.clone(), place, options));
                }
                Err(error) => door.failed(&error, &connections),
            },
        }
    }
    drop(listener);
    while !tasks.is_empty() {
        tokio::select! {
            _ = tasks.join_next() => {}
            _ = watch.tick() => connections.close_overdue(&options),
        }
    }
}

/// The state of accepting connections: the end of the pause, the time of the last log entry, and the
/// permits to answer 503.
struct Door {
    closed_until: Instant,
    complained_at: Option<Instant>,
    telling: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            closed_until: Instant::now(),
            complained_at: None,
            telling: Arc::new(Semaphore::new(TOLD_AT_ONCE)),
        }
    }
}

impl Door {
    /// True if there is no log entry yet, or the last is [`COMPLAIN_EVERY`] old. The caller then writes one.
    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self
            .complained_at
            .is_none_or(|at| now.duration_since(at) >= COMPLAIN_EVERY);
        if is_due {
            self.complained_at = Some(now);
        }
        is_due
    }

    fn complain_of_limit(&mut self, options: &ServeOptions, is_room_made: bool) {
        if self.may_complain() {
            let done = if is_room_made {
                "the connections that are idle longest are closed for new ones"
            } else {
                "none of them is idle, and new ones are answered 503"
            };
            tracing::warn!(
                "all {} connections are in use: {done}. If these are wanted, raise the limit on open \
                 files (ulimit -n), from which this limit is derived",
                options.connections
            );
        }
    }

    /// Handles an `accept` that failed.
    fn failed(&mut self, error: &std::io::Error, connections: &Connections) {
        // These errors concern one client, which went away before its connection was accepted.
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
        ) {
            return tracing::debug!("a connection was not accepted: {error}");
        }
        self.closed_until = Instant::now() + REST;
        let is_room_made = connections.close_oldest_idle();
        if !self.may_complain() {
            return;
        }
        if is_out_of_files(error) {
            tracing::error!(
                "no connection can be accepted: {error}. {} are open{}. Raise the limit on open files \
                 (ulimit -n, LimitNOFILE= of systemd, fs.file-max)",
                connections.count(),
                if is_room_made {
                    ", and the one that was idle longest was closed"
                } else {
                    ""
                },
            );
        } else {
            tracing::error!("no connection can be accepted, which is tried again: {error}");
        }
    }

    /// Answers a new client 503. If [`TOLD_AT_ONCE`] clients are being answered, only disconnects it.
    fn refuse(&self, stream: TcpStream, tasks: &mut JoinSet<()>) {
        if let Ok(permit) = Arc::clone(&self.telling).try_acquire_owned() {
            tasks.spawn(tell_full(stream, permit));
        }
    }
}

/// True if the process (EMFILE) or the system (ENFILE) can open no more files.
fn is_out_of_files(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// Answers 503 without reading the request first, because the client may never send one.
async fn tell_full(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let problem = Problem::of_status(StatusCode::SERVICE_UNAVAILABLE)
        .detail("Too many connections are open. Try again.")
        .body(Locale::En, "")
        .to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{problem}",
        problem.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Read first: closing with unread bytes would make the system discard the answer.
        stream.read(&mut [0; 4096]).await
    };
    // If the client does not read the answer, nothing more can be done.
    let _ = timeout(LAST_WORDS, told).await;
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    place: Place,
    options: Arc<ServeOptions>,
) {
    let activity = place.activity();
    // Answers are written whole; Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let io = TimedWrites::new(stream, options.slow_reader, options.metrics.clone());
    let io = TokioIo::new(WatchedIo::new(io, place));
    let service = {
        let (activity, body_timeout) = (Arc::clone(&activity), options.body_timeout);
        hyper::service::service_fn(move |request| {
            answered(router.clone(), Arc::clone(&activity), body_timeout, request)
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        // Detect a client that vanished, also while a stream is open.
        .keep_alive_interval(options.idle_timeout)
        .keep_alive_timeout(options.head_timeout)
        .max_concurrent_streams(options.streams_per_connection)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .enable_connect_protocol();
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = activity.closed() => Ok(()),
        () = activity.closing() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = activity.closed() => Ok(()),
                () = sleep(LAST_WORDS) => Ok(()),
            }
        }
        () = options.shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = activity.closing() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, "a connection broke off: {error}");
    }
}

/// Lets the router answer a request, and tracks the bodies of request and answer.
async fn answered(
    router: Router,
    activity: Arc<Activity>,
    body_timeout: Duration,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let running = activity.begin(request.version());
    if !has_one_host(&request) {
        let detail = "a request of HTTP/1.1 has exactly one Host";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "bad_request").detail(detail);
        let answer = problem.into_response();
        return Ok(answer.map(|body| Body::new(SentBody::new(body, running))));
    }
    let request =
        request.map(|body| Body::new(ReceivedBody::new(body, running.hand(), body_timeout)));
    let answer = router.oneshot(request).await?;
    Ok(answer.map(|body| Body::new(SentBody::new(body, running))))
}

/// True if an HTTP/1.1 request has exactly one `Host` (RFC 9112, section 3.2). HTTP/1.0 has no such
/// rule, and HTTP/2 names the host in another way.
fn has_one_host<B>(request: &Request<B>) -> bool {
    request.version() != Version::HTTP_11
        || request.headers().get_all(header::HOST).iter().count() == 1
}
