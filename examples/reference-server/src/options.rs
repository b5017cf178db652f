//! The commands and options of the program, on the command line and in the environment. Most doc comments in
//! this file are the texts of `--help`.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Arg, Args, Command as Grammar, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{BoolishValueParser, OsStr, Resettable, TypedValueParser},
    error::ErrorKind,
};
use docg_core::{address::Address, signature::Secret};
use url::Url;
use uuid::Uuid;

use crate::renders::{self, Limits};

/// The command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "reference-server",
    version,
    about = "Runs document workflows: rendered, saved, mailed and signed",
    after_help = "Without options everything is kept in memory and in ./docg-data, and a development token is printed."
)]
pub struct Cli {
    /// The options that every command accepts.
    #[command(flatten)]
    pub options: Options,
    /// The command. `serve` if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command of the program.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serves HTTP and runs workflows (the default)
    Serve,
    /// Starts an execution of a workflow and shows its progress; exits with 0 only if it completes, and with
    /// 2 if no server answers
    Run(RunArgs),
    /// Shows the progress of an execution in the terminal, from its event stream; exits with 0 only if it
    /// completes, and with 2 if no server answers
    Watch(WatchArgs),
    /// Migrates the database's tables to the newest version, as `serve` does too
    Migrate,
    /// Prints the migrations as plain SQL, for operators who run them with their own tools
    PrintMigrations(PrintMigrationsArgs),
    /// Removes executions that ended long ago, and expired entries (such as webhooks already seen), from the database; files stay
    Purge(PurgeArgs),
    /// Verifies, exports or erases audit trails
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Renders documents for the server that starts this process
    #[command(name = renders::COMMAND, hide = true)]
    RenderWorker,
}

/// The arguments of `print-migrations`.
#[derive(Debug, Clone, Args)]
pub struct PrintMigrationsArgs {
    /// Print, instead of the migrations, the grants that this role needs to work on the tables, and no more;
    /// the schema's owner runs them after each migration
    #[arg(long, value_name = "ROLE")]
    pub grants: Option<String>,
}

/// The arguments of `purge`.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    /// Remove executions that ended at least this many days ago, with their steps, events and logs
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    pub older_than_days: u32,
    /// Also remove the audit rows of executions that ended at least this many days ago; without this option
    /// audit rows stay. The removal is signed with the key in --data-dir. Only the schema's owner may do this
    #[arg(long, value_name = "DAYS")]
    pub audit_older_than_days: Option<u32>,
}

/// The arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The workflow: its id, its name, or its name in lower case with hyphens, such as `service-contract`
    pub workflow: String,
    /// A JSON file with the trigger data
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Run only preflight and the phases trigger and render, without any effect
    #[arg(long)]
    pub dry_run: bool,
    /// The server that runs the workflow. Without --url, this process starts one for the time of the command.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The arguments of `watch`.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// The id of the execution
    pub id: Uuid,
    /// The server to ask. Without --url, the server that `serve` with the same options starts.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A server to call, and the credentials to call it.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// The URL of a running server, such as http://127.0.0.1:8080
    #[arg(long, env = "DOCG_URL", value_name = "URL", requires = "token", value_parser = Unshown(server_url))]
    pub url: Option<Url>,
    /// A bearer token for that server
    #[arg(long, env = "DOCG_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<Secret>,
    /// The organization to act for, if the token may act for several
    #[arg(long, env = "DOCG_ORGANIZATION", value_name = "UUID")]
    pub organization: Option<Uuid>,
}

/// The commands for audit trails.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Verifies audit trails: exits with 0 if they are valid, 1 if not, 2 if they could not be checked
    Verify(VerifyArgs),
    /// Writes the audit trails of a database as JSON Lines, which can be verified without the database
    Export(ExportArgs),
    /// Erases personal data (the actors and the facts) from an execution's audit trail, which still verifies.
    /// Only the schema's owner may do this
    Erase(EraseArgs),
}

/// The arguments of `audit erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The id of the execution
    #[arg(long, value_name = "ID")]
    pub execution: Uuid,
}

/// The arguments of `audit export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Write only the audit trail of the execution with this id
    #[arg(long, value_name = "ID")]
    pub execution: Option<Uuid>,
}

