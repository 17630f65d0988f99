//! What may be said of slots that nothing supports, and of targets whose word suffices.

use std::collections::BTreeSet;

use super::{LEAST, good, reject, reject_file};
use crate::config::{HostPort, Scheme, Trusted};

fn some(targets: &[&str]) -> Trusted {
    let target = |text: &&str| HostPort::parse(text, Scheme::Http).expect("a target");
    Trusted::Some(targets.iter().map(target).collect::<BTreeSet<_>>())
}

#[test]
fn accepted() {
    for (text, expected) in [
        ("", some(&[])),
        (", trusted: null", some(&[])),
        (", trusted: false", some(&[])),
        (", trusted: true", Trusted::All),
        (", trusted: []", some(&[])),
        (", trusted: ['a:1']", some(&["a:1"])),
        // From whichever source.
        (", trusted: ['a:1', 'b:2', '[::1]:3']", some(&["a:1", "b:2", "[::1]:3"])),
    ] {
        let file = LEAST.replace("}}]", &format!("}}{text}}}]"));
        assert_eq!(good(&file).groups[0].trusted, expected, "{text}");
    }
    for (text, expected) in
        [("", 1000), ("max_slot_lead: 0", 0), ("max_slot_lead: 18446744073709551615", u64::MAX)]
    {
        assert_eq!(good(&format!("{LEAST}{text}")).max_slot_lead, expected, "{text}");
    }
}

#[test]
fn rejected() {
    for (value, path, part) in [
        ("maybe", "target_groups[0].trusted", "`true`, `false` or a list of targets"),
        ("{targets: []}", "target_groups[0].trusted", "`true`, `false` or a list of targets"),
        ("1", "target_groups[0].trusted", "found a number"),
        ("['a']", "target_groups[0].trusted[0]", "`a`"),
        ("[true]", "target_groups[0].trusted[0]", "expected a target"),
    ] {
        let file = LEAST.replace("}}]", &format!("}}, trusted: {value}}}]"));
        reject_file(&file, &[(path, part)]);
    }
    for value in ["-1", "1.5", "many", "true"] {
        reject(&format!("max_slot_lead: {value}"), "max_slot_lead", "expected a whole number");
    }
}
