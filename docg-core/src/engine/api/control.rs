//! Commands on existing executions. A command is checked against the current state and appended to the signal
//! inbox. The holder of the lease applies the command; if nobody holds the execution, this process claims it
//! and applies the command.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Repair, Resume, start::refuse_faults};
use crate::{
    engine::{
        Command, Engine, EngineError, allowed_commands,
        driver::{Holding, Mode},
        machine::{self, Verdict},
    },
    ids::{ExecutionId, OrganizationId, SignalId},
    limits,
    observe::Actor,
    ports::{ClaimWhat, Signal, SignalKind, StoreErrorKind},
    query::ExecutionRecord,
    run::{Execution, Status},
};

/// A command on one execution: which execution, who gives it, and for which version.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControlRequest {
    /// The organization that owns the execution.
    pub organization_id: OrganizationId,
    /// The execution that the command is for.
    pub execution_id: ExecutionId,
    /// The person or system that gives the command.
    pub actor: Actor,
    /// If set, the command is rejected unless the execution has this version.
    pub if_version: Option<u64>,
}

impl ControlRequest {
    /// A request that accepts any version of the execution.
    #[must_use]
    pub fn new(organization_id: OrganizationId, execution_id: ExecutionId, actor: Actor) -> Self {
        Self {
            organization_id,
            execution_id,
            actor,
            if_version: None,
        }
    }
}

/// The result of a command.
#[derive(Debug, Clone)]
pub enum ControlAnswer {
    /// The command was applied. Holds the execution after the command.
    Applied(Box<ExecutionRecord>),
    /// The command is stored, but not yet applied. The worker that holds the execution applies it at its next
    /// wake-up or lease renewal; if that worker dies, the next one does. If something else changes the
    /// execution first, so that it no longer allows the command, the command is ignored.
    ///
    /// To see what became of the command, read the execution again, or follow its [`feed`](Engine::feed).
    Pending,
}

/// The result of sending a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Delivery {
    /// The signal was applied.
    Applied,
    /// The signal no longer applied when its turn came.
    Ignored,
    /// The signal is in the inbox and not yet settled.
    Pending,
}

