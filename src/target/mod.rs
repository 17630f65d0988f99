//! The upstreams: finding them, asking them what they have, and remembering how they did.

mod backoff;
mod client;
mod discovery;
mod nodes;
mod probe;
mod reference;
mod roster;
mod scraper;

pub use backoff::{Backoff, delay};
pub use client::{Client, ClientError, GroupClient};
pub use discovery::{DiscoveryCounts, DiscoveryError, Form, SourceKind, parse_targets};
pub use nodes::{Coming, Node, NodeError, Nodes};
pub use probe::{ProbeError, Prober};
pub use reference::ReferenceSlot;
pub use scraper::{Published, Reporter, Scraper};
