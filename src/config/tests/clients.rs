//! `listen` with its sections, `hosts`, and who clients are and may ask.

use std::net::IpAddr;

use rcgen::{CertificateParams, KeyPair};

use super::access::Files;
use super::{accept, reject};
use crate::clients::ClientAddress;
use crate::config::{Config, OpenRoute, ProxyProtocol};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `text` with these files beside a good group.
fn accept_with(files: &Files, text: &str) -> Config {
    accept(&files.put_into(text))
}

#[track_caller]
fn reject_with(files: &Files, text: &str, path: &str, part: &str) {
    reject(&files.put_into(text), path, &files.put_into(part));
}

const TLS: &str = "listen: [{address: '[::]:443', tls: {cert_file: \
                   /etc/snapedge/fullchain.pem, key_file: \
     /etc/snapedge/privkey.pem, X}}]";

#[test]
fn a_listener_is_an_address_or_a_section() {
    let config = accept("listen: ['0.0.0.0:80', {address: '[::]:81', group: main}]");
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.listen[1].group.as_deref(), Some("main"));
    assert!(config.listen.iter().all(|listen| listen.tls.is_none()));
    let trusting = "trusted_proxies: [10.0.0.0/8]\nlisten: [{address: '[::]:81', \
                    proxy_protocol: required}]";
    assert_eq!(accept(trusting).listen[0].proxy_protocol, ProxyProtocol::Required);
    let off = accept("listen: [{address: '[::]:81', proxy_protocol: off, tls: null, group: ''}]");
    assert_eq!((off.listen[0].proxy_protocol, &off.listen[0].group), (ProxyProtocol::Off, &None));
    reject("listen: [{}]", "listen[0].address", "expected an address");
    reject("listen: [{address: localhost}]", "listen[0].address", "is not an address and port");
    reject("listen: ['[::]:1', {address: '[::]:1'}]", "listen", "listed twice");
    reject("listen: [{address: '[::]:1', group: other}]", "listen[0].group", "no group `other`");
    reject("listen: [{address: '[::]:1', port: 2}]", "listen[0].port", "unknown key");
    let spoken = "listen: [{address: '[::]:1', proxy_protocol: X}]";
    reject(&spoken.replace('X', "v2"), "listen[0].proxy_protocol", "write `off` or `required`");
    reject(&spoken.replace('X', "required"), "listen[0].proxy_protocol", "add `trusted_proxies`");
}

#[test]
fn certificates_are_read_and_followed() {
    let files = Files::new();
    let more = "client_ca_file: /etc/snapedge/clients.pem, certificates: [{cert_file: \
                /etc/snapedge/testnet.pem, key_file: /etc/snapedge/testnet.key}]";
    let config = accept_with(&files, &TLS.replace('X', more));
    let tls = config.listen[0].tls.as_ref().expect("spoken");
    assert_eq!((tls.identities.len(), tls.client_authorities.is_some()), (2, true));
    let followed: Vec<_> = config.source.files.keys().collect();
    let names = ["clients.pem", "fullchain.pem", "privkey.pem", "testnet.key", "testnet.pem"];
    assert_eq!(followed, names.map(|name| files.path(name)).iter().collect::<Vec<_>>());
    assert!(config.source.files.values().all(Option::is_some));
}

