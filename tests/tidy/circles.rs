//! Which file imports which, and the circles among them.
//!
//! A name is followed through re-exports to the file that it stands in. A `mod` line and a
//! re-export are no imports: a directory may show what its files hold.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, Violation};

/// A path in the crate, without `crate`.
type Names = Vec<String>;

/// The imports of all files.
struct Imports {
    /// The files, by their module.
    files: BTreeMap<Names, usize>,
    /// What each file shows of others: the name, and what it stands for.
    shown: BTreeMap<usize, BTreeMap<String, Names>>,
    /// What each file names of others.
    used: BTreeMap<usize, Vec<Names>>,
}

/// Files that import each other, directly or by way of others.
pub(super) fn circles(sources: &[Source]) -> Vec<Violation> {
    let imports = Imports::of(sources);
    let all = imports.between_files();
    let reached: BTreeMap<usize, BTreeSet<usize>> =
        all.keys().map(|from| (*from, reach(&all, *from))).collect();
    let is_circle = |from: &usize, to: &usize| reached.get(to).is_some_and(|of| of.contains(from));
    let mut violations = Vec::new();
    for (from, others) in &all {
        for to in others.iter().filter(|to| is_circle(from, to)) {
            let what = format!("imports {}, which comes back to it", sources[*to].path);
            violations.push(sources[*from].at(0, what));
        }
    }
    violations
}

fn reach(all: &BTreeMap<usize, BTreeSet<usize>>, from: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for to in all.get(&at).into_iter().flatten() {
            if found.insert(*to) {
                open.push(*to);
            }
        }
    }
    found
}

impl Imports {
    fn of(sources: &[Source]) -> Self {
        let modules = sources.iter().enumerate();
        let files = modules.filter_map(|(at, source)| Some((module(source)?, at))).collect();
        let mut imports = Self { files, shown: BTreeMap::new(), used: BTreeMap::new() };
        for (module, at) in imports.files.clone() {
            imports.read(&module, at, &sources[at]);
        }
        imports
    }

    fn read(&mut self, module: &Names, at: usize, source: &Source) {
        let lines = source.lines.iter().filter(|line| !line.test);
        let text: String = lines.flat_map(|line| [line.code.as_str(), "\n"]).collect();
        let (mut shown, mut used) = (BTreeMap::new(), Vec::new());
        let mut rest = String::new();
        for statement in text.split_inclusive(';') {
            let Some((before, tree)) = use_tree(statement) else {
                rest.push_str(statement);
                continue;
            };
            rest.push_str(before);
            let is_shown = before.lines().last().is_some_and(|line| line.trim().starts_with("pub"));
            for (names, alias) in leaves(tree) {
                let Some(names) = self.absolute(module, names) else { continue };
                if is_shown {
                    shown.insert(alias, names);
                } else {
                    used.push(names);
                }
            }
        }
        used.extend(paths(&rest).into_iter().filter_map(|names| self.absolute(module, names)));
        self.shown.insert(at, shown);
        self.used.insert(at, used);
    }

    /// A path as it is seen from the root; nothing for what is of another crate.
    fn absolute(&self, module: &Names, names: Names) -> Option<Names> {
        let mut base = module.clone();
        let mut names = names.into_iter().peekable();
        match names.peek().map(String::as_str) {
            Some("crate") => base.clear(),
            Some("self" | "super") => {}
            Some(first) => {
                let child: Names = base.iter().cloned().chain([first.to_owned()]).collect();
                self.files.contains_key(&child).then_some(())?;
            }
            None => return None,
        }
        while let Some(word) = names.next_if(|word| ["crate", "self", "super"].contains(&&**word)) {
            if word == "super" {
                base.pop();
            }
        }
        Some(base.into_iter().chain(names).collect())
    }

    /// The file that a path leads to.
    fn file_of(&self, names: &[String], depth: usize) -> Option<usize> {
        let (at, rest) = (0..=names.len()).rev().find_map(|count| {
            let at = self.files.get(&names[..count])?;
            Some((*at, &names[count..]))
        })?;
        let shown = rest.first().and_then(|name| self.shown.get(&at)?.get(name));
        match shown.filter(|_| depth < 16) {
            Some(stands_for) => {
                let names: Names = stands_for.iter().chain(&rest[1..]).cloned().collect();
                self.file_of(&names, depth + 1)
            }
            None => Some(at),
        }
    }

    fn between_files(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let root = self.files.get(&Vec::new()).copied();
        let of_file = |(from, used): (&usize, &Vec<Names>)| {
            let files = used.iter().filter_map(|names| self.file_of(names, 0));
            (*from, files.filter(|to| to != from && Some(*to) != root).collect())
        };
        self.used.iter().map(of_file).collect()
    }
}

