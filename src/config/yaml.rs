//! Reads YAML strictly and to the end: every wrong key, type and value of a file is reported at
//! once, each with its path. (A derived `Deserialize` stops at the first one.)
//!
//! The only module that knows the YAML library, with `tree.rs` and `scalar.rs` below it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::scalar;
use super::stamp::Stamp;
use super::tree::Tree;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `target_groups[0].scheme`; empty for the file as a whole.
    pub path: String,
    /// What, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "`{}`: {}", self.path, self.message)
    }
}

/// The text, what went wrong so far, and which keys were asked for.
#[derive(Default)]
struct Findings {
    text: String,
    problems: RefCell<Vec<Problem>>,
    asked: RefCell<Vec<String>>,
    files: RefCell<BTreeMap<PathBuf, Option<Stamp>>>,
}

/// A value at its place in the document.
pub(super) struct Node {
    path: String,
    value: Value,
    findings: Rc<Findings>,
}

/// A mapping whose keys are taken one by one; [`Section::close`] reports those that are left.
pub(super) struct Section {
    path: String,
    entries: Vec<(String, Value)>,
    asked: Vec<&'static str>,
    given: Vec<&'static str>,
    findings: Rc<Findings>,
}

/// What reading a document leaves behind.
pub(super) struct Report {
    /// Everything that is wrong, in the order of reading.
    pub(super) problems: Vec<Problem>,
    /// The path of every key that was asked for, list positions written as `[]`.
    pub(super) asked: Vec<String>,
    /// The files whose content is to be followed, as they were when they were read.
    pub(super) files: BTreeMap<PathBuf, Option<Stamp>>,
}

/// Parses `text` and lets `read` take it apart.
///
/// Text that is not YAML yields no value and one problem.
pub(super) fn read<T>(text: &str, read: impl FnOnce(Node) -> T) -> (Option<T>, Report) {
    let findings = Rc::new(Findings { text: text.to_owned(), ..Findings::default() });
    let value = match serde_yaml::from_str::<Tree>(text) {
        Ok(Tree(value)) => value,
        Err(error) => {
            let message = format!("not valid YAML: {error}");
            let problems = vec![Problem { path: String::new(), message }];
            let (asked, files) = (Vec::new(), BTreeMap::new());
            return (None, Report { problems, asked, files });
        }
    };
    let value = read(Node { path: String::new(), value, findings: Rc::clone(&findings) });
    let (problems, asked) = (findings.problems.take(), findings.asked.take());
    (Some(value), Report { problems, asked, files: findings.files.take() })
}

/// Parses a text that is no configuration, such as a list of targets.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

impl Node {
    /// Notes that this value is wrong.
    pub(super) fn reject(&self, message: impl Into<String>) {
        let problem = Problem { path: self.path.clone(), message: message.into() };
        self.findings.problems.borrow_mut().push(problem);
    }

    /// The value as text; a plain number counts, since `8899` and `"8899"` look alike to people.
    fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A text that `parse` accepts; `expected` says what that is.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = self.text() else {
            self.reject(format!("expected {expected}, found {}", kind_of(&self.value)));
            return None;
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.reject(message);
                None
            }
        }
    }

    /// What a file holds, by its path.
    pub(super) fn path<T>(&self, read: impl FnOnce(&Path) -> Result<T, String>) -> Option<T> {
        self.parsed("a path", |text| read(Path::new(text)))
    }

    /// As [`path`](Node::path), of a file whose content is followed while the process runs.
    pub(super) fn file<T>(&self, read: impl FnOnce(&Path) -> Result<T, String>) -> Option<T> {
        self.path(|path| {
            // Before it is read, so that no change is missed.
            self.findings.files.borrow_mut().insert(path.to_owned(), Stamp::of(path));
            read(path)
        })
    }

    /// The value as it is written: a number or a truth value counts as its own text, since what
    /// YAML makes of `1e5` or `0x10` is not what was meant.
    fn written(&self) -> Option<String> {
        match &self.value {
            Value::Number(_) | Value::Bool(_) => scalar::written(&self.findings.text, &self.path),
            _ => self.text(),
        }
    }

    /// As [`parsed`](Node::parsed), where a number is what is written of it.
    pub(super) fn literal<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.written().filter(|_| !self.value.is_bool());
        let Some(text) = text else {
            self.reject(format!("expected {expected}, found {}", kind_of(&self.value)));
            return None;
        };
        parse(&text).map_err(|message| self.reject(message)).ok()
    }

    /// A text that is not shown, whatever is wrong with it; of the value as it is written.
    pub(super) fn secret<T>(&self, parse: fn(&str) -> Result<T, &'static str>) -> Option<T> {
        let parsed = match self.written() {
            Some(text) => parse(&text).map_err(|reason| format!("the value {reason}")),
            None => Err(format!("expected a text, found {}", kind_of(&self.value))),
        };
        parsed.map_err(|message| self.reject(message)).ok()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.boolean_among("`true` or `false`")
    }

    /// A boolean where other values were possible; `expected` says which all are.
    pub(super) fn boolean_among(&self, expected: &str) -> Option<bool> {
        if let Value::Bool(value) = self.value {
            return Some(value);
        }
        self.reject(format!("expected {expected}, found {}", kind_of(&self.value)));
        None
    }

    /// True for keys and values.
    pub(super) fn is_section(&self) -> bool {
        self.value.is_mapping()
    }

    /// The values of a mapping whose keys are names of the operator's own, with those.
    pub(super) fn entries(self) -> Vec<(String, Node)> {
        let Section { path, entries, findings, .. } = self.section();
        let node = |(key, value): (String, Value)| {
            let path = format!("{path}.{key}");
            (key, Node { path, value, findings: Rc::clone(&findings) })
        };
        entries.into_iter().map(node).collect()
    }

    /// True for a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_sequence()
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(&self, least: u64, most: u64) -> Option<u64> {
        match self.value.as_u64() {
            Some(value) if (least..=most).contains(&value) => Some(value),
            _ => {
                self.reject(format!("expected a whole number from {least} to {most}"));
                None
            }
        }
    }

    /// The elements of a list.
    pub(super) fn list(self) -> Vec<Node> {
        let Value::Sequence(values) = self.value else {
            self.reject(format!("expected a list, found {}", kind_of(&self.value)));
            return Vec::new();
        };
        let path = self.path;
        let node = |(at, value)| Node {
            path: format!("{path}[{at}]"),
            value,
            findings: Rc::clone(&self.findings),
        };
        values.into_iter().enumerate().map(node).collect()
    }

    /// The keys of a mapping. An empty file is a mapping without keys.
    pub(super) fn section(self) -> Section {
        let entries = match self.value {
            Value::Null => Vec::new(),
            Value::Mapping(mapping) => mapping.into_iter().map(|(k, v)| (key_text(k), v)).collect(),
            ref other => {
                self.reject(format!("expected keys and values, found {}", kind_of(other)));
                Vec::new()
            }
        };
        let (asked, given) = (Vec::new(), Vec::new());
        Section { path: self.path, entries, asked, given, findings: self.findings }
    }
}

