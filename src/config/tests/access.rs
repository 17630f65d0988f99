//! `scheme`, `tls_config`, `basic_auth` and `bearer_auth`.

use std::path::PathBuf;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair};

use super::{good, reference_with_examples, reject_file, reject_in_group};
use crate::config::{Credentials, Group, Kept, Scheme, Secret, Tls, Verification};

/// A directory with the files that the reference names.
pub(super) struct Files {
    directory: tempfile::TempDir,
    authority: Certificate,
    client: Certificate,
    key: KeyPair,
}

impl Files {
    pub(super) fn new() -> Self {
        let authority_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
        let client = params.signed_by(&key, &authority, &authority_key).expect("signed");
        let directory = tempfile::tempdir().expect("a directory");
        let files = Self { directory, authority, client, key };
        files.write("ca.pem", files.authority.pem());
        files.write("client.pem", files.client.pem() + &files.authority.pem());
        files.write("client.key", files.key.serialize_pem());
        files.write("password", "from the file\n");
        files.write("token", "from.the.file\n");
        for name in ["fullchain.pem", "testnet.pem"] {
            files.write(name, files.client.pem());
        }
        for name in ["privkey.pem", "testnet.key"] {
            files.write(name, files.key.serialize_pem());
        }
        files.write("clients.pem", files.authority.pem());
        files.write("users", format!("ann:{}\n", bcrypt::hash("w", 4).expect("a hash")));
        for name in ["token-a", "token-b"] {
            files.write(name, name);
        }
        files
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("written");
    }

    /// `text` with these files for those of the reference.
    pub(super) fn put_into(&self, text: &str) -> String {
        text.replace("/etc/snapedge/", &format!("{}/", self.directory.path().display()))
    }

    fn group(&self, text: &str) -> Group {
        let text = self.put_into(text);
        let file =
            format!("target_groups: [{{group: g, static_targets: {{targets: ['a:1']}}, {text}}}]");
        good(&file).groups.remove(0)
    }

    /// The message has this part, and names the file that it is about where `named`.
    #[track_caller]
    fn reject(&self, text: &str, path: &str, part: &str) {
        reject_in_group(&self.put_into(text), path, &self.put_into(part));
    }
}

/// Takes a key, with all that is below it and the comment above it, out of a file.
pub(super) fn without(text: &str, key: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &&str| line.trim_start().starts_with(&format!("{key}:"));
    let start = lines.iter().position(is_key).expect("it is there");
    let depth = lines[start].len() - lines[start].trim_start().len();
    let below = |line: &&str| line.len() - line.trim_start().len() > depth;
    let end = start + 1 + lines[start + 1..].iter().take_while(|line| below(line)).count();
    lines.drain(start..end);
    lines.join("\n")
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let files = Files::new();
    let text = files.put_into(&reference_with_examples());
    let text = text.replace("scheme: http\n", "scheme: https\n");
    let (basic, bearer) = (without(&text, "bearer_auth"), without(&text, "basic_auth"));
    let example = || Secret::new("example");
    let in_file =
        |name, content| Kept::File { path: files.path(name), first: Secret::new(content) };
    let named = |password| Credentials::Basic { username: "snapedge".to_owned(), password };
    for (text, expected) in [
        (without(&basic, "password_file"), named(Kept::Here(example()))),
        (without(&basic, "password"), named(in_file("password", "from the file"))),
        (without(&bearer, "token_file"), Credentials::Bearer(Kept::Here(example()))),
        (without(&bearer, "token"), Credentials::Bearer(in_file("token", "from.the.file"))),
    ] {
        let group = good(&text).groups.remove(0);
        assert_eq!(group.credentials, Some(expected));
        assert_eq!(group.scheme, Scheme::Https);
        assert_eq!(group.tls.authorities, Some(vec![files.authority.der().clone()]));
        let identity = group.tls.identity.expect("it is given");
        assert_eq!(identity.chain, [files.client.der().clone(), files.authority.der().clone()]);
        assert_eq!(identity.key.expose(), files.key.serialize_der());
        assert_eq!(group.tls.verification, Verification::Full);
    }
}

