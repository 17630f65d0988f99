//! Groups that are looked through, come and go.

use super::*;

fn surveyed(scene: &mut Scene, group: &str, all: bool) {
    scene.catalog.apply(Event::Surveyed { group: group.into(), all });
}

/// Each target of each group has to be found, and heard or known to be silent.
#[test]
fn a_view_is_complete_when_all_targets_were_found_and_heard() {
    let mut scene = Scene::new(QUICK);
    let check = |scene: &mut Scene, expected: bool, why: &str| {
        scene.publish(1);
        assert_eq!(scene.view.is_complete(), expected, "{why}");
    };
    assert!(!View::default().is_complete(), "nothing is known");
    check(&mut scene, false, "nobody says which targets there are");
    for group in ["main", "other"] {
        surveyed(&mut scene, group, true);
    }
    check(&mut scene, false, "one group is left");
    scene.catalog.apply(Event::Expected { target: target("silent/a") });
    surveyed(&mut scene, "silent", true);
    check(&mut scene, false, "one target is left");
    let failed = scene.event(1, "silent/a fails");
    scene.catalog.apply(failed);
    check(&mut scene, true, "it failed");
    surveyed(&mut scene, "main", false);
    check(&mut scene, false, "another source is asked");
}

#[test]
fn what_is_cached_of_a_group_that_is_gone_is_kept_where_another_one_has_it() {
    let mut scene = Scene::new(QUICK);
    scene.step("1 | a: 1000 | other/b: 2000 | cache: other/1000 other/2000 other/3000");
    let forsaken = |scene: &Scene| {
        ["1000", "2000", "3000"].map(|text| scene.view.is_forsaken(&name(text), "other"))
    };
    assert_eq!(forsaken(&scene), [false; 3], "the group is there");
    scene.groups.retain(|group| **group != *"other");
    scene.catalog.keep_groups(&scene.groups.clone());
    scene.publish(2);
    assert_eq!(forsaken(&scene), [false; 3], "not all targets were heard");
    for group in ["main", "silent"] {
        surveyed(&mut scene, group, true);
    }
    scene.publish(3);
    assert_eq!(forsaken(&scene), [false; 3], "one group offers nothing, and may have them yet");
    scene.step("4 | silent/c: 4000");
    assert_eq!(forsaken(&scene), [false, true, true], "the other group lists one of them");
    assert_eq!(scene.view.best(Some("other")), Err(UnknownGroup));
    assert!(scene.view.sources(&name("2000")).is_empty());
}

#[test]
fn a_group_that_comes_back_begins_anew() {
    let mut scene = Scene::new(QUICK);
    surveyed(&mut scene, "other", true);
    scene.step("1 | other/b: 2000");
    let all = scene.groups.clone();
    scene.groups.retain(|group| **group != *"other");
    scene.catalog.keep_groups(&scene.groups.clone());
    scene.publish(2);
    scene.groups = all;
    scene.publish(3);
    assert_eq!(scene.view.best(Some("other")), Ok(None));
    scene.step("4 | other/c: 1000");
    let best = scene.view.best(Some("other")).expect("it is there");
    assert_eq!(offered(best), "1000", "what it had before is another matter");
}
