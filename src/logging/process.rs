//! The log of the process, on standard error. What is written, and how, can be changed while the
//! process runs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use env_logger::fmt::Formatter;
use env_logger::{Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};

use super::error::LogError;
use super::sink::{MAX_LINE, Output, Sink, When};
use crate::config;

/// The module under which lines of the access log appear in a log that another program writes.
pub const ACCESS: &str = "access";

/// A module whose log is turned off. It writes an error for every client that leaves while it is
/// served from the cache; the access log says that, and what is wrong with the disk is said where
/// it is read.
pub const NOISY_MODULE: &str = "pingora_proxy::proxy_cache";

/// Modules that write a line for every connection that ends before there is a request, or that
/// says something odd to TLS, without the client's address and as often as clients like.
/// `listener::Listener` counts them and tells.
const UNBOUNDED_MODULES: [&str; 3] = ["pingora_proxy", "pingora_core::apps", "rustls"];
/// Modules below those that have more to say.
const BOUNDED_MODULES: [&str; 3] =
    ["pingora_proxy::proxy_common", "pingora_proxy::proxy_h1", "pingora_proxy::proxy_h2"];

/// A module that writes the heads of requests, credentials and all, where its log is at `trace`.
const TELLING_MODULE: &str = "pingora_core::protocols::http::v1::client";

/// Longest that the end of the process waits for the last lines.
pub const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of the process.
struct Replaceable {
    logger: ArcSwap<Logger>,
    sink: Sink,
    dropped: Arc<AtomicU64>,
}

static LOG: OnceLock<Replaceable> = OnceLock::new();

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.logger.load().log(record);
    }

    fn flush(&self) {
        self.logger.load().flush();
    }
}

/// What a record is written to, in one piece.
struct ToSink(Sink);

impl Write for ToSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(&String::from_utf8_lossy(line), When::Now);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to write on standard error what the configuration wants to be told. `RUST_LOG` says more.
pub fn start(settings: &config::Log) -> Result<(), LogError> {
    let dropped = Arc::default();
    let sink = Sink::open(Output::Stderr, &dropped).map_err(LogError::Thread)?;
    let logger = logger(settings, &sink);
    let most = logger.filter();
    let logger = ArcSwap::from_pointee(logger);
    let log = LOG.get_or_init(|| Replaceable { logger, sink, dropped });
    log::set_logger(log).map_err(|_| LogError::Begun)?;
    log::set_max_level(most);
    // The one of the library waits for whoever reads standard error.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let is_there = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = if is_there { format!("\n{backtrace}") } else { String::new() };
        log::error!("a fault of this program, please report it: {panic}{backtrace}");
        if std::thread::current().name() == Some("main") {
            // It is the end, and nobody else waits for the line.
            flush();
        }
    }));
    Ok(())
}

/// Writes by these settings from now on, where [`start`] began it.
pub fn set(settings: &config::Log) {
    let Some(log) = LOG.get() else { return };
    let logger = logger(settings, &log.sink);
    let most = logger.filter();
    log.logger.store(logger.into());
    log::set_max_level(most);
}

/// Lines that were not written, since whoever takes them is too slow.
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.dropped.load(Ordering::Relaxed))
}

/// The way to standard error, where [`start`] began it.
pub(super) fn sink() -> Option<&'static Sink> {
    LOG.get().map(|log| &log.sink)
}

/// Writes what waits to be written, for a second at most: the process ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.sink.flush(LAST_LINES);
    }
}

fn logger(settings: &config::Log, sink: &Sink) -> Logger {
    let level = settings.level;
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
        .target(Target::Pipe(Box::new(ToSink(sink.clone()))))
        .write_style(style());
    if settings.format == config::LogFormat::Json {
        logger.format(json);
    }
    logger.build()
}

/// Colours where people read it, who did not say otherwise.
fn style() -> WriteStyle {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && io::stderr().is_terminal() { WriteStyle::Always } else { WriteStyle::Never }
}

/// One object in a line.
fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let object = |message: &str| {
        let object = serde_json::json!({
            "time": format!("{:.3}", jiff::Timestamp::now()),
            "level": record.level().as_str().to_lowercase(),
            "module": record.target(),
            "message": message,
        });
        object.to_string()
    };
    let message = record.args().to_string();
    let mut line = object(&message);
    if line.len() >= MAX_LINE {
        // Cut later it would be no object; escapes may take six times as much.
        let cut = (0..=MAX_LINE / 8).rev().find_map(|at| message.get(..at)).unwrap_or_default();
        line = object(&format!("{cut}..."));
    }
    writeln!(out, "{line}")
}
