//! Conditions: the expressions that a node's `when` may hold.
//!
//! They are expressions in minijinja's syntax over `trigger`, `steps` and `execution`:
//! `trigger.deal.amount > 0 and steps.extract.language == "en"`. Nothing else can be read and no
//! function called. Reading what is not there is an error that names it; ask `… is defined` first,
//! or give a `default`.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use minijinja::{
    Environment, Error, ErrorKind, Expression, UndefinedBehavior, Value,
    value::{Rest, Serde},
};

use self::expression::{REMOVED_FILTERS, REMOVED_GLOBALS, Read, TESTS, analyse};
use super::{
    validate::Recent,
    variables::{Found, Path, Root, Scope, Source, Target},
};

mod expression;
#[cfg(test)]
mod tests;

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
    Ok(compiled(expr)?
        .reads
        .iter()
        .map(|read| read.target.clone())
        .collect())
}

/// Whether the condition holds.
///
/// # Errors
///
/// [`ConditionError::Absent`] where it reads what is not there, [`ConditionError::Evaluation`]
/// where its values do not fit together, [`ConditionError::Syntax`] as for [`check`].
pub fn evaluate(expr: &str, scope: &Scope<'_>) -> Result<bool, ConditionError> {
    // A scope knows everything that there is: nothing comes later.
    Ok(decide(expr, scope)?.unwrap_or(false))
}

/// Whether the condition holds, or `None` where that depends on what only comes later.
pub(crate) fn decide(expr: &str, source: &dyn Source) -> Result<Option<bool>, ConditionError> {
    let compiled = compiled(expr)?;
    let mut context = Tree::default();
    let mut absent = Vec::new();
    for read in &compiled.reads {
        context.add(read, &compiled.reads, source, &mut absent)?;
    }
    // What is only asked for is named where nothing else explains the error.
    let absent = || {
        let unguarded: Vec<_> = absent.iter().filter(|read| !read.guarded).collect();
        let named = if unguarded.is_empty() {
            absent.iter().collect()
        } else {
            unguarded
        };
        named
            .into_iter()
            .map(|read| read.target.to_string())
            .collect::<Vec<_>>()
    };
    match compiled.expression.eval(context.into_value()) {
        Ok(value) if value.is_undefined() => Err(ConditionError::Absent(absent())),
        Ok(value) => Ok(Some(value.is_true())),
        Err(e) if e.detail() == Some(LATER) => Ok(None),
        Err(e) => {
            let named = absent();
            // minijinja says only that something was undefined; the name of it helps more.
            if named.is_empty() {
                Err(ConditionError::Evaluation(e.to_string()))
            } else {
                Err(ConditionError::Absent(named))
            }
        }
    }
}

struct Compiled {
    expression: Expression<'static, 'static>,
    reads: Vec<Read>,
}

fn compiled(source: &str) -> Result<Arc<Compiled>, ConditionError> {
    static RECENT: LazyLock<Recent<String, Arc<Compiled>>> = LazyLock::new(|| Recent::new(512));
    if let Some(found) = RECENT.get(source) {
        return Ok(found);
    }
    let reads = analyse(source)?;
    let expression = environment()
        .compile_expression_owned(source.to_owned())
        .map_err(|e| ConditionError::Syntax(e.to_string()))?;
    let made = Arc::new(Compiled { expression, reads });
    RECENT.put(source.to_owned(), Arc::clone(&made));
    Ok(made)
}

fn environment() -> &'static Environment<'static> {
    static STRICT: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for name in REMOVED_GLOBALS {
            environment.remove_global(name);
        }
        for name in REMOVED_FILTERS {
            environment.remove_filter(name);
        }
        for name in TESTS {
            if !matches!(name, "defined" | "undefined") {
                environment.add_test(name, move |arguments: Rest<Value>| {
                    strict_test(name, &arguments)
                });
            }
        }
        environment
    });
    &STRICT
}

/// minijinja's tests take an undefined value for one that does not pass, even in strict mode.
fn strict_test(name: &str, arguments: &[Value]) -> Result<bool, Error> {
    static GIVEN: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);
    if arguments.iter().any(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    GIVEN.empty_state().perform_test(name, arguments)
}

/// Stands for a value that only comes later; minijinja gives it back as soon as it is looked at.
const LATER: &str = "not known yet";

/// Nested maps that hold just what an expression reads, so that large trigger data is not copied.
#[derive(Default)]
struct Tree {
    leaf: Option<Value>,
    branches: BTreeMap<String, Tree>,
}

impl Tree {
    fn add<'r>(
        &mut self,
        read: &'r Read,
        all: &[Read],
        source: &dyn Source,
        absent: &mut Vec<&'r Read>,
    ) -> Result<(), ConditionError> {
        let segments: Vec<&str> = read.target.segments.iter().map(String::as_str).collect();
        let full = Path {
            root: read.target.root,
            segments,
        };
        match source.find(&full) {
            Found::Absent => absent.push(read),
            Found::Value(value) if read.multiplied && !value.is_number() => {
                return Err(ConditionError::Evaluation(format!(
                    "{} is multiplied and is no number",
                    read.target
                )));
            }
            Found::Value(_) | Found::Later => {}
        }
        let mut node = self
            .branches
            .entry(read.target.root.as_str().to_owned())
            .or_default();
        for length in 0..=read.names {
            let prefix = Path {
                root: full.root,
                segments: full.segments[..length].to_vec(),
            };
            let found = source.find(&prefix);
            if length > 0 {
                // What is not there has no branch, so that its name stays undefined. Only on the
                // way to what is asked for stands an empty one: `trigger.a.b is defined` is false
                // also where there is no `a`, and `steps.x.y is defined` where `x` was left out.
                let asked_for = read.guarded || (full.root == Root::Steps && length == 1);
                let itself_read = || all.iter().any(|other| other.target.is(&prefix));
                if matches!(found, Found::Absent)
                    && (length == read.names || !asked_for || itself_read())
                {
                    return Ok(());
                }
                node = node
                    .branches
                    .entry(full.segments[length - 1].to_owned())
                    .or_default();
            }
            if length == read.names {
                node.leaf = match found {
                    Found::Value(value) => Some(Value::from(Serde(&*value))),
                    Found::Later => {
                        Some(Value::from(Error::new(ErrorKind::InvalidOperation, LATER)))
                    }
                    Found::Absent => None,
                };
            }
        }
        Ok(())
    }

    fn into_value(self) -> Value {
        match self.leaf {
            // It holds all that its branches hold.
            Some(leaf) => leaf,
            None => Value::from_pairs(
                self.branches
                    .into_iter()
                    .map(|(name, branch)| (name, branch.into_value())),
            ),
        }
    }
}
