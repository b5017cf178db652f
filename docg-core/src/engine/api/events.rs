//! Events from outside, for which steps wait.

use std::sync::Arc;

use serde_json::Value;

use super::{
    ControlAnswer, ControlRequest,
    control::{Delivery, refusal},
    start::{refuse_faults, unstorable},
};
use crate::{
    engine::{Engine, EngineError, FieldFault},
    i18n::Text,
    ids::{ExecutionId, OrganizationId, SignalId},
    limits,
    observe::Actor,
    ports::{Signal, SignalKind},
    query::AwaitingQuery,
};

/// An event from outside. The step that waits for it gets its payload.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NamedEvent {
    /// The event's name, such as `payment.received`.
    pub name: String,
    /// The key that tells this event from others with the name, such as an order's number.
    pub key: Option<String>,
    /// The event's content: at most 64 KiB of JSON.
    pub payload: Value,
}

impl NamedEvent {
    /// An event without key and payload.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: None,
            payload: Value::Null,
        }
    }

    /// Sets the event's key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the event's content.
    #[must_use]
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = payload;
        self
    }

    fn faults(&mut self) -> Vec<FieldFault> {
        let mut faults: Vec<_> = limits::EVENT_NAME
            .fault("/name", &self.name)
            .into_iter()
            .collect();
        let key = self.key.as_deref();
        faults.extend(key.and_then(|key| limits::EVENT_KEY.fault("/key", key)));
        match unstorable(&mut self.payload, || "/payload".to_owned()) {
            Some(fault) => faults.push(fault),
            None if self.payload.to_string().len() > limits::EVENT_PAYLOAD => {
                let text = Text::key("fault-payload-too-large").with("most", limits::EVENT_PAYLOAD);
                faults.push(FieldFault::new("/payload", "too_long", text));
            }
            None => {}
        }
        faults
    }
}

impl Engine {
    /// Sends an event to an execution. The step that waits for it continues; if no step does yet, the execution
    /// keeps the event for a later step, at most [100](limits::KEPT_EVENTS) of them.
    ///
    /// # Errors
    ///
    /// `NotFound`; `InvalidTransition` if the execution has ended; `Unreadable`; `VersionMismatch`; `InvalidInput`
    /// if a text breaks its [limit](crate::limits), the payload is too large or cannot be
    /// [stored](crate::storable), or the execution keeps too many events already.
    pub async fn notify(
        &self,
        request: ControlRequest,
        mut event: NamedEvent,
    ) -> Result<ControlAnswer, EngineError> {
        let of_actor = limits::ACTOR.of_field(Some(&request.actor.actor_id));
        refuse_faults(event.faults().into_iter().chain(of_actor))?;
        let (organization, id) = (request.organization_id, request.execution_id);
        let record = self.execution(organization, id).await?;
        let actual = record.execution.version;
        if let Some(expected) = request.if_version.filter(|expected| *expected != actual) {
            return Err(EngineError::VersionMismatch { expected, actual });
        }
        if record.execution.status.is_terminal() {
            return Err(refusal(&record.execution, record.unreadable));
        }
        self.check_readable(&record).await?;
        let signal = Signal {
            id: SignalId::new(),
            execution_id: id,
            organization_id: organization,
            actor: request.actor,
            received_at: self.inner.now(),
            if_version: request.if_version,
            kind: SignalKind::Event {
                name: event.name,
                key: event.key,
                payload: Arc::new(event.payload),
            },
        };
        let delivery = self.send(signal).await?;
        let record = self.execution(organization, id).await?;
        match delivery {
            Delivery::Applied => Ok(ControlAnswer::Applied(Box::new(record))),
            Delivery::Pending => Ok(ControlAnswer::Pending),
            Delivery::Ignored if record.execution.status.is_terminal() => {
                Err(refusal(&record.execution, record.unreadable))
            }
            Delivery::Ignored => {
                let text = Text::key("fault-too-many-events").with("most", limits::KEPT_EVENTS);
                Err(EngineError::InvalidInput(vec![FieldFault::new(
                    "/name", "too_many", text,
                )]))
            }
        }
    }

    /// Sends an event to every execution of an organization that waits for its name and key. Returns the
    /// executions. An execution that keeps events for later is found by [`notify`](Self::notify) only.
    ///
    /// # Errors
    ///
    /// `NotFound` if no execution waits for the event; `InvalidInput` as for [`notify`](Self::notify), and without a
    /// key.
    pub async fn notify_by_key(
        &self,
        organization: OrganizationId,
        actor: Actor,
        mut event: NamedEvent,
    ) -> Result<Vec<ExecutionId>, EngineError> {
        let mut faults = event.faults();
        let Some(key) = event.key.clone() else {
            let text = Text::key("fault-blank");
            faults.push(FieldFault::new("/key", "required", text));
            return Err(EngineError::InvalidInput(faults));
        };
        refuse_faults(faults)?;
        let query = AwaitingQuery {
            organization_id: organization,
            name: event.name.clone(),
            key,
            limit: AwaitingQuery::MOST,
        };
        let mut reached = Vec::new();
        for id in self.inner.store.awaiting(query).await? {
            let request = ControlRequest::new(organization, id, actor.clone());
            match self.notify(request, event.clone()).await {
                Ok(_) => reached.push(id),
                // The execution has ended, or was purged, in the meantime.
                Err(EngineError::InvalidTransition { .. } | EngineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if reached.is_empty() {
            return Err(EngineError::NotFound("execution"));
        }
        Ok(reached)
    }
}
