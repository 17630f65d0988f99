//! The log, and the level of it, which can be changed while the process runs.

use std::sync::OnceLock;

use arc_swap::ArcSwap;
use env_logger::Logger;
use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

/// A module whose log is turned off. It writes an error for every client that leaves while it is
/// served from the cache; the access log says that, and what is wrong with the disk is said where
/// it is read.
pub const NOISY_MODULE: &str = "pingora_proxy::proxy_cache";

/// Modules that write an error for every connection that ends before there is a request, without
/// the client's address and as often as clients like. `listener::Listener` counts them and tells.
const UNBOUNDED_MODULES: [&str; 2] = ["pingora_proxy", "pingora_core::apps"];
/// Modules below those that have more to say.
const BOUNDED_MODULES: [&str; 3] =
    ["pingora_proxy::proxy_common", "pingora_proxy::proxy_h1", "pingora_proxy::proxy_h2"];

/// A module that writes the heads of requests, credentials and all, where its log is at `trace`.
const TELLING_MODULE: &str = "pingora_core::protocols::http::v1::client";

/// The log of the process.
struct Replaceable(ArcSwap<Logger>);

static LOG: OnceLock<Replaceable> = OnceLock::new();

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.load().log(record);
    }

    fn flush(&self) {
        self.0.load().flush();
    }
}

/// Begins to write what is at least so severe on standard error. `RUST_LOG` says more.
pub fn start(level: LevelFilter) -> Result<(), SetLoggerError> {
    let logger = logger(level);
    let most = logger.filter();
    log::set_logger(LOG.get_or_init(|| Replaceable(ArcSwap::from_pointee(logger))))?;
    log::set_max_level(most);
    Ok(())
}

/// Writes what is at least so severe from now on, where [`start`] began it.
pub fn set(level: LevelFilter) {
    let Some(log) = LOG.get() else { return };
    let logger = logger(level);
    let most = logger.filter();
    log.0.store(logger.into());
    log::set_max_level(most);
}

fn logger(level: LevelFilter) -> Logger {
    let mut logger = env_logger::Builder::new();
    logger.filter_level(level);
    if level < LevelFilter::Debug {
        for module in UNBOUNDED_MODULES {
            logger.filter_module(module, LevelFilter::Off);
        }
        for module in BOUNDED_MODULES {
            logger.filter_module(module, level);
        }
    }
    logger
        .filter_module(NOISY_MODULE, LevelFilter::Off)
        .parse_default_env()
        // After what `RUST_LOG` says, so that it cannot be turned on.
        .filter_module(TELLING_MODULE, level.min(LevelFilter::Debug))
        .build()
}
