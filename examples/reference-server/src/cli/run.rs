//! The commands `run` and `watch`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use docg_http::Scope;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    CliError,
    client::Client,
    execution::{Ended, follow, why},
    local,
};
use crate::{
    options::{Options, Role, RunArgs, ServerArgs, WatchArgs},
    serve::{Server, reachable, url_at},
};

/// Starts an execution of a workflow and shows its progress. If it does not complete, prints the reason.
///
/// # Errors
///
/// If the execution cannot be started or watched.
pub async fn run(options: &Options, args: &RunArgs) -> Result<Ended, CliError> {
    let data = read_data(&args.data)?;
    if let Some(url) = &args.server.url {
        return run_at(&local::named(&args.server, url)?, args, data).await;
    }
    let own = alone(options);
    let server = Server::start(&own).await?;
    let Some(address) = server.address else {
        return Err(CliError::Usage("there is no address".to_owned()));
    };
    let url = url_at(address);
    eprintln!("running at {url}");
    let links = own.public_url.as_ref().unwrap_or(&url);
    eprintln!("links in mails lead to {links}");
    if own.smtp_url.is_none() {
        eprintln!(
            "mails are written to {}",
            own.data_dir.join("mail").display()
        );
    }
    let ended = async {
        // The token argument is for a server that --url names, so it is not sent to the command's own server.
        let here = ServerArgs {
            token: None,
            ..args.server.clone()
        };
        let scopes = [Scope::ExecutionsWrite, Scope::ExecutionsRead];
        let client = local::caller(&own, &here, &url, &scopes)?;
        run_at(&client, args, data).await
    };
    let ended = tokio::select! {
        ended = ended => ended,
        _ = tokio::signal::ctrl_c() => Err(CliError::Usage("interrupted".to_owned())),
    };
    server.stop().await;
    ended
}

/// The options of the command's own server, through which people can sign while the command runs. The server
/// listens on a free port, so that it can run beside another server with the same options.
fn alone(options: &Options) -> Options {
    let mut own = options.clone();
    own.role = Role::All;
    own.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if own.database_url.is_none() {
        // No other server knows the execution, so links must lead to this server.
        own.public_url = None;
    } else if own.public_url.is_none() && options.bind.port() != 0 {
        // Links in mails must work after this server has ended, so they lead to the address at which a
        // server with the given options listens.
        own.public_url = Some(url_at(reachable(options.bind)));
    }
    own
}

/// Shows the progress of an execution until it ends.
///
/// # Errors
///
/// If no server is found, or the execution cannot be watched.
pub async fn watch(options: &Options, args: &WatchArgs) -> Result<Ended, CliError> {
    let client = local::client(options, &args.server, &[Scope::ExecutionsRead])?;
    let ended = follow(&client, args.id, false).await?;
    explain(&client, args.id, ended).await;
    Ok(ended)
}

async fn run_at(client: &Client, args: &RunArgs, data: Value) -> Result<Ended, CliError> {
    let workflow = find_workflow(client, &args.workflow).await?;
    let body = json!({"trigger_data": data, "trigger_type": "cli", "dry_run": args.dry_run});
    let path = format!("api/v1/workflows/{workflow}/executions");
    let execution = client.post(&path, &body).await?;
    let id = execution
        .get("id")
        .and_then(Value::as_str)
        .and_then(|id| id.parse().ok());
    let id: Uuid = id.ok_or_else(|| CliError::Http("the answer has no id".to_owned()))?;
    eprintln!("execution {id}");
    let ended = follow(client, id, true).await?;
    explain(client, id, ended).await;
    Ok(ended)
}

async fn explain(client: &Client, id: Uuid, ended: Ended) {
    if ended == Ended::Completed {
        return;
    }
    match client.get(&format!("api/v1/executions/{id}")).await {
        Ok(execution) => why(&execution).iter().for_each(|line| eprintln!("{line}")),
        Err(e) => eprintln!("why cannot be told: {e}"),
    }
}

/// Finds a workflow by id, by name, or by its name in lower case with hyphens.
async fn find_workflow(client: &Client, wanted: &str) -> Result<Uuid, CliError> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let mut names = Vec::new();
    let mut path = "api/v1/workflows?limit=100".to_owned();
    loop {
        let page = client.get(&path).await?;
        for workflow in page
            .get("workflows")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = workflow
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let id = workflow
                .get("id")
                .and_then(Value::as_str)
                .and_then(|id| id.parse().ok());
            if let Some(id) =
                id.filter(|_| name.eq_ignore_ascii_case(wanted) || slug(name) == wanted)
            {
                return Ok(id);
            }
            names.push(slug(name));
        }
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => {
                let cursor: String =
                    url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
                path = format!("api/v1/workflows?limit=100&cursor={cursor}");
            }
            None => break,
        }
    }
    Err(CliError::Usage(format!(
        "there is no workflow {wanted:?}; there are: {}",
        names.join(", ")
    )))
}

fn slug(name: &str) -> String {
    name.to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join("-")
}

fn read_data(path: &Path) -> Result<Value, CliError> {
    let error = |why: String| CliError::File {
        file: path.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    docg_core::json::read(text.as_bytes()).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;
    use docg_core::signature::Secret;

    #[test]
    fn links_outlive_the_process_where_the_execution_does() {
        let links = |database: Option<&str>, arguments: &[&str]| {
            let arguments = [&["reference-server"], arguments].concat();
            let mut options = Cli::parse_from(arguments).options;
            options.database_url = database.map(Secret::new);
            alone(&options).public_url.map(String::from)
        };
        let kept = Some("postgres://db");
        let at = |url: &str| Some(url.to_owned());
        assert_eq!(links(kept, &[]), at("http://127.0.0.1:8080/"));
        assert_eq!(
            links(kept, &["--bind", "0.0.0.0:9000"]),
            at("http://127.0.0.1:9000/")
        );
        let public = ["--public-url", "https://sign.example.com/"];
        assert_eq!(links(kept, &public), at("https://sign.example.com/"));
        assert_eq!(links(None, &public), None, "the bound address");
        assert_eq!(
            links(kept, &["--bind", "127.0.0.1:0"]),
            None,
            "nobody knows a better one"
        );
    }
}
