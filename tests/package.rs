//! Holds what a clone of the repository promises to who has just made it: one build for
//! `make demo` and `make test`, a version of Rust that suffices, documents that lead somewhere.
//!
//! Cargo is asked without network: whoever runs a test has built it, and so has what it asks for.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot read the package has failed"
)]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Folders whose files documents name from the root of the package on.
const FOLDERS: [&str; 6] = ["src/", "tests/", "benches/", "conf/", "docs/", "fuzz/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Standard output of Cargo in the root of the package.
fn cargo(arguments: &[&str]) -> String {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    let output = command.current_dir(root()).args(arguments).output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Each package that is built for these kinds of dependency, with the features it is built with.
/// One that is built in two ways, for the target and for a build script, is there twice.
fn built(kinds: &str) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "--offline", "--no-dedupe", "--prefix", "none"];
    let listed = cargo(&[&tree[..], &["--edges", kinds, "--format", "{p} [{f}]"]].concat());
    listed.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// `1.89` as numbers, and `1.89.0` as the same ones.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        text.split('.').map(|number| number.parse().expect("a number")).collect();
    numbers.resize(3, 0);
    numbers
}

/// The documents of the package, by their path below its root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", ".github", "fuzz"] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else {
            continue;
        };
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let documents = names.map(|name| Path::new(folder).join(name));
        found.extend(documents.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    found.sort();
    found
}

/// What stands between each `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.match_indices(open).filter_map(move |(at, _)| {
        let (inside, _) = text[at + open.len()..].split_once(close)?;
        Some(inside)
    })
}

/// Relative links of a document, without the part behind `#`.
fn links(text: &str) -> Vec<&str> {
    between(text, "](", ')')
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| link.split('#').next().unwrap_or(link))
        .collect()
}

/// Files and folders of the package that a document names in backquotes, in a line.
fn named(text: &str) -> Vec<&str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let paths = quoted.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
    paths.filter(|word| !word.contains([' ', '*', '<'])).collect()
}

#[test]
fn each_dependency_is_built_once_for_the_demo_and_the_tests() {
    let demo = built("normal,build");
    let tests = built("normal,build,dev");
    let twice: Vec<_> = demo.difference(&tests).collect();
    assert!(demo.len() > 100, "there is something to compare");
    assert!(twice.is_empty(), "the tests switch other features of these on: {twice:#?}");

    // What is built follows from the profile and the flags as well.
    let makefile = text("Makefile");
    assert!(makefile.contains("$(CARGO) run --locked -- demo\n"));
    assert!(makefile.contains("$(CARGO) test --locked\n"));
    assert!(!text("Cargo.toml").contains("[profile.test"), "`cargo run` has `[profile.dev]`");
}

#[test]
fn no_dependency_needs_a_newer_rust_than_is_said() {
    let host = cargo(&["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let asked = ["metadata", "--locked", "--offline", "--format-version", "1"];
    let metadata = cargo(&[&asked[..], &["--filter-platform", host]].concat());
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");

    let ours = packages.iter().find(|package| package["name"] == "snapedge").expect("the package");
    let said = ours["rust_version"].as_str().expect("a `rust-version`");
    let newer = packages.iter().filter(|package| {
        package["rust_version"].as_str().is_some_and(|needed| version(needed) > version(said))
    });
    let newer: Vec<_> = newer.map(|package| &package["name"]).collect();
    assert!(newer.is_empty(), "these need more than Rust {said}: {newer:?}");
    assert!(text("README.md").contains(&format!("with Rust ({said} or newer)")));
}

#[test]
fn every_target_of_the_makefile_says_what_it_is_for() {
    let makefile = text("Makefile");
    let lines: Vec<&str> = makefile.lines().collect();
    let phony = lines.iter().find_map(|line| line.strip_prefix(".PHONY: ")).expect("targets");
    for target in phony.split(' ').filter(|target| *target != "tools") {
        let rule = lines.iter().position(|line| line.starts_with(&format!("{target}:")));
        let rule = rule.unwrap_or_else(|| panic!("`{target}` has no rule"));
        assert!(lines[rule - 1].starts_with("## "), "`make help` does not tell of `{target}`");
    }
}

#[test]
fn documents_lead_to_files_that_are_there() {
    let documents = documents();
    assert!(documents.len() > 5, "{documents:?}");
    let mut lost = Vec::new();
    for document in documents {
        let text = text(&document.to_string_lossy());
        let folder = root().join(&document).parent().expect("a folder").to_owned();
        let links = links(&text).into_iter().map(|link| (link, folder.join(link)));
        let named = named(&text).into_iter().map(|path| (path, root().join(path)));
        let missing = links.chain(named).filter(|(_, path)| !path.exists());
        lost.extend(missing.map(|(link, _)| format!("{}: {link}", document.display())));
    }
    assert!(lost.is_empty(), "these name what is not there: {lost:#?}");
}

/// The readers of text that the tests above rest on.
mod readers {
    use super::*;

    #[test]
    fn of_links() {
        let text = "a [b](c.md#d), [e](https://f.example/g.md), [h](#i) and [j](../k.md).";
        assert_eq!(links(text), ["c.md", "../k.md"]);
    }

    #[test]
    fn of_paths() {
        let text = "`src/a.rs` and `src/b/`, `cargo x src/c.rs`\n`tests/*`, src/d.rs `e/f.rs`";
        assert_eq!(named(text), ["src/a.rs", "src/b/"]);
    }

    #[test]
    fn of_versions() {
        assert_eq!(version("1.89"), version("1.89.0"));
        assert!(version("1.100.0") > version("1.89"));
    }
}
