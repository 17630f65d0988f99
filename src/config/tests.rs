//! What the file may say, what it may not, and what it is told then.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Balance, Cache, Config, Consul, DnsTargets, Prefetch, PrivateUrl, Problem, Publish, Records,
    Secret, Sharing, Sources, Token, Verify, keys, parse, yaml,
};

mod access;
mod clients;
mod edge_id;
mod rpc;
mod secrets;
mod tracker;
mod trust;

const REFERENCE: &str = include_str!("../../conf/snapedge.yaml");

/// The least that a file must say.
const LEAST: &str = "target_groups: [{group: main, static_targets: {targets: ['a:1']}}]\n";

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// The reference with its commented-out examples put in: lines in which anything but one space
/// follows the `#`.
fn reference_with_examples() -> String {
    let line = |line: &str| {
        let text = line.trim_start();
        let indent = &line[..line.len() - text.len()];
        match text.strip_prefix('#') {
            Some(example) if !is_sentence(text) => format!("{indent}{example}\n"),
            _ => format!("{line}\n"),
        }
    };
    REFERENCE.lines().map(line).collect()
}

fn is_sentence(line: &str) -> bool {
    line == "#" || (line.starts_with("# ") && !line.starts_with("#  "))
}

#[test]
fn the_reference_file_says_the_defaults() {
    let group = "target_groups:\n  - group: mainnet\n    static_targets:\n      targets: \
                 ['10.0.0.1:8899']\n";
    assert_eq!(good(REFERENCE), good(group));
    // Those of `access.rs` want files, and contradict each other.
    let without = |text: String, key: &&str| access::without(&text, key);
    let others = ["tls_config", "basic_auth", "bearer_auth", "tls", "auth"];
    let with_examples = good(&others.iter().fold(reference_with_examples(), without));
    let sources = with_examples.groups[0].sources.clone();
    let mut expected = good(group);
    assert_eq!(sources.static_targets, expected.groups[0].sources.static_targets);
    assert!(sources.file_targets.is_some() && sources.http_targets.is_some());
    assert!(sources.consul.is_some() && !sources.dns_targets.is_empty());
    assert!(!sources.ledger_targets.is_empty());
    expected.groups[0].sources = sources;
    assert_eq!(with_examples, expected);
}

#[test]
fn the_reference_file_has_every_key() {
    assert_eq!(yaml::keys_in(&reference_with_examples()), keys());
}

#[test]
fn the_reference_file_explains_every_key() {
    let lines: Vec<&str> = REFERENCE.lines().map(str::trim_start).collect();
    let mut explained = 0;
    for (above, line) in lines.iter().zip(&lines[1..]) {
        let key = line.trim_start_matches("- ").trim_start_matches('#').trim_start();
        let key = key.trim_start_matches("- ");
        let is_key = !is_sentence(line)
            && key.split_once(':').is_some_and(|(key, _)| {
                key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                    && !key.is_empty()
            });
        if is_key {
            let above = above.trim_start_matches('#');
            assert!(above.starts_with(' ') && above.ends_with('.'), "`{line}` has no sentence");
            explained += 1;
        }
    }
    assert_eq!(explained, keys().len());
}

#[test]
fn a_configuration_of_the_tracker_is_good_as_it_is() {
    // From the documentation of rpcpool/solana-cluster.
    let tracker = r#"
scrape_interval: 15s
target_groups:
  - group: mainnet
    scheme: http
    api_path: ""
    static_targets:
      targets:
        - solana-mainnet-1.example.org:8899
        - solana-mainnet-2.example.org:8899
  - group: testnet
    scheme: http
    file_targets:
      path: /etc/solana-cluster/testnet.txt
"#;
    let config = good(tracker);
    let mut expected = good(LEAST);
    assert_eq!(config.scrape_interval, expected.scrape_interval);
    expected.groups.clone_from(&config.groups);
    assert_eq!(config, expected);
    let [mainnet, testnet] = &config.groups[..] else { panic!("{:?}", config.groups) };
    let targets: Vec<String> =
        mainnet.sources.static_targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["solana-mainnet-1.example.org:8899", "solana-mainnet-2.example.org:8899"]);
    assert_eq!((&*mainnet.name, &*mainnet.api_path), ("mainnet", ""));
    assert!(testnet.sources.file_targets.is_some() && testnet.sources.static_targets.is_empty());
}

/// `text` beside a good group is good.
#[track_caller]
fn accept(text: &str) -> Config {
    good(&format!("{LEAST}{text}"))
}

#[test]
fn accepted() {
    assert_eq!(accept("listen: ['[::1]:80', '0.0.0.0:80']").listen.len(), 2);
    assert_eq!(
        accept("public_url: https://edge.example/").public_url.as_deref(),
        Some("https://edge.example")
    );
    assert_eq!(accept("default_group: main").default_group.as_deref(), Some("main"));
    assert_eq!(accept("max_snapshot_age: 0").max_snapshot_age, 0);
    assert!(accept("pair_hold: 0s").pair_hold.is_zero());
    assert_eq!(accept("scrape_interval: 1m30s").scrape_interval.as_secs(), 90);
    let balances = ["per_client", "pinned", "least_loaded", "round_robin"].map(|balance| {
        good(&LEAST.replace("group: main", &format!("group: main, balance: {balance}"))).groups[0]
            .balance
    });
    assert_eq!(balances[0], Balance::default());
    assert_eq!(balances[1..], [Balance::Pinned, Balance::LeastLoaded, Balance::RoundRobin]);
    assert_eq!(accept("limits: {probe_failures: 1000}").limits.probe_failures, 1000);
    assert_eq!(accept("log: {level: trace}").log.level, log::LevelFilter::Trace);
    assert_eq!(accept("server: {threads: 3}").server.threads, 3);
    let dir = tempfile::tempdir().expect("a directory");
    for path in [dir.path().to_owned(), dir.path().join("to/be/made")] {
        let config = accept(&format!("proxy_snapshot_cache_dir: '{}'", path.display()));
        assert_eq!(config.cache_dir, Some(path));
    }
    for (text, bytes) in [("0B", 0), ("500MB", 500_000_000), ("1.5GiB", 3 << 29), ("7KiB", 7168)] {
        let config = accept(&format!("cache: {{min_free_space: {text}, sharing: exclusive}}"));
        assert_eq!(config.cache.min_free_space, bytes);
    }
    // A key without a value is a key that is not given.
    let nothing: String =
        keys().iter().filter(|key| !key.contains(['.', '['])).fold(String::new(), |all, key| {
            if key == "target_groups" { all } else { all + &format!("{key}:\n") }
        });
    assert_eq!(accept(&nothing), good(LEAST));
}

