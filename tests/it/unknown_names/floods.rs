//! Floods of names that nobody has.

use std::net::SocketAddr;

use snapedge::on_demand::ProbeBudget;
use tokio::task::JoinSet;

use super::*;

/// Asks for so many names that nobody has, one after the other.
async fn ask_for_nothing(edge: SocketAddr, from: u8, slots: std::ops::Range<u64>) {
    for slot in slots {
        let answer = Ask::get(format!("/{}", full(slot))).from(from).send(edge).await;
        assert_eq!((answer.status, answer.length()), (404, 0));
    }
}

/// How many looks there may be in so much time.
fn bound(burst: u32, per_second: u32, took: Duration) -> usize {
    let while_it_ran = u128::from(per_second) * took.as_millis() / 1000;
    burst as usize + while_it_ran as usize
}

/// What a target was asked of the names at these slots.
fn asked_of(origin: &Origin, slots: std::ops::Range<u64>) -> usize {
    slots.map(|slot| origin.asked("HEAD", &full(slot)) + origin.asked("GET", &full(slot))).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_names_from_one_address_takes_its_part_and_no_more() {
    let origins = [origin(Program::Agave).await, origin(Program::Sidecar).await];
    let edge = edge(PATIENT, "", &[&origins[0], &origins[1]]).await;
    let start = Instant::now();
    let address = edge.address;
    let flood = tokio::spawn(ask_for_nothing(address, 1, 10_000..11_000));
    // What others ask is answered meanwhile, and what they look for is found.
    let mut found = 0;
    while !flood.is_finished() || found < 2 {
        let asked = Instant::now();
        let known = Ask::get(format!("/{}", full(5000))).from(2).send(address).await;
        let short = Ask::get("/snapshot.tar.bz2").from(2).send(address).await;
        assert_eq!((known.status, short.status), (200, 303));
        if found < 2 {
            let name = incremental(5000, 6100 + found);
            origins[0].add(&name, BODY);
            assert!(is_whole(&Ask::get(format!("/{name}")).from(2).send(address).await));
            found += 1;
        }
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    flood.await.expect("every one is a 404");
    let most = bound(ProbeBudget::CLIENT_BURST, ProbeBudget::CLIENT_PER_SECOND, start.elapsed());
    for origin in &origins {
        let asked = asked_of(origin, 10_000..11_000);
        assert!(asked >= 1 && asked <= most, "{asked} of {most} in {:?}", start.elapsed());
    }
    assert!(edge.probes.refused() >= 1000 - most as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_names_from_many_addresses_is_bounded_at_every_target() {
    for silent in [false, true] {
        let origins = [origin(Program::Agave).await, origin(Program::Sidecar).await];
        let edge = edge("300ms", "", &[&origins[0], &origins[1]]).await;
        if silent {
            origins[0].fail_probes(Fault::StallBeforeHead);
        }
        let start = Instant::now();
        let address = edge.address;
        let mut flood = JoinSet::new();
        for from in 0..10_u8 {
            let first = 10_000 + u64::from(from) * 100;
            flood.spawn(ask_for_nothing(address, from + 1, first..first + 100));
        }
        let (name, mut found) = (incremental(5000, 6100), false);
        origins[1].add(&name, BODY);
        while !flood.is_empty() || !found {
            while let Some(ended) = flood.try_join_next() {
                ended.expect("nothing but what is to be expected");
            }
            // All of the ten may have been newcomers a moment ago; this is one now.
            let answer = Ask::get(format!("/{name}")).from(30).send(address).await;
            found |= is_whole(&answer);
            let asked = Instant::now();
            let known = Ask::get(format!("/{}", full(5000))).from(20).send(address).await;
            let short = Ask::get("/snapshot.tar.bz2").from(20).send(address).await;
            assert_eq!((known.status, short.status), (200, 303));
            assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        }
        let most = bound(ProbeBudget::BURST, ProbeBudget::PER_SECOND, start.elapsed());
        for origin in &origins {
            let asked = asked_of(origin, 10_000..11_000);
            assert!(asked >= 4 && asked <= most, "{asked} of {most}, silent: {silent}");
        }
        assert!(edge.probes.begun() as usize <= most);
        assert!(edge.probes.refused() >= 1000 - most as u64);
        // One that is silent is not asked for more than a few names at once.
        let at_once = origins[0].most_at_once();
        assert!(!silent || at_once <= 8, "{at_once} at once");
        assert_eq!(edge.get(&format!("/{}", full(5000))).await.status, 200, "still at work");
    }
}

/// Each of them a newcomer, of a network of its own, who makes names up.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_everywhere_takes_no_look_of_a_name_that_two_networks_ask_for() {
    let origin = origin(Program::Agave).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    let (address, name) = (edge.address, incremental(5000, 6100));
    origin.add(&name, BODY);
    let mut flood = JoinSet::new();
    for number in 0..600_u64 {
        let [.., a, b] = number.to_be_bytes();
        let made_up = Ask::get(format!("/{}", full(10_000 + number)));
        flood.spawn(made_up.sent_from([127, 100 + a, b, 1]).send(address));
    }
    eventually("all looks are taken", || async { edge.probes.refused() > 100 }).await;
    // Whoever asks first may be one too many; whoever asks after that is not.
    let ask = |network| Ask::get(format!("/{name}")).sent_from([127, 9, network, 1]);
    let first = ask(1).send(address).await;
    let second = ask(2).send(address).await;
    assert!(is_whole(&second), "{} after {}", second.head, first.head);
    for answer in flood.join_all().await {
        assert_eq!(answer.status, 404);
    }
}
