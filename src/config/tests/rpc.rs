//! What the `rpc_proxy` section may say.

use super::{LEAST, good, reject, reject_file};
use crate::config::RpcProxy;

const DEFAULT: [&str; 8] = [
    "getGenesisHash",
    "getSlot",
    "getVersion",
    "getHealth",
    "getHighestSnapshotSlot",
    "getClusterNodes",
    "getIdentity",
    "getEpochInfo",
];

fn expected(methods: &[&str], max_body: usize, max_batch: usize) -> RpcProxy {
    let methods = methods.iter().copied().map(Box::from).collect();
    RpcProxy { methods, max_body, max_batch, per_client_rate: 50 }
}

#[test]
fn accepted() {
    for (text, expected) in [
        ("", None),
        ("rpc_proxy: {}", None),
        ("rpc_proxy: null", None),
        ("rpc_proxy: {enabled: false}", None),
        ("rpc_proxy: {methods: [getSlot], max_batch: 2}", None),
        ("rpc_proxy: {enabled: true}", Some(expected(&DEFAULT, 50 << 10, 10))),
        (
            "rpc_proxy: {enabled: true, methods: [getSlot, get_x9], max_body: 1B, max_batch: 1}",
            Some(expected(&["getSlot", "get_x9"], 1, 1)),
        ),
        (
            "rpc_proxy: {enabled: true, max_body: 1MiB, max_batch: 100}",
            Some(expected(&DEFAULT, 1 << 20, 100)),
        ),
    ] {
        assert_eq!(good(&format!("{LEAST}{text}")).rpc_proxy, expected, "{text}");
    }
}

#[test]
fn a_rate_of_calls() {
    for (text, expected) in [("1/s", 1), ("200/s", 200), ("7", 7), ("'7 /s'", 7), ("null", 50)] {
        let file = format!("{LEAST}rpc_proxy: {{enabled: true, per_client_rate: {text}}}");
        let rpc = good(&file).rpc_proxy.expect("enabled");
        assert_eq!(rpc.per_client_rate, expected, "{text}");
    }
}

#[test]
fn rejected() {
    let long = format!("methods: [{}]", "x".repeat(65));
    let names: Vec<String> = (0..101).map(|number| format!("m{number}")).collect();
    let many = format!("methods: [{}]", names.join(", "));
    for (text, path, part) in [
        ("enabled: maybe", "rpc_proxy.enabled", "expected `true` or `false`"),
        ("enable: true", "rpc_proxy.enable", "unknown key"),
        ("methods: []", "rpc_proxy.methods", "at least one method"),
        ("methods: [getSlot, getSlot]", "rpc_proxy.methods", "twice"),
        ("methods: ['get slot']", "rpc_proxy.methods[0]", "`get slot` is not a method"),
        ("methods: [sendTransaction]", "rpc_proxy.methods[0]", "list only methods that read"),
        ("methods: [getSlot, requestAirdrop]", "rpc_proxy.methods[1]", "changes something"),
        ("methods: ['']", "rpc_proxy.methods[0]", "is not a method"),
        (&long, "rpc_proxy.methods[0]", "is not a method"),
        (&many, "rpc_proxy.methods", "at most 100"),
        ("max_body: 0B", "rpc_proxy.max_body", "the least is `1B`"),
        ("max_body: 2MiB", "rpc_proxy.max_body", "the most is `1MiB`"),
        ("max_body: 50", "rpc_proxy.max_body", "50"),
        ("max_batch: 0", "rpc_proxy.max_batch", "from 1 to 100"),
        ("max_batch: 101", "rpc_proxy.max_batch", "from 1 to 100"),
        ("per_client_rate: 0/s", "rpc_proxy.per_client_rate", "the least is `1/s`"),
        ("per_client_rate: 1e9/s", "rpc_proxy.per_client_rate", "write it like `50/s`"),
        ("per_client_rate: 1000001", "rpc_proxy.per_client_rate", "the most is `1000000/s`"),
        ("per_client_rate: [5]", "rpc_proxy.per_client_rate", "expected a rate such as `50/s`"),
        ("max_batch: some", "rpc_proxy.max_batch", "a whole number"),
    ] {
        reject(&format!("rpc_proxy: {{{text}}}"), path, part);
    }
    let file = format!("{LEAST}rpc_proxy: {{methods: getSlot}}");
    let least = ("rpc_proxy.methods", "at least one method");
    reject_file(&file, &[("rpc_proxy.methods", "expected a list"), least]);
}
