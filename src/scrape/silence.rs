//! Diagnosis of targets without archives, for the log: what was asked, what came, and what to
//! change. Pure.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::client::ClientError;
use super::probe_error::ProbeError;
use crate::access::Fault;

/// The end of the path under which a sidecar lists its archives. Nodes know no such path.
const LISTING: &str = "/v1/snapshots";
/// Most answers of one probe that are told: the listing and both short forms.
const MAX_TOLD: usize = 3;
/// Most characters of a path or media type that are told: targets choose them.
const MAX_SHOWN: usize = 100;

/// The body of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// A list without archives.
    Empty,
    /// Something else.
    None,
}

/// The last answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    asked: String,
    /// Where redirects led, if they led anywhere.
    led_to: Option<String>,
    status: StatusCode,
    media: String,
    listing: Option<Listing>,
}

/// The answers of one probe.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Vec<Answer>);

impl Answers {
    /// Notes an answer: what was asked, where that led, and the head that came from there.
    pub(super) fn note(&mut self, asked: &str, at: &str, status: StatusCode, headers: &HeaderMap) {
        let led_to = (at != asked).then(|| shown(at.as_bytes()));
        let (asked, media) = (shown(asked.as_bytes()), media(headers));
        self.0.retain(|answer| answer.asked != asked);
        if self.0.len() < MAX_TOLD {
            self.0.push(Answer { asked, led_to, status, media, listing: None });
        }
    }

    /// Notes what the body of the last answer was.
    pub(super) fn listing(&mut self, listing: Listing) {
        if let Some(answer) = self.0.last_mut() {
            answer.listing = Some(listing);
        }
    }

    /// What was asked, what came, and what to change, in one line; the same while that is the same.
    pub(super) fn tell(&self) -> String {
        let mut told: Vec<&Answer> = self.0.iter().collect();
        // Two questions are asked beside each other, and either may be answered first.
        told.sort_by(|one, other| other.asked.cmp(&one.asked));
        let told: Vec<String> = told.into_iter().map(ToString::to_string).collect();
        format!("{}; {}", told.join(", "), self.advice())
    }

    fn advice(&self) -> &'static str {
        let any = |is: fn(&Answer) -> bool| self.0.iter().any(is);
        let is_ok = |answer: &Answer| answer.status == StatusCode::OK;
        if any(|answer| answer.listing == Some(Listing::Empty)) {
            "let the sidecar look at the directories that the node writes its archives to; where \
             this is no sidecar, set the port and `api_path` to those of one, or of a node"
        } else if any(|answer| matches!(answer.status.as_u16(), 401 | 403 | 407)) {
            "where it wants credentials, set `basic_auth` or `bearer_auth`; where it is no node \
             and no sidecar, set the port and `api_path` to those of one"
        } else if any(|answer| answer.status == 200 && answer.media.contains("html")) {
            "these are web pages, as of a file server: set the port and `api_path` to those of a \
             node or sidecar"
        } else if any(|answer| answer.listing == Some(Listing::None)) {
            "this is another service: set the port and `api_path` to those of a node or sidecar"
        } else if self.0.iter().any(is_ok) {
            "bytes under a short name do not tell which archive they are: a node redirects to the \
             archive's own name, a file server does not, and has to have a sidecar beside it"
        } else if any(|answer| answer.status.is_server_error()) {
            "it is not well or has no archive yet: its own log says which"
        } else if any(|answer| answer.status == 405 && !answer.asked.ends_with(LISTING)) {
            "there is no such path: set the port and `api_path` to those of a node or sidecar"
        } else {
            "a node that has no archive yet says no more; where it has some, set the port and \
             `api_path` to those of the node or of a sidecar: a file server is neither"
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.asked)?;
        if let Some(to) = &self.led_to {
            write!(f, "led to `{to}`, which ")?;
        }
        write!(f, "answered {}", self.status.as_u16())?;
        match self.listing {
            Some(Listing::Empty) => f.write_str(" with a list without archives"),
            Some(Listing::None) if self.media.is_empty() => {
                f.write_str(" with what is no list of snapshots")
            }
            Some(Listing::None) => {
                write!(f, " with `{}` that is no list of snapshots", self.media)
            }
            None if self.status == StatusCode::OK && !self.media.is_empty() => {
                write!(f, " with `{}`", self.media)
            }
            None => Ok(()),
        }
    }
}

