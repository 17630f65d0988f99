//! A world for tests: archives on targets that nobody probes, with a cache or without one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tempfile::TempDir;
use tokio::sync::watch;

use super::admission::Permit;
use super::archives::{Answer, Archives};
use super::cache_phases::cached_head;
use crate::access::Accesses;
use crate::cache::{ArchiveStorage, Options, Retention, Store, StoreSettings};
use crate::clock::Now;
use crate::config::{self, Config, Verify};
use crate::configured::{Configured, Live};
use crate::hops::{CdnLoop, EdgeId, Via};
use crate::index::{
    AccessKey, Catalog, Event, Listed, Location, Policy, Publish, Source, TargetId, View, Worth,
};
use crate::ledger::Ledgers;
use crate::metrics::RequestCounts;
use crate::published::{Published, Reporter};
use crate::route::plan::ArchiveRequest;
use crate::route::{Asked, ChoiceKey, Failure, Keys, TEST_KEY};
use crate::scrape::{Plan, Scraper};
use crate::snapshot::ArchiveName;
use crate::upstream::{Doubts, UpstreamPool};

/// Bytes of each archive.
pub(super) const SIZE: u64 = 1000;

pub(super) struct Scene {
    pub(super) archives: Archives,
    pub(super) directory: TempDir,
    live: Arc<Live>,
    catalog: Catalog,
    ledgers: Arc<Ledgers>,
    _events: tokio::sync::mpsc::Receiver<Event>,
}

/// Longer than a file has to be left alone before it is offered.
const LONG: Duration = Duration::from_secs(3600);

/// What a cache of a scene is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Off,
    Exclusive,
}

pub(super) fn name() -> ArchiveName {
    format!("snapshot-1000-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
}

/// A target on the network.
pub(super) fn node(number: u8) -> TargetId {
    TargetId { group: "g".into(), authority: format!("10.0.0.{number}:8899").into() }
}

fn listed(target: &TargetId, size: u64) -> Listed {
    let location = (!target.is_ledger()).then(|| Location {
        scheme: "http",
        address: target.authority.parse().expect("an address"),
        authority: Arc::clone(&target.authority),
        path: format!("/{}", name()),
        access: AccessKey::default(),
        via: Via::straight(),
    });
    Listed { name: name(), size: Some(size), modified: None, tag: None, location }
}

pub(super) fn source(number: u8) -> Arc<Source> {
    let target = node(number);
    let listed = listed(&target, SIZE);
    Arc::new(Source { target, listed, updated_at: UNIX_EPOCH })
}

pub(super) fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, number).into()
}

/// A request of a client: the method and headers, as `range: bytes=5-`.
pub(super) fn request(from: u8, method: &str, headers: &[&str]) -> ArchiveRequest {
    let mut head = HeaderMap::new();
    for line in headers {
        let (name, value) = line.split_once(": ").expect("a header");
        let value = HeaderValue::from_str(value).expect("a value");
        head.append(name.parse::<HeaderName>().expect("a name"), value);
    }
    let asked = Asked::of(&method.parse().expect("a method"), &head, TEST_KEY);
    let came = Arc::<CdnLoop>::default();
    ArchiveRequest { name: name(), client: client(from), asked, came, group: None }
}

