//! The instances of a service that Consul holds for healthy, by its health endpoint and blocking
//! queries (<https://developer.hashicorp.com/consul/api-docs/features/blocking>): Consul answers
//! when something changes, and at the latest after a while.

use std::net::Ipv6Addr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::answer::Answer;
use super::error::DiscoveryError;
use super::file::FileReader;
use super::gathering::{Gathering, Named};
use crate::config::{Consul, Scheme, Secret, Token};
use crate::scrape::client::Client;
use crate::scrape::elements::{Element, Elements, without_place};

/// Largest answer that is read, in bytes. Consul says a few thousand of each instance.
const MAX_ANSWER: usize = 64 << 20;
/// Largest of its instances, in bytes.
const MAX_INSTANCE: usize = 1 << 20;
/// Largest file with a token, in bytes.
const MAX_TOKEN_FILE: u64 = 4096;
/// Longest that Consul is asked to wait for a change. What is between it and us may forget a
/// connection that is silent for longer.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Part of the wait that Consul may add to it, so that its clients do not all come back at once.
const JITTER: u32 = 16;
/// Least time between two queries: the index of a busy service changes all the time.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// The service of a group.
pub(super) struct ConsulSource {
    client: Client,
    url: Url,
    token: Option<TokenSource>,
    scheme: Scheme,
    interval: Duration,
    /// State that the next query wants a change from; without one it is answered at once.
    index: Option<u64>,
}

enum TokenSource {
    Given(Secret),
    InFile(FileReader),
}

impl ConsulSource {
    /// Asks for targets of this scheme. Where Consul cannot wait, it is asked every `interval`.
    pub(super) fn new(client: Client, consul: &Consul, scheme: Scheme, interval: Duration) -> Self {
        let token = consul.token.as_ref().map(|token| match token {
            Token::Given(token) => TokenSource::Given(token.clone()),
            Token::InFile(path) => TokenSource::InFile(FileReader::new(path, MAX_TOKEN_FILE)),
        });
        Self { client, url: query(consul), token, scheme, interval, index: None }
    }

    /// Scheme, host and port of Consul.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Time that the next answer may take where any other one may take `timeout`.
    pub(super) fn patience(&self, timeout: Duration) -> Duration {
        let wait = self.wait();
        self.index.map_or(timeout, |_| wait + wait / JITTER + timeout)
    }

    /// Has the next query answered at once, as after a failure: who was not reached may have
    /// forgotten what it counted.
    pub(super) fn forget(&mut self) {
        self.index = None;
    }

    fn wait(&self) -> Duration {
        self.interval.clamp(LEAST_PAUSE, MAX_WAIT)
    }

    pub(super) async fn ask(&mut self) -> Result<Answer, DiscoveryError> {
        let headers = self.headers().await?;
        let mut url = self.url.clone();
        if let Some(index) = self.index {
            url.query_pairs_mut()
                .append_pair("index", &index.to_string())
                .append_pair("wait", &format!("{}ms", self.wait().as_millis()));
        }
        let (head, body) = self.client.get(&url, headers, MAX_ANSWER).await?;
        let named = parse(&body, self.scheme).map_err(DiscoveryError::Answer)?;
        let said = head.headers.get(INDEX).and_then(|value| value.to_str().ok());
        self.index = next_index(self.index, said);
        // Without an index the next query does not wait, and so we do.
        let again =
            if self.index.is_some() { LEAST_PAUSE.min(self.interval) } else { self.interval };
        Ok(Answer { named, again })
    }

    async fn headers(&mut self) -> Result<HeaderMap, DiscoveryError> {
        let mut headers = HeaderMap::new();
        let token = match &mut self.token {
            None => return Ok(headers),
            Some(TokenSource::Given(token)) => token.clone(),
            Some(TokenSource::InFile(file)) => Secret::new(file.read().await?.trim_ascii()),
        };
        // What is wrong with a value is not said, and so not its value.
        let value = HeaderValue::from_bytes(token.expose()).ok().filter(|value| !value.is_empty());
        let mut value = value.ok_or(DiscoveryError::Token)?;
        value.set_sensitive(true);
        headers.insert(TOKEN, value);
        Ok(headers)
    }
}

