//! Files that the Go tracker reads, with its meaning: one group in several entries, empty texts for
//! what is not set, a target twice, numbers as secrets, seconds as a number.

use std::time::Duration;

use super::{accept, good, reject, reject_file, reject_in_group};
use crate::config::{Balance, Credentials, Group, Kept, Scheme, Secret, TargetKind, Token};

/// The groups of a file.
fn groups(text: &str) -> Vec<Group> {
    good(&format!("target_groups:\n{text}")).groups
}

/// The one group with `text` beside its name and a target.
fn group(text: &str) -> Group {
    groups(&format!("- {{group: a, static_targets: {{targets: ['a:1']}}, {text}}}\n")).remove(0)
}

fn basic(username: &str, password: &str) -> Credentials {
    let password = Kept::Here(Secret::new(password));
    Credentials::Basic { username: username.to_owned(), password }
}

fn bearer(token: &str) -> Credentials {
    Credentials::Bearer(Kept::Here(Secret::new(token)))
}

#[test]
fn entries_of_one_name_are_one_group() {
    let text = "\
target_groups:
- group: main
  basic_auth: {username: u, password: p}
  static_targets: {targets: ['a:1', 'b:1']}
- group: test
  static_targets: {targets: ['a:1']}
- group: main
  scheme: https
  api_path: /x
  kind: sidecar
  balance: pinned
  bearer_auth: {token: t}
  static_targets: {targets: ['b:1', 'c:1']}
- group: main
  file_targets: {path: /t}
";
    let config = good(text);
    let names = config.group_names();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["main", "test"]);
    let [first, _, second, third] = &config.groups[..] else { panic!("{:?}", config.groups) };
    let way = |group: &Group| (group.scheme, group.kind, group.credentials.clone());
    assert_eq!(way(first), (Scheme::Http, TargetKind::Auto, Some(basic("u", "p"))));
    assert_eq!(way(second), (Scheme::Https, TargetKind::Sidecar, Some(bearer("t"))));
    assert_eq!(way(third), (Scheme::Http, TargetKind::Auto, None));
    assert_eq!((first.sources.static_targets.len(), second.sources.static_targets.len()), (2, 2));
    assert_eq!(second.api_path, "/x");
    // One choice among all of its targets, whichever entry says how.
    for group in [first, second, third] {
        assert_eq!(group.balance, Balance::Pinned);
    }
    assert_eq!(config.groups[1].balance, Balance::default());
    assert_eq!(good(&format!("default_group: main\n{text}")).groups, config.groups);
}

#[test]
fn what_entries_of_one_group_cannot_share_is_rejected() {
    let entry = |text: &str| format!("- {{group: a, {text}}}\n");
    let target = "static_targets: {targets: ['a:1']}";
    let file = |entries: &[String]| format!("target_groups:\n{}", entries.concat());
    let [pinned, turns] =
        ["pinned", "round_robin"].map(|balance| entry(&format!("{target}, balance: {balance}")));
    assert_eq!(good(&file(&[pinned.clone(), pinned.clone(), entry(target)])).groups.len(), 3);
    let part = "contradicts an entry of group `a` above";
    reject_file(&file(&[pinned, turns]), &[("target_groups[1].balance", part)]);
    let no_targets = ("target_groups[1]", "the group has no targets");
    reject_file(&file(&[entry(target), entry("kind: rpc")]), &[no_targets]);
    let many = |name: &str| {
        let targets: Vec<String> = (0..6000).map(|at| format!("'{name}{at}:1'")).collect();
        entry(&format!("static_targets: {{targets: [{}]}}", targets.join(", ")))
    };
    let part = "expected at most 10000 targets over all its entries";
    let path = "target_groups[1].static_targets.targets";
    reject_file(&file(&[many("a"), many("b"), many("c")]), &[(path, part)]);
    assert_eq!(good(&file(&[many("a"), many("a")])).groups.len(), 2);
}

#[test]
fn a_target_that_is_listed_twice_is_one() {
    for targets in [
        "['b:1', 'a:1', 'b:1']",
        "['b:1', 'a:1', 'http://b:1/', 'B:1']",
        "[&x 'b:1', 'a:1', *x, *x]",
    ] {
        let group = groups(&format!("- {{group: a, static_targets: {{targets: {targets}}}}}\n"));
        let targets: Vec<String> =
            group[0].sources.static_targets.iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["a:1", "b:1"]);
    }
}

#[test]
fn an_empty_text_or_nothing_sets_nothing() {
    let plain = group("kind: auto");
    for text in [
        "scheme: '', api_path: '', kind: '', balance: ''",
        "scheme: ~, api_path: ~, kind: ~, balance: ~",
        "basic_auth: {username: '', password: ''}",
        "basic_auth: {username: ~, password: '', password_file: ''}",
        "bearer_auth: {token: ''}",
        "bearer_auth: {token: ~, token_file: ''}",
        "basic_auth: ~, bearer_auth: ~, tls_config: ~",
        "tls_config: {ca_file: '', cert_file: '', key_file: ''}",
        "tls_config: {ca_file: '', insecure_skip_verify: ~}",
        "file_targets: {path: ''}",
        "file_targets: ~, http_targets: ~, consul_sd_config: ~, dns_targets: ~, ledger_targets: ~",
        "http_targets: {url: ''}",
        "consul_sd_config: {host: '', token: '', token_file: '', datacenter: '', service: '', \
         filter: ''}",
    ] {
        assert_eq!(group(text), plain, "{text}");
    }
    // One that is set beside one that is not.
    let both = "basic_auth: {username: '', password: ''}, bearer_auth: {token: t}";
    assert_eq!(group(both).credentials, Some(bearer("t")));
    let both =
        "basic_auth: {username: u, password: p, password_file: ''}, bearer_auth: {token: ''}";
    assert_eq!(group(both).credentials, Some(basic("u", "p")));
    // There are empty passwords.
    assert_eq!(group("basic_auth: {username: u, password: ''}").credentials, Some(basic("u", "")));
    let tls = group("scheme: https, tls_config: {ca_file: '', insecure_skip_verify: true}").tls;
    assert_eq!(tls.authorities, None);
    let text = "consul_sd_config: {host: 'a:1', scheme: '', token: '', token_file: /t, \
                datacenter: '', service: s, filter: ''}";
    let consul = group(text).sources.consul.expect("it is given");
    assert_eq!(consul.token, Some(Token::InFile("/t".into())));
    assert_eq!((consul.datacenter, consul.filter), (None, None));
    assert_eq!(accept("rpc: ''\npublic_url: ''\ndefault_group: ''"), accept(""));
}