/// The arguments of `audit verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Verify only the trail of the execution with this id; without it, all trails of the database or the
    /// file
    #[arg(long, value_name = "ID")]
    pub execution: Option<Uuid>,
    /// A file of audit rows as JSON, from the API or from `audit export`; with --url its last row is compared
    /// with the server's trail. Without this option and --url, the database is verified
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// The server that keeps the trail.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The options that every command accepts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct Options {
    /// The address and port to listen on; port 0 takes a free port
    #[arg(
        long,
        env = "DOCG_BIND",
        global = true,
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT",
        value_parser = bind
    )]
    pub bind: SocketAddr,
    /// The URL of a PostgreSQL database; without it, executions are kept in memory
    #[arg(
        long,
        env = "DATABASE_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub database_url: Option<Secret>,
    /// The URL of a Redis for event streams; without it, event streams are kept in memory
    #[arg(
        long,
        env = "REDIS_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub redis_url: Option<Secret>,
    /// A JSON file with the tokens of all callers. Without it, there is one development token, and the server
    /// listens on loopback addresses only
    #[arg(long, env = "DOCG_AUTH_FILE", global = true, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// The folder for documents, mails as .eml files, and the key that signs links and checkpoints. Processes
    /// that share a database share this folder
    #[arg(
        long,
        env = "DOCG_DATA_DIR",
        global = true,
        default_value = "./docg-data",
        value_name = "FOLDER"
    )]
    pub data_dir: PathBuf,
    /// The URL where documents are kept: `file:///folder`, or `s3://bucket/prefix` with `AWS_…` variables;
    /// without it, documents are kept in the data directory
    #[arg(
        long,
        env = "DOCG_FILES_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub files_url: Option<Secret>,
    /// The mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without it, mails become files
    #[arg(
        long,
        env = "DOCG_SMTP_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub smtp_url: Option<Secret>,
    /// The sender of mails
    #[arg(
        long,
        env = "DOCG_MAIL_FROM",
        global = true,
        default_value = "docg <docg@localhost>",
        value_name = "ADDRESS"
    )]
    pub mail_from: Address,
    /// The URL that links in mails begin with; without it, links begin with the bound address
    #[arg(long, env = "DOCG_PUBLIC_URL", global = true, value_name = "URL", value_parser = Unshown(crate::checks::public_url))]
    pub public_url: Option<Url>,
    /// Origins whose pages may call the API, such as `https://app.example.com`; `*` allows every origin,
    /// which is safe: a page can only call with a token that it was given
    #[arg(long, env = "DOCG_CORS_ORIGINS", global = true, value_name = "ORIGINS", value_delimiter = ',', default_value = "*", value_parser = origin)]
    pub cors_origins: Vec<String>,
    /// A folder of workflows that every organization gets; without it, the example in the program
    #[arg(long, env = "DOCG_WORKFLOWS", global = true, value_name = "FOLDER")]
    pub workflows: Option<PathBuf>,
    /// The work that this process does
    #[arg(long, env = "DOCG_ROLE", global = true, value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// The maximum number of executions that this process works on at once
    #[arg(long, env = "DOCG_CONCURRENCY", global = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: u32,
    /// The maximum number of connections to the database; by default as many as --concurrency can use
    #[arg(long, env = "DOCG_DATABASE_CONNECTIONS", global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub database_connections: Option<u32>,
    /// How long a worker's lease on an execution lasts without renewal, in milliseconds
    #[arg(long, env = "DOCG_LEASE_MS", global = true, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub lease_ms: u64,
    /// How long a step may continue after it was told to stop, in milliseconds
    #[arg(long, env = "DOCG_CANCEL_GRACE_MS", global = true, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub cancel_grace_ms: u64,
    /// How often an idle event stream sends a heartbeat, in milliseconds
    #[arg(long, env = "DOCG_HEARTBEAT_MS", global = true, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub heartbeat_ms: u64,
    /// How often signature providers are asked for facts whose webhooks may have been lost, in milliseconds
    #[arg(long, env = "DOCG_SIGNATURE_CHECK_MS", global = true, default_value_t = 3_600_000, value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    pub signature_check_ms: u64,
    /// The maximum number of documents that are rendered at once, each in its own process; by default one
    /// more than there are processor cores
    #[arg(long, env = "DOCG_RENDERS_AT_ONCE", global = true, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub renders_at_once: Option<u16>,
    /// The memory that one render may map, in MiB; 150 MiB of it are mapped before the render begins
    #[arg(long, env = "DOCG_RENDER_MEMORY_MIB", global = true, value_name = "MIB", default_value_t = 768, value_parser = clap::value_parser!(u64).range(256..=65_536))]
    pub render_memory_mib: u64,
    /// The CPU time that one render may use, in milliseconds; by the clock it may take four times as long,
    /// but at least 30 s
    #[arg(long, env = "DOCG_RENDER_TIMEOUT_MS", global = true, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    pub render_timeout_ms: u64,
    /// The maximum size of the data that one document is rendered from, in KiB of JSON
    #[arg(long, env = "DOCG_RENDER_MAX_DATA_KIB", global = true, value_name = "KIB", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub render_max_data_kib: u32,
    /// Do not migrate the database's tables
    #[arg(long, env = "DOCG_NO_MIGRATE", global = true, value_parser = BoolishValueParser::new())]
    pub no_migrate: bool,
    /// Make this server's signature.key the key that all servers of the database must have. Links that were
    /// signed with the previous key stop working
    #[arg(long, env = "DOCG_ACCEPT_NEW_KEY", global = true, value_parser = BoolishValueParser::new())]
    pub accept_new_key: bool,
    /// Add the node types for tests
    #[arg(long, env = "DOCG_ENABLE_TEST_NODES", global = true, value_parser = BoolishValueParser::new())]
    pub enable_test_nodes: bool,
    /// Let `http-request` call addresses that are not public
    #[arg(long, env = "DOCG_HTTP_ALLOW_PRIVATE", global = true, value_parser = BoolishValueParser::new())]
    pub http_allow_private: bool,
}

