//! Recipients. Folders are asked about, see `permissions`.

use std::{borrow::Cow, str::FromStr};

use email_address::EmailAddress;
use serde_json::Value;

use super::Rule;
use crate::{
    error::codes,
    i18n::Text,
    preflight::{Domain, Issue},
    workflow::{ParamKind, variables::shortened},
};

/// The longest address that RFC 5321 can carry, without its display name.
const MAX_ADDRESS: usize = 254;

/// The address in a text such as `Front desk <desk@example.com>`, or `None` where there is none.
pub(crate) fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    // A line break would begin another header; a display name is longer than an address at most
    // by a name.
    if text.contains(char::is_control) || text.len() > 4 * MAX_ADDRESS {
        return None;
    }
    // Its type differs between the versions of the library.
    let address = EmailAddress::from_str(text).ok()?.email().to_string();
    (address.len() <= MAX_ADDRESS).then_some(address)
}

/// Nobody to deliver to.
pub(super) fn missing_recipient(rule: &Rule<'_, '_>) -> Issue {
    rule.issue(
        Domain::Delivery,
        codes::MISSING_RECIPIENT,
        Text::key("issue-missing-recipient"),
        rule.name,
    )
}

/// What is wrong with one address.
pub(super) fn address(rule: &Rule<'_, '_>, field: String, value: &Value) -> Option<Issue> {
    let text = value.as_str();
    if text.and_then(parse).is_some() {
        return None;
    }
    let domain = if matches!(rule.kind, ParamKind::Signers) {
        Domain::Signature
    } else {
        Domain::Delivery
    };
    let tech = match text {
        Some(text) => format!("{:?} is no e-mail address", shortened(text)),
        None => "an e-mail address is a text".to_owned(),
    };
    Some(
        rule.issue(
            domain,
            codes::INVALID_EMAIL_FORMAT,
            Text::key("issue-invalid-email-format"),
            field,
        )
        .tech(tech),
    )
}

/// What is wrong with a list of addresses; a text alone counts as a list of one.
pub(super) fn addresses(rule: &Rule<'_, '_>, items: &[Option<Cow<'_, Value>>]) -> Vec<Issue> {
    let field = |index: usize| {
        if items.len() == 1 {
            rule.name.to_owned()
        } else {
            format!("{}.{index}", rule.name)
        }
    };
    let known = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.as_deref()?)));
    known
        .filter_map(|(index, item)| address(rule, field(index), item))
        .take(super::MAX_PER_PARAM)
        .collect()
}
