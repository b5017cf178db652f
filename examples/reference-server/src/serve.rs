//! Puts the server together, runs it, and takes it down in order.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use docg_core::{
    engine::{Engine, WorkerOptions, Workers},
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
    workflows::{self, PutError, WorkflowFaults},
};

/// The organization of the development token: the same in every start, so that notes and scripts
/// stay right.
const DEVELOPMENT_ORGANIZATION: &str = "00000000-0000-7000-8000-000000000001";
/// The key of an installation, in its data directory.
pub(crate) const SECRET_FILE: &str = "signature.key";
/// Where documents and notes are kept in the data directory, unless `--files-url` says otherwise.
pub(crate) const FILES_FOLDER: &str = "files";
/// Where mails are written in the data directory, unless there is a mail server.
pub(crate) const MAIL_FOLDER: &str = "mail";
/// How long it may take to ask what became of an effect, and a little more.
const LONGEST_PROBE: Duration = Duration::from_secs(15);
/// How long connections may take to end after the last stream has.
const HTTP_GRACE: Duration = Duration::from_secs(10);
/// How long stopping may take beyond the times that its stages have, before the process ends anyway.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The options, the environment or what they name cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusals),
    /// Another server uses the data directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// What keeps executions cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The auth file is wrong.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// The address cannot be listened on.
    #[error("--bind {address}: {source}{}", what_to_do(.source))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("--data-dir {folder}: {source}")]
    DataDir {
        /// Which folder.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// Files cannot be kept.
    #[error("--files-url: {0}")]
    Files(#[from] FilesError),
    /// The mail server's URL is none.
    #[error("--smtp-url: {0}")]
    Smtp(#[from] SmtpUrlError),
    /// Links and webhooks cannot be signed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The environment names an account at a signature provider that cannot be used.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// Workflows are wrong.
    #[error(transparent)]
    Workflows(#[from] WorkflowFaults),
    /// Workflows could not be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// No HTTP client can be made.
    #[error("the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// Serving broke off.
    #[error("serving broke off: {0}")]
    Http(std::io::Error),
    /// Signals cannot be listened to.
    #[error("signals cannot be listened to: {0}")]
    Signals(std::io::Error),
    /// The start has panicked.
    #[error("the server could not start: {0}")]
    Broken(JoinError),
}

/// Who may call where there is no auth file.
#[derive(Debug, Clone)]
pub struct Development {
    /// The same in every start with the same data directory, so that other commands find it.
    pub token: String,
    /// For whom.
    pub organization: OrganizationId,
}

/// A server that runs.
pub struct Server {
    /// Where it listens, if it serves HTTP.
    pub address: Option<SocketAddr>,
    /// Who may call, where there is no auth file.
    pub development: Option<Development>,
    /// Whether it takes executions forward.
    pub works: bool,
    workers: Workers,
    http: Option<Http>,
    /// What looks after other things, and when that has ended.
    stop: CancellationToken,
    looked_after: JoinHandle<()>,
}

/// The part of a server that others call.
struct Http {
    serving: JoinHandle<()>,
    ending: Ending,
    outbox: JoinHandle<()>,
    stop_outbox: CancellationToken,
}

/// The stages in which a server ends.
struct Ending {
    /// Readiness fails.
    draining: CancellationToken,
    /// Streams end.
    streams: CancellationToken,
    /// Over this time.
    streams_over: Duration,
    /// Knows when the last has ended.
    state: AppState,
    /// Nothing more is accepted, and connections end with their answers.
    connections: CancellationToken,
}

impl Server {
    /// Serves and works, from the moment when this returns.
    ///
    /// # Errors
    ///
    /// Everything that can be wrong with the options, each by its name.
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

        // From here on others can connect; they are answered once everything stands.
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
            // A worker's mails lead to where the others listen.
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
                // A cancel is answered when the handler has had its time, and its effect is asked about.
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
                // Calls find a connection however many streams are open.
                let for_streams = (serve_options.connections * 3 / 4).max(1);
                http_options.streams = http_options.streams.min(for_streams);
                let state = AppState::new(engine.clone(), http_options);
                let routes = docg_http::api()
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
        let workers = engine.start_workers(WorkerOptions::concurrency(concurrency));
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

    /// Waits until serving breaks off, which it does not by itself.
    async fn broken(&mut self) -> ServeError {
        match &mut self.http {
            Some(http) => http.broken().await,
            None => std::future::pending().await,
        }
    }

    /// How long an orderly stop takes at most, where handlers have this time to end.
    fn longest_stop(&self, grace: Duration) -> Duration {
        let streams = self.http.as_ref().map(|http| http.ending.streams_over);
        grace
            + LONGEST_PROBE
            + streams.unwrap_or_default()
            + HTTP_GRACE
            + checkpoints::LAST
            + LAST_RESORT
    }

    /// Stops in order: it is said to be going, so that nothing new is sent here; nothing new is claimed,
    /// running steps get their grace and the rest is handed back; then streams end, one after the
    /// other, and their readers go elsewhere; then connections. At the end what was recorded is signed.
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
        // What is not delivered by now is in the outbox.
        let _ = self.outbox.await;
        // Whoever comes back before it is known elsewhere that this server goes still gets an answer.
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

/// What an error of a bind asks for.
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

/// Open files that are not for clients: what a process has open at once for itself, its database, Redis,
/// and the files and services of steps that run at the same time.
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

/// Whether a URL leads to this machine alone.
pub(crate) fn url_is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

pub(crate) fn url_at(address: SocketAddr) -> Url {
    // An address makes a URL.
    Url::parse(&format!("http://{address}/")).expect("a socket address is a URL's authority")
}

fn join(base: &Url, path: &str) -> Url {
    base.join(path).expect("a relative path joins")
}

/// The address at which a process of this machine is reached.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Runs the server until it is told to stop, by SIGTERM, SIGINT or SIGHUP. A second signal does not wait.
///
/// # Errors
///
/// As [`Server::start`], and where serving breaks off.
pub async fn serve(options: &Options) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let _lock = Lock::take(options)?;
    // In a task of its own: a start that blocks its thread hears no signal.
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
    // Leases of what does not end in time run out, and others take over.
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

/// What others read: where it listens on standard output, how to call it on standard error.
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
                "to begin with: curl -H 'Authorization: Bearer {token}' http://{address}/api/v1/workflows\n"
            ));
        }
        // A standard error that is closed is read by nobody.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    let listening = server
        .address
        .map(|address| format!("listening on http://{address}\n"));
    let working = if server.works { "working\n" } else { "" };
    let mut out = std::io::stdout().lock();
    let said = write!(out, "{}{working}", listening.unwrap_or_default());
    if let Err(e) = said.and_then(|()| out.flush()) {
        // Whoever does not listen cannot be told.
        tracing::warn!("standard output is closed: {e}");
    }
}

struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// The terminal was closed, or somebody expects that settings are read again: a supervisor starts
    /// the server anew, and it reads them.
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    /// A file has reached the limit of the process (`ulimit -f`). The write fails then, as on a full disk;
    /// without a handler, the signal would end the process.
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