impl Section {
    /// Takes a key's value; `None` when the key is absent or null.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        let path = self.path_of(key);
        self.findings.asked.borrow_mut().push(without_positions(&path));
        self.asked.push(key);
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, value) = self.entries.swap_remove(at);
        if value.is_null() {
            return None;
        }
        self.given.push(key);
        Some(Node { path, value, findings: Rc::clone(&self.findings) })
    }

    /// Takes a key's value; `None` when the key is absent, null or an empty text, which is how
    /// templates leave what is not set.
    pub(super) fn take_filled(&mut self, key: &'static str) -> Option<Node> {
        let node = self.take(key)?;
        if !is_empty(&node.value) {
            return Some(node);
        }
        self.given.retain(|given| *given != key);
        None
    }

    /// Takes the section at a key, of which these are the keys; `None` when it is absent or null,
    /// or when it has keys and all of them are empty.
    pub(super) fn take_section(
        &mut self,
        key: &'static str,
        keys: &[&'static str],
    ) -> Option<Section> {
        let mut section = self.take(key)?.section();
        let says_nothing = section.entries.iter().all(|(_, value)| is_empty(value));
        if section.entries.is_empty() || !says_nothing {
            return Some(section);
        }
        for key in keys {
            section.take(key);
        }
        section.close();
        self.given.retain(|given| *given != key);
        None
    }

    /// True when the key was taken and had a value.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.contains(&key)
    }

    /// Notes a problem with a key of this section, or with the section itself for `""`.
    pub(super) fn reject(&self, key: &str, message: impl Into<String>) {
        let problem = Problem { path: self.path_of(key), message: message.into() };
        self.findings.problems.borrow_mut().push(problem);
    }

    /// Reports every key that was not taken.
    pub(super) fn close(mut self) {
        self.entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, _) in &self.entries {
            self.reject(key, format!("unknown key, expected one of `{}`", self.asked.join("`, `")));
        }
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.to_owned(),
            ("", key) => key.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }
}

/// What sets nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn key_text(key: Value) -> String {
    match key {
        Value::String(text) => text,
        other => serde_yaml::to_string(&other).unwrap_or_default().trim_end().to_owned(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "keys and values",
        Value::Tagged(_) => "a tagged value",
    }
}

/// `a[12].b` as `a[].b`.
fn without_positions(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside &= c != ']';
        if !inside {
            plain.push(c);
        }
        inside |= c == '[';
    }
    plain
}

/// The path of every key in a document, list positions written as `[]`.
#[cfg(test)]
pub(super) fn keys_in(text: &str) -> std::collections::BTreeSet<String> {
    fn walk(path: &str, value: &Value, keys: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Mapping(mapping) => {
                for (key, value) in mapping {
                    let key = key_text(key.clone());
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    walk(&path, value, keys);
                    keys.insert(path);
                }
            }
            Value::Sequence(values) => {
                for value in values {
                    walk(&format!("{path}[]"), value, keys);
                }
            }
            _ => {}
        }
    }
    let mut keys = std::collections::BTreeSet::new();
    walk("", &serde_yaml::from_str(text).expect("valid YAML"), &mut keys);
    keys
}
