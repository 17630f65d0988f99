//! Whose request it is, where it came through proxies.
//!
//! A header is believed only of a proxy that is trusted, and only as far as trusted proxies wrote
//! it: the address that counts is the last one, from the end, that is none of theirs. Whatever
//! stands before that may be made up.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

use super::networks::Networks;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What tells the address of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    /// The connection.
    #[default]
    Connection,
    /// `x-forwarded-for`, as most proxies write it.
    ForwardedFor,
    /// `forwarded` (RFC 7239).
    Forwarded,
    /// `cf-connecting-ip`, as Cloudflare writes it.
    ConnectingIp,
}

/// Who is believed what about clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// The proxies that are believed.
    pub trusted: Networks,
    /// Which of their words.
    pub told_by: ClientAddress,
}

impl ClientRules {
    /// Whether what a connection from here says of clients is believed.
    pub fn trust(&self, connection: IpAddr) -> bool {
        self.trusted.contain(connection)
    }

    /// The client of a request that came on a connection from here.
    pub fn client(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trust(connection) {
            return connection.to_canonical();
        }
        let told = match self.told_by {
            ClientAddress::Connection => None,
            ClientAddress::ForwardedFor => {
                self.last_untrusted(values(headers, &FORWARDED_FOR, plain), address)
            }
            ClientAddress::Forwarded => {
                self.last_untrusted(values(headers, &FORWARDED, quoted), forwarded_for)
            }
            ClientAddress::ConnectingIp => {
                let mut all = headers.get_all(&CONNECTING_IP).iter();
                // Two would be one that somebody added.
                let one = all.next().filter(|_| all.next().is_none());
                one.and_then(|value| address(value.to_str().ok()?))
            }
        };
        told.unwrap_or(connection).to_canonical()
    }

    /// Whether a request that came on a connection from here was made by TLS, as a proxy that is
    /// believed says; nothing where none does.
    pub fn is_secure(&self, connection: IpAddr, headers: &HeaderMap) -> Option<bool> {
        if self.told_by == ClientAddress::Connection || !self.trust(connection) {
            return None;
        }
        let last = values(headers, &FORWARDED_PROTO, plain).next_back()?;
        match last {
            "https" => Some(true),
            "http" => Some(false),
            _ => None,
        }
    }

    /// From the end, the first address that is no trusted proxy's, or else the one that is the
    /// farthest. What is no address ends the search: nothing before it can be believed.
    fn last_untrusted<'a>(
        &self,
        hops: impl DoubleEndedIterator<Item = &'a str>,
        address: impl Fn(&'a str) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let mut last = None;
        for hop in hops.rev() {
            let Some(address) = address(hop) else { return last };
            last = Some(address);
            if !self.trust(address) {
                return last;
            }
        }
        last
    }
}

/// The elements of a header that is a list, over all of its lines.
fn values<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    elements: fn(&str) -> Vec<&str>,
) -> impl DoubleEndedIterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    // What is no text is an element that is no address.
    let all: Vec<&str> = lines.flat_map(|value| elements(value.to_str().unwrap_or("?"))).collect();
    // Empty elements mean nothing (RFC 9110, section 5.6.1).
    all.into_iter().map(str::trim).filter(|element| !element.is_empty())
}

fn plain(text: &str) -> Vec<&str> {
    text.split(',').collect()
}

/// The elements of a list whose values may be quoted, where a comma parts none. Of a line with a
/// quote that is not closed nobody can tell what a client wrote and what a proxy: it is one that
/// tells nothing.
fn quoted(text: &str) -> Vec<&str> {
    parts(text, ',').unwrap_or_else(|| vec!["?"])
}

/// What stands between separators outside of quotes; nothing where a quote is not closed.
fn parts(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    });
    let parts = parts.collect();
    (!quoted).then_some(parts)
}

/// An address, with a port or without one.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

