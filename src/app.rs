//! The composition root: from a configuration to running services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::configuration::ServerConf;
use pingora::server::{
    RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch,
};
use pingora::services::background::{GenBackgroundService, background_service};
use pingora::services::listening::Service;
use tokio::sync::watch;

use crate::access::{AccessError, Accesses};
use crate::cache::{
    ArchiveStorage, OpenError, Options, Retention, SecretError, Store, random_secret,
};
use crate::clock::Now;
use crate::config::{Config, Downloads, Group, Prefetch, Scheme, Sharing, Verification};
use crate::descriptors;
use crate::drain::Drain;
use crate::fetch::{Fetcher, LookCounts, Upstreams};
use crate::proxy::{BindError, Bound, Door, Edge, PACED_PIECE, Places, cached_head};
use crate::route::Keys;
use crate::target::{ClientError, DiscoveryCounts, Published, Scraper};

/// Most tries of one request that Pingora allows. The number of sources and the rules of `route/`
/// end a request long before; this is the fuse behind them.
const MAX_TRIES: usize = 32;

/// Longest time in seconds that what still runs at the end is waited for: threads that are in the
/// middle of a call.
const STRAGGLERS: u64 = 1;
/// How often it is asked whether an archive that came whole is on the disk, at the end.
const SEALING_PAUSE: Duration = Duration::from_millis(20);

/// A module whose log is turned off. It writes an error for every client that leaves while it is
/// served from the cache; the access log says that, and what is wrong with the disk is said where
/// it is read.
pub const NOISY_MODULE: &str = "pingora_proxy::proxy_cache";

/// Modules that write an error for every connection that ends before there is a request, without
/// the client's address and as often as clients like. `proxy::Door` counts them and tells.
pub const UNBOUNDED_MODULES: [&str; 2] = ["pingora_proxy", "pingora_core::apps"];
/// Modules below those that have more to say.
pub const BOUNDED_MODULES: [&str; 3] =
    ["pingora_proxy::proxy_common", "pingora_proxy::proxy_h1", "pingora_proxy::proxy_h2"];

/// A module that writes the heads of requests, credentials and all, where its log is at `trace`.
pub const TELLING_MODULE: &str = "pingora_core::protocols::http::v1::client";

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
    /// The targets of a group cannot be reached as the configuration wants it.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Every service of one edge, bound and not started. The caller owns what runs them and what stops
/// them: a Pingora server in the program, a runtime in a test.
pub struct Services {
    /// The public listener.
    pub public: Bound<Door>,
    /// How many connections it has.
    pub places: Arc<Places>,
    /// What keeps the index.
    pub scraper: GenBackgroundService<Scraper>,
    /// What fills the cache, where that is not done by requests, and what takes out of it.
    pub fetcher: Option<GenBackgroundService<Fetcher>>,
    /// The index, as requests see it.
    pub published: Arc<Published>,
    /// How targets are reached, and what goes wrong with that.
    pub accesses: Arc<Accesses>,
    /// How the search for targets goes.
    pub discovery: Arc<DiscoveryCounts>,
    /// How often archives were looked for that the index does not know.
    pub looks: Arc<LookCounts>,
    /// What is under way, for the end of the process.
    pub drain: Arc<Drain>,
    /// The archives that the cache has, where there is one.
    pub store: Option<Store>,
}

impl Services {
    /// Builds and binds everything that the configuration asks for.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let conf = Arc::new(server_conf(config));
        let published = Arc::<Published>::default();
        let cache = cache(config, &published)?;
        let held = cache.map_or_else(nothing, |cache| cache.store().held());
        let distrusted = cache.map_or_else(nothing, |cache| cache.store().distrusted());
        let accesses = Arc::new(Accesses::new(config)?);
        let (views, access) = (Arc::clone(&published), Arc::clone(&accesses));
        let scraper = Scraper::new(config.clone(), access, views, held, distrusted)?;
        let access = Arc::clone(&accesses);
        let keys = keys(config, cache)?;
        let reporter = scraper.reporter();
        let upstreams = Arc::new(Upstreams::new(config, keys.choice, access, reporter));
        let fetcher = cache.map(|cache| {
            let (store, views) = (cache.store().clone(), Arc::clone(&published));
            Fetcher::new(config.cache.clone(), store, views, Arc::clone(&upstreams))
        });
        let is_shared = config.cache.sharing == Sharing::Shared;
        let orders = fetcher.as_ref().filter(|_| is_shared).map(Fetcher::orders);
        let drain = Arc::<Drain>::default();
        let edge = Edge::new(config, keys, &scraper, upstreams, cache, orders, Arc::clone(&drain));
        let looks = edge.looks();
        let door = Door::new(&conf, config, edge);
        let places = door.places();
        let service = Service::new("edge".to_owned(), door);
        let public = Bound::new(service, &config.listen, Arc::clone(&drain))?;
        let fetcher = fetcher.map(|fetcher| background_service("fetcher", fetcher));
        let discovery = scraper.discovery();
        let scraper = background_service("scraper", scraper);
        let store = cache.map(|cache| cache.store().clone());
        Ok(Self {
            public,
            places,
            scraper,
            fetcher,
            published,
            accesses,
            discovery,
            looks,
            drain,
            store,
        })
    }

    /// The public addresses as bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.public.addresses()
    }

    /// Hands the services to a server.
    pub fn add_to(self, server: &mut Server) {
        server.add_service(self.public);
        server.add_service(self.scraper);
        if let Some(fetcher) = self.fetcher {
            server.add_service(fetcher);
        }
    }
}

