//! Calls on existing executions. A call is checked against the current state and appended to the signal
//! inbox. The holder of the lease applies it; if nobody holds the execution, this process claims it and
//! applies it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    Engine, EngineError, FieldFault, decide,
    drive::{Holding, Mode},
    kept::OutputRoom,
    start::{none, unstorable},
};
use crate::{
    engine::decide::{Call, Verdict},
    i18n::Text,
    ids::{ExecutionId, OrganizationId, SignalId},
    limits,
    observe::Actor,
    ports::{ClaimWhat, ResumeSignal, Settlement, Signal, SignalKind, StoreErrorKind},
    query::ExecutionRecord,
    run::{Execution, Status, Step},
    storable::Unstorable,
    workflow::{validate::check_overrides, variables::push_token},
};

/// A call on one execution: which execution, who calls, and on which version.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControlRequest {
    /// The organization that owns the execution.
    pub organization_id: OrganizationId,
    /// The execution that the call is for.
    pub execution_id: ExecutionId,
    /// The person or system that makes the call.
    pub actor: Actor,
    /// If set, the call is rejected unless the execution has this version.
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

/// How a resumed execution goes on.
pub type ResumeRequest = ResumeSignal;

/// The result of a call.
#[derive(Debug, Clone)]
pub enum ControlAnswer {
    /// The call was applied; this is the execution after it.
    Applied(Box<ExecutionRecord>),
    /// Another process holds the execution and will apply the call.
    Sent,
}

/// The result of sending a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The signal was applied.
    Applied,
    /// The signal no longer applied when its turn came.
    Ignored,
    /// The signal is in the inbox and not yet settled.
    Sent,
}

