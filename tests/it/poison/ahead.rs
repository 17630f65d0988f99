//! Slots that the cluster has not reached.

use super::*;
use crate::cache;
use crate::support::process::Running;
use crate::support::{full, incremental};

const FAR: u64 = 900_000_000;

/// What one target claims that no other does.
fn lies() -> Vec<Vec<String>> {
    vec![
        vec![full(FAR), incremental(FAR, FAR + 100)],
        vec![incremental(1000, u64::MAX)],
        vec![full(500_000)],
        vec![full(u64::MAX), incremental(1000, 100_000)],
    ]
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// How an edge may be set up; of a cache what is set besides.
const MODES: [Result<&str, &str>; 5] = [
    Err(""),
    Err("proxy_snapshot_downloads: false"),
    Ok(""),
    Ok(", sharing: shared, prefetch: all"),
    Ok(", sharing: shared, prefetch: all, publish: promoted, keep_previous: true"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_one_target_alone_claims_is_offered_in_no_mode() {
    let (base, first, second) = (full(1000), incremental(1000, 1100), incremental(1000, 1200));
    for (at, lies) in lies().iter().enumerate() {
        let honest = origin(&[&base, &first]).await;
        let liar = liar(&[&refs(lies)[..], &[&base, &first]].concat()).await;
        // Each lie in some of the modes, and each mode with some of the lies.
        for mode in MODES.iter().skip(at % 2).step_by(2) {
            let directory = tempfile::tempdir().expect("a directory");
            let settings = mode.map_or_else(str::to_owned, |settings| {
                cached::settings(directory.path(), settings)
            });
            honest.remove(&second);
            let edge = Edge::with(&settings, &[&honest, &liar]).await;
            offers(&edge, &base, Some(&first)).await;
            for name in lies {
                assert_unnamed(&edge, name).await;
                let answer = edge.get(&format!("/{name}")).await;
                assert!(matches!(answer.status, 200 | 307), "{settings}: {}", answer.head);
                let cached = cache::files(directory.path());
                assert!(!cached.iter().any(|file| file.starts_with(&**name)), "{cached:?}");
            }
            assert_eq!(newest(&edge).await, 1100, "{settings}");
            assert_eq!(edge.get("/health").await.body, b"ok");
            // What is honest goes on.
            honest.add(&second, INCREMENTAL);
            offers(&edge, &base, Some(&second)).await;
            assert_eq!(newest(&edge).await, 1200, "{settings}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_target_or_trust_supports_it() {
    let (base, far) = (full(1000), full(FAR));
    let (honest, first) = (origin(&[&base]).await, liar(&[&far]).await);
    let second = liar(&[&full(FAR + 900)]).await;
    let targets = Targets::of(&[&honest, &first]);
    let edge = Edge::start(&targets.config(""));
    edge.knows(&honest).await;
    edge.knows(&first).await;
    offers(&edge, &base, None).await;
    targets.are(&[&honest, &first, &second]);
    offers(&edge, &full(FAR + 900), None).await;
    targets.are(&[&honest, &second]);
    offers(&edge, &base, None).await;
    for trusted in ["true".to_owned(), format!("['{}']", first.address())] {
        let targets = Targets::of(&[&honest, &first]);
        let config =
            targets.config("").replace("group: a,", &format!("group: a, trusted: {trusted},"));
        let edge = Edge::start(&config);
        offers(&edge, &far, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_reference_node_nothing_is_offered_that_is_too_far_ahead_of_it() {
    // Its slot is 1150.
    let node = Origin::run(Program::Agave, &[(&full(1140), FULL)]).await;
    let url = format!("rpc: http://{}", node.address());
    let (base, far) = (full(1000), full(FAR));
    let (honest, one, two) = (origin(&[&base]).await, liar(&[&far]).await, liar(&[&far]).await);
    let edge = Edge::with(&url, &[&honest, &one, &two]).await;
    offers(&edge, &base, None).await;
    assert_unnamed(&edge, &far).await;
    assert_eq!(newest(&edge).await, 1000);
    // Alone it is offered as little.
    let edge = Edge::with(&url, &[&one]).await;
    eventually("nothing is offered", || async { location(&edge, FULL_FORM).await.is_none() }).await;
    assert_eq!(edge.get("/v1/health").await.status, 500);
    let (near, more) = (full(2150), full(2151));
    honest.add(&near, FULL);
    honest.add(&more, FULL);
    let edge = Edge::with(&url, &[&honest, &two]).await;
    offers(&edge, &near, None).await;
    let edge = Edge::with(&format!("{url}\nmax_slot_lead: 1001"), &[&honest, &two]).await;
    offers(&edge, &more, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_too_far_ahead_has_one_line() {
    let (base, far) = (full(1000), full(FAR));
    let (honest, liar) = (origin(&[&base]).await, liar(&[&far]).await);
    let targets = Targets::of(&[&honest, &liar]);
    let running = Running::start(&targets.config_of_process("")).await;
    let warning = format!("target {} in `a` lists {far} at slot {FAR}", liar.address());
    eventually("it is said", || async { running.log().contains(&warning) }).await;
    for slot in 1..4 {
        liar.add(&full(FAR + slot), LIE);
        let before = liar.seen().len();
        eventually("more probes", || async { liar.seen().len() > before + 2 }).await;
    }
    liar.remove(&far);
    (1..4).for_each(|slot| liar.remove(&full(FAR + slot)));
    let over = format!("target {} in `a` lists nothing that is too far ahead", liar.address());
    eventually("so is the end", || async { running.log().contains(&over) }).await;
    let log = running.kill();
    assert_eq!(log.matches("too far ahead").count() + log.matches("farther ahead").count(), 2);
    assert!(log.contains("set `rpc`") && log.contains("(slot 2"), "{log}");
}
