//! Which targets a group has at the moment.
//!
//! One task for each source, so that one that hangs holds up no other. What a source fails to say
//! takes no target away: the last set that made sense stays until there is another.

mod blocks;
mod consul;
mod counts;
mod dns;
mod file;
mod findings;
mod gathering;
mod http;

pub use counts::{DiscoveryCounts, SourceKind};
pub use file::{Form, parse_targets};
pub(super) use findings::{Findings, Found};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consul::ConsulSource;
use dns::DnsSource;
use file::FileSource;
use findings::Seat;
use gathering::Named;
use http::HttpSource;

use super::backoff::delay;
use super::client::{Client, ClientError};
use super::omissions::Told;
use super::reference::chain;
use crate::config::{Group, MAX_TARGETS, Sources};

/// Why a source names no targets.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no list of targets.
    #[error("`{}`: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// What answers cannot be reached, or does not answer as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is no list of targets.
    #[error("the answer is no list of targets: {0}")]
    Answer(String),
    /// The file with the token holds something else.
    #[error("the file with the token has no token, or more than that")]
    Token,
    /// The name has no such records.
    #[error("`{name}` has no `{kind}` records")]
    NoRecords {
        /// The domain name.
        name: String,
        /// The type of records.
        kind: &'static str,
    },
    /// No server says what records the name has.
    #[error("cannot look up the `{kind}` records of `{name}`")]
    Dns {
        /// The domain name.
        name: String,
        /// The type of records.
        kind: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The source says nothing.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The group would have too many targets.
    #[error("more than {MAX_TARGETS} targets in the group, over all its sources")]
    TooMany,
}

/// What all searches have in common.
#[derive(Clone)]
pub(super) struct Conduct {
    /// Time between two looks at a source that does not say itself when to look again.
    pub(super) interval: Duration,
    /// Time that a source has for an answer.
    pub(super) timeout: Duration,
    pub(super) client: Client,
    pub(super) counts: Arc<DiscoveryCounts>,
}

/// What a source says.
struct Answer {
    named: Named,
    /// When to ask again, counted from when it was asked. Never zero.
    again: Duration,
}

enum Source {
    File(FileSource),
    Http(HttpSource),
    Consul(ConsulSource),
    Dns(DnsSource),
}

impl Source {
    /// Every source of a group but the configuration itself.
    fn all(group: &Group, conduct: &Conduct) -> Vec<Self> {
        let (scheme, interval) = (group.scheme, conduct.interval);
        let client = || conduct.client.clone();
        let Sources { file_targets, http_targets, consul, dns_targets, .. } = &group.sources;
        let file = file_targets.iter().map(|path| FileSource::new(path, scheme, interval));
        let http = http_targets.iter().cloned();
        let http = http.map(|url| HttpSource::new(client(), url, scheme, interval));
        let consul = consul.iter();
        let consul = consul.map(|consul| ConsulSource::new(client(), consul, scheme, interval));
        let dns = dns_targets.iter().cloned();
        let dns = dns.map(|targets| DnsSource::new(targets, scheme, conduct.timeout));
        let all = file.map(Self::File).chain(http.map(Self::Http));
        all.chain(consul.map(Self::Consul)).chain(dns.map(Self::Dns)).collect()
    }

    const fn kind(&self) -> SourceKind {
        match self {
            Self::File(_) => SourceKind::File,
            Self::Http(_) => SourceKind::Http,
            Self::Consul(_) => SourceKind::Consul,
            Self::Dns(_) => SourceKind::Dns,
        }
    }

    /// Fails where there is no list, or only the beginning of one, so that half an answer takes no
    /// target away. May be dropped before its end and called again.
    async fn ask(&mut self) -> Result<Answer, DiscoveryError> {
        match self {
            Self::File(file) => file.ask().await,
            Self::Http(http) => http.ask().await,
            Self::Consul(consul) => consul.ask().await,
            Self::Dns(dns) => dns.ask().await,
        }
    }

    /// Time that the next answer may take where there is no reason for more than `timeout`.
    fn patience(&self, timeout: Duration) -> Duration {
        match self {
            Self::File(_) | Self::Http(_) | Self::Dns(_) => timeout,
            Self::Consul(consul) => consul.patience(timeout),
        }
    }

    /// Has the next look see everything anew.
    fn forget(&mut self) {
        if let Self::Consul(consul) = self {
            consul.forget();
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.kind())?;
        match self {
            Self::File(file) => write!(f, "`{}`", file.path().display()),
            Self::Http(http) => write!(f, "`{}`", http.url()),
            Self::Consul(consul) => write!(f, "`{}`", consul.origin()),
            Self::Dns(dns) => write!(f, "`{}`", dns.name()),
        }
    }
}

/// One source of one group, and what follows it.
pub(super) struct Search {
    group: Arc<str>,
    source: Source,
    findings: Findings,
    seat: Seat,
    conduct: Conduct,
    told: Told,
}

impl Search {
    /// The searches of one entry of a group, `member` of them, one for each source that it has.
    pub(super) fn all(
        group: &Group,
        member: usize,
        findings: &Findings,
        conduct: &Conduct,
    ) -> Vec<Self> {
        let search = |source| Self {
            group: Arc::clone(&group.name),
            source,
            findings: findings.clone(),
            seat: findings.seat(member),
            conduct: conduct.clone(),
            told: Told::default(),
        };
        Source::all(group, conduct).into_iter().map(search).collect()
    }

    /// Asks the source again and again; never returns.
    pub(super) async fn keep(mut self) {
        let mut failures = 0_u32;
        loop {
            let begun = Instant::now();
            let pause = match self.look().await {
                Ok(again) => {
                    if failures > 0 {
                        log::info!("group `{}`: {} names targets again", self.group, self.source);
                    }
                    failures = 0;
                    again.saturating_sub(begun.elapsed())
                }
                Err(error) => {
                    self.source.forget();
                    self.conduct.counts.failed(&self.group, self.source.kind());
                    if failures == 0 {
                        let (group, source, error) = (&self.group, &self.source, chain(&error));
                        log::warn!("group `{group}` keeps what {source} named last: {error}");
                    }
                    failures = failures.saturating_add(1);
                    delay(failures).max(self.conduct.interval)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks the source once; tells when to ask again.
    async fn look(&mut self) -> Result<Duration, DiscoveryError> {
        let timeout = self.source.patience(self.conduct.timeout);
        let asked = tokio::time::timeout(timeout, self.source.ask()).await;
        let answer = asked.unwrap_or(Err(DiscoveryError::Silent(timeout)))?;
        let Named { targets, omitted } = answer.named;
        self.conduct.counts.omitted(&self.group, self.source.kind(), omitted.count());
        if let Some(news) = self.told.news(&omitted) {
            log::warn!("group `{}`: of what {} names, {news}", self.group, self.source);
        }
        self.findings.put(self.seat, targets)?;
        Ok(answer.again)
    }
}

/// What a text of targets was read as is what it should be: the targets, or a part of the error.
#[cfg(test)]
#[track_caller]
fn check(text: &str, found: Result<Named, String>, expected: Result<&[&str], &str>) {
    match (found.map(|named| named.targets), expected) {
        (Ok(found), Ok(expected)) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
        (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
    }
}
