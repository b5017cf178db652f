//! Creates executions: new ones, and retries of ended ones.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{ControlRequest, IdempotencyKey};
use crate::{
    engine::{
        Command, Engine, EngineError, FieldFault, Inner,
        driver::Holding,
        machine::{Attendance, Moment, NewExecutionFacts, Reuse, Role, create},
        worker::pool::Slot,
    },
    i18n::Text,
    ids::{ExecutionId, OrganizationId, WorkerId, WorkflowId},
    limits,
    observe::Actor,
    ports::{Claimed, Created, FirstClaim, NewExecution, StoreError, StoreErrorKind},
    query::ExecutionRecord,
    run::{Inputs, Phase, StepStatus},
    storable::{self, MAX_DEPTH, Unstorable},
    time::Timestamp,
};

/// A request to run a workflow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartRequest {
    /// The organization that owns the workflow.
    pub organization_id: OrganizationId,
    /// The workflow; its current version is used.
    pub workflow_id: WorkflowId,
    /// The person or system that starts the execution.
    pub actor: Actor,
    /// The data that the execution works on; a JSON object.
    pub trigger_data: Value,
    /// The origin of the request, such as `manual` or `webhook`.
    pub trigger_type: String,
    /// True if only preflight, trigger and render shall run, without any effect.
    pub dry_run: bool,
    /// The last phase to run; `None` runs all phases.
    pub until_phase: Option<Phase>,
    /// The time before which the execution does not start, at most ten years ahead; `None` starts it at once.
    pub start_at: Option<Timestamp>,
    /// The correlation id, which related calls share.
    pub correlation_id: String,
    /// The W3C trace context.
    pub traceparent: Option<String>,
    /// The idempotency key. If it is set, a repeat of this request returns the first execution.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl StartRequest {
    /// A request to run a workflow with empty trigger data and a new correlation id.
    #[must_use]
    pub fn new(organization_id: OrganizationId, workflow_id: WorkflowId, actor: Actor) -> Self {
        Self {
            organization_id,
            workflow_id,
            actor,
            trigger_data: Value::Object(serde_json::Map::new()),
            trigger_type: "manual".to_owned(),
            dry_run: false,
            until_phase: None,
            start_at: None,
            correlation_id: uuid::Uuid::now_v7().to_string(),
            traceparent: None,
            idempotency_key: None,
        }
    }

    /// Sets the data that the execution works on.
    #[must_use]
    pub fn trigger_data(mut self, data: Value) -> Self {
        self.trigger_data = data;
        self
    }

    /// Sets the origin of the request.
    #[must_use]
    pub fn trigger_type(mut self, trigger_type: impl Into<String>) -> Self {
        self.trigger_type = trigger_type.into();
        self
    }

    /// Makes the execution a dry run: only preflight, trigger and render run, without any effect.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Sets the last phase to run.
    #[must_use]
    pub fn until_phase(mut self, phase: Phase) -> Self {
        self.until_phase = Some(phase);
        self
    }

    /// Sets the time before which the execution does not start. Preflight runs then, too.
    #[must_use]
    pub fn start_at(mut self, at: Timestamp) -> Self {
        self.start_at = Some(at);
        self
    }

    origin_setters!();

    /// The part of the request that must be equal in a repeat: what it asks for, without who asks and when.
    fn content(&self) -> Value {
        let mut content = json!({
            "call": "start",
            "workflow_id": self.workflow_id,
            "trigger_data": self.trigger_data,
            "trigger_type": self.trigger_type,
            "dry_run": self.dry_run,
            "until_phase": self.until_phase,
        });
        // Left out if it is absent, so that a repeat is known to a version that did not know this field.
        if let Some(start) = self.start_at {
            content["start_at"] = json!(start);
        }
        content
    }
}

/// The result of a request to start or retry.
#[derive(Debug, Clone)]
pub struct Started {
    /// The execution.
    pub record: ExecutionRecord,
    /// True if the execution is new, false if an earlier call with the same idempotency key created it.
    pub created: bool,
}

