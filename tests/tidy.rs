//! Holds the shape of the source: what no compiler and no lint checks, and what reviews forget.
//!
//! It reads the text as rustfmt writes it, so that "a line that begins like the item and closes it"
//! is all the grammar it needs.

#![allow(clippy::expect_used, reason = "a test that cannot read the sources has failed")]

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_COLUMNS: usize = 100;
const MAX_FUNCTION: usize = 70;
const MAX_FILE: usize = 500;

/// Which modules of the crate a module may import, besides itself. A new module needs a row.
const IMPORTS: [(&str, &[&str]); 21] = [
    ("clock", &[]),
    ("drain", &[]),
    ("hops", &[]),
    ("pace", &[]),
    ("queue", &[]),
    ("refusals", &[]),
    ("tally", &[]),
    ("snapshot", &[]),
    ("check", &["snapshot"]),
    ("index", &["hops", "snapshot", "clock"]),
    ("config", &["hops", "snapshot"]),
    ("descriptors", &["config"]),
    ("access", &["hops", "config"]),
    ("route", &["hops", "snapshot", "index", "config", "access", "clock", "refusals"]),
    ("cache", &["check", "config", "index", "snapshot", "clock"]),
    ("ledger", &["check", "config", "index", "snapshot"]),
    ("target", &["hops", "config", "access", "ledger", "index", "snapshot", "clock"]),
    ("api", &["hops", "route", "index", "snapshot", "config"]),
    (
        "fetch",
        &[
            "hops", "cache", "route", "target", "access", "index", "snapshot", "config", "clock",
            "pace", "queue", "tally",
        ],
    ),
    (
        "proxy",
        &[
            "hops",
            "api",
            "fetch",
            "cache",
            "ledger",
            "route",
            "target",
            "index",
            "snapshot",
            "config",
            "clock",
            "pace",
            "queue",
            "refusals",
            "tally",
            "descriptors",
            "drain",
        ],
    ),
    ("lib", &[]),
];
/// What may import anything, and what nothing above may import.
const ON_TOP: [&str; 4] = ["app", "cli", "demo", "main"];

const PURE: [&str; 10] = [
    "src/hops.rs",
    "src/snapshot/",
    "src/index/",
    "src/route/",
    "src/ledger/entry.rs",
    "src/ledger/vetting.rs",
    "src/pace.rs",
    "src/queue.rs",
    "src/refusals.rs",
    "src/tally.rs",
];
const IMPURE: [&str; 6] =
    ["tokio", "std::fs", "std::net::Tcp", "std::net::Udp", "Instant::now", "SystemTime::now"];

const WITH_PINGORA: [&str; 8] = [
    "src/proxy/",
    "src/fetch/",
    "src/access/",
    "src/api/",
    "src/cache/storage.rs",
    "src/target/",
    "src/app.rs",
    "src/demo/",
];
const WITH_YAML: [&str; 3] = ["src/config/yaml.rs", "src/config/tree.rs", "src/config/scalar.rs"];
/// Where files of certificates are read, where connections get their settings, and a test's server.
const WITH_RUSTLS: [&str; 3] =
    ["src/config/access.rs", "src/access/", "src/target/approach/tests.rs"];
const WITH_DNS: [&str; 1] = ["src/target/discovery/dns.rs"];
/// Files as memory, and what only a disk's caller needs.
const WITH_MAPPING: [&str; 1] = ["src/cache/mapping.rs"];
const WITH_RUSTIX: [&str; 3] = ["src/cache/", "src/descriptors.rs", "src/ledger/"];

const VAGUE: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"];

/// Never to be left behind. Split, so that this file does not find itself.
const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("#[ign", "ore"),
    concat!("db", "g!("),
];

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
        if whole || !path.starts_with("src/") {
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

    /// The top-level module: `index` for `src/index/view.rs`, `app` for `src/app.rs`.
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
    sources(&["src", "tests", "benches"])
}

fn long_lines(source: &Source) -> Vec<Violation> {
    source.each(|line| {
        let columns = line.text.chars().count();
        (columns > MAX_COLUMNS).then(|| format!("{columns} columns"))
    })
}

