//! What was cached on the word of one target, and what was not.

use super::*;
use crate::cache;
use crate::support::process::Running;
use crate::support::{full, incremental};

const FAR: u64 = 900_000_000;

/// A cache in this directory, with these settings besides.
pub fn settings(directory: &std::path::Path, settings: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{min_free_space: 0B{settings}}}",
        directory.display()
    )
}

const MODES: [&str; 3] = [
    "",
    ", sharing: shared",
    ", sharing: shared, prefetch: all, publish: promoted, keep_previous: true",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cached_on_one_word_leaves_with_its_target() {
    let (base, first, far) = (full(1000), incremental(1000, 1100), full(FAR));
    for mode in MODES {
        let (honest, liar) = (origin(&[&base, &first]).await, liar(&[&far]).await);
        let directory = tempfile::tempdir().expect("a directory");
        // It is the only one, so that nothing speaks against it.
        let targets = Targets::of(&[&liar]);
        let edge = Edge::start(&targets.config(&settings(directory.path(), mode)));
        offers(&edge, &far, None).await;
        eventually("it is cached", || async {
            let answer = edge.get(&format!("/{far}")).await;
            answer.header("cache-status") == Some("snapedge; hit")
        })
        .await;
        targets.are(&[&honest, &liar]);
        offers(&edge, &base, Some(&first)).await;
        assert_unnamed(&edge, &far).await;
        targets.are(&[&honest]);
        eventually("its files have gone", || async {
            !cache::files(directory.path()).iter().any(|file| file.starts_with(&far))
        })
        .await;
        offers(&edge, &base, Some(&first)).await;
        eventually("nobody has it", || async { edge.get(&format!("/{far}")).await.status == 404 })
            .await;
        assert_eq!(newest(&edge).await, 1100, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_nothing_back_that_has_no_support() {
    let (base, first, far) = (full(1000), incremental(1000, 1100), full(FAR));
    for mode in MODES {
        let (honest, liar) = (origin(&[&base, &first]).await, liar(&[&far]).await);
        let directory = tempfile::tempdir().expect("a directory");
        let cache = settings(directory.path(), mode);
        let alone = Targets::of(&[&liar]);
        let running = Running::start(&alone.config_of_process(&cache)).await;
        eventually("it is cached", || async {
            let answer = Ask::get(format!("/{far}")).send(running.address).await;
            answer.header("cache-status") == Some("snapedge; hit")
        })
        .await;
        running.kill();
        // After all that, a target that is honest and one that is down.
        let gone = origin(&[]).await;
        gone.stop().await;
        let targets = Targets::of(&[&honest, &gone]);
        let running = Running::start(&targets.config_of_process(&cache)).await;
        eventually("what is honest is offered", || async {
            let answer = Ask::head(INCREMENTAL_FORM).send(running.address).await;
            answer.header("location") == Some(&format!("/{first}"))
        })
        .await;
        eventually("its files have gone", || async {
            !cache::files(directory.path()).iter().any(|file| file.starts_with(&far))
        })
        .await;
        let removed = format!("removed {far}: its target has gone");
        eventually("and it is said", || async { running.log().contains(&removed) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_that_answers_first_after_a_restart_throws_nothing_out() {
    let (base, first, far) = (full(1000), incremental(1000, 1100), full(FAR));
    for mode in MODES {
        let (honest, liar) = (origin(&[&base, &first]).await, liar(&[&far, &base]).await);
        let directory = tempfile::tempdir().expect("a directory");
        let cache = settings(directory.path(), mode);
        let targets = Targets::of(&[&honest, &liar]);
        let running = Running::start(&targets.config_of_process(&cache)).await;
        for name in [&base, &first] {
            eventually("it is cached", || async {
                let answer = Ask::get(format!("/{name}")).send(running.address).await;
                answer.header("cache-status") == Some("snapedge; hit")
            })
            .await;
        }
        running.kill();
        let before = cache::files(directory.path());
        // One is down, the other one answers; for the edge that is all it knows.
        honest.stop().await;
        let running = Running::start(&targets.config_of_process(&cache)).await;
        let seen = liar.seen().len();
        eventually("several probes", || async { liar.seen().len() > seen + 5 }).await;
        for form in [FULL_FORM, INCREMENTAL_FORM] {
            let answer = Ask::head(form).send(running.address).await;
            let location = answer.header("location").unwrap_or_default();
            assert!([&base, &first].iter().any(|name| location.ends_with(&***name)), "{location}");
        }
        let answer = Ask::get(format!("/{far}")).send(running.address).await;
        assert_eq!(answer.status, 200, "by its name it can be had");
        assert_eq!(cache::files(directory.path()), before, "{mode}");
    }
}
