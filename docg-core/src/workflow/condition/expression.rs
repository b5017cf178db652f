//! Parses the text of a condition into a tree. Refuses expressions of Jinja that conditions do not allow.

use minijinja::machinery::{
    ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind},
    parse_expr,
};

use super::{
    ConditionError,
    number::{Arithmetic, Number},
};
use crate::{
    limits,
    workflow::variables::{OwnedPath, PathError, Root, shortened},
};

/// The deepest nesting of expressions.
const DEEPEST: usize = 64;

/// A node of a parsed expression.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    /// A chain of names that begins at `trigger`, `steps` or `execution`.
    Path(OwnedPath),
    Field(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    /// `~`
    Join(Box<Node>, Box<Node>),
    /// `a and b and c`
    All(Vec<Node>),
    /// `a or b or c`
    Any(Vec<Node>),
    /// `a < b <= c`: compares each operand with the next.
    Compare(Box<Node>, Vec<(Comparison, Node)>),
    /// `then if condition else otherwise`
    Choose {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    Filter(Filter, Box<Node>, Vec<Node>),
    Test(Test, Box<Node>, Vec<Node>),
    /// `list|map(attribute='name')`
    MapField(Box<Node>, String),
    /// `list|map('filter')`
    MapFilter(Box<Node>, Filter),
    Pick(Box<Node>, Pick),
}

/// A filter that picks items from a list: `select`, `reject`, `selectattr` or `rejectattr`.
#[derive(Debug)]
pub(super) struct Pick {
    /// True to keep the items that pass the test, false to drop them.
    pub(super) keeps: bool,
    pub(super) field: Option<String>,
    /// The test; `None` keeps or drops the items that are `true`.
    pub(super) test: Option<Test>,
    pub(super) arguments: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    In,
    NotIn,
}

/// A table of names: for each variant its names in an expression, and the smallest and largest number of its
/// arguments.
macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($variant:ident $names:pat => $least:literal..=$most:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $type { $($variant,)+ }

        impl $type {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($names => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn takes(self, arguments: usize) -> bool {
                match self {
                    $(Self::$variant => ($least..=$most).contains(&arguments),)+
                }
            }
        }
    };
}

names! {
    /// The filters, except `map`, and except the filters that pick items from a list.
    Filter {
        Absolute "abs" => 0..=0,
        Default "default" | "d" => 1..=1,
        First "first" => 0..=0,
        Integer "int" => 0..=0,
        Last "last" => 0..=0,
        Length "length" | "count" => 0..=0,
        List "list" => 0..=0,
        Lower "lower" => 0..=0,
        Max "max" => 0..=0,
        Min "min" => 0..=0,
        Number "float" => 0..=0,
        Reverse "reverse" => 0..=0,
        Round "round" => 0..=1,
        Sort "sort" => 0..=0,
        Split "split" => 1..=1,
        Sum "sum" => 0..=0,
        Text "string" => 0..=0,
        Trim "trim" => 0..=0,
        Unique "unique" => 0..=0,
        Upper "upper" => 0..=0,
    }
}

names! {
    /// The tests that can follow `is`.
    Test {
        Bool "boolean" => 0..=0,
        Defined "defined" => 0..=0,
        DivisibleBy "divisibleby" => 1..=1,
        EndsWith "endingwith" => 1..=1,
        Equal "eq" | "equalto" | "==" => 1..=1,
        Even "even" => 0..=0,
        False "false" => 0..=0,
        AtLeast "ge" | ">=" => 1..=1,
        Greater "gt" | "greaterthan" | ">" => 1..=1,
        In "in" => 1..=1,
        Integer "integer" | "int" => 0..=0,
        Less "lt" | "lessthan" | "<" => 1..=1,
        AtMost "le" | "<=" => 1..=1,
        Null "none" => 0..=0,
        Number "number" => 0..=0,
        Object "mapping" => 0..=0,
        Odd "odd" => 0..=0,
        Sequence "sequence" => 0..=0,
        StartsWith "startingwith" => 1..=1,
        Text "string" => 0..=0,
        True "true" => 0..=0,
        Undefined "undefined" => 0..=0,
        Unequal "ne" | "!=" => 1..=1,
    }
}

/// A parsed expression, the paths that it reads, and whether any part of it goes through a list.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) reads: Vec<OwnedPath>,
    pub(super) loops: bool,
}

