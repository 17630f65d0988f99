//! What to do with a request, and with an upstream's answer to it.
//!
//! Pure: a request head goes in, a [`Route`] comes out; from that, the
//! [`View`](crate::index::View), what the client has and what the cache has, a [`Reply`] or a
//! [`Delivery`] and its sources; an upstream's response head goes in, a [`Verdict`] comes out.
//! `proxy/` carries them out.

mod allowance;
mod answer;
mod balance;
mod bucket;
mod caching;
mod call_rate;
mod client_net;
mod condition;
mod failure;
mod heard;
mod lending;
mod lookout;
mod nearest;
mod news;
mod path;
mod range;
mod redirect;
mod reply;
mod request;
mod rest;
mod rpc;
mod rpc_memory;
mod rpc_outcome;
mod tag;
mod walk;
mod wish;

pub use allowance::Allowance;
pub use answer::{ArchiveHead, Asked, IfRange, Ranges, Verdict, judge};
pub use balance::{Merit, Strangers, Targets, order_nodes};
pub use caching::{Bypass, CacheStatus, Cached, Delivery, Terms};
pub use call_rate::CallRate;
pub use client_net::ClientNet;
pub use condition::{Conditions, Judgement};
pub use failure::{Busy, Failure, SourceFailure};
pub use lookout::{Lookout, Outlook, Refused, Support};
pub use nearest::keep_near;
pub use news::{MAX_ASKED, SLACK, is_known, is_news, whom_to_ask};
pub use range::{ByteRange, ContentRange, RangeRequest, RangeSpec, Selection};
pub use redirect::{Requester, Settings, chosen, redirect, short_form};
pub use reply::Reply;
pub use request::{ApiCall, Route, ShortForm, Style, Wanted, parse};
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
pub use wish::{Given, Wish};
