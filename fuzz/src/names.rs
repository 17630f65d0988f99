//! Names, and what lists them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::UNIX_EPOCH;

use serde_json::json;
use snapedge::config::{HostPort, Scheme};
use snapedge::hops::Via;
use snapedge::index::{AccessKey, Listed, Location};
use snapedge::route::{ByteRange, ContentRange, RangeRequest, Selection};
use snapedge::scrape::{Form, parse_listing, parse_targets};
use snapedge::snapshot::{ArchiveName, Kind};

/// Longest text that names an archive: three numbers of 20 digits, a hash of 44, and the words.
const LONGEST_NAME: usize = 160;
/// Most ranges of one request, as `route` has it.
const MAX_RANGES: usize = 64;
/// Largest position in a file, as `route` has it.
const MAX_POSITION: u64 = i64::MAX as u64;
/// Most targets of one list, as the configuration has it.
const MAX_TARGETS: usize = 10_000;
/// Most archives of one listing, of both kinds.
const MAX_LISTED: usize = 10_000;
/// Largest size that is believed.
const MAX_SIZE: u64 = 1 << 50;

/// A text is an archive's name or is not; one that is, is printed as it was written, and names
/// nothing outside of a directory.
pub fn archive_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(name) = text.parse::<ArchiveName>() else { return };
    assert_eq!(name.to_string(), text, "printed as it was");
    assert!(text.len() <= LONGEST_NAME);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)));
    assert!(!text.contains(".."));
    match name.kind() {
        Kind::Full => assert_eq!(name.base_slot(), name.slot()),
        Kind::Incremental { base } => assert!(base == name.base_slot() && base < name.slot()),
    }
    assert_eq!(name.cmp(&name), std::cmp::Ordering::Equal);
    assert_eq!(name.hash().to_string().parse(), Ok(name.hash()));
}

/// What is selected of a body lies within it, in at most as many parts as may be, of which no two
/// share a byte; and a range goes on as it was understood. The first 8 bytes are the body's length.
pub fn ranges(data: &[u8]) {
    let Some((length, text)) = data.split_first_chunk() else { return };
    let total = u64::from_le_bytes(*length).min(MAX_POSITION);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let range = RangeRequest::parse(text);
    let header = range.to_header();
    assert_eq!(header.is_none(), range == RangeRequest::Whole);
    if let Some(header) = header {
        assert_eq!(RangeRequest::parse(&header), range, "understood as before");
    }
    let selection = range.select(total);
    let parts = match &selection {
        Selection::Whole | Selection::Unsatisfiable => &[],
        Selection::Part(part) => std::slice::from_ref(part),
        Selection::Parts(parts) => &parts[..],
    };
    assert_eq!(parts.len() > 1, matches!(selection, Selection::Parts(_)));
    disjoint(parts, total);
    assert!(range.last_start(total) <= total);
    content_range(text);
}

fn disjoint(parts: &[ByteRange], total: u64) {
    assert!(parts.len() <= MAX_RANGES);
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|part| part.start());
    let mut end = 0;
    for part in sorted {
        assert!(end <= part.start() && part.start() < part.end() && part.end() <= total);
        end = part.end();
    }
}

fn content_range(text: &str) {
    let Some(found) = ContentRange::parse(text) else { return };
    assert!(found.range.is_none_or(|range| range.end() <= found.total));
    assert_eq!(ContentRange::parse(&found.to_string()), Some(found));
}

/// A listing is the same in whichever pieces it comes, names each archive once, and what was read
/// of it is read again from what is written of that. The first byte is the length of the pieces.
pub fn listing(data: &[u8]) {
    let Some((length, text)) = super::pieces(data) else { return };
    let whole = parse_listing([text], location);
    let parts = parse_listing(text.chunks(length), location);
    let (Ok(whole), Ok(parts)) = (&whole, &parts) else {
        assert_eq!(error(&whole), error(&parts));
        return;
    };
    assert_eq!(whole, parts);
    let names: BTreeSet<ArchiveName> = whole.iter().map(|listed| listed.name).collect();
    assert_eq!(names.len(), whole.len(), "each once");
    assert!(names.len() <= MAX_LISTED);
    assert!(whole.iter().all(|listed| listed.size.is_none_or(|size| size <= MAX_SIZE)));
    assert!(whole.iter().all(|listed| listed.modified.is_none_or(|time| time >= UNIX_EPOCH)));

    let files = whole.iter().map(
        |listed| json!({ "file_name": listed.name.to_string(), "size": listed.size.unwrap_or(0) }),
    );
    let files: Vec<_> = files.collect();
    let written = json!([{ "files": files }]).to_string();
    let again = parse_listing([written.as_bytes()], location);
    // One element may not hold all that several did.
    let Ok(again) = again else { return assert!(written.len() > 256 << 10) };
    let sizes = |listed: &[Listed]| -> Vec<_> {
        listed.iter().map(|listed| (listed.name, listed.size)).collect()
    };
    assert_eq!(sizes(&again), sizes(whole));
}

fn error<T, E: ToString>(outcome: &Result<T, E>) -> Option<String> {
    outcome.as_ref().err().map(ToString::to_string)
}

fn location(name: &ArchiveName) -> Location {
    Location {
        scheme: "http",
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8899)),
        authority: "127.0.0.1:8899".into(),
        path: format!("/{name}"),
        access: AccessKey::default(),
        via: Via::default(),
    }
}

/// Targets that a file names, in any of its forms, are targets, and those of what is written of
/// them. The first byte chooses form and scheme.
pub fn file_sd(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let form = if choice & 1 == 0 { Form::Lines } else { Form::FileSd };
    let scheme = if choice & 2 == 0 { Scheme::Http } else { Scheme::Https };
    let targets = match parse_targets(form, text, scheme) {
        Ok(targets) => targets,
        Err(error) => return assert!(!error.is_empty()),
    };
    assert!(targets.len() <= MAX_TARGETS);
    let written: Vec<String> = targets.iter().map(ToString::to_string).collect();
    for (target, text) in targets.iter().zip(&written) {
        assert_eq!(HostPort::parse(text, scheme).as_ref(), Ok(target));
        assert!(!text.contains(char::is_whitespace) && !text.contains(char::is_control));
    }
    let blocks = json!([{ "targets": written }]).to_string();
    assert_eq!(parse_targets(Form::FileSd, &blocks, scheme).as_ref(), Ok(&targets));
    assert_eq!(parse_targets(Form::Lines, &written.join("\n"), scheme).as_ref(), Ok(&targets));
}