/// How to retry an ended execution.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RetryRequest {
    /// New trigger data; `None` takes the final trigger data of the old execution.
    pub trigger_data: Option<Value>,
    /// The first step to run; the outputs of earlier steps are reused.
    pub from_step: Option<StepRef>,
    /// True for a dry run, as in [`StartRequest`]; `None` takes the old execution's value.
    pub dry_run: Option<bool>,
    /// The last phase to run; `None` runs all phases.
    pub until_phase: Option<Phase>,
    /// The correlation id, which related calls share; `None` takes the old execution's id.
    pub correlation_id: Option<String>,
    /// The W3C trace context.
    pub traceparent: Option<String>,
    /// The idempotency key. If it is set, a repeat of this request returns the first execution.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl RetryRequest {
    /// Replaces the trigger data.
    #[must_use]
    pub fn trigger_data(mut self, data: Value) -> Self {
        self.trigger_data = Some(data);
        self
    }

    /// Sets the first step to run. The outputs of earlier steps are reused.
    #[must_use]
    pub fn from_step(mut self, step: StepRef) -> Self {
        self.from_step = Some(step);
        self
    }

    /// Sets whether the new execution is a dry run.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = Some(dry_run);
        self
    }

    /// Sets the last phase to run.
    #[must_use]
    pub fn until_phase(mut self, phase: Phase) -> Self {
        self.until_phase = Some(phase);
        self
    }

    origin_setters!();

    /// The part of the request that must be equal in a repeat: what it asks for, without who asks and when.
    fn content(&self, execution: ExecutionId) -> Value {
        json!({
            "call": "retry",
            "execution_id": execution,
            "trigger_data": self.trigger_data,
            "from_step": match &self.from_step {
                Some(StepRef::Node(node)) => json!(node),
                Some(StepRef::Position(position)) => json!(position),
                None => Value::Null,
            },
            "dry_run": self.dry_run,
            "until_phase": self.until_phase,
        })
    }
}

/// Names a step of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepRef {
    /// The id of the step's node.
    Node(String),
    /// The step's position, counted from 0.
    Position(u32),
}

impl Engine {
    /// Starts an execution. When this returns, the execution is stored, and a worker moves it forward.
    ///
    /// # Errors
    ///
    /// `NotFound` for the workflow; `InvalidInput` if the trigger data is no object or cannot be
    /// [stored](crate::storable), a text breaks its [limit](crate::limits), or the workflow cannot be read;
    /// `KeyReused`.
    pub async fn start(&self, mut request: StartRequest) -> Result<Started, EngineError> {
        let called = chain_faults(
            &request.actor,
            Some(&request.correlation_id),
            request.traceparent.as_deref(),
            request.idempotency_key.as_ref(),
        );
        let of_data = data_fault(&mut request.trigger_data);
        let of_type = limits::TRIGGER_TYPE.of_field(Some(&request.trigger_type));
        let now = self.inner.now();
        let is_too_late = |start: &Timestamp| !start.is_within_reach_of(now);
        let of_start = request.start_at.filter(is_too_late).map(|_| {
            FieldFault::new(
                "/start_at",
                "out_of_range",
                Text::key("fault-start-too-late"),
            )
        });
        let faults = of_data.into_iter().chain(of_type).chain(of_start);
        refuse_faults(faults.chain(called))?;
        let key = request.idempotency_key.take();
        let idempotency = key.map(|key| key.into_stored(|| request.content()));
        let workflow = self
            .whole_workflow(request.organization_id, request.workflow_id)
            .await?;
        self.create(NewExecutionFacts {
            workflow,
            inputs: Inputs {
                trigger_data: request.trigger_data.into(),
                start_at: request.start_at,
                ..Inputs::default()
            },
            created_by: request.actor,
            trigger_type: request.trigger_type.into(),
            dry_run: request.dry_run,
            until_phase: request.until_phase,
            correlation_id: request.correlation_id.into(),
            traceparent: request.traceparent.map(Into::into),
            retry_of: None,
            follows: None,
            attempt: 1,
            reuse: Vec::new(),
            idempotency,
        })
        .await
    }

