//! Checks of the services that the options name.

use std::time::Duration;

use docg_bus_redis::RedisFault;
use docg_core::ports::BusError;
use docg_store_postgres::DatabaseFault;
use tokio::time::timeout;

use super::Finding;
use crate::{
    backend,
    mail::{MailError, SmtpServer},
    options::Options,
};

/// The time limit for Redis's answer. Redis need not be up when this server starts.
const REDIS: Duration = Duration::from_secs(1);
/// The time limit for signing in to the mail server, which need not be up when this server starts.
const MAIL: Duration = Duration::from_secs(3);

pub(super) async fn database(options: &Options) -> Vec<Finding> {
    let Some(url) = &options.database_url else {
        return Vec::new();
    };
    let database = match backend::connect(url.expose(), options).await {
        Ok(database) => database,
        Err(error) => return vec![Finding::refused(error.to_string())],
    };
    let faults = database.faults().await;
    database.close().await;
    let faults = match faults {
        Ok(faults) => faults,
        Err(error) => return vec![Finding::refused(format!("--database-url: {error}"))],
    };
    faults
        .into_iter()
        // Connecting to the database has already logged the faults that are not fatal.
        .filter(DatabaseFault::is_fatal)
        .filter(|fault| options.no_migrate || !matches!(fault, DatabaseFault::Unmigrated { .. }))
        .map(|fault| Finding::refused(format!("--database-url: {fault}")))
        .collect()
}

pub(super) async fn redis(options: &Options) -> Vec<Finding> {
    let Some(url) = &options.redis_url else {
        return Vec::new();
    };
    let bus = match backend::open_redis(url.expose()) {
        Ok(bus) => bus,
        Err(error) => return vec![Finding::refused(format!("--redis-url: {error}"))],
    };
    // Ignore a timeout: if Redis does not get ready, the faults show why.
    let _ = timeout(REDIS, bus.ready()).await;
    let faults = match bus.faults().await {
        Ok(faults) => faults,
        Err(error) => return vec![slower(&error)],
    };
    let is_unusable = faults.iter().any(RedisFault::is_fatal);
    let mut findings: Vec<_> = faults
        .into_iter()
        .map(|fault| {
            let text = format!("--redis-url: {fault}");
            if fault.is_fatal() {
                Finding::refused(text)
            } else {
                Finding::warned(text)
            }
        })
        .collect();
    if !is_unusable && let Err(error) = bus.check().await {
        findings.push(slower(&error));
    }
    findings
}

fn slower(error: &BusError) -> Finding {
    if wants_password(&error.to_string()) {
        return Finding::warned(
            "--redis-url: Redis does not accept the user or the password, or wants one: give it in the URL, \
             redis://user:password@host:6379. Event streams read the database until then, which is slower",
        );
    }
    Finding::warned(format!(
        "--redis-url: {error}: event streams read the database until Redis takes events, which is slower"
    ))
}

/// True if an error of Redis is about the user or the password.
fn wants_password(error: &str) -> bool {
    [
        "NOAUTH",
        "WRONGPASS",
        "AuthenticationFailed",
        "authentication failed",
    ]
    .iter()
    .any(|word| error.contains(word))
}

pub(super) async fn mail(options: &Options) -> Vec<Finding> {
    let Some(url) = &options.smtp_url else {
        return Vec::new();
    };
    let server = match SmtpServer::from_text(url.expose()) {
        Ok(server) => server,
        Err(error) => return vec![Finding::refused(format!("--smtp-url: {error}"))],
    };
    let (host, port) = server.address();
    let why = match timeout(MAIL, server.greet()).await {
        Ok(Ok(())) => return Vec::new(),
        Ok(Err(MailError::SignIn(reply))) => {
            return vec![Finding::warned(format!(
                "--smtp-url: {host}:{port} does not accept the user or the password ({reply}): correct them \
                 in the URL, smtp://user:password@host, with %XX for other characters than letters and digits. \
                 No mail goes out until then"
            ))];
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {MAIL:?}"),
    };
    vec![Finding::warned(format!(
        "--smtp-url: {host}:{port}: {why}: mails are tried again, and go out when it answers"
    ))]
}
