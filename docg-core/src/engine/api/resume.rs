//! How a person resumes an execution, and how the engine checks that.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    ControlRequest,
    start::{refuse_faults, unstorable},
};
use crate::{
    engine::{Engine, EngineError, FieldFault, read::losses},
    i18n::Text,
    ports::{ResumeSignal, Settlement},
    programs,
    query::ExecutionRecord,
    repair::{Changes, new_faults},
    run::{Status, Step},
    storable::Unstorable,
    workflow::{
        validate::{check_overrides, schema},
        variables::push_token,
    },
};

/// A person's decision about an execution that waits for people.
///
/// ```
/// use docg_core::engine::{Repair, Resume};
/// use serde_json::json;
///
/// let unchanged = Resume::default();
/// assert_eq!(unchanged, Resume::Continue(Repair::default()));
///
/// let repaired = Repair::default()
///     .trigger_data("customer", json!({"name": "Ann"}))
///     .param("send-mail", "to", json!("ann@example.com"));
/// let resume = Resume::from(repaired);
/// assert_ne!(resume, Resume::Reject);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Resume {
    /// The execution goes on, with these repairs.
    Continue(Repair),
    /// The execution ends `failed`, with the code `review_rejected`.
    Reject,
}

/// By default, the execution goes on unchanged.
impl Default for Resume {
    fn default() -> Self {
        Self::Continue(Repair::default())
    }
}

impl From<Repair> for Resume {
    fn from(repair: Repair) -> Self {
        Self::Continue(repair)
    }
}

/// The values that a person corrects before an execution goes on; by default none.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Repair {
    /// A JSON Merge Patch (RFC 7396) of the trigger data: `null` removes a field.
    pub trigger_data: Map<String, Value>,
    /// A JSON Merge Patch of the changed node parameters: an object of parameters, by node id.
    pub nodes: Map<String, Value>,
    /// The operations of a JSON Patch (RFC 6902) over `{"trigger_data": …, "nodes": …}`.
    pub patch: Vec<Value>,
    /// The losses that the person accepts, by name: see
    /// [`RecommendedAction::loses`](crate::actions::RecommendedAction::loses).
    pub acknowledge: Vec<String>,
    /// What the person found out about an effect whose outcome is unknown. It is required if the outcome of
    /// the failed step is unknown, and refused otherwise.
    pub settlement: Option<Settlement>,
}

impl Repair {
    /// Sets a field of the trigger data. Objects are merged; anything else replaces the old value.
    #[must_use]
    pub fn trigger_data(mut self, field: impl Into<String>, value: Value) -> Self {
        self.trigger_data.insert(field.into(), value);
        self
    }

    /// Sets a parameter of a node.
    #[must_use]
    pub fn param(
        mut self,
        node: impl Into<String>,
        param: impl Into<String>,
        value: Value,
    ) -> Self {
        let params = self.nodes.entry(node).or_insert(Value::Null);
        if !params.is_object() {
            *params = Value::Object(Map::new());
        }
        if let Value::Object(params) = params {
            params.insert(param.into(), value);
        }
        self
    }

    /// Adds an operation of a JSON Patch.
    #[must_use]
    pub fn operation(mut self, operation: Value) -> Self {
        self.patch.push(operation);
        self
    }

    /// Acknowledges what is lost by the resume.
    #[must_use]
    pub fn acknowledge(mut self, loss: impl Into<String>) -> Self {
        self.acknowledge.push(loss.into());
        self
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            trigger_data: Some(&self.trigger_data),
            nodes: &self.nodes,
            operations: &self.patch,
        }
    }

    /// Answers an unknown outcome.
    #[must_use]
    pub fn settlement(mut self, settlement: Settlement) -> Self {
        self.settlement = Some(settlement);
        self
    }

    /// The faults of the values that the store cannot keep.
    pub(in crate::engine) fn unstorable(&mut self) -> Vec<FieldFault> {
        let data = self.trigger_data.iter_mut();
        let data = data.map(|(name, value)| ("/changes/trigger_data", Some(name), value));
        let nodes = self.nodes.iter_mut();
        let nodes = nodes.map(|(node, params)| ("/changes/nodes", Some(node), params));
        let output = match &mut self.settlement {
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
        let mut faults: Vec<_> = faults.collect();
        for (index, operation) in self.patch.iter_mut().enumerate() {
            faults.extend(unstorable(operation, || format!("/patch/{index}")));
        }
        faults
    }
}

