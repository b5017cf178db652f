//! Evaluates an expression, charging each operation to a budget.

use std::{borrow::Cow, cell::Cell, collections::HashSet, fmt::Write as _};

use serde_json::Value as Json;

use super::{
    expression::{Comparison, Filter, Node, Pick, Test},
    number::{Arithmetic, Number},
    value::{List, Unreadable, Value},
};
use crate::workflow::variables::{Found, OwnedPath, Path, Source};

/// The budget of one evaluation: an operation costs about 1 for each value visited and 1 for each 16 bytes of
/// text. Spending the whole budget takes some hundredths of a second.
const BUDGET: usize = 4_000_000;
/// The price of an item in a list that the expression makes, or in the memory of a filter.
const MADE_ITEM: usize = 8;
/// How many bytes of text can be read for a price of 1.
const BYTES: usize = 16;

/// Why an evaluation gave no value.
#[derive(Debug)]
pub(super) enum Stop {
    /// The result depends on a value that is not known yet.
    Later,
    /// There is no value at this path.
    Absent(String),
    /// The values do not fit the operation.
    Misfit(String),
    /// The budget is spent.
    Spent,
}

impl From<Unreadable> for Stop {
    fn from(_: Unreadable) -> Self {
        Self::Misfit("a number has too many digits".to_owned())
    }
}

type Outcome<'a, T = Value<'a>> = Result<T, Stop>;

fn misfit<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Misfit(why.into()))
}

