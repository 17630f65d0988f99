//! The rules of support: what is at slots that nothing but one target's word supports.
//!
//! Steps as in the tables of the parent; besides, `<target> joins` says that a target is there and
//! has not answered yet, and `reference <slot>`, `reference fails` are what the reference node
//! tells.

use super::*;
use crate::index::{Grounds, Reference};

const FAR: u64 = 900_000_000;
/// After the time that makes what stands alone stand against who is behind.
const LONG: u64 = 601;

pub(super) struct Stage {
    pub(super) scene: Scene,
    grounds: Grounds,
}

impl Stage {
    pub(super) fn new(policy: Policy, grounds: Grounds) -> Self {
        let mut scene = Scene::new(policy);
        scene.catalog.rely_on(grounds.clone());
        Self { scene, grounds }
    }

    pub(super) fn step(&mut self, text: &str) {
        let (time, rest) = text.split_once('|').unwrap_or((text, ""));
        let seconds: u64 = time.trim().parse().expect(text);
        let mut others = vec![time.trim()];
        for part in rest.split('|').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_whitespace().collect::<Vec<_>>()[..] {
                [id, "joins"] => {
                    self.scene.catalog.apply(Event::Expected { target: target(id) });
                }
                ["reference", slot] => {
                    let at = self.scene.at(seconds).instant;
                    self.grounds.reference = match (slot.parse(), self.grounds.reference) {
                        (Ok(slot), _) => Reference::Current(slot),
                        (Err(_), Reference::Current(slot)) => Reference::Last(slot, at),
                        (Err(_), before) => before,
                    };
                    self.scene.catalog.rely_on(self.grounds.clone());
                }
                _ => others.push(part),
            }
        }
        self.scene.step(&others.join(" | "));
    }
}

pub(super) fn strangers() -> Grounds {
    Grounds::default()
}

/// What `main` offers after each step, and which targets are ahead then.
#[track_caller]
fn check_with(grounds: &Grounds, steps: &[(&str, &str, &[&str])]) {
    let mut stage = Stage::new(POLICY, grounds.clone());
    for (step, expected, ahead) in steps {
        stage.step(step);
        let view = &stage.scene.view;
        let best = offered(view.best(Some("main")).expect("configured"));
        let group = view.group("main").expect("configured");
        let found: Vec<&str> = group.ahead.keys().map(|id| &*id.authority).collect();
        assert_eq!((&*best, &*found), (*expected, *ahead), "after `{step}` in {steps:#?}");
        assert_eq!(group.best, group.wanted, "nothing else is fetched, after `{step}`");
        let newest = view.newest().map(|entry| entry.source.listed.name);
        let entries = view.entries().iter().map(|entry| entry.source.listed.name);
        for name in newest.chain(entries) {
            assert!(view.worth(&name, "main") != Worth::Baseless, "{} is listed", short(&name));
        }
    }
}

#[track_caller]
fn check(steps: &[(&str, &str, &[&str])]) {
    check_with(&strangers(), steps);
}

#[test]
fn a_slot_that_one_target_alone_claims_waits() {
    let (one, two) = ("1000 1000-1100", "1000 1000-1150");
    let honest = "t: 1000 1000-1100 | u: 1000 1000-1150";
    for far in [
        "900000000",
        "900000000 900000000-900000100",
        "1000 1000-18446744073709551615",
        "18446744073709551615",
        "1000-900000000",
        "500000 500000-500100 499000",
        "2200",
    ] {
        check(&[(&format!("0 | {honest} | x: {far}"), two, &["x"])]);
        // In whatever order they come, and also when it has come and gone.
        check(&[
            (&format!("0 | {honest}"), two, &[]),
            (&format!("1 | x: {far}"), two, &["x"]),
            ("2 | x fails | x fails", two, &["x"]),
            (&format!("3 | x: 1000 1000-1100 {far}"), two, &["x"]),
            ("4 | x leaves", two, &[]),
        ]);
        check(&[(&format!("0 | t: 1000 1000-1100 | x: {far}"), one, &["x"])]);
        // What it lists besides counts as anybody's.
        check(&[(&format!("0 | t: 1000 | x: 1000 1000-1100 {far}"), one, &["x"])]);
    }
    // As far as that it is nothing unusual, and not one slot farther.
    check(&[(&format!("0 | {honest} | x: 1000-2150"), "1000 1000-2150", &[])]);
    check(&[(&format!("0 | {honest} | x: 1000-2151"), two, &["x"])]);
}

