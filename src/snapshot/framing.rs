//! Lengths and codings of bodies, as heads announce them (RFC 9110, sections 8.4 and 8.6). Pure.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};

use super::name::Compression;

/// Length of the body that a head announces: one number, in however many fields and however often
/// it is repeated there. Nothing where numbers contradict each other, or where the body is framed
/// by something else.
pub fn body_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let mut lengths = elements(headers, CONTENT_LENGTH).map(|element| number(element?));
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

/// Whether a body is the file itself. Servers that go by the ends of names call the compression
/// that an archive's name tells of the coding of its body: that label says nothing new. Any other
/// coding would have to be undone, and so would the same one twice.
pub fn is_file_itself(headers: &HeaderMap, compression: Compression) -> bool {
    let own = labels(compression);
    let is = |element: &str, labels: &[&str]| {
        labels.iter().any(|label| element.eq_ignore_ascii_case(label))
    };
    let mut labelled = false;
    elements(headers, CONTENT_ENCODING).all(|element| match element {
        Some("") => true,
        Some(element) if is(element, &["identity"]) => true,
        Some(element) if is(element, own) => !std::mem::replace(&mut labelled, true),
        Some(_) | None => false,
    })
}

/// Under what names a compression goes as a coding: that of the registry, that of before it, and
/// what is made of them for formats that it does not have.
const fn labels(compression: Compression) -> &'static [&'static str] {
    match compression {
        Compression::None => &[],
        Compression::Xz => &["xz", "x-xz"],
        Compression::Gzip => &["gzip", "x-gzip"],
        Compression::Bzip2 => &["bzip2", "x-bzip2"],
        Compression::Lz4 => &["lz4", "x-lz4"],
        Compression::Zstd => &["zstd", "x-zstd"],
    }
}

/// The elements of a list, over all of its fields; `None` for one that is no text.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    headers.get_all(name).into_iter().flat_map(|value| {
        let text = value.to_str().ok();
        let elements =
            text.into_iter().flat_map(|text| text.split(',').map(|one| Some(one.trim())));
        elements.chain(text.is_none().then_some(None))
    })
}

/// Digits and nothing else: a sign is none of a length's.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: &HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_length_that_is_said_twice_is_that_length_and_two_lengths_are_none() {
        for (values, expected) in [
            (&[&b"5"[..]][..], Some(5)),
            (&[b"5, 5"], Some(5)),
            (&[b"5,5,5"], Some(5)),
            (&[b" 5 ,\t5"], Some(5)),
            (&[b"5", b"5"], Some(5)),
            (&[b"5, 5", b"5"], Some(5)),
            (&[b"5", b"05"], Some(5)),
            (&[b"0"], Some(0)),
            (&[b"18446744073709551615"], Some(u64::MAX)),
            (&[], None),
            (&[b""], None),
            (&[b"5, 6"], None),
            (&[b"5", b"6"], None),
            (&[b"5,"], None),
            (&[b",5"], None),
            (&[b"5", b""], None),
            (&[b"5 5"], None),
            (&[b"+5"], None),
            (&[b"-5"], None),
            (&[b"5.0"], None),
            (&[b"0x5"], None),
            (&[b"5, five"], None),
            (&[b"5", b"\xff"], None),
            (&[b"18446744073709551616"], None),
        ] {
            let mut headers = headers(&CONTENT_LENGTH, values);
            assert_eq!(body_length(&headers), expected, "{values:?}");
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            assert_eq!(body_length(&headers), None, "{values:?}");
        }
    }

    #[test]
    fn the_coding_that_the_name_tells_of_is_no_news_and_every_other_one_is() {
        use Compression::{Bzip2, Gzip, Lz4, None as Tar, Xz, Zstd};
        let all: Vec<&[&[u8]]> = vec![&[], &[b"identity"], &[b"Identity, identity"], &[b""]];
        for compression in Compression::ALL {
            for values in &all {
                let headers = headers(&CONTENT_ENCODING, values);
                assert!(is_file_itself(&headers, compression), "{compression:?} {values:?}");
            }
        }
        let own: [(Compression, &[&[u8]]); 6] = [
            (Zstd, &[b"zstd", b"ZSTD", b"x-zstd", b"identity, zstd", b" zstd ", b"zstd,"]),
            (Gzip, &[b"gzip", b"x-gzip", b"X-GZip", b"GZIP", b"gzip, identity"]),
            (Bzip2, &[b"bzip2", b"x-bzip2", b"BZip2"]),
            (Xz, &[b"xz", b"x-xz", b"XZ"]),
            (Lz4, &[b"lz4", b"x-lz4"]),
            (Tar, &[]),
        ];
        for (compression, values) in own {
            for value in values {
                let one = headers(&CONTENT_ENCODING, &[value]);
                assert!(is_file_itself(&one, compression), "{compression:?} {value:?}");
                let twice = headers(&CONTENT_ENCODING, &[value, value]);
                assert!(!is_file_itself(&twice, compression), "{compression:?} {value:?} twice");
                let beside = headers(&CONTENT_ENCODING, &[value, b"br"]);
                assert!(!is_file_itself(&beside, compression), "{compression:?} {value:?}, br");
                for other in Compression::ALL.into_iter().filter(|other| *other != compression) {
                    assert!(!is_file_itself(&one, other), "{other:?} {value:?}");
                }
            }
        }
        for value in
            [&b"br"[..], b"deflate", b"compress", b"gzip, br", b"zstd, zstd", b"zst", b"\xff"]
        {
            for compression in Compression::ALL {
                let headers = headers(&CONTENT_ENCODING, &[value]);
                assert!(!is_file_itself(&headers, compression), "{compression:?} {value:?}");
            }
        }
    }
}
