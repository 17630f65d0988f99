//! The rules themselves, on texts that break them and texts that nearly do.

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
    let function = |lines| format!("    pub(super) async fn f(\n    ) {{\n{}    }}\n", body(lines));
    let text = format!("impl A {{\n{}    fn g();\n{}}}\n", function(67), function(68));
    let expected = ["src/a.rs:73: a function of 71 lines"];
    finds(long_functions(&Source::parse("src/a.rs", &text)), &expected);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n{}", function(99), function(99));
    let expected = ["src/a.rs:3: a function of 102 lines", "src/a.rs:106: a function of 102 lines"];
    finds(long_functions(&Source::parse("src/a.rs", &tests)), &expected);
    for path in ["src/a/tests.rs", "tests/it/a.rs", "benches/a.rs"] {
        let expected = format!("{path}:1: a function of 71 lines");
        finds(long_functions(&Source::parse(path, &function(68))), &[&expected]);
        finds(long_functions(&Source::parse(path, &function(67))), &[]);
    }

    let file = |lines: usize| Source::parse("src/a.rs", &"x;\n".repeat(lines));
    finds(long_file(&file(500)), &[]);
    finds(long_file(&file(501)), &["src/a.rs:1: 501 lines without the tests"]);
    finds(
        long_file(&Source::parse("benches/a.rs", &"x;\n".repeat(501))),
        &["benches/a.rs:1: 501 lines without the tests"],
    );
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
    let group = "use std::fmt;\nuse crate::{\n    clock::{Now, api},\n    proxy,\n};\nuse x::demo;";
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
    finds(impure(&Source::parse("src/scrape/a.rs", clock)), &[]);

    for word in LEFTOVERS {
        let source = Source::parse("tests/it/a.rs", &format!("ok\n// {word}"));
        finds(leftovers(&source), &[&format!("tests/it/a.rs:2: `{word}` is left over")]);
    }
    let vague = |path: &str, text: &str| vague_modules(&Source::parse(path, text));
    finds(vague("src/index/view.rs", "pub mod catalog;\nmodel common;"), &[]);
    finds(vague("src/a/utils.rs", ""), &["src/a/utils.rs:1: `utils` says nothing"]);
    finds(vague("src/a.rs", "pub mod helpers {"), &["src/a.rs:1: `helpers` says nothing"]);
}
