//! What the program can be told, on the command line and by the environment.

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
    /// What every command takes.
    #[command(flatten)]
    pub options: Options,
    /// What to do; `serve` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serves HTTP and runs workflows (the default)
    Serve,
    /// Starts a workflow and watches it; exits with 0 only when it is completed, and with 2 if no
    /// server answers
    Run(RunArgs),
    /// Shows the progress of an execution in the terminal, over its event stream; exits with 0 only
    /// when it is completed, and with 2 if no server answers
    Watch(WatchArgs),
    /// Brings the database's tables up to date, which `serve` does too
    Migrate,
    /// Prints the migrations as plain SQL, for those who run them themselves
    PrintMigrations(PrintMigrationsArgs),
    /// Removes executions that ended long ago, and expired notes, from the database; files stay
    Purge(PurgeArgs),
    /// Works on audit trails
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Renders documents for a server, which starts it
    #[command(name = renders::COMMAND, hide = true)]
    RenderWorker,
}

/// What `print-migrations` takes.
#[derive(Debug, Clone, Args)]
pub struct PrintMigrationsArgs {
    /// Print, in their place, what lets this role work on the tables and no more, for the schema's owner
    /// to run after each migration
    #[arg(long, value_name = "ROLE")]
    pub grants: Option<String>,
}

/// What `purge` takes.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    /// Executions that ended so many days ago go, with their steps, events and logs
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    pub older_than_days: u32,
    /// Audit rows of executions that ended so many days ago go too; without it they stay. That they
    /// went is signed with the key in --data-dir. Only the schema's owner may do this
    #[arg(long, value_name = "DAYS")]
    pub audit_older_than_days: Option<u32>,
}

/// What `run` takes.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The workflow: its id, its name, or its name as in `service-contract`
    pub workflow: String,
    /// A JSON file with the trigger data
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Run preflight, trigger and render only, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where to run it; without --url in this process, for as long as it takes
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What `watch` takes.
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// The execution
    pub id: Uuid,
    /// Where it runs; without --url where `serve` with the same options listens
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A server to talk to.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// A running server, such as http://127.0.0.1:8080
    #[arg(long, env = "DOCG_URL", value_name = "URL", requires = "token", value_parser = Unshown(server_url))]
    pub url: Option<Url>,
    /// A bearer token for that server
    #[arg(long, env = "DOCG_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<Secret>,
    /// The organization to act for, where the token knows several
    #[arg(long, env = "DOCG_ORGANIZATION", value_name = "UUID")]
    pub organization: Option<Uuid>,
}

/// What can be done with audit trails.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Verifies a chain of hashes: exits with 0 if it holds, 1 if not, 2 if that could not be checked
    Verify(VerifyArgs),
    /// Writes the trails of a database as lines of JSON, which verify without it
    Export(ExportArgs),
    /// Erases a person's data - who acted, and the facts - from an execution's trail, which verifies
    /// all the same. Only the schema's owner may do this
    Erase(EraseArgs),
}

/// What `audit erase` takes.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The execution
    #[arg(long, value_name = "ID")]
    pub execution: Uuid,
}

/// What `audit export` takes.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// Only this execution's
    #[arg(long, value_name = "ID")]
    pub execution: Option<Uuid>,
}

