//! What is offered in place of archives that no target delivers.

use super::*;

/// `<target>=<name>`: a source that failed, as it is listed.
fn missed(text: &str) -> Undelivered {
    let (id, archive) = text.split_once('=').expect("a source");
    Undelivered { target: target(id), listed: listed(name(archive)), why: "broken".into() }
}

impl Scene {
    /// From now on these sources are those that failed.
    fn miss(&mut self, sources: &str) {
        let missed: Vec<Undelivered> = sources.split_whitespace().map(missed).collect();
        self.catalog.miss(&missed);
    }

    /// What `/v1/best_snapshots` tells of a group or of all.
    fn newest(&self, group: Option<&str>) -> String {
        let names = self.view.newest_distinct(group).map(|entry| short(&entry.source.listed.name));
        names.collect::<Vec<_>>().join(" ")
    }
}

/// Plays `steps` after each of which the sources behind the `!` have failed, each with what the
/// group (all of them, for `None`) offers then, and the first that the list of the best has.
#[track_caller]
fn check_missing(group: Option<&str>, policy: Policy, steps: &[(&str, &str)]) {
    let mut scene = Scene::new(policy);
    for (step, expected) in steps {
        let (events, sources) = step.split_once('!').unwrap_or((step, ""));
        scene.miss(sources);
        scene.step(events.trim());
        assert_eq!(scene.offers(group), *expected, "after `{step}` in {steps:#?}");
        let best = scene.view.best(group).expect("a known group");
        let told = scene.newest(group);
        // A full archive that waits for its first incremental one is told of.
        if policy.publish == Publish::Seen && !expected.contains("until") {
            let tip = best.map(|best| short(&best.tip())).unwrap_or_default();
            assert_eq!(told.split(' ').next(), Some(&*tip), "after `{step}` in {steps:#?}");
        }
        let is_last_resort = best.is_some_and(|best| scene.view.is_undelivered(&best.full));
        for name in scene.view.undelivered().map(|(name, _)| *name) {
            let is_offered = best.is_some_and(|best| best.names().any(|offered| offered == name));
            let is_told = told.split(' ').any(|told| told == short(&name));
            assert!(is_offered || !is_told || is_last_resort, "{} after `{step}`", short(&name));
        }
    }
}

fn check(steps: &[(&str, &str)]) {
    check_missing(Some("main"), POLICY, steps);
    check_missing(None, POLICY, steps);
}

#[test]
fn what_no_target_delivers_is_left_out_while_something_older_can_be_had() {
    // An incremental archive, and then another one, and both can be had again.
    check(&[
        ("0 | t: 1000 1000-1500 1000-1600 1000-1700", "1000 1000-1700"),
        ("1 ! t=1000-1700", "1000 1000-1600"),
        ("2 ! t=1000-1700 t=1000-1600", "1000 1000-1500"),
        ("3 ! t=1000-1700", "1000 1000-1600"),
        ("4", "1000 1000-1700"),
    ]);
    // A full archive, with what is on it.
    check(&[
        ("0 | t: 1000 1000-1500 2000 2000-2100", "2000 2000-2100"),
        ("1 ! t=2000", "1000 1000-1500"),
        ("2 | t: 1000 1000-1500 1000-1600 2000 2000-2100 ! t=2000", "1000 1000-1600"),
        ("3", "2000 2000-2100"),
    ]);
    // The first incremental archive on a full one, however long that is there.
    check(&[
        ("0 | t: 1000 1000-1500 2000 2000-2100", "2000 2000-2100"),
        ("1 ! t=2000-2100", "1000 1000-1500"),
        ("9999 ! t=2000-2100", "1000 1000-1500"),
        ("10000 | t: 1000 1000-1500 2000 2000-2100 2000-2200 ! t=2000-2100", "2000 2000-2200"),
    ]);
    // A full archive without any is one that waits for it, as ever.
    check(&[
        ("0 | t: 1000 1000-1500 1000-1600 2000", "1000 1000-1600 until 60"),
        ("1 ! t=1000-1600", "1000 1000-1500 until 60"),
        ("60 ! t=1000-1600", "2000"),
        ("61 ! t=1000-1600 t=2000", "1000 1000-1500"),
    ]);
}

