//! Renders documents in child processes.
//!
//! Typst cannot be interrupted, and its memory and time depend on data from strangers: an address of 900 kB
//! takes hundreds of megabytes, and some texts break its shaper. So [`Renderer`] hands each document to a
//! child process: this same program with the hidden command [`COMMAND`].
//!
//! The child limits its own memory and CPU time, so a document that is too large for a busy machine is too
//! large for an idle one. It has an empty environment and no secret, and ends when its standard input is
//! closed. The server kills the child if the wall time is used up, or if nobody waits for the document any
//! more. However a child ends, the server reports it as a [`RenderFailure`].
//!
//! A child that has rendered well is kept for the next document, because a warm child is much faster: it has
//! loaded its fonts, and Typst has cached the common parts of templates.
//!
//! - `turns`: limits the renders at once and shares them fairly between organizations.
//! - `process`: the server's side, which starts a child and talks to it. `child`: the child's own side.
//! - `wire`: the protocol between the server and a child.

mod child;
mod process;
mod turns;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::NaiveDate;
use docg_core::{ids::OrganizationId, workflow::wait_for_place};
use serde_json::Value;

pub use child::run as run_child;

use crate::pdf::{Pdf, RenderError, SignaturePage, Templates};
use process::Process;
use turns::{Turn, Turns};
use wire::Job;

/// The hidden command with which this program runs as a child that renders.
pub const COMMAND: &str = "render-worker";

/// The number of documents after which a child is replaced: Typst never frees the names that it has interned.
const RENDERS_PER_PROCESS: u32 = 200;

/// The limits of renders.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of renders at once. One organization gets at most one less than that, so that
    /// others can render too.
    pub at_once: usize,
    /// The address space of one child, in bytes. A child maps about 150 MB before it renders anything.
    pub memory: u64,
    /// The CPU time of one document, rounded up to whole seconds. A document that needs more is too large.
    pub time: Duration,
    /// The wall time of one document, without the wait for its turn. A document that takes longer is retried,
    /// because the machine is busy.
    pub wall_time: Duration,
    /// The size limit of one document's data, in bytes of JSON.
    pub data: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            at_once: cores + 1,
            memory: 768 * 1024 * 1024,
            time: Duration::from_secs(20),
            wall_time: Duration::from_secs(80),
            data: 1024 * 1024,
        }
    }
}

/// The reason why a render made no document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderFailure {
    /// The template or the data do not make a document, or exceed a limit.
    #[error(transparent)]
    Document(#[from] RenderError),
    /// No child could be started. A retry may succeed.
    #[error("no process for rendering could be started: {0}")]
    Unavailable(io::Error),
    /// The machine was too busy to make the document in time. A retry may succeed.
    #[error("the document was not done within {} ms, and its CPU time was not used up", .0.as_millis())]
    TimedOut(Duration),
}

/// Renders documents in child processes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Renderer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    templates: Templates,
    limits: Limits,
    turns: Arc<Turns>,
    /// Children that wait for a document.
    idle: Mutex<Vec<Process>>,
    /// True if renders run in this process: unit tests have no program to start children from.
    #[cfg(test)]
    in_process: bool,
}

impl Renderer {
    /// Creates a renderer of `templates`. The children run this program, which must call [`run_child`] if its
    /// first argument is [`COMMAND`].
    #[must_use]
    pub fn new(templates: Templates, limits: Limits) -> Self {
        Self::with_program(this_program(), templates, limits)
    }