/// Without a cache nothing is ever held or found not to be sound, and nobody is left to say so.
fn nothing<T: Default>() -> watch::Receiver<T> {
    watch::Sender::default().subscribe()
}

/// Runs until a signal ends it.
pub fn run(config: &Config) -> Result<(), StartError> {
    warn_of_surprises(config);
    descriptors::provide(config);
    let mut server = new_server(config);
    let services = Services::new(config)?;
    for address in services.addresses() {
        log::info!("listening on {address}");
    }
    let stop = Stop {
        drain: Arc::clone(&services.drain),
        store: services.store.clone(),
        grace_period: config.server.grace_period,
    };
    services.add_to(&mut server);
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
    Ok(())
}

/// Ends the process: at once, or with the last of what is under way.
struct Stop {
    drain: Arc<Drain>,
    store: Option<Store>,
    grace_period: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let signal = UnixShutdownSignalWatch.recv().await;
        if !matches!(signal, ShutdownSignal::GracefulTerminate) {
            return signal;
        }
        self.drain.begin();
        let (grace, left) = (self.grace_period, || self.drain.under_way());
        log::info!("stopping: {} requests under way may finish, within {grace:?}", left());
        tokio::select! {
            () = self.done() => log::info!("stopping: nothing is under way any more"),
            () = tokio::time::sleep(grace) => {
                let left = left();
                log::warn!("stopping: `server.grace_period` is over, {left} requests break off");
            }
            _ = UnixShutdownSignalWatch.recv() => {
                log::warn!("stopping: told again, {} requests break off", left());
            }
        }
        // Pingora would sleep through its own grace period, whatever there is to wait for: it has
        // none left.
        ShutdownSignal::GracefulTerminate
    }
}

impl Stop {
    /// Waits for the last request, and for archives that came whole with it to be on the disk.
    async fn done(&self) {
        self.drain.idle().await;
        while self.store.as_ref().is_some_and(Store::is_sealing) {
            tokio::time::sleep(SEALING_PAUSE).await;
        }
    }
}

/// The cache, where the configuration asks for one. Pingora wants it to live as long as the
/// process, and it does.
fn cache(
    config: &Config,
    published: &Arc<Published>,
) -> Result<Option<&'static ArchiveStorage>, OpenError> {
    let Some(directory) =
        config.cache_dir.as_ref().filter(|_| config.downloads == Downloads::Proxy)
    else {
        return Ok(None);
    };
    let (published, wanted) = (Arc::clone(published), Arc::clone(published));
    let options = Options {
        directory: directory.clone(),
        min_free_space: config.cache.min_free_space,
        max_size: config.cache.max_size,
        retention: if config.cache.keep_previous {
            Retention::Leased(config.cache.lease)
        } else {
            Retention::UntilRefresh
        },
        verify: config.cache.verify,
        groups: config.group_names(),
        appraise: Arc::new(move |name, group| published.load().worth(name, group)),
        successor: Arc::new(move |group| wanted.load().group(group).and_then(|view| view.wanted)),
    };
    let store = Store::open(options, Now::read())?;
    let piece = if config.limits.total_rate.is_some() { PACED_PIECE } else { usize::MAX };
    Ok(Some(Box::leak(Box::new(ArchiveStorage::new(store, cached_head, piece)))))
}

/// What entity tags and choices are made with: the secret of the configuration, or the one that is
/// kept beside the cache, or one that goes with the process.
fn keys(config: &Config, cache: Option<&'static ArchiveStorage>) -> Result<Keys, SecretError> {
    match (&config.etag_secret, cache) {
        (Some(secret), _) => Ok(Keys::lasting(secret)),
        (None, Some(cache)) => Ok(Keys::lasting(&cache.store().secret()?)),
        (None, None) => Ok(Keys::passing(&random_secret()?)),
    }
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

fn warn_of_surprises(config: &Config) {
    if config.downloads == Downloads::Redirect && config.cache_dir.is_some() {
        log::warn!("`proxy_snapshot_cache_dir` has no effect without `proxy_snapshot_downloads`");
    }
    if config.downloads == Downloads::Redirect && config.public_url.is_some() {
        log::warn!("`public_url` has no effect without `proxy_snapshot_downloads`");
    }
    if config.cache.prefetch == Prefetch::All && config.limits.per_target == 1 {
        log::warn!(
            "`limits.per_target: 1` lets incremental archives wait for full ones to be fetched"
        );
    }
    for Group { name, scheme, tls, credentials, .. } in &config.groups {
        if *scheme == Scheme::Http && credentials.is_some() {
            log::warn!("group `{name}` sends its credentials for everybody to read on the way");
        }
        if tls.verification == Verification::Off {
            log::warn!("group `{name}` takes everybody for its targets: `insecure_skip_verify`");
        }
        if config.downloads == Downloads::Redirect && credentials.is_some() {
            log::warn!("clients get no credentials for what group `{name}` redirects them to");
        }
    }
}
