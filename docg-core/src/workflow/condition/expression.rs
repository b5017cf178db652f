//! What an expression reads, and whether it keeps to what conditions may do.
//!
//! Evaluation has no meter of its own, so what could make a small expression expensive is kept out
//! by its form: there are no loops and no functions in an expression, filters that can multiply
//! the size of a text are not there, and `*` takes numbers only (it would repeat texts and lists).

use minijinja::machinery::{
    ast::{BinOpKind, CallArg, Expr, UnaryOpKind},
    parse_expr,
};

use super::ConditionError;
use crate::workflow::variables::{PathError, Root, Target, shortened};

/// Longer expressions are refused, in bytes.
const LONGEST: usize = 2_000;

/// The filters of minijinja that conditions have: the result is not much larger than what they are
/// given, also where one is applied to the result of another.
const FILTERS: [&str; 34] = [
    "abs",
    "attr",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
];

/// The others. `map` takes the name of a filter as a value, so they must really be gone.
pub(super) const REMOVED_FILTERS: [&str; 15] = [
    "batch",
    "chain",
    "e",
    "escape",
    "format",
    "groupby",
    "indent",
    "join",
    "pprint",
    "replace",
    "safe",
    "slice",
    "tojson",
    "urlencode",
    "zip",
];

/// The functions of minijinja.
pub(super) const REMOVED_GLOBALS: [&str; 4] = ["debug", "dict", "namespace", "range"];

/// The tests of minijinja, operators aside.
pub(super) const TESTS: [&str; 31] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// A path that an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) target: Target,
    /// How many of its segments are names: what comes after the first place in a list is left to
    /// the expression.
    pub(super) names: usize,
    /// It is asked only whether the path leads anywhere, or a default stands in.
    pub(super) guarded: bool,
    /// It must be a number.
    pub(super) multiplied: bool,
}

/// Takes an expression apart.
pub(super) fn analyse(source: &str) -> Result<Vec<Read>, ConditionError> {
    if source.len() > LONGEST {
        return Err(ConditionError::Syntax(format!(
            "the condition is longer than {LONGEST} bytes"
        )));
    }
    let expression = parse_expr(source).map_err(|e| ConditionError::Syntax(e.to_string()))?;
    let mut walk = Walk {
        reads: Vec::new(),
        guarded: false,
        multiplied: false,
    };
    walk.expression(&expression)?;
    Ok(walk.reads)
}

struct Walk {
    reads: Vec<Read>,
    guarded: bool,
    multiplied: bool,
}

fn refused<T>(why: impl Into<String>) -> Result<T, ConditionError> {
    Err(ConditionError::Syntax(why.into()))
}