/// What `audit verify` takes.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The execution; without it all of the database's, or of the file
    #[arg(long, value_name = "ID")]
    pub execution: Option<Uuid>,
    /// A file of audit rows as JSON, from the API or from `audit export`; with --url its end is compared
    /// with the server's. Without it and --url the database is verified
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// The server that keeps it
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct Options {
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        env = "DOCG_BIND",
        global = true,
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT",
        value_parser = bind
    )]
    pub bind: SocketAddr,
    /// A Postgres database; without it executions are kept in memory
    #[arg(
        long,
        env = "DATABASE_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub database_url: Option<Secret>,
    /// A Redis for event streams; without it they are kept in memory
    #[arg(
        long,
        env = "REDIS_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub redis_url: Option<Secret>,
    /// Who may call: a JSON file of tokens. Without it there is one development token, and the server
    /// listens on loopback addresses only
    #[arg(long, env = "DOCG_AUTH_FILE", global = true, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Where files are kept, mails as .eml, and the key that links and checkpoints are signed with. Processes
    /// that share a database share it
    #[arg(
        long,
        env = "DOCG_DATA_DIR",
        global = true,
        default_value = "./docg-data",
        value_name = "FOLDER"
    )]
    pub data_dir: PathBuf,
    /// Where documents are kept: `file:///folder`, or `s3://bucket/prefix` with `AWS_…` variables; without
    /// it in the data directory
    #[arg(
        long,
        env = "DOCG_FILES_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub files_url: Option<Secret>,
    /// The mail server, `smtp://[user:password@]host[:port]` or `smtps://…`; without it mails become files
    #[arg(
        long,
        env = "DOCG_SMTP_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL",
        value_parser = secret
    )]
    pub smtp_url: Option<Secret>,
    /// Who mails come from
    #[arg(
        long,
        env = "DOCG_MAIL_FROM",
        global = true,
        default_value = "docg <docg@localhost>",
        value_name = "ADDRESS"
    )]
    pub mail_from: Address,
    /// What links in mails begin with; without it the bound address
    #[arg(long, env = "DOCG_PUBLIC_URL", global = true, value_name = "URL", value_parser = Unshown(crate::checks::public_url))]
    pub public_url: Option<Url>,
    /// Origins whose pages may call the API, such as `https://app.example.com`; `*` is any, which gives
    /// nothing away: a page has no token unless it was given one
    #[arg(long, env = "DOCG_CORS_ORIGINS", global = true, value_name = "ORIGINS", value_delimiter = ',', default_value = "*", value_parser = origin)]
    pub cors_origins: Vec<String>,
    /// A folder of workflows, given to every organization; without it the example that comes along
    #[arg(long, env = "DOCG_WORKFLOWS", global = true, value_name = "FOLDER")]
    pub workflows: Option<PathBuf>,
    /// What this process does
    #[arg(long, env = "DOCG_ROLE", global = true, value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// Executions that are taken forward at once
    #[arg(long, env = "DOCG_CONCURRENCY", global = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: u32,
    /// How long a worker holds an execution without renewing, in milliseconds
    #[arg(long, env = "DOCG_LEASE_MS", global = true, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub lease_ms: u64,
    /// How long a step may go on after it was told to stop, in milliseconds
    #[arg(long, env = "DOCG_CANCEL_GRACE_MS", global = true, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=600_000))]
    pub cancel_grace_ms: u64,
    /// How often an idle event stream says that it lives, in milliseconds
    #[arg(long, env = "DOCG_HEARTBEAT_MS", global = true, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub heartbeat_ms: u64,
    /// How often signature providers are asked for what their webhooks may have lost, in milliseconds
    #[arg(long, env = "DOCG_SIGNATURE_CHECK_MS", global = true, default_value_t = 3_600_000, value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    pub signature_check_ms: u64,
    /// Documents that are rendered at once, each in a process of its own; without it one more than there are
    /// processor cores
    #[arg(long, env = "DOCG_RENDERS_AT_ONCE", global = true, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub renders_at_once: Option<u16>,
    /// The memory that one render may map, in MiB; 150 of them are mapped before it begins
    #[arg(long, env = "DOCG_RENDER_MEMORY_MIB", global = true, value_name = "MIB", default_value_t = 768, value_parser = clap::value_parser!(u64).range(256..=65_536))]
    pub render_memory_mib: u64,
    /// The CPU time of one render, in milliseconds; by the clock it may take four times as long, and 30 s at least
    #[arg(long, env = "DOCG_RENDER_TIMEOUT_MS", global = true, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1_000..=600_000))]
    pub render_timeout_ms: u64,
    /// The size of the data that one document is rendered from, in KiB of JSON
    #[arg(long, env = "DOCG_RENDER_MAX_DATA_KIB", global = true, value_name = "KIB", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub render_max_data_kib: u32,
    /// Leave the database's tables as they are
    #[arg(long, env = "DOCG_NO_MIGRATE", global = true, value_parser = BoolishValueParser::new())]
    pub no_migrate: bool,
    /// Add the node types for tests
    #[arg(long, env = "DOCG_ENABLE_TEST_NODES", global = true, value_parser = BoolishValueParser::new())]
    pub enable_test_nodes: bool,
    /// Let `http-request` reach addresses that are not public
    #[arg(long, env = "DOCG_HTTP_ALLOW_PRIVATE", global = true, value_parser = BoolishValueParser::new())]
    pub http_allow_private: bool,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Serves HTTP and runs workflows.
    All,
    /// Serves HTTP.
    Http,
    /// Runs workflows.
    Worker,
}

/// Options that do not go together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// Development tokens are for this machine alone.
    #[error(
        "--bind {0} can be reached from other machines: give --auth-file, or bind a loopback address such as 127.0.0.1:8080"
    )]
    NotLoopback(SocketAddr),
    /// Memory is not shared between processes.
    #[error("--role {0} needs --database-url: executions in memory are seen by this process alone")]
    RoleNeedsDatabase(&'static str),
}

/// A text that may hold a password. Whether it can be used is found out later, because the parser of
/// the command line repeats what it refuses.
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// A server's URL, without credentials: they come as a token.
fn server_url(text: &str) -> Result<Url, String> {
    let read = Url::parse(text).ok().filter(|url| {
        let is_bare = url.username().is_empty() && url.password().is_none();
        matches!(url.scheme(), "http" | "https") && is_bare
    });
    read.ok_or_else(|| "right would be http://127.0.0.1:8080, without user and password".to_owned())
}

/// An origin as browsers send it.
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

/// Reads a value that is not repeated where it is wrong, as it may hold a password.
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

/// An address to listen on, with a port; a host's name stands for its first address.
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

/// A variable of the environment. Set and empty, it counts as not set: that is how it is unset in many
/// files of settings.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Cli {
    /// What the command line and the environment say. Ends the process where they cannot be read.
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
    /// What renders may take.
    #[must_use]
    pub fn render_limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(at_once) = self.renders_at_once {
            limits.at_once = at_once.into();
        }
        limits.memory = self.render_memory_mib * 1024 * 1024;
        limits.time = Duration::from_millis(self.render_timeout_ms);
        // A busy machine, or a start, takes longer than the render itself.
        limits.wall_time = (limits.time * 4).max(Duration::from_secs(30));
        limits.data = self.render_max_data_kib as usize * 1024;
        limits
    }

    /// Whether they can be followed.
    ///
    /// # Errors
    ///
    /// The first that cannot, by name.
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
            // A flag's default is that it is off.
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
