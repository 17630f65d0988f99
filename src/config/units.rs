//! Durations, sizes, rates and addresses as people write them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest duration that a setting may have: everything above is a slip of the pen, and sums with
/// a clock's reading must not overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Largest size that a setting may have, so that sums with lengths do not overflow.
const LARGEST: u64 = 1 << 50;

/// Longest name of a host, in bytes as it is looked up: more has no place in the DNS (RFC 1035).
const LONGEST_HOST: usize = 255;

/// Parses `500ms`, `15s`, `1m30s`, `1.5h`: what Go's and Prometheus' configurations contain.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("`{text}` is not a duration, write it like `15s`, `1m30s` or `500ms`");
    if text.starts_with(['-', '+', 'P', 'p']) {
        return Err(expected());
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
    let duration = Duration::try_from(signed).map_err(|_| expected())?;
    if duration > LONGEST {
        return Err(format!("`{text}` is too long, the most is `720h`"));
    }
    Ok(duration)
}

/// Parses `10GiB`, `500MB`, `0B`: a number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    match bytes(text) {
        None => Err(format!("`{text}` is not a size, write it like `10GiB`, `500MB` or `0B`")),
        Some(size) if size > LARGEST => {
            Err(format!("`{text}` is too large, the most is `1024TiB`"))
        }
        Some(size) => Ok(size),
    }
}

/// Parses `100MiB/s`: a number of bytes per second, at least `least`, which is written so too.
pub(super) fn rate(text: &str, least: &str) -> Result<u64, String> {
    let parse = |text: &str| text.strip_suffix("/s").and_then(bytes);
    match parse(text) {
        None => Err(format!("`{text}` is not a rate, write it like `100MiB/s`")),
        Some(rate) if Some(rate) < parse(least) => {
            Err(format!("`{text}` is too slow, the least is `{least}`"))
        }
        Some(rate) if rate > LARGEST => {
            Err(format!("`{text}` is too fast, the most is `1024TiB/s`"))
        }
        Some(rate) => Ok(rate),
    }
}

fn bytes(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !matches!(unit, "B" | "kB" | "KB" | "MB" | "GB" | "TB" | "KiB" | "MiB" | "GiB" | "TiB") {
        return None;
    }
    text.parse().ok().map(|size: bytesize::ByteSize| size.as_u64())
}

/// Parses `address:port` of a listener.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address and port, write it like `0.0.0.0:8458` or `[::]:8458`")
    })
}

/// An upstream as configured or discovered: a host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Parses `host:port`, `1.2.3.4:port`, `[::1]:port`, each with or without `http://` or
    /// `https://`, whichever the scheme is.
    ///
    /// The error names what is missing.
    pub fn parse(text: &str, scheme: Scheme) -> Result<Self, String> {
        // Escaped, since what a file says may end up in a log.
        let escaped = |c: char| match c {
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        };
        Self::read(text, scheme).map_err(|error| error.chars().map(escaped).collect())
    }

    fn read(text: &str, scheme: Scheme) -> Result<Self, String> {
        let bare = match text.split_once("://") {
            None => text,
            Some((prefix, bare)) if prefix == scheme.as_str() => bare,
            Some((prefix, _)) => {
                return Err(format!(
                    "`{text}` contradicts the group's `scheme: {scheme}`, remove `{prefix}://`"
                ));
            }
        };
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let no_port = || format!("`{text}` has no port, write it like `{bare}:8899`");
        let (host, port) = bare.rsplit_once(':').ok_or_else(no_port)?;
        if port.is_empty() || port.ends_with(']') {
            return Err(no_port());
        }
        let port = match port.parse::<u16>() {
            Ok(number) if number > 0 && !port.starts_with('+') => number,
            _ => return Err(format!("`{text}` has a bad port, expected 1 to 65535")),
        };
        let host = url::Host::parse(host)
            .map_err(|_| format!("`{text}` is not a host and port, write it like `10.0.0.1:8899`"))?
            .to_string();
        // Letters outside of ASCII take more there than they do as they are written.
        if host.len() > LONGEST_HOST {
            return Err(format!("`{text}` has a host name of more than {LONGEST_HOST} bytes"));
        }
        // Pingora checks a certificate against such a name with the underscore replaced, which is
        // the name of another host.
        if scheme == Scheme::Https && host.contains('_') {
            return Err(format!(
                "`{text}` has an underscore, which no name in a certificate has; list the target \
                 under another name or by its address"
            ));
        }
        Ok(Self { host, port })
    }

    /// Host name or address, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one and not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(format!("`{text}` is not a scheme, write `http` or `https`")),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("15s", 15_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("0s", 0),
            ("720h", 2_592_000_000),
        ];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "15", "-1s", "+1s", "s", "1x", "PT15S", "721h", "1s1s", "99999999999999h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets() {
        let good = [
            ("10.0.0.1:8899", "10.0.0.1:8899"),
            ("http://10.0.0.1:80", "10.0.0.1:80"),
            ("http://node.example:8899/", "node.example:8899"),
            ("[::1]:8899", "[::1]:8899"),
            ("Node-1.Example:1", "node-1.example:1"),
        ];
        for (text, expected) in good {
            let target = HostPort::parse(text, Scheme::Http).expect(text);
            assert_eq!(target.to_string(), expected);
        }
        let bad = [
            ("10.0.0.1", "has no port"),
            ("[::1]", "has no port"),
            ("node.example:", "has no port"),
            ("node.example:0", "bad port"),
            ("node.example:65536", "bad port"),
            ("node.example:+80", "bad port"),
            ("node\n.example:80", "`node\\n.example:80` is not a host"),
            ("https://node.example:1", "contradicts"),
            ("ftp://node.example:1", "contradicts"),
            (":8899", "not a host"),
            ("node example:1", "not a host"),
            ("node/path:1", "not a host"),
            ("user@node:1", "not a host"),
            ("::1:8899", "not a host"),
        ];
        for (text, reason) in bad {
            let error = HostPort::parse(text, Scheme::Http).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_is_no_longer_than_its_name_in_the_dns() {
        let parse = |host: &str| HostPort::parse(&format!("{host}:8899"), Scheme::Http);
        assert!(parse(&"a.".repeat(127)).is_ok(), "254 bytes");
        assert!(parse(&"x".repeat(LONGEST_HOST)).is_ok());
        let error = parse(&"x".repeat(LONGEST_HOST + 1)).expect_err("a byte more");
        assert!(error.contains("more than 255 bytes"), "{error}");
        // Shorter as it is written.
        let letters = vec!["\u{e9}"; 60].join("a.");
        assert!(letters.len() < LONGEST_HOST);
        assert!(parse(&letters).is_err());
    }
}