    /// As [`new`](Self::new), with another program for the children.
    #[must_use]
    pub fn with_program(program: impl Into<PathBuf>, templates: Templates, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            program: program.into(),
            turns: Turns::new(limits.at_once),
            templates,
            limits,
            idle: Mutex::default(),
            #[cfg(test)]
            in_process: false,
        }))
    }

    #[cfg(test)]
    pub(crate) fn in_process() -> Self {
        let Self(mut inner) = Self::new(Templates::bundled(), Limits::default());
        Arc::get_mut(&mut inner).unwrap().in_process = true;
        Self(inner)
    }

    /// The templates that can be rendered.
    #[must_use]
    pub fn templates(&self) -> &Templates {
        &self.0.templates
    }

    /// Checks the size of a document's data.
    ///
    /// # Errors
    ///
    /// [`RenderError::TooLarge`] if the data exceed [`Limits::data`].
    pub fn check_size(&self, data: &Value) -> Result<(), RenderError> {
        let (bytes, most) = (json_size(data), self.0.limits.data);
        if bytes > most {
            let what = format!("the data have {bytes} bytes of JSON, at most {most} are rendered");
            return Err(RenderError::TooLarge(what));
        }
        Ok(())
    }

    /// Renders a template for an organization. First waits for the organization's turn; this wait does not
    /// count against the step's timeout. Dropping the future ends the render.
    ///
    /// # Errors
    ///
    /// [`RenderFailure`].
    pub async fn render(
        &self,
        organization: OrganizationId,
        template: String,
        data: Value,
        today: NaiveDate,
    ) -> Result<Pdf, RenderFailure> {
        self.check_size(&data)?;
        let job = Job::Render {
            template,
            data,
            today,
        };
        self.run(organization, &job, &[]).await
    }

    /// Adds the page that states who signed a document, like
    /// [`append_signature_page`](crate::pdf::append_signature_page).
    ///
    /// # Errors
    ///
    /// [`RenderFailure`].
    pub async fn append_signature_page(
        &self,
        organization: OrganizationId,
        original: &[u8],
        page: SignaturePage,
        language: &str,
    ) -> Result<Pdf, RenderFailure> {
        let job = Job::Append {
            page,
            language: language.to_owned(),
        };
        self.run(organization, &job, original).await
    }

    async fn run(
        &self,
        organization: OrganizationId,
        job: &Job,
        original: &[u8],
    ) -> Result<Pdf, RenderFailure> {
        #[cfg(test)]
        if self.0.in_process {
            return Ok(child::make(&self.0.templates, job, original)?);
        }
        let frame = wire::frame(job, original).map_err(RenderFailure::Unavailable)?;
        let place = wait_for_place(self.0.place(organization)).await;
        let (_turn, mut process) = place.map_err(RenderFailure::Unavailable)?;
        let time = self.0.limits.wall_time;
        match tokio::time::timeout(time, process.exchange(&frame)).await {
            Ok(Ok((reply, bytes))) => {
                if !reply.worn && process.renders < RENDERS_PER_PROCESS {
                    self.0.idle().push(process);
                }
                let pages = reply.pages?;
                Ok(Pdf { bytes, pages })
            }
            // Do not return this child to `idle`: it is killed when it is dropped.
            Ok(Err(e)) => {
                let what = format!("its process {}: {e}", process.end().await);
                Err(RenderError::TooLarge(what).into())
            }
            Err(_) => Err(RenderFailure::TimedOut(time)),
        }
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Process>> {
        // A poisoned lock is harmless: no code panics while it holds the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an organization's turn, and returns it with a child that is ready.
    async fn place(&self, organization: OrganizationId) -> io::Result<(Turn, Process)> {
        let turn = self.turns.take(organization).await;
        let process = match self.waiting_process() {
            Some(process) => process,
            None => Process::start(&self.program, &self.templates, &self.limits).await?,
        };
        Ok((turn, process))
    }

    /// Takes an idle child that is still alive.
    fn waiting_process(&self) -> Option<Process> {
        let mut idle = self.idle();
        while let Some(mut process) = idle.pop() {
            if process.is_alive() {
                return Some(process);
            }
        }
        None
    }
}

/// The size of a value as JSON, in bytes.
fn json_size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // A value that cannot be serialized counts as too large.
        Err(_) => usize::MAX,
    }
}

/// The path of this program. On Linux it stays valid if the program's file is replaced while this process
/// runs.
fn this_program() -> PathBuf {
    let own = Path::new("/proc/self/exe");
    match std::env::current_exe() {
        Ok(program) if !own.exists() => program,
        _ => own.to_owned(),
    }
}
