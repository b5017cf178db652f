//! Checks of templates, folders and connections at providers: the questions to ask, and the issues that
//! follow from the answers.

use crate::{
    i18n::{self, Locale, Text},
    ids::NodeId,
    preflight::{Domain, Issue, ProbeFailure, TemplateFacts},
    run::Phase,
    workflow::{ParamKind, variables::shortened},
};

use super::{Rule, template};

/// The kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::preflight) enum Resource {
    Template,
    Folder,
    Connection,
}

/// A question to the probe about one resource, asked once for all parameters that name the resource.
pub(in crate::preflight) struct Question {
    pub(in crate::preflight) resource: Resource,
    pub(in crate::preflight) name: String,
    askers: Vec<Asker>,
}

/// A parameter that names a resource.
pub(in crate::preflight) struct Asker {
    place: usize,
    node: NodeId,
    label: String,
    field: &'static str,
    /// True if the node asks for signatures, so that its connection belongs to a signature provider.
    signs: bool,
}

impl Asker {
    pub(super) fn new(rule: &Rule<'_>) -> Self {
        let signs = rule.node.phase == Phase::Signature
            || rule
                .spec
                .params
                .iter()
                .any(|param| param.kind == ParamKind::Signers);
        Self {
            place: rule.place,
            node: rule.node.id.clone(),
            label: rule.node.label.to_string(),
            field: rule.param.name,
            signs,
        }
    }
}

/// The probe's answer to a question.
pub(in crate::preflight) enum Answer {
    Template(TemplateFacts),
    Fine,
    Failed(ProbeFailure),
}

impl Question {
    pub(super) fn add(questions: &mut Vec<Self>, resource: Resource, name: &str, asker: Asker) {
        match questions
            .iter_mut()
            .find(|question| question.resource == resource && question.name == name)
        {
            Some(question) => question.askers.push(asker),
            None => questions.push(Self {
                resource,
                name: name.to_owned(),
                askers: vec![asker],
            }),
        }
    }

    /// The issues that follow from the answer, at most one for each parameter.
    pub(in crate::preflight) fn issues(
        &self,
        answer: &Answer,
        large_from: u64,
    ) -> Vec<(usize, Issue)> {
        let issue = |asker: &Asker| match answer {
            Answer::Fine => None,
            Answer::Template(facts) => {
                template::large(*facts, large_from, &asker.node, &asker.label, asker.field)
            }
            Answer::Failed(ProbeFailure::Unreachable(why)) => Some(
                check_failed(
                    self.domain(asker, None),
                    &asker.node,
                    &asker.label,
                    &format!("{:?}: {why}", shortened(&self.name)),
                )
                .field(asker.field),
            ),
            Answer::Failed(ProbeFailure::Refused { code, human, tech }) => {
                let text = human.clone().unwrap_or_else(|| {
                    text_for(code, self.resource)
                        .with("label", &asker.label)
                        .with("field", asker.field)
                });
                let refused = Issue::blocking(self.domain(asker, Some(code)), code.clone(), text)
                    .at(asker.node.clone())
                    .field(asker.field);
                let name = shortened(&self.name);
                Some(
                    refused.tech(
                        tech.as_ref().map_or_else(
                            || format!("{name:?}"),
                            |tech| format!("{name:?}: {tech}"),
                        ),
                    ),
                )
            }
        };
        self.askers
            .iter()
            .filter_map(|asker| Some((asker.place, issue(asker)?)))
            .collect()
    }

    fn domain(&self, asker: &Asker, code: Option<&str>) -> Domain {
        const PERMISSIONS: [&str; 5] = [
            "insufficient_permissions",
            "oauth_expired",
            "oauth_revoked",
            "api_key_invalid",
            "connection_error",
        ];
        let plain = code.map(|code| code.rsplit('.').next().unwrap_or(code));
        match self.resource {
            Resource::Connection if asker.signs => Domain::Signature,
            Resource::Connection => Domain::Permissions,
            _ if plain.is_some_and(|code| PERMISSIONS.contains(&code)) => Domain::Permissions,
            Resource::Template => Domain::Template,
            Resource::Folder => Domain::Delivery,
        }
    }
}

/// A warning that a check could not be made. Preflight goes on, but not silently.
pub(in crate::preflight) fn check_failed(
    domain: Domain,
    node: &NodeId,
    label: &str,
    tech: &str,
) -> Issue {
    let code = match domain {
        Domain::Data => "data.check_failed",
        Domain::Template => "template.check_failed",
        Domain::Permissions => "permissions.check_failed",
        Domain::Delivery => "delivery.check_failed",
        Domain::Signature => "signature.check_failed",
    };
    Issue::warning(
        domain,
        code,
        Text::key("issue-check-failed").with("label", label),
    )
    .at(node.clone())
    .tech(tech)
}

/// docg's own text for a code. If the whole code has no text, tries the part after each dot
/// (`folder_not_found` in `drive.folder_not_found`), and at last a general text for the kind of resource.
fn text_for(code: &str, resource: Resource) -> Text {
    let mut rest = code;
    loop {
        let key = format!("issue-{}", rest.replace(['_', '.'], "-"));
        if i18n::message(Locale::En, &key, &[]).is_some() {
            return Text::Key {
                key: key.into(),
                params: Vec::new(),
            };
        }
        match rest.split_once('.') {
            Some((_, after)) => rest = after,
            None => {
                return match resource {
                    Resource::Template => Text::key("issue-template-refused"),
                    Resource::Folder => Text::key("issue-folder-refused"),
                    Resource::Connection => Text::key("issue-resource-refused"),
                };
            }
        }
    }
}
