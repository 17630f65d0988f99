//! What stands before a request: TLS, whose it is, whether it may be asked, and of which group.

mod caches;
mod credentials;
mod gate;
mod groups;
mod proxies;
mod tls;

use super::support::body::Content;
use super::support::edge::{Edge, config};
use super::support::origin::{Origin, Program};
use super::support::{eventually, full, incremental};

/// One listener with these keys, as a section.
fn listen(keys: &str) -> String {
    format!("[{{address: '127.0.0.1:0', {keys}}}]")
}

/// An edge before these origins with one listener of these keys, once each of them has answered.
async fn edge(keys: &str, extra: &str, origins: &[&Origin]) -> Edge {
    let text = config(extra, &[origins]);
    let edge = Edge::start(&text.replacen("['127.0.0.1:0']", &listen(keys), 1));
    for origin in origins {
        edge.knows(origin).await;
    }
    edge
}
