//! The program: reads options, sets up logs and runs the command.

use std::{io::Write, process::ExitCode, time::Duration};

use docg_core::ids::ExecutionId;
use reference_server::{
    cli::{self, CliError, Ended, Verdict},
    options::{AuditCommand, Cli, Command},
    private, renders, serve, tls,
};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How long unfinished tasks may run on after the command has ended. Then the process ends, even if a task
/// blocks its thread.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    private::by_default();
    let Cli { options, command } = Cli::read();
    if matches!(command, Some(Command::RenderWorker)) {
        return renders::run_child();
    }
    let serving = matches!(command, None | Some(Command::Serve));
    log_to_standard_error(if serving { "info" } else { "warn" });
    tls::prepare();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let status = runtime.block_on(async {
        match command.unwrap_or(Command::Serve) {
            Command::Serve => match serve::serve(&options).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            // Handled above: a render worker runs without this runtime.
            Command::RenderWorker => renders::run_child(),
            Command::Run(args) => ended(cli::run(&options, &args).await),
            Command::Watch(args) => ended(cli::watch(&options, &args).await),
            Command::Migrate => done(cli::migrate(&options).await),
            // Report a failed write: nobody may take truncated migrations for the complete ones.
            Command::PrintMigrations(args) => {
                let text = cli::migrations(&args);
                let mut out = std::io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                match written {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => fail(&format_args!("standard output: {error}")),
                }
            }
            Command::Purge(args) => {
                done(cli::purge(&options, &args).await.map(|(runs, trails)| {
                    say(&format!(
                        "removed {runs} executions and {trails} audit trails"
                    ));
                }))
            }
            Command::Audit(AuditCommand::Verify(args)) => {
                verified(cli::verify(&options, &args).await)
            }
            Command::Audit(AuditCommand::Export(args)) => {
                let execution = args.execution.map(ExecutionId);
                done(cli::export(&options, execution, std::io::stdout()).await)
            }
            Command::Audit(AuditCommand::Erase(args)) => {
                let erased = cli::erase(&options, ExecutionId(args.execution)).await;
                done(erased.map(|rows| {
                    say(&format!(
                        "erased what {rows} audit rows had to erase; the execution's own data, events \
                         and logs are as they were, until purge removes the execution"
                    ))
                }))
            }
        }
    });
    runtime.shutdown_timeout(LAST_MOMENTS);
    status
}

/// The exit status: 0 if the execution completed, 1 if not, 2 if no server answers.
fn ended(ended: Result<Ended, CliError>) -> ExitCode {
    match ended {
        Ok(Ended::Completed) => ExitCode::SUCCESS,
        Ok(Ended::NotCompleted | Ended::NeedsReview) => ExitCode::FAILURE,
        Err(error @ CliError::Unanswered { .. }) => {
            fail(&error);
            ExitCode::from(2)
        }
        Err(error) => fail(&error),
    }
}

fn done(done: Result<(), CliError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The exit status: 0 if the audit trail is valid, 1 if not, 2 if it could not be checked.
fn verified(verdict: Result<Verdict, CliError>) -> ExitCode {
    match verdict {
        Ok(Verdict { is_valid, text }) => {
            say(&text);
            ExitCode::from(u8::from(!is_valid))
        }
        Err(error) => {
            tell(&format!("reference-server: could not check: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Prints the command's answer on standard output.
fn say(line: &str) {
    // If standard output is closed, nobody reads the answer. The exit status still reports success or
    // failure.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints an error on standard error, which may be closed.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Logs to standard error. `RUST_LOG` selects the level, for example `info,docg_core=debug`.
fn log_to_standard_error(default: &str) {
    let wanted = std::env::var("RUST_LOG").ok();
    let targets: Targets = wanted
        .and_then(|text| text.parse().ok())
        .or_else(|| default.parse().ok())
        .unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // If standard error is closed, errors of logging cannot be printed either.
        .log_internal_errors(false)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    tell(&format!("reference-server: {error}"));
    ExitCode::FAILURE
}
