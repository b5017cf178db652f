//! Starts the server, runs it and stops it in order.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use docg_core::{
    engine::{Engine, WorkerOptions, Workers, WorkersRunning},
    ids::OrganizationId,
    signature::SignatureProvider,
};
use docg_http::{AppState, HttpOptions, Metrics, Principal, Scope, ServeOptions, StaticTokens};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use url::{Host, Url};

use crate::{
    approvals::{self, Approvals},
    auth_file::{self, AuthFileError, Identities},
    backend::{self, Backend, BackendError},
    builtin_signature::{self, Desk, Outbox, Provider, Secret, SecretError},
    checkpoints,
    checks::{self, Lock, LockError, Refusals},
    downloads,
    files::FilesError,
    in_use,
    mail::{Mailer, SmtpServer, SmtpUrlError},
    nodes::{self, Services},
    options::{Options, Role},
    pdf::Templates,
    private,
    probe::Probe,
    renders::Renderer,
    signature_providers::{AccountError, Accounts},
    welcome,
    workflows::{self, PutError, WorkflowFaults},
};

/// The organization of the development token. It is the same in every start, so that notes and scripts stay
/// valid.
const DEVELOPMENT_ORGANIZATION: &str = "00000000-0000-7000-8000-000000000001";
/// The name of the file in the data directory that holds the installation's key.
pub(crate) const SECRET_FILE: &str = "signature.key";
/// The folder in the data directory for documents and notes, unless `--files-url` names another place.
pub(crate) const FILES_FOLDER: &str = "files";
/// The folder in the data directory where mails are written if there is no mail server.
pub(crate) const MAIL_FOLDER: &str = "mail";
/// The longest time of a probe, which asks a handler whether its effect happened, with a little to spare.
const LONGEST_PROBE: Duration = Duration::from_secs(15);
/// How long connections may take to end after the last stream has ended.
const HTTP_GRACE: Duration = Duration::from_secs(10);
/// How long a stop may exceed the sum of its stages' times before the process ends anyway.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// The reason why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The options, the environment or the things that they name cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// Another server uses the data directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The store or the bus cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The auth file is wrong.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// The engine's workers run already.
    #[error(transparent)]
    Workers(#[from] WorkersRunning),
    /// The server cannot listen on the address.
    #[error("--bind {address}: {source}{}", what_to_do(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("--data-dir {folder}: {source}")]
    DataDir {
        /// The folder.
        folder: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Files cannot be stored.
    #[error("--files-url: {0}")]
    Files(#[from] FilesError),
    /// The value of `--smtp-url` is not an SMTP URL.
    #[error("--smtp-url: {0}")]
    Smtp(#[from] SmtpUrlError),
    /// Links and webhooks cannot be signed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The environment names an account at a signature provider that cannot be used.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Workflow files are invalid.
    #[error(transparent)]
    Workflows(#[from] WorkflowFaults),
    /// Workflows could not be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The HTTP client cannot be created.
    #[error("the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The server stopped serving HTTP because of an error.
    #[error("serving broke off: {0}")]
    Http(std::io::Error),
    /// The handlers for operating system signals cannot be installed.
    #[error("signals cannot be listened to: {0}")]
    Signals(std::io::Error),
    /// The start of the server panicked.
    #[error("the server could not start: {0}")]
    Broken(JoinError),
}

/// The development credentials, used if there is no auth file.
#[derive(Debug, Clone)]
pub struct Development {
    /// The token. It stays the same for a data directory, so that other commands find it.
    pub token: String,
    /// The organization that the token acts for.
    pub organization: OrganizationId,
}

/// A running server.
pub struct Server {
    /// The address that the server listens on. `None` if it does not serve HTTP.
    pub address: Option<SocketAddr>,
    /// The development credentials, if there is no auth file.
    pub development: Option<Development>,
    /// True if the server runs workers.
    pub works: bool,
    workers: Workers,
    http: Option<Http>,
    /// Stops the backend's background tasks. `looked_after` ends after the last checkpoint.
    stop: CancellationToken,
    looked_after: JoinHandle<()>,
}

/// The HTTP part of a server.
struct Http {
    serving: JoinHandle<()>,
    ending: Ending,
    outbox: JoinHandle<()>,
    stop_outbox: CancellationToken,
}

/// The stages in which the HTTP part stops, in this order.
struct Ending {
    /// Makes the readiness check fail.
    draining: CancellationToken,
    /// Ends the event streams.
    streams: CancellationToken,
    /// The time over which the streams end one after the other, so that not all clients reconnect at once.
    streams_over: Duration,
    /// Reports when the last stream has ended.
    state: AppState,
    /// Stops accepting connections. An open connection ends after the answer to its request.
    connections: CancellationToken,
}

impl Server {
    /// Starts the server. When this returns, the server serves HTTP and runs workers, as its role says.
    ///
    /// # Errors
    ///
    /// [`ServeError`], with the names of the options that are wrong.
    pub async fn start(options: &Options) -> Result<Self, ServeError> {
        checks::pass(options).await?;
        let data_dir = data_dir(options)?;
        let secret = Secret::load_or_create(&data_dir.join(SECRET_FILE))?;
        let (identities, development) = identities(options, &secret)?;
        let workflow_files = match &options.workflows {
            Some(folder) => workflows::in_folder(folder)?,
            None => workflows::bundled()?,
        };
        let files = checks::opened(options)?;
        let mailer = match &options.smtp_url {
            Some(url) => Mailer::smtp(
                SmtpServer::from_text(url.expose())?,
                options.mail_from.clone(),
                files.clone(),
            ),
            None => Mailer::folder(
                data_dir.join(MAIL_FOLDER),
                options.mail_from.clone(),
                files.clone(),
            ),
        };
        let accounts = Accounts::from_env()?.providers(&files)?;

        // From here on clients can connect. Their requests are answered once the start is complete.
        let bind_error = |source| ServeError::Bind {
            address: options.bind,
            source,
        };
        let listener = match options.role {
            Role::All | Role::Http => {
                Some(TcpListener::bind(options.bind).await.map_err(bind_error)?)
            }
            Role::Worker => None,
        };
        let address = match &listener {
            Some(listener) => Some(listener.local_addr().map_err(bind_error)?),
            None => None,
        };
        let public_url = options
            .public_url
            .clone()
            // A worker does not listen. Links in its mails lead to --bind, where the HTTP servers listen.
            .unwrap_or_else(|| url_at(address.unwrap_or(options.bind)));
        let backend = Backend::open(options).await?;
        backend.share_key(&secret, options).await?;
        tracing::info!("{}", in_use::told(options, &public_url));

        let approvals = Approvals::new(
            files.clone(),
            mailer.clone(),
            secret.approval_key(),
            public_url.clone(),
        );
        let desk = Desk::new(files.clone(), mailer.clone(), secret.clone(), public_url);
        let renderer = Renderer::new(Templates::bundled(), options.render_limits());
        let builtin: Arc<dyn SignatureProvider> =
            Arc::new(Provider::new(desk.clone(), renderer.clone()));
        let services = Services {
            files: files.clone(),
            mailer,
            approvals: approvals.clone(),
            renderer,
            providers: std::iter::once(builtin).chain(accounts).collect(),
            allow_private_http: options.http_allow_private,
            test_nodes: options.enable_test_nodes.then_some(data_dir),
        };
        let engine = engine(options, &backend, &services);
        desk.attach(engine.clone());
        approvals.attach(engine.clone());
        workflows::put_all(&engine, &workflow_files, &identities.organizations).await?;

        let http = match listener {
            Some(listener) => {
                let mut http_options =
                    HttpOptions::new(Arc::new(identities.tokens), secret.cursor_key());
                http_options.heartbeat = Duration::from_millis(options.heartbeat_ms);
                http_options.cors_origins.clone_from(&options.cors_origins);
                // The request to cancel an execution is answered only after the handler's grace time and the
                // probe of its effect.
                let patience = Duration::from_millis(options.cancel_grace_ms) + LONGEST_PROBE;
                http_options.request_timeout = http_options.request_timeout.max(patience);
                let metrics = Metrics::default();
                http_options.metrics = Some(metrics.clone());
                if let Some(probe) = backend.probe() {
                    http_options.bus = probe;
                }
                let (draining, streams) =
                    (http_options.draining.clone(), http_options.shutdown.clone());
                let streams_over = http_options.drain_over;
                let mut serve_options = ServeOptions::keeping_files(connections_kept_free(options));
                serve_options.slow_reader = http_options.slow_reader;
                serve_options.metrics = metrics;
                // Leave a quarter of the connections for API calls, however many streams are open.
                let for_streams = (serve_options.connections * 3 / 4).max(1);
                http_options.streams = http_options.streams.min(for_streams);
                let state = AppState::new(engine.clone(), http_options);
                let routes = docg_http::api()
                    .merge(welcome::routes(development.is_some()))
                    .merge(downloads::routes(files))
                    .merge(builtin_signature::routes(desk.clone()).with_state(()))
                    .merge(approvals::routes(approvals).with_state(()));
                let app = docg_http::with_layers(routes, &state);
                let app = builtin_signature::with_error_pages(app, desk.clone());
                let ending = Ending {
                    draining,
                    streams,
                    streams_over,
                    state,
                    connections: serve_options.shutdown.clone(),
                };
                Some(Http::start(listener, app, serve_options, ending, desk)?)
            }
            None => None,
        };
        let stop = CancellationToken::new();
        let looked_after = backend.look_after(&secret, &stop);
        let works = options.role != Role::Http;
        let concurrency = match usize::try_from(options.concurrency) {
            _ if !works => 0,
            Ok(concurrency) => concurrency,
            Err(_) => usize::MAX,
        };
        let workers = engine.start_workers(WorkerOptions::concurrency(concurrency))?;
        Ok(Self {
            address,
            development,
            works,
            workers,
            http,
            stop,
            looked_after,
        })
    }

    /// Waits until serving HTTP fails. Without a failure, the future never ends.
    async fn broken(&mut self) -> ServeError {
        match &mut self.http {
            Some(http) => http.broken().await,
            None => std::future::pending().await,
        }
    }

    /// The longest time of an orderly stop, if handlers have `grace` to end.
    fn longest_stop(&self, grace: Duration) -> Duration {
        let streams = self.http.as_ref().map(|http| http.ending.streams_over);
        grace
            + LONGEST_PROBE
            + streams.unwrap_or_default()
            + HTTP_GRACE
            + checkpoints::LAST
            + LAST_RESORT
    }

    /// Stops the server in order.
    ///
    /// 1. The readiness check fails, so that no new requests are sent here.
    /// 2. Workers claim nothing more. Running steps get their grace time, and leases are released.
    /// 3. Streams end one after the other, and their readers reconnect elsewhere.
    /// 4. Connections end.
    /// 5. The audit rows written so far are signed by a checkpoint.
    pub async fn stop(self) {
        if let Some(http) = &self.http {
            http.ending.draining.cancel();
        }
        self.workers.shutdown().await;
        if let Some(http) = self.http {
            http.stop().await;
        }
        self.stop.cancel();
        let _ = self.looked_after.await;
    }
}

impl Http {
    fn start(
        listener: TcpListener,
        app: Router,
        options: ServeOptions,
        ending: Ending,
        desk: Desk,
    ) -> Result<Self, ServeError> {
        let address = listener.local_addr().map_err(ServeError::Http)?;
        let webhook = join(
            &url_at(reachable(address)),
            "api/v1/webhooks/signature/builtin",
        );
        let stop_outbox = CancellationToken::new();
        let outbox = tokio::spawn(Outbox::new(desk, webhook)?.run(stop_outbox.clone()));
        Ok(Self {
            serving: tokio::spawn(docg_http::serve(listener, app, options)),
            ending,
            outbox,
            stop_outbox,
        })
    }

    async fn broken(&mut self) -> ServeError {
        match (&mut self.serving).await {
            Ok(()) => ServeError::Http(std::io::Error::other("the listener was closed")),
            Err(error) => ServeError::Http(std::io::Error::other(error)),
        }
    }

    async fn stop(self) {
        self.stop_outbox.cancel();
        self.ending.streams.cancel();
        // Wait for the outbox's task to stop. Deliveries that it has not made stay in the outbox.
        let _ = self.outbox.await;
        // Accept connections until streams have ended: a reader that reconnects before load balancers have
        // noticed the stop still gets an answer.
        let ended = self.ending.state.streams_ended();
        let _ = tokio::time::timeout(self.ending.streams_over, ended).await;
        self.ending.connections.cancel();
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(HTTP_GRACE, self.serving)
            .await
            .is_err()
        {
            tracing::warn!("connections that did not end were closed");
            abort.abort();
        }
    }
}

fn engine(options: &Options, backend: &Backend, services: &Services) -> Engine {
    let connections = services
        .providers
        .iter()
        .map(|provider| provider.name().to_owned());
    let probe = Probe::new(
        services.files.clone(),
        services.renderer.templates().clone(),
        connections.collect(),
    );
    let mut builder = Engine::builder(Arc::clone(&backend.store), Arc::clone(&backend.bus))
        .resource_probe(Arc::new(probe))
        .signature_requests(nodes::REQUEST_SIGNATURES, builtin_signature::NAME)
        .options(|engine| {
            engine.lease = Duration::from_millis(options.lease_ms);
            engine.cancel_grace = Duration::from_millis(options.cancel_grace_ms);
            engine.signature_check = Duration::from_millis(options.signature_check_ms);
        });
    for handler in nodes::handlers(services) {
        builder = builder.step(handler);
    }
    for provider in &services.providers {
        builder = builder.signature_provider(Arc::clone(provider));
    }
    builder.build()
}

fn identities(
    options: &Options,
    secret: &Secret,
) -> Result<(Identities, Option<Development>), ServeError> {
    if let Some(path) = &options.auth_file {
        return Ok((auth_file::read(path)?, None));
    }
    let organization = DEVELOPMENT_ORGANIZATION
        .parse()
        .unwrap_or_else(|_| OrganizationId::new());
    let token = secret.development_token();
    let principal = Principal {
        actor: "development".to_owned(),
        organizations: vec![organization],
        scopes: Scope::ALL.to_vec(),
    };
    let identities = Identities {
        tokens: StaticTokens::default().token(&token, principal),
        organizations: vec![organization],
    };
    Ok((
        identities,
        Some(Development {
            token,
            organization,
        }),
    ))
}

fn data_dir(options: &Options) -> Result<PathBuf, ServeError> {
    let folder = &options.data_dir;
    let made = private::create_dir_all(folder).and_then(|()| folder.canonicalize());
    let folder = made.map_err(|source| ServeError::DataDir {
        folder: folder.display().to_string(),
        source,
    })?;
    if private::is_open_to_writers(&folder) {
        tracing::warn!(
            "--data-dir {0}: other users can write there, and so replace {SECRET_FILE}: chmod go-w {0}",
            folder.display()
        );
    }
    for name in [MAIL_FOLDER, FILES_FOLDER, SECRET_FILE] {
        let path = folder.join(name);
        match private::close(&path) {
            Ok(true) => tracing::warn!(
                "{} was open to other users; it no longer is",
                path.display()
            ),
            Ok(false) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("{} may be open to other users: {e}", path.display()),
        }
    }
    Ok(folder)
}

/// The advice that the message of a bind error ends with.
fn what_to_do(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            ": another process listens there. Stop it, or choose another port"
        }
        std::io::ErrorKind::PermissionDenied => ": choose a port from 1024 on",
        std::io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
        _ => "",
    }
}

/// The number of open files that client connections must leave free: for the process itself, its database,
/// Redis, and the files and services of steps that run at the same time.
pub(crate) fn connections_kept_free(options: &Options) -> usize {
    const ITSELF: u32 = 24;
    const REDIS: u32 = 6;
    let database = options
        .database_url
        .as_ref()
        .map_or(0, |_| backend::connections(options));
    let redis = options.redis_url.as_ref().map_or(0, |_| REDIS);
    usize::try_from(ITSELF + database + redis + options.concurrency).unwrap_or(usize::MAX)
}

/// True if the URL leads to this machine.
pub(crate) fn url_is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

pub(crate) fn url_at(address: SocketAddr) -> Url {
    Url::parse(&format!("http://{address}/")).expect("a socket address is a URL's authority")
}

fn join(base: &Url, path: &str) -> Url {
    base.join(path).expect("a relative path joins")
}

/// The address at which processes of this machine reach the server.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Runs the server until it receives SIGTERM, SIGINT or SIGHUP. A second signal ends it without waiting.
///
/// # Errors
///
/// As [`Server::start`], and if serving HTTP fails.
pub async fn serve(options: &Options) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let _lock = Lock::take(options)?;
    // Start in a task of its own, so that signals are noticed even if the start blocks its thread.
    let starting = options.clone();
    let starting = tokio::spawn(async move { Server::start(&starting).await });
    let starting = AbortOnDropHandle::new(starting);
    let mut server = tokio::select! {
        started = starting => started.map_err(ServeError::Broken)??,
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(());
        }
    };
    announce(&server);
    let broken = tokio::select! {
        () = signals.next() => None,
        error = server.broken() => Some(error),
    };
    if let Some(error) = broken {
        return Err(error);
    }
    tracing::info!("stopping");
    // If work does not end in time, its leases expire and other workers take over.
    let longest = server.longest_stop(Duration::from_millis(options.cancel_grace_ms));
    tokio::select! {
        () = server.stop() => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped without waiting"),
        () = tokio::time::sleep(longest) => {
            tracing::warn!("stopped with work under way that did not end in {} s", longest.as_secs());
        }
    }
    Ok(())
}

