//! What a target's record is good for: what the cache has of it, and ties of votes.

use super::support::{Stage, strangers};
use super::*;
use crate::index::Grounds;

fn fetched(text: &str, from: &str, at: Now, age: u64) -> Held {
    Held { age: Duration::from_secs(age), ..held(name(text), from, at) }
}

/// The cache holds `of`, each as `<name> from <target>`, since so many seconds before the start,
/// and then `steps` happen.
#[track_caller]
fn check_cached(of: &[(&str, &str)], age: u64, steps: &[(&str, &str, &[&str])]) {
    let mut stage = Stage::new(POLICY, strangers());
    let at = stage.scene.at(0);
    let held: Vec<Held> = of.iter().map(|(text, from)| fetched(text, from, at, age)).collect();
    for (step, expected, orphans) in steps {
        stage.scene.catalog.hold(&held);
        stage.step(step);
        let best = offered(stage.scene.view.best(Some("main")).expect("configured"));
        let view = &stage.scene.view;
        let lost = held.iter().filter(|held| view.is_orphan(&held.name, "main"));
        let lost: Vec<String> = lost.map(|held| short(&held.name)).collect();
        assert_eq!((&*best, lost), (*expected, own(orphans)), "after `{step}` in {steps:#?}");
    }
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_was_cached_on_one_word_leaves_with_its_target() {
    let far = &[("900000000", "x"), ("900000000-900000100", "x")];
    let all = &["900000000", "900000000-900000100"];
    let old = "1000 1000-1100";
    // It is there while its target is, and not offered.
    check_cached(
        far,
        0,
        &[
            ("0 | x joins | t joins | x: 900000000 900000000-900000100", &all.join(" "), &[]),
            ("1 | t: 1000 1000-1100", old, &[]),
            ("2 | x fails | x fails | x fails", old, &[]),
            ("3 | x leaves", old, all),
        ],
    );
    // After a restart without the target, as soon as all others were heard.
    for age in [0, 10, 100_000] {
        check_cached(
            far,
            age,
            &[
                ("0 | t joins | u joins", &all.join(" "), &[]),
                ("1 | t: 1000 1000-1100", old, &[]),
                ("2 | u fails", old, all),
            ],
        );
    }
    // With it, and with two of which one has gone.
    check_cached(
        far,
        10,
        &[("0 | x joins | t joins | t: 1000 1000-1100", old, &[]), ("1 | x: 900000000", old, &[])],
    );
    check_cached(
        far,
        10,
        &[("0 | y joins | t joins | t: 1000 1000-1100", old, &[]), ("1 | y: 900000000", old, all)],
    );
    // By the word of two it stays.
    check_cached(
        far,
        10,
        &[
            ("0 | x joins | y joins | t joins | t: 1000 1000-1100 | x: 900000000", old, &[]),
            ("1 | y: 900000000 900000000-900000100", &all.join(" "), &[]),
        ],
    );
}

#[test]
fn the_first_answer_after_a_restart_throws_nothing_out() {
    let (old, far) = ("1000 1000-1100", "900000000 900000000-900000100");
    // Whoever it was fetched from.
    for from in ["t", "x"] {
        let held = &[("1000", from), ("1000-1100", from)];
        check_cached(
            held,
            10,
            &[
                ("0 | t joins | x joins", old, &[]),
                (&format!("1 | x: {far}"), old, &[]),
                ("2 | t: 1000 1000-1200", "1000 1000-1200", &[]),
            ],
        );
    }
    // A target that is down is one of them.
    let held = &[("1000", "t"), ("1000-1100", "t")];
    check_cached(
        held,
        10,
        &[
            ("0 | t joins | x joins | t fails", old, &[]),
            (&format!("1 | x: {far}"), old, &[]),
            ("99999", old, &[]),
        ],
    );
    // What the cluster can have reached meanwhile is another matter.
    check_cached(
        held,
        1000,
        &[
            ("0 | t joins | u joins | u: 7000 7000-7050", "7000 7000-7050", &[]),
            ("1 | u: 7150", "1000 1000-1100", &[]),
        ],
    );
    // With the only target that there is, everything is as it says.
    check_cached(held, 10, &[("0 | t joins", old, &[]), (&format!("1 | t: {far}"), far, &[])]);
    // One that was fetched long ago is not voted down by who is behind.
    let held = &[("100000", "u"), ("100000-101000", "u")];
    let newest = "100000 100000-101000";
    check_cached(
        held,
        3600,
        &[
            ("0 | t joins | u joins | t: 50000", newest, &[]),
            ("1 | u: 100000 100000-101000", newest, &[]),
            ("2 | u: 100000 100000-110000", "100000 100000-110000", &[]),
        ],
    );
}

#[test]
fn a_tie_goes_to_who_is_known_longer() {
    let mut stage = Stage::new(POLICY, strangers());
    let check = |stage: &mut Stage, step: &str, expected: &str| {
        stage.step(step);
        assert_eq!(stage.scene.offers(Some("main")), expected, "{step}");
    };
    for (honest, stranger) in [("a", "z"), ("z", "a")] {
        for target in ["t", "b"] {
            let (first, second) = (format!("1000{honest}"), format!("1000{stranger}"));
            let (first, second) = (short(&name(&first)), short(&name(&second)));
            stage.scene.catalog = Catalog::default();
            stage.scene.view = View::default();
            check(&mut stage, &format!("0 | {target}: 900"), "900");
            check(&mut stage, &format!("1 | m: {second}"), &second);
            check(&mut stage, &format!("2 | {target}: {first}"), &first);
            // Who comes back has not become younger, nor older.
            check(&mut stage, &format!("3 | m leaves | {target}: {first}"), &first);
            check(&mut stage, &format!("4 | m: {second}"), &first);
            let fails = format!("{target} fails | ").repeat(3);
            check(&mut stage, &format!("5 | {fails}m: {second}"), &second);
            check(&mut stage, &format!("6 | {target}: {first}"), &first);
            // More of them win all the same.
            check(&mut stage, &format!("7 | n: {second}"), &second);
        }
    }
}

#[test]
fn a_tie_goes_to_what_is_cached_and_to_who_is_trusted() {
    let mut stage = Stage::new(POLICY, strangers());
    stage.step("0 | a: 1000b | z: 1000 | cache: 1000");
    assert_eq!(stage.scene.offers(Some("main")), "1000");
    let grounds = Grounds { trusted_targets: [target("z")].into(), ..strangers() };
    let mut stage = Stage::new(POLICY, grounds);
    stage.step("0 | a: 1000b | cache: 1000b");
    stage.step("1 | z: 1000");
    assert_eq!(stage.scene.offers(Some("main")), "1000");
}

/// Whom chance lets answer first at the start is not known longer for that.
#[test]
fn those_who_were_there_from_the_start_are_known_equally_long() {
    for order in [["a: 1000", "z: 1000b"], ["z: 1000b", "a: 1000"]] {
        let mut stage = Stage::new(POLICY, strangers());
        stage.step("0 | a joins | z joins");
        stage.step(&format!("1 | {}", order[0]));
        stage.step(&format!("2 | {}", order[1]));
        assert_eq!(stage.scene.offers(Some("main")), "1000", "{order:?}");
        // Who comes later is younger, also while others that are new are awaited.
        stage.step("3 | 0 joins | y joins");
        stage.step("4 | a leaves | 0: 1000c");
        assert_eq!(stage.scene.offers(Some("main")), "1000b", "{order:?}");
    }
}
