//! A file of targets, read again and again: that is cheap, and it sees a change in place and one by
//! rename alike.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::answer::Answer;
use super::blocks;
use super::error::DiscoveryError;
use super::gathering::{Gathering, Named};
use crate::config::{HostPort, Scheme};

/// Largest file of targets, in bytes: more than the most targets with all their labels.
const MAX_FILE: u64 = 16 << 20;

/// Advice for whoever wrote something else than blocks.
const EXPECTED: &str = "expected `[{\"targets\": [\"10.0.0.1:8899\"]}]`, or lines of `host:port` \
                        in a file that is not called `.json`, `.yml` or `.yaml`";

/// The file of a group.
pub(super) struct FileSource {
    file: FileReader,
    scheme: Scheme,
    interval: Duration,
}

impl FileSource {
    pub(super) fn new(path: &Path, scheme: Scheme, interval: Duration) -> Self {
        Self { file: FileReader::new(path, MAX_FILE), scheme, interval }
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    pub(super) async fn ask(&mut self) -> Result<Answer, DiscoveryError> {
        // A line that is no text costs that line.
        let text = String::from_utf8_lossy(&self.file.read().await?).into_owned();
        let path = self.path();
        let invalid = |message| DiscoveryError::Invalid { path: path.to_owned(), message };
        let form = Form::of(path, &text, self.scheme);
        let named = named(form, &text, self.scheme).map_err(invalid)?;
        Ok(Answer { named, again: self.interval })
    }
}

/// Reads a small file anew each time. A read that hangs (a dead network file system) holds a
/// thread, and whoever waits for it may give up; there is never a second one beside it.
pub(super) struct FileReader {
    path: PathBuf,
    most: u64,
    reading: JoinSet<std::io::Result<Vec<u8>>>,
}

impl FileReader {
    /// `most` is the largest size in bytes.
    pub(super) fn new(path: &Path, most: u64) -> Self {
        Self { path: path.to_owned(), most, reading: JoinSet::new() }
    }