/// The keys of the cache that `text` gives make what `expected` does of the default.
#[track_caller]
fn accept_in_cache(text: &str, expected: impl FnOnce(&mut Cache)) {
    let directory = "proxy_snapshot_cache_dir: /var/cache/snapedge";
    let mut cache = Cache::default();
    expected(&mut cache);
    assert_eq!(accept(&format!("{directory}\ncache: {{{text}}}")).cache, cache, "{text}");
}

#[test]
fn accepted_in_the_cache() {
    accept_in_cache("", |_| {});
    accept_in_cache("sharing: exclusive, prefetch: off, publish: seen, verify: frames", |_| {});
    accept_in_cache("keep_previous: false, lease: 30m, range_wait: 2s", |_| {});
    accept_in_cache("sharing: shared", |cache| cache.sharing = Sharing::Shared);
    // What has no effect is no contradiction.
    accept_in_cache("finish_abandoned: false", |cache| cache.finish_abandoned = false);
    accept_in_cache("range_wait: 0s", |cache| cache.range_wait = Duration::ZERO);
    accept_in_cache("lease: 0s", |cache| cache.lease = Duration::ZERO);
    accept_in_cache("lease: 720h", |cache| cache.lease = Duration::from_secs(720 * 3600));
    accept_in_cache("max_size: 1B", |cache| cache.max_size = Some(1));
    accept_in_cache("max_size: 500GB", |cache| cache.max_size = Some(500_000_000_000));
    accept_in_cache("min_fill_rate: 1KiB/s", |cache| cache.min_fill_rate = 1 << 10);
    accept_in_cache("fill_grace: 1s", |cache| cache.fill_grace = Duration::from_secs(1));
    accept_in_cache("prefetch_rate: 1MiB/s", |cache| cache.prefetch_rate = Some(1 << 20));
    accept_in_cache("prefetch_rate: 1.5GiB/s", |cache| cache.prefetch_rate = Some(3 << 29));
    accept_in_cache("verify: length", |cache| cache.verify = Verify::Length);
    accept_in_cache("verify: decode", |cache| cache.verify = Verify::Decode);
    for (text, prefetch) in [("incremental", Prefetch::Incremental), ("all", Prefetch::All)] {
        accept_in_cache(&format!("sharing: shared, prefetch: {text}"), |cache| {
            (cache.sharing, cache.prefetch) = (Sharing::Shared, prefetch);
        });
    }
    accept_in_cache("publish: promoted, prefetch: all, sharing: shared", |cache| {
        (cache.sharing, cache.prefetch) = (Sharing::Shared, Prefetch::All);
        cache.publish = Publish::Promoted;
    });
    accept_in_cache("keep_previous: true, sharing: shared", |cache| {
        (cache.sharing, cache.keep_previous) = (Sharing::Shared, true);
    });
    // A redirector has a cache in name only, and may say how it would be.
    accept("proxy_snapshot_downloads: false\ncache: {lease: 1h}");
}

#[test]
fn what_contradicts_another_key_of_the_cache_is_rejected() {
    let directory = "proxy_snapshot_cache_dir: /var/cache/snapedge";
    let check = |text: &str, expected: &[(&str, &str)]| {
        reject_file(&format!("{LEAST}{directory}\ncache: {{{text}}}"), expected);
    };
    let shared = "needs `cache.sharing: shared`";
    let all = "needs `cache.prefetch: all`";
    for sharing in ["", "sharing: exclusive, "] {
        for (text, key) in [
            ("prefetch: incremental", "cache.prefetch"),
            ("prefetch: all", "cache.prefetch"),
            ("keep_previous: true", "cache.keep_previous"),
        ] {
            check(&format!("{sharing}{text}"), &[(key, shared)]);
        }
        let text = format!("{sharing}publish: promoted");
        check(&text, &[("cache.publish", shared), ("cache.publish", all)]);
    }
    for prefetch in ["", "prefetch: off, ", "prefetch: incremental, "] {
        let text = format!("{prefetch}sharing: shared, publish: promoted");
        check(&text, &[("cache.publish", all)]);
    }
    check(
        "keep_previous: true, publish: promoted, prefetch: all",
        &[("cache.prefetch", shared), ("cache.publish", shared), ("cache.keep_previous", shared)],
    );
    // What a wrong value was meant to be is not guessed at.
    check("sharing: al, prefetch: all", &[("cache.sharing", "expected `exclusive` or `shared`")]);
    check("sharing: shared, prefetch: al, publish: promoted", &[("cache.prefetch", "expected")]);
}

#[test]
fn a_cache_cannot_be_shared_without_a_directory() {
    let part = "`shared` needs a directory, add `proxy_snapshot_cache_dir`";
    for text in ["", "\nproxy_snapshot_cache_dir:", "\nproxy_snapshot_downloads: false"] {
        reject(&format!("cache: {{sharing: shared}}{text}"), "cache.sharing", part);
    }
    // One that is wrong has its own message.
    let text = "cache: {sharing: shared}\nproxy_snapshot_cache_dir: ''";
    reject(text, "proxy_snapshot_cache_dir", "the path is empty");
}

