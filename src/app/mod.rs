//! The composition root: from a configuration to running services.

mod exposition;
mod files;
mod gather;
mod handover;
mod internal;
mod keys;
mod observer;
mod offers;
mod reload;
mod signals;
mod stop;
mod systemd;
mod upgrade;
mod watchdog;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::{GenBackgroundService, background_service};
use pingora::services::listening::Service;
use pingora_proxy::HttpProxy;
use tokio::sync::{Mutex, Notify, watch};

pub use self::files::Files;
use self::gather::Parts;
use self::handover::Predecessor;
pub use self::internal::Internal;
use self::keys::KeySource;
pub use self::observer::Observer;
use self::reload::ReloadCounts;
pub use self::reload::{ReloadError, Reloader, Taken};
use self::signals::{Listened, Signals};
use self::stop::Stop;
use self::upgrade::{Meeting, Takeover, Upgrade};
use self::watchdog::Watchdog;
use crate::access::{AccessError, Accesses};
use crate::cache::{ArchiveStorage, OpenError, Options, SecretError, Store, StoreSettings};
use crate::clock::Now;
use crate::config::Config;
use crate::configured::{Configured, Live};
use crate::drain::{Drain, Opening};
use crate::error_chain::chain;
use crate::fd_limit;
use crate::fill::FillService;
use crate::listener::{
    BindError, Bound, ConnectionLimit, Endpoints, Inherited, Listener, TlsError,
};
use crate::logging::{AccessLog, LAST_LINES, LogError};
use crate::metrics::RequestCounts;
use crate::on_demand::ProbeCounts;
use crate::proxy::{PublicListener, SnapshotProxy, Traffic, cached_head, piece};
use crate::published::Published;
use crate::scrape::{ClientError, DiscoveryCounts, Plan, Scraper};
use crate::upstream::{Doubts, Trials, UpstreamPool};

/// Most tries of one request that Pingora allows. The number of sources and the rules of `route/`
/// end a request long before; this is the fuse behind them.
const MAX_TRIES: usize = 32;