pub(super) fn parse(source: &str) -> Result<Parsed, ConditionError> {
    let most = limits::WHEN.max;
    if source.chars().nth(most).is_some() {
        return refused(format!("the condition is longer than {most} characters"));
    }
    let expression = parse_expr(source).map_err(|e| ConditionError::Syntax(e.to_string()))?;
    let mut parser = Parser {
        source,
        reads: Vec::new(),
        loops: false,
        depth: 0,
    };
    let root = parser.node(&expression)?;
    Ok(Parsed {
        root,
        reads: parser.reads,
        loops: parser.loops,
    })
}

fn refused<T>(why: impl Into<String>) -> Result<T, ConditionError> {
    Err(ConditionError::Syntax(why.into()))
}

struct Parser<'s> {
    source: &'s str,
    reads: Vec<OwnedPath>,
    loops: bool,
    depth: usize,
}

impl Parser<'_> {
    fn boxed(&mut self, expression: &Expr<'_>) -> Result<Box<Node>, ConditionError> {
        self.node(expression).map(Box::new)
    }

    fn nodes(&mut self, expressions: &[Expr<'_>]) -> Result<Vec<Node>, ConditionError> {
        expressions.iter().map(|part| self.node(part)).collect()
    }

    fn node(&mut self, expression: &Expr<'_>) -> Result<Node, ConditionError> {
        if self.depth == DEEPEST {
            return refused(format!("the condition is nested more than {DEEPEST} deep"));
        }
        self.depth += 1;
        let node = self.node_at_depth(expression);
        self.depth -= 1;
        node
    }

    fn node_at_depth(&mut self, expression: &Expr<'_>) -> Result<Node, ConditionError> {
        if let Some((root, segments)) = names(expression) {
            return self.path(root, segments);
        }
        Ok(match expression {
            // Not reached: `names` accepts every variable.
            Expr::Var(variable) => return self.path(variable.id, Vec::new()),
            Expr::Const(constant) => {
                let value = &constant.value;
                if value.is_number() {
                    let span = constant.span();
                    return self.number(span.start_offset, span.end_offset, value);
                }
                match value.as_str() {
                    Some(text) => Node::Text(text.to_owned()),
                    None if value.is_none() => Node::Null,
                    None => Node::Bool(value.is_true()),
                }
            }
            Expr::GetAttr(lookup) => Node::Field(self.boxed(&lookup.expr)?, lookup.name.to_owned()),
            Expr::GetItem(lookup) => Node::Index(
                self.boxed(&lookup.expr)?,
                self.boxed(&lookup.subscript_expr)?,
            ),
            Expr::List(list) => Node::List(self.nodes(&list.items)?),
            Expr::Tuple(tuple) => Node::List(self.nodes(&tuple.items)?),
            Expr::UnaryOp(operation) => {
                let inner = self.boxed(&operation.expr)?;
                match operation.op {
                    UnaryOpKind::Not => Node::Not(inner),
                    UnaryOpKind::Neg => Node::Negate(inner),
                }
            }
            Expr::BinOp(operation)
                if matches!(operation.op, BinOpKind::ScAnd | BinOpKind::ScOr) =>
            {
                let is_and = matches!(operation.op, BinOpKind::ScAnd);
                // A long chain of `and` or `or` does not count as deep nesting.
                let mut operands = vec![self.node(&operation.right)?];
                let mut rest = &operation.left;
                while let Expr::BinOp(inner) = rest
                    && std::mem::discriminant(&inner.op) == std::mem::discriminant(&operation.op)
                {
                    operands.push(self.node(&inner.right)?);
                    rest = &inner.left;
                }
                operands.push(self.node(rest)?);
                operands.reverse();
                if is_and {
                    Node::All(operands)
                } else {
                    Node::Any(operands)
                }
            }
            Expr::BinOp(operation) => {
                let (left, right) = (self.boxed(&operation.left)?, self.node(&operation.right)?);
                self.operation(&operation.op, left, right)
            }
            Expr::Compare(chain) => {
                let first = self.boxed(&chain.expr)?;
                let mut others = Vec::with_capacity(chain.ops.len());
                for next in &chain.ops {
                    let comparison = match next.op {
                        CompareOpKind::Eq => Comparison::Equal,
                        CompareOpKind::Ne => Comparison::Unequal,
                        CompareOpKind::Lt => Comparison::Less,
                        CompareOpKind::Lte => Comparison::AtMost,
                        CompareOpKind::Gt => Comparison::Greater,
                        CompareOpKind::Gte => Comparison::AtLeast,
                        CompareOpKind::In => Comparison::In,
                        CompareOpKind::NotIn => Comparison::NotIn,
                    };
                    self.loops |= matches!(comparison, Comparison::In | Comparison::NotIn);
                    others.push((comparison, self.node(&next.expr)?));
                }
                Node::Compare(first, others)
            }
            Expr::IfExpr(choice) => {
                let Some(otherwise) = &choice.false_expr else {
                    return refused("an if in a condition needs an else");
                };
                Node::Choose {
                    condition: self.boxed(&choice.test_expr)?,
                    then: self.boxed(&choice.true_expr)?,
                    otherwise: self.boxed(otherwise)?,
                }
            }
            Expr::Filter(filter) => {
                let Some(inner) = &filter.expr else {
                    return refused("a filter needs a value");
                };
                let inner = self.boxed(inner)?;
                self.loops = true;
                self.filter(filter.name, inner, &filter.args)?
            }
            Expr::Test(test) => {
                let inner = self.boxed(&test.expr)?;
                let arguments = self.positional(&test.args)?;
                let test = known_test(test.name, arguments.len())?;
                self.loops |= test == Test::In;
                Node::Test(test, inner, arguments)
            }
            Expr::Call(_) => return refused("conditions cannot call functions or methods"),
            Expr::Slice(_) => return refused("conditions have no slices"),
            Expr::Map(_) => return refused("conditions have no objects of their own"),
        })
    }

    fn operation(&mut self, kind: &BinOpKind, left: Box<Node>, right: Node) -> Node {
        let comparison = match kind {
            BinOpKind::ScAnd => return Node::All(vec![*left, right]),
            BinOpKind::ScOr => return Node::Any(vec![*left, right]),
            BinOpKind::Concat => return Node::Join(left, Box::new(right)),
            BinOpKind::Add => Err(Arithmetic::Add),
            BinOpKind::Sub => Err(Arithmetic::Subtract),
            BinOpKind::Mul => Err(Arithmetic::Multiply),
            BinOpKind::Div => Err(Arithmetic::Divide),
            BinOpKind::FloorDiv => Err(Arithmetic::Floor),
            BinOpKind::Rem => Err(Arithmetic::Remainder),
            BinOpKind::Pow => Err(Arithmetic::Power),
            BinOpKind::Eq => Ok(Comparison::Equal),
            BinOpKind::Ne => Ok(Comparison::Unequal),
            BinOpKind::Lt => Ok(Comparison::Less),
            BinOpKind::Lte => Ok(Comparison::AtMost),
            BinOpKind::Gt => Ok(Comparison::Greater),
            BinOpKind::Gte => Ok(Comparison::AtLeast),
            BinOpKind::In => Ok(Comparison::In),
        };
        self.loops |= comparison == Ok(Comparison::In);
        match comparison {
            Ok(comparison) => Node::Compare(left, vec![(comparison, right)]),
            Err(arithmetic) => Node::Arithmetic(arithmetic, left, Box::new(right)),
        }
    }

    /// Parses a number from the source text, because the parser's own number is rounded.
    fn number(
        &self,
        start: u32,
        end: u32,
        parsed: &minijinja::Value,
    ) -> Result<Node, ConditionError> {
        let written = self.source.get(start as usize..end as usize);
        let written = written.map(|text| text.replace('_', ""));
        let number = written.as_deref().and_then(Number::parse).or_else(|| {
            // The text is a number in hexadecimal or a similar notation, which the parser reads exactly.
            let whole = i128::try_from(parsed.clone()).ok()?;
            Number::parse(&whole.to_string())
        });
        match number {
            Some(number) => Ok(Node::Number(number)),
            None => refused("a number in the condition has too many digits"),
        }
    }

    fn path(&mut self, root: &str, segments: Vec<String>) -> Result<Node, ConditionError> {
        let refused = |e: PathError| Err(ConditionError::Syntax(e.to_string()));
        let Some(root) = Root::from_name(root) else {
            let unknown = PathError::UnknownRoot(shortened(root));
            if !self.source.contains(&format!("-{root}")) {
                return refused(unknown);
            }
            let hint = "a hyphen subtracts; a name with one is written in brackets: steps[\"a-b\"]";
            return Err(ConditionError::Syntax(format!("{unknown}; {hint}")));
        };
        if root == Root::Steps && segments.is_empty() {
            return refused(PathError::NoNode);
        }
        let target = OwnedPath { root, segments };
        if !self.reads.contains(&target) {
            self.reads.push(target.clone());
        }
        Ok(Node::Path(target))
    }

    fn filter(
        &mut self,
        name: &str,
        inner: Box<Node>,
        arguments: &[CallArg<'_>],
    ) -> Result<Node, ConditionError> {
        match (name, arguments) {
            ("map", [CallArg::Kwarg("attribute", field)]) => match constant_text(field) {
                Some(field) => Ok(Node::MapField(inner, field)),
                None => refused("map(attribute=…) needs the name of a field"),
            },
            ("map", [CallArg::Pos(name)]) => {
                let name = constant_text(name).unwrap_or_default();
                Ok(Node::MapFilter(inner, known_filter(&name, 0)?))
            }
            ("map", _) => refused("map takes attribute='field', or the name of a filter"),
            ("select" | "reject", _) => self.pick(name == "select", false, inner, arguments),
            ("selectattr" | "rejectattr", _) => {
                self.pick(name == "selectattr", true, inner, arguments)
            }
            _ => {
                let arguments = self.positional(arguments)?;
                let filter = known_filter(name, arguments.len())?;
                Ok(Node::Filter(filter, inner, arguments))
            }
        }
    }

    fn pick(
        &mut self,
        keeps: bool,
        by_field: bool,
        inner: Box<Node>,
        arguments: &[CallArg<'_>],
    ) -> Result<Node, ConditionError> {
        let mut texts = Vec::new();
        let mut rest = arguments.iter();
        for _ in 0..1 + usize::from(by_field) {
            match rest.next() {
                None => {}
                Some(CallArg::Pos(part)) => match constant_text(part) {
                    Some(text) => texts.push(text),
                    None => return refused("fields and tests are given by their names, as texts"),
                },
                Some(_) => return refused("only values can be given to filters and tests"),
            }
        }
        let mut texts = texts.into_iter();
        let field = if by_field { texts.next() } else { None };
        if by_field && field.is_none() {
            return refused("selectattr and rejectattr need the name of a field");
        }
        let arguments = self.positional(rest.as_slice())?;
        let test = texts
            .next()
            .map(|name| known_test(&name, arguments.len()))
            .transpose()?;
        Ok(Node::Pick(
            inner,
            Pick {
                keeps,
                field,
                test,
                arguments,
            },
        ))
    }

    fn positional(&mut self, arguments: &[CallArg<'_>]) -> Result<Vec<Node>, ConditionError> {
        arguments
            .iter()
            .map(|argument| match argument {
                CallArg::Pos(part) => self.node(part),
                _ => refused("only values can be given to filters and tests"),
            })
            .collect()
    }
}

fn known_filter(name: &str, arguments: usize) -> Result<Filter, ConditionError> {
    known("filter", name, Filter::named(name), |it| {
        it.takes(arguments)
    })
}

fn known_test(name: &str, arguments: usize) -> Result<Test, ConditionError> {
    known("test", name, Test::named(name), |it| it.takes(arguments))
}

fn known<T>(
    what: &str,
    name: &str,
    found: Option<T>,
    takes: impl Fn(&T) -> bool,
) -> Result<T, ConditionError> {
    let shown = shortened(name);
    match found {
        None => refused(format!("there is no {what} {shown:?} in conditions")),
        Some(it) if !takes(&it) => refused(format!(
            "the {what} {shown:?} is given too many or too few values"
        )),
        Some(it) => Ok(it),
    }
}

fn constant_text(expression: &Expr<'_>) -> Option<String> {
    match expression {
        Expr::Const(constant) => constant.value.as_str().map(str::to_owned),
        _ => None,
    }
}

/// Splits a chain of lookups by constant names into its root and names: `trigger.items[0]["unit price"]`.
fn names<'e>(expression: &Expr<'e>) -> Option<(&'e str, Vec<String>)> {
    let (chain, segment) = match expression {
        Expr::Var(variable) => return Some((variable.id, Vec::new())),
        Expr::GetAttr(lookup) => (&lookup.expr, lookup.name.to_owned()),
        Expr::GetItem(lookup) => {
            let Expr::Const(key) = &lookup.subscript_expr else {
                return None;
            };
            let segment = match key.value.as_str() {
                Some(name) => name.to_owned(),
                None => key.value.as_usize()?.to_string(),
            };
            (&lookup.expr, segment)
        }
        _ => return None,
    };
    let (root, mut segments) = names(chain)?;
    segments.push(segment);
    Some((root, segments))
}
