//! Conditions of RFC 9110, section 13, wherever the bytes would come from, and what a request costs
//! that does not meet them: nothing.

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::full;
use super::support::origin::{Origin, Program};
use super::support::scene::{CONTENT, Place, Scene, get};

/// Conditions that are not met, and what is answered.
const UNMET: [(&[(&str, &str)], u16); 16] = [
    (&[("if-match", "\"x\"")], 412),
    (&[("if-match", "W/OURS")], 412),
    (&[("if-match", "\"x\""), ("if-match", "\"y\"")], 412),
    (&[("if-match", "\"x\""), ("if-unmodified-since", "DATE")], 412),
    (&[("if-match", "\"x\""), ("if-none-match", "OURS")], 412),
    (&[("if-match", "\"x\""), ("range", "bytes=5-9")], 412),
    (&[("if-unmodified-since", "BEFORE")], 412),
    (&[("if-unmodified-since", "BEFORE"), ("range", "bytes=5-9")], 412),
    (&[("if-none-match", "OURS")], 304),
    (&[("if-none-match", "W/OURS")], 304),
    (&[("if-none-match", "\"x\", OURS")], 304),
    (&[("if-none-match", "\"x\""), ("if-none-match", "W/OURS")], 304),
    (&[("if-none-match", "*")], 304),
    (&[("if-modified-since", "DATE")], 304),
    (&[("if-match", "OURS"), ("if-none-match", "OURS"), ("range", "bytes=5-9")], 304),
    (&[("if-modified-since", "DATE"), ("range", "bytes=5-9"), ("if-range", "OURS")], 304),
];

