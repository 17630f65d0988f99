//! Prometheus' HTTP service discovery: a URL that answers GET with 200 and a list of blocks in
//! JSON. Redirects are not followed, so that what the URL carries goes nowhere else.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use super::{Answer, DiscoveryError, blocks};
use crate::config::{HostPort, PrivateUrl, Scheme};
use crate::target::client::Client;

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
        let targets = parse(&body, self.scheme).map_err(DiscoveryError::Answer)?;
        Ok(Answer { targets, again: self.interval })
    }
}

fn parse(body: &[u8], scheme: Scheme) -> Result<BTreeSet<HostPort>, String> {
    blocks::from_json(body)?.iter().map(|target| HostPort::parse(target, scheme)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_TARGETS;
    use crate::target::discovery::check;

    #[test]
    fn answers() {
        let check = |text: &str, expected: Result<&[&str], &str>| {
            check(text, parse(text.as_bytes(), Scheme::Http), expected);
        };
        check("[]", Ok(&[]));
        check(r#"[{"targets": []}]"#, Ok(&[]));
        check(
            r#"[{"targets": ["b:1", "a:1"], "labels": {"a": "b"}}, {"targets": ["[::1]:1"]}]"#,
            Ok(&["[::1]:1", "a:1", "b:1"]),
        );
        for (text, error) in [
            ("", "EOF"),
            ("null", "expected a list of blocks with targets"),
            (r#"{"targets": ["a:1"]}"#, "expected a list of blocks with targets"),
            (r#"[{"labels": {}}]"#, "missing field `targets`"),
            (r#"[{"targets": "a:1"}]"#, "expected a list of targets"),
            (r#"[{"targets": [1]}]"#, "expected a string"),
            (r#"[{"targets": ["a:1"]}"#, "EOF"),
            (r#"[{"targets": ["a:1"]}] []"#, "trailing characters"),
            // A part that is wrong makes the whole wrong.
            (r#"[{"targets": ["a:1", "b"]}]"#, "`b` has no port"),
            (r#"[{"targets": ["https://a:1"]}]"#, "contradicts"),
            // YAML is for files.
            ("- targets: [a:1]", "invalid number"),
        ] {
            check(text, Err(error));
        }
        check(&format!(r#"[{{"targets": ["{}"]}}]"#, "x".repeat(301)), Err("more than 300 bytes"));
        let many = |count| format!("[{}]", vec![r#"{"targets": ["a:1", "b:1"]}"#; count].join(","));
        check(&many(MAX_TARGETS / 2), Ok(&["a:1", "b:1"]));
        check(&many(MAX_TARGETS / 2 + 1), Err("more than 10000 targets"));
        check(&"[".repeat(100_000), Err(""));
    }

    #[test]
    fn what_is_no_text_is_no_answer() {
        assert!(parse(b"[{\"targets\": [\"\xff:1\"]}]", Scheme::Http).is_err());
    }
}