#[test]
fn certificates_that_cannot_be_used_are_errors() {
    let files = Files::new();
    let plain = TLS.replace(", X", "");
    let other = KeyPair::generate().expect("a key");
    files.write("other.key", other.serialize_pem());
    let check = |from: &str, to: &str, key: &str, part: &str| {
        let text = plain.replace(from, to);
        reject_with(&files, &text, &format!("listen[0].tls.{key}"), part);
    };
    check("privkey.pem", "other.key", "key_file", "is not that of the first certificate");
    check("privkey.pem", "gone", "key_file", "cannot read `/etc/snapedge/gone`");
    check("privkey.pem", "users", "key_file", "holds no private key");
    check("fullchain.pem", "privkey.pem", "cert_file", "holds no certificate");
    check(", key_file: /etc/snapedge/privkey.pem", "", "key_file", "expected the path");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["edge".to_owned()]).expect("a name");
    files.write("time.key", key.serialize_pem());
    let of_a_time = plain.replace("fullchain", "time").replace("privkey.pem", "time.key");
    // One out of its time keeps nobody from starting, and is told.
    let told = |from: i32, to: i32, params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        files.write("time.pem", params.clone().self_signed(&key).expect("signed").pem());
        accept_with(&files, &of_a_time).certificates_out_of_time().join("; ")
    };
    for (from, to, part) in [
        (2019, 2020, "expired on 2020-01-01T00:00:00Z, renew"),
        (4000, 4001, "is valid from 4000-01-01T00:00:00Z on"),
    ] {
        let told = told(from, to, &mut params);
        assert!(told.contains("listener [::]:443") && told.contains(part), "{told}");
    }
    assert_eq!(told(2019, 4000, &mut params), "");
    // Whoever wants to know clients is not let in everybody.
    let private = TLS.replace('X', "client_ca_file: /etc/snapedge/gone");
    reject_with(&files, &private, "listen[0].tls.client_ca_file", "cannot read");
}

#[test]
fn hosts_stand_for_groups() {
    let config = accept("hosts: {Testnet.Example: main, other: main}");
    assert_eq!(config.hosts.keys().collect::<Vec<_>>(), ["other", "testnet.example"]);
    assert!(accept("hosts: {}").hosts.is_empty() && accept("hosts:").hosts.is_empty());
    reject("hosts: {a.example: other}", "hosts.a.example", "there is no group `other`");
    reject("hosts: {'a:80': main}", "hosts.a:80", "without a port");
    reject("hosts: {a: main, A: main}", "hosts.A", "in other letters");
    reject("hosts: [a]", "hosts", "expected keys and values");
}

#[test]
fn proxies_are_believed_as_far_as_they_are_trusted() {
    let config = accept("trusted_proxies: [10.0.0.0/8, '2001:db8::1']\nclient_address: forwarded");
    assert_eq!(config.clients.told_by, ClientAddress::Forwarded);
    for (connection, trusted) in [("10.9.9.9", true), ("2001:db8::1", true), ("11.0.0.1", false)] {
        assert_eq!(config.clients.trust(address(connection)), trusted, "{connection}");
    }
    assert_eq!(accept("trusted_proxies: []").clients, Config::clone(&accept("")).clients);
    for word in ["x-forwarded-for", "forwarded", "cf-connecting-ip"] {
        let text = format!("client_address: {word}");
        reject(&text, "client_address", "is believed of nobody, add `trusted_proxies`");
    }
    reject("client_address: x-real-ip", "client_address", "`x-real-ip` tells no address");
    reject("trusted_proxies: [10.0.0.0/33]", "trusted_proxies[0]", "is no network");
    reject("trusted_proxies: [localhost]", "trusted_proxies[0]", "is no network");
    reject("trusted_proxies: 10.0.0.0/8", "trusted_proxies", "expected a list");
}

