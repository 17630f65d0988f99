//! `dns_targets`: names whose records change.

use std::time::Duration;

use super::*;
use crate::support::dns::{A, AAAA, Dns, DnsTrouble, SRV, a, aaaa, srv};

const KIND: SourceKind = SourceKind::Dns;
const HERE: [u8; 4] = [127, 0, 0, 1];

fn source(dns: &Dns, records: &[&str]) -> String {
    let server = dns.address;
    let entries = records.iter().map(|text| format!("{{server: '{server}', {text}}}"));
    format!("dns_targets: [{}]", entries.collect::<Vec<_>>().join(", "))
}

const SERVICE: &str = "name: _snapshots._tcp.example, type: SRV";
const NAME: &str = "_snapshots._tcp.example";

fn services(origins: &[&Origin]) -> Vec<Vec<u8>> {
    origins.iter().map(|origin| srv(origin.address().port(), "localhost.")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_followed() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let dns = Dns::run().await;
    dns.set(NAME, SRV, 0, services(&[&a]));
    let edge = Edge::start(&group(&source(&dns, &[SERVICE])));
    finds(&edge, &[1000], &[]).await;
    dns.set(NAME, SRV, 0, services(&[&a, &b]));
    finds(&edge, &[1000, 2000], &[]).await;
    dns.set(NAME, SRV, 0, services(&[&b]));
    finds(&edge, &[2000], &[1000]).await;
    // "Decidedly not available".
    dns.set(NAME, SRV, 0, vec![srv(0, ".")]);
    finds(&edge, &[], &[1000, 2000]).await;
    assert_eq!(edge.discovery.failures("a", KIND), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_have_the_port_of_the_configuration() {
    let (one, other) = (origin(1000).await, origin(2000).await);
    let dns = Dns::run().await;
    dns.set("four.example", A, 0, vec![a(HERE), a([127, 0, 0, 99])]);
    dns.set("six.example", AAAA, 0, vec![aaaa(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped())]);
    let four = format!("name: four.example., type: A, port: {}", one.address().port());
    let six = format!("name: Six.Example, type: AAAA, port: {}", other.address().port());
    let edge = Edge::start(&group(&source(&dns, &[&four, &six])));
    finds(&edge, &[1000, 2000], &[]).await;
    dns.set("four.example", A, 0, vec![a([127, 0, 0, 99])]);
    finds(&edge, &[2000], &[1000]).await;
    dns.set("four.example", A, 0, vec![a(HERE)]);
    finds(&edge, &[1000, 2000], &[]).await;
    assert_eq!(edge.discovery.failures("a", KIND), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_takes_no_target_away() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let dns = Dns::run().await;
    dns.set(NAME, SRV, 0, services(&[&a]));
    let edge = Edge::start(&group(&source(&dns, &[SERVICE])));
    finds(&edge, &[1000], &[]).await;
    let mut now = (&a, 1000);
    let mut next = (&b, 2000);
    for trouble in [
        // SERVFAIL, NXDOMAIN, REFUSED, and no such records.
        DnsTrouble::Code(2),
        DnsTrouble::Code(3),
        DnsTrouble::Code(5),
        DnsTrouble::Code(0),
        DnsTrouble::Garbage,
        DnsTrouble::Silence,
    ] {
        dns.trouble(trouble);
        keeps(&edge, KIND, 1, &[now.1]).await;
        dns.set(NAME, SRV, 0, services(&[next.0]));
        dns.trouble(None);
        finds(&edge, &[next.1], &[now.1]).await;
        std::mem::swap(&mut now, &mut next);
    }
    dns.stop().await;
    keeps(&edge, KIND, 2, &[now.1]).await;
    dns.set(NAME, SRV, 0, services(&[next.0]));
    dns.restart().await;
    finds(&edge, &[next.1], &[now.1]).await;
    // A record that cannot be a target costs itself, and one alone is no answer.
    dns.set(NAME, SRV, 0, [services(&[now.0]), vec![srv(0, "localhost.")]].concat());
    finds(&edge, &[now.1], &[next.1]).await;
    assert!(edge.discovery.omissions("a", KIND) > 0);
    dns.set(NAME, SRV, 0, vec![srv(0, "localhost.")]);
    keeps(&edge, KIND, 1, &[now.1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_long_for_udp_comes_over_tcp() {
    let a = origin(1000).await;
    let dns = Dns::run().await;
    dns.set(NAME, SRV, 0, services(&[&a]));
    dns.trouble(DnsTrouble::Truncated);
    let edge = Edge::start(&group(&source(&dns, &[SERVICE])));
    finds(&edge, &[1000], &[]).await;
    assert!(dns.state.lock().unwrap().over_tcp > 0);
    assert_eq!(edge.discovery.failures("a", KIND), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_believed_as_long_as_they_say_and_for_a_second_at_least() {
    let a = origin(1000).await;
    for (ttl, least) in [(3, Duration::from_millis(2900)), (0, Duration::from_millis(900))] {
        let dns = Dns::run().await;
        dns.set(NAME, SRV, ttl, services(&[&a]));
        let _edge = Edge::start(&group(&source(&dns, &[SERVICE])));
        let times = || dns.state.lock().unwrap().seen.clone();
        eventually("three questions", || async { times().len() >= 3 }).await;
        for pair in times().windows(2) {
            let [(_, _, one), (_, _, next)] = pair else { unreachable!("pairs") };
            assert!(*next - *one >= least, "{:?} with {ttl}", *next - *one);
        }
    }
}