#[test]
fn every_source_must_have_failed() {
    check(&[
        ("0 | t: 1000 1000-1500 1000-1600 | u: 1000 1000-1600", "1000 1000-1600"),
        ("1 ! t=1000-1600", "1000 1000-1600"),
        ("2 ! t=1000-1600 u=1000-1600", "1000 1000-1500"),
        // One more has it, or one that failed is silent and back.
        ("3 | v: 1000-1600 ! t=1000-1600 u=1000-1600", "1000 1000-1600"),
        ("4 | v leaves ! t=1000-1600 u=1000-1600", "1000 1000-1500"),
        ("5 ! u=1000-1600", "1000 1000-1600"),
        ("6 | t fails | t fails | t fails ! u=1000-1600", "1000 1000-1600"),
    ]);
    // So it is where only another group has one.
    let steps = [
        ("0 | t: 1000 1000-1500 1000-1600 | other/u: 1000 1000-1600", "1000 1000-1600"),
        ("1 ! t=1000-1600", "1000 1000-1600"),
        ("2 ! t=1000-1600 other/u=1000-1600", "1000 1000-1500"),
        ("3 ! other/u=1000-1600", "1000 1000-1600"),
    ];
    check(&steps);
    // A group that has nothing else offers it, and then the others do not follow.
    check_missing(
        Some("other"),
        POLICY,
        &[
            ("0 | t: 1000 1000-1500 | other/u: 2000 2000-2100", "2000 2000-2100"),
            ("1 ! other/u=2000-2100", "2000 2000-2100"),
            ("2 ! other/u=2000-2100 other/u=2000", "2000 2000-2100"),
        ],
    );
    check_missing(
        None,
        POLICY,
        &[
            ("0 | t: 1000 1000-1500 | other/u: 2000 2000-2100", "2000 2000-2100"),
            ("1 ! other/u=2000-2100", "1000 1000-1500"),
            ("2 ! other/u=2000", "1000 1000-1500"),
            ("3 ! other/u=2000 t=1000", "2000 2000-2100"),
            ("4", "2000 2000-2100"),
        ],
    );
}

#[test]
fn a_try_is_better_than_nothing() {
    check(&[
        ("0 | t: 1000 1000-1500", "1000 1000-1500"),
        ("1 ! t=1000-1500", "1000 1000-1500"),
        ("2 ! t=1000", "1000 1000-1500"),
        ("3 ! t=1000 t=1000-1500", "1000 1000-1500"),
    ]);
    // With a full archive that can be had the rest of it may come as well.
    check(&[
        ("0 | t: 1000 1000-1500 2000 2000-2100", "2000 2000-2100"),
        ("1 ! t=2000 t=1000-1500", "1000 1000-1500"),
        ("2 ! t=2000 t=1000", "2000 2000-2100"),
    ]);
    check(&[("0 | t: 900 1000 1000-1500 ! t=1000-1500", "1000 1000-1500")]);
}

#[test]
fn the_cache_has_what_it_has() {
    check(&[
        ("0 | t: 1000 1000-1500 1000-1600 | cache: 1000-1600", "1000 1000-1600"),
        ("1 ! t=1000-1600", "1000 1000-1600"),
        ("2 | cache: 1000 ! t=1000-1600 t=1000", "1000 1000-1500"),
    ]);
}

#[test]
fn another_copy_is_new_at_once() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 1000-1500 1000-1600");
    let missed = |change: &dyn Fn(&mut Listed)| {
        let mut missed = missed("t=1000-1600");
        change(&mut missed.listed);
        vec![missed]
    };
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut offers = |listed: &dyn Fn(&mut Listed), missed: Vec<Undelivered>| {
        let at = scene.at(1);
        let names = ["1000", "1000-1500", "1000-1600"].map(name);
        let archives = names.map(|name| {
            let mut archive = super::listed(name);
            listed(&mut archive);
            archive
        });
        let target = target("t");
        scene.catalog.apply(Event::Answered { target, at, archives: archives.to_vec() });
        scene.catalog.miss(&missed);
        scene.publish(1);
        scene.offers(Some("main"))
    };
    let (new, old) = ("1000 1000-1600", "1000 1000-1500");
    let plain = |_: &mut Listed| {};
    let sized = |listed: &mut Listed| listed.size = Some(7);
    let dated = |listed: &mut Listed| listed.modified = at(7);
    let moved = |listed: &mut Listed| {
        listed.location.as_mut().expect("a place").path = "/elsewhere".to_owned();
    };
    assert_eq!(offers(&plain, missed(&plain)), old);
    assert_eq!(offers(&sized, missed(&sized)), old);
    assert_eq!(offers(&dated, missed(&dated)), old);
    // What one of two listings leaves out says nothing.
    assert_eq!(offers(&plain, missed(&sized)), old);
    assert_eq!(offers(&dated, missed(&plain)), old);
    assert_eq!(offers(&sized, missed(&|listed| listed.size = Some(8))), new);
    assert_eq!(offers(&dated, missed(&|listed| listed.modified = at(8))), new);
    assert_eq!(offers(&moved, missed(&plain)), new);
}

