//! An edge in this process: the real services, on a port of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora::server::ShutdownWatch;
use pingora::services::Service;
use pingora::services::background::BackgroundService;
use snapedge::access::Accesses;
use snapedge::app::{ReloadError, Reloader, Services, Taken};
use snapedge::config::{Config, InternalListen};
use snapedge::drain::Drain;
use snapedge::index::View;
use snapedge::listener::ConnectionLimit;
use snapedge::on_demand::ProbeCounts;
use snapedge::published::Published;
use snapedge::scrape::DiscoveryCounts;
use tokio::sync::watch;

use super::client::{Answer, Ask};
use super::eventually;
use super::origin::Origin;

/// A running edge. It ends with the test's runtime.
pub struct Edge {
    pub address: SocketAddr,
    /// Of all its listeners, that one first.
    pub addresses: Vec<SocketAddr>,
    published: Arc<Published>,
    pub accesses: Arc<Accesses>,
    pub discovery: Arc<DiscoveryCounts>,
    pub probes: Arc<ProbeCounts>,
    pub places: Arc<ConnectionLimit>,
    pub reloader: Arc<Reloader>,
    drain: Arc<Drain>,
    // Dropping it would look like a broken channel to the services.
    _stop: watch::Sender<bool>,
}

/// Short times, so that a test need not wait for a fault to be noticed.
pub const QUICK: &str = "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\npair_hold: 1h\n\
    limits: {connect_timeout: 500ms, read_timeout: 700ms, probe_timeout: 1s}\n";

/// A configuration with one group for each list of origins, named `a`, `b` and so on.
pub fn config(extra: &str, groups: &[&[&Origin]]) -> String {
    let mut text = format!("{QUICK}{extra}\ntarget_groups:\n");
    for (group, origins) in "abcdefgh".chars().zip(groups) {
        let targets: Vec<String> =
            origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
        text.push_str(&format!(
            "  - {{group: {group}, static_targets: {{targets: [{}]}}}}\n",
            targets.join(", ")
        ));
    }
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probes {
    Run,
    Wait,
}

/// A configuration as it is in tests: without the internal listener's port, of which each machine
/// has one, unless the text names one.
fn parsed(text: &str) -> Config {
    match snapedge::config::parse(text) {
        Ok(mut config) => {
            if config.internal_listen == InternalListen::Default {
                config.internal_listen = InternalListen::Off;
            }
            config
        }
        Err(problems) => panic!("{problems:?} in\n{text}"),
    }
}

impl Edge {
    /// Starts an edge from the text of a configuration file.
    pub fn start(config: &str) -> Self {
        Self::begin(config, Probes::Run)
    }

    /// The same in the moment before the first probe, which never comes.
    pub fn start_unprobed(config: &str) -> Self {
        Self::begin(config, Probes::Wait)
    }

    fn begin(config: &str, running: Probes) -> Self {
        let config = parsed(config);
        let services = Services::new(&config, None).expect("a free port");
        let addresses = services.addresses();
        let Services {
            mut public,
            places,
            scraper,
            fetcher,
            trials,
            published,
            accesses,
            discovery,
            probes,
            reloader,
            drain,
            ..
        } = services;
        let (stop, shutdown): (_, ShutdownWatch) = watch::channel(false);
        let watch = shutdown.clone();
        tokio::spawn(async move { public.start_service(None, watch, 1).await });
        if running == Probes::Run {
            let task = scraper.task();
            let watch = shutdown.clone();
            tokio::spawn(async move { task.start(watch).await });
        }
        let (task, watch) = (trials.task(), shutdown.clone());
        tokio::spawn(async move { task.start(watch).await });
        if let Some(fetcher) = fetcher {
            let task = fetcher.task();
            tokio::spawn(async move { task.start(shutdown).await });
        }
        Self {
            address: addresses[0],
            addresses,
            published,
            accesses,
            discovery,
            probes,
            places,
            reloader,
            drain,
            _stop: stop,
        }
    }

    /// Has it follow another configuration, whose address is that of before.
    pub async fn reload(&self, config: &str) -> Result<Taken, ReloadError> {
        self.reloader.follow(parsed(config)).await
    }

    /// An edge before one group of origins, once each of them has answered.
    pub async fn before(origins: &[&Origin]) -> Self {
        Self::with("", origins).await
    }

    /// The same with more configuration.
    pub async fn with(extra: &str, origins: &[&Origin]) -> Self {
        let edge = Self::start(&config(extra, &[origins]));
        for origin in origins {
            edge.knows(origin).await;
        }
        edge
    }

    /// The same with more below `limits` as well.
    pub async fn limited(limits: &str, extra: &str, origins: &[&Origin]) -> Self {
        let config = config(extra, &[origins]);
        let edge = Self::start(&config.replacen("limits: {", &format!("limits: {{{limits}, "), 1));
        for origin in origins {
            edge.knows(origin).await;
        }
        edge
    }

    /// Waits until the index lists everything that an origin has.
    pub async fn knows(&self, origin: &Origin) {
        let authority = origin.address().to_string();
        let names: Vec<String> =
            origin.handler.state.lock().unwrap().archives.keys().cloned().collect();
        self.sees(&format!("{authority} with {names:?}"), |view| {
            names.iter().all(|name| {
                let name = name.parse().expect("an archive's name");
                let sources = view.sources(&name);
                sources.iter().any(|source| *source.target.authority == *authority)
            })
        })
        .await;
    }

    /// Waits until the view is as `condition` wants it.
    pub async fn sees(&self, what: &str, condition: impl Fn(&View) -> bool) {
        eventually(what, || {
            let holds = condition(&self.published.load());
            async move { holds }
        })
        .await;
    }

    /// Waits until every request has ended here too, of which a client has all already.
    pub async fn settles(&self) {
        eventually("the last request ends", || async { self.drain.under_way() == 0 }).await;
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.published.load())
    }

    pub async fn ask(&self, ask: Ask) -> Answer {
        ask.send(self.address).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Ask::get(path)).await
    }
}
