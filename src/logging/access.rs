//! The access log: one line for each request. Clients choose much of what is in it: each part is
//! cut and escaped, so that nobody writes a line, or a part of one, that is not his own.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::error::LogError;
use super::process::{self, ACCESS};
use super::sink::{Output, Sink, When};
use crate::config::{AccessTo, Log, LogFormat};

/// Most bytes of each part that go into the log, before they are escaped.
const MAX_METHOD: usize = 16;
const MAX_PATH: usize = 200;
const MAX_QUERY: usize = 200;
const MAX_RANGE: usize = 100;
const MAX_AGENT: usize = 150;
const MAX_CACHE: usize = 150;
const MAX_COPY: usize = 100;
const MAX_ID: usize = 64;

/// What is told of one request.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The request's id, as its target and its client were told.
    pub id: &'a dyn fmt::Display,
    /// The client's address.
    pub client: IpAddr,
    /// The address that the connection came from, where the client's was told by whoever that is.
    pub connection: Option<IpAddr>,
    /// The method, as it was sent.
    pub method: &'a str,
    /// The path, as it was sent.
    pub path: &'a str,
    /// The query, as it was sent.
    pub query: Option<&'a str>,
    /// What kind of thing was asked for.
    pub route: &'static str,
    /// Status of the answer; 0 where there was none.
    pub status: u16,
    /// Bytes of the body that went out.
    pub bytes: u64,
    /// Time from the request's head to its end.
    pub duration: Duration,
    /// Time from the request's head to that of the answer.
    pub first_byte: Option<Duration>,
    /// The target that the archive came from.
    pub upstream: Option<&'a str>,
    /// The copy of the archive, by its entity tag.
    pub copy: Option<&'a [u8]>,
    /// What the cache had to do with it, as the answer said.
    pub cache: Option<&'a [u8]>,
    /// The asked range, as it was sent.
    pub range: Option<&'a [u8]>,
    /// The client's program, as it was sent.
    pub agent: Option<&'a [u8]>,
    /// What the client calls the request, such as another edge before this one.
    pub received_id: Option<&'a [u8]>,
    /// How it ended.
    pub end: &'static str,
    /// The bound that it was refused for.
    pub limit: Option<&'static str>,
    /// More about the end, for people: empty, or a blank and words in brackets.
    pub remark: &'static str,
}

/// Where lines go, and how they look. Clones of the `Arc` are the same.
#[derive(Debug)]
pub struct AccessLog {
    way: ArcSwap<Way>,
    /// Lines that no file took.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Way {
    format: LogFormat,
    to: AccessTo,
    /// There where that is a file.
    file: Option<Sink>,
}

/// Another way for lines, opened and not taken yet.
#[derive(Debug)]
pub struct Opened(Way);

impl Way {
    /// A file that is open already is used on.
    fn open(
        settings: &Log,
        before: Option<&Self>,
        dropped: &Arc<AtomicU64>,
    ) -> Result<Self, LogError> {
        let (format, to) = (settings.format, settings.access.clone());
        let open = before.filter(|before| before.to == to).and_then(|before| before.file.clone());
        let file = match (&to, open) {
            (AccessTo::File(path), None) => {
                let failed = |source| LogError::File { path: path.clone(), source };
                Some(Sink::open(Output::File(path.clone()), dropped).map_err(failed)?)
            }
            (_, open) => open,
        };
        Ok(Self { format, to, file })
    }
}

impl AccessLog {
    /// Opens the log that the configuration wants.
    pub fn open(settings: &Log) -> Result<Self, LogError> {
        let dropped = Arc::default();
        let way = ArcSwap::from_pointee(Way::open(settings, None, &dropped)?);
        Ok(Self { way, dropped })
    }

    /// Opens what another configuration wants. Nothing is written there before [`AccessLog::take`].
    pub fn prepare(&self, settings: &Log) -> Result<Opened, LogError> {
        Way::open(settings, Some(&self.way.load()), &self.dropped).map(Opened)
    }

    /// Writes there from now on. What was written before is where it was.
    pub fn take(&self, Opened(way): Opened) {
        self.way.store(Arc::new(way));
        // One that is open already may have been moved away.
        self.reopen();
    }

    /// Opens the file anew, since it was renamed.
    pub fn reopen(&self) {
        if let Some(file) = &self.way.load().file {
            file.reopen();
        }
    }

    /// Writes what waits to be written, for so long at most.
    pub fn flush(&self, patience: Duration) {
        if let Some(file) = &self.way.load().file {
            file.flush(patience);
        }
    }

