//! A file of targets, read again and again: that is cheap, and it sees a change in place and one by
//! rename alike.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::{Answer, DiscoveryError, blocks};
use crate::config::{HostPort, MAX_TARGETS, Scheme};

/// Largest file of targets, in bytes.
const MAX_FILE: u64 = 1 << 20;

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
        let text = self.file.read().await?;
        let path = self.path();
        let invalid = |message| DiscoveryError::Invalid { path: path.to_owned(), message };
        let targets = parse_targets(Form::of(path), &text, self.scheme).map_err(invalid)?;
        Ok(Answer { targets, again: self.interval })
    }
}

/// Reads a small file anew each time. A read that hangs (a dead network file system) holds a
/// thread, and whoever waits for it may give up; there is never a second one beside it.
pub(super) struct FileReader {
    path: PathBuf,
    most: u64,
    reading: JoinSet<std::io::Result<String>>,
}

impl FileReader {
    /// `most` is the largest size in bytes.
    pub(super) fn new(path: &Path, most: u64) -> Self {
        Self { path: path.to_owned(), most, reading: JoinSet::new() }
    }

    pub(super) async fn read(&mut self) -> Result<String, DiscoveryError> {
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

async fn read(path: PathBuf, most: u64) -> std::io::Result<String> {
    // To open a pipe is to wait for who writes into it.
    if !tokio::fs::metadata(&path).await?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let file = tokio::fs::File::open(path).await?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).await?;
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
    /// By extension, as Prometheus does.
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json" | "yml" | "yaml") => Self::FileSd,
            _ => Self::Lines,
        }
    }
}

/// Reads the text of a file of targets. The error names the entry that is wrong.
pub fn parse_targets(form: Form, text: &str, scheme: Scheme) -> Result<BTreeSet<HostPort>, String> {
    let entries: Vec<String> = match form {
        Form::FileSd => blocks::from_yaml(text)?,
        Form::Lines => text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect(),
    };
    if entries.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} targets"));
    }
    entries.iter().map(|entry| HostPort::parse(entry, scheme)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, text: &str, expected: Result<&[&str], &str>) {
        crate::target::discovery::check(text, parse_targets(form, text, Scheme::Http), expected);
    }

    #[test]
    fn all_three_forms_of_a_file() {
        check(Form::Lines, "", Ok(&[]));
        check(Form::Lines, "b:1\n\n  a:1 # west\r\n# c:1\nb:1\n", Ok(&["a:1", "b:1"]));
        check(Form::Lines, "a:1\nb\n", Err("`b` has no port"));
        check(Form::FileSd, "[]", Ok(&[]));
        check(
            Form::FileSd,
            r#"[{"targets": ["b:1", "a:1"], "labels": {"region": "eu"}}, {"targets": ["c:1"]}]"#,
            Ok(&["a:1", "b:1", "c:1"]),
        );
        check(Form::FileSd, "- targets:\n  - a:1\n  labels: {x: y}\n", Ok(&["a:1"]));
        check(Form::FileSd, r#"[{"targets": ["a"]}]"#, Err("`a` has no port"));
        check(Form::FileSd, r#"[{"targets": "#, Err(""));
        check(Form::FileSd, "a:1", Err("invalid type"));
        let many = format!("[{{targets: [&a x:1{}]}}]", ", *a".repeat(MAX_TARGETS));
        check(Form::FileSd, &many, Err("more than 10000 targets"));
        let blocks = format!("[&b {{targets: [a:1, b:1]}}{}]", ", *b".repeat(MAX_TARGETS / 2));
        check(Form::FileSd, &blocks, Err("more than 10000 targets"));
        let long = format!("[{{targets: [{}]}}]", "x".repeat(1000));
        check(Form::FileSd, &long, Err("a target of more than 300 bytes"));
        check(Form::Lines, "a\u{1b}[31m:1", Err(r"a\u{1b}[31m"));
    }

    #[test]
    fn the_form_follows_the_extension() {
        for (path, form) in [
            ("t.json", Form::FileSd),
            ("t.yml", Form::FileSd),
            ("t.yaml", Form::FileSd),
            ("t.txt", Form::Lines),
            ("targets", Form::Lines),
        ] {
            assert_eq!(Form::of(Path::new(path)), form, "{path}");
        }
    }
}
