//! Shows an execution's progress on standard error: as a bar if that is a terminal, else as lines.

use std::{cell::RefCell, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// The line that was printed last, so that it is not printed again.
    said: RefCell<String>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(100);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos:>3}%  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            said: RefCell::new(String::new()),
        }
    }

    /// Shows the progress of an execution, from an event or a state.
    pub(super) fn show(&self, event: &str, state: &Value) {
        let text = |value: &Value, name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let status = text(state, "status");
        let step = state
            .get("current_step")
            .map(|step| text(step, "label"))
            .unwrap_or_default();
        let done = state
            .get("progress")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let failed = match (event, state.get("data")) {
            ("step.failed", Some(data)) => format!(" - {}", text(data, "error_human")),
            ("signature.signer.signed" | "signature.signer.viewed", Some(data)) => {
                let what = event.rsplit('.').next().unwrap_or_default();
                format!(" - {what}: {}", text(data, "signer_email"))
            }
            _ => String::new(),
        };
        let step = if step.is_empty() {
            step
        } else {
            format!(": {step}")
        };
        let line = format!("{status}{step}{failed}");
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(line);
            }
            None if *self.said.borrow() != line => {
                eprintln!("{done:>3}%  {line}");
                self.said.replace(line);
            }
            None => {}
        }
    }

    /// Prints a line above the progress bar.
    pub(super) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