/// The form in which the signal inbox keeps a resume.
impl From<Resume> for ResumeSignal {
    fn from(resume: Resume) -> Self {
        match resume {
            Resume::Continue(Repair {
                trigger_data,
                nodes,
                patch,
                settlement,
                acknowledge: _,
            }) => Self {
                approved: None,
                trigger_data: (!trigger_data.is_empty()).then_some(trigger_data),
                nodes,
                patch,
                settlement,
            },
            Resume::Reject => Self {
                approved: Some(false),
                ..Self::default()
            },
        }
    }
}

impl Engine {
    /// The faults of a repair's changes: those that cannot be applied, parameters that the nodes do not have, and
    /// trigger data that the input schema forbids.
    async fn faults_of_changes(
        &self,
        record: &ExecutionRecord,
        repair: &Repair,
    ) -> Result<Vec<FieldFault>, EngineError> {
        let (organization, id) = (record.execution.organization_id, record.execution.id);
        let workflow = self.inner.store.snapshot(organization, id).await?;
        let Some(workflow) = workflow else {
            return Err(EngineError::NotFound("workflow"));
        };
        let mut faults = Vec::new();
        if let Err(found) = check_overrides(&workflow.nodes, &repair.nodes, &self.inner.registry) {
            let found = found.into_iter();
            faults.extend(found.map(|fault| fault.within("/changes/nodes")));
        }
        let changed = match repair.changes().apply(&record.inputs, &workflow.nodes) {
            Ok(changed) => changed,
            Err(fault) => {
                faults.push(fault);
                return Ok(faults);
            }
        };
        if !repair.patch.is_empty() {
            // A patch may touch any parameter, so check all that a person has changed.
            let checked = check_overrides(
                &workflow.nodes,
                &changed.node_overrides,
                &self.inner.registry,
            );
            let found = checked.err().into_iter().flatten();
            faults.extend(found.map(|fault| fault.within("/nodes")));
        }
        let before = Arc::clone(&record.inputs.trigger_data);
        let after = changed.trigger_data;
        let is_small = schema::is_small(&workflow, &before) && schema::is_small(&workflow, &after);
        faults.extend(match is_small {
            true => new_faults(&workflow, &before, &after),
            false => {
                let job = move || new_faults(&workflow, &before, &after);
                programs::run(organization, job).await
            }
        });
        Ok(faults)
    }

    /// Checks a repair against the execution: its changes must be possible as a whole, it must settle an outcome if,
    /// and only if, one is unknown, and it must acknowledge what is lost.
    pub(in crate::engine) async fn check_repair(
        &self,
        request: &ControlRequest,
        record: &ExecutionRecord,
        repair: &Repair,
    ) -> Result<(), EngineError> {
        let execution = &record.execution;
        let store = &self.inner.store;
        let steps = store.steps(request.organization_id, execution.id).await?;
        let mut faults = Vec::new();
        if !repair.changes().is_empty() {
            faults = self.faults_of_changes(record, repair).await?;
        }
        for loss in losses(execution) {
            if !repair.acknowledge.iter().any(|known| known == loss) {
                let detail = Text::key("fault-not-acknowledged").with("loss", loss);
                faults.push(FieldFault::new("/acknowledge", "not_acknowledged", detail));
            }
        }
        let is_open =
            execution.status == Status::NeedsReview && steps.iter().any(Step::is_outcome_open);
        let resolution = match (is_open, &repair.settlement) {
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
        if let Some(Settlement::ConfirmDone(output)) = &repair.settlement
            && let Some(index) = steps.iter().position(Step::is_outcome_open)
            && !self.inner.options.room(&steps, index).holds(output)
        {
            let detail = Text::key("fault-output-too-large");
            faults.push(FieldFault::new("/output", "too_large", detail));
        }
        refuse_faults(faults)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(resume: Resume) -> Value {
        serde_json::to_value(ResumeSignal::from(resume)).expect("a signal is JSON")
    }

    #[test]
    fn a_resume_is_stored_in_the_form_that_older_inboxes_have() {
        assert_eq!(
            stored(Resume::default()),
            json!({"approved": null, "trigger_data": null, "nodes": {}, "settlement": null})
        );
        assert_eq!(
            stored(Resume::Reject),
            json!({"approved": false, "trigger_data": null, "nodes": {}, "settlement": null})
        );
        let repair = Repair::default()
            .trigger_data("a", json!(1))
            .param("n", "to", json!("x"))
            .param("n", "cc", json!("y"))
            .settlement(Settlement::RunAgain);
        assert_eq!(
            stored(repair.into()),
            json!({
                "approved": null,
                "trigger_data": {"a": 1},
                "nodes": {"n": {"to": "x", "cc": "y"}},
                "settlement": "run_again",
            })
        );
    }
}