/// A group with `text` alone has these sources.
#[track_caller]
fn accept_sources(text: &str) -> Sources {
    let file = format!("target_groups:\n- group: main\n  {text}\n");
    good(&file).groups.remove(0).sources
}

#[test]
fn accepted_sources() {
    for url in ["http://a", "https://u:p@a.example:1/b?c=d", "http://[::1]:1/"] {
        let sources = accept_sources(&format!("http_targets: {{url: '{url}'}}"));
        let expected = url.parse::<url::Url>().expect("a URL");
        assert_eq!(sources.http_targets.as_ref().map(PrivateUrl::reveal), Some(&expected));
        assert_eq!(Sources { http_targets: None, ..sources }, Sources::default());
    }
    let consul = |rest: &str| accept_sources(&format!("consul_sd_config: {{{rest}}}")).consul;
    let least = Consul {
        url: "http://127.0.0.1:8500".parse().expect("a URL"),
        token: None,
        datacenter: None,
        service: "s".to_owned(),
        filter: None,
    };
    assert_eq!(consul("host: '127.0.0.1:8500', service: s"), Some(least.clone()));
    assert_eq!(consul("host: 'http://127.0.0.1:8500', service: s"), Some(least.clone()));
    let all = "host: '[::1]:443', scheme: https, token: t, datacenter: d, service: s, filter: f";
    let token = Token::Given(Secret::new("t".to_owned()));
    let expected = Consul {
        url: "https://[::1]:443".parse().expect("a URL"),
        token: Some(token),
        datacenter: Some("d".to_owned()),
        filter: Some("f".to_owned()),
        ..least
    };
    assert_eq!(consul(all), Some(expected.clone()));
    let token = Some(Token::InFile("/t".into()));
    let all = all.replace("token: t", "token_file: /t, token: null");
    assert_eq!(consul(&all), Some(Consul { token, ..expected }));
    for (text, name, records) in [
        ("name: a, type: A, port: 1", "a", Records::A(1)),
        ("name: a.b., type: AAAA, port: 65535", "a.b.", Records::Aaaa(65535)),
        ("name: _s._tcp.a-1, type: SRV", "_s._tcp.a-1", Records::Srv),
    ] {
        for (more, server) in
            [("", None), (", server: '10.0.0.1:53'", Some(([10, 0, 0, 1], 53).into()))]
        {
            let sources = accept_sources(&format!("dns_targets: [{{{text}{more}}}]"));
            let expected = DnsTargets { name: name.to_owned(), records, server };
            assert_eq!(sources.dns_targets, [expected]);
        }
    }
    let merged = accept_sources(
        "static_targets: {targets: ['a:1']}\n  file_targets: {path: /a}\n  \
         http_targets: {url: 'http://a'}\n  consul_sd_config: {host: 'a:1', service: s}\n  \
         dns_targets: [{name: a, type: SRV}, {name: a, type: A, port: 1}]",
    );
    assert_eq!(merged.dns_targets.len(), 2);
    assert!(merged.consul.is_some() && merged.http_targets.is_some());
}

#[test]
fn bad_sources_are_rejected() {
    let at = |key: &str, value: &str, path: &str, part: &str| {
        reject_in_group(&format!("{key}: {value}"), &format!("{key}{path}"), part);
    };
    for url in ["targets", "ftp://a", "http://", "file:///a", "unix:/a"] {
        at("http_targets", &format!("{{url: '{url}'}}"), ".url", "expected a URL such as `http://");
    }
    at("http_targets", "{}", ".url", "expected a URL such as");
    at("http_targets", "{url: [a]}", ".url", "expected a URL such as `http://sd.example/targets`,");

    let consul = |value: &str, path: &str, part: &str| at("consul_sd_config", value, path, part);
    for host in ["a", "a:0", "a:99999", "a:x", "''", "a:1/", "a:1/b", "a:1?b", "u:p@a:1", "::1"] {
        let value = format!("{{host: \"{host}\", service: s}}");
        consul(&value, ".host", "expected Consul's host and port, such as `127.0.0.1:8500`");
    }
    consul("{service: s}", ".host", "expected Consul's host and port");
    consul("{host: 'a:1'}", ".service", "expected the name of a service");
    for service in ["''", "'.'", "'..'", "\"a\\nb\""] {
        let value = format!("{{host: 'a:1', service: {service}}}");
        consul(&value, ".service", "expected the name of a service");
    }
    let with = |more: &str| format!("{{host: 'a:1', service: s, {more}}}");
    consul(&with("scheme: ftp"), ".scheme", "`ftp` is not a scheme, write `http` or `https`");
    consul(&with("token: a, token_file: b"), ".token_file", "`token` as well, remove one of them");
    for token in ["a b", "\"a\\nb\"", "\u{e9}"] {
        consul(&with(&format!("token: {token}")), ".token", "expected a token of visible ASCII");
    }
    for key in ["token_file", "datacenter", "filter"] {
        consul(&with(&format!("{key}: [a]")), &format!(".{key}"), "found a list");
    }

    let dns = |value: &str, path: &str, part: &str| at("dns_targets", value, path, part);
    let first = |value: &str, path: &str, part: &str| {
        dns(&format!("[{{{value}}}]"), &format!("[0]{path}"), part);
    };
    dns("[]", "", "expected at least one name");
    let many = vec!["{name: a, type: SRV}"; 65].join(", ");
    dns(&format!("[{many}]"), "", "expected at most 64 names");
    first("type: SRV", ".name", "expected a domain name, such as `node.example`");
    first("name: a", ".type", "expected `A`, `AAAA` or `SRV`");
    first("name: a, type: MX", ".type", "expected `A`, `AAAA` or `SRV`, found `MX`");
    first("name: a, type: A", ".port", "`A` records have no port, give that of targets");
    first("name: a, type: AAAA", ".port", "`AAAA` records have no port");
    first("name: a, type: SRV, port: 1", ".port", "`SRV` records have their own ports, remove");
    for port in ["0", "65536", "'1'", "-1"] {
        let text = format!("name: a, type: A, port: {port}");
        first(&text, ".port", "expected a whole number from 1 to 65535");
    }
    for address in ["10.0.0.1", "'::1'"] {
        let text = format!("name: {address}, type: SRV");
        first(&text, ".name", "is an address, list it in `static_targets`");
    }
    let (long, longer) = ("x".repeat(64), "x.".repeat(128));
    for name in ["''", ".", "a..b", ".a", "a b", "a/b", "\u{e9}", &long, &longer] {
        first(&format!("name: \"{name}\", type: SRV"), ".name", "is not a domain name");
    }
    for server in ["10.0.0.1", "dns.example:53", "'[::1]'", "10.0.0.1:0"] {
        let text = format!("name: a, type: SRV, server: {server}");
        first(&text, ".server", "is not an address and port, write it like `10.0.0.2:53`");
    }
}