    /// Creates a new execution that retries an ended one, on the same version of the workflow. The old
    /// execution stays unchanged.
    ///
    /// # Errors
    ///
    /// `NotFound`; `InvalidTransition` if the execution has not ended; `Unreadable`; `VersionMismatch`;
    /// `InvalidInput` if `from_step` names no step, an earlier step has no output to reuse, the trigger data is
    /// no object or cannot be [stored](crate::storable), or a text breaks its [limit](crate::limits);
    /// `KeyReused`.
    pub async fn retry(
        &self,
        request: ControlRequest,
        mut how: RetryRequest,
    ) -> Result<Started, EngineError> {
        let called = chain_faults(
            &request.actor,
            how.correlation_id.as_deref(),
            how.traceparent.as_deref(),
            how.idempotency_key.as_ref(),
        );
        let of_data = how.trigger_data.as_mut().and_then(data_fault);
        refuse_faults(of_data.into_iter().chain(called))?;
        let (organization, id) = (request.organization_id, request.execution_id);
        let key = how.idempotency_key.take();
        let idempotency = key.map(|key| key.into_stored(|| how.content(id)));
        let (record, _) = self.allowed(&request, Command::Retry).await?;
        let (old, inputs) = (&record.execution, &record.inputs);
        let snapshot = self.inner.store.snapshot(organization, id).await?;
        let workflow = snapshot.ok_or(EngineError::NotFound("execution"))?;
        let reuse = match &how.from_step {
            Some(from) => self.reusable(&request, from).await?,
            None => Vec::new(),
        };
        // The retry starts at once, and waits for events of its own.
        let inputs = Inputs {
            trigger_data: how
                .trigger_data
                .map_or_else(|| Arc::clone(&inputs.trigger_data), Arc::new),
            node_overrides: inputs.node_overrides.clone(),
            ..Inputs::default()
        };
        let correlation_id = how
            .correlation_id
            .map_or_else(|| Arc::clone(&old.correlation_id), Into::into);
        self.create(NewExecutionFacts {
            workflow,
            inputs,
            created_by: request.actor,
            trigger_type: Arc::clone(&old.trigger_type),
            dry_run: how.dry_run.unwrap_or(old.dry_run),
            until_phase: how.until_phase,
            correlation_id,
            traceparent: how.traceparent.map(Into::into),
            retry_of: Some(old.id),
            follows: old.follows,
            attempt: old.attempt + 1,
            reuse,
            idempotency,
        })
        .await
    }

    /// The outputs of the steps before `from`, by position.
    async fn reusable(
        &self,
        request: &ControlRequest,
        from: &StepRef,
    ) -> Result<Vec<(usize, Reuse)>, EngineError> {
        let wrong = |detail: Text| {
            EngineError::InvalidInput(vec![FieldFault::new("/from_step", "unknown_step", detail)])
        };
        let steps = self
            .inner
            .store
            .steps(request.organization_id, request.execution_id)
            .await?;
        let first = match from {
            StepRef::Node(node) => steps.iter().position(|step| step.node_id.as_str() == node),
            StepRef::Position(position) => {
                Some(*position as usize).filter(|position| *position < steps.len())
            }
        };
        let first = first.ok_or_else(|| wrong(Text::key("fault-step")))?;
        let mut reuse = Vec::with_capacity(first);
        for (index, step) in steps.into_iter().take(first).enumerate() {
            match (step.status(), step.output) {
                (StepStatus::Success, Some(output)) => {
                    let from = step.reused_from.unwrap_or(request.execution_id);
                    reuse.push((
                        index,
                        Reuse {
                            from,
                            output,
                            data_out: step.data_out,
                        },
                    ));
                }
                // A skipped step has no output to reuse. The new execution decides again whether to skip the
                // step.
                (StepStatus::Skipped, _) => {}
                _ => {
                    let detail = Text::key("fault-step-without-output");
                    return Err(wrong(detail.with("step", &step.node_id)));
                }
            }
        }
        Ok(reuse)
    }

    pub(in crate::engine) async fn create(
        &self,
        facts: NewExecutionFacts,
    ) -> Result<Started, EngineError> {
        let mut ids = self.inner.ids();
        let now = self.inner.now();
        let moment = Moment {
            now,
            recorded: now,
            ids: &mut ids,
            role: Role::Worker,
            attendance: Attendance::Nobody,
        };
        let run: NewExecution = create(facts, moment, self.inner.env());
        let (execution, inputs) = (run.state.execution.clone(), Arc::clone(&run.state.inputs));
        // If this process has a free slot, the call that stores the execution also leases it, which saves a
        // claim.
        let is_due = run.due_at.is_none_or(|due| due <= now);
        let slot = self.inner.free_slot(&run.state.workflow);
        let created = match slot.filter(|_| is_due) {
            Some(slot) => {
                let (answer, created) = oneshot::channel();
                // Spawned as a task, because the caller may stop waiting while the store works.
                let inner = Arc::clone(&self.inner);
                tokio::spawn(inner.store_and_drive(run, slot, answer));
                let given_up =
                    |_| StoreError::new(StoreErrorKind::Unavailable, "create", "given up");
                created.await.map_err(given_up)??
            }
            None => self.inner.store_new(run, None).await?.0,
        };
        match created {
            Created::New { .. } => Ok(Started {
                record: ExecutionRecord::new(execution, inputs),
                created: true,
            }),
            Created::Existing(id) => {
                let record = self.execution(execution.organization_id, id).await?;
                Ok(Started {
                    record,
                    created: false,
                })
            }
        }
    }
}