    pub(super) async fn read(&mut self) -> Result<Vec<u8>, DiscoveryError> {
        if self.reading.is_empty() {
            self.reading.spawn(read(self.path.clone(), self.most));
        }
        let ended = self.reading.join_next().await;
        let text = match ended {
            Some(Ok(text)) => text,
            Some(Err(error)) => Err(std::io::Error::other(error)),
            None => Err(std::io::Error::other("nothing was read")),
        };
        text.map_err(|source| DiscoveryError::Unreadable { path: self.path.clone(), source })
    }
}

async fn read(path: PathBuf, most: u64) -> std::io::Result<Vec<u8>> {
    // To open a pipe is to wait for who writes into it.
    if !tokio::fs::metadata(&path).await?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let file = tokio::fs::File::open(path).await?;
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > most {
        return Err(std::io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(text)
}

/// How a file lists targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One target a line; empty lines and `#` comments are skipped.
    Lines,
    /// The `file_sd` of Prometheus: `[{"targets": [..]}]`, in JSON or YAML.
    FileSd,
}

impl Form {
    /// By extension, as Prometheus does, and else by what the file holds.
    fn of(path: &Path, text: &str, scheme: Scheme) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let named = |name: &str| extension.is_some_and(|given| given.eq_ignore_ascii_case(name));
        if ["json", "yml", "yaml"].into_iter().any(named) || holds_blocks(text, scheme) {
            Self::FileSd
        } else {
            Self::Lines
        }
    }
}

/// Whether a text begins as a list or a map of JSON or YAML does, which no target does but for the
/// brackets of an IPv6 address.
fn holds_blocks(text: &str, scheme: Scheme) -> bool {
    let lines = text.trim_start_matches('\u{feff}').lines();
    let mut lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    let Some(first) = lines.find(|line| !line.is_empty()) else { return false };
    match first.as_bytes() {
        [b'{', ..] | [b'-'] | [b'-', b' ' | b'-', ..] => true,
        [b'[', ..] => HostPort::parse(first, scheme).is_err(),
        _ => false,
    }
}

/// Reads the text of a file of targets. Entries that are none are left out; the error is that of a
/// text without any that is one, or of one that is no list.
pub fn parse_targets(form: Form, text: &str, scheme: Scheme) -> Result<BTreeSet<HostPort>, String> {
    named(form, text, scheme).map(|named| named.targets)
}

fn named(form: Form, text: &str, scheme: Scheme) -> Result<Named, String> {
    let text = text.trim_start_matches('\u{feff}');
    match form {
        // Nearly every large one is JSON, which is read much faster as such.
        Form::FileSd => {
            let named = blocks::from_json(text.as_bytes(), scheme);
            let named = named.or_else(|_| blocks::from_yaml(text, scheme));
            named.map_err(|error| format!("{error}; {EXPECTED}"))
        }
        Form::Lines => {
            let mut gathering = Gathering::new(scheme);
            for (line, number) in text.lines().zip(1_usize..) {
                let entry = line.split('#').next().unwrap_or_default().trim();
                if !entry.is_empty() {
                    gathering.take(|| format!("line {number}"), Ok(entry))?;
                }
            }
            gathering.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::MAX_TARGETS;

    fn check(form: Form, text: &str, expected: Result<&[&str], &str>) {
        crate::scrape::discovery::gathering::check(text, named(form, text, Scheme::Http), expected);
    }

    #[test]
    fn all_three_forms_of_a_file() {
        check(Form::Lines, "", Ok(&[]));
        check(Form::Lines, "b:1\n\n  a:1 # west\r\n# c:1\nb:1\n", Ok(&["a:1", "b:1"]));
        check(Form::Lines, "b\n", Err("`b` has no port"));
        check(Form::FileSd, "null", Ok(&[]));
        check(Form::FileSd, "[]", Ok(&[]));
        check(
            Form::FileSd,
            r#"[{"targets": ["b:1", "a:1"], "labels": {"region": "eu"}}, {"targets": ["c:1"]}]"#,
            Ok(&["a:1", "b:1", "c:1"]),
        );
        check(Form::FileSd, "- targets:\n  - a:1\n  labels: {x: y}\n", Ok(&["a:1"]));
        check(Form::FileSd, r#"[{"targets": ["a"]}]"#, Err("`a` has no port"));
        check(Form::FileSd, r#"[{"targets": "#, Err(""));
        check(Form::FileSd, "a:1", Err("expected a list of blocks with targets, found a text"));
        let many = format!("[{{targets: [&a x:1{}]}}]", ", *a".repeat(MAX_TARGETS));
        check(Form::FileSd, &many, Err("more than 10000 targets"));
        let blocks = format!("[&b {{targets: [a:1, b:1]}}{}]", ", *b".repeat(MAX_TARGETS / 2));
        check(Form::FileSd, &blocks, Err("more than 10000 targets"));
        let long = format!("[{{targets: [{}]}}]", "x".repeat(1000));
        check(Form::FileSd, &long, Err("a target of more than 300 bytes"));
        check(Form::Lines, "a\u{1b}[31m:1", Err(r"a\u{1b}[31m"));
    }

    #[test]
    fn one_bad_entry_costs_one_entry() {
        for (form, text, place) in [
            (Form::Lines, "a:1\n\n# c\nb\nb:1\n", "line 4: `b` has no port"),
            (Form::Lines, "a:1\nb:0\nb:1", "line 2: `b:0` has a bad port"),
            (Form::Lines, "a:1\r\nhttps://c:1\r\nb:1", "line 2: `https://c:1` contradicts"),
            (Form::Lines, "\u{feff}a:1\nb:1\nc d:1", "line 3: `c d:1` is not a host and port"),
            (Form::Lines, "a:1\nb:1\n- x: [", "line 3: `- x: [` has a bad port"),
            (Form::Lines, "a:1\n\u{fffd}:1\nb:1", "line 2: "),
            (Form::FileSd, "- targets: [a:1, b]\n- targets: ['b:1']", "element 1, target 2: `b`"),
            (Form::FileSd, "- targets: [a:1, ~, 'b:1']", "element 1, target 2: is null"),
            (Form::FileSd, "- targets: [a:1, 8899, 'b:1']", "target 2: is a number"),
            (Form::FileSd, "- ~\n- targets: [a:1, 'b:1']", "element 1: is null"),
            (Form::FileSd, "- target: [x]\n- targets: [a:1, 'b:1']", "missing field `targets`"),
            (Form::FileSd, "\u{feff}[{\"targets\": [\"a:1\", \"b:1\", [\"c:1\"]]}]", "is a list"),
        ] {
            let Named { targets, omitted } = named(form, text, Scheme::Http).expect(text);
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            assert_eq!(targets, ["a:1", "b:1"], "{text}");
            assert_eq!(omitted.count(), 1, "{text}");
            let first = omitted.first().expect("it is said");
            assert!(first.contains(place), "{first} instead of {place}");
        }
    }

    #[test]
    fn there_is_room_for_ten_thousand_targets_with_labels() {
        let labels = format!(r#"{{"region": "eu", "__meta": "{}"}}"#, "x".repeat(500));
        let block = |at: u32| {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + at);
            format!(r#"{{"targets": ["{address}:8899"], "labels": {labels}}}"#)
        };
        let blocks: Vec<String> = (0..10_000).map(block).collect();
        let text = format!("[{}]", blocks.join(","));
        assert!(text.len() as u64 > 5 << 20 && (text.len() as u64) < MAX_FILE);
        let named = named(Form::FileSd, &text, Scheme::Http).expect("a list");
        assert_eq!((named.targets.len(), named.omitted.count()), (10_000, 0));
    }

    #[test]
    fn the_form_follows_the_extension_or_else_what_the_file_holds() {
        let (lines, blocks) = ("a:1\n", r#"[{"targets": ["a:1"]}]"#);
        for (path, text, form) in [
            ("t.json", lines, Form::FileSd),
            ("t.JSON", lines, Form::FileSd),
            ("t.yml", lines, Form::FileSd),
            ("t.yaml", lines, Form::FileSd),
            ("t.txt", lines, Form::Lines),
            ("targets", lines, Form::Lines),
            ("targets", "", Form::Lines),
            ("targets", "# none\n\n", Form::Lines),
            ("targets", blocks, Form::FileSd),
            ("t.txt", blocks, Form::FileSd),
            ("t.json.new", "\u{feff}  [\n  {\n", Form::FileSd),
            ("t.conf", "[]", Form::FileSd),
            ("t.conf", r#"{"targets": ["a:1"]}"#, Form::FileSd),
            ("t.conf", "# ours\n- targets:\n  - a:1\n", Form::FileSd),
            ("t.conf", "---\n- targets: [a:1]\n", Form::FileSd),
            ("t.conf", "-\n  targets: [a:1]\n", Form::FileSd),
            ("t.conf", "[::1]:8899 # six\na:1\n", Form::Lines),
            ("t.conf", "-node.example:1\n", Form::Lines),
        ] {
            assert_eq!(Form::of(Path::new(path), text, Scheme::Http), form, "{path}: {text}");
        }
    }

    #[test]
    fn who_wrote_something_else_than_blocks_is_told_what_they_are() {
        for text in ["a:1\n", "{targets: [a:1]}", "[\"a:1\"]", "[{\"targets\": "] {
            check(Form::FileSd, text, Err("expected `[{\"targets\": [\"10.0.0.1:8899\"]}]`"));
        }
    }
}