#[test]
fn accepted_in_a_group() {
    let files = Files::new();
    let group = files.group("scheme: https");
    assert_eq!((group.scheme, group.tls, group.credentials), (Scheme::Https, Tls::default(), None));
    let group = files.group("scheme: https, tls_config: {insecure_skip_verify: true}");
    assert_eq!(group.tls.verification, Verification::Off);
    let group = files.group("tls_config: ~, basic_auth: ~, bearer_auth: ~");
    assert_eq!((group.scheme, group.tls, group.credentials), (Scheme::Http, Tls::default(), None));
    for (password, text) in [("", "''"), ("a b: ü", "'a b: ü'"), ("007", "'007'")] {
        let group = files.group(&format!("basic_auth: {{username: 7, password: {text}}}"));
        let password = Kept::Here(Secret::new(password));
        let expected = Credentials::Basic { username: "7".to_owned(), password };
        assert_eq!(group.credentials, Some(expected));
    }
    let text = "target_groups: [{group: g, scheme: https, static_targets: {targets: \
                ['https://a:1', '10.0.0.1:1']}}]";
    assert_eq!(good(text).groups[0].sources.static_targets.len(), 2);
}

#[test]
fn bad_tls_is_rejected() {
    let files = Files::new();
    let check = |text: &str, key: &str, part: &str| {
        let path = format!("tls_config.{key}");
        files.reject(&format!("scheme: https\n  tls_config: {{{text}}}"), &path, part);
    };
    files.reject("tls_config: {}", "tls_config", "needs `scheme: https`");
    files.reject("scheme: http\n  tls_config: {}", "tls_config", "needs `scheme: https`");
    // A scheme that is none has its own message.
    files.reject("scheme: httpss\n  tls_config: {}", "scheme", "is not a scheme");
    check("ca: x", "ca", "unknown key, expected one of `ca_file`");
    check("cert_file: /etc/snapedge/client.pem", "cert_file", "needs `key_file` beside it");
    check("key_file: /etc/snapedge/client.key", "key_file", "needs `cert_file` beside it");
    check(
        "ca_file: /etc/snapedge/ca.pem, insecure_skip_verify: true",
        "insecure_skip_verify",
        "contradicts `ca_file`, remove one",
    );
    for bad in ["yes", "1", "'true'"] {
        let text = format!("insecure_skip_verify: {bad}");
        check(&text, "insecure_skip_verify", "expected `true` or `false`");
    }
    for key in ["ca_file", "cert_file", "key_file"] {
        let both = |value: &str| match key {
            "ca_file" => format!("ca_file: {value}"),
            "cert_file" => format!("cert_file: {value}, key_file: /etc/snapedge/client.key"),
            _ => format!("cert_file: /etc/snapedge/client.pem, key_file: {value}"),
        };
        check(&both("[a]"), key, "expected a path, found a list");
        check(&both("/etc/snapedge/none"), key, "cannot read `/etc/snapedge/none`: No such file");
        check(&both("/etc/snapedge/"), key, "it is not a regular file");
        let wanted = if key == "key_file" { "private key" } else { "certificate" };
        let part = format!("`/etc/snapedge/token` holds no {wanted} in PEM form");
        check(&both("/etc/snapedge/token"), key, &part);
    }
}

#[test]
fn bad_certificates_are_rejected() {
    let files = Files::new();
    let check = |text: &str, key: &str, part: &str| {
        let path = format!("tls_config.{key}");
        files.reject(&format!("scheme: https\n  tls_config: {{{text}}}"), &path, part);
    };
    let pem = |kind: &str, content: &str| {
        format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n")
    };
    files.write("odd.pem", pem("CERTIFICATE", "AAAA"));
    let odd = "`/etc/snapedge/odd.pem` holds a certificate that cannot be read";
    check("ca_file: /etc/snapedge/odd.pem", "ca_file", odd);
    files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let broken = "`/etc/snapedge/broken.pem` is not sound PEM";
    check("ca_file: /etc/snapedge/broken.pem", "ca_file", broken);
    files.write("many.pem", files.authority.pem().repeat(1001));
    let many = "`/etc/snapedge/many.pem` holds more than 1000 certificates";
    check("ca_file: /etc/snapedge/many.pem", "ca_file", many);

    let with_key =
        |file: &str| format!("cert_file: /etc/snapedge/client.pem, key_file: /etc/snapedge/{file}");
    files.write("other.key", KeyPair::generate().expect("a key").serialize_pem());
    check(&with_key("other.key"), "key_file", "is not that of the first certificate");
    files.write("odd.key", pem("PRIVATE KEY", "AAAA"));
    check(&with_key("odd.key"), "key_file", "of no kind that can be used");
    files.write("encrypted.key", pem("ENCRYPTED PRIVATE KEY", "AAAA"));
    check(&with_key("encrypted.key"), "key_file", "no private key in PEM form that is not encryp");
    // In the wrong order.
    files.write("client.pem", files.authority.pem() + &files.client.pem());
    check(&with_key("client.key"), "key_file", "is not that of the first certificate");
}

