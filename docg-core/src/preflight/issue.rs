use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    i18n::{Locale, Text},
    ids::NodeId,
    limits,
    observe::Redaction,
    storable,
    time::Timestamp,
    workflow::variables::push_token,
};

/// The subject area of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Trigger data and variables.
    Data,
    /// Templates.
    Template,
    /// The permissions of connections.
    Permissions,
    /// Recipients and folders.
    Delivery,
    /// Signers.
    Signature,
}

impl Domain {
    /// All five variants.
    pub const ALL: [Self; 5] = [
        Self::Data,
        Self::Template,
        Self::Permissions,
        Self::Delivery,
        Self::Signature,
    ];

    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Template => "template",
            Self::Permissions => "permissions",
            Self::Delivery => "delivery",
            Self::Signature => "signature",
        }
    }
}

/// The place of a value of the trigger data, as an issue names it.
pub(crate) fn field_of_trigger(path: &[String]) -> String {
    let mut field = "/trigger_data".to_owned();
    path.iter().for_each(|name| push_token(&mut field, name));
    field
}

/// The place of a node's parameter, as an issue names it.
pub(crate) fn field_of_param(node: &NodeId, param: &str) -> String {
    let mut field = "/nodes".to_owned();
    push_token(&mut field, node.as_str());
    push_token(&mut field, param);
    field
}

/// The severity of an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The execution cannot go on before a person has repaired the issue.
    Blocking,
    /// People should know the issue, but the execution goes on.
    Warning,
}

impl Severity {
    /// All variants.
    pub const ALL: [Self; 2] = [Self::Blocking, Self::Warning];
}

/// A problem that preflight found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// The stable, machine-readable code.
    pub code: Cow<'static, str>,
    /// The subject area.
    pub domain: Domain,
    /// The severity.
    pub severity: Severity,
    /// The text for people: what is wrong and what would be right, without technical terms.
    pub message_human: Text,
    /// The text for technicians.
    pub message_tech: Option<String>,
    /// The node that has the problem; `None` if the problem concerns no single node.
    pub node_id: Option<NodeId>,
    /// The field that has the problem, as a JSON pointer: `/trigger_data/customer/email`, or
    /// `/nodes/<node id>/<parameter>`. If a check of a node names only a parameter, the engine adds the rest.
    pub field: Option<String>,
}

impl Issue {
    /// A blocking issue.
    #[must_use]
    pub fn blocking(
        domain: Domain,
        code: impl Into<Cow<'static, str>>,
        human: impl Into<Text>,
    ) -> Self {
        Self {
            code: code.into(),
            domain,
            severity: Severity::Blocking,
            message_human: human.into(),
            message_tech: None,
            node_id: None,
            field: None,
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(
        domain: Domain,
        code: impl Into<Cow<'static, str>>,
        human: impl Into<Text>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::blocking(domain, code, human)
        }
    }

    /// Sets the node that has the problem.
    #[must_use]
    pub fn at(mut self, node: impl Into<NodeId>) -> Self {
        self.node_id = Some(node.into());
        self
    }

    /// Sets the field that has the problem.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds the text for technicians.
    #[must_use]
    pub fn tech(mut self, tech: impl ToString) -> Self {
        self.message_tech = Some(tech.to_string());
        self
    }

    /// Completes a field that names only a parameter of the node, or a value in it, such as `signers.0.email`.
    pub(crate) fn with_whole_field(mut self) -> Self {
        if let (Some(field), Some(node)) = (&self.field, &self.node_id)
            && !field.starts_with('/')
        {
            let mut names = field.split('.');
            let param = names.next().unwrap_or_default();
            let mut whole = field_of_param(node, param);
            names.for_each(|name| push_token(&mut whole, name));
            self.field = Some(whole);
        }
        self
    }

    /// Removes control characters and secrets, and cuts long texts. An issue's texts may repeat another
    /// system's answer.
    pub(crate) fn printable(self, redaction: &Redaction) -> Self {
        Self {
            code: storable::printable_cow(self.code, limits::CODE),
            message_human: self.message_human.printable(redaction),
            message_tech: self.message_tech.map(|tech| limits::tech(tech, redaction)),
            node_id: self.node_id.map(|node| {
                storable::cut(storable::printable(node.to_string()), limits::NODE_ID.max).into()
            }),
            field: self
                .field
                .map(|field| storable::cut(storable::printable(field), limits::HUMAN)),
            ..self
        }
    }

    /// The issue as JSON, in the reader's language. If `technical` is `Some(true)`, it includes
    /// `message_tech`; if `Some(false)`, `message_tech` is null; if `None`, the key is left out.
    #[must_use]
    pub fn for_reader(&self, locale: Locale, technical: Option<bool>) -> Value {
        let mut issue = json!({
            "code": self.code,
            "domain": self.domain,
            "severity": self.severity,
            "message_human": self.message_human.render(locale),
            "node_id": self.node_id,
            "field": self.field,
        });
        if let Some(allowed) = technical {
            issue["message_tech"] = if allowed {
                json!(self.message_tech)
            } else {
                Value::Null
            };
        }
        issue
    }
}

/// The result of preflight, as stored with the execution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PreflightSummary {
    /// The number of blocking issues.
    pub blocking_count: u32,
    /// The number of warnings.
    pub warning_count: u32,
    /// When preflight ended.
    pub completed_at: Option<Timestamp>,
    /// All issues, sorted by domain.
    pub issues: Vec<Issue>,
}

impl PreflightSummary {
    /// Summarizes issues.
    #[must_use]
    pub fn new(mut issues: Vec<Issue>, completed_at: Timestamp) -> Self {
        issues.sort_by_key(|issue| issue.domain);
        let count = |severity| {
            u32::try_from(
                issues
                    .iter()
                    .filter(|issue| issue.severity == severity)
                    .count(),
            )
            .unwrap_or(u32::MAX)
        };
        Self {
            blocking_count: count(Severity::Blocking),
            warning_count: count(Severity::Warning),
            completed_at: Some(completed_at),
            issues,
        }
    }

    /// A copy for events, without texts for technicians.
    #[must_use]
    pub fn for_events(self: &Arc<Self>) -> Arc<Self> {
        if self.issues.iter().all(|issue| issue.message_tech.is_none()) {
            return Arc::clone(self);
        }
        let mut summary = Self::clone(self);
        for issue in &mut summary.issues {
            issue.message_tech = None;
        }
        Arc::new(summary)
    }

    /// True if no issue is blocking.
    #[must_use]
    pub fn can_execute(&self) -> bool {
        self.blocking_count == 0
    }

    /// The blocking issues.
    pub fn blocking(&self) -> impl Iterator<Item = &Issue> {
        self.issues
            .iter()
            .filter(|issue| issue.severity == Severity::Blocking)
    }

    /// The issues as JSON, grouped by domain: the API's field `groups`. If `technical` is true, issues
    /// include `message_tech`; for an event it must be false.
    #[must_use]
    pub fn groups_for_readers(&self, locale: Locale, technical: bool) -> Value {
        self.groups(locale, technical.then_some(true))
    }

    /// The issues as JSON, grouped by domain. `technical` has the same meaning as in [`Issue::for_reader`].
    #[must_use]
    pub fn groups(&self, locale: Locale, technical: Option<bool>) -> Value {
        let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for issue in &self.issues {
            groups
                .entry(issue.domain.as_str())
                .or_default()
                .push(issue.for_reader(locale, technical));
        }
        json!(groups)
    }
}
