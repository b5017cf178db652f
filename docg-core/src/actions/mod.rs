//! Recommended actions: what a person can do about an issue or an error.
//!
//! An action is found by the exact code, or else by the code without the provider's name before the `.`
//! (`onedrive.folder_not_found` falls back to `folder_not_found`), or else by the domain. So every blocking
//! issue and every failed step has an action.

use std::{borrow::Cow, collections::HashMap};

use serde_json::{Map, Value, json};

use crate::{
    error::{ErrorContext, codes},
    i18n::{Locale, Text},
    ids::NodeId,
    preflight::{Domain, Issue},
    repair::ActionInput,
    run::{Execution, Phase, Status, Step, StepStatus, WaitKind},
};

mod table;
#[cfg(test)]
mod tests;

/// An action that a person can take against a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct RecommendedAction {
    /// The machine-readable name, such as `select_template`.
    pub action: Cow<'static, str>,
    /// The label of a button.
    pub label: Text,
    /// The purpose of the action, for people.
    pub description: Text,
    /// The node concerned.
    pub target_node_id: Option<NodeId>,
    /// The parameters that a client needs to carry the action out. `issue_code` is always present; `fields`
    /// lists the fields concerned.
    pub params: Map<String, Value>,
    /// The call that carries the action out; `None` if only somebody outside docg can act, or if the action is not
    /// about an execution.
    pub call: Option<ActionCall>,
    /// The values that a person has to give, as parts of the call's body.
    pub inputs: Vec<ActionInput>,
    /// The losses that the call causes, by name. The call must acknowledge them.
    pub loses: Vec<&'static str>,
}

/// A call that carries out an action on an execution.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionCall {
    /// The call's name in URLs, such as `resume`.
    pub name: &'static str,
    /// The body of the call, into which the inputs are filled.
    pub body: Value,
}

impl RecommendedAction {
    /// The wire form in the reader's language.
    #[must_use]
    pub fn for_reader(&self, locale: Locale) -> Value {
        json!({
            "action": self.action,
            "label": self.label.render(locale),
            "description": self.description.render(locale),
            "target_node_id": self.target_node_id,
            "params": self.params,
        })
    }

    fn new(
        template: &ActionTemplate,
        code: &str,
        node: Option<&NodeId>,
        field: Option<&str>,
    ) -> Self {
        let mut params = Map::new();
        params.insert("issue_code".to_owned(), code.into());
        if let Some(field) = field {
            params.insert("fields".to_owned(), json!([field]));
        }
        Self {
            action: template.action.clone(),
            label: template.label.clone(),
            description: template.description.clone(),
            target_node_id: node.cloned(),
            params,
            call: None,
            inputs: Vec::new(),
            loses: Vec::new(),
        }
    }

    /// Adds the fields of another action of the same kind at the same node.
    fn merge(&mut self, other: Self) {
        let Some(Value::Array(new)) = other.params.get("fields") else {
            return;
        };
        if let Value::Array(fields) = self.params.entry("fields").or_insert_with(|| json!([])) {
            for field in new {
                if !fields.contains(field) {
                    fields.push(field.clone());
                }
            }
        }
    }
}

/// The reusable part of an action: the action without a node and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionTemplate {
    /// The machine-readable name, such as `select_template`.
    pub action: Cow<'static, str>,
    /// The label of a button.
    pub label: Text,
    /// The purpose of the action, for people.
    pub description: Text,
}

impl ActionTemplate {
    /// An action with its texts.
    #[must_use]
    pub fn new(
        action: impl Into<Cow<'static, str>>,
        label: impl Into<Text>,
        description: impl Into<Text>,
    ) -> Self {
        Self {
            action: action.into(),
            label: label.into(),
            description: description.into(),
        }
    }
}

/// The actions by code. The default catalogue covers docg's own codes; applications add theirs.
#[derive(Debug, Clone)]
pub struct ActionCatalogue {
    by_code: HashMap<Cow<'static, str>, Vec<ActionTemplate>>,
}

impl Default for ActionCatalogue {
    fn default() -> Self {
        let entries = table::entries()
            .into_iter()
            .map(|(code, template)| (Cow::Borrowed(code), vec![template]));
        let mut by_code: HashMap<_, _> = entries.collect();
        for code in [codes::OUTCOME_UNKNOWN, codes::TOO_MANY_TAKEOVERS] {
            by_code.insert(Cow::Borrowed(code), table::outcome_unknown().to_vec());
        }
        Self { by_code }
    }
}

impl ActionCatalogue {
    /// Sets the action for a code, replacing the previous one. A code without a provider's name also applies
    /// to every `<provider>.<code>` without an action of its own.
    pub fn register(&mut self, code: impl Into<Cow<'static, str>>, template: ActionTemplate) {
        self.by_code.insert(code.into(), vec![template]);
    }

    /// The action for an issue.
    #[must_use]
    pub fn for_issue(&self, issue: &Issue) -> RecommendedAction {
        let (node, field) = (issue.node_id.as_ref(), issue.field.as_deref());
        let found = self.find(&issue.code).and_then(<[_]>::first);
        let template = found
            .cloned()
            .unwrap_or_else(|| table::for_domain(issue.domain));
        RecommendedAction::new(&template, &issue.code, node, field)
    }

