//! JSON data that counts every access by the validator.
//!
//! A validator cannot be interrupted from outside. But it learns about data only by asking: how many items
//! there are, what the next one is, what a text says. So the data counts the questions. Once the budget is
//! spent, the data pretends to be empty, which ends every loop and recursion. The validator's result is then
//! worthless; [`within`] detects that.

use std::{borrow::Cow, cell::Cell};

use jsonschema::{
    JsonType,
    json::{self, Json, NodeIdentity},
};
use serde_json::{Map, Number, Value};

use super::bounds::Bounds;

/// How many bytes of text can be read for a price of 1.
const BYTES: u64 = 16;
/// The price of remembering the result for a list or an object.
const REMEMBERED: u64 = 8;

/// The prices that are added to the price of an access itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prices {
    /// The price of a value within another: many subschemas may apply to it without any further access.
    value: u64,
    /// The price of each byte of a text, against which a pattern may be matched.
    text_byte: u64,
    /// The price of each byte of a name, against which patterns may be matched.
    name_byte: u64,
    /// The price of including a value in an error.
    error: u64,
}

impl Prices {
    pub(super) fn of(bounds: &Bounds) -> Self {
        Self {
            value: 1 + bounds.widest as u64 / 8,
            text_byte: bounds.pattern_price,
            name_byte: bounds.name_price,
            error: 0,
        }
    }

    pub(super) fn with_errors_of(self, bytes: usize) -> Self {
        Self {
            error: 8 + bytes as u64 / BYTES,
            ..self
        }
    }
}

struct Meter {
    left: Cell<u64>,
    prices: Cell<Prices>,
}

thread_local! {
    static METER: Meter = Meter {
        left: Cell::new(0),
        prices: Cell::default(),
    };
}

/// Runs work on metered data within a budget; `None` if the budget was spent.
pub(super) fn within<T>(budget: u64, prices: Prices, work: impl FnOnce() -> T) -> Option<T> {
    METER.with(|meter| {
        meter.left.set(budget);
        meter.prices.set(prices);
    });
    let result = work();
    METER.with(|meter| meter.left.get() > 0).then_some(result)
}

/// Charges for an access; `false` if the budget is spent and the data must look empty.
fn pays(price: impl FnOnce(Prices) -> u64) -> bool {
    METER.with(|meter| {
        let left = meter.left.get().saturating_sub(price(meter.prices.get()));
        meter.left.set(left);
        left > 0
    })
}

fn pays_text(text: &str) -> bool {
    let bytes = text.len() as u64;
    pays(|prices| 1 + bytes / BYTES + bytes.saturating_mul(prices.text_byte))
}

fn pays_name(name: &str) -> bool {
    let bytes = name.len() as u64;
    pays(|prices| prices.value + bytes / BYTES + bytes.saturating_mul(prices.name_byte))
}

/// Charges for a whole value; `false` if the budget is spent.
fn pays_whole(value: &Value) -> bool {
    match value {
        Value::String(text) => pays(|_| 1 + text.len() as u64 / BYTES),
        Value::Array(items) => pays(|_| 1) && items.iter().all(pays_whole),
        Value::Object(fields) => {
            pays(|_| 1)
                && fields.iter().all(|(name, field)| {
                    pays(|_| 1 + name.len() as u64 / BYTES) && pays_whole(field)
                })
        }
        _ => pays(|_| 1),
    }
}

/// A [`serde_json::Value`] whose accesses are counted.
pub(super) struct Metered;

/// A value that counts the accesses to it.
#[derive(Clone, Copy)]
pub(super) struct Node<'a>(pub(super) &'a Value);

pub(super) struct Object<'a>(&'a Map<String, Value>);
pub(super) struct Array<'a>(&'a [Value]);
pub(super) struct Members<'a>(serde_json::map::Iter<'a>);
pub(super) struct Elements<'a>(std::slice::Iter<'a, Value>);

impl Json for Metered {
    type Node<'a> = Node<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(Node<'_>) -> T) -> T {
        pays_name(string);
        f(Node(&Value::String(string.to_owned())))
    }
}

impl<'a> json::Node<'a, Metered> for Node<'a> {
    type Object = Object<'a>;
    type Array = Array<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<Object<'a>> {
        let fields = self.0.as_object()?;
        pays(|_| 1).then_some(Object(fields))
    }

    fn as_array(&self) -> Option<Array<'a>> {
        let items = self.0.as_array()?;
        pays(|_| 1).then_some(Array(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = self.0.as_str()?;
        pays_text(text).then_some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        pays(|_| 1);
        self.0.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        pays(|_| 1);
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        pays(|_| 1);
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        pays(|_| 1);
        match self.0 {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        let text = self.0.as_str()?;
        pays(|_| 1 + text.len() as u64 / BYTES).then(|| text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        pays_whole(self.0) && json::cmp::equal(self.0, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        pays(|prices| 1 + prices.error);
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        pays(|_| REMEMBERED);
        Some(NodeIdentity::new(std::ptr::from_ref(self.0) as usize))
    }
}

impl<'a> json::Object<'a, Metered> for Object<'a> {
    type Node = Node<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        pays(|_| 1);
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Node<'a>> {
        if !pays(|_| 1) {
            return None;
        }
        let field = self.0.get(key)?;
        pays(|prices| prices.value).then_some(Node(field))
    }

    fn members(&self) -> Members<'a> {
        Members(self.0.iter())
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, field) = self.0.next()?;
        pays_name(name).then_some((name.as_str(), Node(field)))
    }
}

impl<'a> json::Array<'a, Metered> for Array<'a> {
    type Node = Node<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        pays(|_| 1);
        self.0.len()
    }

    fn elements(&self) -> Elements<'a> {
        Elements(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        self.0.iter().all(pays_whole) && json::unique::is_unique(self.0)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let item = self.0.next()?;
        pays(|prices| prices.value).then_some(Node(item))
    }
}
