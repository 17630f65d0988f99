//! The text of one scalar of a YAML document as it is written, which the parsed value no longer
//! has: `1e5` is a number to YAML, and may be a password.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// One step from a value to one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Position(usize),
}

/// What is written at a path such as `target_groups[0].scheme`; `None` where that is no scalar. No
/// key on the way has a dot or a bracket.
pub(super) fn written(text: &str, path: &str) -> Option<String> {
    let steps = steps(path)?;
    At(&steps).deserialize(serde_yaml::Deserializer::from_str(text)).ok().flatten()
}

fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, positions) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key));
        for position in positions.split_terminator(']') {
            let digits = position.strip_prefix('[').unwrap_or(position);
            steps.push(Step::Position(digits.parse().ok()?));
        }
    }
    Some(steps)
}

/// The scalar behind these steps.
struct At<'a>(&'a [Step<'a>]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0.split_first() {
            None => String::deserialize(deserializer).map(Some),
            Some((Step::Key(_), _)) => deserializer.deserialize_map(self),
            Some((Step::Position(_), _)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values, or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((Step::Key(wanted), rest)) if key == *wanted => {
                    found = map.next_value_seed(At(rest))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Some((Step::Position(wanted), rest)) = self.0.split_first() else { return Ok(None) };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        let found = seq.next_element_seed(At(rest))?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_is_found_as_it_is_written() {
        let text = "a: [x, {b: 1e5, c: 0x10}, [7, +08]]\nd: &n 1.50\ne: {f: *n, g: True, h: '1'}\n\
                    1: 2\n";
        for (path, expected) in [
            ("a[0]", Some("x")),
            ("a[1].b", Some("1e5")),
            ("a[1].c", Some("0x10")),
            ("a[2][1]", Some("+08")),
            ("d", Some("1.50")),
            ("e.f", Some("1.50")),
            ("e.g", Some("True")),
            ("e.h", Some("1")),
            ("1", Some("2")),
            ("a", None),
            ("a[9]", None),
            ("a.b", None),
            ("e[0]", None),
            ("nowhere", None),
            ("", None),
        ] {
            assert_eq!(written(text, path).as_deref(), expected, "{path}");
        }
    }
}