impl Walk {
    fn expression(&mut self, expression: &Expr<'_>) -> Result<(), ConditionError> {
        if let Some(path) = NamePath::of(expression) {
            return self.read(path);
        }
        if self.multiplied {
            return self.factor(expression);
        }
        // What guards a path guards it alone, not what is around it.
        let guarded = std::mem::take(&mut self.guarded);
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.optional([&slice.start, &slice.stop, &slice.step])
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                self.multiplied = matches!(operation.op, BinOpKind::Mul);
                self.expression(&operation.left)?;
                self.multiplied = matches!(operation.op, BinOpKind::Mul);
                self.expression(&operation.right)?;
                self.multiplied = false;
                Ok(())
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                comparison
                    .ops
                    .iter()
                    .try_for_each(|next| self.expression(&next.expr))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                self.optional([&choice.false_expr])
            }
            Expr::Filter(filter) => {
                if !FILTERS.contains(&filter.name) {
                    return refused(format!(
                        "there is no filter {:?} in conditions",
                        shortened(filter.name)
                    ));
                }
                if let Some(inner) = &filter.expr {
                    self.guarded = matches!(filter.name, "default" | "d");
                    self.expression(inner)?;
                    self.guarded = false;
                }
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    return refused(format!(
                        "there is no test {:?} in conditions",
                        shortened(test.name)
                    ));
                }
                self.guarded = matches!(test.name, "defined" | "undefined");
                self.expression(&test.expr)?;
                self.guarded = false;
                self.arguments(&test.args)
            }
            // `a.b is defined` says nothing of `a`, so no guard goes down.
            Expr::GetAttr(lookup) => self.expression(&lookup.expr),
            Expr::GetItem(lookup) => {
                self.expression(&lookup.expr)?;
                self.expression(&lookup.subscript_expr)
            }
            Expr::Call(_) => refused("conditions cannot call functions or methods"),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple
                .items
                .iter()
                .try_for_each(|item| self.expression(item)),
            Expr::Map(map) => map
                .keys
                .iter()
                .chain(&map.values)
                .try_for_each(|part| self.expression(part)),
        }?;
        self.guarded = guarded;
        Ok(())
    }

    /// What may stand beside `*`, apart from paths: numbers, and what makes a number of numbers.
    fn factor(&mut self, expression: &Expr<'_>) -> Result<(), ConditionError> {
        match expression {
            Expr::Const(constant) if constant.value.is_number() => Ok(()),
            Expr::UnaryOp(operation) if matches!(operation.op, UnaryOpKind::Neg) => {
                self.expression(&operation.expr)
            }
            Expr::BinOp(operation)
                if matches!(
                    operation.op,
                    BinOpKind::Add
                        | BinOpKind::Sub
                        | BinOpKind::Mul
                        | BinOpKind::Div
                        | BinOpKind::FloorDiv
                        | BinOpKind::Rem
                        | BinOpKind::Pow
                ) =>
            {
                self.expression(&operation.left)?;
                self.expression(&operation.right)
            }
            Expr::Filter(filter)
                if matches!(
                    filter.name,
                    "abs" | "count" | "float" | "int" | "length" | "round" | "sum"
                ) =>
            {
                self.multiplied = false;
                let result = self.expression(expression);
                self.multiplied = true;
                result
            }
            _ => refused("only numbers can be multiplied in conditions"),
        }
    }

    fn optional<const N: usize>(
        &mut self,
        parts: [&Option<Expr<'_>>; N],
    ) -> Result<(), ConditionError> {
        parts
            .into_iter()
            .flatten()
            .try_for_each(|part| self.expression(part))
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Result<(), ConditionError> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(part)
            | CallArg::Kwarg(_, part)
            | CallArg::PosSplat(part)
            | CallArg::KwargSplat(part) => self.expression(part),
        })
    }

    fn read(&mut self, path: NamePath) -> Result<(), ConditionError> {
        let refused = |e: PathError| Err(ConditionError::Syntax(e.to_string()));
        let Some(root) = Root::from_name(&path.root) else {
            return refused(PathError::UnknownRoot(shortened(&path.root)));
        };
        if root == Root::Steps && path.segments.is_empty() {
            return refused(PathError::NoNode);
        }
        let target = Target {
            root,
            segments: path.segments,
        };
        match self.reads.iter_mut().find(|read| read.target == target) {
            Some(read) => {
                read.guarded &= self.guarded;
                read.multiplied |= self.multiplied;
                read.names = read.names.min(path.names);
            }
            None => self.reads.push(Read {
                target,
                names: path.names,
                guarded: self.guarded,
                multiplied: self.multiplied,
            }),
        }
        Ok(())
    }
}

/// A chain of lookups whose names are all known: `trigger.items[0]["unit price"]`.
struct NamePath {
    root: String,
    segments: Vec<String>,
    names: usize,
}

impl NamePath {
    fn of(expression: &Expr<'_>) -> Option<Self> {
        match expression {
            Expr::Var(variable) => Some(Self {
                root: variable.id.to_owned(),
                segments: Vec::new(),
                names: 0,
            }),
            Expr::GetAttr(lookup) => {
                Some(Self::of(&lookup.expr)?.and(lookup.name.to_owned(), true))
            }
            Expr::GetItem(lookup) => {
                let key = lookup.subscript_expr.as_const()?;
                match key.as_str() {
                    Some(name) => Some(Self::of(&lookup.expr)?.and(name.to_owned(), true)),
                    None => Some(Self::of(&lookup.expr)?.and(key.as_usize()?.to_string(), false)),
                }
            }
            _ => None,
        }
    }

    fn and(mut self, segment: String, is_name: bool) -> Self {
        if is_name && self.names == self.segments.len() {
            self.names += 1;
        }
        self.segments.push(segment);
        self
    }
}
