//! The header of the PROXY protocol, by which a proxy says whose connection it passes on.

use std::net::IpAddr;

use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as Plain;
use ppp::{v1, v2};
use tokio::io::AsyncReadExt;

/// Longest header: addresses, and what proxies add about TLS.
const LONGEST: usize = 4 << 10;
/// Longest header of version 1.
const LONGEST_TEXT: usize = 107;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announced {
    /// The client; nobody where the proxy speaks for itself, or does not know.
    client: Option<IpAddr>,
    /// Bytes of the header.
    length: usize,
}

/// Why a connection is not understood that has to begin with a header.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadHeader {
    /// The bytes are no header.
    #[error("it does not begin with a header of the PROXY protocol")]
    Malformed,
    /// The header does not end.
    #[error("its header of the PROXY protocol has more than {LONGEST} bytes")]
    Long,
    /// The connection ended before it.
    #[error("it ended before its header of the PROXY protocol")]
    Ended {
        /// Bytes that came by then.
        read: usize,
    },
    /// The connection broke.
    #[error("it broke off")]
    Broken(#[from] std::io::Error),
}

/// Reads the header off a connection. The client, where one is announced; and the rest.
pub(super) async fn read(stream: Stream) -> Result<(Stream, Option<IpAddr>), BadHeader> {
    // Of a listener on the network it always is one.
    let Ok(mut stream) = stream.into_any().downcast::<Plain>() else {
        return Err(BadHeader::Malformed);
    };
    let mut bytes = Vec::with_capacity(LONGEST_TEXT);
    loop {
        let before = bytes.len();
        if before >= LONGEST {
            return Err(BadHeader::Long);
        }
        let mut room = [0; 512];
        let read = stream.read(&mut room).await?;
        if read == 0 {
            return Err(BadHeader::Ended { read: before });
        }
        bytes.extend_from_slice(room.get(..read).unwrap_or_default());
        if let Some(Announced { client, length }) = announced(&bytes)? {
            stream.rewind(bytes.get(length..).unwrap_or_default());
            return Ok((stream, client));
        }
    }
}

/// What the header says with which these bytes begin; nothing where it is not all there yet.
fn announced(bytes: &[u8]) -> Result<Option<Announced>, BadHeader> {
    let is_binary = v2_prefix(bytes);
    if !is_binary {
        return announced_in_text(bytes);
    }
    match v2::Header::try_from(bytes) {
        Ok(header) => {
            let client = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(of)) => Some(of.source_address.into()),
                (v2::Command::Proxy, v2::Addresses::IPv6(of)) => Some(of.source_address.into()),
                // A proxy that looks whether this end is there, and clients on its own machine.
                _ => None,
            };
            Ok(Some(Announced { client: canonical(client), length: header.header.len() }))
        }
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => Ok(None),
        Err(_) => Err(BadHeader::Malformed),
    }
}

fn v2_prefix(bytes: &[u8]) -> bool {
    let prefix = v2::PROTOCOL_PREFIX;
    bytes.starts_with(prefix) || prefix.starts_with(bytes)
}

/// Of version 1, which is a line. It is read once it is whole: half an address is one, too.
fn announced_in_text(bytes: &[u8]) -> Result<Option<Announced>, BadHeader> {
    let begin = v1::PROTOCOL_PREFIX.as_bytes();
    let same = begin.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    if same < begin.len().min(bytes.len()) {
        return Err(BadHeader::Malformed);
    }
    let line = bytes.get(..LONGEST_TEXT).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < LONGEST_TEXT { Ok(None) } else { Err(BadHeader::Malformed) };
    };
    let length = end + 2;
    let line = line.get(..length).unwrap_or_default();
    let header = v1::Header::try_from(line).map_err(|_| BadHeader::Malformed)?;
    let client = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
    };
    Ok(Some(Announced { client: canonical(client), length }))
}

fn canonical(client: Option<IpAddr>) -> Option<IpAddr> {
    client.map(|client| client.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Version 2: command, family and protocol, and what follows the length.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest].concat()
    }

    fn four(more: &[u8]) -> Vec<u8> {
        binary(1, 0x11, &[&[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb], more].concat())
    }

    fn six(source: &str) -> Vec<u8> {
        let source: std::net::Ipv6Addr = source.parse().expect("an address");
        binary(1, 0x21, &[&source.octets()[..], &[0; 16], &[1, 2, 3, 4]].concat())
    }

    /// The header is understood only when all of it is there, wherever it is cut.
    #[track_caller]
    fn check(header: &[u8], client: Option<&str>) {
        for at in 0..header.len() {
            let part = announced(&header[..at]).expect("so far it is one");
            assert_eq!(part, None, "{at} bytes of {header:?}");
        }
        let all = [header, b"\x16\x03\x01\xff GET /"].concat();
        let client = client.map(|client| client.parse().expect("an address"));
        let expected = Announced { client, length: header.len() };
        assert_eq!(announced(&all).expect("one"), Some(expected), "{header:?}");
    }

    #[test]
    fn both_versions_tell_the_client() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 443\r\n", Some("192.0.2.7"));
        check(b"PROXY TCP6 2001:db8::7 ::1 4660 443\r\n", Some("2001:db8::7"));
        check(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 443\r\n", Some("192.0.2.7"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None);
        check(&four(&[]), Some("192.0.2.7"));
        check(&four(&[0x04, 0, 2, 1, 2]), Some("192.0.2.7"));
        check(&four(&[0; 1500]), Some("192.0.2.7"));
        check(&six("2001:db8::7"), Some("2001:db8::7"));
        check(&six("::ffff:192.0.2.7"), Some("192.0.2.7"));
        check(&binary(0, 0, &[]), None);
        // A proxy that looks whether this end is there says nothing of clients.
        check(&binary(0, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0, 1, 0, 2]), None);
        check(&binary(1, 0x31, &[b'/'; 216]), None);
        check(&binary(1, 0, &[]), None);
    }

    #[test]
    fn what_is_no_header_is_found_at_once() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"\r\nGET",
            b"PROXY\r\n",
            b"PROXX",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n",
            long.as_bytes(),
            &binary(2, 0x11, &[0; 12]),
            &binary(1, 0x41, &[0; 12]),
            &binary(1, 0x11, &[0; 11]),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        ] {
            assert!(announced(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind in 0_usize..3) {
            let begin: &[u8] = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][kind];
            let bytes = [begin, &bytes].concat();
            if let Ok(Some(found)) = announced(&bytes) {
                prop_assert!(found.length <= bytes.len());
            }
        }
    }
}