/// The URL of every query, without what makes it wait.
fn query(consul: &Consul) -> Url {
    let mut url = consul.url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend(["v1", "health", "service", &consul.service]);
    }
    let mut pairs = url.query_pairs_mut();
    pairs.append_pair("passing", "true");
    if let Some(datacenter) = &consul.datacenter {
        pairs.append_pair("dc", datacenter);
    }
    if let Some(filter) = &consul.filter {
        pairs.append_pair("filter", filter);
    }
    drop(pairs);
    url
}

/// What to wait for a change from, as Consul documents it: an index that went back is of another
/// count and waited for by nobody, and one below 1 would not wait.
fn next_index(before: Option<u64>, said: Option<&str>) -> Option<u64> {
    let index = said?.parse::<u64>().ok().filter(|index| *index > 0)?;
    before.is_none_or(|before| index >= before).then_some(index)
}

/// An instance, as the health endpoint says it. All else is not for us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    /// Needed where the service has no address.
    node: Option<Node>,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// Empty or absent for an instance that is at its node's address.
    address: Option<String>,
    port: u16,
}

fn parse(body: &[u8], scheme: Scheme) -> Result<Named, String> {
    let mut gathering = Gathering::new(scheme);
    let mut taken = Ok(());
    let mut elements = Elements::new(MAX_INSTANCE);
    let read = elements.push(body, |number, element| {
        let target = match element {
            Element::Whole(bytes) => target(bytes),
            Element::TooLarge => Err(format!("is larger than {MAX_INSTANCE} bytes")),
        };
        let entry = target.as_deref().map_err(String::as_str);
        if taken.is_ok() {
            taken = gathering.take(|| format!("instance {number}"), entry);
        }
    });
    read.and_then(|()| elements.end()).map_err(|error| error.to_string())?;
    taken?;
    gathering.end()
}

