//! The access log: one line for each request. Clients choose much of what is in it: each part is
//! cut and escaped, so that nobody writes a line, or a part of one, that is not his own.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value};

use super::error::LogError;
use super::process::{self, ACCESS};
use super::sink::{Output, Sink};
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
        let line = |prefix: &str, suffix: &str| match way.format {
            LogFormat::Text => format!("{prefix}{:.3}{suffix} {entry}\n", now()),
            LogFormat::Json => format!("{}\n", entry.object(now())),
        };
        match (&way.to, &way.file, process::sink()) {
            (AccessTo::Off, ..) | (AccessTo::File(_), None, _) => {}
            (AccessTo::File(_), Some(file), _) => file.write(line("", "")),
            (AccessTo::Stderr, _, Some(stderr)) => stderr.write(line("[", " INFO  access]")),
            // Whoever writes the log there is has his own way with it.
            (AccessTo::Stderr, _, None) => log::info!(target: ACCESS, "{entry}"),
        }
    }
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

    /// The fields as an object, in a line.
    fn object(&self, at: jiff::Timestamp) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        put("time", format!("{at:.3}").into());
        put("request_id", self.id.to_string().into());
        put("client", self.client.to_string().into());
        if let Some(connection) = self.connection.filter(|address| *address != self.client) {
            put("connection", connection.to_string().into());
        }
        put("method", cut(self.method.as_bytes(), MAX_METHOD).into());
        put("path", cut(self.path.as_bytes(), MAX_PATH).into());
        put("route", self.route.into());
        put("status", self.status.into());
        put("bytes", self.bytes.into());
        put("duration", seconds(self.duration).into());
        put("rate", self.rate().into());
        put("end", self.end.into());
        let optional = [
            ("query", self.query.map(|text| cut(text.as_bytes(), MAX_QUERY))),
            ("upstream", self.upstream.map(str::to_owned)),
            ("copy", self.copy.map(|tag| cut(tag, MAX_COPY))),
            ("cache", self.cache.map(|text| cut(text, MAX_CACHE))),
            ("range", self.range.map(|text| cut(text, MAX_RANGE))),
            ("user_agent", self.agent.map(|text| cut(text, MAX_AGENT))),
            ("received_request_id", self.received_id.map(|text| cut(text, MAX_ID))),
            ("limit", self.limit.map(str::to_owned)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                put(name, value.into());
            }
        }
        if let Some(time) = self.first_byte {
            put("first_byte", seconds(time).into());
        }
        Value::Object(fields)
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)?;
        if let Some(connection) = self.connection.filter(|address| *address != self.client) {
            write!(f, " by {connection}")?;
        }
        write!(f, " {} {}", bare(self.method, MAX_METHOD), bare(self.path, MAX_PATH))?;
        if let Some(query) = self.query {
            write!(f, "?{}", bare(query, MAX_QUERY))?;
        }
        let Self { status, bytes, duration, .. } = self;
        write!(f, " {status} {bytes} bytes {:.3} s", duration.as_secs_f64())?;
        if let Some(upstream) = self.upstream {
            write!(f, " from {upstream}")?;
        }
        let quoted = [
            ("range", self.range, MAX_RANGE),
            ("agent", self.agent, MAX_AGENT),
            ("cache", self.cache, MAX_CACHE),
            ("received", self.received_id, MAX_ID),
        ];
        for (name, value, most) in quoted {
            if let Some(value) = value {
                write!(f, " {name} \"{}\"", value_of(value, most))?;
            }
        }
        write!(f, " route {}", self.route)?;
        if let Some(time) = self.first_byte {
            write!(f, " first {:.3} s", time.as_secs_f64())?;
        }
        write!(f, " rate {} B/s", self.rate())?;
        if let Some(copy) = self.copy {
            write!(f, " copy {}", value_of(copy, MAX_COPY))?;
        }
        write!(f, " id {} end {}", self.id, self.end)?;
        if let Some(limit) = self.limit {
            write!(f, " limit {limit}")?;
        }
        f.write_str(self.remark)
    }
}

/// Seconds to the microsecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

/// A part between blanks, which has none of its own.
fn bare(text: &str, most: usize) -> String {
    value_of(text.as_bytes(), most).replace(' ', r"\x20")
}

/// A part between quotes, which has none of its own.
fn value_of(bytes: &[u8], most: usize) -> String {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

/// A part that is escaped again as a text of JSON: only what is not printed is escaped here.
fn cut(bytes: &[u8], most: usize) -> String {
    let shown = bytes.get(..most).unwrap_or(bytes);
    let mut text = String::with_capacity(shown.len());
    for byte in shown {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a text does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
        let object = full.object(jiff::Timestamp::UNIX_EPOCH);
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
        let object = hostile.object(jiff::Timestamp::UNIX_EPOCH);
        assert!(printed(&line) && printed(&object.to_string()), "{line} {object}");
        assert_eq!(object["range"], "x\" cache \"hit\\x09\\x80\\xff\\\\x0a");
        for path in ["/a%0A127.0.0.1 GET", "/\u{202e}abc", "/a\u{a0}b\u{2028}"] {
            let of = entry(path, Some(path));
            let (line, object) = (of.to_string(), of.object(jiff::Timestamp::UNIX_EPOCH));
            assert!(printed(&line) && printed(&object.to_string()), "{line}");
            assert_eq!(line.split(' ').nth(3), Some("206"), "{line}");
        }
        let long = "y".repeat(20_000);
        let of = Entry {
            range: Some(long.as_bytes()),
            agent: Some(long.as_bytes()),
            ..entry(&long, Some(&long))
        };
        let most = MAX_PATH + MAX_QUERY + MAX_RANGE + MAX_AGENT + 400;
        for line in [of.to_string(), of.object(jiff::Timestamp::UNIX_EPOCH).to_string()] {
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
