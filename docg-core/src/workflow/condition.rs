//! Conditions: the expressions in a node's `when`.
//!
//! ```text
//! trigger.deal.amount > 1000 and steps.extract.language == "en"
//! trigger.coupon is not defined or trigger.coupon in ["SPRING", "SUMMER"]
//! trigger.items|selectattr("price", ">", 100)|list|length > 0
//! ```
//!
//! The syntax is that of Jinja expressions. The semantics are stricter, and described on this page in full.
//! If the text of a condition alone breaks a rule, the workflow is refused when it is stored. If the
//! condition breaks a rule with the trigger data, preflight reports an issue `invalid_condition`. If it
//! breaks a rule with values of earlier steps, its step goes to review with that code. A broken condition
//! never counts as true or false.
//!
//! # Values
//!
//! | kind | from |
//! |---|---|
//! | null | `none`, JSON's `null` |
//! | true or false | `true`, `false` |
//! | number | `12`, `0.5`, `1e6`; exact, as written: `0.1 + 0.2 == 0.3` |
//! | text | `"…"`, `'…'` |
//! | list | `[1, 2]`, JSON's arrays |
//! | object | JSON's objects |
//!
//! Values are never converted between kinds: `"5"` is not a number, and `0` and `""` are not false. To read a
//! number from a text, convert it: `trigger.amount|float > 1000`. A date is a text. Texts are ordered by
//! their characters, so dates in one form, such as `2026-01-31`, are ordered in time.
//!
//! # What can be read
//!
//! `trigger`, `steps.<node id>` and `execution`, by `.name`, `["name"]` and `[0]` (`[-1]` is the last item).
//! Reading a missing value is an error that names it. `… is defined` tests whether a value exists;
//! `…|default(5)` replaces a missing value. A value that is `null` exists.
//!
//! # Operators
//!
//! | operator | takes | |
//! |---|---|---|
//! | `==` `!=` | two values of one kind, or anything and null | within lists and objects, values of different kinds are unequal |
//! | `<` `<=` `>` `>=` | two numbers or two texts | `1 < x <= 9` compares each operand with the next |
//! | `in` `not in` | a value and a list, a text and a text, a text and an object's names | a list item of another kind than the value is an error, unless an equal item is in the list |
//! | `and` `or` `not` | true or false | if the left side decides, the right side is not evaluated |
//! | `+` `-` `*` `/` `//` `%` `**` | numbers | `//` rounds down, `%` is the remainder; a division by zero is an error; exponents are whole numbers from 0 to 64 |
//! | `~` | texts and whole numbers | joins them to a text |
//! | `a if b else c` | | |
//!
//! # Filters and tests
//!
//! Filters: `abs`, `count`, `d`, `default`, `first`, `float`, `int`, `last`, `length`, `list`, `lower`,
//! `map(attribute="name")` or `map("filter")`, `max`, `min`, `reject`, `rejectattr`, `reverse`, `round`,
//! `select`, `selectattr`, `sort`, `split`, `string`, `sum`, `trim`, `unique`, `upper`.
//!
//! Tests, after `is` and in `select`: `boolean`, `defined`, `divisibleby`, `endingwith`, `even`, `false`,
//! `in`, `integer`, `mapping`, `none`, `number`, `odd`, `sequence`, `startingwith`, `string`, `true`,
//! `undefined`, and the comparisons as `eq`, `ne`, `lt`, `le`, `gt`, `ge` or `"=="`, `"<"` and so on.
//!
//! There is nothing else: no functions, no methods, no slices.
//!
//! # Limits
//!
//! An expression has at most 2,000 characters and 64 levels. Its evaluation takes at most 4 million operations:
//! about one for each value visited, and one for each 16 bytes of text. A number has at most 400 digits.
//! Exceeding a limit is an error like any other.

use std::sync::{Arc, LazyLock};

use self::{
    evaluate::{Evaluation, Stop},
    expression::Parsed,
};
use super::{
    validate::Recent,
    variables::{OwnedPath, Scope, Source},
};

mod evaluate;
mod expression;
mod number;
#[cfg(test)]
mod tests;
mod value;

/// Why a condition cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// The text is not an expression that conditions allow.
    #[error("{0}")]
    Syntax(String),
    /// The condition reads a value that does not exist.
    #[error("the condition reads {}, and nothing is there", .0.join(", "))]
    Absent(Vec<String>),
    /// The condition cannot be evaluated with these values.
    #[error("{0}")]
    Evaluation(String),
}

/// Checks an expression, and returns the paths that it reads, such as `trigger.deal.amount`.
///
/// # Errors
///
/// [`ConditionError::Syntax`] if the text is not an expression, reads anything but `trigger`,
/// `steps.<node id>` and `execution`, or uses a feature that conditions do not have.
pub fn check(expr: &str) -> Result<Vec<String>, ConditionError> {
    Ok(read_paths(expr)?.iter().map(ToString::to_string).collect())
}

/// As [`check`], with the paths split into segments.
pub(crate) fn read_paths(expr: &str) -> Result<Vec<OwnedPath>, ConditionError> {
    Ok(parsed(expr)?.reads.clone())
}

/// Evaluates a condition.
///
/// # Errors
///
/// [`ConditionError::Absent`] if the condition reads a missing value, [`ConditionError::Evaluation`] if the
/// values do not fit the operators or the evaluation costs too much, [`ConditionError::Syntax`] as for
/// [`check`].
pub fn evaluate(expr: &str, scope: &Scope<'_>) -> Result<bool, ConditionError> {
    // A scope knows every value, so `decide` never returns `None`.
    Ok(decide(expr, scope)?.unwrap_or(false))
}

/// Evaluates a condition; `None` if it depends on a value that is not known yet.
pub(crate) fn decide(expr: &str, source: &dyn Source) -> Result<Option<bool>, ConditionError> {
    let parsed = parsed(expr)?;
    match Evaluation::over(source).decide(&parsed.root) {
        Ok(holds) => Ok(Some(holds)),
        Err(Stop::Later) => Ok(None),
        Err(Stop::Absent(path)) => Err(ConditionError::Absent(vec![path])),
        Err(Stop::Misfit(why)) => Err(ConditionError::Evaluation(why)),
        Err(Stop::Spent) => Err(ConditionError::Evaluation(
            "the condition takes too many operations with these data".to_owned(),
        )),
    }
}

/// A rough upper bound on the cost of a condition, in operations, for `data` values to read.
pub(crate) fn price(expr: &str, data: usize) -> usize {
    match parsed(expr) {
        // For each item of a list, the expression may go through another list.
        Ok(parsed) if parsed.loops => expr
            .len()
            .saturating_mul(data.saturating_mul(data) / 64 + 1),
        Ok(_) => expr.len().saturating_mul(data / 64 + 1),
        Err(_) => 0,
    }
}

fn parsed(source: &str) -> Result<Arc<Parsed>, ConditionError> {
    static RECENT: LazyLock<Recent<String, Arc<Parsed>>> = LazyLock::new(|| Recent::new(512));
    if let Some(found) = RECENT.get(source) {
        return Ok(found);
    }
    let made = Arc::new(expression::parse(source)?);
    RECENT.put(source.to_owned(), Arc::clone(&made));
    Ok(made)
}