#[test]
fn what_may_be_secret_is_in_no_message() {
    let group = "target_groups: [{group: a, static_targets: {targets: ['a:1']}, ";
    for text in [
        "http_targets: {url: 'htp://hush:hush@a/hush?hush'}",
        "http_targets: {url: 'hush'}",
        "consul_sd_config: {host: 'hush@a:1', service: s}",
        "consul_sd_config: {host: 'a:1', service: s, token: 'hush hush'}",
        "consul_sd_config: {host: 'a:1', service: s, token: hush, token_file: b}",
        "consul_sd_config: {host: 'a:1', service: s, token: [hush]}",
    ] {
        let problems = parse(&format!("{group}{text}}}]")).expect_err(text);
        let shown = format!("{problems:?}");
        assert!(!shown.contains("hush"), "{shown}");
    }
    let text = "http_targets: {url: 'http://hush:hush@a/hush?hush'}, \
                consul_sd_config: {host: 'a:1', service: s, token: hush}";
    let shown = format!("{:?}", good(&format!("{group}{text}}}]")));
    assert!(!shown.contains("hush"), "{shown}");
}

/// `text` has exactly these problems, each given by its path and a part of its message, in order.
#[track_caller]
fn reject_file(text: &str, expected: &[(&str, &str)]) {
    let Err(problems) = parse(text) else { panic!("accepted: {text}") };
    let same = problems.len() == expected.len()
        && problems
            .iter()
            .zip(expected)
            .all(|(problem, (path, part))| problem.path == *path && problem.message.contains(part));
    assert!(same, "{text}\nhas {problems:#?}\nexpected {expected:#?}");
    for problem in &problems {
        check_style(problem);
    }
}

/// Messages are in lower case and without full stop.
#[track_caller]
fn check_style(Problem { path, message }: &Problem) {
    let first = message.chars().next().expect("never empty");
    assert!(first.is_lowercase() || first == '`', "{path}: {message}");
    assert!(!message.ends_with(['.', '\n', ' ', '!']), "{path}: {message}");
}

/// `text` beside a good group has exactly one problem.
#[track_caller]
fn reject(text: &str, path: &str, part: &str) {
    reject_file(&format!("{LEAST}{text}"), &[(path, part)]);
}

/// A group with good targets and `text` has exactly one problem, at `path` below the group.
#[track_caller]
fn reject_in_group(text: &str, path: &str, part: &str) {
    let file = format!(
        "target_groups:\n- group: main\n  static_targets: {{targets: ['a:1']}}\n  {text}\n"
    );
    reject_file(&file, &[(&format!("target_groups[0].{path}"), part)]);
}

#[test]
fn unknown_keys_are_rejected() {
    reject("scrape_intervall: 15s", "scrape_intervall", "unknown key, expected one of `");
    reject("Listen: []", "Listen", "unknown key");
    reject("1: 2", "1", "unknown key");
    reject("? [a]\n: 2", "- a", "unknown key");
    reject("<<: {rpc: 'http://a:1'}", "<<", "unknown key");
    reject("cache: {size: 1GiB}", "cache.size", "`min_free_space`, `max_size`");
    reject("limits: {probe_timeouts: 1s}", "limits.probe_timeouts", "`probe_timeout`");
    reject(
        "log: {file: x}",
        "log.file",
        "unknown key, expected one of `level`, `format`, `access`",
    );
    reject("server: {user: x}", "server.user", "unknown key");
    reject_in_group("name: x", "name", "unknown key");
    reject_file(
        "target_groups: [{group: main, static_targets: {targets: ['a:1'], path: x}}]",
        &[("target_groups[0].static_targets.path", "unknown key, expected one of `targets`")],
    );
    for (text, path) in [
        ("file_targets: {path: x, paths: y}", "file_targets.paths"),
        ("http_targets: {url: 'http://a', timeout: 1s}", "http_targets.timeout"),
        ("consul_sd_config: {host: 'a:1', service: s, tag: t}", "consul_sd_config.tag"),
        ("dns_targets: [{name: a, type: SRV, names: b}]", "dns_targets[0].names"),
    ] {
        reject_in_group(text, path, "unknown key, expected one of `");
    }
}

