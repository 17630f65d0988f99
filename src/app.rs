//! The composition root: from a configuration to running services.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::{GenBackgroundService, background_service};
use pingora_proxy::{HttpProxy, http_proxy_service_with_name};
use tokio::sync::watch;

use crate::cache::{ArchiveStorage, OpenError, Options, Store};
use crate::clock::Now;
use crate::config::{Config, Downloads};
use crate::proxy::{BindError, Bound, Edge, cached_head};
use crate::target::{ClientError, Published, Scraper};

/// Most tries of one request that Pingora allows. The number of sources and the rules of `route/`
/// end a request long before; this is the fuse behind them.
const MAX_TRIES: usize = 32;

/// A module whose log is turned off. It writes an error for every client that leaves while it is
/// served from the cache; the access log says that, and what is wrong with the disk is said where
/// it is read.
pub const NOISY_MODULE: &str = "pingora_proxy::proxy_cache";

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
}

/// Every service of one edge, bound and not started. The caller owns what runs them and what stops
/// them: a Pingora server in the program, a runtime in a test.
pub struct Services {
    /// The public listener.
    pub public: Bound<HttpProxy<Edge>>,
    /// What keeps the index.
    pub scraper: GenBackgroundService<Scraper>,
    /// The index, as requests see it.
    pub published: Arc<Published>,
}

impl Services {
    /// Builds and binds everything that the configuration asks for.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        let conf = Arc::new(server_conf(config));
        let published = Arc::<Published>::default();
        let cache = cache(config, &published)?;
        // Without a cache nothing is ever held, and nobody is left to say so.
        let nothing = || watch::Sender::default().subscribe();
        let held = cache.map_or_else(nothing, |cache| cache.store().held());
        let scraper = Scraper::new(config.clone(), Arc::clone(&published), held)?;
        let edge = Edge::new(config, &scraper, cache);
        let service = http_proxy_service_with_name(&conf, edge, "edge");
        let public = Bound::new(service, &config.listen)?;
        Ok(Self { public, scraper: background_service("scraper", scraper), published })
    }

    /// The public addresses as bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.public.addresses()
    }

    /// Hands the services to a server.
    pub fn add_to(self, server: &mut Server) {
        server.add_service(self.public);
        server.add_service(self.scraper);
    }
}

/// Runs until a signal ends it.
pub fn run(config: &Config) -> Result<(), StartError> {
    warn_of_surprises(config);
    let mut server = new_server(config);
    let services = Services::new(config)?;
    for address in services.addresses() {
        log::info!("listening on {address}");
    }
    services.add_to(&mut server);
    server.run(RunArgs::default());
    Ok(())
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
    let published = Arc::clone(published);
    let options = Options {
        directory: directory.clone(),
        min_free_space: config.cache.min_free_space,
        groups: config.groups.iter().map(|group| Arc::clone(&group.name)).collect(),
        appraise: Arc::new(move |name, group| published.load().worth(name, group)),
    };
    let store = Store::open(options, Now::read())?;
    Ok(Some(Box::leak(Box::new(ArchiveStorage::new(store, cached_head)))))
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
        grace_period_seconds: Some(config.server.grace_period.as_secs()),
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
}
