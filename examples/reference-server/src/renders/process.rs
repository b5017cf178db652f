//! The server's side of a child process.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    COMMAND, Limits,
    wire::{self, Ready, Reply, Setup},
};
use crate::pdf::Templates;

/// How long a child may take from its start until it can render, even on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long a child that has closed its output may take to end.
const END: Duration = Duration::from_secs(2);

/// A child process that renders. Dropping this value kills the child.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// The number of documents that the child was given.
    pub(super) renders: u32,
}

impl Process {
    /// Starts a child and waits until it is ready.
    pub(super) async fn start(
        program: &Path,
        templates: &Templates,
        limits: &Limits,
    ) -> io::Result<Self> {
        let setup = Setup {
            memory: limits.memory,
            cpu_seconds: limits.time.as_millis().div_ceil(1_000) as u64,
            templates: templates.files(),
        };
        let mut command = Command::new(program);
        command
            .arg(COMMAND)
            .env_clear()
            // One core for each document: the server already renders several documents at once.
            .env("RAYON_NUM_THREADS", "1")
            // glibc reserves 64 MB of address space for each arena, and the memory limit counts reserved
            // space.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.arg0("reference-server");
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it has no standard streams");
        let mut process = Self {
            input: child.stdin.take().ok_or_else(gone)?,
            output: child.stdout.take().ok_or_else(gone)?,
            child,
            renders: 0,
        };
        let setup = wire::frame(&setup, &[])?;
        let starting = async {
            process.input.write_all(&setup).await?;
            wire::receive::<Ready>(&mut process.output).await
        };
        match tokio::time::timeout(START, starting).await {
            Ok(Ok(_)) => Ok(process),
            Ok(Err(e)) => {
                let ended = process.end().await;
                Err(io::Error::other(format!("it {ended}: {e}")))
            }
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends a job and waits for the reply and the document.
    pub(super) async fn exchange(&mut self, job: &[u8]) -> io::Result<(Reply, Vec<u8>)> {
        self.renders += 1;
        self.input.write_all(job).await?;
        wire::receive(&mut self.output).await
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of a child that no longer answers, and describes how it ended.
    pub(super) async fn end(mut self) -> String {
        match tokio::time::timeout(END, self.child.wait()).await {
            Ok(Ok(status)) => format!("ended with {status}"),
            Ok(Err(e)) => format!("is lost ({e})"),
            Err(_) => "does not end".to_owned(),
        }
    }
}
