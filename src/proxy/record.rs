//! The access log's line of one request. Clients choose what is in it: each part is cut and
//! escaped, so that nobody writes a line, or a part of one, that is not his own. Pure.

use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AsHeaderName, RANGE, USER_AGENT};
use pingora::http::RequestHeader;

use super::head::CACHE_STATUS;

/// Most bytes of each part that go into the log, before they are escaped.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 200;
const MAX_QUERY: usize = 200;
const MAX_RANGE: usize = 100;
const MAX_AGENT: usize = 150;
const MAX_CACHE: usize = 150;

/// What is told of one request.
pub(super) struct Record<'a> {
    pub(super) client: IpAddr,
    pub(super) request: &'a RequestHeader,
    /// The head of the answer, where there was one.
    pub(super) answer: Option<&'a HeaderMap>,
    pub(super) status: u16,
    /// Bytes of the body that went out.
    pub(super) bytes: usize,
    pub(super) seconds: f64,
    /// Where they came from, and how it ended, in our own words.
    pub(super) origin: &'a str,
    pub(super) ending: &'a str,
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (uri, method) = (&self.request.uri, self.request.method.as_str());
        write!(f, "{} {} {}", self.client, bare(method, MAX_METHOD), bare(uri.path(), MAX_PATH))?;
        if let Some(query) = uri.query() {
            write!(f, "?{}", bare(query, MAX_QUERY))?;
        }
        let Self { status, bytes, seconds, origin, ending, .. } = self;
        write!(f, " {status} {bytes} bytes {seconds:.3} s{origin}")?;
        let headers = &self.request.headers;
        quoted(f, "range", headers, RANGE, MAX_RANGE)?;
        quoted(f, "agent", headers, USER_AGENT, MAX_AGENT)?;
        if let Some(answer) = self.answer {
            quoted(f, "cache", answer, CACHE_STATUS, MAX_CACHE)?;
        }
        f.write_str(ending)
    }
}

/// A part between spaces, which has none of its own.
fn bare(text: &str, most: usize) -> String {
    cut(text.as_bytes(), most).replace(' ', r"\x20")
}

/// A header with its name here, where it is there.
fn quoted(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    headers: &HeaderMap,
    header: impl AsHeaderName,
    most: usize,
) -> fmt::Result {
    match headers.get(header) {
        Some(value) => write!(f, " {name} \"{}\"", cut(value.as_bytes(), most)),
        None => Ok(()),
    }
}

fn cut(bytes: &[u8], most: usize) -> String {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn line(target: &[u8], headers: &[(&'static str, &[u8])], cache: Option<&str>) -> String {
        let mut request = RequestHeader::build("GET", target, None).expect("a request");
        for (name, value) in headers {
            let value = http::HeaderValue::from_bytes(value).expect("a value");
            request.append_header(*name, value).expect("a header");
        }
        let mut answer = HeaderMap::new();
        if let Some(cache) = cache {
            answer.insert(CACHE_STATUS, cache.parse().expect("a value"));
        }
        Record {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request: &request,
            answer: Some(&answer),
            status: 206,
            bytes: 10,
            seconds: 0.25,
            origin: " from node:1",
            ending: " (broken off)",
        }
        .to_string()
    }

    #[test]
    fn a_line_tells_query_range_agent_and_cache() {
        assert_eq!(
            line(b"/health", &[], None),
            "127.0.0.1 GET /health 206 10 bytes 0.250 s from node:1 (broken off)"
        );
        let headers: [(&str, &[u8]); 2] =
            [("range", b"bytes=0-9"), ("user-agent", b"aria2/1.37.0")];
        assert_eq!(
            line(b"/v1/snapshots?group=a&slot=1", &headers, Some("snapedge; hit")),
            "127.0.0.1 GET /v1/snapshots?group=a&slot=1 206 10 bytes 0.250 s from node:1 \
             range \"bytes=0-9\" agent \"aria2/1.37.0\" cache \"snapedge; hit\" (broken off)"
        );
    }

    #[test]
    fn nothing_that_a_client_sends_is_a_line_or_a_part_of_its_own() {
        let wild: &[u8] = b"x\" cache \"hit\t\x80\xff\\";
        for name in ["range", "user-agent"] {
            let line = line(b"/", &[(name, wild)], None);
            let shown = r#" "x\" cache \"hit\t\x80\xff\\""#;
            assert!(line.contains(shown), "{line}");
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        }
        for target in ["/a%0A127.0.0.1", "/\u{202e}abc", "/a\u{a0}b?\u{2028}"] {
            let line = line(target.as_bytes(), &[], None);
            assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
            assert_eq!(line.split(' ').nth(3), Some("206"), "{line}");
        }
        let long = "y".repeat(20_000);
        let target = format!("/{long}?{long}");
        let headers: [(&str, &[u8]); 2] =
            [("range", long.as_bytes()), ("user-agent", long.as_bytes())];
        let line = line(target.as_bytes(), &headers, None);
        let most = MAX_PATH + MAX_QUERY + MAX_RANGE + MAX_AGENT + 150;
        assert!(line.len() < most && line.matches("...").count() == 4, "{line}");
    }
}
