//! `run` and `watch`.

use std::path::Path;

use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{
    CliError,
    client::Client,
    execution::{Ended, follow, why},
};
use crate::{
    options::{Options, RunArgs, ServerArgs, WatchArgs},
    serve::Server,
};

/// Starts a workflow, watches it, and says why where it is not completed.
///
/// # Errors
///
/// Where it cannot be started or watched.
pub async fn run(options: &Options, args: &RunArgs) -> Result<Ended, CliError> {
    let data = read_data(&args.data)?;
    if let Some(client) = named(&args.server)? {
        return run_at(&client, args, data).await;
    }
    // A server of its own for as long as it takes, so that people can sign.
    let mut own = options.clone();
    own.auth_file = None;
    if own.bind == Options::default_bind() {
        own.bind.set_port(0);
    }
    let server = Server::start(&own).await?;
    let address = server.address.ok_or_else(|| {
        CliError::Usage("--role worker serves no HTTP, which run needs".to_owned())
    })?;
    let url =
        Url::parse(&format!("http://{address}/")).map_err(|e| CliError::Usage(e.to_string()))?;
    eprintln!("running at {url}");
    if own.smtp_url.is_none() {
        eprintln!(
            "mails are written to {}",
            own.data_dir.join("mail").display()
        );
    }
    let token = server
        .development
        .as_ref()
        .map(|development| development.token.clone());
    let ended = async {
        let client = Client::new(&url, &token.unwrap_or_default(), None)?;
        run_at(&client, args, data).await
    };
    let ended = tokio::select! {
        ended = ended => ended,
        _ = tokio::signal::ctrl_c() => Err(CliError::Usage("interrupted".to_owned())),
    };
    server.stop().await;
    ended
}

/// Shows the progress of an execution until it ends.
///
/// # Errors
///
/// Where no server is named, or it cannot be watched.
pub async fn watch(args: &WatchArgs) -> Result<Ended, CliError> {
    let client = named(&args.server)?.ok_or_else(|| {
        CliError::Usage(
            "watch needs a server: give --url and --token (or DOCG_URL and DOCG_TOKEN)".to_owned(),
        )
    })?;
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

/// By id, by name, or by the name in lower case with hyphens.
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

/// The server that the options name.
pub(super) fn named(server: &ServerArgs) -> Result<Option<Client>, CliError> {
    match (&server.url, &server.token) {
        (Some(url), Some(token)) => Client::new(url, token, server.organization).map(Some),
        (Some(_), None) => Err(CliError::Usage(
            "--url needs --token (or DOCG_TOKEN)".to_owned(),
        )),
        (None, _) => Ok(None),
    }
}

fn read_data(path: &Path) -> Result<Value, CliError> {
    let error = |why: String| CliError::File {
        file: path.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| error(e.to_string()))
}