/// The faults in the fields that are common to all calls which create an execution.
pub(in crate::engine) fn chain_faults(
    actor: &Actor,
    correlation_id: Option<&str>,
    traceparent: Option<&str>,
    idempotency_key: Option<&IdempotencyKey>,
) -> impl Iterator<Item = FieldFault> + use<> {
    let key = idempotency_key.map(IdempotencyKey::as_str);
    let faults = [
        limits::ACTOR.of_field(Some(&actor.actor_id)),
        limits::CORRELATION_ID.of_field(correlation_id),
        limits::TRACEPARENT.of_field(traceparent),
        limits::IDEMPOTENCY_KEY.of_field(key),
    ];
    faults.into_iter().flatten()
}

/// The fault in trigger data that no workflow accepts: data that cannot be stored, or are no object.
pub(in crate::engine) fn data_fault(data: &mut Value) -> Option<FieldFault> {
    let pointer = || "/trigger_data".to_owned();
    let fault = unstorable(data, pointer);
    fault.or_else(|| {
        let text = Text::key("fault-object");
        (!data.is_object()).then(|| FieldFault::new(pointer(), "invalid_type", text))
    })
}

/// Checks that the store can keep a value from outside. A value that is nested too deep is replaced with
/// `null`.
pub(in crate::engine) fn unstorable(
    value: &mut Value,
    pointer: impl Fn() -> String,
) -> Option<FieldFault> {
    let too_deep = storable::refuse_deep(value, &pointer);
    too_deep.or_else(|| {
        let fault = Unstorable::of_value(value, MAX_DEPTH)?;
        Some(fault.of_field(pointer()))
    })
}

/// Rejects a call if it has faults.
pub(in crate::engine) fn refuse_faults(
    faults: impl IntoIterator<Item = FieldFault>,
) -> Result<(), EngineError> {
    let faults: Vec<_> = faults.into_iter().collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(EngineError::InvalidInput(faults))
    }
}

impl Inner {
    /// Stores a new execution and publishes its events. If `slot` is set, the store may also lease the
    /// execution to this process, and the held execution is returned.
    async fn store_new(
        self: &Arc<Self>,
        mut run: NewExecution,
        slot: Option<&Slot>,
    ) -> Result<(Created, Option<Holding>), StoreError> {
        let (id, state, events) = (
            run.state.execution.id,
            run.state.clone(),
            run.events.clone(),
        );
        let until = self.clock.elapsed() + self.options.relied_on();
        run.claim = slot.map(|slot| FirstClaim {
            worker_id: WorkerId::new(),
            lease_until: self.now() + self.options.lease,
            per_organization: slot.per_organization,
        });
        let created = self.store.create(run).await?;
        let Created::New { lease } = created else {
            return Ok((created, None));
        };
        self.tell_events(&events);
        let Some(lease) = lease else {
            self.publish(&events, 0).await;
            self.wake_a_worker(id).await;
            return Ok((created, None));
        };
        let claimed = Claimed::new(lease, state);
        let mut holding = Holding::begin(self, claimed, until);
        holding.publish(&events).await;
        Ok((created, Some(holding)))
    }

    /// Stores a new execution, answers the caller, and drives it.
    async fn store_and_drive(
        self: Arc<Self>,
        run: NewExecution,
        slot: Slot,
        answer: oneshot::Sender<Result<Created, StoreError>>,
    ) {
        let (created, holding) = match self.store_new(run, Some(&slot)).await {
            Ok((created, holding)) => (Ok(created), holding),
            Err(error) => (Err(error), None),
        };
        // The caller may have stopped waiting.
        let _ = answer.send(created);
        if let Some(holding) = holding {
            slot.drive(holding).await;
        }
    }
}
