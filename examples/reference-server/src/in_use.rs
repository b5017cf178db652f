//! One log line for the operator: the services and folders that a server uses.

use url::Url;

use crate::{
    mail::SmtpServer,
    options::Options,
    serve::{FILES_FOLDER, MAIL_FOLDER},
};

/// Describes the services and folders that a server uses, without users, passwords and keys.
pub(crate) fn told(options: &Options, links: &Url) -> String {
    let executions = match &options.database_url {
        Some(url) => format!("PostgreSQL {}", database(url.expose())),
        None => "memory, lost when the server ends".to_owned(),
    };
    let events = match &options.redis_url {
        Some(url) => format!("Redis {}", authority(url.expose())),
        None => "memory".to_owned(),
    };
    let in_data = |folder: &str| options.data_dir.join(folder).display().to_string();
    let documents = match &options.files_url {
        Some(url) => bucket(url.expose()),
        None => in_data(FILES_FOLDER),
    };
    let mail = match &options.smtp_url {
        Some(url) => SmtpServer::from_text(url.expose()).map_or_else(
            |_| "a mail server".to_owned(),
            |server| {
                let (host, port) = server.address();
                format!("{host}:{port}")
            },
        ),
        None => format!("files in {}", in_data(MAIL_FOLDER)),
    };
    format!(
        "executions: {executions}; events: {events}; documents: {documents}; mail: {mail}; links: {links}"
    )
}

/// The host and port of a URL.
fn authority(url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return "at its URL".to_owned();
    };
    let host = url.host_str().unwrap_or("localhost");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The host, port and name of a database. Query parameters of the URL override its host and path.
fn database(url: &str) -> String {
    let Ok(parsed) = Url::parse(url) else {
        return "at its URL".to_owned();
    };
    let parameter = |wanted: &[&str]| {
        let mut pairs = parsed.query_pairs();
        let found = pairs.find(|(name, _)| wanted.contains(&name.as_ref()));
        found.map(|(_, value)| value.into_owned())
    };
    let host = parameter(&["host", "hostaddr"]).unwrap_or_else(|| authority(url));
    let path = parsed.path().trim_start_matches('/');
    let name = parameter(&["dbname"]).unwrap_or_else(|| path.to_owned());
    format!("{host}/{name}")
}

fn bucket(url: &str) -> String {
    let Ok(url) = Url::parse(url) else {
        return "at --files-url".to_owned();
    };
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{}", url.scheme(), url.path())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;

    fn line(arguments: &[&str]) -> String {
        let whole = [&["reference-server", "--data-dir", "/data"], arguments].concat();
        let links = Url::parse("https://docs.example.com/").unwrap();
        told(&Cli::parse_from(whole).options, &links)
    }

    #[test]
    fn without_options_executions_are_lost_at_the_end_and_that_is_told() {
        assert_eq!(
            line(&[]),
            "executions: memory, lost when the server ends; events: memory; documents: /data/files; \
             mail: files in /data/mail; links: https://docs.example.com/"
        );
    }

    #[test]
    fn what_is_used_is_told_without_what_is_secret() {
        let line = line(&[
            "--database-url",
            "postgres://user:canary@db:5433/docg?sslmode=require&password=canary",
            "--redis-url",
            "rediss://:canary@cache:6380/1",
            "--files-url",
            "s3://bucket/prefix#canary",
            "--smtp-url",
            "smtp://user:canary@mail.example.com:2525",
        ]);
        assert_eq!(
            line,
            "executions: PostgreSQL db:5433/docg; events: Redis cache:6380; documents: \
             s3://bucket/prefix; mail: mail.example.com:2525; links: https://docs.example.com/"
        );
        let socket = "postgres:///docg?host=/run/postgresql&user=canary";
        assert_eq!(database(socket), "/run/postgresql/docg");
    }
}
