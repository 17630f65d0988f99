//! The node that is asked for the cluster's slot.

use super::*;

const SUBJECT: &str = "the RPC node does not tell its slot: ";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_reference_node_says_instead_of_a_slot_is_told_with_what_it_means() {
    let slot = Reply::new(200, "application/json", r#"{"jsonrpc":"2.0","id":1,"result":1150}"#);
    let node = Web::run(Reply::new(500, "text/plain", "Internal Server Error")).await;
    let edge = Running::start(&format!(
        "scrape_interval: 100ms\nrpc: 'http://{}/secret-key'\n\
         target_groups: [{{group: a, static_targets: {{targets: ['127.0.0.1:1']}}}}]\n",
        node.address()
    ))
    .await;
    let behind = r#"{"jsonrpc":"2.0","error":{"code":-32005,"message":"Node is behind"},"id":1}"#;
    line(&edge, &[SUBJECT, "status 500", "not well"]).await;
    for (reply, parts) in [
        (Reply::new(200, "text/html", "<html>"), ["a web page (`<html>`)", "set `rpc`"]),
        (Reply::new(404, "text/plain", "no"), ["status 404", "set `rpc`"]),
        (Reply::new(200, "application/json", behind), ["Node is behind (code -32005)", "again"]),
        (Reply::new(401, "application/json", "{}"), ["status 401", "wants a key"]),
        (Reply::new(200, "application/json", "{}"), ["JSON that is no JSON-RPC", "set `rpc`"]),
    ] {
        node.handler.set(reply);
        line(&edge, &["WARN", SUBJECT, parts[0], parts[1]]).await;
    }
    node.handler.set(slot);
    line(&edge, &["INFO", "the RPC node answers again, slot 1150"]).await;
    let log = edge.kill();
    assert_eq!(log.matches(SUBJECT).count(), 6, "each once: {log}");
    assert!(!log.contains("line 1") && !log.contains("secret-key"), "{log}");
}
