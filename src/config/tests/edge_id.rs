//! The name of an edge among others.

use super::{LEAST, good, reject};

#[test]
fn a_name_is_short_and_plain_and_need_not_be_given() {
    let named = |text: &str| good(&format!("{LEAST}{text}")).edge_id.map(|id| id.to_string());
    for text in ["", "edge_id: null", "edge_id: ''"] {
        assert_eq!(named(text), None, "{text}");
    }
    assert_eq!(named("edge_id: Berlin-1.example").as_deref(), Some("berlin-1.example"));
    for bad in ["a b", "a,b", "a/b", "ä", &"x".repeat(65)] {
        let part = "expected 1 to 64 letters, digits, dots and hyphens";
        reject(&format!("edge_id: '{bad}'"), "edge_id", part);
    }
}