#[test]
fn what_is_half_empty_or_misspelt_is_rejected_all_the_same() {
    reject_in_group("basic_auth: {usrname: ''}", "basic_auth.usrname", "unknown key, expected");
    reject_in_group("tls_config: {ca: ''}", "tls_config.ca", "unknown key, expected one of");
    let skip = "tls_config: {ca_file: '', insecure_skip_verify: true}";
    reject_in_group(skip, "tls_config", "needs `scheme: https`");
    let text = "basic_auth: {username: '', password: p}";
    reject_in_group(text, "basic_auth.username", "expected a name of 1 to 256 bytes");
    let text = "consul_sd_config: {host: '', service: s}";
    reject_in_group(text, "consul_sd_config.host", "expected Consul's host and port");
    for text in ["basic_auth: {}", "bearer_auth: {}", "file_targets: {}"] {
        let at = text.split_once(':').map_or(text, |(key, _)| key);
        let file =
            format!("target_groups: [{{group: a, static_targets: {{targets: ['a:1']}}, {text}}}]");
        let problems = crate::config::parse(&file).expect_err(text);
        assert!(problems.iter().all(|problem| problem.path.contains(at)), "{problems:?}");
    }
    for target in ["''", "~"] {
        let text =
            format!("target_groups: [{{group: a, static_targets: {{targets: [{target}]}}}}]");
        reject_file(&text, &[("target_groups[0].static_targets.targets[0]", "")]);
    }
}

#[test]
fn a_number_is_a_secret_or_a_name_as_it_is_written() {
    for written in
        ["0", "7", "007", "1e5", "0x10", "+5", "1.50", "-1", "123456789012345678901234567890", ".5"]
    {
        let text = format!("basic_auth: {{username: {written}, password: {written}}}");
        assert_eq!(group(&text).credentials, Some(basic(written, written)), "{written}");
        let text = format!("bearer_auth: {{token: {written}}}");
        assert_eq!(group(&text).credentials, Some(bearer(written)), "{written}");
        let text = format!("consul_sd_config: {{host: 'a:1', service: s, token: {written}}}");
        let consul = group(&text).sources.consul.expect("it is given");
        assert_eq!(consul.token, Some(Token::Given(Secret::new(written))), "{written}");
        let text = format!("- {{group: {written}, static_targets: {{targets: ['a:1']}}}}\n");
        assert_eq!(&*groups(&text)[0].name, written);
    }
    for written in ["true", "True", "no"] {
        let text = format!("basic_auth: {{username: u, password: {written}}}");
        assert_eq!(group(&text).credentials, Some(basic("u", written)), "{written}");
    }
    // An anchor and its alias are one text.
    let text = "basic_auth: {username: &n 1e3, password: *n}";
    assert_eq!(group(text).credentials, Some(basic("1e3", "1e3")));
}

#[test]
fn a_number_is_an_interval_in_seconds() {
    for (text, seconds) in [("15", 15), ("1", 1), ("'30'", 30), ("90s", 90), ("3600", 3600)] {
        let interval = accept(&format!("scrape_interval: {text}")).scrape_interval;
        assert_eq!(interval, Duration::from_secs(seconds), "{text}");
    }
    let reject = |text: &str, part: &str| {
        reject(&format!("scrape_interval: {text}"), "scrape_interval", part);
    };
    reject("0", "`0s` is too short, the least is 100ms");
    reject("99999999", "is too long, the most is `720h`");
    for text in ["-15", "1.5", "1e3", "''", "99999999999999999999"] {
        reject(text, "is not a duration");
    }
}

#[test]
fn a_scheme_before_the_host_of_consul_is_that_of_consul() {
    let url = |text: &str| {
        let group = group(&format!("consul_sd_config: {{service: s, {text}}}"));
        group.sources.consul.expect("it is given").url.to_string()
    };
    for (text, expected) in [
        ("host: 'a:1'", "http://a:1/"),
        ("host: 'http://a:1'", "http://a:1/"),
        ("host: 'https://a:1'", "https://a:1/"),
        ("host: 'https://a:1', scheme: ''", "https://a:1/"),
        ("host: 'a:1', scheme: https", "https://a:1/"),
    ] {
        assert_eq!(url(text), expected, "{text}");
    }
    for (host, scheme) in [("https://a:1", "http"), ("http://a:1", "https")] {
        let text = format!("consul_sd_config: {{host: '{host}', service: s, scheme: {scheme}}}");
        reject_in_group(&text, "consul_sd_config.host", "that agrees with `scheme: ");
    }
}
