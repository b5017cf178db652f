//! People who make control calls. Each call has its own actor, so that its outcome can be found in the audit
//! trail.

use std::{sync::Arc, time::Duration};

use docg_core::{
    approval::Decision,
    engine::{ControlAnswer, ControlRequest, EngineError, Repair, Resume},
    event::EventData,
    ids::OrganizationId,
    ports::{ExecutionReader, Settlement},
    prelude::*,
    query::EventQuery,
};
use docg_store_memory::MemoryStore;
use serde_json::json;

use crate::{
    outside::{Outside, SIGNER},
    plan::Wish,
    readers::Server,
};

/// A call and its answer.
pub(crate) struct Asked {
    pub(crate) execution: ExecutionId,
    pub(crate) actor: Actor,
    /// True if the answer was that the call is pending in the inbox.
    pub(crate) is_pending: bool,
    /// True if the call was a cancel and was accepted.
    pub(crate) is_cancel: bool,
}

/// A person who makes a call through a process.
pub(crate) struct Caller {
    pub(crate) server: Server,
    pub(crate) organization: OrganizationId,
    pub(crate) execution: ExecutionId,
    pub(crate) actor: Actor,
    /// The outside world, in which a person sees whether an effect happened.
    pub(crate) outside: Arc<Outside>,
    pub(crate) store: Arc<MemoryStore>,
}

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(90);

impl Caller {
    pub(crate) async fn ask(self, wish: Wish) -> Asked {
        let asking = async {
            tokio::select! {
                answer = self.call(wish) => answer,
                // The process dies: the connection breaks off.
                () = self.server.1.over() => None,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await.ok().flatten();
        Asked {
            is_pending: matches!(answer, Some(ControlAnswer::Pending)),
            is_cancel: matches!(wish, Wish::Cancel) && answer.is_some(),
            execution: self.execution,
            actor: self.actor,
        }
    }

    /// Makes a call. Returns `None` if no call could be made, or if it was refused or its outcome is unknown.
    async fn call(&self, wish: Wish) -> Option<ControlAnswer> {
        let (engine, organization, id) = (&self.server.0, self.organization, self.execution);
        let request = ControlRequest::new(organization, id, self.actor.clone());
        let answer = match wish {
            Wish::Pause => engine.pause(request, None).await,
            Wish::Cancel => engine.cancel(request, None).await,
            Wish::Resume => engine.resume(request, self.repair().await).await,
            Wish::Vote(yes) => {
                let token = self.outside.token_of(id)?;
                let decision = match yes {
                    true => Decision::Approved,
                    false => Decision::Rejected,
                };
                // Return no answer to check: the actor of a vote is the approver, and not this call's actor.
                let _ = engine.vote(&token, decision, None).await;
                return None;
            }
            Wish::Sign => {
                let (request, envelope) = self.signature().await?;
                self.outside.sign(&envelope);
                let fact = SignerFact::signed(SIGNER, self.outside.signed_at());
                let facts = vec![fact];
                let reported =
                    engine.report_signers(organization, request, facts, self.actor.clone());
                let _ = reported.await;
                return None;
            }
        };
        match answer {
            Ok(answer) => Some(answer),
            Err(EngineError::InvalidTransition { .. } | EngineError::InvalidInput(_)) => None,
            Err(EngineError::Store(_)) => None,
            Err(error) => panic!("{wish:?} is answered with {error:?}"),
        }
    }

    /// A resume that settles an effect whose outcome is unknown.
    async fn repair(&self) -> Resume {
        let steps = self.store.steps(self.organization, self.execution).await;
        let steps = steps.expect("the store itself does not fail");
        let open = steps.iter().find(|step| step.is_outcome_open());
        let settlement =
            open.map(
                |step| match self.outside.effects_of(self.execution, &step.node_id) {
                    0 => Settlement::RunAgain,
                    _ => Settlement::ConfirmDone(json!({})),
                },
            );
        let mut repair = Repair::default();
        repair.settlement = settlement;
        repair.into()
    }

    /// The latest signature request of the execution and its envelope, according to the events.
    async fn signature(&self) -> Option<(docg_core::ids::SignatureRequestId, String)> {
        let query = EventQuery::of(self.organization, self.execution).limit(usize::MAX);
        let events = self.store.events(query).await.expect("it does not fail");
        events.iter().rev().find_map(|event| match &event.data {
            EventData::SignatureRequested {
                signature_request_id,
                envelope_id,
                ..
            } => Some((*signature_request_id, envelope_id.clone())),
            _ => None,
        })
    }
}
