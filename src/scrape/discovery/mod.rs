//! Which targets a group has at the moment.
//!
//! One task for each source, so that one that hangs holds up no other. What a source fails to say
//! takes no target away: the last set that made sense stays until there is another.

mod answer;
mod blocks;
mod consul;
mod counts;
mod dns;
mod error;
mod file;
mod findings;
mod gathering;
mod http;

pub use counts::{DiscoveryCounts, SourceKind};
pub use error::DiscoveryError;
pub use file::{Form, parse_targets};
pub(super) use findings::{Findings, Seat};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use answer::Answer;
use consul::ConsulSource;
use dns::DnsSource;
use file::FileSource;
use gathering::Named;
use http::HttpSource;

use super::client::Client;
use super::omissions::Told;
use crate::config::{Consul, DnsTargets, PrivateUrl, Scheme, Sources};
use crate::error_chain::chain;
use crate::limit::delay;

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

impl Conduct {
    /// Whether a search would go on as by another one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { interval, timeout, client, .. } = self;
        (*interval, *timeout, client.connect_timeout())
            == (other.interval, other.timeout, other.client.connect_timeout())
    }
}

enum Source {
    File(FileSource),
    Http(HttpSource),
    Consul(ConsulSource),
    Dns(DnsSource),
}

/// A source of targets, as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceConfig {
    File(PathBuf),
    Http(PrivateUrl),
    Consul(Box<Consul>),
    Dns(DnsTargets),
}

impl SourceConfig {
    /// What it is.
    pub(super) const fn kind(&self) -> SourceKind {
        match self {
            Self::File(_) => SourceKind::File,
            Self::Http(_) => SourceKind::Http,
            Self::Consul(_) => SourceKind::Consul,
            Self::Dns(_) => SourceKind::Dns,
        }
    }

    /// Every source of an entry but the configuration itself and local directories.
    pub(super) fn all(sources: &Sources) -> Vec<Self> {
        let Sources { file_targets, http_targets, consul, dns_targets, .. } = sources;
        let file = file_targets.iter().cloned().map(Self::File);
        let http = http_targets.iter().cloned().map(Self::Http);
        let consul = consul.iter().cloned().map(|consul| Self::Consul(Box::new(consul)));
        file.chain(http).chain(consul).chain(dns_targets.iter().cloned().map(Self::Dns)).collect()
    }
}

impl Source {
    fn new(config: &SourceConfig, scheme: Scheme, conduct: &Conduct) -> Self {
        let (client, interval) = (conduct.client.clone(), conduct.interval);
        match config {
            SourceConfig::File(path) => Self::File(FileSource::new(path, scheme, interval)),
            SourceConfig::Http(url) => {
                Self::Http(HttpSource::new(client, url.clone(), scheme, interval))
            }
            SourceConfig::Consul(consul) => {
                Self::Consul(ConsulSource::new(client, consul, scheme, interval))
            }
            SourceConfig::Dns(targets) => {
                Self::Dns(DnsSource::new(targets.clone(), scheme, conduct.timeout))
            }
        }
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
    /// The search in one source of a group, which has this seat.
    pub(super) fn new(
        group: &Arc<str>,
        source: &SourceConfig,
        scheme: Scheme,
        (findings, seat): (&Findings, Seat),
        conduct: &Conduct,
    ) -> Self {
        Self {
            group: Arc::clone(group),
            source: Source::new(source, scheme, conduct),
            findings: findings.clone(),
            seat,
            conduct: conduct.clone(),
            told: Told::default(),
        }
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
                    self.findings.miss(self.seat);
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
