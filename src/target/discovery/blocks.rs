//! Prometheus' way to list targets: `[{"targets": ["10.0.0.1:8899"], "labels": {}}]`, as JSON or
//! YAML. Keys other than `targets` are not for us and allowed.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::config::{MAX_TARGETS, yaml};

/// Longest target of a list: a scheme, a host name and a port.
pub(super) const MAX_TARGET: usize = 300;

/// All targets of all blocks, bounded while they are read: an alias of YAML is a few bytes that can
/// stand for many.
struct Blocks(Vec<String>);

/// The targets of one block.
#[derive(Deserialize)]
struct Block {
    targets: Targets,
}

struct Targets(Vec<String>);

/// Reads blocks from YAML, of which JSON is a part.
pub(super) fn from_yaml(text: &str) -> Result<Vec<String>, String> {
    yaml::parse::<Blocks>(text).map(|blocks| blocks.0)
}

/// Reads blocks from JSON.
pub(super) fn from_json(text: &[u8]) -> Result<Vec<String>, String> {
    let blocks = serde_json::from_slice::<Blocks>(text).map_err(|error| error.to_string())?;
    Ok(blocks.0)
}

fn too_many<E: Error>() -> E {
    E::custom(format!("more than {MAX_TARGETS} targets"))
}

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BlocksVisitor).map(Self)
    }
}

struct BlocksVisitor;

impl<'de> Visitor<'de> for BlocksVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks with targets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut targets = Vec::new();
        while let Some(block) = seq.next_element::<Block>()? {
            targets.extend(block.targets.0);
            if targets.len() > MAX_TARGETS {
                return Err(too_many());
            }
        }
        Ok(targets)
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TargetsVisitor).map(Self)
    }
}

struct TargetsVisitor;

impl<'de> Visitor<'de> for TargetsVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of targets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut targets = Vec::new();
        while let Some(target) = seq.next_element::<String>()? {
            if targets.len() >= MAX_TARGETS {
                return Err(too_many());
            }
            if target.len() > MAX_TARGET {
                return Err(A::Error::custom(format!("a target of more than {MAX_TARGET} bytes")));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}
