//! What is kept of whom, and for how long.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::index::TargetId;
use crate::route::{Asked, ByteRange, RangeRequest};

const MEMORY: Duration = Duration::from_secs(600);
const LENGTH: u64 = 1000;

fn name(slot: usize) -> ArchiveName {
    format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
}

fn given(authority: &str) -> Arc<PinnedCopy> {
    let target = TargetId { group: "g".into(), authority: authority.into() };
    Arc::new(PinnedCopy { copy: CopyId::new(authority, 1, None), target })
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(number))
}

fn portion(range: &str) -> Portion {
    Portion::of(&RangeRequest::parse(range))
}

/// An answer to a client, all of an archive, of which so many bytes are handed over.
fn give(table: &Arc<AffinityTable>, client: IpAddr, name: ArchiveName, bytes: usize, now: Instant) {
    let part = Part::of_file(given("a:1"), LENGTH, &Asked::all(http::Method::GET));
    let delivery = table.begin(client, name, Some(portion("")), part, now).expect("a new start");
    delivery.pass(bytes);
    if bytes as u64 >= LENGTH {
        delivery.complete(None);
    }
}

fn is_bound(table: &AffinityTable, client: IpAddr, name: ArchiveName, now: Instant) -> bool {
    let affinity = table.affinity(client, name, Some(portion("bytes=5-")), |_| false, now);
    affinity == Affinity::Pinned(given("a:1"))
}

#[test]
fn an_unfinished_file_is_remembered_for_its_time_and_by_its_address() {
    let (table, now) = (AffinityTable::new(MEMORY), Instant::now());
    give(&table, client(1), name(1), 10, now);
    give(&table, client(2), name(1), 1000, now);
    assert!(is_bound(&table, client(1), name(1), now));
    let mapped = IpAddr::V6(Ipv4Addr::from(1).to_ipv6_mapped());
    assert!(is_bound(&table, mapped, name(1), now));
    assert!(!is_bound(&table, client(2), name(1), now), "it has all of it");
    assert!(!is_bound(&table, client(1), name(2), now));
    assert_eq!(table.archive(client(1), Wanted::Full, now), Some(name(1)));
    assert_eq!(table.archive(client(1), Wanted::Incremental, now), None);
    assert_eq!(table.archive(client(2), Wanted::Full, now), None);
    let later = Instant::now() + MEMORY;
    assert!(!is_bound(&table, client(1), name(1), later));
    assert_eq!(table.archive(client(1), Wanted::Full, later), None);
}

#[test]
fn an_answer_that_is_dropped_was_broken_off() {
    let (table, now) = (AffinityTable::new(MEMORY), Instant::now());
    let range = ByteRange::new(0, LENGTH).expect("bytes");
    let part = Part { given: given("a:1"), length: Some(LENGTH), ranges: vec![range] };
    let delivery =
        table.begin(client(1), name(1), Some(portion("")), part, now).expect("a new start");
    assert_eq!(table.archive(client(1), Wanted::Full, now), Some(name(1)));
    drop(delivery);
    assert_eq!(table.archive(client(1), Wanted::Full, now), None, "no byte was handed over");
}

#[test]
fn an_announcement_binds_nobody() {
    let (table, now) = (AffinityTable::new(MEMORY), Instant::now());
    table.announce(client(1), name(1), given("b:1"), now);
    let affinity =
        |now| table.affinity(client(1), name(1), Some(portion("bytes=5-")), |_| false, now);
    assert_eq!(affinity(now), Affinity::Announced(given("b:1")));
    assert_eq!(affinity(now + MEMORY), Affinity::Fresh);
    table.miss(client(1), name(1), now);
    table.miss(client(9), name(1), now);
}

#[test]
fn a_stranger_pushes_out_nothing_but_its_own() {
    let (table, now) = (AffinityTable::new(MEMORY), Instant::now());
    give(&table, client(1), name(1), 10, now);
    // One host has all addresses of a network of 64 bits.
    let host =
        |number: u64| IpAddr::V6(Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(number)));
    for number in 0..1000 {
        let later = now + Duration::from_millis(number);
        give(&table, host(number), name(2), 10, later);
    }
    let later = now + Duration::from_secs(1);
    assert!(is_bound(&table, client(1), name(1), later));
    assert!(is_bound(&table, host(999), name(2), later));
    assert!(!is_bound(&table, host(0), name(2), later));
    assert_eq!(table.lock().entries[&ClientNet::of(host(0))].len(), MAX_ARCHIVES);
}

#[test]
fn the_memory_is_bounded() {
    let (table, now) = (AffinityTable::new(MEMORY), Instant::now());
    let most = u32::try_from(MAX_CLIENTS).expect("small");
    for number in 0..most + 1000 {
        table.announce(
            client(number),
            name(1),
            given("b:1"),
            now + Duration::from_micros(number.into()),
        );
    }
    assert!(table.lock().entries.len() <= MAX_CLIENTS);
    let told = |number| {
        let affinity = table.affinity(client(number), name(1), Some(portion("")), |_| false, now);
        affinity != Affinity::Fresh
    };
    assert!(told(most + 999) && told(most - 1) && !told(0), "the oldest go first");
    // What is over goes before that.
    let later = now + 2 * MEMORY;
    for number in 0..2 * most {
        table.announce(client(number), name(1), given("b:1"), later);
    }
    assert!(table.lock().entries.len() <= MAX_CLIENTS);
}