    /// Lines that were not written, since the disk is too slow or fails.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes one line.
    pub fn write(&self, entry: &Entry<'_>) {
        let way = self.way.load();
        let sink = match (&way.to, &way.file) {
            (AccessTo::Off, _) | (AccessTo::File(_), None) => return,
            (AccessTo::File(_), Some(file)) => Some(file),
            (AccessTo::Stderr, _) => process::sink(),
        };
        let Some(sink) = sink else {
            // Whoever writes the log there is has his own way with it.
            log::info!(target: ACCESS, "{entry}");
            return;
        };
        LINE.with_borrow_mut(|line| {
            line.clear();
            match (way.format, &way.to) {
                (LogFormat::Json, _) => entry.put_object(now(), line),
                (LogFormat::Text, AccessTo::Stderr) => {
                    line.push('[');
                    put_time(now(), line);
                    line.push_str(" INFO  access] ");
                    entry.put_text(line);
                }
                (LogFormat::Text, _) => {
                    put_time(now(), line);
                    line.push(' ');
                    entry.put_text(line);
                }
            }
            line.push('\n');
            sink.write(line, When::Soon);
        });
    }
}

thread_local! {
    /// The line that is made just now; its memory serves for all of them.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The last second that was shown, and how.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

impl Entry<'_> {
    /// Bytes per second over the whole request.
    fn rate(&self) -> u64 {
        let micros = self.duration.as_micros().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// The fields as an object.
    fn put_object(&self, at: jiff::Timestamp, out: &mut String) {
        out.push_str("{\"time\":\"");
        put_time(at, out);
        put(out, format_args!("\",\"request_id\":\"{}\"", self.id));
        put(out, format_args!(",\"client\":\"{}\"", self.client));
        if let Some(connection) = self.connection.filter(|address| *address != self.client) {
            put(out, format_args!(",\"connection\":\"{connection}\""));
        }
        let (method, path) = (self.method.as_bytes(), self.path.as_bytes());
        put_member("method", Some(method), MAX_METHOD, out);
        put_member("path", Some(path), MAX_PATH, out);
        put_member("query", self.query.map(str::as_bytes), MAX_QUERY, out);
        out.push_str(",\"route\":\"");
        out.push_str(self.route);
        out.push_str("\",\"status\":");
        put_number(self.status, out);
        out.push_str(",\"bytes\":");
        put_number(self.bytes, out);
        out.push_str(",\"duration\":");
        put_seconds(self.duration, 6, out);
        if let Some(time) = self.first_byte {
            out.push_str(",\"first_byte\":");
            put_seconds(time, 6, out);
        }
        out.push_str(",\"rate\":");
        put_number(self.rate(), out);
        put_member("end", Some(self.end.as_bytes()), MAX_PATH, out);
        put_member("limit", self.limit.map(str::as_bytes), MAX_PATH, out);
        put_member("upstream", self.upstream.map(str::as_bytes), MAX_PATH, out);
        put_member("copy", self.copy, MAX_COPY, out);
        put_member("cache", self.cache, MAX_CACHE, out);
        put_member("range", self.range, MAX_RANGE, out);
        put_member("user_agent", self.agent, MAX_AGENT, out);
        put_member("received_request_id", self.received_id, MAX_ID, out);
        out.push('}');
    }

    /// The fields as words for people.
    fn put_text(&self, out: &mut String) {
        put(out, format_args!("{}", self.client));
        if let Some(connection) = self.connection.filter(|address| *address != self.client) {
            put(out, format_args!(" by {connection}"));
        }
        out.push(' ');
        put_bare(self.method.as_bytes(), MAX_METHOD, out);
        out.push(' ');
        put_bare(self.path.as_bytes(), MAX_PATH, out);
        if let Some(query) = self.query {
            out.push('?');
            put_bare(query.as_bytes(), MAX_QUERY, out);
        }
        out.push(' ');
        put_number(self.status, out);
        out.push(' ');
        put_number(self.bytes, out);
        out.push_str(" bytes ");
        put_seconds(self.duration, 3, out);
        out.push_str(" s");
        if let Some(upstream) = self.upstream {
            out.push_str(" from ");
            out.push_str(upstream);
        }
        let quoted = [
            (" range \"", self.range, MAX_RANGE),
            (" agent \"", self.agent, MAX_AGENT),
            (" cache \"", self.cache, MAX_CACHE),
            (" received \"", self.received_id, MAX_ID),
        ];
        for (name, value, most) in quoted {
            if let Some(value) = value {
                out.push_str(name);
                put_value(value, most, out);
                out.push('"');
            }
        }
        out.push_str(" route ");
        out.push_str(self.route);
        if let Some(time) = self.first_byte {
            out.push_str(" first ");
            put_seconds(time, 3, out);
            out.push_str(" s");
        }
        out.push_str(" rate ");
        put_number(self.rate(), out);
        out.push_str(" B/s");
        if let Some(copy) = self.copy {
            out.push_str(" copy ");
            put_value(copy, MAX_COPY, out);
        }
        put(out, format_args!(" id {} end {}", self.id, self.end));
        if let Some(limit) = self.limit {
            out.push_str(" limit ");
            out.push_str(limit);
        }
        out.push_str(self.remark);
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.put_text(&mut text);
        f.write_str(&text)
    }
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    let _ = out.write_fmt(text);
}

/// A time as RFC 3339 has it, to the millisecond. What is before that is made once a second.
fn put_time(at: jiff::Timestamp, out: &mut String) {
    let (second, millis) = (at.as_second(), at.subsec_millisecond());
    SECOND.with_borrow_mut(|(shown, text)| {
        if *shown != second {
            *shown = second;
            text.clear();
            put(
                text,
                format_args!("{:.0}", jiff::Timestamp::from_second(second).unwrap_or_default()),
            );
            // Without the `Z` at its end.
            text.truncate(text.len().saturating_sub(1));
        }
        out.push_str(text);
    });
    out.push('.');
    put_decimals(millis.unsigned_abs(), 3, out);
    out.push('Z');
}

/// Seconds with so many decimals, 3 or 6.
fn put_seconds(time: Duration, decimals: usize, out: &mut String) {
    let part = if decimals == 3 { time.subsec_millis() } else { time.subsec_micros() };
    put_number(time.as_secs(), out);
    out.push('.');
    put_decimals(part, decimals, out);
}

/// A number of so many digits, with zeros before it.
fn put_decimals(part: u32, decimals: usize, out: &mut String) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(part);
    (digits.len()..decimals).for_each(|_| out.push('0'));
    out.push_str(digits);
}

