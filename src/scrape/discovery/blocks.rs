//! Prometheus' way to list targets: `[{"targets": ["10.0.0.1:8899"], "labels": {}}]`, as JSON or
//! YAML. Keys other than `targets` are not for us and allowed; `null` is an empty list, as Go
//! writes it.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::gathering::{Gathering, Named};
use crate::config::{MAX_TARGETS, Scheme, yaml};

/// Most values of a document that are looked at: an alias of YAML is a few bytes that can stand for
/// many.
const MAX_VALUES: usize = 4 * MAX_TARGETS;

/// A value, as far as it can be part of a list of blocks.
#[derive(Debug)]
enum Value {
    Null,
    Text(String),
    List(Vec<Value>),
    /// Keys and values, of which `targets` matters.
    Block(Option<Box<Value>>),
    /// What it is instead.
    Other(&'static str),
}

/// Reads blocks from YAML, of which JSON is a part.
pub(super) fn from_yaml(text: &str, scheme: Scheme) -> Result<Named, String> {
    gather(&yaml::parse::<Value>(text)?, scheme)
}

/// Reads blocks from JSON. Where it is not a text, that is the end of one target and not of all.
pub(super) fn from_json(body: &[u8], scheme: Scheme) -> Result<Named, String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}');
    let value = serde_json::from_str::<Value>(text).map_err(|error| error.to_string())?;
    gather(&value, scheme)
}

fn gather(document: &Value, scheme: Scheme) -> Result<Named, String> {
    let mut gathering = Gathering::new(scheme);
    let blocks = match document {
        Value::Null => &[][..],
        Value::List(blocks) => blocks,
        other => {
            let found = other.kind();
            return Err(format!("expected a list of blocks with targets, found {found}"));
        }
    };
    for (block, number) in blocks.iter().zip(1..) {
        let place = || format!("element {number}");
        match block {
            Value::Block(None) => gathering.omit(place, "missing field `targets`"),
            Value::Block(Some(targets)) => match &**targets {
                Value::Null => {}
                Value::List(targets) => take(&mut gathering, number, targets)?,
                other => {
                    let reason = format!("`targets` is {}, expected a list", other.kind());
                    gathering.omit(place, &reason);
                }
            },
            other => {
                let reason = format!("is {}, expected a block with targets", other.kind());
                gathering.omit(place, &reason);
            }
        }
    }
    gathering.end()
}

fn take(gathering: &mut Gathering, number: usize, targets: &[Value]) -> Result<(), String> {
    for (target, at) in targets.iter().zip(1..) {
        let place = || format!("element {number}, target {at}");
        let reason = |other: &Value| format!("is {}, expected a text", other.kind());
        match target {
            Value::Text(text) => gathering.take(place, Ok(text))?,
            other => gathering.take(place, Err(&reason(other)))?,
        }
    }
    Ok(())
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Block(_) => "keys and values",
            Self::Other(kind) => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Counted(&Cell::new(0)).deserialize(deserializer)
    }
}

/// A value, and those in it, of a document of which so many were looked at already.
#[derive(Clone, Copy)]
struct Counted<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_VALUES {
            return Err(D::Error::custom(format!("more than {MAX_TARGETS} targets")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks with targets")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut targets = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "targets" {
                targets = Some(Box::new(map.next_value_seed(self)?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Block(targets))
    }
}