/// Prints the address on standard output, and how to call the server on standard error.
fn announce(server: &Server) {
    if let Some(development) = &server.development {
        let Development {
            token,
            organization,
        } = development;
        let mut text =
            format!("development token: {token}\ndevelopment organization: {organization}\n");
        if let Some(address) = server.address {
            text.push_str(&format!(
                "to begin with: curl -H 'Authorization: Bearer {token}' http://{address}/api/v1/workflows\n\
                 console: http://{address}/console#token={token}\n"
            ));
        }
        // If standard error is closed, nobody reads this text.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    let listening = server
        .address
        .map(|address| format!("listening on http://{address}\n"));
    let working = if server.works { "working\n" } else { "" };
    let mut out = std::io::stdout().lock();
    let said = write!(out, "{}{working}", listening.unwrap_or_default());
    if let Err(e) = said.and_then(|()| out.flush()) {
        // If standard output is closed, the only place left to report it is the log.
        tracing::warn!("standard output is closed: {e}");
    }
}

struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// SIGHUP: the terminal was closed, or somebody wants the settings to be read again. The server stops; a
    /// supervisor starts it again with the new settings.
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    /// SIGXFSZ: a file has reached the limit of the process (`ulimit -f`). With a handler the write fails, as
    /// on a full disk; without one the signal would end the process.
    #[cfg(unix)]
    _file_size: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