async fn within(time: Duration, settled: &mut oneshot::Receiver<bool>) -> Option<Delivery> {
    match tokio::time::timeout(time, settled).await {
        Ok(Ok(true)) => Some(Delivery::Applied),
        Ok(Ok(false)) => Some(Delivery::Ignored),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// How long a call waits until a holder in this process has settled its signal, on top of the handler's grace
/// and probe time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call waits until a holder in another process has settled its signal, before it answers
/// `Pending`.
const ELSEWHERE: Duration = Duration::from_millis(100);

impl Engine {
    /// Pauses an execution before its next step. A step that is under way ends first.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` if a text breaks its
    /// [limit](crate::limits).
    pub async fn pause(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        let kind = SignalKind::Pause { reason };
        self.control(request, Command::Pause, kind, None).await
    }

    /// Cancels an execution. A handler at work is told to stop at once, and dropped after its grace time.
    /// Whatever the handler returns, the execution ends `canceled`, and the handler's effect is recorded as
    /// far as it is known.
    ///
    /// # Errors
    ///
    /// `NotFound`; `InvalidTransition`; `Unreadable` only if the execution has ended, since a cancel works on
    /// an unreadable execution; `VersionMismatch`; `InvalidInput` if a text breaks its
    /// [limit](crate::limits).
    pub async fn cancel(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        let kind = SignalKind::Cancel { reason };
        self.control(request, Command::Cancel, kind, None).await
    }

    /// Resumes an execution: after a pause, after a review (with the repaired values), or into delivery.
    /// [`Resume::Reject`] ends the execution instead.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` if the repair names
    /// unknown nodes or parameters, if a value is too large or cannot be [stored](crate::storable), if an
    /// outcome is unknown and the repair does not settle it, if the repair settles an outcome that is known,
    /// or if a text breaks its [limit](crate::limits).
    pub async fn resume(
        &self,
        request: ControlRequest,
        mut how: Resume,
    ) -> Result<ControlAnswer, EngineError> {
        let repair = match &mut how {
            Resume::Continue(repair) => {
                refuse_faults(repair.unstorable())?;
                Some(repair.clone())
            }
            Resume::Reject => None,
        };
        let kind = SignalKind::Resume(how.into());
        self.control(request, Command::Resume, kind, repair).await
    }

    /// Checks whether an execution takes a command now, without repairs. Nothing changes.
    ///
    /// # Errors
    ///
    /// Those of the command.
    pub async fn check(
        &self,
        request: &ControlRequest,
        command: Command,
    ) -> Result<(), EngineError> {
        let unchanged = Repair::default();
        let repair = (command == Command::Resume).then_some(&unchanged);
        self.checked(request, command, repair).await.map(drop)
    }

    /// The execution that a command is for, and true if the command would change the execution. It would not
    /// if the execution is already in the state to which the command leads.
    pub(super) async fn allowed(
        &self,
        request: &ControlRequest,
        command: Command,
    ) -> Result<(ExecutionRecord, bool), EngineError> {
        let (organization, id) = (request.organization_id, request.execution_id);
        let record = self.execution(organization, id).await?;
        let execution = &record.execution;
        if let Some(expected) = request
            .if_version
            .filter(|expected| *expected != execution.version)
        {
            return Err(EngineError::VersionMismatch {
                expected,
                actual: execution.version,
            });
        }
        // Only a cancel works on an unreadable execution; all others need the whole state.
        let needs_all = command != Command::Cancel;
        match machine::judge(execution, command) {
            Verdict::Refuse => Err(refusal(execution, record.unreadable)),
            _ if needs_all && record.unreadable => Err(refusal(execution, true)),
            Verdict::NoChange => Ok((record, false)),
            Verdict::Apply => {
                if needs_all {
                    self.check_readable(&record).await?;
                }
                Ok((record, true))
            }
        }
    }

    /// Returns the execution if the command would change it. `repair` belongs to a resume.
    async fn checked(
        &self,
        request: &ControlRequest,
        command: Command,
        repair: Option<&Repair>,
    ) -> Result<Option<ExecutionRecord>, EngineError> {
        let (record, changes) = self.allowed(request, command).await?;
        if let Some(repair) = repair.filter(|_| changes) {
            self.check_repair(request, &record, repair).await?;
        }
        Ok(changes.then_some(record))
    }

    /// Rejects a command if a part of its execution cannot be read. Only a cancel works without that part.
    pub(in crate::engine) async fn check_readable(
        &self,
        record: &ExecutionRecord,
    ) -> Result<(), EngineError> {
        let execution = &record.execution;
        if !record.unreadable {
            match self.inner.store.readable(execution.id).await {
                Err(why) if why.kind == StoreErrorKind::Corrupt => {
                    tracing::error!(execution_id = %execution.id, "it cannot be read: {why}");
                }
                read => return Ok(read?),
            }
        }
        Err(refusal(execution, true))
    }

    async fn control(
        &self,
        request: ControlRequest,
        command: Command,
        kind: SignalKind,
        repair: Option<Repair>,
    ) -> Result<ControlAnswer, EngineError> {
        let reason = match &kind {
            SignalKind::Pause { reason } | SignalKind::Cancel { reason } => reason.as_deref(),
            _ => None,
        };
        let of_reason = limits::REASON.of_field(reason);
        let of_actor = limits::ACTOR.of_field(Some(&request.actor.actor_id));
        refuse_faults(of_reason.into_iter().chain(of_actor))?;
        let (organization, id) = (request.organization_id, request.execution_id);
        let repair = repair.as_ref();
        if self.checked(&request, command, repair).await?.is_none() {
            return Ok(ControlAnswer::Applied(Box::new(
                self.execution(organization, id).await?,
            )));
        }
        let signal = Signal {
            id: SignalId::new(),
            execution_id: id,
            organization_id: organization,
            actor: request.actor.clone(),
            received_at: self.inner.now(),
            if_version: request.if_version,
            kind,
        };
        match self.send(signal).await? {
            Delivery::Applied => Ok(ControlAnswer::Applied(Box::new(
                self.execution(organization, id).await?,
            ))),
            // Another signal was applied first. Judge the command again, so that the error names the present
            // reason.
            Delivery::Ignored => match self.checked(&request, command, repair).await? {
                None => Ok(ControlAnswer::Applied(Box::new(
                    self.execution(organization, id).await?,
                ))),
                Some(record) => Err(refusal(&record.execution, record.unreadable)),
            },
            // An execution never ends while a cancel is in its inbox. If this one ended without being
            // canceled, it ended before the cancel arrived.
            Delivery::Pending if command == Command::Cancel => {
                let record = self.execution(organization, id).await?;
                match record.execution.status {
                    Status::Canceled => Ok(ControlAnswer::Applied(Box::new(record))),
                    status if status.is_terminal() => {
                        Err(refusal(&record.execution, record.unreadable))
                    }
                    _ => Ok(ControlAnswer::Pending),
                }
            }
            Delivery::Pending => Ok(ControlAnswer::Pending),
        }
    }

    /// Appends a signal to the inbox. If this process can apply the signal, it does so before this method
    /// returns.
    pub(in crate::engine) async fn send(&self, signal: Signal) -> Result<Delivery, EngineError> {
        self.deliver(signal, false).await
    }

    /// Sends a signal that may have been sent before. A signal that was already settled is `Ignored`.
    pub(in crate::engine) async fn send_again(
        &self,
        signal: Signal,
    ) -> Result<Delivery, EngineError> {
        self.deliver(signal, true).await
    }

    async fn deliver(&self, signal: Signal, again: bool) -> Result<Delivery, EngineError> {
        let (id, execution_id) = (signal.id, signal.execution_id);
        let mut settled = self.inner.active.settled(id);
        if let Err(e) = self.inner.store.signal(signal).await {
            self.inner.active.forget(id);
            return Err(match e.kind {
                StoreErrorKind::NotFound => EngineError::NotFound("execution"),
                _ => e.into(),
            });
        }
        if again && !self.is_pending(execution_id, id).await {
            // The signal was settled earlier; no second settlement will come.
            self.inner.active.forget(id);
            return Ok(Delivery::Ignored);
        }
        let here = self.inner.active.notify(execution_id) || self.apply_here(execution_id).await?;
        let mut delivery = None;
        if !here {
            // If the wake-up is lost, the holder still sees the signal at its next lease renewal.
            let _ = self.inner.bus.wake(execution_id).await;
            delivery = within(ELSEWHERE, &mut settled).await;
        }
        // Another task of this process may have claimed the execution in between.
        if delivery.is_none() && (here || self.inner.active.notify(execution_id)) {
            let options = &self.inner.options;
            let patience = options.cancel_grace + options.probe_timeout + PATIENCE;
            delivery = within(patience, &mut settled).await;
        }
        self.inner.active.forget(id);
        Ok(delivery.unwrap_or(Delivery::Pending))
    }

    /// True if a signal is in the inbox, and also if the inbox cannot be read.
    async fn is_pending(&self, execution: ExecutionId, signal: SignalId) -> bool {
        let inbox = self.inner.store.signals(execution).await;
        inbox.map_or(true, |inbox| inbox.iter().any(|known| known.id == signal))
    }

    /// Claims an execution that nobody holds, only to apply the signals in its inbox.
    async fn apply_here(&self, execution: ExecutionId) -> Result<bool, EngineError> {
        if self.inner.hold_off_claims().is_some() {
            return Ok(false);
        }
        let (mut claim, until) = self.inner.claim(ClaimWhat::One(execution)).await?;
        let Some(claimed) = claim.claimed.pop() else {
            return Ok(false);
        };
        // Spawned as a task, so that the lease is released even if the caller stops waiting.
        let holding = Holding::begin(&self.inner, claimed, until);
        tokio::spawn(holding.drive(Mode::ApplySignals));
        Ok(true)
    }
}

/// The error for a rejected command. It names the commands that are allowed.
pub(in crate::engine) fn refusal(execution: &Execution, unreadable: bool) -> EngineError {
    let (from, mut allowed) = (execution.status, allowed_commands(execution));
    if unreadable {
        allowed.retain(|command| *command == Command::Cancel);
        return EngineError::Unreadable { from, allowed };
    }
    EngineError::InvalidTransition { from, allowed }
}