/// Host and port of an instance.
fn target(bytes: &[u8]) -> Result<String, String> {
    let Entry { node, service: Service { address, port } } =
        serde_json::from_slice(bytes).map_err(|error| without_place(&error))?;
    let own = address.filter(|address| !address.is_empty());
    let host = own.or_else(|| node.map(|node| node.address));
    let host = host.ok_or_else(|| "has no address, and neither has its node".to_owned())?;
    let bracketed = host.parse::<Ipv6Addr>().is_ok();
    Ok(if bracketed { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_TARGETS;
    use crate::scrape::discovery::gathering::check;

    fn entry(node: &str, service: &str, port: &str) -> String {
        format!(
            r#"{{"Node": {{"ID": "x", "Node": "n", "Address": "{node}"}},
                "Service": {{"ID": "s", "Service": "s", "Tags": [], {service} "Port": {port}}},
                "Checks": [{{"Status": "passing"}}]}}"#
        )
    }

    #[test]
    fn answers() {
        let check = |text: &str, expected: Result<&[&str], &str>| {
            check(text, parse(text.as_bytes(), Scheme::Http), expected);
        };
        let one = |node, service, port| format!("[{}]", entry(node, service, port));
        check("[]", Ok(&[]));
        check("null", Ok(&[]));
        for (node, service, target) in [
            ("10.0.0.1", r#""Address": "10.0.0.2","#, "10.0.0.2:8899"),
            ("10.0.0.1", r#""Address": "","#, "10.0.0.1:8899"),
            ("10.0.0.1", "", "10.0.0.1:8899"),
            ("10.0.0.1", r#""Address": "Node.Example","#, "node.example:8899"),
            ("fd00::1", "", "[fd00::1]:8899"),
            ("10.0.0.1", r#""Address": "FD00:0::2","#, "[fd00::2]:8899"),
            ("10.0.0.1", r#""Address": "[fd00::3]","#, "[fd00::3]:8899"),
        ] {
            let expected = [target];
            check(&one(node, service, "8899"), Ok(&expected));
        }
        let two = [entry("b", "", "1"), entry("a", "", "2"), entry("b", "", "1")].join(",");
        check(&format!("[{two}]"), Ok(&["a:2", "b:1"]));
        for (text, error) in [
            (String::new(), "expected a list in JSON"),
            ("{}".to_owned(), "expected a list in JSON"),
            ("[{}]".to_owned(), "instance 1: missing field `Service`"),
            ("No cluster leader".to_owned(), "expected"),
            (one("a", "", "0"), "`a:0` has a bad port"),
            (one("a", "", "70000"), "expected u16"),
            (one("", "", "1"), "`:1` is not a host and port"),
            (one("a b", "", "1"), "not a host and port"),
            (one("user@a", "", "1"), "not a host and port"),
            (one(&"x".repeat(301), "", "1"), "more than 300 bytes"),
        ] {
            check(&text, Err(error));
        }
        let many = |count| format!("[{}]", vec![entry("a", "", "1"); count].join(","));
        check(&many(MAX_TARGETS), Ok(&["a:1"]));
        check(&many(MAX_TARGETS + 1), Err("more than 10000 targets"));
    }

    #[test]
    fn one_bad_entry_costs_one_entry() {
        for (bad, place) in [
            (entry("c", "", "0"), "instance 2: `c:0` has a bad port"),
            (entry("c", "", "\"1\""), "instance 2: invalid type: string \"1\", expected u16"),
            (entry("c d", "", "1"), "instance 2: `c d:1` is not a host and port"),
            (entry("c", r#""Address": 7,"#, "1"), "instance 2: invalid type: integer `7`"),
            ("null".to_owned(), "instance 2: invalid type: null"),
            ("{}".to_owned(), "instance 2: missing field `Service`"),
            (r#"{"Service": {"Port": 1}}"#.to_owned(), "instance 2: has no address"),
            (r#"{"Node": {"Address": "c"}, "Service": {}}"#.to_owned(), "missing field `Port`"),
            (format!("\"{}\"", "x".repeat(2 << 20)), "instance 2: is larger than 1048576 bytes"),
            (String::new(), "instance 2: "),
        ] {
            let text = format!("\u{feff}[{},{bad},{}]", entry("b", "", "1"), entry("a", "", "1"));
            let Named { targets, omitted } = parse(text.as_bytes(), Scheme::Http).expect(place);
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            assert_eq!(targets, ["a:1", "b:1"], "{place}");
            let first = omitted.first().expect("it is said");
            assert!(first.contains(place) && omitted.count() == 1, "{first} instead of {place}");
        }
        // What is not needed may be missing.
        let text = r#"[{"Node": null, "Service": {"Address": "a", "Port": 1, "Tags": null}}]"#;
        check(text, parse(text.as_bytes(), Scheme::Http), Ok(&["a:1"]));
        let text = r#"[{"Node": {"Address": "a"}, "Service": {"Address": null, "Port": 1}}]"#;
        check(text, parse(text.as_bytes(), Scheme::Http), Ok(&["a:1"]));
    }

    #[test]
    fn an_index_that_goes_back_or_is_none_is_not_waited_on() {
        for (before, said, expected) in [
            (None, Some("7"), Some(7)),
            (Some(7), Some("7"), Some(7)),
            (Some(7), Some("9"), Some(9)),
            (Some(7), Some("6"), None),
            (Some(7), Some("0"), None),
            (None, Some("0"), None),
            (Some(7), Some("x"), None),
            (Some(7), Some("-1"), None),
            (Some(7), None, None),
            (None, None, None),
        ] {
            assert_eq!(next_index(before, said), expected, "{before:?} {said:?}");
        }
    }

    #[test]
    fn queries() {
        let check =
            |service: &str, datacenter: Option<&str>, filter: Option<&str>, expected: &str| {
                let consul = Consul {
                    url: "http://consul:8500".parse().expect("a URL"),
                    token: None,
                    datacenter: datacenter.map(str::to_owned),
                    service: service.to_owned(),
                    filter: filter.map(str::to_owned),
                };
                let expected = format!("http://consul:8500/v1/health/service/{expected}");
                assert_eq!(query(&consul).as_str(), expected);
            };
        check("s", None, None, "s?passing=true");
        check("a/b ?#", None, None, "a%2Fb%20%3F%23?passing=true");
        check(
            "s",
            Some("dc 1&x"),
            Some(r#"Service.Meta.a == "b" and "c" in Service.Tags"#),
            "s?passing=true&dc=dc+1%26x&filter=Service.Meta.a+%3D%3D+%22b%22+and+%22c%22+in+\
             Service.Tags",
        );
    }
}