/// Conditions that are met, or are none.
const MET: [&[(&str, &str)]; 10] = [
    &[("if-match", "OURS")],
    &[("if-match", "*")],
    &[("if-match", "\"x\", OURS"), ("if-unmodified-since", "BEFORE")],
    &[("if-match", "\"x\""), ("if-match", "OURS")],
    &[("if-unmodified-since", "DATE")],
    &[("if-unmodified-since", "yesterday")],
    &[("if-none-match", "\"x\""), ("if-modified-since", "DATE")],
    &[("if-none-match", "nonsense")],
    &[("if-modified-since", "BEFORE")],
    &[("if-modified-since", "DATE"), ("if-modified-since", "DATE")],
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    H1,
    H2,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::H1, Self::H2];

    async fn ask(self, scene: &Scene, ask: Ask, headers: &[(&str, &str)]) -> Answer {
        match self {
            Self::H1 => scene.ask(ask, headers).await,
            Self::H2 => scene.ask_over_h2(ask, headers).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_wherever_the_bytes_come_from_and_cost_no_archive() {
    for place in Place::ALL {
        let scene = Scene::with(place, "server: {h2c: true}").await;
        let before = scene.cost();
        for protocol in Protocol::ALL {
            for (headers, status) in UNMET {
                for ask in [get(&scene.name), Ask::head(format!("/{}", scene.name))] {
                    is_unmet(&scene, protocol, ask, headers, status).await;
                }
            }
        }
        assert_eq!(scene.cost(), before, "{place:?}: nothing was fetched, and nothing begun");
        for (protocol, headers) in met() {
            let head = Ask::head(format!("/{}", scene.name));
            let head = protocol.ask(&scene, head, headers).await;
            assert_eq!(head.status, 200, "{place:?} {protocol:?} {headers:?}");
        }
        // At last, since what is cold is not after that.
        for (protocol, headers) in met() {
            let what = format!("{place:?} {protocol:?} {headers:?}");
            let ranged = [headers, &[("range", "bytes=5-9")]].concat();
            let part = protocol.ask(&scene, get(&scene.name), &ranged).await;
            assert_eq!(part.status, 206, "{what}: {}", part.head);
            let whole = protocol.ask(&scene, get(&scene.name), headers).await;
            assert_eq!(whole.status, 200, "{what}: {}", whole.head);
        }
        scene.origin.fail(None);
    }
}

fn met() -> impl Iterator<Item = (Protocol, &'static [(&'static str, &'static str)])> {
    Protocol::ALL.into_iter().flat_map(|protocol| MET.map(|headers| (protocol, headers)))
}

async fn is_unmet(
    scene: &Scene,
    protocol: Protocol,
    ask: Ask,
    headers: &[(&str, &str)],
    status: u16,
) {
    let what = format!("{:?} {protocol:?} {headers:?} {ask:?}", scene.place);
    let answer = protocol.ask(scene, ask, headers).await;
    assert_eq!(answer.status, status, "{what}: {}", answer.head);
    assert_eq!(answer.header("etag"), Some(&*scene.tag), "{what}");
    assert_eq!(answer.header("last-modified"), Some(&*scene.date), "{what}");
    if status == 304 {
        assert_eq!((answer.header("content-length"), &answer.body[..]), (None, &b""[..]));
    } else {
        assert!(answer.body.len() < 200, "{what}");
    }
    let is_head = what.contains("HEAD") && scene.place == Place::Growing;
    assert!(is_head || answer.header("cache-status") == Some(scene.place.status()), "{what}");
}

/// `wget -N` and `curl -z` say the time that they were told, `curl --etag-compare` the tag.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_fetched_again_from_a_target_that_answers_no_head() {
    let name = full(1000);
    for (heads, gets) in [(200, 0), (404, 1), (405, 1), (500, 1), (403, 1)] {
        let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
        let edge = Edge::with("", &[&origin]).await;
        let first = edge.ask(get(&name)).await;
        assert!(first.body == CONTENT.all());
        if heads != 200 {
            origin.fail_heads(heads);
        }
        let header = |name: &str| first.header(name).expect("told").to_owned();
        let rows = [
            ("if-modified-since", header("last-modified")),
            ("if-none-match", header("etag")),
            ("if-none-match", format!("W/{}", header("etag"))),
        ];
        for (at, (name_of, value)) in rows.iter().enumerate() {
            let same = edge.ask(get(&name).with(name_of, value).leave_after(0)).await;
            assert_eq!(same.status, 304, "{heads} {name_of}: {}", same.head);
            assert_eq!(origin.asked("GET", &name), 1 + gets * (at + 1), "{heads}");
        }
        // That is nothing against the target, nor is what it did not have to send.
        for _ in 0..3 {
            let whole = edge.ask(get(&name)).await;
            assert!(whole.body == CONTENT.all(), "{heads}: {}", whole.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_together_under_if_match_is_never_a_mixture() {
    let name = full(1000);
    let copies = [CONTENT, Content { seed: 6, ..CONTENT }];
    let a = Origin::run(Program::Sidecar, &[(&name, copies[0])]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, copies[1])]).await;
    let edge = Edge::with("", &[&a, &b]).await;
    let mut met = [0; 2];
    for client in 1..=20 {
        let first = edge.ask(get(&name).from(client).with("range", "bytes=0-99999")).await;
        let whose = copies.iter().position(|copy| copy.matches(0, &first.body)).expect("a copy");
        met[whose] += 1;
        let tag = first.header("etag").expect("a tag");
        // From another address, to which the other copy may be given.
        let rest = get(&name).from(client + 100).with("if-match", tag);
        let rest = edge.ask(rest.with("range", "bytes=100000-")).await;
        assert_eq!(rest.status, 206, "the tag leads to its copy");
        assert!([first.body, rest.body].concat() == copies[whose].all(), "{client}");
    }
    assert!(met[0] > 0 && met[1] > 0, "{met:?}");
    // Once one of them is gone, its tag leads nowhere, and not to the other one.
    let first = edge.ask(get(&name).from(1)).await;
    let whose = copies.iter().position(|copy| copy.matches(0, &first.body)).expect("a copy");
    let tag = first.header("etag").expect("a tag").to_owned();
    [&a, &b][whose].remove(&name);
    for (from, range) in [(1, "bytes=7-"), (2, "bytes=0-9"), (3, "bytes=-5"), (4, "bytes=0-")] {
        let part = get(&name).from(from + 100).with("if-match", &tag).with("range", range);
        let part = edge.ask(part).await;
        assert_eq!(part.status, 412, "{range}: {}", part.head);
    }
    let head = Ask::head(format!("/{name}")).from(105).with("if-match", &tag);
    assert_eq!(edge.ask(head).await.status, 412);
}
