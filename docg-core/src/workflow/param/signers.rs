//! Checks and reads lists of signers: `{email, name?, order?}`.

use std::collections::HashSet;

use serde_json::Value;

use super::{Given, ParamFault, address, too_many};
use crate::{
    address::{Address, person_name},
    error::codes,
    i18n::Text,
    preflight::Domain,
    signature::{MAX_ORDER, MAX_SIGNERS, NewSigner},
    workflow::{validate::kinds::is_blank, variables::shortened},
};

/// The faults of a list of signers. Skips values that only a later step gives.
pub(super) fn faults(given: &Given<'_>) -> Vec<ParamFault> {
    let count = given.value().as_array().map_or(0, Vec::len);
    let mut found: Vec<_> = too_many(Domain::Signature, count, MAX_SIGNERS)
        .into_iter()
        .collect();
    let mut seen = HashSet::new();
    for (index, signer) in given.items().enumerate().take(MAX_SIGNERS) {
        let Some(signer) = signer else { continue };
        let mut reading = Reading {
            position: index + 1,
            found: &mut found,
        };
        let email = reading.signer(&signer).email;
        if email.is_some_and(|email| !seen.insert(email.key())) {
            let text = Text::key("issue-duplicate-signer");
            reading.fault(codes::DUPLICATE_SIGNER, text, "email");
        }
    }
    found
}

/// Reads the signers from a value whose variables have all been replaced.
pub(crate) fn read(value: &Value) -> Result<Vec<NewSigner>, Vec<ParamFault>> {
    let given = Given::known(value);
    let Value::Array(items) = value else {
        let text = Text::key("issue-invalid-parameter-format");
        let fault = ParamFault::new(Domain::Signature, codes::INVALID_FIELD_FORMAT, text);
        return Err(vec![fault.tech("a list of signers is needed")]);
    };
    let found = faults(&given);
    if !found.is_empty() {
        return Err(found);
    }
    let mut none = Vec::new();
    let signers = items.iter().enumerate().filter_map(|(index, item)| {
        let mut reading = Reading {
            position: index + 1,
            found: &mut none,
        };
        let Parts { email, name, order } = reading.signer(&Given::known(item));
        let email = email?;
        let name = name.or_else(|| email.name().map(str::to_owned));
        Some(NewSigner {
            email: email.email().to_owned(),
            name,
            order,
        })
    });
    Ok(signers.collect())
}

/// The fields of a signer.
const FIELDS: [&str; 3] = ["email", "name", "order"];

/// The valid parts of a signer.
#[derive(Default)]
struct Parts {
    email: Option<Address>,
    name: Option<String>,
    order: Option<u32>,
}

struct Reading<'f> {
    /// The signer's position in the list, from 1.
    position: usize,
    found: &'f mut Vec<ParamFault>,
}

impl Reading<'_> {
    fn fault(&mut self, code: &'static str, text: Text, field: &str) -> &mut ParamFault {
        let text = text.with("position", self.position);
        let mut fault = ParamFault::new(Domain::Signature, code, text).at(self.position - 1);
        if !field.is_empty() {
            fault = fault.at(field);
        }
        self.found.push(fault);
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    fn invalid(&mut self, field: &str, expected: &str) {
        let text = Text::key("issue-invalid-signer");
        self.fault(codes::INVALID_FIELD_FORMAT, text, field).tech = Some(expected.to_owned());
    }

    fn signer(&mut self, given: &Given<'_>) -> Parts {
        let mut parts = Parts::default();
        let Value::Object(fields) = given.value() else {
            self.invalid("", "a signer is {email, name?, order?}");
            return parts;
        };
        for unknown in fields
            .keys()
            .filter(|name| !FIELDS.contains(&name.as_str()))
        {
            let text = Text::key("issue-signer-unknown-field").with("name", shortened(unknown));
            self.fault(codes::UNKNOWN_FIELD, text, &shortened(unknown))
                .tech = Some("a signer is {email, name?, order?}".to_owned());
        }
        let field = |name| given.within(fields.get(name).unwrap_or(&Value::Null));
        let [email, name, order] = FIELDS.map(field);
        parts.email = email.and_then(|email| self.email(email.value()));
        parts.name = name.and_then(|name| self.name(name.value()));
        parts.order = order.and_then(|order| self.order(order.value()));
        parts
    }

    fn email(&mut self, value: &Value) -> Option<Address> {
        if is_blank(value) {
            let text = Text::key("issue-signer-missing-email");
            self.fault(codes::SIGNER_MISSING_EMAIL, text, "email");
            return None;
        }
        if let Some(fault) = address(Domain::Signature, value) {
            self.found.push(fault.at(self.position - 1).at("email"));
            return None;
        }
        value.as_str()?.parse().ok()
    }

    fn name(&mut self, value: &Value) -> Option<String> {
        let name = match value {
            Value::Null => return None,
            Value::String(name) => name,
            _ => {
                self.invalid("name", "a name is a text");
                return None;
            }
        };
        match person_name(name) {
            Ok(name) => Some(name),
            Err(error) => {
                let text = Text::key("issue-signer-name");
                self.fault(codes::INVALID_SIGNER_NAME, text, "name").tech = Some(error.to_string());
                None
            }
        }
    }

    fn order(&mut self, value: &Value) -> Option<u32> {
        match value {
            Value::Null => return None,
            Value::Number(_) => {}
            _ => {
                self.invalid("order", "an order is a whole number");
                return None;
            }
        }
        let order = value.as_u64().and_then(|order| u32::try_from(order).ok());
        let order = order.filter(|order| (1..=MAX_ORDER).contains(order));
        if order.is_none() {
            let text = Text::key("issue-signer-order").with("most", MAX_ORDER);
            self.fault(codes::INVALID_SIGNER_ORDER, text, "order").tech = Some(format!(
                "{value} is not a whole number from 1 to {MAX_ORDER}"
            ));
        }
        order
    }
}