/// Advice for the operator where a probe failed, as far as its own words give none.
pub(super) fn advice(error: &ProbeError) -> Option<&'static str> {
    let place = "set the port, `api_path` and `kind` to those of a node or sidecar";
    match error {
        ProbeError::Client(error) => client_advice(error),
        ProbeError::Status { status: 429, .. } => {
            Some("it wants fewer questions, raise `scrape_interval`")
        }
        ProbeError::Status { status: 500.., .. } => Some("it is not well, its own log says why"),
        ProbeError::Addresses { source, .. } => advice(source),
        ProbeError::Status { .. }
        | ProbeError::Listing { .. }
        | ProbeError::BadLocation { .. }
        | ProbeError::Loop { .. } => Some(place),
        // With words of their own.
        ProbeError::Denied { .. }
        | ProbeError::Detour(_)
        | ProbeError::Elsewhere { .. }
        | ProbeError::OtherScheme { .. } => None,
    }
}

fn client_advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Resolve { .. } => Some("set it to a name that this machine can resolve"),
        ClientError::Request { .. } if error.fault().is_some() => None,
        ClientError::Request { source, .. } if source.is_connect() => {
            Some("see that it runs, and that this machine may connect to that port")
        }
        ClientError::Request { .. } | ClientError::Body(_) => {
            Some("see that the port and the group's `scheme` are those of its HTTP")
        }
        ClientError::TooLarge(_) => {
            Some("set the port and `api_path` to those of a node or sidecar")
        }
        // With words of their own, or of no probe.
        _ => None,
    }
}

/// A word for those who count, of a closed set.
pub(super) fn cause(error: &ProbeError) -> &'static str {
    match error {
        _ if matches!(error.fault(), Some(Fault::Credentials)) => "credentials",
        _ if error.fault().is_some() => "tls",
        ProbeError::Client(ClientError::Request { source, .. }) if source.is_connect() => "connect",
        ProbeError::Client(ClientError::Resolve { .. }) => "resolve",
        ProbeError::Client(ClientError::Request { .. } | ClientError::Body(_)) => "broken",
        ProbeError::Client(_) => "other",
        ProbeError::Status { .. } | ProbeError::Denied { .. } => "status",
        ProbeError::Addresses { source, .. } => cause(source),
        ProbeError::Elsewhere { .. }
        | ProbeError::OtherScheme { .. }
        | ProbeError::BadLocation { .. }
        | ProbeError::Loop { .. } => "redirect",
        ProbeError::Listing { .. } => "listing",
        ProbeError::Detour(_) => "loop",
    }
}

/// How much a failure says about what is wrong: least where nothing answered.
pub(super) fn significance(error: &ProbeError) -> u8 {
    match error {
        _ if error.fault().is_some() => 2,
        ProbeError::Client(_) => 0,
        _ => 1,
    }
}

/// A short name for what is wrong, which is the same as long as that is: without what differs each
/// time, such as which of two questions failed first.
pub(super) fn reason(error: &ProbeError) -> String {
    if let Some(fault) = error.fault() {
        return format!("{fault:?}");
    }
    match error {
        ProbeError::Client(ClientError::Request { source, .. }) if source.is_connect() => {
            "connect".to_owned()
        }
        ProbeError::Client(ClientError::Request { .. } | ClientError::Body(_)) => {
            "broken".to_owned()
        }
        ProbeError::Client(ClientError::Resolve { .. }) => "resolve".to_owned(),
        ProbeError::Client(other) => other.to_string(),
        ProbeError::Status { status, .. } | ProbeError::Denied { status, .. } => {
            format!("status {status}")
        }
        ProbeError::Addresses { source, .. } => reason(source),
        ProbeError::Elsewhere { to, .. } | ProbeError::OtherScheme { to, .. } => {
            format!("leads to {to}")
        }
        ProbeError::BadLocation { .. } => "leads nowhere".to_owned(),
        ProbeError::Loop { .. } => "leads round".to_owned(),
        ProbeError::Listing { .. } => "no listing".to_owned(),
        ProbeError::Detour(detour) => detour.to_string(),
    }
}

/// The media type of a body, as its head has it; empty where it has none.
pub(super) fn media(headers: &HeaderMap) -> String {
    let media = headers.get(CONTENT_TYPE).map_or(&b""[..], |media| media.as_bytes());
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    shown(media).to_ascii_lowercase()
}

