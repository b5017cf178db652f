//! How the recommended actions of an execution are carried out: the call that its status allows, and its inputs.

use serde_json::{Value, json};

use crate::{
    actions::{ActionCall, RecommendedAction},
    engine::{Command, Engine, EngineError, allowed_commands},
    preflight::field_of_param,
    query::ExecutionRecord,
    repair::{ActionInput, Asker, ask},
    run::{Execution, Status, Step, WaitKind},
    workflow::{ParamKind, Workflow},
};

/// The name of what is lost when a step that asked for signatures asks again: the signatures already given.
pub const SIGNATURES_LOST: &str = "signatures_lost";

/// The losses that a resume of the execution would cause, by name.
pub(in crate::engine) fn losses(execution: &Execution) -> Vec<&'static str> {
    let waiting = execution.waiting_for.as_ref();
    let review = waiting.filter(|waiting| waiting.kind == WaitKind::Review);
    let given = review.and_then(|waiting| waiting.detail["signatures_given"].as_u64());
    given
        .filter(|given| *given > 0)
        .map(|_| SIGNATURES_LOST)
        .into_iter()
        .collect()
}

impl Engine {
    /// The actions that a person can take on an execution in its present state, each with the call that carries it
    /// out. The call is one that the status allows.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub async fn actions_with_calls(
        &self,
        record: &ExecutionRecord,
        steps: &[Step],
    ) -> Result<Vec<RecommendedAction>, EngineError> {
        let execution = &record.execution;
        let mut actions = self.recommended_actions(execution, steps);
        let mut allowed = allowed_commands(execution);
        if record.unreadable {
            allowed.retain(|command| *command == Command::Cancel);
        }
        // Only a repair needs the definition.
        let may_repair = !actions.is_empty()
            && execution.status == Status::NeedsReview
            && allowed.contains(&Command::Resume);
        let workflow = match may_repair {
            true => {
                let (organization, id) = (execution.organization_id, execution.id);
                self.inner.store.snapshot(organization, id).await?
            }
            false => None,
        };
        for action in &mut actions {
            self.equip(action, record, workflow.as_deref(), &allowed);
        }
        Ok(actions)
    }

    /// Adds the call to an action, if one of the allowed calls carries it out.
    fn equip(
        &self,
        action: &mut RecommendedAction,
        record: &ExecutionRecord,
        workflow: Option<&Workflow>,
        allowed: &[Command],
    ) {
        let command = match &*action.action {
            "cancel" => Command::Cancel,
            _ if allowed.contains(&Command::Resume) => Command::Resume,
            _ => Command::Retry,
        };
        if !allowed.contains(&command) {
            return;
        }
        let mut body = json!({});
        match &*action.action {
            "confirm_done" => {
                body = json!({"resolution": "confirm_done", "output": {}});
                action.inputs.push(ActionInput {
                    pointer: "/output".to_owned(),
                    label: "output".to_owned(),
                    value: json!({}),
                    schema: json!({"type": "object"}),
                });
            }
            "run_again" => body = json!({"resolution": "run_again"}),
            _ => {
                if let Some(workflow) = workflow.filter(|_| command == Command::Resume) {
                    let asker = Asker {
                        workflow,
                        inputs: &record.inputs,
                        registry: &self.inner.registry,
                        redaction: &self.inner.redaction,
                    };
                    let fields = fields(action, asker);
                    let asked = ask(asker, fields.iter().map(String::as_str));
                    (body, action.inputs) = asked;
                }
            }
        }
        if command == Command::Resume {
            action.loses = losses(&record.execution);
        }
        action.call = Some(ActionCall {
            name: command.as_str(),
            body,
        });
    }
}

/// The fields that an action corrects: those that it names, or the parameters of its node that it is about.
fn fields(action: &RecommendedAction, asker: Asker<'_>) -> Vec<String> {
    if let Some(Value::Array(fields)) = action.params.get("fields") {
        let fields = fields.iter().filter_map(Value::as_str);
        return fields.map(str::to_owned).collect();
    }
    let is_about = |kind: &ParamKind| match &*action.action {
        "fix_recipients" => matches!(kind, ParamKind::Email | ParamKind::EmailList),
        "fix_signers" | "contact_signers" => matches!(kind, ParamKind::Signers),
        "fix_approvers" => matches!(kind, ParamKind::EmailList),
        "select_template" => matches!(kind, ParamKind::Template),
        "select_folder" => matches!(kind, ParamKind::Folder),
        "fix_url" => matches!(kind, ParamKind::Url),
        _ => false,
    };
    let node = action.target_node_id.as_ref();
    let node = node.and_then(|id| asker.workflow.nodes.iter().find(|node| node.id == *id));
    let Some(node) = node else { return Vec::new() };
    let spec = asker
        .registry
        .get(&node.node_type)
        .map(|handler| handler.spec());
    let params = spec.into_iter().flat_map(|spec| &spec.params);
    params
        .filter(|param| is_about(&param.kind))
        .map(|param| field_of_param(&node.id, param.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_named_only_in_a_review_of_given_signatures() {
        let mut execution = crate::workflow::variables::tests::execution();
        assert!(losses(&execution).is_empty());
        execution.waiting_for = Some(crate::run::WaitingFor {
            kind: WaitKind::Review,
            since: crate::time::Timestamp::from_millis(0),
            until: None,
            detail: json!({"signatures_given": 1}),
        });
        assert_eq!(losses(&execution), [SIGNATURES_LOST]);
    }
}
