//! Secrets in options are never printed, however malformed the value is.

use std::process::{Command, Output};

const CANARY: &str = "canary";

/// Variables that may hold a secret, each with values that the server rejects.
const BROKEN: [(&str, &[&str]); 6] = [
    (
        "DATABASE_URL",
        &[
            "canary",
            "mysql://user:canary@host/db",
            "postgres://user:canary@host:port/db",
            "postgres://user:can/canary@host/db",
            "postgres://user:%FFcanary@host/db",
            "postgres://user:canary@host/db?sslmode=canary",
            "postgres://user@host/db?passwd=canary&sslmode=canary",
        ],
    ),
    (
        "REDIS_URL",
        &[
            "canary",
            "http://:canary@host",
            "redis://:canary@host:port",
            "redis://:canary@host/canary",
            "redis+cluster://:canary@host/7",
        ],
    ),
    (
        "DOCG_FILES_URL",
        &[
            "canary",
            "s3://key:canary@bucket/prefix",
            "s3://bucket/prefix?secret=canary",
            "https://user:canary@host",
            "s3://key:canary@[::1",
        ],
    ),
    (
        "DOCG_SMTP_URL",
        &[
            "canary",
            "smtp://user:canary@host:port",
            "smtp://canary@host",
            "http://user:canary@host",
            "smtp://user:canary@host?tls=canary",
        ],
    ),
    ("DOCG_CLICKSIGN_TOKEN", &["canary"]),
    ("DOCG_ZAPSIGN_WEBHOOK_SECRET", &["canary"]),
];

fn run(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_reference-server"));
    command
        .env_clear()
        .env("DOCG_DATA_DIR", folder.path())
        .env("DOCG_BIND", "127.0.0.1:0")
        .env("RUST_LOG", "trace")
        .envs(variables.iter().copied())
        .args(arguments);
    command.output().expect("it ran")
}

fn assert_untold(output: &Output, given: &str) {
    for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(CANARY), "{given}: {stream}: {text}");
    }
}

#[test]
fn no_broken_option_is_repeated() {
    for (variable, values) in BROKEN {
        for value in values {
            let output = run(&[(variable, value)], &["serve"]);
            assert!(!output.status.success(), "{variable}={value} is refused");
            assert!(!output.stderr.is_empty(), "{variable}={value} is explained");
            assert_untold(&output, value);
        }
    }
}

#[test]
fn help_and_errors_of_the_command_line_show_no_secret() {
    let all: Vec<_> = BROKEN
        .iter()
        .map(|(name, values)| (*name, values[0]))
        .collect();
    let token = ("DOCG_TOKEN", CANARY);
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["watch", "--help"],
        &["run", "--help"],
        &["serve", "--concurrency", "none"],
        &["serve", "--database-url"],
        &[
            "watch",
            "00000000-0000-7000-8000-000000000001",
            "--url",
            "http://127.0.0.1:1",
        ],
    ] {
        let output = run(&[&all[..], &[token]].concat(), arguments);
        assert_untold(&output, &arguments.join(" "));
    }
}
