//! Holds the shape of the source: what no compiler and no lint checks, and what reviews forget.
//!
//! It reads the text as rustfmt writes it, so that "a line that begins like the item and closes it"
//! is all the grammar it needs.

#![allow(clippy::expect_used, reason = "a test that cannot read the sources has failed")]

mod circles;
mod rules;
mod tables;

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use tables::*;

const MAX_COLUMNS: usize = 100;
const MAX_FUNCTION: usize = 70;
const MAX_FILE: usize = 500;

/// A source file.
struct Source {
    /// Below the root of the package, with `/`.
    path: String,
    lines: Vec<Line>,
}

/// One line, with what the scan knows of it.
struct Line {
    text: String,
    /// Without comments.
    code: String,
    /// Inside an item under `#[cfg(test)]`.
    test: bool,
}

/// What is wrong, and where.
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Fails with every violation, one on a line.
#[track_caller]
fn check(rule: &str, violations: impl IntoIterator<Item = Violation>) {
    let mut report = String::new();
    for violation in violations {
        writeln!(report, "{violation}").expect("a string takes everything");
    }
    assert!(report.is_empty(), "{rule}:\n{report}");
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let mut lines: Vec<Line> = text
            .lines()
            .map(|text| Line { text: text.to_owned(), code: code(text), test: false })
            .collect();
        let whole = path.starts_with("src/") && path.ends_with("/tests.rs");
        if whole {
            for line in &mut lines {
                line.test = true;
            }
        }
        for at in 0..lines.len() {
            if lines[at].text.trim() == "#[cfg(test)]" && !lines[at].test {
                let end = item_end(&lines, at).unwrap_or(lines.len() - 1);
                for line in &mut lines[at..=end] {
                    line.test = true;
                }
            }
        }
        Self { path: path.to_owned(), lines }
    }

    /// The top-level module: `index` for `src/index/view.rs`, `app` for `src/app/mod.rs`.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        below.split_once('/').map(|(module, _)| module).or_else(|| below.strip_suffix(".rs"))
    }

    fn at(&self, index: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line: index + 1, what: what.into() }
    }

    /// The violations that `wrong` finds, line by line.
    fn each(&self, wrong: impl Fn(&Line) -> Option<String>) -> Vec<Violation> {
        let found = |(at, line)| wrong(line).map(|what| self.at(at, what));
        self.lines.iter().enumerate().filter_map(found).collect()
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

/// What is left of a line without its comment. A `//` in a string has no spaces around it here.
fn code(text: &str) -> String {
    let trimmed = text.trim_start();
    if trimmed.starts_with("//") {
        return String::new();
    }
    text.split_once(" // ").map_or(text, |(code, _)| code).to_owned()
}

fn indent(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// The last line of the item that begins at `start` (or at the attributes above it).
fn item_end(lines: &[Line], start: usize) -> Option<usize> {
    let depth = indent(&lines[start].text);
    let is_attribute = |line: &Line| {
        let text = line.text.trim_start();
        text.starts_with("#[") || text.starts_with("//") || text == ")]"
    };
    let first = (start..lines.len())
        .find(|at| indent(&lines[*at].text) == depth && !is_attribute(&lines[*at]))?;
    (first..lines.len()).find(|at| {
        let text = &lines[*at].code;
        let closes = text.trim_start().starts_with('}') || *at == first && text.ends_with('}');
        indent(text) == depth && (closes || text.ends_with(';'))
    })
}

fn is_function(text: &str) -> bool {
    let mut words = text.trim_start().split(' ').skip_while(|word| {
        let visible = word.starts_with("pub");
        visible || ["const", "async", "unsafe", "extern", "\"C\"", "crate)"].contains(word)
    });
    words.next() == Some("fn")
}

/// Every `name` in `crate::name` and `crate::{name, name::..}` of a text.
fn imported(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, prefix) in text.match_indices("crate::") {
        if text[..at].ends_with(|c: char| c == '_' || c == '$' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' => begins |= depth == 0,
                c if begins && !c.is_whitespace() => {
                    names.push(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect()
}

/// True where `word` stands in `text` and is not the end of another word.
fn mentions(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(|c: char| c == '_' || c.is_alphanumeric()))
}

/// Every Rust file below these folders of the package, in order.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    assert!(paths.len() > folders.len(), "there is something to check");
    let read = |path: PathBuf| {
        let below = path.strip_prefix(root).expect("below the root").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a readable source");
        Source::parse(&below.replace('\\', "/"), &text)
    };
    paths.into_iter().map(read).collect()
}

fn everything() -> Vec<Source> {
    sources(&["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"])
}

fn long_lines(source: &Source) -> Vec<Violation> {
    source.each(|line| {
        let columns = line.text.chars().count();
        (columns > MAX_COLUMNS).then(|| format!("{columns} columns"))
    })
}

fn long_functions(source: &Source) -> Vec<Violation> {
    let function = |(at, line): (usize, &Line)| {
        if !is_function(&line.code) {
            return None;
        }
        let Some(end) = item_end(&source.lines, at) else {
            return Some(source.at(at, "this function has no end, is the file formatted?"));
        };
        let lines = end - at + 1;
        (lines > MAX_FUNCTION).then(|| source.at(at, format!("a function of {lines} lines")))
    };
    source.lines.iter().enumerate().filter_map(function).collect()
}

fn long_file(source: &Source) -> Option<Violation> {
    let lines = source.lines.iter().filter(|line| !line.test).count();
    (lines > MAX_FILE).then(|| source.at(0, format!("{lines} lines without the tests")))
}

fn forbidden_imports(source: &Source) -> Vec<Violation> {
    let Some(module) = source.module().filter(|module| !ON_TOP.contains(module)) else {
        return Vec::new();
    };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return vec![source.at(0, format!("module `{module}` has no row in `IMPORTS`"))];
    };
    let is_allowed = |name: &String| name == module || allowed.contains(&name.as_str());
    let mut violations = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        // A group may go on over several lines.
        let group = source.lines[at..].iter().map(|line| line.code.as_str());
        let text = if line.code.ends_with("crate::{") {
            group.collect::<Vec<_>>().join("\n")
        } else {
            line.code.clone()
        };
        let text = text.split(';').next().unwrap_or_default();
        let names = imported(text).into_iter().filter(|name| !is_allowed(name));
        violations.extend(names.map(|name| source.at(at, format!("imports `{name}`"))));
        if line.code.contains("super::super") {
            violations.push(source.at(at, "climbs two modules, write `crate::`"));
        }
    }
    violations
}

fn outside(source: &Source, places: &[&str], word: &str) -> Vec<Violation> {
    if source.is_in(places) || !source.path.starts_with("src/") {
        return Vec::new();
    }
    source.each(|line| mentions(&line.code, word).then(|| format!("`{word}` is not for here")))
}

fn impure(source: &Source) -> Vec<Violation> {
    if !source.is_in(&PURE) {
        return Vec::new();
    }
    source.each(|line| {
        let word = IMPURE.iter().find(|word| !line.test && mentions(&line.code, word))?;
        Some(format!("`{word}` in a pure module"))
    })
}

fn leftovers(source: &Source) -> Vec<Violation> {
    source.each(|line| {
        let word = LEFTOVERS.iter().find(|word| line.text.contains(**word))?;
        Some(format!("`{word}` is left over"))
    })
}

fn vague_modules(source: &Source) -> Vec<Violation> {
    let mut parts = source.path.trim_end_matches(".rs").split('/');
    let file = parts.find(|part| VAGUE.contains(part));
    let file = file.map(|part| source.at(0, format!("`{part}` says nothing")));
    let inline = source.each(|line| {
        let item = line.code.trim_start();
        let (visible, rest) = item.split_once("mod ")?;
        let name = word(rest);
        if !visible.is_empty() && !visible.starts_with("pub") {
            return None;
        }
        VAGUE.contains(&name.as_str()).then(|| format!("`{name}` says nothing"))
    });
    file.into_iter().chain(inline).collect()
}

#[test]
fn lines_fit_in_100_columns() {
    check("lines that are too long", everything().iter().flat_map(long_lines));
}

#[test]
fn functions_fit_in_70_lines() {
    check("functions that are too long", everything().iter().flat_map(long_functions));
}

#[test]
fn files_fit_in_500_lines_without_their_tests() {
    check("files that are too long", everything().iter().filter_map(long_file));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = |source: &Source| {
        let first = source.lines.first().is_some_and(|line| line.text.starts_with("//! "));
        (!first).then(|| source.at(0, "does not start with `//!`"))
    };
    check("files without a word of what they are for", everything().iter().filter_map(silent));
}

/// The first line of a comment on an item names what that is, since it is what lists of items show.
#[test]
fn comments_can_be_read_alone() {
    let begins = |source: &Source| {
        let mut violations = Vec::new();
        let mut above = false;
        for (at, line) in source.lines.iter().enumerate() {
            let comment = line.text.trim_start().strip_prefix("/// ");
            let first = comment.filter(|_| !above && !line.test).unwrap_or_default();
            above = line.text.trim_start().starts_with("///");
            let dangling = DANGLING.iter().find(|words| first.starts_with(**words));
            violations
                .extend(dangling.map(|words| source.at(at, format!("begins with `{words}`"))));
        }
        violations
    };
    let ours = everything();
    let ours = ours.iter().filter(|source| source.is_in(&["src/"]));
    check("comments whose first line cannot be read alone", ours.flat_map(begins));
}

#[test]
fn modules_are_named_after_something() {
    check("modules named after nothing", everything().iter().flat_map(vague_modules));
}

#[test]
fn imports_point_one_way() {
    check("imports that point back", sources(&["src"]).iter().flat_map(forbidden_imports));
}

#[test]
fn no_files_import_each_other() {
    check("circles of files", circles::circles(&sources(&["src"])));
}

#[test]
fn pingora_stays_where_the_network_is() {
    let strays = |source: &Source| outside(source, &WITH_PINGORA, "pingora");
    check("Pingora where it should not be", everything().iter().flat_map(strays));
}

#[test]
fn the_yaml_library_can_be_replaced_in_one_file() {
    let strays = |source: &Source| outside(source, &WITH_YAML, "serde_yaml");
    check("YAML where it should not be", everything().iter().flat_map(strays));
}

#[test]
fn tls_is_set_up_in_one_place() {
    let strays = |source: &Source| outside(source, &WITH_RUSTLS, "rustls");
    check("TLS where it should not be", everything().iter().flat_map(strays));
}

#[test]
fn the_dns_library_can_be_replaced_in_one_file() {
    let strays = |source: &Source| outside(source, &WITH_DNS, "hickory_resolver");
    check("DNS where it should not be", everything().iter().flat_map(strays));
}

#[test]
fn unsafe_code_is_in_one_file() {
    let strays = |source: &Source| {
        let words = [concat!("uns", "afe {"), concat!("uns", "afe_code"), "memmap2", "libc"];
        words.map(|word| outside(source, &WITH_MAPPING, word)).into_iter().flatten()
    };
    check("unsafe code where it should not be", sources(&["src"]).iter().flat_map(strays));
}

#[test]
fn the_system_is_called_where_files_are() {
    let strays = |source: &Source| outside(source, &WITH_RUSTIX, "rustix");
    check("system calls where they should not be", sources(&["src"]).iter().flat_map(strays));
}

#[test]
fn pure_modules_touch_nothing() {
    check("side effects in pure modules", sources(&["src"]).iter().flat_map(impure));
}

#[test]
fn nothing_is_left_over() {
    check("left over", everything().iter().flat_map(leftovers));
}