#[test]
fn networks_may_ask_or_not() {
    let files = Files::new();
    files.write("networks", "# ours\n192.0.2.0/24\n\n2001:db8::/32 # more\n");
    let text = "access: {all: {deny: [10.0.0.1]}, archives: {allow: [10.0.0.0/8], allow_file: \
                /etc/snapedge/networks}, rpc: {deny_file: /etc/snapedge/networks}}";
    let config = accept_with(&files, text);
    assert_eq!(config.source.files.len(), 1);
    let check = |client: &str, all: bool, archives: bool, rpc: bool| {
        let (client, lists) = (address(client), &config.access);
        let found = [&lists.all, &lists.archives, &lists.rpc].map(|list| list.admits(client));
        assert_eq!(found, [all, archives, rpc], "{client}");
    };
    check("10.0.0.1", false, true, true);
    check("10.0.0.2", true, true, true);
    check("192.0.2.9", true, true, false);
    check("2001:db8::9", true, true, false);
    check("203.0.113.1", true, false, true);
    assert_eq!(accept("access: {all: {allow: [], deny: []}}").access, accept("").access);
    files.write("networks", "10.0.0.0/8\nx\n10.0.0.0/40\n");
    let part = "`/etc/snapedge/networks`, line 2: `x` is no network";
    let in_file = "access: {all: {deny_file: /etc/snapedge/networks}}";
    reject_with(&files, in_file, "access.all.deny_file", part);
    files.write("networks", "x\n".repeat(9));
    reject_with(&files, in_file, "access.all.deny_file", "; and 4 more");
    // An empty list of who may come is one.
    files.write("networks", "");
    let closed = accept_with(&files, "access: {all: {allow_file: /etc/snapedge/networks}}");
    assert!(!closed.access.all.admits(address("10.0.0.1")));
    reject("access: {other: {}}", "access.other", "unknown key");
}

#[test]
fn clients_show_who_they_are() {
    let files = Files::new();
    let both = "auth: {basic: {htpasswd_file: /etc/snapedge/users}, bearer: {token_files: \
                [/etc/snapedge/token-a, /etc/snapedge/token-b]}, open: [json, health]}";
    let config = accept_with(&files, both);
    let auth = config.auth.expect("wanted");
    assert_eq!((auth.users.len(), auth.tokens.len()), (1, 2));
    assert_eq!(auth.open.iter().collect::<Vec<_>>(), [&OpenRoute::Health, &OpenRoute::Json]);
    assert_eq!(config.source.files.len(), 3);
    reject("auth: {}", "auth", "names nobody who may come");
    reject("auth: {open: [health]}", "auth", "names nobody who may come");
    let path = "auth.bearer.token_files";
    reject("auth: {bearer: {token_files: []}}", path, "at least one file with a token");
    let opens = |word: &str| both.replace("json, health", word);
    reject_with(&files, &opens("archives"), "auth.open[0]", "`archives` cannot be open");
    let users = "auth: {basic: {htpasswd_file: /etc/snapedge/users}}";
    let path = "auth.basic.htpasswd_file";
    for (content, part) in [
        ("", "has no users"),
        ("ann\n", "line 1 of `/etc/snapedge/users` is no `user:hash`"),
        ("# x\nann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n", "line 2 of"),
        ("ann:secret\n", "make it by `htpasswd -B`"),
        ("ann:$2y$31$abcdefghijklmnopqrstuuDs3U7d1B4u9V0Zs7O8ZxK3mFvS9cRZq\n", "costs too much"),
    ] {
        files.write("users", content);
        reject_with(&files, users, path, part);
    }
    let hash = bcrypt::hash("w", 4).expect("a hash");
    files.write("users", format!("ann:{hash}\nann:{hash}\n"));
    reject_with(&files, users, path, "a user that is there already");
}

/// Nothing that is told of a file has anything of what must not be shown.
#[test]
fn hashes_are_told_nobody() {
    let files = Files::new();
    files.write("users", "ann:hunter2\n");
    let text = files.put_into("auth: {basic: {htpasswd_file: /etc/snapedge/users}}");
    let problems = crate::config::parse(&format!("{}{text}", super::LEAST)).expect_err("bad");
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[test]
fn rates_and_the_end() {
    assert_eq!(accept("limits: {requests: 50/s}").limits.requests, Some(50));
    assert_eq!(accept("limits: {requests: null}").limits.requests, None);
    reject("limits: {requests: 0/s}", "limits.requests", "too small");
    reject("limits: {requests: many}", "limits.requests", "in a second");
    assert_eq!(accept("server: {drain_delay: 5s}").server.drain_delay.as_secs(), 5);
    assert!(accept("cache: {finish_on_stop: true}").cache.finish_on_stop);
}
