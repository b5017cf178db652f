//! Measures the time from a commit until a stream's client has its events, over real sockets, with few
//! and many streams open: the median (p50) and the 99th percentile (p99). The same run measures a floor,
//! a bare axum stream that one channel feeds, and the memory that each open stream takes.
//!
//! The clients run in a second process of this same program.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Body, response::IntoResponse, routing, serve::ListenerExt};
use bytes::Bytes;
use docg_core::{
    engine::{ControlRequest, Resume, StartRequest},
    observe::Actor,
    prelude::*,
};
use docg_http::{HttpOptions, Principal, Scope, StaticTokens};
use docg_store_memory::{BusConfig, MemoryBus, MemoryStore, StoreConfig};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{broadcast, mpsc},
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const TOKEN: &str = "bench";
/// The environment variable that makes this program run the clients. It holds the server's address.
const CLIENTS_OF: &str = "DOCG_BENCH_CLIENTS_OF";

fn nanos() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970").as_nanos()
}

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match std::env::var(CLIENTS_OF) {
        Ok(address) => runtime.block_on(clients(&address)),
        Err(_) => runtime.block_on(measure()),
    }
}

// --- The clients -----------------------------------------------------------------------------------

/// Opens a stream for each path that stdin names. Writes `open` when a stream has its first frame, and
/// then the time in nanoseconds at which each further frame arrived.
async fn clients(address: &str) -> Result {
    let (sender, mut said) = mpsc::unbounded_channel::<String>();
    let mut paths = BufReader::new(tokio::io::stdin()).lines();
    let mut output = tokio::io::stdout();
    loop {
        tokio::select! {
            path = paths.next_line() => match path? {
                Some(path) => {
                    let stream = open(address, &path).await?;
                    tokio::spawn(follow(stream, sender.clone()));
                }
                // The server closed stdin, because it has measured enough.
                None => return Ok(()),
            },
            Some(line) = said.recv() => {
                output.write_all(format!("{line}\n").as_bytes()).await?;
                output.flush().await?;
            }
        }
    }
}

async fn open(address: &str, path: &str) -> Result<Lines<BufReader<OwnedReadHalf>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Last-Event-ID: 1-0\r\nAccept: text/event-stream\r\n\r\n"
    );
    write.write_all(request.as_bytes()).await?;
    // Keep the sending direction open: the server would take its end for the client's departure.
    write.forget();
    Ok(BufReader::with_capacity(1_024, read).lines())
}

async fn follow(
    mut stream: Lines<BufReader<OwnedReadHalf>>,
    sender: mpsc::UnboundedSender<String>,
) {
    let mut is_open = false;
    while let Ok(Some(line)) = stream.next_line().await {
        let said = match line.strip_prefix("event: ") {
            Some("heartbeat") | None => continue,
            Some(_) if is_open => nanos().to_string(),
            Some(_) => "open".to_owned(),
        };
        is_open = true;
        if sender.send(said).is_err() {
            return;
        }
    }
}