#[test]
fn who_comes_first_makes_no_difference() {
    let far = "900000000 900000000-900000100";
    // It had been believed, for want of others, and that is forgotten at once.
    check(&[
        (&format!("0 | x: {far}"), far, &[]),
        ("1 | t: 1000 1000-1100", "1000 1000-1100", &["x"]),
        (&format!("2 | x: {far}"), "1000 1000-1100", &["x"]),
        ("3 | t: 1000 1000-1200", "1000 1000-1200", &["x"]),
        ("4 | x leaves", "1000 1000-1200", &[]),
    ]);
    // The others fail, or have nothing: they have been there all the same.
    check(&[
        (&format!("0 | t: 1000 1000-1100 | x: {far}"), "1000 1000-1100", &["x"]),
        ("1 | t fails | t fails | t fails", "nothing", &["x"]),
        (&format!("2 | x: {far}"), "nothing", &["x"]),
        ("3 | t:", "nothing", &["x"]),
        ("4 | t: 1000", "1000", &["x"]),
        // Until they are taken out.
        (&format!("5 | t leaves | x: {far}"), far, &[]),
    ]);
}

#[test]
fn a_second_voice_supports_it() {
    let (old, far) = ("1000", "900000000");
    check(&[
        (&format!("0 | t: {old} | x: {far}"), old, &["x"]),
        ("1 | y: 900000500", "900000500", &[]),
        // What was said before stands, for whom it supported.
        ("2 | y: 900001100", far, &["y"]),
        ("3 | y: 900001000", "900001000", &[]),
        // And when it leaves, that is over.
        ("4 | y leaves", old, &["x"]),
    ]);
    // Two that are far from each other support nothing.
    check(&[("0 | t: 1000 | x: 500000000 | y: 900000000", old, &["x", "y"])]);
    check(&[("0 | t: 1000 | x: 18446744073709551615 | y: 900000000", old, &["x", "y"])]);
    // Nodes that are as far apart as is allowed, each from the next.
    check(&[("0 | t: 1000 | u: 1900 | v: 2800", "2800", &[])]);
}

/// `x` and `y` are met at these addresses, and list what nobody else does.
fn stranger_at(x: [u8; 4], y: [u8; 4]) -> String {
    let mut stage = Stage::new(POLICY, strangers());
    stage.step("0 | t: 1000");
    let at = stage.scene.at(0);
    for (id, address) in [("x.example:1", x), ("y.example:2", y)] {
        let archive = listed(name("900000000"));
        let location =
            archive.location.clone().map(|at| Location { address: (address, 8899).into(), ..at });
        let archives = vec![Listed { location, ..archive }];
        stage.scene.catalog.apply(Event::Answered { target: target(id), at, archives });
    }
    stage.step("1");
    offered(stage.scene.view.best(Some("main")).expect("configured"))
}