#[test]
fn keys_that_are_fixed_are_named_where_they_differ() {
    let group = "target_groups: [{group: a, static_targets: {targets: ['a:1']}}]\n";
    let config = |text: &str| good(&format!("{group}{text}"));
    let check = |before: &str, after: &str, expected: &[&str]| {
        let (before, after) = (config(before), config(after));
        for (one, other) in [(&before, &after), (&after, &before)] {
            let bound = one.internal_listen.address();
            assert_eq!(one.fixed_keys_that_differ(other, bound), expected);
            assert!(one.fixed_keys_that_differ(one, None).is_empty());
        }
    };
    let all = ["listen", "internal_listen", "proxy_snapshot_cache_dir", "server.threads"];
    check("", "listen: ['0.0.0.0:1']", &all[..1]);
    check("", "listen: ['0.0.0.0:8458', '[::]:8458']", &all[..1]);
    check("listen: ['[::]:1', '0.0.0.0:1']", "listen: ['0.0.0.0:1', '[::]:1']", &[]);
    check("", "internal_listen: off", &all[1..2]);
    check("", "internal_listen: '127.0.0.1:8457'", &[]);
    check("internal_listen: 'off'", "internal_listen: '127.0.0.1:1'", &all[1..2]);
    check("", "proxy_snapshot_cache_dir: /x", &all[2..3]);
    check("proxy_snapshot_cache_dir: /y", "proxy_snapshot_cache_dir: /x", &all[2..3]);
    check("server: {threads: 3}", "server: {threads: 4}", &all[3..]);
    check(
        "server: {threads: 3}",
        "listen: ['0.0.0.0:1']\ninternal_listen: off\nproxy_snapshot_cache_dir: /x\n\
         server: {threads: 4}",
        &all,
    );
    // The address that nobody named was taken.
    let (nobody, named) = (config(""), config("internal_listen: '127.0.0.1:8457'"));
    assert_eq!(nobody.fixed_keys_that_differ(&named, None), &all[1..2]);
    assert!(nobody.fixed_keys_that_differ(&config("internal_listen: off"), None).is_empty());
    check("", "server: {h2c: true, grace_period: 1s}\nlimits: {per_target: 9}\nrpc: http://a", &[]);
}

#[test]
fn keys_at_the_wrong_level_are_unknown() {
    reject("tls: {}", "tls", "unknown key");
    reject("tls:", "tls", "unknown key");
    reject("basic_auth: {}", "basic_auth", "unknown key");
    reject_in_group("cache: {}", "cache", "unknown key");
}

#[test]
fn a_file_without_targets_is_rejected() {
    let none = ("target_groups", "expected at least one group with its targets");
    for text in ["", "\n", "# nothing", "---\n", "~", "{}", "target_groups:", "target_groups: []"] {
        reject_file(text, &[none]);
    }
    for text in ["[]", "text", "5", "true", "!tag {}"] {
        reject_file(text, &[("", "expected keys and values, found"), none]);
    }
    reject_file(
        "target_groups: [{group: main}]",
        &[(
            "target_groups[0]",
            "add at least one of `static_targets`, `file_targets`, `http_targets`, `consul",
        )],
    );
    reject_file(
        "target_groups: [{group: main, static_targets: {}}]",
        &[("target_groups[0].static_targets.targets", "expected at least one target")],
    );
    reject_file(
        "target_groups: [{group: main, file_targets: {path: ''}}]",
        &[("target_groups[0]", "the group has no targets")],
    );
}

#[test]
fn what_is_not_yaml_is_rejected() {
    for (text, part) in [
        ("listen: [", "not valid YAML: "),
        ("a: b: c", "not valid YAML: "),
        ("\tlisten: []", "not valid YAML: "),
        ("rpc: *nowhere", "unknown anchor"),
        ("rpc: x\nrpc: y", "duplicate entry with key \"rpc\""),
        ("target_groups: [{group: a, group: b}]", "duplicate entry with key \"group\""),
        ("--- {}\n--- {}", "more than one document"),
        (&"[".repeat(100_000), "not valid YAML: "),
    ] {
        reject_file(text, &[("", part)]);
    }
    // No value of the YAML library holds it; the message names the key all the same.
    let huge = "max_snapshot_age: 18446744073709551616";
    reject(huge, "max_snapshot_age", "expected a whole number from 0 to 18446744073709551615");
}

#[test]
fn bad_groups_are_rejected() {
    let group = |name: &str| format!("{{group: {name}, static_targets: {{targets: ['a:1']}}}}");
    let groups = |names: &[&str]| {
        let groups: Vec<String> = names.iter().map(|name| group(name)).collect();
        format!("target_groups: [{}]", groups.join(", "))
    };
    reject_file(&groups(&["''"]), &[("target_groups[0].group", "expected a name")]);
    reject_file(&groups(&["null"]), &[("target_groups[0].group", "expected a name")]);
    let long = "x".repeat(65);
    reject_file(&groups(&[&long]), &[("target_groups[0].group", "at most 64 printable")]);
    reject_file(&groups(&["\"a\\nb\""]), &[("target_groups[0].group", "at most 64 printable")]);
    reject("default_group: mainnet", "default_group", "there is no group `mainnet`");
    for path in ["mainnet", "/a b", "/a?b", "/a%20b", "http://a/"] {
        reject_in_group(&format!("api_path: '{path}'"), "api_path", "is not a path");
    }
    reject_in_group("kind: node", "kind", "`node` is not a kind, write `auto`");
    reject_in_group("scheme: ftp", "scheme", "`ftp` is not a scheme, write `http` or `https`");
    reject_in_group("balance: random", "balance", "`random` is not a way to choose");
}

