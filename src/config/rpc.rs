//! The `rpc_proxy` section: what clients may ask of nodes that are RPC nodes, through this process.

use std::collections::BTreeSet;

use super::RpcProxy;
use super::units::size;
use super::yaml::{Node, Section};

/// What a validator asks of the node that it starts from, and what monitors ask.
const METHODS: [&str; 8] = [
    "getGenesisHash",
    "getSlot",
    "getVersion",
    "getHealth",
    "getHighestSnapshotSlot",
    "getClusterNodes",
    "getIdentity",
    "getEpochInfo",
];
/// Methods that change something. A question may be put to several nodes, one after the other, and
/// a notification to none.
const WITH_EFFECT: [&str; 4] =
    ["sendTransaction", "requestAirdrop", "setLogFilter", "validatorExit"];
/// Most methods of the list.
const MAX_METHODS: usize = 100;
/// Longest name of a method, in bytes.
const MAX_METHOD: usize = 64;
/// Most bytes of a request's body, unless given: as nodes have it.
const BODY: u64 = 50 << 10;
/// The most that may be given: bodies are held in memory.
const MAX_BODY: u64 = 1 << 20;
/// Most calls of one request, unless given.
const BATCH: u64 = 10;
/// The most that may be given.
const MAX_BATCH: u64 = 100;
/// Calls of one client in a second, unless given.
const CALLS: u32 = 50;
/// The most that may be given.
const MAX_CALLS: u64 = 1_000_000;

/// Nothing where it is not enabled; what else is said is checked all the same.
pub(super) fn rpc_proxy(node: Node) -> Option<RpcProxy> {
    let mut section = node.section();
    let enabled = section.take("enabled").and_then(|node| node.boolean()).unwrap_or(false);
    let methods = methods(&mut section);
    let bounded = |text: &str| match size(text)? {
        0 => Err(format!("`{text}` is too small, the least is `1B`")),
        value if value > MAX_BODY => Err(format!("`{text}` is too large, the most is `1MiB`")),
        value => Ok(value),
    };
    let max_body = section.take("max_body");
    let max_body = max_body.and_then(|node| node.parsed("a size such as `50KiB`", bounded));
    let max_batch = section.take("max_batch").and_then(|node| node.integer(1, MAX_BATCH));
    let rate = section.take("per_client_rate");
    let rate = rate.and_then(|node| node.parsed("a rate such as `50/s`", call_rate));
    section.close();
    enabled.then(|| RpcProxy {
        methods,
        max_body: usize::try_from(max_body.unwrap_or(BODY)).unwrap_or(usize::MAX),
        max_batch: usize::try_from(max_batch.unwrap_or(BATCH)).unwrap_or(usize::MAX),
        per_client_rate: rate.unwrap_or(CALLS),
    })
}

pub(super) fn call_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim_end();
    let calls = number.parse::<u64>().map_err(|_| {
        format!("`{text}` is not a number of calls in a second, write it like `50/s`")
    })?;
    match u32::try_from(calls) {
        Ok(0) => Err(format!("`{text}` is too small, the least is `1/s`")),
        Ok(calls) if u64::from(calls) <= MAX_CALLS => Ok(calls),
        _ => Err(format!("`{text}` is too large, the most is `{MAX_CALLS}/s`")),
    }
}

fn methods(section: &mut Section) -> BTreeSet<Box<str>> {
    let Some(node) = section.take("methods") else {
        return METHODS.into_iter().map(Box::from).collect();
    };
    let nodes = node.list();
    if nodes.is_empty() {
        section.reject("methods", "expected at least one method, such as `getVersion`");
    } else if nodes.len() > MAX_METHODS {
        section.reject("methods", format!("expected at most {MAX_METHODS} methods"));
    }
    let parsed = |node: Node| node.parsed("a method", method);
    let given: Vec<Box<str>> = nodes.into_iter().filter_map(parsed).collect();
    let distinct: BTreeSet<Box<str>> = given.iter().cloned().collect();
    if distinct.len() < given.len() {
        section.reject("methods", "a method is listed twice, remove one");
    }
    distinct
}

fn method(text: &str) -> Result<Box<str>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if WITH_EFFECT.contains(&text) {
        let reads = "list only methods that read";
        return Err(format!(
            "`{text}` changes something and may be asked of several nodes, {reads}"
        ));
    }
    if !text.is_empty() && text.len() <= MAX_METHOD && text.chars().all(plain) {
        return Ok(text.into());
    }
    Err(format!("`{text}` is not a method, write it like `getVersion`"))
}
