//! The program: options, logs, and the command that was asked for.

use std::process::ExitCode;

use clap::Parser;
use reference_server::{
    options::{Cli, Command},
    serve,
};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let serving = matches!(cli.command, None | Some(Command::Serve));
    log_to_standard_error(if serving { "info" } else { "warn" });
    // reqwest is built without a TLS provider of its own. That there is one already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        match cli.command.unwrap_or(Command::Serve) {
            Command::Serve => match serve::serve(&cli.options).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            _ => ExitCode::FAILURE,
        }
    })
}

/// `RUST_LOG` says what is logged, as `info,docg_core=debug`.
fn log_to_standard_error(default: &str) {
    let wanted = std::env::var("RUST_LOG").ok();
    let targets: Targets = wanted
        .and_then(|text| text.parse().ok())
        .or_else(|| default.parse().ok())
        .unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("reference-server: {error}");
    ExitCode::FAILURE
}