impl Scene {
    /// With further keys of the configuration, a line each.
    pub(super) fn new(extra: &str, cached: Cached) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger");
        std::fs::create_dir(&path).expect("a directory");
        let ledgers = format!("ledger_targets: {{paths: ['{}']}}", path.display());
        Self::build(extra, &ledgers, cached, directory)
    }

    /// One whose archives are not carried.
    pub(super) fn redirecting(extra: &str) -> Self {
        let extra = format!("{extra}\nproxy_snapshot_downloads: false");
        Self::build(&extra, "", Cached::Off, tempfile::tempdir().expect("a directory"))
    }

    fn build(extra: &str, ledgers: &str, cached: Cached, directory: TempDir) -> Self {
        let text = format!(
            "listen: ['127.0.0.1:0']\n{extra}\ntarget_groups:\n  - {{group: g, \
             static_targets: {{targets: ['10.0.0.1:8899']}}, {ledgers}}}\n"
        );
        let mut config = config::parse(&text).expect("a configuration");
        config.cache.verify = Verify::Length;
        let (accesses, published) = (Accesses::new(&config), Arc::<Published>::default());
        let accesses = Arc::new(accesses.expect("no files"));
        let live = Arc::new(Live::new(configured_by(config.clone())));
        let scraper = Scraper::new(
            Plan::new(&config, &accesses.all(), None).expect("clients"),
            Arc::clone(&published),
            watch::channel(Arc::default()).1,
            watch::channel(Arc::default()).1,
            watch::channel(Arc::default()).1,
        );
        let (events, inbox) = tokio::sync::mpsc::channel(16);
        let reporter = Reporter::new(events);
        let pool = UpstreamPool::new(&live, accesses, reporter, Doubts::default(), &counts());
        let cache = (cached == Cached::Exclusive).then(|| storage(&directory.path().join("cache")));
        let archives = Archives::new(&live, &scraper, Arc::new(pool), cache, None, counts());
        let (catalog, ledgers) = (Catalog::default(), scraper.ledgers());
        Self { archives, live, directory, catalog, ledgers, _events: inbox }
    }

    /// The local directory as a target.
    pub(super) fn ledger(&self) -> TargetId {
        let path = self.directory.path().join("ledger");
        TargetId::ledger("g".into(), path.to_str().expect("plain text"))
    }

    /// Puts an archive into the local directory, which lists it.
    pub(super) fn write(&mut self, bytes: u64) {
        let path = self.directory.path().join("ledger").join(name().to_string());
        let bytes = vec![7; usize::try_from(bytes).expect("small")];
        std::fs::write(path, bytes).expect("written");
        let target = self.ledger();
        let ledger = self.ledgers.of(&target).expect("its directory");
        // As it is found twice, without a change in between.
        for since in [Instant::now(), Instant::now() + LONG] {
            ledger.vet(ledger.list().expect("a directory"), since);
        }
        self.lists(&target, SIZE);
    }

    /// A target lists the archive, with so many bytes.
    pub(super) fn lists(&mut self, target: &TargetId, size: u64) {
        let at = Now::read();
        let archives = vec![listed(target, size)];
        self.catalog.apply(Event::Answered { target: target.clone(), at, archives });
        let pair_hold = self.live.load().config.pair_hold;
        let policy = Policy { probe_failures: 3, pair_hold, publish: Publish::Seen };
        let groups = ["g".into()];
        let view = self.catalog.view(&View::default(), &groups, policy, Instant::now());
        self.archives.published.store(view);
    }

    pub(super) async fn ask(&self, request: &ArchiveRequest) -> Result<Answer, Failure> {
        self.archives.resolve(&self.live.load_full(), request, &mut None).await
    }

    /// What is answered, with what it gets a permit by.
    pub(super) async fn ask_for_permit(
        &self,
        request: &ArchiveRequest,
    ) -> (Result<Answer, Failure>, Option<Permit>) {
        let mut permit = None;
        let answer = self.archives.resolve(&self.live.load_full(), request, &mut permit).await;
        (answer, permit)
    }
}

fn configured_by(config: Config) -> Configured {
    let keys = Keys { tags: TEST_KEY, choice: ChoiceKey::known() };
    Configured::new(config, keys, EdgeId::of_bits(1))
}

fn counts() -> Arc<RequestCounts> {
    Arc::new(RequestCounts::new().expect("good definitions"))
}

/// What most of a request's parts need none of.
pub(super) fn configured() -> Arc<Configured> {
    let text = "target_groups: [{group: g, static_targets: {targets: ['10.0.0.1:8899']}}]";
    Arc::new(configured_by(config::parse(text).expect("a configuration")))
}

fn storage(directory: &Path) -> &'static ArchiveStorage {
    let options = Options {
        directory: directory.to_owned(),
        settings: StoreSettings {
            min_free_space: 0,
            max_size: None,
            retention: Retention::UntilRefresh,
            verify: Verify::Length,
        },
        appraise: Arc::new(|_, _| Worth::Best),
        successor: Arc::new(|_| None),
    };
    let store = Store::open(&options, Now::read()).expect("a store");
    Box::leak(Box::new(ArchiveStorage::new(store, cached_head, 1 << 16)))
}