/// The module that a file is.
fn module(source: &Source) -> Option<Names> {
    let below = source.path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut names: Names = below.split('/').map(str::to_owned).collect();
    match names.last().map(String::as_str) {
        Some("mod") => drop(names.pop()),
        Some("lib") if names.len() == 1 => names.clear(),
        Some("main" | "tests") => return None,
        _ => {}
    }
    Some(names)
}

/// The tree of a statement that ends with `use ..;`, and what comes before it.
fn use_tree(statement: &str) -> Option<(&str, &str)> {
    let tree = statement.strip_suffix(';')?;
    let (before, tree) = tree.rsplit_once("use ")?;
    let begins = before.is_empty() || before.ends_with(['\n', ' ']);
    let is_tree = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_:{},*".contains(c);
    (begins && tree.chars().all(is_tree)).then_some((before, tree))
}

/// Every path of a tree, and under which name it is known.
fn leaves(tree: &str) -> Vec<(Names, String)> {
    let mut found = Vec::new();
    collect(&[], tree, &mut found);
    found
}

fn collect(prefix: &[String], tree: &str, found: &mut Vec<(Names, String)>) {
    let tree = tree.trim();
    let words = |text: &str| -> Names {
        let words = prefix.iter().cloned();
        words.chain(text.split("::").map(|word| word.trim().to_owned())).collect()
    };
    if let Some((before, group)) = tree.split_once('{') {
        let prefix = match before.trim().trim_end_matches("::") {
            "" => prefix.to_vec(),
            before => words(before),
        };
        let group = group.strip_suffix('}').unwrap_or(group);
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    collect(&prefix, &group[begin..at], found);
                    begin = at + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(a, b)| (a, Some(b)));
        let names = words(path);
        let alias = alias.or(names.last().map(String::as_str)).unwrap_or_default().to_owned();
        found.push((names, alias));
    }
}

/// Every path in code that is no `use`.
fn paths(code: &str) -> Vec<Names> {
    let is_part = |c: char| c == '_' || c == ':' || c.is_alphanumeric();
    let words = code.split(|c: char| !is_part(c));
    let is_path =
        |word: &&str| word.split("::").all(|part| !part.is_empty() && !part.contains(':'));
    let paths = words.map(|word| word.trim_end_matches(':')).filter(|word| word.contains("::"));
    paths.filter(is_path).map(|word| word.split("::").map(str::to_owned).collect()).collect()
}

/// The rule itself, on files that break it and files that nearly do.
#[test]
fn rules_of_circles() {
    let check = |files: &[(&str, &str)], expected: &[&str]| {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::parse(path, text)).collect();
        let found: Vec<String> =
            circles(&sources).into_iter().map(|found| found.to_string()).collect();
        assert_eq!(found, expected, "{files:?}");
    };
    let both = |from: &str, to: &str| {
        format!("src/{from}.rs:1: imports src/{to}.rs, which comes back to it")
    };
    let (ab, ba) = (both("a", "b"), both("b", "a"));
    check(&[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "")], &[]);
    check(&[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use crate::a::A;")], &[&ab, &ba]);
    check(
        &[("src/a.rs", "use super::b::B;"), ("src/b.rs", "fn f(x: crate::a::A) {}")],
        &[&ab, &ba],
    );
    // By way of a third one, in a group, under another name.
    let three = [
        ("src/a.rs", "use crate::{\n    b::{self as x, B},\n    z,\n};"),
        ("src/b.rs", "pub(crate) use crate::c::C;\nuse crate::c::C as D;"),
        ("src/c.rs", "use crate::a;"),
    ];
    check(&three, &[&ab, &both("b", "c"), &both("c", "a")]);
    // What a directory shows of its files is theirs.
    let shown = [
        ("src/d/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;"),
        ("src/d/a.rs", "use crate::d::B;"),
        ("src/d/b.rs", ""),
    ];
    check(&shown, &[]);
    let mutual = [shown[0], shown[1], ("src/d/b.rs", "use super::A;")];
    check(&mutual, &[&both("d/a", "d/b"), &both("d/b", "d/a")]);
    // A file that its own directory uses may not use what that defines itself.
    let parent = [
        ("src/d/mod.rs", "mod a;\npub struct D;\nfn f() { a::g(); }"),
        ("src/d/a.rs", "use super::D;"),
    ];
    check(&parent, &[&both("d/mod", "d/a"), &both("d/a", "d/mod")]);
    // Tests, comments and other crates do not count.
    let tested = "// crate::a\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n";
    check(&[("src/a.rs", "use crate::b::B;\nuse b::C;"), ("src/b.rs", tested)], &[]);
    check(
        &[
            ("src/a.rs", "use crate::b::B;"),
            ("src/b/tests.rs", "use crate::a::A;"),
            ("src/b.rs", ""),
        ],
        &[],
    );
}
