//! The upstreams: finding them, asking them what they have, and remembering how they did.

mod ahead;
mod approach;
mod backoff;
mod client;
mod conduct;
mod discovery;
mod doors;
mod elements;
mod ledger;
mod listing;
mod neighbours;
mod nodes;
mod omissions;
mod presence;
mod probe;
mod reference;
mod remarks;
mod resolution;
mod roster;
mod scraper;
mod short_form;
mod silence;
mod turns;

pub use backoff::{Backoff, delay};
pub use client::{Client, ClientError, GroupClient};
pub use conduct::Conduct;
pub use discovery::{DiscoveryCounts, DiscoveryError, Form, SourceKind, parse_targets};
pub use doors::{Doors, Entrance, Sighting};
pub use elements::NotAList;
pub use listing::ListingError;
pub use nodes::{Coming, Node, NodeError, Nodes};
pub use probe::ProbeError;
pub use reference::ReferenceSlot;
pub(crate) use reference::chain;
pub use scraper::{Published, Reporter, Scraper};
