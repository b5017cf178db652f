//! Calls on executions that exist. They are checked against the state as it is, put into the
//! inbox, and applied by whoever holds the execution - this process, where nobody does.

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
    ports::{
        ClaimWhat, ExecutionRecord, ResumeSignal, Settlement, Signal, SignalKind, StoreErrorKind,
    },
    run::{Execution, Status, Step},
    storable::Unstorable,
    workflow::{validate::check_overrides, variables::push_token},
};

/// Who wants something of which execution.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControlRequest {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// Which.
    pub execution_id: ExecutionId,
    /// Who.
    pub actor: Actor,
    /// Refuse if the execution's version is another.
    pub if_version: Option<u64>,
}

impl ControlRequest {
    /// A request without a condition.
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

/// How an execution is to go on.
pub type ResumeRequest = ResumeSignal;

/// What became of a call.
#[derive(Debug, Clone)]
pub enum ControlAnswer {
    /// The execution as it is after the call.
    Applied(Box<ExecutionRecord>),
    /// Another process holds the execution and will apply the call.
    Sent,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It has done something.
    Applied,
    /// It no longer applied when its turn came.
    Ignored,
    /// It is in the inbox.
    Sent,
}

async fn within(time: Duration, settled: &mut oneshot::Receiver<bool>) -> Option<Delivery> {
    match tokio::time::timeout(time, settled).await {
        Ok(Ok(true)) => Some(Delivery::Applied),
        Ok(Ok(false)) => Some(Delivery::Ignored),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// How long a call waits, beyond the grace time of handlers, for the holder in this process.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call waits for a holder elsewhere before it answers that the call was sent.
const ELSEWHERE: Duration = Duration::from_millis(100);

impl Engine {
    /// Stops an execution before its next step. A step that is under way ends first.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` where a text exceeds its
    /// [limit](crate::limits).
    pub async fn pause(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        self.control(request, Call::Pause, SignalKind::Pause { reason })
            .await
    }

    /// Ends an execution. A step that is under way is told at once and dropped after the grace
    /// time. What its handler returns meanwhile changes nothing of that the execution ends `canceled`;
    /// what is known of its effect is recorded.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` where a text exceeds its
    /// [limit](crate::limits).
    pub async fn cancel(
        &self,
        request: ControlRequest,
        reason: Option<String>,
    ) -> Result<ControlAnswer, EngineError> {
        self.control(request, Call::Cancel, SignalKind::Cancel { reason })
            .await
    }

    /// Lets an execution go on: after a pause, after a review with what was repaired, or into
    /// delivery.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InvalidTransition`, `Unreadable`, `VersionMismatch`; `InvalidInput` where changes name
    /// unknown nodes, where an outcome is unknown and the request does not settle it, and where it
    /// settles one that is known.
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

    /// The execution, if the call would do something to it; `None` if it asks for what is so. `how`
    /// is how a resume wants it to go on.
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
            // Nobody can let go on what nobody can read.
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

    /// Fails where a part of an execution cannot be read, which only a cancel can do without.
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
            // Something else came first: what the call is told is what it would be told now.
            Delivery::Ignored => match self.checked(&request, call, how.as_ref()).await? {
                None => Ok(ControlAnswer::Applied(Box::new(
                    self.execution(organization, id).await?,
                ))),
                Some(record) => Err(refusal(&record.execution, record.unreadable)),
            },
            // The end of an execution yields to a cancel in its inbox: one that has ended otherwise had
            // ended before.
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

    /// Puts a signal into the inbox and has it applied, if this process can, before it returns.
    pub(super) async fn send(&self, signal: Signal) -> Result<Delivery, EngineError> {
        self.deliver(signal, false).await
    }

    /// Sends a signal that may have been sent before. Where it has done its work, that is all.
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
            // Nobody settles it a second time.
            self.inner.active.forget(id);
            return Ok(Delivery::Ignored);
        }
        let here = self.inner.active.notify(execution_id) || self.apply_here(execution_id).await?;
        let mut delivery = None;
        if !here {
            // The holder looks into the inbox at its next renewal even if the wake-up is lost.
            let _ = self.inner.bus.wake(execution_id).await;
            delivery = within(ELSEWHERE, &mut settled).await;
        }
        // Whoever took it at the same moment may be of this process after all.
        if delivery.is_none() && (here || self.inner.active.notify(execution_id)) {
            let options = &self.inner.options;
            let patience = options.cancel_grace + options.probe_timeout + PATIENCE;
            delivery = within(patience, &mut settled).await;
        }
        self.inner.active.forget(id);
        Ok(delivery.unwrap_or(Delivery::Sent))
    }

    /// Whether a signal waits in the inbox, or may.
    async fn is_pending(&self, execution: ExecutionId, signal: SignalId) -> bool {
        let inbox = self.inner.store.signals(execution).await;
        inbox.map_or(true, |inbox| inbox.iter().any(|known| known.id == signal))
    }

    /// Takes an execution that nobody holds, only to apply what is in its inbox.
    async fn apply_here(&self, execution: ExecutionId) -> Result<bool, EngineError> {
        if self.inner.hold_off_claims().is_some() {
            return Ok(false);
        }
        let (mut claim, until) = self.inner.claim(ClaimWhat::One(execution)).await?;
        let Some(claimed) = claim.claimed.pop() else {
            return Ok(false);
        };
        // Spawned, so that a caller who goes away does not leave the lease behind.
        let holding = Holding::begin(&self.inner, claimed, until);
        tokio::spawn(holding.drive(Mode::ApplySignals));
        Ok(true)
    }
}

/// What cannot be kept of how a person lets an execution go on.
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

/// Why a call is refused, and what is allowed instead.
pub(super) fn refusal(execution: &Execution, unreadable: bool) -> EngineError {
    let (from, mut allowed) = (execution.status, decide::allowed_calls(execution));
    if unreadable {
        allowed.retain(|call| *call == Call::Cancel);
        return EngineError::Unreadable { from, allowed };
    }
    EngineError::InvalidTransition { from, allowed }
}
