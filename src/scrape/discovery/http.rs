//! Prometheus' HTTP service discovery: a URL that answers GET with 200 and a list of blocks in
//! JSON. Redirects are followed on the same host alone, so that what the URL carries goes nowhere
//! else.

use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use super::answer::Answer;
use super::blocks;
use super::error::DiscoveryError;
use crate::config::{PrivateUrl, Scheme};
use crate::scrape::client::Client;

/// Largest answer that is read, in bytes: more than the most targets with all their labels.
const MAX_ANSWER: usize = 16 << 20;

/// The URL of a group.
pub(super) struct HttpSource {
    client: Client,
    url: PrivateUrl,
    scheme: Scheme,
    interval: Duration,
}

impl HttpSource {
    /// Asks for targets of this scheme, once every `interval`.
    pub(super) fn new(client: Client, url: PrivateUrl, scheme: Scheme, interval: Duration) -> Self {
        Self { client, url, scheme, interval }
    }

    pub(super) const fn url(&self) -> &PrivateUrl {
        &self.url
    }

    pub(super) async fn ask(&self) -> Result<Answer, DiscoveryError> {
        let headers =
            HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let (_, body) = self.client.get(self.url.reveal(), headers, MAX_ANSWER).await?;
        let named = blocks::from_json(&body, self.scheme).map_err(DiscoveryError::Answer)?;
        Ok(Answer { named, again: self.interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_TARGETS;
    use crate::scrape::discovery::gathering::{Named, check};

    fn parse(body: &[u8]) -> Result<Named, String> {
        blocks::from_json(body, Scheme::Http)
    }

    #[test]
    fn answers() {
        let check = |text: &str, expected: Result<&[&str], &str>| {
            check(text, parse(text.as_bytes()), expected);
        };
        check("[]", Ok(&[]));
        check("null", Ok(&[]));
        check("\u{feff}\n null ", Ok(&[]));
        check(r#"[{"targets": []}]"#, Ok(&[]));
        check(r#"[{"targets": null, "labels": null}]"#, Ok(&[]));
        check(
            r#"[{"targets": ["b:1", "a:1"], "labels": {"a": "b"}}, {"targets": ["[::1]:1"]}]"#,
            Ok(&["[::1]:1", "a:1", "b:1"]),
        );
        for (text, error) in [
            ("", "EOF"),
            (r#"{"targets": ["a:1"]}"#, "expected a list of blocks with targets"),
            ("\"a:1\"", "expected a list of blocks with targets, found a text"),
            (r#"[{"labels": {}}]"#, "element 1: missing field `targets`"),
            (r#"[{"targets": "a:1"}]"#, "element 1: `targets` is a text, expected a list"),
            (r#"[{"targets": [1]}]"#, "element 1, target 1: is a number, expected a text"),
            (r#"[{"targets": ["a:1"]}"#, "EOF"),
            (r#"[{"targets": ["a:1"]}] []"#, "trailing characters"),
            // Of what is wrong throughout nothing is believed.
            (r#"[{"targets": ["a", "b"]}]"#, "none of its entries is a target, the first one: "),
            (r#"[{"targets": ["https://a:1"]}]"#, "contradicts"),
            ("[null]", "element 1: is null, expected a block with targets"),
            // YAML is for files.
            ("- targets: [a:1]", "invalid number"),
        ] {
            check(text, Err(error));
        }
        check(&format!(r#"[{{"targets": ["{}"]}}]"#, "x".repeat(301)), Err("more than 300 bytes"));
        let many = |count| format!("[{}]", vec![r#"{"targets": ["a:1", "b:1"]}"#; count].join(","));
        check(&many(MAX_TARGETS / 2), Ok(&["a:1", "b:1"]));
        check(&many(MAX_TARGETS / 2 + 1), Err("more than 10000 targets"));
        check(&format!("[{}null]", "null,".repeat(1_000_000)), Err("more than 10000 targets"));
        check(&"[".repeat(100_000), Err(""));
    }

    #[test]
    fn one_bad_entry_costs_one_entry() {
        for (bad, place) in [
            (r#"{"targets": ["10.0.0.9"]}"#, "element 2, target 1: `10.0.0.9` has no port"),
            (r#"{"targets": ["c:1", 7]}"#, "element 2, target 2: is a number"),
            (r#"{"targets": ["c:1", null]}"#, "element 2, target 2: is null"),
            (r#"{"targets": ["c:1", ["d:1"], true]}"#, "element 2, target 2: is a list"),
            (r#"{"targets": ["c:1", {"targets": ["d:1"]}]}"#, "target 2: is keys and values"),
            (r#"{"targets": "c:1"}"#, "element 2: `targets` is a text"),
            (r#"{"labels": {}}"#, "element 2: missing field `targets`"),
            ("null", "element 2: is null"),
            ("-1.5", "element 2: is a number"),
            (r#"["c:1"]"#, "element 2: is a list"),
            (r#"{"targets": ["c:1", "http://"]}"#, "element 2, target 2: "),
        ] {
            for mark in ["", "\u{feff}"] {
                let text =
                    format!(r#"{mark}[{{"targets": ["a:1"]}},{bad},{{"targets": ["b:1"]}}]"#);
                let Named { targets, omitted } = parse(text.as_bytes()).expect(bad);
                let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
                assert!(targets.contains(&"a:1".to_owned()), "{targets:?}");
                assert!(targets.contains(&"b:1".to_owned()), "{targets:?}");
                assert!(!targets.contains(&"d:1".to_owned()), "{targets:?}");
                let first = omitted.first().expect("it is said");
                assert!(first.contains(place), "{first} instead of {place}");
                assert!((1..=2).contains(&omitted.count()));
            }
        }
    }

    #[test]
    fn what_is_no_text_is_no_target() {
        assert!(parse(b"[{\"targets\": [\"\xff:1\"]}]").is_err());
        let named = parse(b"[{\"targets\": [\"\xff:1\", \"a:1\"]}]").expect("one is good");
        assert_eq!((named.targets.len(), named.omitted.count()), (1, 1));
    }
}
