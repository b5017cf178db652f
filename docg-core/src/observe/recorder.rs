use std::sync::{Arc, Mutex, PoisonError};

use super::{
    audit::{AuditDraft, AuditSink},
    log::{ExecutionLogger, LogDraft, LogLevel},
    redact::Redaction,
};
use crate::{
    i18n::{Locale, Text},
    ids::{ExecutionId, NodeId},
    limits::LOGS_PER_ATTEMPT,
};

/// The index of the last log entry that a recorder keeps.
const LAST: usize = LOGS_PER_ATTEMPT - 1;

/// Collects a step's log entries and audit rows until the commit that stores them. Log entries also go to
/// `tracing` at once, so that they survive the death of the process.
#[derive(Debug, Clone)]
pub struct StepRecorder {
    execution_id: ExecutionId,
    node_id: NodeId,
    redaction: Redaction,
    drafts: Arc<Mutex<Drafts>>,
}

#[derive(Debug, Default)]
struct Drafts {
    logs: Vec<LogDraft>,
    audit: Vec<AuditDraft>,
}

impl StepRecorder {
    /// An empty recorder for one step.
    #[must_use]
    pub fn new(execution_id: ExecutionId, node_id: NodeId) -> Self {
        Self {
            execution_id,
            node_id,
            redaction: Redaction::default(),
            drafts: Arc::default(),
        }
    }

    /// Sets the redaction applied before an entry is stored or goes to `tracing`.
    #[must_use]
    pub fn redacting(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Takes the collected entries and rows out of the recorder.
    #[must_use]
    pub fn take(&self) -> (Vec<LogDraft>, Vec<AuditDraft>) {
        let mut drafts = self.drafts.lock().unwrap_or_else(PoisonError::into_inner);
        (
            std::mem::take(&mut drafts.logs),
            std::mem::take(&mut drafts.audit),
        )
    }
}

impl ExecutionLogger for StepRecorder {
    fn log(&self, entry: LogDraft) {
        let entry = entry.storable(&self.redaction);
        let message = entry.message_human.render(Locale::En);
        let (execution_id, node_id) = (self.execution_id, self.node_id.as_str());
        let tech = entry.message_tech.as_deref();
        match entry.level {
            LogLevel::Ok => tracing::info!(%execution_id, node_id, tech, "{message}"),
            LogLevel::Warn => tracing::warn!(%execution_id, node_id, tech, "{message}"),
            LogLevel::Error => tracing::error!(%execution_id, node_id, tech, "{message}"),
        }
        let mut drafts = self.drafts.lock().unwrap_or_else(PoisonError::into_inner);
        match drafts.logs.len() {
            // Entries beyond the limit go to `tracing` only.
            LOGS_PER_ATTEMPT.. => {}
            LAST => {
                let text = Text::key("log-too-many").with("most", LOGS_PER_ATTEMPT);
                drafts.logs.push(LogDraft::new(LogLevel::Warn, text));
            }
            _ => drafts.logs.push(entry),
        }
    }
}

impl AuditSink for StepRecorder {
    fn record(&self, row: AuditDraft) {
        let row = row.storable();
        self.drafts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .audit
            .push(row);
    }
}
