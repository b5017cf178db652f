//! The faults of parameter values.
//!
//! Preflight, the check before a definition is stored, and the engine before it calls a handler all use
//! [`faults`]. So the step accepts every value that preflight accepts.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    spec::{NodeSpec, ParamKind, ParamSpec},
    validate::kinds::{is_blank, is_blank_as, misfit},
    variables::{Found, Path, Source, has_variables, push_token, settle, shortened},
};
use crate::{
    address::Address,
    error::{StepFailure, codes},
    i18n::Text,
    limits::PEOPLE,
    preflight::Domain,
};

pub(crate) mod signers;

/// The largest number of faults reported for a list, which may have thousands of wrong entries.
const MAX_FAULTS: usize = 20;

/// A parameter's value, as far as it is known.
pub(crate) struct Given<'v> {
    value: Cow<'v, Value>,
    /// The source of the variables within the value; `None` if the value holds no variables.
    source: Option<&'v dyn Source>,
}

impl<'v> Given<'v> {
    /// A value whose variables have all been replaced.
    pub(crate) fn known(value: &'v Value) -> Self {
        Self {
            value: Cow::Borrowed(value),
            source: None,
        }
    }

    /// A value as written in a definition; `None` if only a later step gives it.
    pub(crate) fn look(value: &'v Value, source: &'v dyn Source) -> Option<Self> {
        match value {
            Value::String(_) if has_variables(value) => Some(Self {
                value: settle(value, source)?,
                source: None,
            }),
            _ => Some(Self {
                value: Cow::Borrowed(value),
                source: Some(source),
            }),
        }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// A value inside this value; `None` if only a later step gives it.
    fn within<'s>(&'s self, value: &'s Value) -> Option<Given<'s>> {
        match self.source {
            Some(source) => Given::look(value, source),
            None => Some(Given::known(value)),
        }
    }

    fn items(&self) -> impl Iterator<Item = Option<Given<'_>>> {
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().map(|item| self.within(item))
    }

    fn is_blank_as(&self, kind: &ParamKind) -> bool {
        match (kind, &*self.value) {
            (ParamKind::EmailList | ParamKind::Signers, Value::Array(_)) => self
                .items()
                .all(|item| item.is_some_and(|item| is_blank(item.value()))),
            (_, value) => is_blank_as(value, kind),
        }
    }
}

/// A source without values, to check a definition by itself.
pub(crate) struct NothingKnown;

impl Source for NothingKnown {
    fn find(&self, _: &Path<'_>) -> Found<'_> {
        Found::Later
    }
}

/// A fault of a parameter.
pub(crate) struct ParamFault {
    pub(crate) code: &'static str,
    pub(crate) domain: Domain,
    /// The place within the value, as names and indexes. Empty for the value itself.
    at: Vec<String>,
    /// The text for people, without its parameters `label` and `field`.
    text: Text,
    pub(crate) tech: Option<String>,
}

impl ParamFault {
    fn new(domain: Domain, code: &'static str, text: Text) -> Self {
        Self {
            code,
            domain,
            at: Vec::new(),
            text,
            tech: None,
        }
    }

    fn at(mut self, place: impl ToString) -> Self {
        self.at.push(place.to_string());
        self
    }

    fn tech(mut self, tech: impl ToString) -> Self {
        self.tech = Some(tech.to_string());
        self
    }

    /// The field's name, such as `signers.0.email`.
    pub(crate) fn field(&self, param: &str) -> String {
        let names = std::iter::once(param).chain(self.at.iter().map(String::as_str));
        names.collect::<Vec<_>>().join(".")
    }

    /// The field's name for people. Positions in lists count from 1: `signers › 1 › email`.
    fn words(&self, param: &str) -> String {
        let mut words = param.to_owned();
        for name in &self.at {
            let position = name
                .parse::<usize>()
                .map(|at| at.saturating_add(1).to_string());
            words.push_str(" › ");
            words.push_str(position.as_ref().unwrap_or(name));
        }
        words
    }

    /// The place within the parameter as a JSON pointer.
    pub(crate) fn pointer(&self) -> String {
        let mut pointer = String::new();
        for name in &self.at {
            push_token(&mut pointer, name);
        }
        pointer
    }

    /// The text for people.
    pub(crate) fn human(&self, label: &str, param: &str) -> Text {
        self.text
            .clone()
            .with("label", label)
            .with("field", self.words(param))
    }

