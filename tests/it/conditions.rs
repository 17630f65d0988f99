//! Conditions of RFC 9110, section 13, wherever the bytes would come from, and what a request costs
//! that does not meet them: nothing.

use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::{Edge, config};
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full};

const CONTENT: Content = Content::framed(5, 300_000);
const HIT: &str = "snapedge; hit";

/// Where the bytes would come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A target, without a cache.
    Target,
    /// The same, and it would fill the cache on the way.
    Fill,
    /// The same, and a shared fetch would be begun.
    Order,
    /// An archive that is being fetched for everyone.
    Growing,
    /// The cache, in each of its modes.
    Cached,
    Shared,
    /// The generation before, which no target has any more.
    Previous,
    Directory,
}

impl Place {
    const ALL: [Self; 8] = [
        Self::Target,
        Self::Fill,
        Self::Order,
        Self::Growing,
        Self::Cached,
        Self::Shared,
        Self::Previous,
        Self::Directory,
    ];

    /// What is said of a 304 or 412.
    fn status(self) -> &'static str {
        match self {
            Self::Target | Self::Fill | Self::Order => "snapedge; fwd=bypass; detail=condition",
            Self::Growing => "snapedge; fwd=miss; collapsed",
            Self::Cached | Self::Shared | Self::Previous => HIT,
            Self::Directory => "snapedge; hit; detail=ledger",
        }
    }
}

struct Scene {
    place: Place,
    edge: Edge,
    origin: Origin,
    name: String,
    tag: String,
    date: String,
    directory: TempDir,
}

fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

impl Scene {
    async fn new(place: Place) -> Self {
        let (name, directory) = (full(1000), tempfile::tempdir().expect("a directory"));
        let on_origin = [(&*name, CONTENT)];
        let on_origin = if place == Place::Directory { &[][..] } else { &on_origin[..] };
        let origin = Origin::run(Program::Sidecar, on_origin).await;
        let path = directory.path().display();
        let cache = |more: &str| {
            format!(
                "proxy_snapshot_cache_dir: '{path}'\n\
                 cache: {{min_free_space: 0B, verify: length{more}}}"
            )
        };
        let edge = match place {
            Place::Target => Edge::with("", &[&origin]).await,
            Place::Fill | Place::Cached => Edge::with(&cache(""), &[&origin]).await,
            Place::Order | Place::Growing | Place::Shared => {
                Edge::with(&cache(", sharing: shared"), &[&origin]).await
            }
            Place::Previous => {
                let more = ", sharing: shared, keep_previous: true, lease: 1h";
                Edge::with(&cache(more), &[&origin]).await
            }
            Place::Directory => {
                std::fs::write(directory.path().join(&name), CONTENT.all()).expect("written");
                let text = config("", &[&[]]).replace(
                    "static_targets: {targets: []}",
                    &format!("ledger_targets: {{paths: ['{path}']}}"),
                );
                let edge = Edge::start(&text);
                let archive = name.parse().expect("a name");
                edge.sees("the file", |view| !view.sources(&archive).is_empty()).await;
                edge
            }
        };
        let known = edge.ask(Ask::head(format!("/{name}"))).await;
        let header = |name: &str| known.header(name).expect("told").to_owned();
        let (tag, date) = (header("etag"), header("last-modified"));
        let scene = Self { place, edge, origin, name, tag, date, directory };
        scene.prepare().await;
        scene
    }

    /// Brings the bytes to their place.
    async fn prepare(&self) {
        match self.place {
            Place::Target | Place::Fill | Place::Order | Place::Directory => return,
            Place::Growing => {
                self.origin.fail(Fault::Hold(CONTENT.len / 2));
                self.edge.ask(get(&self.name).from(9).leave_after(1000)).await;
                return;
            }
            Place::Cached | Place::Shared | Place::Previous => {}
        }
        eventually("it is cached", || async {
            self.edge.ask(get(&self.name)).await.header("cache-status") == Some(HIT)
        })
        .await;
        if self.place == Place::Previous {
            self.origin.add(&full(2000), CONTENT);
            self.origin.remove(&self.name);
            self.edge.knows(&self.origin).await;
            let gone = self.name.parse().expect("a name");
            self.edge.sees("no target has it", |view| view.sources(&gone).is_empty()).await;
        }
    }

    /// The answer, and all that came with it until the connection ended.
    async fn ask(&self, mut ask: Ask, headers: &[(&str, &str)]) -> Answer {
        let day = "Sun, 20 Sep 2015 14:13:20 GMT";
        for (name, value) in headers {
            let value = value.replace("OURS", &self.tag).replace("DATE", &self.date);
            ask = ask.with(name, value.replace("BEFORE", day));
        }
        let (mut answer, mut stream) =
            ask.with("connection", "close").begin(self.edge.address).await;
        if answer.status >= 300 {
            stream.read_to_end(&mut answer.body).await.expect("an end");
        }
        answer
    }

    /// What the origin was asked for, and what is on disk.
    fn cost(&self) -> (usize, u64, usize) {
        let files = self.directory.path().read_dir().expect("a directory").count();
        (self.origin.asked("GET", &self.name), self.origin.sent(), files)
    }
}

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

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_wherever_the_bytes_come_from_and_cost_no_archive() {
    for place in Place::ALL {
        let scene = Scene::new(place).await;
        let before = scene.cost();
        for (headers, status) in UNMET {
            for ask in [get(&scene.name), Ask::head(format!("/{}", scene.name))] {
                let what = format!("{place:?} {headers:?} {ask:?}");
                let answer = scene.ask(ask, headers).await;
                assert_eq!(answer.status, status, "{what}: {}", answer.head);
                assert_eq!(answer.header("etag"), Some(&*scene.tag), "{what}");
                assert_eq!(answer.header("last-modified"), Some(&*scene.date), "{what}");
                if status == 304 {
                    assert_eq!(
                        (answer.header("content-length"), &answer.body[..]),
                        (None, &b""[..])
                    );
                } else {
                    assert!(answer.body.len() < 200, "{what}");
                }
                let is_head = what.contains("HEAD") && place == Place::Growing;
                assert!(is_head || answer.header("cache-status") == Some(place.status()), "{what}");
            }
        }
        assert_eq!(scene.cost(), before, "{place:?}: nothing was fetched, and nothing begun");
        for headers in MET {
            let head = scene.ask(Ask::head(format!("/{}", scene.name)), headers).await;
            assert_eq!(head.status, 200, "{place:?} {headers:?}");
        }
        // At last, since what is cold is not after that.
        for headers in MET {
            let headers = [headers, &[("range", "bytes=5-9")]].concat();
            let part = scene.ask(get(&scene.name), &headers).await;
            assert_eq!(part.status, 206, "{place:?} {headers:?}: {}", part.head);
            let whole = scene.ask(get(&scene.name), &headers[..headers.len() - 1]).await;
            assert_eq!(whole.status, 200, "{place:?} {headers:?}: {}", whole.head);
        }
        scene.origin.fail(None);
    }
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