#[test]
fn two_ports_of_one_address_are_one_voice() {
    assert_eq!(stranger_at([1, 2, 3, 4], [1, 2, 3, 4]), "1000");
    assert_eq!(stranger_at([1, 2, 3, 4], [1, 2, 3, 5]), "900000000");
    // Of this machine's own addresses each port is somebody else.
    assert_eq!(stranger_at([127, 0, 0, 1], [127, 0, 0, 1]), "900000000");
    let voice = |text: &str| crate::index::voice::Voice::of(&target(text), None);
    for (a, b, same) in [
        ("1.2.3.4:1", "1.2.3.4:2", true),
        ("1.2.3.4:1", "[::ffff:1.2.3.4]:2", true),
        ("[2001:db8::1]:1", "[2001:db8::2]:1", true),
        ("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false),
        ("node.example:1", "node.example:2", true),
        ("node.example:1", "other.example:1", false),
        ("127.0.0.1:1", "127.0.0.1:2", false),
        ("[::1]:1", "[::1]:2", false),
        ("main//a", "main//b", false),
    ] {
        assert_eq!(voice(a) == voice(b), same, "{a} {b}");
    }
}

#[test]
fn one_voice_is_one_vote() {
    let mut stage = Stage::new(POLICY, strangers());
    stage.step("0 | t: 1000");
    let at = stage.scene.at(1);
    for port in 1..4_u16 {
        let archive = listed(name("1000b"));
        let location = archive
            .location
            .clone()
            .map(|at| Location { address: ([1, 2, 3, 4], port).into(), ..at });
        let archives = vec![Listed { location, ..archive }];
        let target = target(&format!("1.2.3.4:{port}"));
        stage.scene.catalog.apply(Event::Answered { target, at, archives });
    }
    stage.step("2");
    assert_eq!(stage.scene.offers(Some("main")), "1000");
}

#[test]
fn time_supports_what_a_cluster_can_have_reached() {
    check(&[
        ("0 | t: 1000 | x: 2600", "1000", &["x"]),
        ("119", "1000", &["x"]),
        // One that stands still is no measure for ever.
        ("120", "2600", &[]),
        ("121 | x: 2606", "1000", &["x"]),
        ("122", "2606", &[]),
        // What is far beyond stays there.
        ("99999 | x: 900000000", "1000", &["x"]),
    ]);
    // By the newest that was supported, and not by the one that has stood still the longest.
    check(&[
        ("0 | t: 1000 | u: 1000", "1000", &[]),
        ("1000 | u: 1000 2000", "2000", &[]),
        ("1001 | x: 3100", "2000", &["x"]),
        ("1020", "3100", &[]),
    ]);
    // Who is ahead may be as far ahead again, but not by its own word.
    check(&[("0 | t: 1000 | x: 1900", "1900", &[]), ("1 | x: 2700", "1000", &["x"])]);
}

#[test]
fn a_group_of_one_target_is_as_good_as_that() {
    check(&[
        ("0 | t: 1000", "1000", &[]),
        ("1 | t: 500000", "500000", &[]),
        ("2 | t: 500000 900000000", "900000000", &[]),
        // Back to where it was.
        ("3 | t: 1000 1000-1100", "1000 1000-1100", &[]),
    ]);
    let far = "900000000 900000000-900000100";
    check(&[("0 | t joins", "nothing", &[]), (&format!("1 | t: {far}"), far, &[])]);
}

#[test]
fn a_cluster_that_goes_back_is_followed() {
    check(&[
        ("0 | t: 5000 5000-5500 | u: 5000 5000-5400", "5000 5000-5500", &[]),
        ("1 | t: 4000 4000-4500", "5000 5000-5400", &[]),
        ("2 | u: 4000 4000-4400", "4000 4000-4500", &[]),
        ("3 | t: 4000 4000-4600", "4000 4000-4600", &[]),
    ]);
    check(&[
        ("0 | t: 900000000 | u: 900000000", "900000000", &[]),
        ("1 | t: 1000", "900000000", &[]),
        ("2 | u: 1000", "1000", &[]),
    ]);
}

/// A node that is restarted from an old archive takes nothing away from those that are not.
#[test]
fn who_falls_behind_does_not_pull_the_others_back() {
    check(&[
        ("0 | t: 100000 | u: 100000 100000-100100", "100000 100000-100100", &[]),
        ("1 | t: 50000", "100000 100000-100100", &[]),
        ("60 | u: 100000 100000-100250", "100000 100000-100250", &[]),
        ("600 | u: 100000 100000-101600", "100000 100000-101600", &[]),
    ]);
    // Nor does one that comes to a group of one that has been there for long.
    let long = |seconds: u64, rest: &str| format!("{} | {rest}", LONG + seconds);
    check(&[
        ("0 | u: 100000", "100000", &[]),
        (&long(0, "u: 100000 100000-101500"), "100000 100000-101500", &[]),
        (&long(1, "t: 50000"), "100000 100000-101500", &[]),
        (&long(41, "u: 100000 100000-101600"), "100000 100000-101600", &[]),
        // It goes on as a cluster does, and no faster.
        (&long(42, "u: 100000 100000-101700"), "100000", &["u"]),
        (&long(62, "u: 100000 100000-101700"), "100000 100000-101700", &[]),
        (&long(63, "u: 900000000"), "50000", &["u"]),
    ]);
    // A short while is no time.
    check(&[
        ("0 | x: 900000000", "900000000", &[]),
        ("300 | t: 1000", "1000", &["x"]),
        ("99999 | x: 900000100", "1000", &["x"]),
    ]);
}

#[test]
fn who_is_trusted_needs_nobody() {
    let far = "900000000";
    let of_group = Grounds { trusted_groups: ["main".into()].into(), ..strangers() };
    check_with(&of_group, &[(&format!("0 | t: 1000 | x: {far}"), far, &[])]);
    let of_x = Grounds { trusted_targets: [target("x")].into(), ..strangers() };
    check_with(
        &of_x,
        &[
            (&format!("0 | t: 1000 | x: {far}"), far, &[]),
            ("1 | y: 900000900 | x:", "900000900", &[]),
            ("2 | y: 18446744073709551615", "1000", &["y"]),
        ],
    );
    let of_other = Grounds { trusted_groups: ["other".into()].into(), ..strangers() };
    check_with(&of_other, &[(&format!("0 | t: 1000 | x: {far}"), "1000", &["x"])]);
    // So is a directory of this machine.
    check(&[(&format!("0 | t: 1000 | main//ledger: {far}"), far, &[])]);
}

#[test]
fn the_reference_decides_while_it_answers() {
    let far = "900000000 900000000-900000100";
    check(&[
        (&format!("0 | reference 1150 | t: 1000 | x: {far}"), "1000", &["x"]),
        // However many say so, or few.
        (&format!("1 | y: {far} | z: {far}"), "1000", &["x", "y", "z"]),
        ("2 | t leaves | y leaves | z leaves", "nothing", &["x"]),
        (&format!("3 | main//ledger: {far}"), "nothing", &["/ledger", "x"]),
        ("4 | main//ledger: 2150 | t: 2151", "2150", &["t", "x"]),
        ("5 | reference 1151", "2151", &["x"]),
    ]);
    // One that is ahead of all others has support by it.
    check(&[
        ("0 | t: 1000 | x: 500000", "1000", &["x"]),
        ("1 | reference 499000", "500000", &[]),
        ("2 | reference 498999", "1000", &["x"]),
    ]);
    // With `trusted` what is beyond it is offered all the same.
    let of_x = Grounds { trusted_targets: [target("x")].into(), ..strangers() };
    check_with(&of_x, &[("0 | reference 1150 | t: 1000 | x: 900000000", "900000000", &[])]);
}

#[test]
fn a_reference_that_fails_is_one_of_the_others() {
    check(&[
        ("0 | reference fails | t: 1000 | x: 500000", "1000", &["x"]),
        ("1 | reference 499000", "500000", &[]),
        ("2 | reference fails | y: 501000", "501000", &[]),
        ("3 | x: 499000 | y: 900000000", "499000", &["y"]),
    ]);
    // With one target there is somebody to contradict it now.
    check(&[
        ("0 | reference 1000 | x: 900000000", "nothing", &["x"]),
        ("1 | reference fails | x: 900000000 1000", "1000", &["x"]),
        ("201 | x: 3000", "3000", &[]),
    ]);
}

#[test]
fn the_lead_is_that_of_the_configuration() {
    for lead in [0, 10, 5000] {
        let grounds = Grounds { max_slot_lead: lead, ..strangers() };
        let (allowed, not) = (1100 + lead, 1101 + lead);
        let step = |slot| format!("0 | t: 1000 1000-1100 | x: 1000-{slot}");
        check_with(&grounds, &[(&step(allowed), &format!("1000 1000-{allowed}"), &[])]);
        check_with(&grounds, &[(&step(not), "1000 1000-1100", &["x"])]);
    }
    let grounds = Grounds { max_slot_lead: u64::MAX, ..strangers() };
    check_with(&grounds, &[("0 | t: 1000 | x: 900000000", "900000000", &[])]);
}

#[test]
fn what_is_far_ahead_is_neither_wanted_nor_waited_for() {
    let mut stage = Stage::new(PROMOTED, strangers());
    let old = "1000 1000-1500";
    stage.step("0 | t: 1000 1000-1500 | cache: 1000 1000-1500 | x: 500000");
    for (step, expected) in [
        ("1 | t: 1000 1000-1600", old),
        ("2 | cache: 1000 1000-1500 1000-1600", "1000 1000-1600"),
        ("700 | t: 1000 1000-1600 2000 2000-2100", "1000 1000-1600"),
        ("701 | cache: 1000 1000-1600 2000 2000-2100", "2000 2000-2100"),
    ] {
        stage.step(step);
        assert_eq!(stage.scene.offers(Some("main")), expected, "{step}");
        let wanted = stage.scene.view.group("main").and_then(|group| group.wanted);
        assert!(wanted.is_some_and(|wanted| wanted.tip().slot().0 < FAR / 1000), "{step}");
    }
    let far = name("500000");
    assert_eq!(stage.scene.view.worth(&far, "main"), Worth::Baseless);
    assert!(!stage.scene.view.is_best(&far));
    assert_eq!(stage.scene.view.sources(&far).len(), 1, "by its name it can be had");
}

#[test]
fn the_message_names_target_slots_and_what_to_do() {
    let text = |grounds: Grounds, step: &str| {
        let mut stage = Stage::new(POLICY, grounds);
        stage.step(step);
        stage.scene.view.group("main").expect("configured").ahead[&target("x")].to_string()
    };
    let others = text(strangers(), "0 | t: 1000 | x: 900000000 800000000");
    for part in ["snapshot-900000000-", "slot 2000", "other target", "`rpc`", "`trusted`"] {
        assert!(others.contains(part), "`{part}` in {others}");
    }
    let reference = text(strangers(), "0 | reference 1150 | t: 1000 | x: 900000000");
    for part in ["slot 2150", "`rpc` tells", "`max_slot_lead`", "`trusted`"] {
        assert!(reference.contains(part), "`{part}` in {reference}");
    }
}

/// One liar among targets that do what they like within the bound.
fn any_lie() -> impl Strategy<Value = u64> {
    prop_oneof![Just(u64::MAX), Just(FAR), 100_000..1_000_000_u64]
}

proptest! {
    #[test]
    fn one_liar_is_never_offered_while_another_target_is_there(
        steps in prop::collection::vec((any_step(), 0..20_u64), 1..40),
        lies in prop::collection::vec((0..40_usize, any_lie()), 1..6),
    ) {
        let mut stage = Stage::new(QUICK, strangers());
        let mut now = 40;
        stage.step("40 | main/honest: 0");
        for (at, ((who, age, step), pause)) in steps.into_iter().enumerate() {
            now += pause;
            let event = event(&stage.scene, who, now - age, step);
            stage.scene.catalog.apply(event);
            for (_, slot) in lies.iter().filter(|(when, _)| *when == at) {
                stage.scene.catalog.apply(Event::Answered {
                    target: target("main/liar"),
                    at: stage.scene.at(now),
                    archives: vec![listed(name("0")), listed(name(&slot.to_string()))],
                });
            }
            stage.scene.publish(now);
            let far = Slot(50_000);
            for group in [Some("main"), None] {
                let best = stage.scene.view.best(group).expect("configured");
                prop_assert!(best.is_none_or(|best| best.tip().slot() < far));
            }
            let again = stage.scene.catalog.view(
                &stage.scene.view, &stage.scene.groups, QUICK, stage.scene.at(now).instant,
            );
            prop_assert_eq!(&again, &stage.scene.view, "a view is a fixed point");
        }
        // What is left when it has gone is what there would be had it never come.
        stage.scene.catalog.apply(Event::Removed { target: target("main/liar") });
        stage.scene.publish(now);
        prop_assert!(stage.scene.view.group("main").expect("configured").ahead.is_empty());
    }
}
