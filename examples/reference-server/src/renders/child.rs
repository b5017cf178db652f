//! The side of the child process, which renders the documents.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::mpsc,
    thread,
};

use super::wire::{self, Job, Ready, Reply, Setup};
use crate::pdf::{Pdf, RenderError, RenderRequest, Templates, append_signature_page, render};

/// The stack size, in bytes: Typst recurses as deep as templates and data are nested.
const STACK: usize = 16 * 1024 * 1024;

/// Renders the jobs that arrive on standard input, until the input is closed.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("this command is for the server itself, which starts it: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let Some((setup, _)) = wire::read::<Setup>(&mut input)? else {
        return Ok(());
    };
    limits::set(&setup)?;
    // A panic's message goes to the server in the reply, not to standard error.
    std::panic::set_hook(Box::new(|_| {}));
    let templates = Templates::new(setup.templates).map_err(io::Error::other)?;
    let (jobs, due) = mpsc::sync_channel(1);
    let cpu_seconds = setup.cpu_seconds;
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || work(&templates, cpu_seconds, &due))?;
    wire::write(&mut io::stdout(), &Ready, &[])?;
    while let Some(job) = wire::read::<Job>(&mut input)? {
        if jobs.send(job).is_err() {
            break;
        }
    }
    // The server has closed the input, or the rendering thread has ended. Returning from this thread ends the
    // process, even if the rendering thread is at work.
    Ok(())
}

fn work(templates: &Templates, cpu_seconds: u64, due: &mpsc::Receiver<(Job, Vec<u8>)>) {
    while let Ok((job, original)) = due.recv() {
        let made = limits::allow_cpu_seconds(cpu_seconds)
            .map_err(|e| RenderError::TooLarge(format!("CPU time cannot be bounded: {e}")))
            .and_then(|()| make(templates, &job, &original));
        let (pages, bytes, is_broken) = match made {
            Ok(pdf) => (Ok(pdf.pages), pdf.bytes, false),
            Err(error) => {
                let is_broken = matches!(error, RenderError::TooLarge(_));
                (Err(error), Vec::new(), is_broken)
            }
        };
        let worn = is_broken || limits::is_half_used();
        if wire::write(&mut io::stdout(), &Reply { pages, worn }, &bytes).is_err() {
            return;
        }
    }
}

pub(super) fn make(templates: &Templates, job: &Job, original: &[u8]) -> Result<Pdf, RenderError> {
    let made = catch_unwind(AssertUnwindSafe(|| match job {
        Job::Render {
            template,
            data,
            today,
        } => render(templates, RenderRequest::new(template, data, *today)),
        Job::Append { page, language } => append_signature_page(original, page, language),
    }));
    made.unwrap_or_else(|payload| {
        let text = panic_text(payload.as_ref());
        Err(RenderError::TooLarge(format!(
            "the typesetter broke: {text}"
        )))
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}

#[cfg(unix)]
mod limits {
    use std::io;

    use rustix::{
        process::{Resource, Rlimit, getrlimit, setrlimit},
        time::{ClockId, clock_gettime},
    };

    use super::super::wire::Setup;

    pub(super) fn set(setup: &Setup) -> io::Result<()> {
        set_limit(Resource::As, setup.memory)?;
        // The child writes no file, and a core dump would contain somebody's contract.
        set_limit(Resource::Fsize, 0)?;
        set_limit(Resource::Core, 0)
    }

    /// Limits the CPU time from now on. If it is used up, the system kills the process.
    pub(super) fn allow_cpu_seconds(seconds: u64) -> io::Result<()> {
        let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
        let used = u64::try_from(used).map_err(io::Error::other)?;
        set_limit(Resource::Cpu, used + 1 + seconds)
    }

    /// True if so much memory is mapped that the next document would get much less than the first one did.
    pub(super) fn is_half_used() -> bool {
        let Some(most) = getrlimit(Resource::As).current else {
            return false;
        };
        let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
            return false;
        };
        let pages = statm.split(' ').next().and_then(|it| it.parse().ok());
        let page_size = rustix::param::page_size() as u64;
        pages.is_some_and(|pages: u64| pages.saturating_mul(page_size) > most / 2)
    }

    fn set_limit(resource: Resource, most: u64) -> io::Result<()> {
        let maximum = getrlimit(resource).maximum;
        let most = maximum.map_or(most, |maximum| most.min(maximum));
        let limit = Rlimit {
            current: Some(most),
            maximum,
        };
        Ok(setrlimit(resource, limit)?)
    }
}

/// Systems other than Unix have no such limits: there only the server's time limit applies.
#[cfg(not(unix))]
mod limits {
    use std::io;

    use super::super::wire::Setup;

    pub(super) fn set(_: &Setup) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn allow_cpu_seconds(_: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_half_used() -> bool {
        false
    }
}
