//! The same name on two origins is not the same bytes, and nobody ever gets a mixture.

use std::collections::BTreeSet;

use super::support::body::Content;
use super::support::client::{Ask, Ended};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program};
use super::support::{eventually, full};

const LENGTH: u64 = 200_000;

async fn two_copies() -> (Origin, Origin, Edge, String) {
    let name = full(1000);
    let a = Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, Content::new(2, LENGTH))]).await;
    let edge = Edge::before(&[&a, &b]).await;
    (a, b, edge, name)
}

/// Which of the two copies a file is; panics for a mixture.
fn whose(file: &[u8]) -> u64 {
    let copies = [1, 2].into_iter().find(|seed| file == Content::new(*seed, LENGTH).all());
    copies.expect("one origin's bytes, all of them")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_broken_and_resumed_downloads_are_all_of_one_copy() {
    let (_a, _b, edge, name) = two_copies().await;
    let mut seen = BTreeSet::new();
    for round in 0..10_u64 {
        for client in 1..=20_u8 {
            // Somewhere else in each of them, both ends included.
            let at = (round * 20 + u64::from(client)) * 997 % (LENGTH - 2) + 1;
            let path = format!("/{name}");
            let cut = Ask::get(&path).from(client).leave_after(at as usize);
            let mut file = edge.ask(cut).await.body;
            file.truncate(at as usize);
            let rest = Ask::get(&path).from(client).with("range", format!("bytes={at}-"));
            let rest = edge.ask(rest).await;
            assert_eq!((rest.status, rest.ended), (206, Ended::Whole), "client {client} at {at}");
            file.extend(rest.body);
            seen.insert(whose(&file));
        }
    }
    assert_eq!(seen.len(), 2, "both origins were used");
}

#[tokio::test(flavor = "multi_thread")]
async fn aria2_style_ranges_of_one_client_are_all_of_one_copy() {
    let (_a, _b, edge, name) = two_copies().await;
    for client in 1..=20 {
        let mut file = Vec::new();
        for start in (0..LENGTH).step_by(12_500) {
            let range = format!("bytes={start}-{}", start + 12_499);
            let ask = Ask::get(format!("/{name}")).from(client).with("range", range);
            let answer = edge.ask(ask).await;
            assert_eq!(answer.status, 206);
            file.extend(answer.body);
        }
        whose(&file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blind_resume_is_refused_when_its_copy_is_gone() {
    let (a, b, edge, name) = two_copies().await;
    let path = format!("/{name}");
    for client in 1..=8 {
        let half = edge.ask(Ask::get(&path).from(client).leave_after(1000)).await;
        let tag = half.header("etag").expect("a tag").to_owned();
        let of_a = Content::new(1, LENGTH).matches(0, &half.body);
        let source = if of_a { &a } else { &b };
        source.stop().await;
        let rest = Ask::get(&path).from(client).with("range", "bytes=1000-");
        let refused = edge.ask(rest.clone()).await;
        assert_eq!(refused.status, 503, "not the other copy's bytes, in no form");
        // Who says which copy it has can be told that it is gone: by all of the other one.
        let whole = edge.ask(rest.clone().with("if-range", &tag)).await;
        assert_eq!((whole.status, whole.length()), (200, LENGTH));
        assert_eq!(whose(&whole.body), if of_a { 2 } else { 1 });
        // And who starts over has a copy that can be resumed again.
        let other = edge.ask(Ask::get(&path).from(client).leave_after(1000)).await;
        let mut file = other.body;
        file.truncate(1000);
        let rest = edge.ask(rest).await;
        assert_eq!(rest.status, 206);
        file.extend(rest.body);
        assert_eq!(whose(&file), if of_a { 2 } else { 1 });
        source.restart().await;
        eventually("both are back", || async {
            let parsed = name.parse().expect("valid");
            edge.view().sources(&parsed).len() == 2
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_tell_the_same_copy() {
    let name = full(1000);
    let a = Origin::run(Program::Agave, &[(&name, Content::new(1, LENGTH))]).await;
    let b = Origin::run(Program::Agave, &[(&name, Content::new(2, LENGTH + 1))]).await;
    let edge = Edge::before(&[&a, &b]).await;
    let mut lengths = BTreeSet::new();
    for client in 1..=20 {
        let head = edge.ask(Ask::head(format!("/{name}")).from(client)).await;
        let get = edge.ask(Ask::get(format!("/{name}")).from(client)).await;
        assert_eq!(head.length(), get.length());
        assert_eq!(head.header("etag"), get.header("etag"));
        lengths.insert(get.length());
    }
    assert_eq!(lengths.len(), 2, "both origins were used");
}