/// The process of the clients, as the server's process controls it.
struct Clients {
    _process: Child,
    paths: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    fn start(address: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(CLIENTS_OF, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let paths = process.stdin.take().ok_or("no input")?;
        let said = process.stdout.take().ok_or("no output")?;
        Ok(Self {
            _process: process,
            paths,
            said: BufReader::new(said).lines(),
        })
    }

    async fn open(&mut self, path: &str) -> Result {
        self.paths.write_all(format!("{path}\n").as_bytes()).await?;
        let line = tokio::time::timeout(Duration::from_secs(20), self.said.next_line());
        let line = line.await.map_err(|_| format!("{path} does not open"))??;
        assert_eq!(line.as_deref(), Some("open"), "{path}");
        Ok(())
    }

    /// The time in nanoseconds at which the last of the next `events` events arrived.
    async fn last_of(&mut self, events: usize) -> Result<u128> {
        let mut last = 0;
        for _ in 0..events {
            let line = self
                .said
                .next_line()
                .await?
                .ok_or("the clients have left")?;
            last = line.parse()?;
        }
        Ok(last)
    }
}

// --- The server ------------------------------------------------------------------------------------

struct Server {
    engine: Engine,
    organization: OrganizationId,
    workflow: WorkflowId,
    floor: broadcast::Sender<Bytes>,
    address: String,
}

impl Server {
    async fn start() -> Result<Self> {
        let store = MemoryStore::new(StoreConfig::default().max_executions(usize::MAX));
        let bus = MemoryBus::new(BusConfig::default());
        let spec = NodeSpec::new("render", Phase::Render);
        let render = |_, _: Value| async { Ok(json!({})) };
        let engine = Engine::builder(Arc::new(store), Arc::new(bus))
            .step(compute(spec, render))
            .build();
        let (organization, workflow) = (OrganizationId::new(), WorkflowId::new());
        let draft = json!({"name": "bench", "nodes": [{"id": "render", "type": "render"}]});
        engine
            .put_workflow(organization, workflow, serde_json::from_value(draft)?, None)
            .await?;
        let principal = Principal {
            actor: TOKEN.to_owned(),
            organizations: vec![organization],
            scopes: Scope::ALL.to_vec(),
        };
        let tokens = StaticTokens::default().token(TOKEN, principal);
        let mut options = HttpOptions::new(Arc::new(tokens), [7; 32]);
        options.streams_per_organization = usize::MAX;
        let (floor, _) = broadcast::channel(16);
        let (fed, (quiet, _)) = (floor.clone(), broadcast::channel(16));
        let bare = Router::new()
            .route("/floor", routing::get(async move || bare(&fed)))
            .route("/quiet", routing::get(async move || bare(&quiet)));
        let router = docg_http::router(engine.clone(), options).merge(bare);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let listener = listener.tap_io(|stream| {
            // Send small frames at once. If the system refuses this, the figures show it.
            let _ = stream.set_nodelay(true);
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        Ok(Self {
            engine,
            organization,
            workflow,
            floor,
            address,
        })
    }

    async fn execution(&self) -> Result<ExecutionId> {
        let actor = Actor::user("bench");
        let request = StartRequest::new(self.organization, self.workflow, actor);
        Ok(self.engine.start(request).await?.record.execution.id)
    }

    /// Makes one commit with two events: pauses an execution that waits for a worker, or resumes it.
    async fn commit(&self, execution: ExecutionId, stops: bool) -> Result {
        let request = ControlRequest::new(self.organization, execution, Actor::user("bench"));
        if stops {
            self.engine.pause(request, None).await?;
        } else {
            self.engine.resume(request, Resume::default()).await?;
        }
        Ok(())
    }
}

/// The floor: a stream with only the parts that any stream needs, a channel, a body and a socket.
fn bare(floor: &broadcast::Sender<Bytes>) -> impl IntoResponse + use<> {
    let first = Bytes::from_static(b"event: connected\ndata: {}\n\n");
    let frames = futures::stream::unfold(floor.subscribe(), |mut receiver| async {
        Some((receiver.recv().await.ok()?, receiver))
    });
    let frames = futures::stream::iter([first]).chain(frames);
    Body::from_stream(frames.map(Ok::<_, Infallible>))
}

// --- What is measured ------------------------------------------------------------------------------

/// Measured times in ascending order.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut nanos: Vec<u128>) -> Self {
        nanos.sort_unstable();
        let times = nanos.into_iter().map(Duration::from_nanos_u128);
        Self(times.collect())
    }

    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.0?}, p99 {:.0?}", self.at(50), self.at(99))
    }
}

/// The memory that this process occupies, in KiB. `None` if the system has no `/proc` as on Linux.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory that each of `streams` streams has added, as a text.
fn each(before: Option<u64>, after: Option<u64>, streams: usize) -> String {
    let streams = u64::try_from(streams).unwrap_or(u64::MAX);
    let grown = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before));
    grown.map_or("unknown".to_owned(), |kib| format!("{} KiB", kib / streams))
}

async fn measure() -> Result {
    let is_smoke = std::env::args().any(|argument| argument == "--test");
    let (sizes, rounds): (&[usize], usize) = if is_smoke {
        (&[1, 20], 10)
    } else {
        (&[1, 1_000, 10_000], 2_000)
    };
    for size in sizes {
        with_open(*size, rounds).await?;
    }
    Ok(())
}

/// Measures with `size` streams open, each of another execution.
async fn with_open(size: usize, rounds: usize) -> Result {
    let server = Server::start().await?;
    let mut clients = Clients::start(&server.address)?;
    clients.open("/floor").await?;
    let mut executions = Vec::with_capacity(size);
    for _ in 0..size {
        executions.push(server.execution().await?);
    }
    let (started, quiet) = (resident(), size.min(1_000));
    for _ in 0..quiet {
        clients.open("/quiet").await?;
    }
    let opened = resident();
    for execution in &executions {
        let path = format!("/api/v1/sse/executions/{execution}/stream");
        clients.open(&path).await?;
    }
    let floor_memory = each(started, opened, quiet);
    let memory = each(opened, resident(), size);

    let (mut times, mut floor) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let stops = (round / size).is_multiple_of(2);
        let began = nanos();
        server.commit(executions[round % size], stops).await?;
        times.push(clients.last_of(2).await? - began);

        let frame = Bytes::from_static(b"event: execution.paused\ndata: {}\n\n");
        let began = nanos();
        server.floor.send(frame)?;
        floor.push(clients.last_of(1).await? - began);
    }
    let (times, floor) = (Times::of(times), Times::of(floor));
    let ratio = times.at(50).as_secs_f64() / floor.at(50).as_secs_f64();
    println!(
        "{size} streams: from the call to the client {times}; floor {floor}; ratio {ratio:.1}; \
         memory of a stream {memory}, floor {floor_memory}"
    );
    Ok(())
}