fn long_functions(source: &Source) -> Vec<Violation> {
    let function = |(at, line): (usize, &Line)| {
        if line.test || !is_function(&line.code) {
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
    check("functions that are too long", sources(&["src"]).iter().flat_map(long_functions));
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

#[test]
fn modules_are_named_after_something() {
    check("modules named after nothing", everything().iter().flat_map(vague_modules));
}

#[test]
fn imports_point_one_way() {
    check("imports that point back", sources(&["src"]).iter().flat_map(forbidden_imports));
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

/// The rules themselves, on texts that break them and texts that nearly do.
mod rules {
    use super::*;

    #[track_caller]
    fn finds(violations: impl IntoIterator<Item = Violation>, expected: &[&str]) {
        let found: Vec<String> = violations.into_iter().map(|found| found.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn of_length() {
        let line = "x".repeat(100);
        let text = format!("{line}\n{line}x\n\u{e9}{}\n", &line[1..]);
        finds(long_lines(&Source::parse("src/a.rs", &text)), &["src/a.rs:2: 101 columns"]);

        let body = |lines: usize| "        x;\n".repeat(lines);
        let function =
            |lines| format!("    pub(super) async fn f(\n    ) {{\n{}    }}\n", body(lines));
        let text = format!("impl A {{\n{}    fn g();\n{}}}\n", function(67), function(68));
        let expected = ["src/a.rs:73: a function of 71 lines"];
        finds(long_functions(&Source::parse("src/a.rs", &text)), &expected);
        let exempt = format!("#[cfg(test)]\nmod tests {{\n{}}}\n{}", function(99), function(99));
        let expected = ["src/a.rs:106: a function of 102 lines"];
        finds(long_functions(&Source::parse("src/a.rs", &exempt)), &expected);
        finds(long_functions(&Source::parse("src/a/tests.rs", &function(99))), &[]);

        let file = |lines: usize| Source::parse("src/a.rs", &"x;\n".repeat(lines));
        finds(long_file(&file(500)), &[]);
        finds(long_file(&file(501)), &["src/a.rs:1: 501 lines without the tests"]);
        let tested = "x;\n".repeat(500) + "#[cfg(test)]\n#[allow(x)]\nmod tests {\n    x\n}\n";
        finds(long_file(&Source::parse("src/a.rs", &tested)), &[]);
    }

    #[test]
    fn of_imports() {
        let found = |path: &str, text: &str| forbidden_imports(&Source::parse(path, text));
        let index = "src/index/view.rs";
        finds(found(index, "use crate::snapshot::Slot;\nuse crate::clock::Now;"), &[]);
        finds(found(index, "// crate::proxy\nuse my_crate::proxy;\nuse super::best;"), &[]);
        finds(found(index, "use crate::route::plan;"), &["src/index/view.rs:1: imports `route`"]);
        finds(found(index, "x(crate::app::run)"), &["src/index/view.rs:1: imports `app`"]);
        let group =
            "use std::fmt;\nuse crate::{\n    clock::{Now, api},\n    proxy,\n};\nuse x::demo;";
        finds(found(index, group), &["src/index/view.rs:2: imports `proxy`"]);
        let group = "use crate::{api, snapshot};";
        finds(found(index, group), &["src/index/view.rs:1: imports `api`"]);
        let climbs = ["src/index/view.rs:1: climbs two modules, write `crate::`"];
        finds(found(index, "use super::super::proxy;"), &climbs);
        finds(found("src/demo/mod.rs", "use crate::proxy;\nuse crate::cli;"), &[]);
        let unknown = ["src/new.rs:1: module `new` has no row in `IMPORTS`"];
        finds(found("src/new.rs", ""), &unknown);
    }

    #[test]
    fn of_words() {
        let pingora =
            |path: &str, text: &str| outside(&Source::parse(path, text), &WITH_PINGORA, "pingora");
        finds(pingora("src/proxy/a.rs", "use pingora::Error;"), &[]);
        finds(pingora("src/route/a.rs", "// as pingora does\nlet my_pingora = 1;"), &[]);
        let expected = ["src/route/a.rs:2: `pingora` is not for here"];
        finds(pingora("src/route/a.rs", "\nuse pingora_proxy::Session;"), &expected);

        let clock = "let now = Instant::now();\n#[cfg(test)]\nfn f() {\n    Instant::now();\n}\n";
        let expected = ["src/index/a.rs:1: `Instant::now` in a pure module"];
        finds(impure(&Source::parse("src/index/a.rs", clock)), &expected);
        finds(impure(&Source::parse("src/target/a.rs", clock)), &[]);

        for word in LEFTOVERS {
            let source = Source::parse("tests/it/a.rs", &format!("ok\n// {word}"));
            finds(leftovers(&source), &[&format!("tests/it/a.rs:2: `{word}` is left over")]);
        }
        let vague = |path: &str, text: &str| vague_modules(&Source::parse(path, text));
        finds(vague("src/index/view.rs", "pub mod catalog;\nmodel common;"), &[]);
        finds(vague("src/a/utils.rs", ""), &["src/a/utils.rs:1: `utils` says nothing"]);
        finds(vague("src/a.rs", "pub mod helpers {"), &["src/a.rs:1: `helpers` says nothing"]);
    }
}
