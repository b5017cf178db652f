//! From JSON to types: objects are objects, and every fault is named.

use docg_core::storable::{MAX_DEPTH, Unstorable};
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};

use crate::problem::{FieldError, Problem};

/// No more faults than this are told at once: each costs another reading.
const MOST: usize = 32;

/// A value as a type. All that is wrong with it is told at once, as far as it can be known.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    let first = match read(value) {
        Ok(typed) => return Ok(typed),
        Err(error) => error,
    };
    // Serde stops at the first fault: without it the rest is read again.
    let mut rest = value.clone();
    let mut errors = vec![first];
    while errors.len() < MOST
        && errors
            .last()
            .is_some_and(|last| take_out(&mut rest, &last.pointer))
    {
        match read::<T>(&rest) {
            Ok(_) => break,
            // A field that must be there was there and wrong.
            Err(error) if errors.iter().any(|known| known.pointer == error.pointer) => break,
            Err(error) => errors.push(error),
        }
    }
    Err(Problem::invalid(errors))
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|e| field_error(&e))
}

/// Removes what a pointer names from its object.
fn take_out(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return false;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    value
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .is_some_and(|parent| parent.remove(&name).is_some())
}

fn field_error<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> FieldError {
    let detail = error.inner().to_string();
    let mut pointer = String::new();
    for segment in error.path() {
        let name = match segment {
            serde_path_to_error::Segment::Seq { index } => index.to_string(),
            serde_path_to_error::Segment::Map { key } => key.clone(),
            serde_path_to_error::Segment::Enum { variant } => variant.clone(),
            serde_path_to_error::Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&escaped(&name));
    }
    let named = |prefix: &str| {
        detail
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('`').next())
            .map(escaped)
    };
    let code = if detail.starts_with("unknown field `") {
        // The path already ends with the field.
        "unknown_field"
    } else if let Some(field) = named("missing field `") {
        pointer = format!("{pointer}/{field}");
        "missing_field"
    } else if detail.starts_with("unknown variant") {
        "invalid_value"
    } else {
        "invalid_type"
    };
    FieldError::new(pointer, code, detail)
}

/// A name as a part of a JSON pointer (RFC 6901).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The place of the first text with a NUL: not every store can keep one.
pub(crate) fn find_nul(value: &Value, at: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(at),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_nul(item, format!("{at}/{index}"))),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let at = format!("{at}/{}", escaped(key));
            if key.contains('\0') {
                Some(at)
            } else {
                find_nul(item, at)
            }
        }),
        _ => None,
    }
}

/// The part of a body that is nested too deep, which no store could give back.
pub(crate) fn find_too_deep(body: &Value) -> Option<String> {
    let deep = |value| Unstorable::of_value(value, MAX_DEPTH - 1) == Some(Unstorable::TooDeep);
    match body {
        Value::Object(map) => map
            .iter()
            .find_map(|(key, item)| deep(item).then(|| format!("/{}", escaped(key)))),
        Value::Array(items) => items.iter().any(deep).then(String::new),
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
