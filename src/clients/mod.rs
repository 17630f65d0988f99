//! Who clients are, and which networks they are in. Pure.

mod access_list;
mod address;
mod networks;

pub use access_list::{AccessList, AccessLists};
pub use address::{ClientAddress, ClientRules};
pub use networks::{BadNetwork, Networks};