/// The work that a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves HTTP and runs workflows.
    All,
    /// Serves HTTP.
    Http,
    /// Runs workflows.
    Worker,
}

/// The options contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// Without an auth file, the server may only listen on loopback addresses.
    #[error(
        "--bind {0} can be reached from other machines: give --auth-file, or bind a loopback address such as 127.0.0.1:8080"
    )]
    NotLoopback(SocketAddr),
    /// The role needs a database, because processes do not share memory.
    #[error("--role {0} needs --database-url: executions in memory are seen by this process alone")]
    RoleNeedsDatabase(&'static str),
}

/// Accepts any text, which may hold a password. The text is checked later: a rejection here would make clap
/// repeat the text in its error.
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// Parses the URL of a server. It must not contain credentials: those come as a token.
fn server_url(text: &str) -> Result<Url, String> {
    let read = Url::parse(text).ok().filter(|url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && is_bare
    });
    read.ok_or_else(|| "right would be http://127.0.0.1:8080, without user and password".to_owned())
}

/// Checks that an origin is written as browsers send it, or is `*`.
fn origin(text: &str) -> Result<String, String> {
    let written = Url::parse(text).map(|url| url.origin().ascii_serialization());
    if text == "*" || written.is_ok_and(|written| written == text) {
        return Ok(text.to_owned());
    }
    Err(
        "an origin is scheme, host and port alone, such as https://app.example.com; or * for any"
            .to_owned(),
    )
}

/// Parses a value that may hold a password. If the value is wrong, the error does not repeat it.
#[derive(Clone)]
struct Unshown<T>(fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(
        &self,
        grammar: &Grammar,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<T, clap::Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        read.and_then(self.0).map_err(|why| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            let text = format!("invalid value for '{name}': {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(grammar)
        })
    }
}

/// Parses an address to listen on, with a port. A host name becomes its first address.
fn bind(text: &str) -> Result<SocketAddr, String> {
    const RIGHT: &str = "right would be 127.0.0.1:8080, [::1]:8080 or localhost:8080";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let with_port = SocketAddr::new(ip, 8080);
        return Err(format!("the port is missing: {with_port} would have one"));
    }
    if text
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.parse::<u16>().is_err())
    {
        return Err(format!("the port is missing or none; {RIGHT}"));
    }
    let found = text.to_socket_addrs();
    let mut addresses = found.map_err(|e| format!("the host is not known: {e}; {RIGHT}"))?;
    addresses
        .next()
        .ok_or_else(|| format!("the host has no address; {RIGHT}"))
}

