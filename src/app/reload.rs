//! Another configuration in place of the one that is followed, while the process runs.
//!
//! All of it is made before any of it is taken, so that a file with an error changes nothing. What
//! is under way goes on under what it began with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::keys::KeySource;
use super::systemd;
use crate::access::{AccessError, Accesses, Prepared};
use crate::cache::{SecretError, Store, StoreSettings};
use crate::config::{self, Config, ConfigError, Downloads, Group, Prefetch, Scheme, Verification};
use crate::configured::{Configured, Live};
use crate::drain::Drain;
use crate::error_chain::chain;
use crate::fd_limit;
use crate::listener::{Endpoints, TlsError};
use crate::logging::{self, LogError, Opened};
use crate::proxy::{PublicListener, SnapshotProxy, Traffic};
use crate::route::Keys;
use crate::scrape::{ClientError, Plan, Scraper};

/// Longest that the reading of the file, and of all that it names, is waited for.
const LONGEST_READ: Duration = Duration::from_secs(30);
/// Longest that a reload waits for those before it.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// Why a configuration is not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no file to read again.
    #[error("the configuration was not read from a file")]
    NoFile,
    /// The process ends.
    #[error("the process is about to end")]
    Draining,
    /// The file cannot be read, or has errors.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file asks for what cannot change while the process runs.
    #[error("{} cannot be changed while the process runs, restart it for that", listed(.0))]
    Fixed(Vec<&'static str>),
    /// Targets cannot be reached as it wants it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The clients that probe targets cannot be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no secret to make entity tags with.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// TLS cannot be spoken to clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Requests cannot be written down.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The disk does not answer.
    #[error("the files were not read within {LONGEST_READ:?}, does the disk answer?")]
    Slow,
    /// Others wait for the same.
    #[error("other reloads were not done within {LONGEST_TURN:?}")]
    Busy,
    /// A fault of this program.
    #[error("a task of the reload ended by a fault")]
    Fault(#[from] tokio::task::JoinError),
}

fn listed(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// A reload, of which the service manager hears.
struct Reloading;

impl Reloading {
    /// Nothing before the process is ready: it would be so by this.
    fn begin(reloader: &Reloader) -> Option<Self> {
        let is_ready = reloader.proxy.is_ready();
        is_ready.then(|| {
            systemd::reloading();
            Self
        })
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        systemd::ready();
    }
}

/// What became of a configuration that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Requests are answered by it.
    Followed,
    /// The index does not follow it yet.
    Late,
}

/// What became of reloads.
#[derive(Debug)]
pub(super) struct ReloadCounts {
    taken: AtomicU64,
    failed: AtomicU64,
    last: std::sync::Mutex<Last>,
}

#[derive(Clone, Debug)]
struct Last {
    /// When the configuration was taken that is followed.
    since: SystemTime,
    error: Option<String>,
    /// Why the last one failed that did.
    failure: Option<String>,
}

impl ReloadCounts {
    /// None yet: the configuration is that of the start.
    pub(super) fn new() -> Self {
        let last = Last { since: SystemTime::now(), error: None, failure: None };
        let (taken, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { taken, failed, last: std::sync::Mutex::new(last) }
    }

    /// Reloads that were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Reloads that were not taken.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// When the configuration was taken that is followed.
    pub(super) fn since(&self) -> SystemTime {
        self.last().since
    }

    /// What was wrong with the last one, where it was not taken.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last().error.clone()
    }

    /// Why the last one failed that did.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.last().failure.clone()
    }

    fn note(&self, reloaded: &Result<Taken, ReloadError>) {
        let mut last = self.last();
        match reloaded {
            Ok(_) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                (last.since, last.error) = (SystemTime::now(), None);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                last.failure = Some(chain(error));
                // Those of which nothing was read say nothing of the configuration.
                if !matches!(error, ReloadError::Draining | ReloadError::Busy | ReloadError::NoFile)
                {
                    last.error = Some(chain(error));
                }
            }
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        // No change of it can panic half-way.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that follows from a configuration and can fail, ready to be taken.
pub(super) struct Made {
    config: Config,
    accesses: Prepared,
    plan: Plan,
    keys: Keys,
    log: Opened,
    endpoints: Endpoints,
}

/// What has the configuration replaced.
pub struct Reloader {
    /// Where it is read.
    pub(super) file: Option<PathBuf>,
    /// One at a time, with what of the last one still waits for the disk.
    pub(super) turn: Mutex<Option<JoinHandle<Result<Made, ReloadError>>>>,
    /// Where the internal listener is bound.
    pub(super) internal: OnceLock<SocketAddr>,
    pub(super) keys: KeySource,
    pub(super) live: Arc<Live>,
    pub(super) accesses: Arc<Accesses>,
    pub(super) scraper: Arc<Scraper>,
    pub(super) listener: PublicListener,
    pub(super) proxy: SnapshotProxy,
    pub(super) traffic: Arc<Traffic>,
    pub(super) store: Option<Store>,
    pub(super) drain: Arc<Drain>,
    pub(super) counts: ReloadCounts,
}

impl Reloader {
    /// Reads the file again and follows it. Returns once requests are answered by it.
    pub async fn reload(self: &Arc<Self>) -> Result<Taken, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        let read = {
            let file = file.clone();
            move || config::load(&file)
        };
        let reloaded = self.replace(read).await;
        self.tell(&file, &reloaded);
        reloaded
    }

    /// Reads the files that the configuration names again, and follows it with what they hold now.
    pub(super) async fn read_files_again(self: &Arc<Self>) -> Result<Taken, ReloadError> {
        let file = self.file.clone().unwrap_or_default();
        log::info!("files that the configuration names changed, and are read again");
        let read = {
            let (file, live) = (file.clone(), Arc::clone(&self.live));
            // Once it is this one's turn: what came before may have another text.
            move || config::load_text(&file, &live.load().config.source.text)
        };
        let reloaded = self.replace(read).await;
        let is_over = matches!(reloaded, Err(ReloadError::Draining));
        // A file of the configuration that was not taken is not good for this one's being so.
        if !is_over && (reloaded.is_err() || self.counts.last_error().is_none()) {
            self.tell(&file, &reloaded);
        }
        reloaded
    }

    /// Counts what became of a configuration, and writes it down.
    fn tell(&self, file: &Path, reloaded: &Result<Taken, ReloadError>) {
        self.counts.note(reloaded);
        let file = file.display();
        match reloaded {
            Ok(Taken::Followed) => log::info!("the configuration `{file}` was reloaded"),
            Ok(Taken::Late) => {
                log::warn!("the configuration `{file}` was reloaded, the index follows it later");
            }
            Err(error @ ReloadError::Config(ConfigError::Invalid { .. })) => {
                // A line for each error, however many there are.
                log::error!("the configuration `{file}` was not reloaded:");
                error.to_string().lines().for_each(|line| log::error!("{line}"));
            }
            Err(error) => {
                log::error!("the configuration `{file}` was not reloaded: {}", chain(error));
            }
        }
    }

    /// Follows another configuration. Returns once requests are answered by it.
    pub async fn follow(self: &Arc<Self>, config: Config) -> Result<Taken, ReloadError> {
        let reloaded = self.replace(|| Ok(config)).await;
        self.counts.note(&reloaded);
        reloaded
    }

    /// Whether the end of the process is near.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_announced()
    }

    async fn replace(
        self: &Arc<Self>,
        read: impl FnOnce() -> Result<Config, ConfigError> + Send + 'static,
    ) -> Result<Taken, ReloadError> {
        let mut turn =
            timeout(LONGEST_TURN, self.turn.lock()).await.map_err(|_| ReloadError::Busy)?;
        if self.is_draining() {
            return Err(ReloadError::Draining);
        }
        let _reloading = Reloading::begin(self);
        if turn.as_ref().is_some_and(|before| !before.is_finished()) {
            // A disk that hangs holds up one thread, and no other is sent after it.
            return Err(ReloadError::Slow);
        }
        let this = Arc::clone(self);
        let making = turn.insert(tokio::task::spawn_blocking(move || this.make(read()?)));
        let made = timeout(LONGEST_READ, making).await.map_err(|_| ReloadError::Slow)?;
        *turn = None;
        let Made { config, accesses, plan, keys, log, endpoints } = made??;
        // From here on nothing fails.
        self.accesses.take(accesses);
        self.traffic.log.take(log);
        self.live.store(Configured::new(config, keys, self.accesses.edge()));
        self.apply(endpoints);
        let followed = self.scraper.follow(plan).await;
        // What was asked meanwhile was asked of those of before.
        self.proxy.forget_nodes();
        Ok(if followed { Taken::Followed } else { Taken::Late })
    }

    /// Makes what follows from a configuration. May block.
    fn make(&self, config: Config) -> Result<Made, ReloadError> {
        let before = self.live.load_full();
        let internal = self.internal.get().copied();
        let fixed = before.config.fixed_keys_that_differ(&config, internal);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        let accesses = self.accesses.prepare(&config)?;
        let plan = Plan::new(&config, &accesses.all(), Some(&self.scraper.plan()))?;
        let keys = self.keys.keys(&config)?;
        let log = self.traffic.log.prepare(&config.log)?;
        let endpoints = self.listener.prepare(&config)?;
        Ok(Made { config, accesses, plan, keys, log, endpoints })
    }

    /// Tells what lasts of what is live.
    fn apply(&self, endpoints: Endpoints) {
        let Configured { config, .. } = &**self.live.load();
        logging::set(&config.log);
        warn_of_surprises(config);
        fd_limit::provide(config);
        if let Some(store) = &self.store {
            store.set(StoreSettings::of(&config.cache));
        }
        self.listener.apply(config, endpoints);
        self.proxy.apply();
    }
}

pub(super) fn warn_of_surprises(config: &Config) {
    for message in config.certificates_out_of_time() {
        log::warn!("out of its time: {message}");
    }
    if config.downloads == Downloads::Redirect && config.cache_dir.is_some() {
        log::warn!("nothing is cached without `proxy_snapshot_downloads`");
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
