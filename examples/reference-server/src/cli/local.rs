//! Finds the server that the command's options describe, and the credentials to call it.

use docg_http::Scope;
use url::{Host, Url};

use super::{CliError, client::Client};
use crate::{
    auth_file,
    builtin_signature::Secret,
    options::{Options, ServerArgs},
    serve::{SECRET_FILE, reachable, url_at},
};

/// A client of the server that `server` names, else of the server that `options` describe. Without a token in
/// `server`, it calls as the first caller of the auth file that has all of `scopes`.
pub(super) fn client(
    options: &Options,
    server: &ServerArgs,
    scopes: &[Scope],
) -> Result<Client, CliError> {
    if let Some(url) = &server.url {
        return named(server, url);
    }
    let url = match &options.public_url {
        Some(url) => url.clone(),
        None if options.bind.port() == 0 => {
            return Err(CliError::Usage(
                "--bind does not say the port: give --url and --token".to_owned(),
            ));
        }
        None => url_at(reachable(options.bind)),
    };
    caller(options, server, &url, scopes)
}

/// A client of the server at `url`, which the arguments name together with a token.
pub(super) fn named(server: &ServerArgs, url: &Url) -> Result<Client, CliError> {
    let token = server.token.as_ref().ok_or_else(|| {
        // A server that --url names may be somebody else's: never send it a token of this installation.
        CliError::Usage("--url needs --token (or DOCG_TOKEN)".to_owned())
    })?;
    Client::new(url, token.expose(), server.organization)
}

/// A client of a server that runs with these options on this machine.
pub(super) fn caller(
    options: &Options,
    server: &ServerArgs,
    url: &Url,
    scopes: &[Scope],
) -> Result<Client, CliError> {
    if let Some(token) = &server.token {
        return Client::new(url, token.expose(), server.organization);
    }
    let Some(path) = &options.auth_file else {
        if !is_loopback(url) {
            return Err(CliError::Usage(format!(
                "the development token is shown to this machine alone, and {url} may be another: give \
                 --auth-file or --token"
            )));
        }
        let secret = secret(options)?.ok_or_else(|| {
            CliError::Usage(format!(
                "{} has no key, so no server has run with it: give --data-dir, --auth-file, or --token",
                options.data_dir.display()
            ))
        })?;
        return Client::new(url, &secret.development_token(), server.organization);
    };
    let usage = |e: auth_file::AuthFileError| CliError::Usage(e.to_string());
    let caller = auth_file::first_with(path, scopes).map_err(usage)?;
    let first = caller.principal.organizations.first().map(|id| id.0);
    Client::new(url, &caller.token, server.organization.or(first))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The key of this installation, if there is one.
pub(super) fn secret(options: &Options) -> Result<Option<Secret>, CliError> {
    let path = options.data_dir.join(SECRET_FILE);
    if !path.exists() {
        return Ok(None);
    }
    Secret::load(&path)
        .map(Some)
        .map_err(|e| CliError::Usage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;

    #[test]
    fn the_development_token_is_shown_to_this_machine_alone() {
        crate::tls::prepare();
        let folder = tempfile::tempdir().unwrap();
        Secret::load_or_create(&folder.path().join(SECRET_FILE)).unwrap();
        let mut options = Cli::parse_from(["reference-server"]).options;
        options.data_dir = folder.path().to_owned();
        let mut told = |url: &str, token: Option<&str>| {
            options.public_url = Some(url.parse().unwrap());
            let server = ServerArgs {
                token: token.map(docg_core::signature::Secret::new),
                ..ServerArgs::default()
            };
            client(&options, &server, &[]).map(drop)
        };
        for here in [
            "http://localhost:1/",
            "http://127.0.0.2/",
            "http://[::1]:1/",
        ] {
            told(here, None).unwrap();
        }
        for elsewhere in [
            "https://sign.example.com/",
            "http://10.0.0.1/",
            "http://127.0.0.1.example.com/",
        ] {
            let refused = told(elsewhere, None).unwrap_err().to_string();
            assert!(refused.contains("--token"), "{elsewhere}: {refused}");
            told(elsewhere, Some("a-token-of-theirs")).unwrap();
        }
    }
}
