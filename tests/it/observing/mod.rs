//! What the operator sees: metrics, the access log, the status, and who may look.

mod access_log;
mod command;
mod internal;
mod metrics;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::PATIENCE;
use super::support::client::Ask;
use super::support::edge;
use super::support::origin::Origin;
use super::support::process::Running;

/// A configuration of a process, before these origins, with further keys, a line each.
pub fn config(extra: &str, origins: &[&Origin]) -> String {
    edge::config(extra, &[origins]).replace("listen: ['127.0.0.1:0']\n", "")
}

/// The samples of metrics, by their name and labels.
#[derive(Clone, Debug)]
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(samples.collect())
    }

    async fn of(internal: SocketAddr) -> Self {
        let answer = Ask::get("/metrics").send(internal).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&String::from_utf8(answer.body).expect("text"))
    }

    /// The value of one series, in whole; 0 where there is none.
    fn get(&self, series: &str) -> i64 {
        self.0.get(series).copied().unwrap_or(0.0).round() as i64
    }

    /// The sum over all series of a metric.
    fn sum(&self, name: &str) -> i64 {
        let of = |series: &&String| series.split('{').next() == Some(name);
        self.0.keys().filter(of).map(|series| self.get(series)).sum()
    }
}

async fn status(internal: SocketAddr) -> Value {
    let answer = Ask::get("/status").send(internal).await;
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Waits until the status is as wanted, and tells it.
async fn shows(edge: &Running, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = Ask::get("/status").send(edge.internal).await;
        let status = serde_json::from_slice(&answer.body).unwrap_or_default();
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "never seen: {what}, but {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The lines of an access log of JSON.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// The events of a status, by their kind, the oldest first.
fn events(status: &Value) -> Vec<(String, String)> {
    let events = status["events"].as_array().expect("a list").iter().rev();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    events.map(|event| (text(&event["kind"]), text(&event["text"]))).collect()
}
