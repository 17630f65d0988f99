//! Clients that show who they are.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::support::client::Ask;
use crate::support::process::Running;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn users(all: &[(&str, &str)]) -> String {
    let line = |(user, password): &(&str, &str)| {
        format!("{user}:{}\n", bcrypt::hash(password, 4).expect("a hash"))
    };
    all.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_for_those_who_show_a_password_or_a_token() {
    let content = Content::new(1, 1000);
    let origin = Origin::run(Program::Agave, &[(&full(1000), content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    fs::write(path("users"), users(&[("ann", "one")])).expect("written");
    fs::write(path("token"), "secret\n").expect("written");
    let text = format!(
        "scrape_interval: 100ms\nauth: {{basic: {{htpasswd_file: '{}'}}, bearer: {{token_files: \
         ['{}']}}, open: [short_forms, health]}}\ntarget_groups: [{{group: a, static_targets: \
         {{targets: ['{}']}}}}]\n",
        path("users").display(),
        path("token").display(),
        origin.address()
    );
    let running = Running::start(&text).await;
    running.offers("/snapshot.tar.bz2").await;
    let get = |path: &str, shown: Option<&str>| {
        let ask = Ask::get(path);
        let ask = shown.map_or(ask.clone(), |shown| ask.with("authorization", shown));
        ask.send(running.address)
    };
    let archive = format!("/{}", full(1000));
    for (shown, status) in [
        (None, 401),
        (Some("Bearer secret"), 200),
        (Some("Bearer other"), 401),
        (Some(&*basic("ann", "one")), 200),
        (Some(&*basic("ann", "two")), 401),
        (Some(&*basic("bob", "one")), 401),
    ] {
        let answer = get(&archive, shown).await;
        assert_eq!(answer.status, status, "{shown:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    let refused = get(&archive, None).await;
    assert!(refused.head.contains("www-authenticate: Basic realm="), "{}", refused.head);
    assert!(refused.head.contains("www-authenticate: Bearer realm="), "{}", refused.head);
    for (path, status) in
        [("/snapshot.tar.bz2", 303), ("/health", 200), ("/v1/snapshots", 401), ("/nothing", 401)]
    {
        assert_eq!(get(path, None).await.status, status, "{path}");
    }
    // What a client shows is none of a target's business.
    assert!(origin.seen().iter().all(|request| request.header("authorization").is_none()));
    // Both files are followed.
    fs::write(path("users"), users(&[("ann", "two"), ("bob", "three")])).expect("written");
    fs::write(path("token"), "newer\n").expect("written");
    eventually("both are read again", || async {
        let shown =
            ["Bearer newer", &basic("bob", "three"), &basic("ann", "two")].map(str::to_owned);
        let mut good = true;
        for shown in shown {
            good &= get(&archive, Some(&shown)).await.status == 200;
        }
        good
    })
    .await;
    for shown in ["Bearer secret".to_owned(), basic("ann", "one")] {
        let status = get(&archive, Some(&shown)).await.status;
        // Guesses are counted, too.
        assert!(matches!(status, 401 | 429), "{shown}: {status}");
    }
    assert!(!running.log().contains("secret") && !running.log().contains("$2"));
}
