//! Conditions: the expressions that a node's `when` may hold.
//!
//! ```text
//! trigger.deal.amount > 1000 and steps.extract.language == "en"
//! trigger.coupon is not defined or trigger.coupon in ["SPRING", "SUMMER"]
//! trigger.items|selectattr("price", ">", 100)|list|length > 0
//! ```
//!
//! The syntax is that of Jinja expressions; what they mean is stricter, and all of it is on this page.
//! A condition that breaks one of the rules is refused when the workflow is stored, as far as its text
//! shows that. Else it is an issue `invalid_condition` in preflight, where the values are known by then,
//! and otherwise its step goes to review with that code. It is never taken for true or false.
//!
//! # Values
//!
//! | kind | from |
//! |---|---|
//! | null | `none`, JSON's `null` |
//! | true or false | `true`, `false` |
//! | number | `12`, `0.5`, `1e6`; exact, as it is written: `0.1 + 0.2 == 0.3` |
//! | text | `"…"`, `'…'` |
//! | list | `[1, 2]`, JSON's arrays |
//! | object | JSON's objects |
//!
//! A kind is never taken for another: `"5"` is no number, `0` and `""` are not false. To use a number
//! that is written in a text, say so: `trigger.amount|float > 1000`. A date is a text; texts are ordered
//! by their characters, so dates in one form, such as `2026-01-31`, are ordered in time.
//!
//! # What can be read
//!
//! `trigger`, `steps.<node id>` and `execution`, by `.name`, `["name"]` and `[0]` (`[-1]` is the last).
//! Reading what is not there is an error that names it. `… is defined` asks whether it is there, and
//! `…|default(5)` stands in for it. `null` is there.
//!
//! # Operators
//!
//! | operator | takes | |
//! |---|---|---|
//! | `==` `!=` | two of one kind, or anything and null | within lists and objects, values of different kinds are unequal |
//! | `<` `<=` `>` `>=` | two numbers or two texts | `1 < x <= 9` compares each with the next |
//! | `in` `not in` | a value and a list, a text and a text, a text and an object's names | an item of another kind is an error, unless an equal one is found |
//! | `and` `or` `not` | true or false | the right side is left alone where the left side decides |
//! | `+` `-` `*` `/` `//` `%` `**` | numbers | `//` rounds down, `%` is what remains; a division by zero is an error; powers are whole, 0 to 64 |
//! | `~` | texts and whole numbers | puts them together as a text |
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
//! Nothing else is there: no functions, no methods, no slices.
//!
//! # What it may cost
//!
//! An expression has at most 2,000 bytes and 64 levels, and its evaluation 4 million operations: about one for each
//! value that is looked at, and for each 16 bytes of text. A number has at most 400 digits. Past that it
//! is an error as any other.

use std::sync::{Arc, LazyLock};

use self::{
    evaluate::{Evaluation, Stop},
    expression::Parsed,
};
use super::{
    validate::Recent,
    variables::{Scope, Source, Target},
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
    /// It is not an expression that conditions may hold.
    #[error("{0}")]
    Syntax(String),
    /// It reads what is not there.
    #[error("the condition reads {}, and nothing is there", .0.join(", "))]
    Absent(Vec<String>),
    /// It cannot be worked out with these values.
    #[error("{0}")]
    Evaluation(String),
}

/// Checks an expression, and gives the paths that it reads, such as `trigger.deal.amount`.
///
/// # Errors
///
/// [`ConditionError::Syntax`] where it is no expression, reads anything but `trigger`,
/// `steps.<node id>` and `execution`, or uses what conditions do not have.
pub fn check(expr: &str) -> Result<Vec<String>, ConditionError> {
    Ok(targets(expr)?.iter().map(ToString::to_string).collect())
}

/// As [`check`], with the paths taken apart.
pub(crate) fn targets(expr: &str) -> Result<Vec<Target>, ConditionError> {
    Ok(parsed(expr)?.reads.clone())
}

/// Whether the condition holds.
///
/// # Errors
///
/// [`ConditionError::Absent`] where it reads what is not there, [`ConditionError::Evaluation`]
/// where its values do not fit together or it costs too much, [`ConditionError::Syntax`] as for
/// [`check`].
pub fn evaluate(expr: &str, scope: &Scope<'_>) -> Result<bool, ConditionError> {
    // A scope knows everything that there is: nothing comes later.
    Ok(decide(expr, scope)?.unwrap_or(false))
}

/// Whether the condition holds, or `None` where that depends on what only comes later.
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

/// At most what it costs to evaluate a condition over so much data, in operations, roughly.
pub(crate) fn price(expr: &str, data: usize) -> usize {
    match parsed(expr) {
        // What goes through a list may go through another one for each item.
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