/// The group with `text` is rejected for this, and no message shows what is secret.
#[track_caller]
fn reject_silently(files: &Files, text: &str, path: &str, part: &str) {
    files.reject(text, path, part);
    let file = format!(
        "target_groups:\n- group: main\n  static_targets: {{targets: ['a:1']}}\n  {text}\n"
    );
    let problems = format!("{:?}", crate::config::parse(&files.put_into(&file)));
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn bad_credentials_are_rejected_without_being_shown() {
    let files = Files::new();
    let (basic, bearer) = ("basic_auth", "bearer_auth");
    let check = |text: &str, path: &str, part: &str| reject_silently(&files, text, path, part);
    check("basic_auth: {username: u}", basic, "add `password` or `password_file`");
    check("bearer_auth: {}", bearer, "add `token` or `token_file`");
    check("basic_auth: {password: hunter2}", "basic_auth.username", "expected the name of a user");
    check(
        "basic_auth: {username: u, password: hunter2, password_file: /etc/snapedge/password}",
        "basic_auth.password_file",
        "contradicts `password`, remove one",
    );
    check(
        "bearer_auth: {token: hunter2, token_file: /etc/snapedge/token}",
        "bearer_auth.token_file",
        "contradicts `token`, remove one",
    );
    check(
        "basic_auth: {username: u, password: hunter2}\n  bearer_auth: {token: hunter2}",
        bearer,
        "contradicts `basic_auth`, remove one",
    );
    for name in ["''", "'a:b'", "\"a\\nb\"", &"x".repeat(257)] {
        let text = format!("basic_auth: {{username: {name}, password: hunter2}}");
        check(&text, "basic_auth.username", "a name");
    }
    check(
        "basic_auth: {username: u, password: \"hunter2\\n\"}",
        "basic_auth.password",
        "the value holds a control character",
    );
    for (token, part) in [
        ("'hunter2 x'", "the value holds a character that no token has"),
        ("\"hunter2\\r\\nx: y\"", "the value holds a character that no token has"),
        ("[hunter2]", "expected a text, found a list"),
        (&format!("hunter2{}", "x".repeat(4096)), "the value is longer than 4096 bytes"),
    ] {
        check(&format!("bearer_auth: {{token: {token}}}"), "bearer_auth.token", part);
    }
    check("bearer_auth: {tokens: hunter2, token: x}", "bearer_auth.tokens", "unknown key");
    files.write("token", "hunter2\nhunter2\n");
    let part = "the content of `/etc/snapedge/token` holds a character that no token has";
    check("bearer_auth: {token_file: /etc/snapedge/token}", "bearer_auth.token_file", part);
    files.write("password", " \n");
    let text = "basic_auth: {username: u, password_file: /etc/snapedge/password}";
    check(text, "basic_auth.password_file", "`/etc/snapedge/password` is empty");
    let text = "bearer_auth: {token_file: /etc/snapedge/none}";
    check(text, "bearer_auth.token_file", "cannot read `/etc/snapedge/none`");
    let text =
        "target_groups: [{group: g, static_targets: {targets: ['a:1']}, bearer_auth: hunter2}]";
    let at = "target_groups[0].bearer_auth";
    reject_file(
        text,
        &[(at, "expected keys and values, found a text"), (at, "add `token` or `token_file`")],
    );
}

#[test]
fn targets_that_no_certificate_can_name_are_rejected() {
    let text = "target_groups: [{group: g, scheme: https, static_targets: {targets: \
                ['a_b.example.org:1', 'http://a:1']}}]";
    reject_file(
        text,
        &[
            ("target_groups[0].static_targets.targets[0]", "has an underscore"),
            (
                "target_groups[0].static_targets.targets[1]",
                "contradicts the group's `scheme: https`",
            ),
        ],
    );
}