/// Reads an environment variable. A variable that is set and empty counts as not set, because many settings
/// files unset a variable in this way.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Cli {
    /// Reads the command line and the environment. If they are invalid, prints why and ends the process.
    #[must_use]
    pub fn read() -> Self {
        let matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn without_empty_variables(grammar: Grammar) -> Grammar {
    let grammar = grammar.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) {
            arg.env(Resettable::<OsStr>::Reset)
        } else {
            arg
        }
    });
    grammar.mut_subcommands(without_empty_variables)
}

impl Options {
    /// The limits of renders that the options set.
    #[must_use]
    pub fn render_limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(at_once) = self.renders_at_once {
            limits.at_once = at_once.into();
        }
        limits.memory = self.render_memory_mib * 1024 * 1024;
        limits.time = Duration::from_millis(self.render_timeout_ms);
        // Allow more time by the clock: a busy machine or the start of a process adds to the render itself.
        limits.wall_time = (limits.time * 4).max(Duration::from_secs(30));
        limits.data = self.render_max_data_kib as usize * 1024;
        limits
    }

    /// Checks that the options do not contradict each other.
    ///
    /// # Errors
    ///
    /// The first contradiction, with the name of its option.
    pub fn check(&self) -> Result<(), OptionsError> {
        match self.role {
            Role::Http if self.database_url.is_none() => {
                return Err(OptionsError::RoleNeedsDatabase("http"));
            }
            Role::Worker if self.database_url.is_none() => {
                return Err(OptionsError::RoleNeedsDatabase("worker"));
            }
            Role::All | Role::Http | Role::Worker => {}
        }
        if self.auth_file.is_none() && !self.bind.ip().is_loopback() {
            return Err(OptionsError::NotLoopback(self.bind));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["reference-server"], arguments].concat())
    }

    fn checked(arguments: &[&str]) -> Result<(), OptionsError> {
        parse(arguments).unwrap().options.check()
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_the_contract_has_its_name_its_variable_and_its_default() {
        let command = Cli::command();
        for (option, variable, default) in [
            ("bind", "DOCG_BIND", Some("127.0.0.1:8080")),
            ("database-url", "DATABASE_URL", None),
            ("redis-url", "REDIS_URL", None),
            ("auth-file", "DOCG_AUTH_FILE", None),
            ("data-dir", "DOCG_DATA_DIR", Some("./docg-data")),
            ("files-url", "DOCG_FILES_URL", None),
            ("smtp-url", "DOCG_SMTP_URL", None),
            ("public-url", "DOCG_PUBLIC_URL", None),
            ("cors-origins", "DOCG_CORS_ORIGINS", Some("*")),
            ("workflows", "DOCG_WORKFLOWS", None),
            ("role", "DOCG_ROLE", Some("all")),
            ("concurrency", "DOCG_CONCURRENCY", Some("64")),
            ("database-connections", "DOCG_DATABASE_CONNECTIONS", None),
            ("lease-ms", "DOCG_LEASE_MS", Some("30000")),
            ("cancel-grace-ms", "DOCG_CANCEL_GRACE_MS", Some("5000")),
            ("heartbeat-ms", "DOCG_HEARTBEAT_MS", Some("5000")),
            (
                "signature-check-ms",
                "DOCG_SIGNATURE_CHECK_MS",
                Some("3600000"),
            ),
            ("renders-at-once", "DOCG_RENDERS_AT_ONCE", None),
            ("render-memory-mib", "DOCG_RENDER_MEMORY_MIB", Some("768")),
            ("render-timeout-ms", "DOCG_RENDER_TIMEOUT_MS", Some("20000")),
            (
                "render-max-data-kib",
                "DOCG_RENDER_MAX_DATA_KIB",
                Some("1024"),
            ),
            ("no-migrate", "DOCG_NO_MIGRATE", None),
            ("accept-new-key", "DOCG_ACCEPT_NEW_KEY", None),
            ("enable-test-nodes", "DOCG_ENABLE_TEST_NODES", None),
        ] {
            let found = command
                .get_arguments()
                .find(|arg| arg.get_long() == Some(option));
            let argument = found.unwrap_or_else(|| panic!("--{option} is missing"));
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable)
            );
            let given = argument
                .get_default_values()
                .first()
                .and_then(|value| value.to_str());
            // Clap gives every flag the default "false", which the table does not list.
            assert_eq!(
                given.filter(|value| *value != "false"),
                default,
                "--{option}"
            );
        }
    }

    #[test]
    fn an_address_to_listen_on_has_a_port() {
        for (text, right) in [
            ("127.0.0.1:0", true),
            ("[::1]:8080", true),
            ("localhost:8080", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("[::1]", false),
            ("localhost", false),
            ("localhost:http", false),
            ("localhost:65536", false),
            (":8080", false),
            ("", false),
            ("no.such.host.invalid:80", false),
        ] {
            let read = bind(text);
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
        }
    }

    #[test]
    fn without_a_command_and_after_one_the_same_options_are_taken() {
        assert!(parse(&[]).unwrap().command.is_none());
        let after = parse(&["serve", "--bind", "127.0.0.1:0"]).unwrap();
        assert_eq!(after.options.bind.port(), 0);
        let before = parse(&["--bind", "127.0.0.1:0", "serve"]).unwrap();
        assert_eq!(before.options.bind.port(), 0);
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_the_option_s_name() {
        for (arguments, named) in [
            (["--role", "worker"], "--role worker"),
            (["--role", "http"], "--role http"),
            (["--bind", "0.0.0.0:8080"], "--auth-file"),
            (["--bind", "[::]:8080"], "--auth-file"),
        ] {
            let refused = checked(&arguments).unwrap_err().to_string();
            assert!(refused.contains(named), "{arguments:?}: {refused}");
        }
        checked(&[]).unwrap();
        checked(&["--bind", "[::1]:0"]).unwrap();
        checked(&["--bind", "0.0.0.0:0", "--auth-file", "tokens.json"]).unwrap();
    }

    #[test]
    fn options_that_may_hold_a_secret_are_not_shown() {
        let mut given = vec!["reference-server"];
        for option in ["--database-url", "--redis-url", "--files-url", "--smtp-url"] {
            given.extend([option, "smtp://user:canary@host:port"]);
        }
        given.extend([
            "run", "w", "--data", "d", "--url", "http://h", "--token", "canary",
        ]);
        let cli = Cli::try_parse_from(given).unwrap();
        assert!(!format!("{cli:?}").contains("canary"), "{cli:?}");
    }

    #[test]
    fn the_url_of_a_server_is_not_repeated_where_it_is_wrong() {
        let read = |url| {
            parse(&[
                "watch",
                &Uuid::nil().to_string(),
                "--url",
                url,
                "--token",
                "t",
            ])
        };
        read("http://127.0.0.1:8080/docs").unwrap();
        for wrong in [
            "canary",
            "http://user:canary@host",
            "http://u:canary@host:port",
            "ftp://canary",
        ] {
            let refused = read(wrong).unwrap_err().to_string();
            assert!(
                refused.contains("--url") && !refused.contains("canary"),
                "{refused}"
            );
        }
    }

    #[test]
    fn origins_are_taken_as_browsers_send_them() {
        let origins = |text| parse(&["--cors-origins", text]).map(|cli| cli.options.cors_origins);
        assert_eq!(
            origins("https://app.example.com,http://localhost:5173").unwrap(),
            ["https://app.example.com", "http://localhost:5173"]
        );
        for wrong in [
            "app.example.com",
            "https://app.example.com/",
            "http://x:80",
            "null",
            "",
        ] {
            let refused = origins(wrong).unwrap_err().to_string();
            assert!(refused.contains("--cors-origins"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn a_server_is_talked_to_with_a_token_only() {
        assert!(
            parse(&[
                "run",
                "x",
                "--data",
                "d.json",
                "--url",
                "http://localhost:1"
            ])
            .is_err()
        );
        assert!(parse(&["audit", "verify", "--export", "a.jsonl"]).is_ok());
    }
}