    /// True if the value is only missing or misspelled. A definition with this fault may be stored, because a
    /// person is expected to fill the value in or correct it.
    pub(crate) fn is_left_to_people(&self) -> bool {
        [
            codes::MISSING_REQUIRED_FIELD,
            codes::MISSING_RECIPIENT,
            codes::TEMPLATE_NOT_SELECTED,
            codes::NO_SIGNERS,
            codes::SIGNER_MISSING_EMAIL,
            codes::INVALID_EMAIL_FORMAT,
        ]
        .contains(&self.code)
    }
}

/// The faults of a parameter's value; none if the value is not known yet.
pub(crate) fn faults(param: &ParamSpec, given: Option<&Given<'_>>) -> Vec<ParamFault> {
    let Some(given) = given else {
        return Vec::new();
    };
    if given.is_blank_as(&param.kind) {
        let missing = param.required.then(|| missing(&param.kind));
        return missing.into_iter().collect();
    }
    if let Some(expected) = misfit(given.value(), &param.kind) {
        let text = Text::key("issue-invalid-parameter-format");
        let fault = ParamFault::new(Domain::Data, codes::INVALID_FIELD_FORMAT, text);
        return vec![fault.tech(format!("{expected} is needed"))];
    }
    let mut found = match param.kind {
        ParamKind::Email => address(Domain::Delivery, given.value())
            .into_iter()
            .collect(),
        ParamKind::EmailList => addresses(given),
        ParamKind::Signers => signers::faults(given),
        ParamKind::Json
        | ParamKind::Text
        | ParamKind::OneOf(_)
        | ParamKind::Integer
        | ParamKind::Duration
        | ParamKind::Boolean
        | ParamKind::Object
        | ParamKind::Url
        | ParamKind::Template
        | ParamKind::Folder
        | ParamKind::Connection
        | ParamKind::File => Vec::new(),
    };
    found.truncate(MAX_FAULTS);
    found
}

fn missing(kind: &ParamKind) -> ParamFault {
    let (domain, code, key) = match kind {
        ParamKind::Template => (
            Domain::Template,
            codes::TEMPLATE_NOT_SELECTED,
            "issue-template-not-selected",
        ),
        ParamKind::EmailList => (
            Domain::Delivery,
            codes::MISSING_RECIPIENT,
            "issue-missing-recipient",
        ),
        ParamKind::Signers => (Domain::Signature, codes::NO_SIGNERS, "issue-no-signers"),
        ParamKind::Json
        | ParamKind::Text
        | ParamKind::OneOf(_)
        | ParamKind::Integer
        | ParamKind::Duration
        | ParamKind::Boolean
        | ParamKind::Object
        | ParamKind::Url
        | ParamKind::Email
        | ParamKind::Folder
        | ParamKind::Connection
        | ParamKind::File => (
            Domain::Data,
            codes::MISSING_REQUIRED_FIELD,
            "issue-missing-required-parameter",
        ),
    };
    let text = Text::Key {
        key: key.into(),
        params: Vec::new(),
    };
    ParamFault::new(domain, code, text)
}

/// The fault of an address, if any.
fn address(domain: Domain, value: &Value) -> Option<ParamFault> {
    let invalid = |text| ParamFault::new(domain, codes::INVALID_EMAIL_FORMAT, text);
    let Some(text) = value.as_str() else {
        let fault = invalid(Text::key("issue-invalid-email-format"));
        return Some(fault.tech("an e-mail address is a text"));
    };
    let error = text.parse::<Address>().err()?;
    let tech = format!("{:?} is no e-mail address: {error}", shortened(text));
    Some(invalid(error.human()).tech(tech))
}

/// The faults of a list of addresses; a single text counts as a list of one.
fn addresses(given: &Given<'_>) -> Vec<ParamFault> {
    let count = match given.value() {
        Value::Array(items) => items.len(),
        one => return address(Domain::Delivery, one).into_iter().collect(),
    };
    let mut found: Vec<_> = too_many(Domain::Delivery, count, PEOPLE)
        .into_iter()
        .collect();
    for (index, item) in given.items().enumerate().take(PEOPLE) {
        let fault = item.and_then(|item| address(Domain::Delivery, item.value()));
        // If there is only one address, the parameter's name is enough.
        found.extend(fault.map(|fault| if count == 1 { fault } else { fault.at(index) }));
    }
    found
}

fn too_many(domain: Domain, count: usize, most: usize) -> Option<ParamFault> {
    (count > most).then(|| {
        let text = Text::key("issue-too-many").with("count", count);
        ParamFault::new(domain, codes::TOO_MANY, text.with("most", most))
            .tech(format!("{count} entries, at most {most}"))
    })
}

/// Why a handler cannot be called with these parameters, whose variables have all been replaced.
pub(crate) fn failure(spec: &NodeSpec, params: &Value, label: &str) -> Option<StepFailure> {
    let found: Vec<_> = spec
        .params
        .iter()
        .flat_map(|param| {
            let given = Given::known(params.get(param.name).unwrap_or(&Value::Null));
            let found = faults(param, Some(&given));
            found.into_iter().map(move |fault| (param.name, fault))
        })
        .collect();
    let (name, first) = found.first()?;
    let tech: Vec<_> = found
        .iter()
        .map(|(name, fault)| {
            let tech = fault.tech.as_deref().unwrap_or(fault.code);
            format!("{}: {tech}", fault.field(name))
        })
        .collect();
    Some(StepFailure::review(first.code, first.human(label, name)).tech(tech.join("; ")))
}

impl NodeSpec {
    /// Removes optional parameters that are blank: `null`, or a text of white space if the kind is not text.
    /// A handler's check and run do not see them.
    pub(crate) fn drop_blanks(&self, params: &mut Map<String, Value>) {
        for param in self.params.iter().filter(|param| !param.required) {
            let is_dropped = |value: &Value| match param.kind {
                ParamKind::Json => false,
                ParamKind::Text => value.is_null(),
                _ => is_blank_as(value, &param.kind),
            };
            if params.get(param.name).is_some_and(is_dropped) {
                params.remove(param.name);
            }
        }
    }
}
