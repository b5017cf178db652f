//! From JSON to types: objects are objects, and every fault is named.

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

/// No more faults of one value than this are told at once: each costs another reading.
const MOST: usize = 100;

/// What stands in, one after the other, for what is wrong, until the rest can be read. First
/// nothing at all, or null where something must be.
const STAND_INS: [fn() -> Value; 6] = [
    || Value::Null,
    || Value::String(String::new()),
    || Value::Array(Vec::new()),
    || Value::Object(Map::new()),
    || Value::from(0),
    || Value::Bool(false),
];

/// A value as a type. All that is wrong with it is told at once.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    match read_on(value) {
        (Some(typed), faults) if faults.is_empty() => Ok(typed),
        (_, faults) => Err(Problem::invalid(faults)),
    }
}

/// A workflow as far as it can be read, and what is wrong with its shape.
pub(crate) fn workflow(value: &Value) -> (Option<WorkflowDraft>, Vec<FieldFault>) {
    // Node by node: a fault costs another reading of its own node only.
    let mut frame = value.clone();
    let nodes = frame.get_mut("nodes").and_then(Value::as_array_mut);
    let nodes = nodes.map(std::mem::take).unwrap_or_default();
    let (mut draft, mut faults) = read_on::<WorkflowDraft>(&frame);
    // One more than there may be, so that they are known to be too many.
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

/// A value as a type, as far as it can be read, with what is wrong. Serde stops at the first fault:
/// something else is put in its place, and the rest is read again.
fn read_on<T: DeserializeOwned>(value: &Value) -> (Option<T>, Vec<FieldFault>) {
    let mut fault = match read(value) {
        Ok(typed) => return (Some(typed), Vec::new()),
        Err(fault) => fault,
    };
    let mut rest = value.clone();
    let mut faults: Vec<FieldFault> = Vec::new();
    let mut tried: HashMap<String, usize> = HashMap::new();
    loop {
        // Within what stands in nothing is the caller's.
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

/// Whether one pointer leads to the other's place or into it.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts a value at a place; without one, the place is left out, or null where that cannot be.
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
        // The path already ends with the field.
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

/// A name as a part of a JSON pointer (RFC 6901).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Appends a name to a JSON pointer. One buffer goes through a whole value: names may be long.
pub(crate) fn push_token(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&escaped(name));
}

/// The place of the first text with a NUL below `at`: not every store can keep one.
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

/// Reads a value as serde_json does, with two exceptions. An array is no struct: serde would take
/// `["a", "b"]` for the fields in their order. And `2.0` is an integer, as it is in JSON Schema
/// (2020-12, core, section 4.2.3), by which the API is described.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Value);

impl<'a> IntoDeserializer<'a, Error> for Strict<'a> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The integer that a number written with a fraction or an exponent is, if it is one.
fn integral(value: &Value) -> Option<i64> {
    /// Above it a float does not say which integer is meant (IEEE 754 binary64).
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_f64().filter(|_| value.is_f64())?;
    // Lossless: it is whole, and small enough.
    #[expect(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// What integers are asked for with: each takes whole floats too.
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