#[test]
fn bad_ledgers_are_rejected() {
    let check = |paths: &str, path: &str, part: &str| {
        reject_in_group(&format!("ledger_targets: {paths}"), path, part);
    };
    check("{}", "ledger_targets.paths", "expected at least one directory");
    check("{paths: []}", "ledger_targets.paths", "expected at least one directory");
    for path in ["x", "''", "./x", "/a/../b", "\"/a\\tb\""] {
        let part = "is not an absolute path without `..`";
        check(&format!("{{paths: [{path}]}}"), "ledger_targets.paths[0]", part);
    }
    check("{paths: [/a/b, /a//b/.]}", "ledger_targets.paths[1]", "`/a/b` is listed twice");
    let many: Vec<String> = (0..65).map(|number| format!("/{number}")).collect();
    let many = format!("{{paths: [{}]}}", many.join(", "));
    check(&many, "ledger_targets.paths", "expected at most 64 directories");
    let text = "proxy_snapshot_downloads: false\n\
                target_groups: [{group: main, ledger_targets: {paths: [/x]}}]";
    let part = "nobody can be redirected to a directory, it needs `proxy_snapshot_downloads`";
    reject_file(text, &[("target_groups[0].ledger_targets", part)]);
    let text = "proxy_snapshot_cache_dir: /x\n\
                target_groups: [{group: main, ledger_targets: {paths: [/w, /x]}}]";
    let part = "one is `proxy_snapshot_cache_dir`, give the cache a directory of its own";
    reject_file(text, &[("target_groups[0].ledger_targets", part)]);
}

#[test]
fn bad_limits_are_rejected() {
    for (key, part) in [
        ("per_target: 0", "from 1 to 1024"),
        ("max_transfers: 0", "from 1 to 1000000"),
        ("per_client_transfers: 0", "from 1 to 1000000"),
        ("max_connections: 0", "from 1 to 1000000"),
        ("per_client_connections: 0", "from 1 to 1000000"),
        ("header_timeout: 0s", "`0s` is too short"),
        ("idle_timeout: 0s", "`0s` is too short"),
        ("queue_wait: fast", "`fast` is not a duration"),
        ("unknown_name_probe: 5", "`5` is not a duration"),
        ("resume_memory: soon", "`soon` is not a duration"),
        ("total_rate: 100MiB", "`100MiB` is not a rate"),
        ("min_rate: 1023KiB/s", "`1023KiB/s` is too slow, the least is `1MiB/s`"),
        ("min_send_rate: 0B/s", "`0B/s` is too slow, the least is `1B/s`"),
        ("total_rate: 9MiB/s", "is below `limits.min_rate`, so that nobody would be served"),
    ] {
        let path = format!("limits.{}", key.split_once(':').map_or(key, |(key, _)| key));
        reject(&format!("limits: {{{key}}}"), &path, part);
    }
    let limits = accept("limits: {total_rate: 9MiB/s, min_rate: 9MiB/s, queue_wait: 0s}").limits;
    assert_eq!((limits.total_rate, limits.min_rate), (Some(9 << 20), 9 << 20));
    assert!(limits.queue_wait.is_zero());
    assert!(accept("limits: {resume_memory: 0s}").limits.resume_memory.is_zero());
}

#[test]
fn bad_targets_are_rejected() {
    for (target, part) in [
        ("10.0.0.1", "`10.0.0.1` has no port, write it like `10.0.0.1:8899`"),
        ("http://node.example", "has no port, write it like `node.example:8899`"),
        ("8899", "`8899` has no port"),
        ("a:0", "bad port"),
        ("a:99999", "bad port"),
        ("https://a:1", "contradicts the group's `scheme: http`, remove `https://`"),
        ("a b:1", "is not a host and port"),
        ("''", "has no port"),
        ("null", "expected a target, found nothing"),
        ("[a]", "expected a target, found a list"),
    ] {
        let text = format!(
            "target_groups: [{{group: main, static_targets: {{targets: [\"b:1\", {target}]}}}}]"
        );
        reject_file(&text, &[("target_groups[0].static_targets.targets[1]", part)]);
    }
    let many: Vec<String> = (0..=10_000).map(|at| format!("'a{at}:1'")).collect();
    let text = format!(
        "target_groups: [{{group: main, static_targets: {{targets: [{}]}}}}]",
        many.join(", ")
    );
    let path = "target_groups[0].static_targets.targets";
    reject_file(&text, &[(path, "expected at most 10000 targets")]);
}

#[test]
fn bad_values_are_rejected() {
    for bad in ["15", "-1s", "1x", "''", "1s1s", "P1D"] {
        // Of this one key a number is one of seconds.
        let interval = if bad == "15" { "1.5" } else { bad };
        reject(&format!("scrape_interval: {interval}"), "scrape_interval", "is not a duration");
        reject(&format!("pair_hold: {bad}"), "pair_hold", "write it like `15s`, `1m30s`");
        let limits = format!("limits: {{read_timeout: {bad}}}");
        reject(&limits, "limits.read_timeout", "is not a duration");
    }
    reject("scrape_interval: 99ms", "scrape_interval", "too short, the least is 100ms");
    reject("limits: {probe_timeout: 0s}", "limits.probe_timeout", "too short, the least is 1ms");
    reject("server: {grace_period: 721h}", "server.grace_period", "too long, the most is `720h`");
    for bad in ["'5'", "5G", "-1B", "GiB", "1 GiB ", "1e3B", "ten", "''", "1..5MB"] {
        for key in ["min_free_space", "max_size"] {
            let path = format!("cache.{key}");
            reject(&format!("cache: {{{key}: {bad}}}"), &path, "is not a size");
        }
    }
    reject("cache: {min_free_space: 2000TiB}", "cache.min_free_space", "is too large, the most");
    reject("cache: {max_size: 0B}", "cache.max_size", "is too small, the least is `1B`");
    reject("listen: []", "listen", "expected at least one address, such as `0.0.0.0:8458`");
    reject("listen: ['[::]:1', '[::]:1']", "listen", "an address is listed twice");
    reject("public_url: edge.example", "public_url", "is not a URL");
    reject("public_url: https://edge.example/path", "public_url", "must end after the host");
    reject("public_url: https://user@edge.example", "public_url", "is not a URL");
    reject("rpc: ftp://a", "rpc", "is not a URL, write it like `http://node.example:8899`");
    reject("log: {level: loud}", "log.level", "`loud` is not a level, expected `error`");
    reject("proxy_snapshot_cache_dir: ''", "proxy_snapshot_cache_dir", "the path is empty");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("proxy_snapshot_cache_dir: '{}'", file.path().display());
    reject(&text, "proxy_snapshot_cache_dir", "is not a directory");
    reject("listen: ['8458']", "listen[0]", "is not an address and port");
}