/// The address in `for` of an element of `forwarded`: a hidden or unknown one is none, and so is
/// one of two.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = parts(element, ';')?;
    let pairs = pairs.into_iter().filter_map(|pair| pair.split_once('='));
    let mut told = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = told.next().filter(|_| told.next().is_none())?;
    let value = value.trim();
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    address(bare.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn rules(told_by: ClientAddress) -> ClientRules {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|text| Networks::parse(text).expect("one"));
        ClientRules { trusted: Networks::new(trusted), told_by }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a header");
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(name.parse::<HeaderName>().expect("a name"), value);
        }
        headers
    }

    #[track_caller]
    fn check(told_by: ClientAddress, connection: &str, lines: &[&str], expected: &str) {
        let connection = connection.parse().expect("an address");
        let client = rules(told_by).client(connection, &headers(lines));
        assert_eq!(client.to_string(), expected, "{told_by:?} {connection} {lines:?}");
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_is_the_client() {
        let check = |connection: &str, lines: &[&str], expected: &str| {
            check(ClientAddress::ForwardedFor, connection, lines, expected);
        };
        let proxy = "10.0.0.1";
        check(proxy, &["x-forwarded-for: 192.0.2.7"], "192.0.2.7");
        check(proxy, &["x-forwarded-for: 6.6.6.6, 192.0.2.7"], "192.0.2.7");
        check(proxy, &["x-forwarded-for: 6.6.6.6", "x-forwarded-for: 192.0.2.7"], "192.0.2.7");
        check(proxy, &["x-forwarded-for: 192.0.2.7, 10.9.9.9,fd00::1"], "192.0.2.7");
        check(proxy, &["x-forwarded-for: 10.1.1.1, 10.2.2.2"], "10.1.1.1");
        check(proxy, &["x-forwarded-for: 192.0.2.7:4711"], "192.0.2.7");
        check(proxy, &["x-forwarded-for: [2001:db8::7]:4711"], "2001:db8::7");
        check(proxy, &["x-forwarded-for: [2001:db8::7]"], "2001:db8::7");
        check(proxy, &["x-forwarded-for: ::ffff:192.0.2.7"], "192.0.2.7");
        check("::ffff:10.0.0.1", &["x-forwarded-for: 192.0.2.7"], "192.0.2.7");
        check("fd00::9", &["x-forwarded-for: , 192.0.2.7, ,"], "192.0.2.7");
        // What is no address tells nothing, nor does what stands before it.
        check(proxy, &["x-forwarded-for: unknown"], proxy);
        check(proxy, &["x-forwarded-for: 6.6.6.6, unknown"], proxy);
        check(proxy, &["x-forwarded-for: 6.6.6.6, x, 10.3.3.3"], "10.3.3.3");
        check(proxy, &["x-forwarded-for: 6.6.6.6, \u{e4}"], proxy);
        check(proxy, &["x-forwarded-for: "], proxy);
        check(proxy, &[], proxy);
        // Who is not trusted is believed nothing, and no other header is.
        check("192.0.2.1", &["x-forwarded-for: 6.6.6.6"], "192.0.2.1");
        check("11.0.0.1", &["x-forwarded-for: 10.0.0.1"], "11.0.0.1");
        check(proxy, &["forwarded: for=6.6.6.6", "cf-connecting-ip: 6.6.6.6"], proxy);
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        let check = |lines: &[&str], expected: &str| {
            check(ClientAddress::Forwarded, "10.0.0.1", lines, expected);
        };
        check(&["forwarded: for=192.0.2.7"], "192.0.2.7");
        check(&["forwarded: For=\"192.0.2.7:4711\";proto=http;by=203.0.113.1"], "192.0.2.7");
        check(&["forwarded: proto=https; for=\"[2001:db8::7]:1\""], "2001:db8::7");
        check(&["forwarded: for=6.6.6.6, for=192.0.2.7, for=10.0.0.2"], "192.0.2.7");
        check(&["forwarded: for=192.0.2.7;host=\"a, for=6.6.6.6\""], "192.0.2.7");
        check(&["forwarded: for=6.6.6.6, for=_hidden"], "10.0.0.1");
        check(&["forwarded: for=6.6.6.6, for=unknown, for=10.0.0.2"], "10.0.0.2");
        check(&["forwarded: by=6.6.6.6"], "10.0.0.1");
        check(&["x-forwarded-for: 6.6.6.6"], "10.0.0.1");
        // What a proxy writes of the host is the client's word as well, and may stand first.
        check(&["forwarded: host=\"x;for=6.6.6.6;y\";for=192.0.2.7"], "192.0.2.7");
        check(&["forwarded: host=x;for=6.6.6.6;for=192.0.2.7"], "10.0.0.1");
        check(&["forwarded: for=\"6.6.6.6, for=192.0.2.7"], "10.0.0.1");
        check(&["forwarded: for=\"6.6.6.6\\, for=\"[2001:db8::7]\""], "10.0.0.1");
        check(&["forwarded: \", for=192.0.2.7;host=\"a,for=6.6.6.6\""], "10.0.0.1");
    }

    #[test]
    fn cloudflare_tells_one_address() {
        let check = |connection: &str, lines: &[&str], expected: &str| {
            check(ClientAddress::ConnectingIp, connection, lines, expected);
        };
        check("10.0.0.1", &["cf-connecting-ip: 192.0.2.7"], "192.0.2.7");
        check("10.0.0.1", &["cf-connecting-ip: 2001:db8::7"], "2001:db8::7");
        check("10.0.0.1", &["cf-connecting-ip: 1.1.1.1", "cf-connecting-ip: 2.2.2.2"], "10.0.0.1");
        check("10.0.0.1", &["cf-connecting-ip: 1.1.1.1, 2.2.2.2"], "10.0.0.1");
        check("192.0.2.1", &["cf-connecting-ip: 6.6.6.6"], "192.0.2.1");
    }

    #[test]
    fn headers_count_for_nothing_where_the_connection_tells() {
        let lines = ["x-forwarded-for: 6.6.6.6", "forwarded: for=6.6.6.6"];
        check(ClientAddress::Connection, "10.0.0.1", &lines, "10.0.0.1");
    }

    #[test]
    fn a_proxy_that_is_trusted_tells_whether_tls_was_spoken() {
        let rules = rules(ClientAddress::ForwardedFor);
        let of = |connection: &str, lines: &[&str]| {
            rules.is_secure(connection.parse().expect("an address"), &headers(lines))
        };
        assert_eq!(of("10.0.0.1", &["x-forwarded-proto: https"]), Some(true));
        assert_eq!(of("10.0.0.1", &["x-forwarded-proto: https, http"]), Some(false));
        assert_eq!(of("10.0.0.1", &["x-forwarded-proto: gopher"]), None);
        assert_eq!(of("10.0.0.1", &[]), None);
        assert_eq!(of("192.0.2.1", &["x-forwarded-proto: https"]), None);
    }

    proptest! {
        /// Whatever comes before what a trusted proxy added.
        #[test]
        fn nobody_hides_behind_a_forged_header(forged in "[ -~]{0,60}") {
            let connection = "10.0.0.1".parse().expect("an address");
            for (told_by, name, added, expected) in [
                (ClientAddress::ForwardedFor, "x-forwarded-for", "192.0.2.7", "192.0.2.7"),
                (ClientAddress::Forwarded, "forwarded", "for=192.0.2.7", "192.0.2.7"),
                (ClientAddress::Forwarded, "forwarded", "for=\"[2001:db8::7]\"", "2001:db8::7"),
            ] {
                let line = format!("{name}: {forged}, {added}");
                let client = rules(told_by).client(connection, &headers(&[&line])).to_string();
                // Of a line that nobody can tell apart the proxy counts, which wrote it.
                prop_assert!(client == expected || client == "10.0.0.1", "{} of {}", client, line);
                let plain = !forged.contains(['"', '\\']);
                prop_assert!(!plain || client == expected, "{} of {}", client, line);
            }
        }
    }
}
