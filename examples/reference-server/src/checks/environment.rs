//! Checks of variables, options, and the limits of the process.

use std::ffi::OsString;

use clap::CommandFactory;
use url::{Host, Url};

use super::Finding;
use crate::{
    options::{Cli, Options, Role},
    serve::{connections_kept_free, url_at, url_is_local},
};

/// The variables that this program reads in another way than through its options.
const OTHERS: &[&str] = &[
    "DOCG_CLICKSIGN_TOKEN",
    "DOCG_CLICKSIGN_WEBHOOK_SECRET",
    "DOCG_CLICKSIGN_BASE_URL",
    "DOCG_ZAPSIGN_TOKEN",
    "DOCG_ZAPSIGN_WEBHOOK_SECRET",
    "DOCG_ZAPSIGN_BASE_URL",
    "REDIS_STREAM_MAXLEN",
    "REDIS_STREAM_TTL",
];
/// The variables of the script `scripts/services`. A shell that ran the script may still have them set, so
/// they cause no warning.
const OF_SERVICES: &[&str] = &[
    "DOCG_SERVICES_HOME",
    "DOCG_POSTGRES_PORT",
    "DOCG_REDIS_PORT",
];
/// The usual variables with the settings of an S3 bucket.
const OF_BUCKETS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
];
/// The number of client connections below which a warning is logged: a small office has that many open.
const FEW: usize = 256;
/// The similarity from which an unknown name with the prefix `DOCG_` counts as a misspelt known name.
const ALIKE: f64 = 0.8;
/// The number of wrong letters up to which a name without the prefix `DOCG_` counts as a misspelt known name.
const SLIPS: usize = 2;

pub(super) fn variables(options: &Options) -> Vec<Finding> {
    let is_set = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, value)));
    let is_set: Vec<_> = is_set
        .map(|(name, value)| (name, value.is_empty()))
        .collect();
    let files = options.files_url.as_ref();
    let has_bucket = files.is_some_and(|url| url.expose().starts_with("s3:"));
    unknown_or_empty(&is_set, if has_bucket { OF_BUCKETS } else { &[] })
}

fn text(name: OsString) -> Option<String> {
    // Skip a name that is not UTF-8: all names that this program reads are ASCII.
    name.into_string().ok()
}

/// Reports unknown and empty variables. `set` holds the name of each variable that is set, and true if its
/// value is empty. `of_others` are the names that libraries read.
fn unknown_or_empty(set: &[(String, bool)], of_others: &[&str]) -> Vec<Finding> {
    let known = known();
    let mut findings = Vec::new();
    for (name, is_empty) in set {
        if known.contains(name) {
            if *is_empty {
                let text = format!(
                    "{name} is set and empty: it counts as not set. Remove it, or give a value"
                );
                findings.push(Finding::warned(text));
            }
        } else if name.starts_with("DOCG_TEST_") || OF_SERVICES.contains(&name.as_str()) {
            // Variables for scripts are ignored.
        } else if name.starts_with("DOCG_") {
            let nearest = known
                .iter()
                .map(|other| (strsim::normalized_levenshtein(name, other), other))
                .filter(|(likeness, _)| *likeness >= ALIKE)
                .max_by(|(one, _), (other, _)| one.total_cmp(other));
            let hint = match nearest {
                Some((_, other)) => format!("{other} may be meant"),
                None => "see --help for those that are".to_owned(),
            };
            findings.push(Finding::warned(format!(
                "{name} is not known and has no effect: {hint}"
            )));
        } else if !of_others.contains(&name.as_str()) {
            let is_meant = |other: &&str| {
                let is_set = set.iter().any(|(name, _)| name == other);
                !is_set && strsim::osa_distance(&name.to_ascii_uppercase(), other) <= SLIPS
            };
            let mut others = known
                .iter()
                .map(String::as_str)
                .chain(of_others.iter().copied());
            if let Some(other) = others.find(is_meant) {
                findings.push(Finding::warned(format!(
                    "{name} has no effect: {other} may be meant, which is not set"
                )));
            }
        }
    }
    findings
}

/// All variables that this program reads.
fn known() -> Vec<String> {
    let mut known: Vec<String> = OTHERS.iter().map(|&name| name.to_owned()).collect();
    let mut commands = vec![Cli::command()];
    while let Some(command) = commands.pop() {
        let variables = command
            .get_arguments()
            .filter_map(|arg| arg.get_env()?.to_str());
        known.extend(variables.map(str::to_owned));
        commands.extend(command.get_subcommands().cloned());
    }
    known
}