pub(super) struct Evaluation<'a> {
    source: &'a dyn Source,
    left: Cell<usize>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn over(source: &'a dyn Source) -> Self {
        Self {
            source,
            left: Cell::new(BUDGET),
        }
    }

    /// Evaluates a condition, which must result in true or false.
    pub(super) fn decide(&self, root: &'a Node) -> Outcome<'a, bool> {
        self.truth(root, "the condition")
    }

    fn spend(&self, price: usize) -> Outcome<'a, ()> {
        match self.left.get().checked_sub(price) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.left.set(0);
                Err(Stop::Spent)
            }
        }
    }

    fn spend_text(&self, text: &str) -> Outcome<'a, ()> {
        self.spend(1 + text.len() / BYTES)
    }

    fn truth(&self, node: &'a Node, what: &str) -> Outcome<'a, bool> {
        let value = self.value(node)?;
        is_true(&value, what)
    }

    fn value(&self, node: &'a Node) -> Outcome<'a> {
        self.spend(1)?;
        Ok(match node {
            Node::Null => Value::Null,
            Node::Bool(it) => Value::Bool(*it),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Text(text) => Value::Text(Cow::Borrowed(text)),
            Node::Path(target) => return self.find(target),
            Node::Field(inner, name) => {
                let inner = self.value(inner)?;
                return self.field(&inner, name);
            }
            Node::Index(inner, key) => {
                let (inner, key) = (self.value(inner)?, self.value(key)?);
                return self.index(&inner, &key);
            }
            Node::List(items) => {
                self.spend(MADE_ITEM * items.len())?;
                let items = items.iter().map(|item| self.value(item));
                Value::List(List::Made(items.collect::<Result<_, _>>()?))
            }
            Node::Not(inner) => Value::Bool(!self.truth(inner, "what stands after not")?),
            Node::Negate(inner) => Value::Number(number(&self.value(inner)?)?.negated()),
            Node::Arithmetic(operation, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                return self.arithmetic(*operation, &left, &right);
            }
            Node::Join(left, right) => {
                let mut joined = self.text_of(&self.value(left)?)?.into_owned();
                let right = self.value(right)?;
                let right = self.text_of(&right)?;
                self.spend((joined.len() + right.len()) / BYTES)?;
                joined.push_str(&right);
                Value::Text(Cow::Owned(joined))
            }
            Node::All(operands) => {
                for operand in operands {
                    if !self.truth(operand, "each side of and")? {
                        return Ok(Value::Bool(false));
                    }
                }
                Value::Bool(true)
            }
            Node::Any(operands) => {
                for operand in operands {
                    if self.truth(operand, "each side of or")? {
                        return Ok(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Node::Compare(first, others) => {
                let mut left = self.value(first)?;
                for (comparison, next) in others {
                    let right = self.value(next)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Node::Choose {
                condition,
                then,
                otherwise,
            } => {
                let chosen = if self.truth(condition, "what stands after if")? {
                    then
                } else {
                    otherwise
                };
                return self.value(chosen);
            }
            Node::Filter(Filter::Default, inner, arguments) => match self.value(inner) {
                Err(Stop::Absent(_)) if is_lookup(inner) => return self.argument(arguments),
                found => return found,
            },
            Node::Filter(filter, inner, arguments) => {
                let inner = self.value(inner)?;
                let argument = match arguments.first() {
                    Some(argument) => Some(self.value(argument)?),
                    None => None,
                };
                return self.filter(*filter, inner, argument.as_ref());
            }
            Node::Test(test @ (Test::Defined | Test::Undefined), inner, _) => {
                let is_there = match self.value(inner) {
                    Err(Stop::Absent(_)) if is_lookup(inner) => false,
                    found => found.map(|_| true)?,
                };
                Value::Bool(is_there == (*test == Test::Defined))
            }
            Node::Test(test, inner, arguments) => {
                let inner = self.value(inner)?;
                let argument = match arguments.first() {
                    Some(argument) => Some(self.value(argument)?),
                    None => None,
                };
                Value::Bool(self.test(*test, &inner, argument.as_ref())?)
            }
            Node::MapField(inner, name) => {
                let inner = self.value(inner)?;
                return self.mapped(&inner, |item| self.field(&item, name));
            }
            Node::MapFilter(inner, filter) => {
                let inner = self.value(inner)?;
                return self.mapped(&inner, |item| self.filter(*filter, item, None));
            }
            Node::Pick(inner, pick) => {
                let inner = self.value(inner)?;
                return self.pick(&inner, pick);
            }
        })
    }

    fn argument(&self, arguments: &'a [Node]) -> Outcome<'a> {
        match arguments.first() {
            Some(argument) => self.value(argument),
            None => Ok(Value::Null),
        }
    }

    fn find(&self, target: &OwnedPath) -> Outcome<'a> {
        let path = Path {
            root: target.root,
            segments: target.segments.iter().map(String::as_str).collect(),
        };
        match self.source.find(&path) {
            Found::Value(value) => Ok(Value::of_found(value)?),
            Found::Absent => Err(Stop::Absent(target.to_string())),
            Found::Later => Err(Stop::Later),
        }
    }

    fn field(&self, value: &Value<'a>, name: &str) -> Outcome<'a> {
        self.spend(1)?;
        match value.field(name) {
            Some(found) => Ok(found?),
            None => Err(Stop::Absent(format!("the field {name:?}"))),
        }
    }

    fn index(&self, value: &Value<'a>, key: &Value<'a>) -> Outcome<'a> {
        match (value, key) {
            (_, Value::Text(name)) => self.field(value, name),
            (Value::List(list), Value::Number(place)) => {
                let place = place.as_whole().and_then(|place| match place {
                    0.. => usize::try_from(place).ok(),
                    // A negative index counts from the end.
                    _ => {
                        let back = usize::try_from(place.unsigned_abs()).ok()?;
                        list.len().checked_sub(back)
                    }
                });
                match place.and_then(|place| list.get(place)) {
                    Some(item) => Ok(item?),
                    None => Err(Stop::Absent("a place in a list".to_owned())),
                }
            }
            _ => misfit(format!(
                "{} cannot be looked up by {}",
                value.kind(),
                key.kind()
            )),
        }
    }

    /// Iterates over the items of a list, charging for each.
    fn items<'l>(&'l self, value: &'l Value<'a>) -> Outcome<'a, Items<'l, 'a>> {
        match value {
            Value::List(list) => Ok(Items {
                evaluation: self,
                list,
                next: 0,
            }),
            other => misfit(format!("a list is needed, and this is {}", other.kind())),
        }
    }

    fn mapped(&self, value: &Value<'a>, each: impl Fn(Value<'a>) -> Outcome<'a>) -> Outcome<'a> {
        let mut made = Vec::new();
        for item in self.items(value)? {
            self.spend(MADE_ITEM)?;
            made.push(each(item?)?);
        }
        Ok(Value::List(List::Made(made)))
    }

    fn pick(&self, value: &Value<'a>, pick: &'a Pick) -> Outcome<'a> {
        let argument = match pick.arguments.first() {
            Some(argument) => Some(self.value(argument)?),
            None => None,
        };
        let mut made = Vec::new();
        for item in self.items(value)? {
            let item = item?;
            let looked_at = match &pick.field {
                Some(name) => self.field(&item, name),
                None => Ok(item.clone()),
            };
            let passes = match (pick.test, looked_at) {
                (Some(Test::Defined), found) => found.is_ok(),
                (Some(Test::Undefined), found) => found.is_err(),
                (Some(test), found) => self.test(test, &found?, argument.as_ref())?,
                (None, found) => is_true(&found?, "what is selected by")?,
            };
            if passes == pick.keeps {
                self.spend(MADE_ITEM)?;
                made.push(item);
            }
        }
        Ok(Value::List(List::Made(made)))
    }

    fn arithmetic(
        &self,
        operation: Arithmetic,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Outcome<'a> {
        // Charge the price of numbers with hundreds of digits, whatever the size of these numbers.
        self.spend(16)?;
        match number(left)?.apply(operation, number(right)?) {
            Ok(result) => Ok(Value::Number(result)),
            Err(why) => misfit(why),
        }
    }

    fn compare(
        &self,
        comparison: Comparison,
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Outcome<'a, bool> {
        Ok(match comparison {
            Comparison::Equal => self.equal(left, right)?,
            Comparison::Unequal => !self.equal(left, right)?,
            Comparison::Less => self.order(left, right)?.is_lt(),
            Comparison::AtMost => self.order(left, right)?.is_le(),
            Comparison::Greater => self.order(left, right)?.is_gt(),
            Comparison::AtLeast => self.order(left, right)?.is_ge(),
            Comparison::In => self.contains(right, left)?,
            Comparison::NotIn => !self.contains(right, left)?,
        })
    }

    /// Compares two values of one kind. Everything may be compared with null.
    fn equal(&self, left: &Value<'a>, right: &Value<'a>) -> Outcome<'a, bool> {
        match self.same(left, right)? {
            Some(equal) => Ok(equal),
            None if matches!(left, Value::Null) || matches!(right, Value::Null) => Ok(false),
            None => misfit(different(left, right)),
        }
    }

    /// Compares two values; `None` if they are of different kinds.
    fn same(&self, left: &Value<'a>, right: &Value<'a>) -> Outcome<'a, Option<bool>> {
        self.spend(1)?;
        Ok(Some(match (left, right) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Number(left), Value::Number(right)) => left == right,
            (Value::Text(left), Value::Text(right)) => {
                left.len() == right.len() && {
                    self.spend_text(left)?;
                    left == right
                }
            }
            (Value::List(left), Value::List(right)) => {
                if left.len() != right.len() {
                    return Ok(Some(false));
                }
                for place in 0..left.len() {
                    if let (Some(left), Some(right)) = (left.get(place), right.get(place))
                        && self.same(&left?, &right?)? != Some(true)
                    {
                        return Ok(Some(false));
                    }
                }
                true
            }
            (Value::Object(left), Value::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(Some(false));
                }
                for (name, value) in &**left {
                    self.spend_text(name)?;
                    let Some(other) = right.get(name) else {
                        return Ok(Some(false));
                    };
                    if self.same(&Value::of(value)?, &Value::of(other)?)? != Some(true) {
                        return Ok(Some(false));
                    }
                }
                true
            }
            _ => return Ok(None),
        }))
    }

    fn order(&self, left: &Value<'_>, right: &Value<'_>) -> Outcome<'a, std::cmp::Ordering> {
        self.spend(1)?;
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => Ok(left.cmp(right)),
            (Value::Text(left), Value::Text(right)) => {
                self.spend_text(if left.len() < right.len() {
                    left
                } else {
                    right
                })?;
                Ok(left.cmp(right))
            }
            _ if left.kind() == right.kind() => misfit(format!(
                "{} is neither more nor less than another",
                left.kind()
            )),
            _ => misfit(different(left, right)),
        }
    }

    fn contains(&self, whole: &Value<'a>, part: &Value<'a>) -> Outcome<'a, bool> {
        match (whole, part) {
            (Value::Text(whole), Value::Text(part)) => {
                self.spend_text(whole)?;
                Ok(whole.contains(&**part))
            }
            (Value::Object(fields), Value::Text(name)) => Ok(fields.contains_key(&**name)),
            (Value::List(_), _) => {
                let mut stranger = None;
                for item in self.items(whole)? {
                    let item = item?;
                    match self.same(&item, part)? {
                        Some(true) => return Ok(true),
                        Some(false) => {}
                        None if matches!(item, Value::Null) || matches!(part, Value::Null) => {}
                        None => stranger = stranger.or(Some(item)),
                    }
                }
                match stranger {
                    Some(item) => misfit(different(part, &item)),
                    None => Ok(false),
                }
            }
            _ => misfit(format!("{} cannot be in {}", part.kind(), whole.kind())),
        }
    }

    fn test(
        &self,
        test: Test,
        value: &Value<'a>,
        argument: Option<&Value<'a>>,
    ) -> Outcome<'a, bool> {
        self.spend(1)?;
        let other = argument.unwrap_or(&Value::Null);
        let remainder = |by: &Number| match number(value)?.apply(Arithmetic::Remainder, by) {
            Ok(rest) => Ok(rest),
            Err(why) => misfit(why),
        };
        Ok(match test {
            Test::Bool => matches!(value, Value::Bool(_)),
            Test::Defined => true,
            Test::Undefined => false,
            Test::Null => matches!(value, Value::Null),
            Test::Number => matches!(value, Value::Number(_)),
            Test::Integer => matches!(value, Value::Number(number) if number.is_whole()),
            Test::Text => matches!(value, Value::Text(_)),
            Test::Sequence => matches!(value, Value::List(_)),
            Test::Object => matches!(value, Value::Object(_)),
            Test::True => matches!(value, Value::Bool(true)),
            Test::False => matches!(value, Value::Bool(false)),
            Test::Even => remainder(&Number::Small(2))? == Number::Small(0),
            Test::Odd => remainder(&Number::Small(2))? == Number::Small(1),
            Test::DivisibleBy => remainder(number(other)?)? == Number::Small(0),
            Test::StartsWith => text(value)?.starts_with(text(other)?),
            Test::EndsWith => text(value)?.ends_with(text(other)?),
            Test::Equal => self.compare(Comparison::Equal, value, other)?,
            Test::Unequal => self.compare(Comparison::Unequal, value, other)?,
            Test::Less => self.compare(Comparison::Less, value, other)?,
            Test::AtMost => self.compare(Comparison::AtMost, value, other)?,
            Test::Greater => self.compare(Comparison::Greater, value, other)?,
            Test::AtLeast => self.compare(Comparison::AtLeast, value, other)?,
            Test::In => self.compare(Comparison::In, value, other)?,
        })
    }

    fn filter(
        &self,
        filter: Filter,
        value: Value<'a>,
        argument: Option<&Value<'a>>,
    ) -> Outcome<'a> {
        self.spend(1)?;
        Ok(match filter {
            Filter::Default => value,
            Filter::Absolute => Value::Number(number(&value)?.absolute()),
            Filter::Round => {
                let digits = match argument {
                    Some(digits) => number(digits)?
                        .as_whole()
                        .and_then(|it| u32::try_from(it).ok()),
                    None => Some(0),
                };
                match digits {
                    Some(digits @ 0..=20) => Value::Number(number(&value)?.rounded(digits)),
                    _ => return misfit("round takes a whole number from 0 to 20"),
                }
            }
            Filter::Number | Filter::Integer => {
                let read = self.read_number(&value)?;
                Value::Number(if filter == Filter::Integer {
                    read.truncated()
                } else {
                    read
                })
            }
            Filter::Text => Value::Text(Cow::Owned(self.text_of(&value)?.into_owned())),
            Filter::Lower => self.changed_text(&value, str::to_lowercase)?,
            Filter::Upper => self.changed_text(&value, str::to_uppercase)?,
            Filter::Trim => self.changed_text(&value, |text| text.trim().to_owned())?,
            Filter::Split => {
                let (whole, by) = (text(&value)?, text(argument.unwrap_or(&Value::Null))?);
                if by.is_empty() {
                    return misfit("a text is split at a text that is not empty");
                }
                self.spend_text(whole)?;
                let mut made = Vec::new();
                for part in whole.split(by) {
                    self.spend(MADE_ITEM + part.len() / BYTES)?;
                    made.push(Value::Text(Cow::Owned(part.to_owned())));
                }
                Value::List(List::Made(made))
            }
            Filter::Length => Value::Number(Number::of_count(match &value {
                Value::Text(text) => {
                    self.spend_text(text)?;
                    text.chars().count()
                }
                Value::List(list) => list.len(),
                Value::Object(fields) => fields.len(),
                other => return misfit(format!("{} has no length", other.kind())),
            })),
            Filter::First | Filter::Last => {
                let Value::List(list) = &value else {
                    return misfit(format!("a list is needed, and this is {}", value.kind()));
                };
                let place = match filter {
                    Filter::First => Some(0),
                    _ => list.len().checked_sub(1),
                };
                match place.and_then(|place| list.get(place)) {
                    Some(item) => item?,
                    None => return Err(Stop::Absent("an item of an empty list".to_owned())),
                }
            }
            Filter::List => match value {
                Value::List(_) => value,
                other => return misfit(format!("{} is no list", other.kind())),
            },
            Filter::Reverse => {
                let mut made = self.collected(&value)?;
                made.reverse();
                Value::List(List::Made(made))
            }
            Filter::Sum => {
                let mut sum = Value::Number(Number::Small(0));
                for item in self.items(&value)? {
                    sum = self.arithmetic(Arithmetic::Add, &sum, &item?)?;
                }
                sum
            }
            Filter::Max | Filter::Min => {
                let mut best: Option<Value<'a>> = None;
                for item in self.items(&value)? {
                    let item = item?;
                    let better = match &best {
                        Some(best) => {
                            let order = self.order(&item, best)?;
                            if filter == Filter::Max {
                                order.is_gt()
                            } else {
                                order.is_lt()
                            }
                        }
                        None => true,
                    };
                    if better {
                        best = Some(item);
                    }
                }
                match best {
                    Some(best) => best,
                    None => return Err(Stop::Absent("an item of an empty list".to_owned())),
                }
            }
            Filter::Sort => self.sorted(&value)?,
            Filter::Unique => {
                let (mut seen, mut made) = (HashSet::new(), Vec::new());
                for item in self.items(&value)? {
                    let item = item?;
                    let mut key = String::new();
                    self.write_key(&item, &mut key)?;
                    if seen.insert(key) {
                        made.push(item);
                    }
                }
                Value::List(List::Made(made))
            }
        })
    }

    fn collected(&self, value: &Value<'a>) -> Outcome<'a, Vec<Value<'a>>> {
        let mut made = Vec::new();
        for item in self.items(value)? {
            self.spend(MADE_ITEM)?;
            made.push(item?);
        }
        Ok(made)
    }

    fn sorted(&self, value: &Value<'a>) -> Outcome<'a> {
        let mut made = self.collected(value)?;
        let mut stopped = None;
        // A sort cannot be stopped: after an error, all remaining items count as equal.
        made.sort_by(|left, right| match &stopped {
            Some(_) => std::cmp::Ordering::Equal,
            None => self.order(left, right).unwrap_or_else(|stop| {
                stopped = Some(stop);
                std::cmp::Ordering::Equal
            }),
        });
        match stopped {
            Some(stop) => Err(stop),
            None => Ok(Value::List(List::Made(made))),
        }
    }

    /// Appends a value's key, by which `unique` finds repeats: two keys are equal if and only if the values
    /// are.
    fn write_key(&self, value: &Value<'_>, key: &mut String) -> Outcome<'a, ()> {
        self.spend(MADE_ITEM)?;
        // Writing to a String cannot fail.
        match value {
            Value::Null => key.push('n'),
            Value::Bool(it) => key.push(if *it { 't' } else { 'f' }),
            Value::Number(number) => {
                let _ = write!(key, "#{number};");
            }
            Value::Text(text) => {
                self.spend_text(text)?;
                let _ = write!(key, "\"{}:{text}", text.len());
            }
            Value::List(list) => {
                let _ = write!(key, "[{}:", list.len());
                for place in 0..list.len() {
                    if let Some(item) = list.get(place) {
                        self.write_key(&item?, key)?;
                    }
                }
            }
            Value::Object(fields) => {
                let mut sorted: Vec<(&String, &Json)> = fields.iter().collect();
                sorted.sort_unstable_by_key(|(name, _)| *name);
                let _ = write!(key, "{{{}:", sorted.len());
                for (name, field) in sorted {
                    self.spend_text(name)?;
                    let _ = write!(key, "{}:{name}", name.len());
                    self.write_key(&Value::of(field)?, key)?;
                }
            }
        }
        Ok(())
    }

    fn changed_text(&self, value: &Value<'a>, change: impl Fn(&str) -> String) -> Outcome<'a> {
        let text = text(value)?;
        self.spend_text(text)?;
        Ok(Value::Text(Cow::Owned(change(text))))
    }

    /// A text as it is, or a whole number as digits; an error for other values.
    fn text_of<'v>(&self, value: &'v Value<'a>) -> Outcome<'a, Cow<'v, str>> {
        match value {
            Value::Text(text) => Ok(Cow::Borrowed(text)),
            Value::Number(number) if number.is_whole() => {
                let text = number.to_string();
                self.spend_text(&text)?;
                Ok(Cow::Owned(text))
            }
            other => misfit(format!("{} cannot be made a text", other.kind())),
        }
    }

    /// A number as it is, or the number that a text consists of; an error for other values.
    fn read_number(&self, value: &Value<'a>) -> Outcome<'a, Number> {
        match value {
            Value::Number(number) => Ok(number.clone()),
            Value::Text(text) => {
                self.spend_text(text)?;
                match Number::parse(text.trim()) {
                    Some(number) => Ok(number),
                    None => misfit("a text is no number"),
                }
            }
            other => misfit(format!("{} is no number", other.kind())),
        }
    }
}

/// See [`Evaluation::items`].
struct Items<'l, 'a> {
    evaluation: &'l Evaluation<'a>,
    list: &'l List<'a>,
    next: usize,
}

impl<'a> Iterator for Items<'_, 'a> {
    type Item = Outcome<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.list.get(self.next)?;
        self.next += 1;
        Some(self.evaluation.spend(1).and_then(|()| Ok(item?)))
    }
}

/// True if the node is a lookup, for which `default` and `is defined` accept a missing value.
fn is_lookup(node: &Node) -> bool {
    matches!(node, Node::Path(_) | Node::Field(..) | Node::Index(..))
}

fn is_true(value: &Value<'_>, what: &str) -> Result<bool, Stop> {
    match value {
        Value::Bool(it) => Ok(*it),
        other => misfit(format!(
            "{what} must be true or false, and is {}: compare it with what it should be",
            other.kind()
        )),
    }
}

fn number<'v>(value: &'v Value<'_>) -> Result<&'v Number, Stop> {
    match value {
        Value::Number(number) => Ok(number),
        other => misfit(format!("a number is needed, and this is {}", other.kind())),
    }
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, Stop> {
    match value {
        Value::Text(text) => Ok(text),
        other => misfit(format!("a text is needed, and this is {}", other.kind())),
    }
}

fn different(left: &Value<'_>, right: &Value<'_>) -> String {
    format!("{} is compared with {}", left.kind(), right.kind())
}
