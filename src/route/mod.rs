//! What to do with a request, and with an upstream's answer to it.
//!
//! Pure: a request head goes in, a [`Route`] comes out; from that and from what there is, a
//! [`Reply`] or the next [`Step`](plan::Step); an upstream's response head goes in, a [`Verdict`]
//! comes out.
//! `proxy/` carries them out.

mod affinity;
mod answer;
mod asked;
mod balance;
mod cache_status;
mod call_rate;
mod client_net;
mod condition;
mod failure;
mod header;
mod known_path;
mod nearest;
mod path;
mod pinned_copy;
mod place;
pub mod plan;
mod range;
mod redirect;
mod reply;
mod request;
mod rest;
mod rpc;
mod rpc_memory;
mod rpc_outcome;
mod spans;
mod tag;
mod walk;

pub use affinity::{Affinity, Arrival, Conflict, Files, Part, Portion, Receipt};
pub use answer::{ArchiveHead, Ranges, Verdict, judge};
pub use asked::{Asked, IfRange};
pub use balance::{Strangers, TargetStats, Targets, order_nodes};
pub use cache_status::{Bypass, CacheStatus};
pub use call_rate::CallRate;
pub use client_net::ClientNet;
pub use condition::{Conditions, Judgement};
pub use failure::{Busy, Failure, SourceFailure};
pub use known_path::{Style, Wanted};
pub use nearest::keep_near;
pub use pinned_copy::PinnedCopy;
pub use place::{Names, Place};
pub use range::{ByteRange, ContentRange, RangeRequest, RangeSpec, Selection};
pub use redirect::{Requester, Settings, chosen, redirect, short_form};
pub use reply::Reply;
pub use request::{ApiCall, Route, ShortForm, parse};
pub use rest::{Rest, Validator, judge_rest};
pub use rpc::{
    Answers, Ask, BadAnswer, Calls, NodeRoute, Question, Said, health_word, node_health,
    nodes_asked, parse_node,
};
pub use rpc_memory::RpcMemory;
pub use rpc_outcome::{Content, Outcome, RpcError};
#[cfg(test)]
pub(crate) use tag::TEST_KEY;
pub use tag::{ChoiceKey, Keys, TagKey};
pub use walk::Walk;