pub(super) fn options(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = options.check() {
        findings.push(Finding::refused(error.to_string()));
    }
    if options.cancel_grace_ms > options.lease_ms && options.lease_ms < 5_000 {
        findings.push(Finding::warned(format!(
            "--cancel-grace-ms {} is longer than --lease-ms {}: a worker that dies meanwhile is taken over \
             before the grace is over. Give a longer lease",
            options.cancel_grace_ms, options.lease_ms
        )));
    }
    if options.redis_url.is_some() && options.database_url.is_none() {
        findings.push(Finding::warned(
            "--redis-url without --database-url: executions are kept in memory, are lost when the server \
             ends, and are not seen by other servers. Give --database-url",
        ));
    }
    findings.extend(closed_links(options).map(Finding::warned));
    if let Some(url) = &options.public_url
        && url.scheme() == "http"
        && !url_is_local(url)
    {
        findings.push(Finding::warned(format!(
            "--public-url {url} is not encrypted: whoever sees a link on its way can sign with it. Put a \
             proxy with TLS in front, and give its https:// address"
        )));
    }
    findings
}

/// The reason why people cannot open the links in mails, if there is one.
fn closed_links(options: &Options) -> Option<String> {
    const TO_DO: &str = "Give --public-url, the address at which people reach the server";
    let bind = options.bind;
    if options.public_url.is_some() {
        return None;
    }
    // Without a database, links stop working when the process ends. On loopback, a port that changes at each
    // start then does no harm.
    let outlive = options.database_url.is_some() || !bind.ip().is_loopback();
    if bind.ip().to_canonical().is_unspecified() {
        Some(format!(
            "links in mails begin with {}, which is no address that a browser can open. {TO_DO}",
            url_at(bind)
        ))
    } else if options.role == Role::Worker {
        Some(format!(
            "a worker does not listen, and links in its mails begin with {}, which need not be where \
             others do. {TO_DO}",
            url_at(bind)
        ))
    } else if bind.port() == 0 && outlive {
        Some(format!(
            "--bind {bind} takes another port at each start, and links in mails that were sent before lead \
             nowhere. {TO_DO}"
        ))
    } else {
        None
    }
}

pub(super) fn open_files(options: &Options) -> Vec<Finding> {
    let Some(open) = docg_http::open_files() else {
        return Vec::new();
    };
    let kept = connections_kept_free(options);
    let connections = docg_http::ServeOptions::keeping_files(kept).connections;
    if connections >= FEW {
        return Vec::new();
    }
    vec![Finding::warned(format!(
        "the process may have {open} files open, so clients get {connections} connections at once and \
         the rest, {kept} would be wanted, is for databases, services and files: raise the limit \
         (ulimit -n, LimitNOFILE= of systemd) to {} or more",
        kept + FEW
    ))]
}

