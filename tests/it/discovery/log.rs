//! What the log says of sources that fail, and what it never says.

use super::*;
use crate::support::consul::{Consul, Instance, SERVICE};
use crate::support::listing::Listing;
use crate::support::process::Running;
use crate::support::trouble::Trouble;

const SECRET: &str = "hush-4711";

/// Waits until the process has logged `text` so many times.
async fn logs(running: &Running, text: &str, times: usize) {
    eventually(&format!("{times} times `{text}`"), || async {
        running.log().matches(text).count() >= times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_logged_when_it_begins_and_when_it_ends_and_no_secret_ever() {
    let a = origin(1000).await;
    let (listing, consul) = (Listing::run().await, Consul::run().await);
    listing.name(addresses(&[&a]));
    consul.change(|state| state.token = Some(SECRET.to_owned()));
    consul.set(vec![Instance::at(a.address())]);
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, SECRET).expect("written");
    let (web, host) = (listing.address(), consul.address());
    let running = Running::start(&format!(
        "scrape_interval: 100ms\nlog: {{level: trace}}\ntarget_groups:\n\
         - group: a\n  \
           http_targets: {{url: 'http://u:{SECRET}@{web}/{SECRET}?key={SECRET}'}}\n  \
           consul_sd_config: {{host: '{host}', service: {SERVICE}, token: {SECRET}}}\n\
         - group: b\n  \
           consul_sd_config: {{host: '{host}', service: {SERVICE}, token_file: '{}'}}\n",
        token.display()
    ))
    .await;
    let path = format!("/{}", full(1000));
    eventually("the archive is known", || async {
        Ask::head(&path).send(running.address).await.status == 200
    })
    .await;
    let web = format!("`http_targets` `http://{web}`");
    let host = format!("`consul_sd_config` `http://{host}`");
    let mut failures = 0;
    for trouble in [Trouble::Status(500), Trouble::Body("<html>"), Trouble::CutShort] {
        failures += 1;
        listing.trouble(trouble.clone());
        consul.trouble(trouble);
        logs(&running, &format!("group `a` keeps what {web} named last: "), failures).await;
        logs(&running, &format!("keeps what {host} named last: "), 2 * failures).await;
        // More than one look each.
        let seen = (listing.seen().len(), consul.seen().len());
        eventually("they are asked again", || async {
            listing.seen().len() > seen.0 && consul.seen().len() > seen.1 + 1
        })
        .await;
        listing.trouble(None);
        consul.trouble(None);
        logs(&running, &format!("group `a`: {web} names targets again"), failures).await;
        logs(&running, &format!("{host} names targets again"), 2 * failures).await;
    }
    consul.stop().await;
    listing.stop().await;
    logs(&running, &format!("keeps what {web} named last: GET `"), 1).await;
    logs(&running, &format!("keeps what {host} named last: GET `"), 2).await;
    let log = running.kill();
    for (text, times) in [
        (format!("keeps what {web} named last: "), 4),
        (format!("{web} names targets again"), 3),
        (format!("keeps what {host} named last: "), 8),
        (format!("{host} names targets again"), 6),
    ] {
        assert_eq!(log.matches(&text).count(), times, "`{text}` in\n{log}");
    }
    assert!(log.contains("TRACE"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
    // `u:` and the secret, in base64.
    assert!(!log.contains("dTpodXNoLTQ3MTE"), "{log}");
}
