//! Targets whose heads are longer than any server's: that costs no client its archive.

use super::super::support::body::Content;
use super::super::support::client::{Ask, Ended};
use super::super::support::edge::{Edge, QUICK};
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::super::support::scripted::{Said, Scripted, listing};
use super::super::support::server::Server;

const CONTENT: Content = Content::framed(3, 200_000);
const TIME: &str = "2026-01-02T03:04:05Z";

/// Fields that make a head too long, and the length of each: the last one has no end in sight.
const HEADS: [(usize, usize); 3] = [(1, 70_000), (90, 1000), (400, 20_000)];

/// A sidecar that lists an archive, and answers everything else under such a head.
async fn talker(name: &str, fields: usize, length: usize) -> Server<Scripted> {
    let name = name.to_owned();
    Server::script(move |request| {
        if request.path() == "/v1/snapshots" {
            return listing(&name, CONTENT.len, TIME);
        }
        let mut said = Said::archive(request, CONTENT, &[]);
        if let Said::Answer(_, headers, _) = &mut said {
            headers.extend((0..fields).map(|_| ("x-long", "y".repeat(length))));
        }
        said
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_long_is_a_targets_failure_and_no_clients() {
    for sharing in ["", "exclusive", "shared"] {
        for (fields, length) in HEADS {
            let (what, name) = (format!("{sharing}, {fields} of {length}"), full(1000));
            let talker = talker(&name, fields, length).await;
            let honest = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
            let directory = tempfile::tempdir().expect("a directory");
            let cache = match sharing {
                "" => String::new(),
                sharing => format!(
                    "proxy_snapshot_cache_dir: '{}'\n\
                     cache: {{sharing: {sharing}, min_free_space: 0B}}",
                    directory.path().display()
                ),
            };
            let targets = format!("'{}', '{}'", talker.address(), honest.address());
            let edge = Edge::start(&format!(
                "{QUICK}{cache}\ntarget_groups:\n  \
                 - {{group: a, static_targets: {{targets: [{targets}]}}}}\n"
            ));
            let archive = name.parse().expect("a name");
            edge.sees("both", |view| view.sources(&archive).len() == 2).await;
            // So many that one of them is sent to the first one for certain.
            for client in 1..=32 {
                for ask in [Ask::get as fn(String) -> Ask, Ask::head] {
                    let answer = edge.ask(ask(format!("/{name}")).from(client)).await;
                    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{what}");
                    assert_eq!(answer.length(), CONTENT.len, "{what}");
                    assert!(answer.head.len() < 4096, "{what}");
                    assert!(answer.body.is_empty() || answer.body == CONTENT.all(), "{what}");
                }
            }
            let heard = talker.heard("GET", &name) + talker.heard("HEAD", &name);
            assert!(heard > 0 || !sharing.is_empty(), "{what}: it was tried");
        }
    }
}