/// Parses the public URL, which links begin with. The error is a text that explains the fault.
pub(crate) fn public_url(text: &str) -> Result<Url, String> {
    const RIGHT: &str = "right would be https://docs.example.com or https://example.com/docs";
    let wrong = |why: &str| Err(format!("{why}; {RIGHT}"));
    let Ok(url) = Url::parse(text) else {
        return wrong("it is no URL");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("it begins with neither https:// nor http://");
    }
    if matches!(url.host(), None | Some(Host::Domain(""))) {
        return wrong("it has no host");
    }
    let nowhere = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_unspecified(),
        Some(Host::Domain(_)) | None => false,
    };
    if nowhere {
        return wrong("its host is the address of no machine");
    }
    if url.port() == Some(0) {
        return wrong("nobody can connect to port 0");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("a link holds no user and no password");
    }
    if url.query().is_some() {
        return wrong("paths are added to it, so it has no query (?…)");
    }
    if url.fragment().is_some() {
        return wrong("paths are added to it, so it has no fragment (#…)");
    }
    if url.path().contains("//") {
        return wrong("its path has an empty segment (//)");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_named_with_the_one_that_is_meant() {
        let findings = |name: &str, is_empty| {
            let found = unknown_or_empty(&[(name.to_owned(), is_empty)], OF_BUCKETS);
            let texts = found.into_iter().map(|it| it.text);
            texts.collect::<Vec<_>>().join("\n")
        };
        assert!(findings("DOCG_PUBLIC_ULR", false).contains("DOCG_PUBLIC_URL may be meant"));
        assert!(findings("DOCG_SOMETHING_ELSE_ENTIRELY", false).contains("--help"));
        for fine in [
            "DOCG_BIND",
            "DOCG_TOKEN",
            "DOCG_ZAPSIGN_TOKEN",
            "DOCG_SERVICES_HOME",
            "DOCG_POSTGRES_PORT",
            "DOCG_REDIS_PORT",
            "DOCG_TEST_SMTPD",
            "DATABASE_URL",
            "PATH",
        ] {
            assert_eq!(findings(fine, false), "", "{fine}");
        }
        for empty in [
            "DATABASE_URL",
            "REDIS_URL",
            "DOCG_AUTH_FILE",
            "REDIS_STREAM_TTL",
        ] {
            assert!(
                findings(empty, true).contains("counts as not set"),
                "{empty}"
            );
        }
        assert_eq!(findings("PATH", true), "");
        for (name, meant) in [
            ("DATABSE_URL", "DATABASE_URL"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("DATABASEURL", "DATABASE_URL"),
            ("database_url", "DATABASE_URL"),
            ("REDIS_URLL", "REDIS_URL"),
            ("REDIS_STREAM_MAX_LEN", "REDIS_STREAM_MAXLEN"),
            ("DOGC_AUTH_FILE", "DOCG_AUTH_FILE"),
            ("AWS_SECRET_ACESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ] {
            let found = findings(name, false);
            assert!(
                found.contains(&format!("{meant} may be meant")),
                "{name}: {found}"
            );
        }
        for fine in [
            "AWS_REGION",
            "AWS_PROFILE",
            "REDIS_HOST",
            "PGDATABASE",
            "LANG",
            "HOME",
        ] {
            assert_eq!(findings(fine, false), "", "{fine}");
        }
        let both = ["DATABASE_URI", "DATABASE_URL"].map(|name| (name.to_owned(), false));
        assert_eq!(unknown_or_empty(&both, OF_BUCKETS), []);
    }

    #[test]
    fn links_that_nobody_can_open_are_warned_of() {
        use clap::Parser;

        const DATABASE: &[&str] = &["--database-url", "postgres://db/docg"];
        for (arguments, database, warned) in [
            (&["--bind", "0.0.0.0:8080"][..], false, true),
            (&["--bind", "[::]:8080"], false, true),
            (&["--bind", "[::ffff:0.0.0.0]:8080"], false, true),
            (&["--bind", "10.0.0.1:0"], false, true),
            (&["--bind", "127.0.0.1:0"], true, true),
            (&["--role", "worker"], true, true),
            (&["--role", "worker", "--bind", "127.0.0.1:0"], true, true),
            (&["--bind", "127.0.0.1:0"], false, false),
            (&["--role", "http"], true, false),
            (&[], true, false),
        ] {
            let database = if database { DATABASE } else { &[] };
            let whole = [&["reference-server"], arguments, database].concat();
            let closed = closed_links(&Cli::parse_from(&whole).options);
            assert_eq!(closed.is_some(), warned, "{arguments:?}: {closed:?}");
            assert!(closed.is_none_or(|text| text.contains("--public-url")));
            let given = [&whole[..], &["--public-url", "https://docs.example.com"]].concat();
            assert_eq!(closed_links(&Cli::parse_from(given).options), None);
        }
    }

    #[test]
    fn links_begin_with_a_url_to_which_a_path_can_be_added() {
        for (text, right) in [
            ("https://docs.example.com", true),
            ("https://docs.example.com/", true),
            ("http://127.0.0.1:8080/a/b/", true),
            ("http://[::1]:8080", true),
            ("https://example.com/?a=b", false),
            ("https://example.com/?", false),
            ("https://example.com/#a", false),
            ("https://user@example.com", false),
            ("https://user:hidden@example.com", false),
            ("https://example.com//a", false),
            ("ftp://example.com", false),
            ("file:///docs", false),
            ("docs.example.com", false),
            ("docs.example.com:8080", false),
            ("https://", false),
            ("http://0.0.0.0:8080", false),
            ("http://0/", false),
            ("http://[::]", false),
            ("http://[::ffff:0.0.0.0]", false),
            ("http://127.0.0.1:0", false),
            ("", false),
        ] {
            let read = public_url(text);
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
            if let Err(why) = read {
                assert!(
                    why.contains("right would be") && !why.contains("hidden"),
                    "{why}"
                );
            }
        }
    }
}
