//! The values of expressions: six kinds, never converted into one another.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::number::Number;

/// A value. Data of the execution is borrowed; only values that the expression makes are owned.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(List<'a>),
    Object(Cow<'a, Map<String, Json>>),
}

#[derive(Debug, Clone)]
pub(super) enum List<'a> {
    Given(&'a [Json]),
    Made(Vec<Value<'a>>),
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Given(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// The item at an index; `None` beyond the end. `Err` if the item is a number that cannot be read.
    pub(super) fn get(&self, index: usize) -> Option<Result<Value<'a>, Unreadable>> {
        match self {
            Self::Given(items) => items.get(index).map(Value::of),
            Self::Made(items) => items.get(index).cloned().map(Ok),
        }
    }
}

/// The error for a number with more digits than conditions support.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreadable;

impl<'a> Value<'a> {
    pub(super) fn of(json: &'a Json) -> Result<Self, Unreadable> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(it) => Self::Bool(*it),
            Json::Number(number) => Self::Number(Number::of_json(number).ok_or(Unreadable)?),
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            Json::Array(items) => Self::List(List::Given(items)),
            Json::Object(fields) => Self::Object(Cow::Borrowed(fields)),
        })
    }

    pub(super) fn of_found(found: Cow<'a, Json>) -> Result<Self, Unreadable> {
        match found {
            Cow::Borrowed(json) => Self::of(json),
            Cow::Owned(json) => Self::of_owned(json),
        }
    }

    pub(super) fn of_owned(json: Json) -> Result<Self, Unreadable> {
        Ok(match json {
            Json::String(text) => Self::Text(Cow::Owned(text)),
            Json::Object(fields) => Self::Object(Cow::Owned(fields)),
            Json::Array(items) => {
                let items = items.into_iter().map(Self::of_owned);
                Self::List(List::Made(items.collect::<Result<_, _>>()?))
            }
            Json::Number(number) => Self::Number(Number::of_json(&number).ok_or(Unreadable)?),
            Json::Bool(it) => Self::Bool(it),
            Json::Null => Self::Null,
        })
    }

    /// The name of the value's kind, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// A field of an object; `None` if there is no such field.
    pub(super) fn field(&self, name: &str) -> Option<Result<Self, Unreadable>> {
        match self {
            Self::Object(Cow::Borrowed(fields)) => fields.get(name).map(Self::of),
            Self::Object(Cow::Owned(fields)) => fields.get(name).cloned().map(Self::of_owned),
            _ => None,
        }
    }
}