#[test]
fn bad_values_of_the_cache_are_rejected() {
    let check = |key: &str, value: &str, part: &str| {
        reject(&format!("cache: {{{key}: {value}}}"), &format!("cache.{key}"), part);
    };
    for bad in ["100MiB", "100", "'/s'", "MiB/s", "-1MiB/s", "100MiB/m", "100Mbit/s", "1MiB/s/s"] {
        check("prefetch_rate", bad, "is not a rate, write it like `100MiB/s`");
    }
    for bad in ["0B/s", "1MB/s", "1023KiB/s"] {
        check("prefetch_rate", bad, "is too slow, the least is `1MiB/s`");
    }
    check("prefetch_rate", "2000TiB/s", "is too fast, the most is `1024TiB/s`");
    for key in ["range_wait", "lease"] {
        check(key, "-1s", "is not a duration");
        check(key, "721h", "is too long");
    }
    check("sharing", "all", "expected `exclusive` or `shared`, found `all`");
    check("sharing", "Shared", "expected `exclusive` or `shared`, found `Shared`");
    check("prefetch", "full", "expected `off`, `incremental` or `all`, found `full`");
    check("publish", "''", "expected `seen` or `promoted`, found ``");
    check("verify", "frame", "expected `length`, `frames` or `decode`, found `frame`");
}

#[test]
fn numbers_out_of_bounds_are_rejected() {
    for (key, least, most) in [
        ("limits.probe_concurrency", 1_u64, 4096_u64),
        ("limits.probe_failures", 1, 1000),
        ("server.threads", 1, 1024),
    ] {
        let (section, name) = key.split_once('.').expect("a dot");
        let below = i128::from(least) - 1;
        for bad in [below, -1, i128::from(most) + 1, i128::from(u64::MAX)] {
            let part = format!("expected a whole number from {least} to {most}");
            reject(&format!("{section}: {{{name}: {bad}}}"), key, &part);
        }
        for good in [least, most] {
            accept(&format!("{section}: {{{name}: {good}}}"));
        }
    }
    for bad in ["-1", "1.5", "1e3", "'5000'", ".inf"] {
        reject(&format!("max_snapshot_age: {bad}"), "max_snapshot_age", "a whole number from 0");
    }
}

#[test]
fn wrong_types_are_rejected_everywhere() {
    let wrong = |key: &str, values: &[&str], expected: &str| {
        for value in values {
            let (top, rest) = key.split_once('.').map_or((key, None), |(a, b)| (a, Some(b)));
            let value = rest.map_or((*value).to_owned(), |rest| format!("{{{rest}: {value}}}"));
            reject(&format!("{top}: {value}"), key, expected);
        }
    };
    let no_text = ["[a]", "{a: b}", "true", "!tag a"];
    for key in ["public_url", "default_group", "rpc", "scrape_interval", "pair_hold"] {
        wrong(key, &no_text, "expected a ");
    }
    wrong("proxy_snapshot_cache_dir", &no_text, "expected a directory, found ");
    wrong("log.level", &no_text, "expected a level, found ");
    for key in ["probe_timeout", "connect_timeout", "read_timeout", "send_timeout", "resume_memory"]
    {
        wrong(&format!("limits.{key}"), &no_text, "expected a duration such as `15s`, found ");
    }
    wrong("server.grace_period", &no_text, "expected a duration such as `15s`, found ");
    for key in ["cache.min_free_space", "cache.max_size"] {
        wrong(key, &no_text, "expected a size such as `1GiB`, found ");
    }
    for key in ["cache.range_wait", "cache.lease"] {
        wrong(key, &no_text, "expected a duration such as `15s`, found ");
    }
    wrong("cache.prefetch_rate", &no_text, "expected a rate such as `100MiB/s`, found ");
    wrong("cache.sharing", &no_text, "expected `exclusive` or `shared`, found ");
    wrong("cache.prefetch", &no_text, "expected `off`, `incremental` or `all`, found ");
    wrong("cache.publish", &no_text, "expected `seen` or `promoted`, found ");
    wrong("cache.verify", &no_text, "expected `length`, `frames` or `decode`, found ");
    let no_number = ["[1]", "{a: 1}", "true", "many", "'1'"];
    for key in ["max_snapshot_age", "limits.probe_concurrency", "limits.probe_failures"] {
        wrong(key, &no_number, "expected a whole number from ");
    }
    wrong("server.threads", &no_number, "expected a whole number from ");
    let no_boolean = ["1", "'true'", "yes", "[]"];
    for key in ["proxy_snapshot_downloads", "cache.finish_abandoned", "cache.keep_previous"] {
        wrong(key, &no_boolean, "expected `true` or `false`, found ");
    }
    for key in ["limits", "cache", "log", "server"] {
        wrong(key, &["[]", "5", "text", "true"], "expected keys and values, found ");
    }
    for value in ["0.0.0.0:8458", "8458", "{a: b}"] {
        let empty = ("listen", "expected at least one address");
        let text = format!("{LEAST}listen: {value}");
        reject_file(&text, &[("listen", "expected a list, found "), empty]);
    }
    for key in ["scheme", "api_path", "kind", "balance"] {
        for value in ["[a]", "{a: b}", "true"] {
            reject_in_group(&format!("{key}: {value}"), key, "expected a ");
        }
    }
}

