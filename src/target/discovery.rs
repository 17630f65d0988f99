//! Which targets a group has at the moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;

use crate::config::units::{HostPort, Scheme};
use crate::config::{Group, MAX_TARGETS, yaml};

/// Largest file of targets, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a file of targets gives none. The last good set stays.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no list of targets.
    #[error("`{}`: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// Everything that the group's file names now; nothing for a group without a file.
///
/// Fails as a whole where a part fails, so that half a file takes no target away.
pub(super) async fn discover(group: &Group) -> Result<BTreeSet<HostPort>, DiscoveryError> {
    let Some(path) = &group.file_targets else { return Ok(BTreeSet::new()) };
    let text = read(path).await?;
    let invalid = |message| DiscoveryError::Invalid { path: path.clone(), message };
    parse_targets(Form::of(path), &text, group.scheme).map_err(invalid)
}

async fn read(path: &Path) -> Result<String, DiscoveryError> {
    let unreadable = |source| DiscoveryError::Unreadable { path: path.to_owned(), source };
    // To open a pipe is to wait for who writes into it.
    if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("not a regular file")));
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).await.map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(unreadable(std::io::Error::other(format!("larger than {MAX_FILE} bytes"))));
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
        Form::FileSd => yaml::file_sd(text)?,
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
        let found = parse_targets(form, text, Scheme::Http);
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                assert_eq!(found, expected, "{text}");
            }
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
        }
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