/// Longest time in seconds that what still runs at the end is waited for: threads that are in the
/// middle of a call.
const STRAGGLERS: u64 = 1;

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is taken or not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The client that probes targets cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The cache's directory cannot be used.
    #[error(transparent)]
    Cache(#[from] OpenError),
    /// There is no secret to make entity tags with.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signal(#[source] std::io::Error),
    /// The targets of a group cannot be reached as the configuration wants it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is nobody to take over from.
    #[error(
        "cannot take over from the process that listens on {address}: start without `-u` where \
         none does"
    )]
    TakeOver {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be spoken to clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Requests cannot be written down.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Two metrics have one name: a fault of this program.
    #[error("the metrics contradict each other")]
    Metrics(#[from] prometheus::Error),
}

/// Every service of one edge, bound and not started. The caller owns what runs them and what stops
/// them: a Pingora server in the program, a runtime in a test.
pub struct Services {
    /// The public listener.
    pub public: Bound<PublicListener>,
    /// Where the process itself is asked, unless that is turned off.
    pub internal: Option<Bound<Internal>>,
    /// What has the configuration replaced.
    pub reloader: Arc<Reloader>,
    /// How many connections the public listener has.
    pub places: Arc<ConnectionLimit>,
    /// What looks at all of it, for those who ask how it is.
    pub observer: GenBackgroundService<Observer>,
    /// What follows the files that the configuration names.
    pub files: GenBackgroundService<Files>,
    /// What keeps the index.
    pub scraper: GenBackgroundService<Scraper>,
    /// What fills the cache, where that is not done by requests, and what takes out of it.
    pub fetcher: Option<GenBackgroundService<FillService>>,
    /// What tries sources that failed.
    pub trials: GenBackgroundService<Trials>,
    /// The index, as requests see it.
    pub published: Arc<Published>,
    /// How targets are reached, and what goes wrong with that.
    pub accesses: Arc<Accesses>,
    /// How the search for targets goes.
    pub discovery: Arc<DiscoveryCounts>,
    /// How often archives were looked for that the index does not know.
    pub probes: Arc<ProbeCounts>,
    /// What is under way, for the end of the process.
    pub drain: Arc<Drain>,
    /// Ends the internal listener before the process does.
    internal_drain: Arc<Drain>,
    /// The archives that the cache has, where there is one.
    pub store: Option<Store>,
}

impl Services {
    /// Builds and binds everything that the configuration asks for, which was read from this file.
    pub fn new(config: &Config, file: Option<&Path>) -> Result<Self, StartError> {
        Self::on(config, file, &mut Inherited::default(), &Opening::new(true))
    }

    /// As [`new`](Self::new), on sockets that are there already, as far as they go.
    fn on(
        config: &Config,
        file: Option<&Path>,
        inherited: &mut Inherited,
        opening: &Arc<Opening>,
    ) -> Result<Self, StartError> {
        let published = Arc::<Published>::default();
        let cache = cache(config, &published, opening.is_open())?;
        let (accesses, keys) = (Arc::new(Accesses::new(config)?), KeySource::new(cache)?);
        let configured = Configured::new(config.clone(), keys.keys(config)?, accesses.edge());
        let live = Arc::new(Live::new(configured));
        let (doubts, counts) = (Doubts::default(), Arc::new(RequestCounts::new()?));
        let traffic = Traffic::new(Arc::clone(&counts), AccessLog::open(&config.log)?);
        let (traffic, store) = (Arc::new(traffic), cache.map(|cache| cache.store().clone()));
        let scraper =
            scraper(Plan::new(config, &accesses.all(), None)?, &published, cache, &doubts);
        let (access, reporter) = (Arc::clone(&accesses), scraper.reporter());
        let upstreams = Arc::new(UpstreamPool::new(&live, access, reporter, doubts, &counts));
        let (carriers, views) = (Arc::clone(&upstreams), Arc::clone(&published));
        let trials = Trials::new(carriers, views, scraper.ledgers());
        let (drain, internal_drain) = (Arc::<Drain>::default(), Arc::<Drain>::default());
        let gates = (&drain, opening);
        let fetcher = cache.map(|cache| fetcher(&live, cache, &published, &upstreams, gates));
        let queue = fetcher.as_ref().map(FillService::queue);
        let (carriers, told) = (Arc::clone(&upstreams), (Arc::clone(&drain), Arc::clone(&traffic)));
        let proxy = SnapshotProxy::new(&live, &scraper, carriers, cache, queue, told);
        let (listener, public) = public(config, &proxy, inherited, gates, counts)?;
        let (discovery, scraper) = (scraper.discovery(), background_service("scraper", scraper));
        let reloader = Arc::new(Reloader {
            file: file.map(Path::to_owned),
            turn: Mutex::default(),
            internal: OnceLock::new(),
            keys,
            live,
            accesses: Arc::clone(&accesses),
            scraper: scraper.task(),
            listener: listener.clone(),
            proxy: proxy.clone(),
            traffic,
            store: store.clone(),
            drain: Arc::clone(&drain),
            counts: ReloadCounts::new(),
        });
        let parts = Parts::new(&reloader, upstreams);
        let observer = background_service("observer", Observer::new(parts));
        let internal =
            internal::bind(config, &observer.task(), inherited, (&internal_drain, opening))?;
        if let Some(address) = internal.iter().flat_map(Bound::addresses).next() {
            // Nobody else sets it.
            let _ = reloader.internal.set(address);
        }
        Ok(Self {
            public,
            internal,
            files: background_service("files", Files(Arc::clone(&reloader))),
            reloader,
            places: listener.places(),
            observer,
            scraper,
            fetcher: fetcher.map(|fetcher| background_service("fetcher", fetcher)),
            trials: background_service("trials", trials),
            published,
            accesses,
            discovery,
            probes: proxy.probes(),
            drain,
            internal_drain,
            store,
        })
    }

    /// The public addresses as bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.public.addresses()
    }

    /// What lets another process take over, and takes over from one.
    fn upgrade(
        &self,
        address: SocketAddr,
        upgraded: Arc<Notify>,
        takeover: Option<Takeover>,
    ) -> Upgrade {
        let internal = self.internal.iter().flat_map(Bound::numbers);
        Upgrade {
            address,
            numbers: self.public.numbers().into_iter().chain(internal).collect(),
            drain: Arc::clone(&self.drain),
            internal: Arc::clone(&self.internal_drain),
            upgraded,
            takeover: Mutex::new(takeover),
        }
    }

    /// Hands the services to a server, with one for the signals.
    fn add_to(self, server: &mut Server, listened: Listened) {
        server.add_service(self.public);
        server.add_service(self.scraper);
        server.add_service(self.trials);
        server.add_service(background_service("watchdog", Watchdog(self.observer.task())));
        server.add_service(self.observer);
        server.add_service(self.files);
        if let Some(fetcher) = self.fetcher {
            server.add_service(fetcher);
        }
        if let Some(internal) = self.internal {
            server.add_service(internal);
        }
        let signals = Signals { reloader: self.reloader, listened: Mutex::new(listened) };
        server.add_service(background_service("signals", signals));
    }
}

/// The public listener, and the service that it is in.
fn public(
    config: &Config,
    proxy: &SnapshotProxy,
    inherited: &mut Inherited,
    (drain, opening): (&Arc<Drain>, &Arc<Opening>),
    counts: Arc<RequestCounts>,
) -> Result<(PublicListener, Bound<PublicListener>), StartError> {
    let mut http = HttpProxy::new(proxy.clone(), Arc::new(server_conf(config)));
    http.handle_init_modules();
    let listener = Listener::new(config, http, counts, Arc::clone(drain));
    let service = Service::new("edge".to_owned(), listener.clone());
    let addresses: Vec<_> = config.listen.iter().map(|listen| listen.address).collect();
    let bound = Bound::new(service, &addresses, inherited, Arc::clone(drain), Arc::clone(opening))?;
    listener.listen_at(Endpoints::new(&config.listen, &bound.addresses(), None)?);
    Ok((listener, bound))
}

