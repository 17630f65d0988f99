//! `consul_sd_config`: a service whose instances come and go.

use std::fs;

use super::*;
use crate::support::consul::{Consul, DATACENTER, FILTER, Instance, SERVICE, pairs};
use crate::support::trouble::Trouble;

const KIND: SourceKind = SourceKind::Consul;

fn source(consul: &Consul, more: &str) -> String {
    format!("consul_sd_config: {{host: '{}', service: {SERVICE}{more}}}", consul.address())
}

fn instances(origins: &[&Origin]) -> Vec<Instance> {
    origins.iter().map(|origin| Instance::at(origin.address())).collect()
}

/// The index that each request so far waited on.
fn indexes(consul: &Consul) -> Vec<Option<u64>> {
    let index = |request| pairs(request).get("index").and_then(|index| index.parse().ok());
    consul.seen().iter().map(index).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_is_asked_for_what_the_configuration_says() {
    let (a, b, c, d) =
        (origin(1000).await, origin(2000).await, origin(3000).await, origin(4000).await);
    let consul = Consul::run().await;
    let [here, mut sick, mut other, mut on_node] =
        [&a, &b, &c, &d].map(|origin| Instance::at(origin.address()));
    sick.passing = false;
    other.tags = vec!["validator"];
    (on_node.node, on_node.address) = (on_node.address, String::new());
    consul.change(|state| {
        state.token = Some("hush".to_owned());
        state.instances = vec![here, sick, other, on_node];
    });
    let more = format!(", token: hush, datacenter: {DATACENTER}, filter: '{FILTER}'");
    let edge = Edge::start(&group(&source(&consul, &more)));
    finds(&edge, &[1000, 4000], &[2000, 3000]).await;
    consul.change(|state| {
        state.instances[1].passing = true;
        state.index += 1;
    });
    finds(&edge, &[1000, 2000, 4000], &[3000]).await;
    assert_eq!(edge.discovery.failures("a", KIND), 0);
    for request in consul.seen() {
        let pairs = pairs(&request);
        assert_eq!(request.path(), "/v1/health/service/solana%20main%2Fnet");
        assert_eq!(request.header("x-consul-token"), Some("hush"));
        let pair = |key: &str| pairs.get(key).map(String::as_str);
        assert_eq!((pair("passing"), pair("dc")), (Some("true"), Some(DATACENTER)));
        assert_eq!(pair("filter"), Some(FILTER));
        assert_eq!(pair("index").is_some(), pair("wait").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_configured_is_not_sent() {
    let a = origin(1000).await;
    let consul = Consul::run().await;
    consul.set(instances(&[&a]));
    let edge = Edge::start(&group(&source(&consul, "")));
    finds(&edge, &[1000], &[]).await;
    let first = &consul.seen()[0];
    assert_eq!(first.target, "/v1/health/service/solana%20main%2Fnet?passing=true");
    assert_eq!(first.header("x-consul-token"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_long_before_the_next_scrape() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    consul.set(instances(&[&a]));
    let text = group(&source(&consul, "")).replace("scrape_interval: 100ms", "scrape_interval: 1h");
    let edge = Edge::start(&text);
    finds(&edge, &[1000], &[]).await;
    eventually("a query waits", || async { consul.waiting() == 1 }).await;
    assert_eq!(indexes(&consul), [None, Some(11)]);
    assert_eq!(pairs(&consul.seen()[1])["wait"], "60000ms");
    consul.set(instances(&[&a, &b]));
    finds(&edge, &[1000, 2000], &[]).await;
    eventually("a query waits", || async { consul.waiting() == 1 }).await;
    consul.set(instances(&[&b]));
    finds(&edge, &[2000], &[1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_goes_back_is_not_waited_on() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    consul.set(instances(&[&a]));
    let edge = Edge::start(&group(&source(&consul, "")));
    finds(&edge, &[1000], &[]).await;
    eventually("a query waits", || async { consul.waiting() == 1 }).await;
    // As after Consul was restored from a backup: the query waits in vain until its time is over.
    consul.change(|state| {
        state.instances = instances(&[&b]);
        state.index = 3;
    });
    finds(&edge, &[2000], &[1000]).await;
    eventually("the new index", || async { indexes(&consul).contains(&Some(3)) }).await;
    let seen = indexes(&consul);
    let new = seen.iter().position(|index| *index == Some(3)).expect("it was there");
    assert_eq!(seen[new - 2..=new], [Some(11), None, Some(3)]);
    assert_eq!(edge.discovery.failures("a", KIND), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_zero_is_not_waited_on() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    consul.change(|state| {
        state.instances = instances(&[&a]);
        state.index = 0;
    });
    let edge = Edge::start(&group(&source(&consul, "")));
    finds(&edge, &[1000], &[]).await;
    consul.change(|state| state.instances = instances(&[&b]));
    finds(&edge, &[2000], &[1000]).await;
    assert!(indexes(&consul).iter().all(Option::is_none), "{:?}", indexes(&consul));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_fails_takes_no_target_away() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    consul.set(instances(&[&a]));
    let edge = Edge::start(&group(&source(&consul, "")));
    finds(&edge, &[1000], &[]).await;
    let mut now = (&a, 1000);
    let mut next = (&b, 2000);
    for trouble in [
        Trouble::Status(500),
        Trouble::Body("No cluster leader"),
        Trouble::Body(r#"[{"Node": {"Address": "a"}, "Service": {"Address": "", "Port": 0}}]"#),
        Trouble::CutShort,
        Trouble::Silence,
    ] {
        consul.trouble(trouble);
        keeps(&edge, KIND, 1, &[now.1]).await;
        consul.set(instances(&[next.0]));
        consul.trouble(None);
        finds(&edge, &[next.1], &[now.1]).await;
        std::mem::swap(&mut now, &mut next);
    }
    // Also a query that waits at that time ends.
    eventually("a query waits", || async { consul.waiting() == 1 }).await;
    consul.stop().await;
    keeps(&edge, KIND, 2, &[now.1]).await;
    consul.set(instances(&[next.0]));
    consul.restart().await;
    finds(&edge, &[next.1], &[now.1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_the_token_is_read_again() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    consul.set(instances(&[&a]));
    consul.change(|state| state.token = Some("first".to_owned()));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    fs::write(&path, "first\n").expect("written");
    let edge =
        Edge::start(&group(&source(&consul, &format!(", token_file: '{}'", path.display()))));
    finds(&edge, &[1000], &[]).await;
    // The token is changed in Consul first.
    consul.change(|state| state.token = Some("second".to_owned()));
    consul.set(instances(&[&b]));
    keeps(&edge, KIND, 1, &[1000]).await;
    for text in ["", "two\nlines"] {
        fs::write(&path, text).expect("written");
        keeps(&edge, KIND, 1, &[1000]).await;
    }
    fs::write(&path, "second").expect("written");
    finds(&edge, &[2000], &[1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_consul_refuses_is_a_failure() {
    let consul = Consul::run().await;
    for more in [", datacenter: nowhere", ", filter: 'true =='"] {
        let edge = Edge::start(&group(&source(&consul, more)));
        keeps(&edge, KIND, 1, &[]).await;
    }
}
