//! Signers.

use std::{borrow::Cow, collections::HashSet};

use serde_json::Value;

use super::{MAX_PER_PARAM, Rule, delivery};
use crate::{
    error::codes,
    i18n::Text,
    preflight::{Domain, Issue},
    workflow::validate::kinds::is_blank,
};

/// Nobody to sign.
pub(super) fn no_signers(rule: &Rule<'_, '_>) -> Issue {
    rule.issue(
        Domain::Signature,
        codes::NO_SIGNERS,
        Text::key("issue-no-signers"),
        rule.name,
    )
}

/// What is wrong with a list of signers. Those that only come later are left out.
pub(super) fn signers(rule: &Rule<'_, '_>, items: &[Option<Cow<'_, Value>>]) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut seen = HashSet::new();
    let known = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| Some((index, item.as_deref()?)));
    for (index, signer) in known {
        let field = |name: &str| format!("{}.{index}{name}", rule.name);
        let issue = |code, text: Text, name: &str| {
            rule.issue(
                Domain::Signature,
                code,
                text.with("position", index + 1),
                field(name),
            )
        };
        let Value::Object(fields) = signer else {
            issues.push(
                issue(
                    codes::INVALID_FIELD_FORMAT,
                    Text::key("issue-invalid-signer"),
                    "",
                )
                .tech("a signer is {email, name?, order?}"),
            );
            continue;
        };
        let email = fields.get("email").unwrap_or(&Value::Null);
        if is_blank(email) {
            issues.push(issue(
                codes::SIGNER_MISSING_EMAIL,
                Text::key("issue-signer-missing-email"),
                ".email",
            ));
        } else if let Some(invalid) = delivery::address(rule, field(".email"), email) {
            issues.push(invalid);
        } else if let Some(address) = email.as_str().and_then(delivery::parse)
            && !seen.insert(address.to_lowercase())
        {
            issues.push(issue(
                codes::DUPLICATE_SIGNER,
                Text::key("issue-duplicate-signer"),
                ".email",
            ));
        }
        let wrong = [
            (
                "name",
                fields
                    .get("name")
                    .is_some_and(|name| !name.is_null() && !name.is_string()),
            ),
            (
                "order",
                fields
                    .get("order")
                    .is_some_and(|order| !order.is_null() && !order.is_u64()),
            ),
        ];
        for (name, _) in wrong.into_iter().filter(|(_, wrong)| *wrong) {
            issues.push(
                issue(
                    codes::INVALID_FIELD_FORMAT,
                    Text::key("issue-invalid-signer"),
                    &format!(".{name}"),
                )
                .tech("name is a text, order a whole number"),
            );
        }
        if issues.len() >= MAX_PER_PARAM {
            break;
        }
    }
    issues
}