/// Words of a target, bounded and without anything that a terminal or a reader of logs could take
/// for something else.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(MAX_SHOWN).copied().collect::<Vec<u8>>().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "/snapshot.tar.bz2";
    const INCREMENTAL: &str = "/incremental-snapshot.tar.bz2";

    /// What is told of answers with these statuses and media types.
    fn told(listing: (u16, &str, Option<Listing>), forms: Option<(u16, &str)>) -> String {
        let mut answers = Answers::default();
        let note = |answers: &mut Answers, path: &str, status: u16, media: &str| {
            let mut headers = HeaderMap::new();
            if !media.is_empty() {
                headers.insert(CONTENT_TYPE, media.parse().expect("valid"));
            }
            answers.note(path, path, StatusCode::from_u16(status).expect("valid"), &headers);
        };
        note(&mut answers, LISTING, listing.0, listing.1);
        if let Some(listing) = listing.2 {
            answers.listing(listing);
        }
        for path in [INCREMENTAL, FULL] {
            if let Some((status, media)) = forms {
                note(&mut answers, path, status, media);
            }
        }
        answers.tell()
    }

    #[test]
    fn each_kind_of_wrong_target_is_told_what_came_and_what_to_change() {
        let none = Some(Listing::None);
        for (listing, forms, came, advice) in [
            (
                (404, "text/html", None),
                Some((404, "text/html")),
                "`/v1/snapshots` answered 404, `/snapshot.tar.bz2` answered 404, \
                 `/incremental-snapshot.tar.bz2` answered 404; ",
                "set the port and `api_path`",
            ),
            (
                (200, "application/json", Some(Listing::Empty)),
                None,
                "`/v1/snapshots` answered 200 with a list without archives; ",
                "let the sidecar look at the directories",
            ),
            (
                (200, "text/html; charset=utf-8", none),
                Some((200, "text/html")),
                "`/v1/snapshots` answered 200 with `text/html` that is no list of snapshots, \
                 `/snapshot.tar.bz2` answered 200 with `text/html`",
                "these are web pages",
            ),
            (
                (200, "application/json", none),
                Some((404, "application/json")),
                "`/v1/snapshots` answered 200 with `application/json` that is no list of snapshots",
                "this is another service",
            ),
            ((200, "", none), Some((404, "text/plain")), "with what is no list", "another service"),
            (
                (404, "text/plain", None),
                Some((200, "application/octet-stream")),
                "`/snapshot.tar.bz2` answered 200 with `application/octet-stream`",
                "has to have a sidecar beside it",
            ),
            (
                (405, "text/plain", None),
                Some((404, "text/plain")),
                "`/v1/snapshots` answered 405, `/snapshot.tar.bz2` answered 404",
                "a node that has no archive yet",
            ),
            ((405, "", None), Some((405, "text/plain")), "answered 405", "there is no such path"),
            ((404, "", None), Some((403, "text/plain")), "answered 403", "`bearer_auth`"),
            ((500, "", None), Some((500, "text/plain")), "answered 500", "its own log"),
        ] {
            let told = told(listing, forms);
            assert!(told.contains(came), "{told}");
            assert!(told.contains(advice), "{told}");
        }
    }

    #[test]
    fn what_is_told_is_the_same_whichever_came_first_and_is_bounded() {
        let (mut one, mut other) = (Answers::default(), Answers::default());
        let (ok, headers) = (StatusCode::OK, HeaderMap::new());
        for (answers, paths) in [(&mut one, [FULL, INCREMENTAL]), (&mut other, [INCREMENTAL, FULL])]
        {
            for path in paths {
                answers.note(path, "/over/there", StatusCode::FOUND, &headers);
                answers.note(path, "/over/there", ok, &headers);
            }
        }
        assert_eq!(one.tell(), other.tell());
        assert!(one.tell().starts_with("`/snapshot.tar.bz2` led to `/over/there`, which answered"));
        let mut wild = Answers::default();
        for at in 0..100 {
            let path = format!("/{at}\n\u{1b}[31mWARN {}", "x".repeat(1000));
            wild.note(&path, &path, ok, &headers);
        }
        let told = wild.tell();
        assert!(told.len() < 1000 && !told.chars().any(char::is_control), "{told}");
        assert!(told.contains(r"\n\x1b[31mWARN"), "{told}");
    }
}