/// What fills the cache beside requests.
fn fetcher(
    live: &Arc<Live>,
    cache: &ArchiveStorage,
    published: &Arc<Published>,
    upstreams: &Arc<UpstreamPool>,
    (drain, opening): (&Arc<Drain>, &Arc<Opening>),
) -> FillService {
    let (store, carriers) = (cache.store().clone(), Arc::clone(upstreams));
    let gates = (Arc::clone(drain), Arc::clone(opening));
    FillService::new(live, store, Arc::clone(published), carriers, gates)
}

/// What keeps the index, by this plan.
fn scraper(
    plan: Plan,
    published: &Arc<Published>,
    cache: Option<&'static ArchiveStorage>,
    doubts: &Doubts,
) -> Scraper {
    Scraper::new(
        plan,
        Arc::clone(published),
        cache.map_or_else(nothing, |cache| cache.store().held()),
        cache.map_or_else(nothing, |cache| cache.store().distrusted()),
        doubts.failed(),
    )
}

/// Without a cache nothing is ever held or found not to be sound, and nobody is left to say so.
fn nothing<T: Default>() -> watch::Receiver<T> {
    watch::Sender::default().subscribe()
}

/// How a process begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By itself.
    Alone,
    /// In place of one that runs, and which is left as it is where this one does not come about.
    TakingOver,
}

/// Runs until a signal ends it or another process takes over, by a configuration that was read from
/// this file.
pub fn run(config: &Config, file: &Path, start: Start) -> Result<(), StartError> {
    // Before anything that takes its time: until then they end the process.
    let listened = signals::listen().map_err(StartError::Signal)?;
    reload::warn_of_surprises(config);
    fd_limit::provide(config);
    let mut server = new_server(config);
    let address = first_address(config);
    let (predecessor, mut inherited) = match start {
        Start::Alone => (None, Inherited::of_manager()),
        Start::TakingOver => {
            let asked = Predecessor::ask(address);
            let (one, sockets) =
                asked.map_err(|source| StartError::TakeOver { address, source })?;
            (Some(one), Inherited::of(sockets))
        }
    };
    let opening = Opening::new(predecessor.is_none());
    let services = Services::on(config, Some(file), &mut inherited, &opening)?;
    inherited.complain();
    for address in services.addresses() {
        log::info!("listening on {address}");
    }
    for address in services.internal.iter().flat_map(Bound::addresses) {
        log::info!("listening on {address}, for the operator");
    }
    let (drain, store) = (Arc::clone(&services.drain), services.store.clone());
    let (live, upgraded) = (Arc::clone(&services.reloader.live), Arc::<Notify>::default());
    let places = Arc::clone(&services.places);
    let stop = Stop { drain, store: store.clone(), places, live, upgraded: Arc::clone(&upgraded) };
    let published = Arc::clone(&services.published);
    let takeover = predecessor.map(|predecessor| Takeover { predecessor, opening, published });
    let upgrade = services.upgrade(address, upgraded, takeover);
    server.add_service(background_service("upgrade", upgrade));
    if let Some(store) = store {
        server.add_service(background_service("meeting", Meeting(store)));
    }
    let traffic = Arc::clone(&services.reloader.traffic);
    services.add_to(&mut server, listened);
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
    traffic.log.flush(LAST_LINES);
    Ok(())
}

/// Has the process that runs by a configuration start another one in its place, which is ready when
/// this returns; or says why it is not.
pub fn upgrade(config: &Config) -> Result<(), String> {
    handover::start(first_address(config))
}

/// The address by which the processes of a configuration find each other.
fn first_address(config: &Config) -> SocketAddr {
    config.listen.first().map_or(([0, 0, 0, 0], 0).into(), |listen| listen.address)
}

/// The cache, where the configuration asks for one. Pingora wants it to live as long as the
/// process, and it does.
fn cache(
    config: &Config,
    published: &Arc<Published>,
    alone: bool,
) -> Result<Option<&'static ArchiveStorage>, OpenError> {
    // Where archives are not carried as well: that may change.
    let Some(directory) = &config.cache_dir else { return Ok(None) };
    let (published, wanted) = (Arc::clone(published), Arc::clone(published));
    let options = Options {
        directory: directory.clone(),
        settings: StoreSettings::of(&config.cache),
        appraise: Arc::new(move |name, group| published.load().worth(name, group)),
        successor: Arc::new(move |group| wanted.load().group(group).and_then(|view| view.wanted)),
    };
    let open = if alone { Store::open } else { Store::open_beside };
    let store = match open(&options, Now::read()) {
        Ok(store) => store,
        // It may never be needed.
        Err(error) if config.caches_in().is_none() => {
            log::warn!("there will be no cache: {}", chain(&error));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let storage = ArchiveStorage::new(store, cached_head, piece(&config.limits));
    Ok(Some(Box::leak(Box::new(storage))))
}

/// A server without services.
pub fn new_server(config: &Config) -> Server {
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    server
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.server.threads,
        // What there is to wait for is known here, and waited for before Pingora hears of the end.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(STRAGGLERS),
        max_retries: MAX_TRIES,
        ..ServerConf::default()
    }
}