#[test]
fn another_form_of_it_is_offered() {
    check(&[
        ("0 | t: 1000 1000-1500 1000-1600 1000-1600.lz4", "1000 1000-1600"),
        ("1 ! t=1000-1600", "1000 1000-1600.lz4"),
        ("2 ! t=1000-1600 t=1000-1600.lz4", "1000 1000-1500"),
        ("3 ! t=1000-1600.lz4", "1000 1000-1600"),
    ]);
}

#[test]
fn what_waits_for_the_cache_goes_back_too() {
    check_missing(
        Some("main"),
        PROMOTED,
        &[
            ("0 | t: 1000 1000-1500 1000-1600", "1000 1000-1600"),
            ("1 ! t=1000-1600", "1000 1000-1500"),
            ("2 | cache: 1000 1000-1500 ! t=1000-1600", "1000 1000-1500"),
            ("3", "1000 1000-1500"),
            ("4 | cache: 1000 1000-1500 1000-1600", "1000 1000-1600"),
        ],
    );
    let mut scene = Scene::new(PROMOTED);
    scene.step("0 | t: 1000 1000-1500 1000-1600");
    scene.miss("t=1000-1600");
    scene.step("1");
    assert_eq!(scene.wants("main"), "1000 1000-1500", "which is fetched then");
}

/// Whatever is listed and fails, something is offered where anything is, what is offered can be had
/// where a pair can, and nothing leads back from there when all can be had again.
#[test]
fn whatever_fails_something_is_offered() {
    let names = ["1000", "1000-1500", "1000-1600", "2000", "2000-2100", "2000-2200", "3000"];
    proptest!(|(listed in proptest::collection::vec(any::<bool>(), names.len()),
                failed in proptest::collection::vec(any::<bool>(), names.len()))| {
        let chosen = |which: &[bool]| -> Vec<&str> {
            names.iter().zip(which).filter(|(_, is)| **is).map(|(name, _)| *name).collect()
        };
        let listed = chosen(&listed);
        let failed: Vec<&str> =
            chosen(&failed).into_iter().filter(|name| listed.contains(name)).collect();
        let mut scene = Scene::new(POLICY);
        scene.step(&format!("0 | t: {}", listed.join(" ")));
        let sources: Vec<String> = failed.iter().map(|name| format!("t={name}")).collect();
        scene.miss(&sources.join(" "));
        scene.step("1");
        let best = scene.view.best(Some("main")).expect("configured");
        let has_full = listed.iter().any(|name| !name.contains('-'));
        prop_assert_eq!(best.is_some(), has_full);
        if let Some(best) = best {
            let full = short(&best.full);
            let can_be_had = |name: &&&str| !failed.contains(*name);
            let fulls = || listed.iter().filter(|name| !name.contains('-')).filter(can_be_had);
            prop_assert!(!failed.contains(&&*full) || fulls().next().is_none());
            let is_pair = |full: &&&str| {
                let on_it = format!("{full}-");
                listed.iter().filter(can_be_had).any(|name| name.starts_with(&on_it))
            };
            let tip = short(&best.tip());
            prop_assert!(!failed.contains(&&*tip) || !fulls().any(|full| is_pair(&full)));
        }
        scene.miss("");
        scene.step("2");
        let again = scene.view.best(Some("main")).expect("configured");
        prop_assert!(again.map(|again| again.full) >= best.map(|best| best.full));
    });
}