    /// The actions for several issues: one per code and node, whose `fields` are those of all issues with
    /// this code and node.
    #[must_use]
    pub fn for_issues<'i>(
        &self,
        issues: impl IntoIterator<Item = &'i Issue>,
    ) -> Vec<RecommendedAction> {
        let mut actions: Vec<RecommendedAction> = Vec::new();
        let mut places = HashMap::new();
        for issue in issues {
            let action = self.for_issue(issue);
            let node = action.target_node_id.clone();
            let key = (action.action.clone(), issue.code.clone(), node);
            match places.get(&key) {
                Some(&place) => RecommendedAction::merge(&mut actions[place], action),
                None => {
                    places.insert(key, actions.len());
                    actions.push(action);
                }
            }
        }
        actions
    }

    /// The actions for an error; several if a person has a choice.
    #[must_use]
    pub fn for_error(
        &self,
        error: &ErrorContext,
        domain: Domain,
        node: Option<&NodeId>,
    ) -> Vec<RecommendedAction> {
        self.for_code(&error.code, node, || table::for_domain(domain))
    }

    /// The actions for an execution in its current state, and for failed steps that did not stop the
    /// execution. Empty if nobody needs to act.
    #[must_use]
    pub fn for_execution(&self, execution: &Execution, steps: &[Step]) -> Vec<RecommendedAction> {
        // Somebody ended it on purpose.
        if execution.status == Status::Canceled {
            return Vec::new();
        }
        let mut actions = self.for_status(execution, steps);
        let told = |step: &Step| {
            let mut targets = actions.iter().filter_map(|it| it.target_node_id.as_ref());
            targets.any(|node| *node == step.node_id)
        };
        let failed = |step: &&Step| step.status() == StepStatus::Failed;
        let others: Vec<_> = steps.iter().filter(failed).filter(|it| !told(it)).collect();
        for step in others {
            if let Some(error) = &step.error {
                actions.extend(self.for_step(step, error));
            }
        }
        actions
    }

    fn for_status(&self, execution: &Execution, steps: &[Step]) -> Vec<RecommendedAction> {
        match execution.status {
            Status::NeedsReview => self.for_review(execution, steps),
            Status::Failed => {
                let step = failed_step(execution, steps);
                let error = execution.error.as_ref().or_else(|| step?.error.as_ref());
                let code = error.map_or("failed", |error| &error.code);
                let default = || match step {
                    Some(step) => table::for_domain(domain_of(step.phase)),
                    None => table::retry(),
                };
                self.for_code(code, step.map(|step| &step.node_id), default)
            }
            _ if execution
                .waiting_for
                .as_ref()
                .is_some_and(|waiting| waiting.kind == WaitKind::Confirmation) =>
            {
                let node = execution.current_step.as_ref().map(|step| &step.node_id);
                vec![RecommendedAction::new(
                    &table::confirm_delivery(),
                    "confirmation_required",
                    node,
                    None,
                )]
            }
            Status::Queued
            | Status::Running
            | Status::Ready
            | Status::Sending
            | Status::Sent
            | Status::Signing
            | Status::Signed
            | Status::Paused
            | Status::Completed
            | Status::Canceled => Vec::new(),
        }
    }

    fn for_review(&self, execution: &Execution, steps: &[Step]) -> Vec<RecommendedAction> {
        if let Some(summary) = execution
            .preflight
            .as_ref()
            .filter(|summary| !summary.can_execute())
        {
            return self.for_issues(summary.blocking());
        }
        let step = failed_step(execution, steps);
        match step
            .and_then(|step| step.error.as_ref())
            .or(execution.error.as_ref())
        {
            Some(error) => match step {
                Some(step) => self.for_step(step, error),
                None => self.for_error(error, Domain::Data, None),
            },
            None => vec![RecommendedAction::new(
                &table::resume(),
                "review_required",
                None,
                None,
            )],
        }
    }

    /// The actions for a failed step. If its outcome is unknown, the actions are those that settle the
    /// outcome, whatever the error's code.
    fn for_step(&self, step: &Step, error: &ErrorContext) -> Vec<RecommendedAction> {
        let node = Some(&step.node_id);
        if step.is_outcome_open()
            && let Some(templates) = self.find(codes::OUTCOME_UNKNOWN)
        {
            let action = |it| RecommendedAction::new(it, &error.code, node, None);
            return templates.iter().map(action).collect();
        }
        self.for_error(error, domain_of(step.phase), node)
    }

    fn for_code(
        &self,
        code: &str,
        node: Option<&NodeId>,
        default: impl FnOnce() -> ActionTemplate,
    ) -> Vec<RecommendedAction> {
        let action = |template: &ActionTemplate| RecommendedAction::new(template, code, node, None);
        match self.find(code) {
            Some(templates) => templates.iter().map(action).collect(),
            None => vec![action(&default())],
        }
    }

    /// Finds the actions for the code, or else for the longest part of the code after a `.` that has actions.
    fn find(&self, code: &str) -> Option<&[ActionTemplate]> {
        let mut rest = code;
        loop {
            if let Some(templates) = self.by_code.get(rest) {
                return Some(templates);
            }
            rest = rest.split_once('.')?.1;
        }
    }
}

/// The step that stopped the execution.
fn failed_step<'s>(execution: &Execution, steps: &'s [Step]) -> Option<&'s Step> {
    let current = execution.current_step.as_ref();
    let current =
        current.and_then(|current| steps.iter().find(|step| step.node_id == current.node_id));
    current.filter(|step| step.error.is_some()).or_else(|| {
        steps
            .iter()
            .rev()
            .find(|step| step.status() == StepStatus::Failed && step.error.is_some())
    })
}

/// The subject area of a step's errors, derived from its phase.
fn domain_of(phase: Phase) -> Domain {
    match phase {
        Phase::Preflight | Phase::Trigger => Domain::Data,
        Phase::Render => Domain::Template,
        Phase::Save | Phase::Delivery => Domain::Delivery,
        Phase::Signature => Domain::Signature,
    }
}
