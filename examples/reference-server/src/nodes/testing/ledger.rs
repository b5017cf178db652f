//! `test-effect` and `test-repeatable`: node types whose effects tests can count in a ledger, a file.
//!
//! `test-repeatable` declares that it is safe to repeat.
//!
//! `test-effect` shows how an effect that cannot be undone keeps out a stale worker, which was suspended in
//! the middle of the step and continues after a takeover. The new worker's probe writes its fencing token
//! beside the ledger, and from then on a write with a lower token is rejected.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use docg_core::{
    error::{StepFailure, codes},
    run::Phase,
    workflow::{
        EffectContext, Handler, NodeSpec, ParamKind, ParamSpec, Probe, StepOutcome, effect,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Params {
    ledger: String,
    /// The time, in milliseconds, that `test-effect` waits before it writes, and `test-repeatable` after. A
    /// cancellation does not shorten the wait.
    #[serde(default)]
    ms: u64,
}

pub(super) fn handler(folder: PathBuf) -> Handler {
    let spec = NodeSpec::new("test-effect", Phase::Delivery)
        .any_phase()
        .param(ParamSpec::required("ledger", ParamKind::Text))
        .param(ParamSpec::optional("ms", ParamKind::Integer))
        .outputs(["idempotency_key", "attempt"]);
    let probed = folder.clone();
    effect(spec, move |context: EffectContext, params: Params| {
        // If the ledger's path is absolute, `join` keeps it as it is.
        let path = folder.join(&params.ledger);
        async move {
            let key = context.idempotency_key();
            let (line, attempt) = (line(&context), context.attempt);
            let fence = context.fencing_token();
            tokio::time::sleep(Duration::from_millis(params.ms)).await;
            let written =
                tokio::task::spawn_blocking(move || append(&path, &line, &key, fence)).await;
            match written {
                Ok(Ok(true)) => Ok(StepOutcome::Done(output(
                    &context.idempotency_key(),
                    attempt,
                ))),
                Ok(Ok(false)) => Err(StepFailure::outcome_unknown(
                    "lease_lost",
                    "Another worker has taken over.",
                )),
                Ok(Err(e)) => Err(unwritten("storage_error").tech(e)),
                Err(e) => Err(unwritten(codes::HANDLER_PANICKED).tech(e)),
            }
        }
    })
    .probe(move |context, params: Params| {
        let path = probed.join(&params.ledger);
        async move {
            let (key, fence) = (context.idempotency_key(), context.fencing_token());
            let asked = tokio::task::spawn_blocking(move || ask(&path, &key, fence)).await;
            asked.ok().and_then(Result::ok).unwrap_or(Probe::Unknown)
        }
    })
    .into()
}

/// `test-repeatable`: an effect that is safe to repeat. After a takeover it runs again without a probe.
pub(super) fn repeatable(folder: PathBuf) -> Handler {
    let spec = NodeSpec::new("test-repeatable", Phase::Delivery)
        .any_phase()
        .safe_to_repeat()
        .param(ParamSpec::required("ledger", ParamKind::Text))
        .param(ParamSpec::optional("ms", ParamKind::Integer))
        .outputs(["idempotency_key", "attempt"]);
    effect(spec, move |context: EffectContext, params: Params| {
        let path = folder.join(&params.ledger);
        async move {
            let key = context.idempotency_key();
            let line = line(&context);
            // No probe writes a fencing token for this effect, so any token is high enough.
            let written =
                tokio::task::spawn_blocking(move || append(&path, &line, &key, u64::MAX)).await;
            // If the worker dies during this wait, the effect is done but has no result.
            tokio::time::sleep(Duration::from_millis(params.ms)).await;
            match written {
                Ok(Ok(_)) => Ok(StepOutcome::Done(output(
                    &context.idempotency_key(),
                    context.attempt,
                ))),
                Ok(Err(e)) => Err(unwritten("storage_error").tech(e)),
                Err(e) => Err(unwritten(codes::HANDLER_PANICKED).tech(e)),
            }
        }
    })
    .into()
}

fn line(context: &EffectContext) -> String {
    let (execution, node) = (context.execution_id, &context.node_id);
    let (key, attempt) = (context.idempotency_key(), context.attempt);
    format!("{execution}\t{node}\t{key}\t{attempt}\n")
}

fn unwritten(code: &'static str) -> StepFailure {
    StepFailure::outcome_unknown(code, "The ledger could not be written.")
}

fn output(key: &str, attempt: u32) -> Value {
    json!({"idempotency_key": key, "attempt": attempt})
}

/// Opens the ledger and the file of fencing tokens beside it, under the ledger's lock.
fn open(path: &Path) -> std::io::Result<(File, File)> {
    let open = |path: &Path| {
        let mut options = File::options();
        options.create(true).append(true).read(true).open(path)
    };
    let ledger = open(path)?;
    ledger.lock()?;
    let mut fences = path.as_os_str().to_owned();
    fences.push(".fences");
    Ok((ledger, open(Path::new(&fences))?))
}

fn text(mut file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Appends a line and syncs it to the disk. Returns `false` and writes nothing if a worker with a higher
/// fencing token has probed the effect.
fn append(path: &Path, line: &str, key: &str, fence: u64) -> std::io::Result<bool> {
    let (mut ledger, fences) = open(path)?;
    let highest = text(&fences)?
        .lines()
        .filter_map(|line| line.split_once('\t').filter(|(of, _)| *of == key))
        .filter_map(|(_, fence)| fence.parse::<u64>().ok())
        .max();
    if highest > Some(fence) {
        return Ok(false);
    }
    ledger.write_all(line.as_bytes())?;
    ledger.sync_all()?;
    Ok(true)
}

/// Checks whether the effect has happened. Also writes the fencing token, so that from now on workers with a
/// lower token cannot cause the effect.
fn ask(path: &Path, key: &str, fence: u64) -> std::io::Result<Probe> {
    let (ledger, mut fences) = open(path)?;
    fences.write_all(format!("{key}\t{fence}\n").as_bytes())?;
    fences.sync_all()?;
    Ok(find(&text(&ledger)?, key))
}

fn find(ledger: &str, key: &str) -> Probe {
    let line = ledger.lines().find_map(|line| {
        let mut fields = line.split('\t').skip(2);
        (fields.next() == Some(key)).then(|| fields.next().and_then(|attempt| attempt.parse().ok()))
    });
    match line {
        Some(attempt) => Probe::Done(output(key, attempt.unwrap_or(1))),
        None => Probe::NotDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_tells_whether_an_effect_happened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.tsv");
        append(&path, "e1\tn\te1/n\t2\n", "e1/n", 1).unwrap();
        append(&path, "e2\tn\te2/n\t1\n", "e2/n", 1).unwrap();
        let ledger = std::fs::read_to_string(&path).unwrap();
        assert_eq!(find(&ledger, "e1/n"), Probe::Done(output("e1/n", 2)));
        assert_eq!(find(&ledger, "e3/n"), Probe::NotDone);
        assert_eq!(find(&ledger, "n"), Probe::NotDone, "only the key counts");
    }

    #[test]
    fn who_was_taken_over_can_write_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.tsv");
        assert_eq!(ask(&path, "e1/n", 2).unwrap(), Probe::NotDone);
        assert!(!append(&path, "e1\tn\te1/n\t1\n", "e1/n", 1).unwrap());
        assert!(append(&path, "e2\tn\te2/n\t1\n", "e2/n", 1).unwrap());
        assert!(append(&path, "e1\tn\te1/n\t1\n", "e1/n", 2).unwrap());
        assert_eq!(
            ask(&path, "e1/n", 3).unwrap(),
            Probe::Done(output("e1/n", 1))
        );
    }
}