fn put_number(number: impl itoa::Integer, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// What of a part is shown, and whether that is less than all of it.
fn shown(bytes: &[u8], most: usize) -> (&[u8], bool) {
    bytes.get(..most).map_or((bytes, false), |shown| (shown, shown.len() < bytes.len()))
}

/// Bytes that need no escape, as a text; most parts of most requests are such.
fn plain(bytes: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'\'');
    bytes.iter().all(is_plain).then(|| std::str::from_utf8(bytes).ok())?
}

/// A part between blanks, which has none of its own.
fn put_bare(bytes: &[u8], most: usize, out: &mut String) {
    let start = out.len();
    put_value(bytes, most, out);
    if out[start..].contains(' ') {
        let escaped = out[start..].replace(' ', r"\x20");
        out.truncate(start);
        out.push_str(&escaped);
    }
}

/// A part between quotes, which has none of its own.
fn put_value(bytes: &[u8], most: usize, out: &mut String) {
    let (shown, is_cut) = shown(bytes, most);
    match plain(shown) {
        Some(text) => out.push_str(text),
        None => put(out, format_args!("{}", shown.escape_ascii())),
    }
    if is_cut {
        out.push_str("...");
    }
}

/// A member of an object, where there is one. What is not printed is escaped, as what JSON escapes.
fn put_member(name: &str, bytes: Option<&[u8]>, most: usize, out: &mut String) {
    let Some(bytes) = bytes else { return };
    let (shown, is_cut) = shown(bytes, most);
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":\"");
    match plain(shown) {
        Some(text) => out.push_str(text),
        None => {
            for byte in shown {
                match byte {
                    b'"' | b'\\' => {
                        out.push('\\');
                        out.push(char::from(*byte));
                    }
                    b' '..=b'~' => out.push(char::from(*byte)),
                    _ => put(out, format_args!("\\\\x{byte:02x}")),
                }
            }
        }
    }
    if is_cut {
        out.push_str("...");
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::net::Ipv4Addr;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// As a reader of the log has it.
    fn object(of: &Entry<'_>) -> Value {
        serde_json::from_str(&json(of)).expect("an object")
    }

    fn json(of: &Entry<'_>) -> String {
        let mut line = String::new();
        of.put_object(jiff::Timestamp::UNIX_EPOCH, &mut line);
        line
    }

    fn entry<'a>(path: &'a str, query: Option<&'a str>) -> Entry<'a> {
        Entry {
            id: &"0123",
            client: CLIENT,
            connection: Some(CLIENT),
            method: "GET",
            path,
            query,
            route: "api",
            status: 206,
            bytes: 10,
            duration: Duration::from_millis(250),
            first_byte: Some(Duration::from_millis(2)),
            upstream: Some("node:1"),
            copy: None,
            cache: None,
            range: None,
            agent: None,
            received_id: None,
            end: "client_slow",
            limit: None,
            remark: " (broken off)",
        }
    }

    #[test]
    fn a_line_tells_what_was_asked_and_what_came_of_it() {
        let bare = Entry { upstream: None, first_byte: None, remark: "", ..entry("/health", None) };
        assert_eq!(
            bare.to_string(),
            "127.0.0.1 GET /health 206 10 bytes 0.250 s route api rate 40 B/s id 0123 \
             end client_slow"
        );
        let full = Entry {
            connection: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            range: Some(b"bytes=0-9"),
            agent: Some(b"aria2/1.37.0"),
            cache: Some(b"snapedge; hit"),
            copy: Some(b"\"abc\""),
            limit: Some("total_rate"),
            ..entry("/v1/snapshots", Some("group=a&slot=1"))
        };
        assert_eq!(
            full.to_string(),
            "127.0.0.1 by 10.0.0.1 GET /v1/snapshots?group=a&slot=1 206 10 bytes 0.250 s from \
             node:1 range \"bytes=0-9\" agent \"aria2/1.37.0\" cache \"snapedge; hit\" route api \
             first 0.002 s rate 40 B/s copy \\\"abc\\\" id 0123 end client_slow limit total_rate \
             (broken off)"
        );
        let object = object(&full);
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "request_id": "0123", "client": "127.0.0.1",
            "connection": "10.0.0.1", "method": "GET", "path": "/v1/snapshots",
            "query": "group=a&slot=1", "route": "api", "status": 206, "bytes": 10,
            "duration": 0.25, "first_byte": 0.002, "rate": 40, "upstream": "node:1",
            "copy": "\"abc\"", "cache": "snapedge; hit", "range": "bytes=0-9",
            "user_agent": "aria2/1.37.0", "end": "client_slow", "limit": "total_rate",
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn nothing_that_a_client_sends_is_a_line_or_a_part_of_its_own() {
        let wild: &[u8] = b"x\" cache \"hit\t\x80\xff\\\n";
        let printed = |line: &str| line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let hostile = Entry { range: Some(wild), agent: Some(wild), ..entry("/", None) };
        let line = hostile.to_string();
        assert_eq!(line.matches(r#" "x\" cache \"hit\t\x80\xff\\\n""#).count(), 2, "{line}");
        let of_json = json(&hostile);
        assert!(printed(&line) && printed(&of_json), "{line} {of_json}");
        assert_eq!(object(&hostile)["range"], "x\" cache \"hit\\x09\\x80\\xff\\\\x0a");
        for path in ["/a%0A127.0.0.1 GET", "/\u{202e}abc", "/a\u{a0}b\u{2028}"] {
            let of = entry(path, Some(path));
            let (line, of_json) = (of.to_string(), json(&of));
            assert!(printed(&line) && printed(&of_json), "{line}");
            assert_eq!(line.split(' ').nth(3), Some("206"), "{line}");
        }
        let long = "y".repeat(20_000);
        let of = Entry {
            range: Some(long.as_bytes()),
            agent: Some(long.as_bytes()),
            ..entry(&long, Some(&long))
        };
        let most = MAX_PATH + MAX_QUERY + MAX_RANGE + MAX_AGENT + 400;
        for line in [of.to_string(), json(&of)] {
            assert!(line.len() < most && line.matches("...").count() == 4, "{line}");
        }
    }

    #[test]
    fn lines_go_where_the_configuration_wants_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let to = |access, format| Log { format, access, ..Log::default() };
        let patience = Duration::from_secs(10);
        let one = to(AccessTo::File(path("one")), LogFormat::Text);
        let log = AccessLog::open(&one).expect("open");
        log.write(&entry("/a", None));
        let nowhere = to(AccessTo::File(path("no/where")), LogFormat::Text);
        let error = log.prepare(&nowhere).expect_err("no such directory").to_string();
        assert!(error.contains("log.access"), "{error}");
        let other = log.prepare(&to(AccessTo::File(path("one")), LogFormat::Json)).expect("open");
        log.take(other);
        log.write(&entry("/b", None));
        log.flush(patience);
        log.take(log.prepare(&to(AccessTo::Off, LogFormat::Json)).expect("nothing to open"));
        log.write(&entry("/c", None));
        let text = std::fs::read_to_string(path("one")).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("Z 127.0.0.1 GET /a 206 "), "{text}");
        let object: Value = serde_json::from_str(lines[1]).expect("an object");
        assert_eq!((&object["path"], log.dropped()), (&Value::from("/b"), 0));
    }
}
