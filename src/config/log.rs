//! What is logged, where, and in which form.

use std::path::PathBuf;

use log::LevelFilter;

use super::yaml::Node;

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe messages about the process that are written.
    pub level: LevelFilter,
    /// How each line looks.
    pub format: LogFormat,
    /// Where a line for each request goes.
    pub access: AccessTo,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Words for people.
    #[default]
    Text,
    /// An object of JSON in each line.
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessTo {
    /// To standard error, among what is written about the process.
    #[default]
    Stderr,
    /// To the end of this file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl Default for Log {
    fn default() -> Self {
        let (format, access) = (LogFormat::default(), AccessTo::default());
        Self { level: LevelFilter::Info, format, access }
    }
}

pub(super) fn log(node: Node) -> Log {
    let mut section = node.section();
    let Log { level, format, access } = Log::default();
    let log = Log {
        level: section.take("level").and_then(|node| node.parsed("a level", of)).unwrap_or(level),
        format: section
            .take("format")
            .and_then(|node| node.parsed("a format", format_of))
            .unwrap_or(format),
        access: section
            .take("access")
            .and_then(|node| node.parsed("`stderr`, `off` or a path", access_of))
            .unwrap_or(access),
    };
    section.close();
    log
}

fn of(text: &str) -> Result<LevelFilter, String> {
    let expected = "expected `error`, `warn`, `info`, `debug` or `trace`";
    text.parse().map_err(|_| format!("`{text}` is not a level, {expected}"))
}

fn format_of(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is not a format, write `text` or `json`")),
    }
}

/// A file has an absolute path: one that is relative would depend on who starts the process.
fn access_of(text: &str) -> Result<AccessTo, String> {
    match text {
        "stderr" => Ok(AccessTo::Stderr),
        "off" => Ok(AccessTo::Off),
        path if path.starts_with('/') && !path.ends_with('/') => Ok(AccessTo::File(path.into())),
        _ => Err(format!("`{text}` is no absolute path of a file, nor `stderr` or `off`")),
    }
}
