//! Several sources of one group.

use std::fs;

use super::*;
use crate::support::consul::{Consul, Instance, SERVICE};
use crate::support::dns::{Dns, SRV, srv};
use crate::support::listing::Listing;
use crate::support::trouble::Trouble;

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_put_together_and_one_that_hangs_holds_up_no_other() {
    let mut origins = Vec::new();
    for slot in [1000, 2000, 3000, 4000, 5000] {
        origins.push(origin(slot).await);
    }
    let [named, filed, listed, held, looked_up] = &origins[..] else { unreachable!("five") };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("targets");
    fs::write(&path, filed.address().to_string()).expect("written");
    let (listing, consul, dns) = (Listing::run().await, Consul::run().await, Dns::run().await);
    listing.name(addresses(&[listed]));
    consul.set(vec![Instance::at(held.address())]);
    dns.set("x.example", SRV, 0, vec![srv(looked_up.address().port(), "localhost.")]);
    let edge = Edge::start(&group(&format!(
        "static_targets: {{targets: ['{}']}}, file_targets: {{path: '{}'}}, \
         http_targets: {{url: 'http://{}/'}}, \
         consul_sd_config: {{host: '{}', service: {SERVICE}}}, \
         dns_targets: [{{name: x.example, type: SRV, server: '{}'}}]",
        named.address(),
        path.display(),
        listing.address(),
        consul.address(),
        dns.address,
    )));
    finds(&edge, &[1000, 2000, 3000, 4000, 5000], &[]).await;

    listing.trouble(Trouble::Silence);
    keeps(&edge, SourceKind::Http, 1, &[1000, 2000, 3000, 4000, 5000]).await;
    fs::write(&path, "").expect("written");
    finds(&edge, &[1000, 3000, 4000, 5000], &[2000]).await;
    consul.set(Vec::new());
    finds(&edge, &[1000, 3000, 5000], &[2000, 4000]).await;
    dns.set("x.example", SRV, 0, vec![srv(0, ".")]);
    finds(&edge, &[1000, 3000], &[2000, 4000, 5000]).await;
    // What two sources have stays while one of them has it.
    fs::write(&path, addresses(&[named, listed]).join("\n")).expect("written");
    listing.name(Vec::new());
    listing.trouble(None);
    let seen = listing.seen().len();
    eventually("the list is read", || async { listing.seen().len() > seen + 1 }).await;
    finds(&edge, &[1000, 3000], &[]).await;
    fs::write(&path, "").expect("written");
    finds(&edge, &[1000], &[2000, 3000, 4000, 5000]).await;
    for kind in [SourceKind::File, SourceKind::Consul, SourceKind::Dns] {
        assert_eq!(edge.discovery.failures("a", kind), 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_on_targets_holds_over_all_sources() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("targets");
    fs::write(&path, b.address().to_string()).expect("written");
    let listing = Listing::run().await;
    listing.name(addresses(&[&a]));
    let edge = Edge::start(&group(&format!(
        "file_targets: {{path: '{}'}}, http_targets: {{url: 'http://{}/'}}",
        path.display(),
        listing.address()
    )));
    finds(&edge, &[1000, 2000], &[]).await;
    // Each of them is few enough, and all of them are one too many.
    let many = (1..=10_000).map(|port| format!("127.0.0.2:{port}"));
    listing.name(many.collect());
    keeps(&edge, SourceKind::Http, 1, &[1000, 2000]).await;
    listing.name(Vec::new());
    finds(&edge, &[2000], &[1000]).await;
    assert_eq!(edge.discovery.failures("a", SourceKind::File), 0);
}
