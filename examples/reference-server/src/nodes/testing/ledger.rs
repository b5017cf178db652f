//! `test-effect`: an effect that can be counted.

use std::{
    io::Write,
    path::{Path, PathBuf},
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
}

pub(super) fn handler(folder: PathBuf) -> Handler {
    let spec = NodeSpec::new("test-effect", Phase::Delivery)
        .any_phase()
        .param(ParamSpec::required("ledger", ParamKind::Text))
        .outputs(["idempotency_key", "attempt"]);
    let probed = folder.clone();
    effect(spec, move |context: EffectContext, params: Params| {
        // An absolute path stays as it is.
        let path = folder.join(&params.ledger);
        async move {
            let key = context.idempotency_key();
            let (execution, node, attempt) =
                (context.execution_id, &context.node_id, context.attempt);
            let line = format!("{execution}\t{node}\t{key}\t{attempt}\n");
            let written = tokio::task::spawn_blocking(move || append(&path, &line)).await;
            match written {
                Ok(Ok(())) => Ok(StepOutcome::Done(output(&key, attempt))),
                Ok(Err(e)) => Err(StepFailure::outcome_unknown(
                    "storage_error",
                    "The ledger could not be written.",
                )
                .tech(e)),
                Err(e) => Err(StepFailure::outcome_unknown(
                    codes::HANDLER_PANICKED,
                    "The ledger could not be written.",
                )
                .tech(e)),
            }
        }
    })
    .probe(move |context, params: Params| {
        let path = probed.join(&params.ledger);
        async move {
            let key = context.idempotency_key();
            match tokio::fs::read_to_string(&path).await {
                Ok(ledger) => find(&ledger, &key),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Probe::NotDone,
                Err(_) => Probe::Unknown,
            }
        }
    })
    .into()
}

fn output(key: &str, attempt: u32) -> Value {
    json!({"idempotency_key": key, "attempt": attempt})
}

/// One write in append mode, so that lines of several processes do not mix; on the disk when it
/// returns.
fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
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
        append(&path, "e1\tn\te1/n\t2\n").unwrap();
        append(&path, "e2\tn\te2/n\t1\n").unwrap();
        let ledger = std::fs::read_to_string(&path).unwrap();
        assert_eq!(find(&ledger, "e1/n"), Probe::Done(output("e1/n", 2)));
        assert_eq!(find(&ledger, "e3/n"), Probe::NotDone);
        assert_eq!(find(&ledger, "n"), Probe::NotDone, "only the key counts");
    }
}
