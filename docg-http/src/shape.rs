//! Converts JSON to types, strictly, and reports every fault.

use std::collections::HashMap;

use docg_core::{
    error::FieldFault,
    json,
    workflow::{NodeDraft, WorkflowDraft, validate::MAX_NODES},
};
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

use crate::problem::Problem;

/// The most faults that are reported for one value. Each fault costs another read of the value.
const MOST: usize = 100;

/// The values that replace a wrong value, tried in order until the rest can be read. The first try
/// removes the wrong value; in an array, the first try makes it null.
const STAND_INS: [fn() -> Value; 6] = [
    || Value::Null,
    || Value::String(String::new()),
    || Value::Array(Vec::new()),
    || Value::Object(Map::new()),
    || Value::from(0),
    || Value::Bool(false),
];

/// Converts a value to a type. If that fails, the problem names all faults at once.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    match read_on(value) {
        (Some(typed), faults) if faults.is_empty() => Ok(typed),
        (_, faults) => Err(Problem::invalid(faults)),
    }
}

/// Reads a workflow as far as possible, with the faults of its shape.
pub(crate) fn workflow(value: &Value) -> (Option<WorkflowDraft>, Vec<FieldFault>) {
    // Read node by node, so that a fault costs only another read of its node.
    let mut frame = value.clone();
    let nodes = frame.get_mut("nodes").and_then(Value::as_array_mut);
    let nodes = nodes.map(std::mem::take).unwrap_or_default();
    let (mut draft, mut faults) = read_on::<WorkflowDraft>(&frame);
    // Read one node more than is allowed, so that a later check finds that there are too many.
    for (index, node) in nodes.iter().take(MAX_NODES + 1).enumerate() {
        let (node, found) = read_on::<NodeDraft>(node);
        let at = format!("/nodes/{index}");
        faults.extend(found.into_iter().map(|fault| fault.within(&at)));
        match (&mut draft, node) {
            (Some(draft), Some(node)) => draft.nodes.push(node),
            _ => draft = None,
        }
    }
    (draft, faults)
}

/// Converts a value to a type as far as possible, and returns all faults. Serde stops at the first fault,
/// so the faulty part is replaced and the value is read again.
fn read_on<T: DeserializeOwned>(value: &Value) -> (Option<T>, Vec<FieldFault>) {
    let mut fault = match read(value) {
        Ok(typed) => return (Some(typed), Vec::new()),
        Err(fault) => fault,
    };
    let mut rest = value.clone();
    let mut faults: Vec<FieldFault> = Vec::new();
    let mut tried: HashMap<String, usize> = HashMap::new();
    loop {
        // Do not report a fault inside a replacement: the caller did not send it.
        let known = faults
            .iter()
            .any(|known| contains(&known.pointer, &fault.pointer));
        let tries = tried.entry(fault.pointer.clone()).or_default();
        let stands_in = STAND_INS
            .get(*tries)
            .is_some_and(|stand_in| put(&mut rest, &fault.pointer, (*tries > 0).then(stand_in)));
        *tries += 1;
        if !known {
            faults.push(fault);
        }
        if !stands_in || faults.len() == MOST {
            return (None, faults);
        }
        fault = match read(&rest) {
            Ok(typed) => return (Some(typed), faults),
            Err(fault) => fault,
        };
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, FieldFault> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|e| field_fault(&e))
}

/// True if `inner` is the same place as `outer`, or lies within it.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts a new value where the pointer points. If `new` is `None`, a field is removed, and an array's item
/// or the whole value becomes null. Returns false if the pointer leads nowhere.
fn put(value: &mut Value, pointer: &str, new: Option<Value>) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        *value = new.unwrap_or_default();
        return true;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            match new {
                Some(new) => fields.insert(name, new),
                None => fields.remove(&name),
            };
            true
        }
        Some(Value::Array(items)) => {
            let place = name
                .parse()
                .ok()
                .and_then(|index: usize| items.get_mut(index));
            place
                .map(|place| *place = new.unwrap_or_default())
                .is_some()
        }
        _ => false,
    }
}

fn field_fault<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> FieldFault {
    let detail = error.inner().to_string();
    let mut pointer = String::new();
    for segment in error.path() {
        let name = match segment {
            serde_path_to_error::Segment::Seq { index } => index.to_string(),
            serde_path_to_error::Segment::Map { key } => key.clone(),
            serde_path_to_error::Segment::Enum { variant } => variant.clone(),
            serde_path_to_error::Segment::Unknown => continue,
        };
        push_token(&mut pointer, &name);
    }
    let named = |prefix: &str| {
        detail
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('`').next())
    };
    let code = if detail.starts_with("unknown field `") {
        // The path already ends with the unknown field.
        "unknown_field"
    } else if let Some(field) = named("missing field `") {
        push_token(&mut pointer, field);
        "missing_field"
    } else if detail.starts_with("unknown variant") {
        "invalid_value"
    } else {
        "invalid_type"
    };
    FieldFault::new(pointer, code, json::misfit(error.inner()))
}

/// Escapes a name for a JSON pointer (RFC 6901).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Appends a name to a JSON pointer. Callers use one buffer for a whole value, because names may be long.
pub(crate) fn push_token(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&escaped(name));
}

/// The JSON pointer of the first text below `at` that holds a NUL. Not every store can keep a NUL.
pub(crate) fn find_nul(value: &Value, at: &mut String) -> Option<String> {
    let length = at.len();
    match value {
        Value::String(text) => text.contains('\0').then(|| at.clone()),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            at.truncate(length);
            push_token(at, &index.to_string());
            find_nul(item, at)
        }),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            at.truncate(length);
            push_token(at, key);
            if key.contains('\0') {
                return Some(at.clone());
            }
            find_nul(item, at)
        }),
        _ => None,
    }
}

/// Reads a value as serde_json does, with two exceptions. An array is not accepted as a struct: serde_json
/// would read `["a", "b"]` as the fields in order. A whole float such as `2.0` is accepted as an integer, as
/// in JSON Schema (2020-12, core, section 4.2.3), which describes the API.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Value);

impl<'a> IntoDeserializer<'a, Error> for Strict<'a> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The integer value of a number that is written with a fraction or an exponent, if it is whole.
fn integral(value: &Value) -> Option<i64> {
    /// 2^53: a float holds every integer up to this one exactly (IEEE 754 binary64).
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_f64().filter(|_| value.is_f64())?;
    // Lossless: the number is whole and within the exact range.
    #[expect(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Defines the integer methods, which accept whole floats too.
macro_rules! deserialize_integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match integral(self.0) {
                Some(whole) => visitor.visit_i64(whole),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(Strict)))
            }
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(
                map.iter().map(|(key, value)| (key.as_str(), Strict(value))),
            )),
            leaf => leaf.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    deserialize_integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Asked {
        count: u32,
        #[serde(default)]
        offset: Option<i64>,
    }

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        let given = json!({"count": 669.0, "offset": -2e3});
        let asked = Asked {
            count: 669,
            offset: Some(-2_000),
        };
        assert_eq!(typed::<Asked>(&given).ok(), Some(asked));
        for wrong in [
            json!(0.5),
            json!(-1.0),
            json!(4_294_967_296.0),
            json!(1e300),
            json!("1"),
        ] {
            assert!(typed::<Asked>(&json!({"count": wrong})).is_err(), "{wrong}");
        }
    }
}