async fn within(time: Duration, settled: &mut oneshot::Receiver<bool>) -> Option<Delivery> {
    match tokio::time::timeout(time, settled).await {
        Ok(Ok(true)) => Some(Delivery::Applied),
        Ok(Ok(false)) => Some(Delivery::Ignored),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// How long a call waits for a holder in this process, on top of the handler's grace and probe time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call waits for a holder in another process before it answers `Sent`.
const ELSEWHERE: Duration = Duration::from_millis(100);

impl Engine {
    /// Pauses an execution before its next step. A step that is under way ends first.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` if a text exceeds its
    /// [limit](crate::limits).
    pub async fn pause(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        self.control(request, Call::Pause, SignalKind::Pause { reason })
            .await
    }

    /// Cancels an execution. A handler at work is told to stop at once, and dropped after its grace time.
    /// Whatever the handler returns, the execution ends `canceled`, and its effect is recorded as far as it
    /// is known.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` if a text exceeds its
    /// [limit](crate::limits).
    pub async fn cancel(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        self.control(request, Call::Cancel, SignalKind::Cancel { reason })
            .await
    }

    /// Resumes an execution: after a pause, after a review (with the repaired values), or into delivery.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` if the changes name
    /// unknown nodes, if an outcome is unknown and the request does not settle it, or if the request settles
    /// a known one.
    pub async fn resume(
        &self,
        request: ControlRequest,
        mut how: ResumeRequest,
    ) -> Result<ControlAnswer, EngineError> {
        none(unstorable_of(&mut how))?;
        self.control(request, Call::Resume, SignalKind::Resume(how))
            .await
    }

    async fn check_resume(
        &self,
        request: &ControlRequest,
        execution: &Execution,
        how: &ResumeRequest,
    ) -> Result<(), EngineError> {
        let steps = self
            .inner
            .store
            .steps(request.organization_id, execution.id)
            .await?;
        let mut faults = Vec::new();
        if !how.nodes.is_empty() {
            let workflow = self
                .inner
                .store
                .snapshot(request.organization_id, execution.id)
                .await?;
            let nodes = workflow
                .as_ref()
                .map_or(&[][..], |workflow| &workflow.nodes);
            if let Err(found) = check_overrides(nodes, &how.nodes, &self.inner.registry) {
                faults.extend(
                    found
                        .into_iter()
                        .map(|fault| fault.within("/changes/nodes")),
                );
            }
        }
        let is_open =
            execution.status == Status::NeedsReview && steps.iter().any(Step::is_outcome_open);
        let resolution = match (is_open, &how.settlement) {
            _ if how.approved == Some(false) => None,
            (true, None) => Some(("resolution_required", Text::key("fault-resolution"))),
            (false, Some(_)) => Some((
                "nothing_to_resolve",
                Text::key("fault-resolution-of-nothing"),
            )),
            (true, Some(_)) | (false, None) => None,
        };
        if let Some((code, detail)) = resolution {
            faults.push(FieldFault::new("/resolution", code, detail));
        }
        if let Some(Settlement::ConfirmDone(output)) = &how.settlement
            && let Some(index) = steps.iter().position(Step::is_outcome_open)
            && !OutputRoom::of(&self.inner.options, &steps, index).holds(output)
        {
            let detail = Text::key("fault-output-too-large");
            faults.push(FieldFault::new("/output", "too_large", detail));
        }
        none(faults)
    }

    /// Returns the execution if the call would change it, or `None` if the execution is already as the call
    /// wants it. `how` belongs to a resume.
    async fn checked(
        &self,
        request: &ControlRequest,
        call: Call,
        how: Option<&ResumeRequest>,
    ) -> Result<Option<ExecutionRecord>, EngineError> {
        let record = self
            .execution(request.organization_id, request.execution_id)
            .await?;
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
        match decide::judge(execution, call) {
            // A resume or pause needs the whole state; only a cancel works on an unreadable execution.
            _ if record.unreadable && call != Call::Cancel => Err(refusal(execution, true)),
            Verdict::Apply => {
                if call != Call::Cancel {
                    self.check_readable(&record).await?;
                }
                if let Some(how) = how {
                    self.check_resume(request, execution, how).await?;
                }
                Ok(Some(record))
            }
            Verdict::NoChange => Ok(None),
            Verdict::Refuse => Err(refusal(execution, record.unreadable)),
        }
    }

    /// Rejects an execution of which a part cannot be read. Only a cancel works without that part.
    pub(super) async fn check_readable(&self, record: &ExecutionRecord) -> Result<(), EngineError> {
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
        call: Call,
        kind: SignalKind,
    ) -> Result<ControlAnswer, EngineError> {
        let reason = match &kind {
            SignalKind::Pause { reason } | SignalKind::Cancel { reason } => reason.as_deref(),
            _ => None,
        };
        let of_reason = limits::REASON.of_field(reason);
        let of_actor = limits::ACTOR.of_field(Some(&request.actor.actor_id));
        none(of_reason.into_iter().chain(of_actor))?;
        let (organization, id) = (request.organization_id, request.execution_id);
        let how = match &kind {
            SignalKind::Resume(how) => Some(how.clone()),
            _ => None,
        };
        if self.checked(&request, call, how.as_ref()).await?.is_none() {
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
            // Another signal was applied first. Judge the call again, so that the caller hears the present
            // reason.
            Delivery::Ignored => match self.checked(&request, call, how.as_ref()).await? {
                None => Ok(ControlAnswer::Applied(Box::new(
                    self.execution(organization, id).await?,
                ))),
                Some(record) => Err(refusal(&record.execution, record.unreadable)),
            },
            // An execution never ends over a cancel in its inbox. If it ended otherwise, it ended before the
            // cancel arrived.
            Delivery::Sent if call == Call::Cancel => {
                let record = self.execution(organization, id).await?;
                match record.execution.status {
                    Status::Canceled => Ok(ControlAnswer::Applied(Box::new(record))),
                    status if status.is_terminal() => {
                        Err(refusal(&record.execution, record.unreadable))
                    }
                    _ => Ok(ControlAnswer::Sent),
                }
            }
            Delivery::Sent => Ok(ControlAnswer::Sent),
        }
    }

    /// Appends a signal to the inbox. If this process can, it applies the signal before this returns.
    pub(super) async fn send(&self, signal: Signal) -> Result<Delivery, EngineError> {
        self.deliver(signal, false).await
    }

    /// Sends a signal that may have been sent before. A signal that was already settled is `Ignored`.
    pub(super) async fn send_again(&self, signal: Signal) -> Result<Delivery, EngineError> {
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
        Ok(delivery.unwrap_or(Delivery::Sent))
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
        // Spawned, so that the lease is released even if the caller goes away.
        let holding = Holding::begin(&self.inner, claimed, until);
        tokio::spawn(holding.drive(Mode::ApplySignals));
        Ok(true)
    }
}

/// The values of a resume that the store cannot keep.
fn unstorable_of(how: &mut ResumeRequest) -> Vec<FieldFault> {
    let data = how.trigger_data.iter_mut().flatten();
    let data = data.map(|(name, value)| ("/changes/trigger_data", Some(name), value));
    let nodes = how.nodes.iter_mut();
    let nodes = nodes.map(|(node, params)| ("/changes/nodes", Some(node), params));
    let output = match &mut how.settlement {
        Some(Settlement::ConfirmDone(output)) => Some(("/output", None, output)),
        Some(Settlement::RunAgain) | None => None,
    };
    let values = data.chain(nodes).chain(output);
    let faults = values.filter_map(|(at, name, value)| {
        let pointer = || {
            let mut pointer = at.to_owned();
            if let Some(name) = name {
                push_token(&mut pointer, name);
            }
            pointer
        };
        let of_name = name.and_then(|name| Unstorable::of_name(name));
        let of_value = unstorable(value, pointer);
        of_name.map(|fault| fault.of_field(pointer())).or(of_value)
    });
    faults.collect()
}

/// The error for a rejected call. It names the calls that are allowed.
pub(super) fn refusal(execution: &Execution, unreadable: bool) -> EngineError {
    let (from, mut allowed) = (execution.status, decide::allowed_calls(execution));
    if unreadable {
        allowed.retain(|call| *call == Call::Cancel);
        return EngineError::Unreadable { from, allowed };
    }
    EngineError::InvalidTransition { from, allowed }
}