#[test]
fn wrong_types_of_groups_and_their_targets_are_rejected() {
    let groups = ("target_groups", "expected at least one group");
    for value in ["main", "{group: main}", "5"] {
        let list = ("target_groups", "expected a list, found ");
        reject_file(&format!("target_groups: {value}"), &[list, groups]);
    }
    for value in ["main", "5", "[a]"] {
        let expected = [
            ("target_groups[0]", "expected keys and values, found "),
            ("target_groups[0].group", "expected a name"),
            ("target_groups[0]", "the group has no targets"),
        ];
        reject_file(&format!("target_groups: [{value}]"), &expected);
    }
    reject_file(
        "target_groups: [{group: [a], static_targets: {targets: ['a:1']}}]",
        &[
            ("target_groups[0].group", "expected a text, found a list"),
            ("target_groups[0].group", "expected a name"),
        ],
    );
    let at = "target_groups[0].static_targets";
    reject_file(
        "target_groups: [{group: a, static_targets: ['a:1']}]",
        &[
            (at, "expected keys and values, found a list"),
            (&format!("{at}.targets"), "expected at least one target"),
        ],
    );
    reject_file(
        "target_groups: [{group: a, static_targets: {targets: 'a:1'}}]",
        &[
            (&format!("{at}.targets"), "expected a list, found a text"),
            (&format!("{at}.targets"), "expected at least one target"),
        ],
    );
    reject_file(
        "target_groups: [{group: a, file_targets: /etc/targets}]",
        &[
            ("target_groups[0].file_targets", "expected keys and values, found a text"),
            ("target_groups[0].file_targets.path", "expected the path of a file"),
        ],
    );
}

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let text = "\
listen: [nonsense, '0.0.0.0:1']
default_group: nowhere
scrape_interval: 1.5
cache: {sharing: shared, verify: all}
limits: {probe_failures: 0, typo: 1}
target_groups:
  - group: a
    scheme: ftp
    static_targets: {targets: ['10.0.0.1', 'https://b:1', 'c:1']}
    consul_sd_config: {}
  - group: a
    basic_auth: {username: u}
    file_targets: {}
log: {level: loud}
zzz: 1
";
    reject_file(
        text,
        &[
            ("limits.probe_failures", "from 1 to 1000"),
            ("limits.typo", "unknown key"),
            ("listen[0]", "is not an address and port"),
            ("scrape_interval", "`1.5` is not a duration"),
            ("cache.verify", "expected `length`"),
            ("target_groups[0].scheme", "`ftp` is not a scheme"),
            ("target_groups[0].static_targets.targets[0]", "has no port"),
            ("target_groups[0].static_targets.targets[1]", "contradicts"),
            ("target_groups[0].consul_sd_config.host", "expected Consul's host and port"),
            ("target_groups[0].consul_sd_config.service", "expected the name of a service"),
            ("target_groups[1].basic_auth", "add `password` or `password_file`"),
            ("target_groups[1].file_targets.path", "expected the path of a file"),
            ("log.level", "is not a level"),
            ("default_group", "there is no group `nowhere`"),
            ("cache.sharing", "`shared` needs a directory"),
            ("zzz", "unknown key"),
        ],
    );
}

#[test]
fn an_error_of_a_file_names_the_file_and_every_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("snapedge.yaml");
    let unreadable = super::load(&path).expect_err("no such file");
    assert!(unreadable.to_string().contains(&path.display().to_string()), "{unreadable}");
    assert!(std::error::Error::source(&unreadable).is_some());
    std::fs::write(&path, "typo: 1").expect("written");
    let invalid = super::load(&path).expect_err("invalid").to_string();
    let lines: Vec<&str> = invalid.lines().collect();
    assert_eq!(lines.len(), 3, "{invalid}");
    assert_eq!(lines[0], format!("2 errors in the configuration `{}`", path.display()));
    assert!(lines[1].starts_with("  `target_groups`: "), "{invalid}");
    assert!(lines[2].starts_with("  `typo`: unknown key"), "{invalid}");
    std::fs::write(&path, " ".repeat((4 << 20) + 1)).expect("written");
    let large = super::load(&path).expect_err("too large");
    let source = std::error::Error::source(&large).map(ToString::to_string);
    assert!(source.is_some_and(|text| text.contains("the most is 4194304")), "{large}");
    std::fs::write(&path, LEAST).expect("written");
    assert_eq!(super::load(&path).expect("valid"), good(LEAST));
}

/// Texts that look like a configuration, or nearly.
fn any_file() -> impl Strategy<Value = String> {
    let key = prop::sample::select(keys().into_iter().collect::<Vec<_>>());
    let key = key.prop_map(|key| key.rsplit('.').next().unwrap_or_default().replace("[]", ""));
    let scalar = prop_oneof![
        any::<String>().prop_map(|text| format!("{text:?}")),
        "[ -~]{0,12}",
        any::<i64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["~", "true", "15s", "-1s", "1e400s", "a:1", "http", "!x y"])
            .prop_map(str::to_owned),
    ];
    let value = scalar.prop_recursive(4, 32, 4, move |inner| {
        let pair = (key.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(", "))),
            prop::collection::vec(pair, 0..6).prop_map(|all| format!("{{{}}}", all.join(", "))),
        ]
    });
    prop_oneof![3 => value, 1 => any::<String>()]
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any_file(), more: String) {
        for text in [&text, &more, &format!("{LEAST}{text}"), &format!("target_groups: [{text}]")] {
            if let Err(problems) = parse(text) {
                prop_assert!(!problems.is_empty());
                problems.iter().for_each(check_style);
            }
        }
    }
}
