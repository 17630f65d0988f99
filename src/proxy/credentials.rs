//! Whether a client has shown who it is: a password that is one of a user, or a token.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use siphasher::sip128::{Hasher128, SipHasher24};
use tokio::sync::Semaphore;

use crate::config::Auth;
use crate::route::{Busy, CallRate, ClientNet, Failure};

/// Passwords that are checked at once: each takes a processor for a while.
const CHECKS: usize = 2;
/// Wrong passwords of one client in a second, after which none of its is checked.
const WRONG_OF_ONE: u32 = 5;
/// Longest that one waits for others to be checked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Good passwords that are remembered.
const MOST_KNOWN: usize = 4096;
/// Longest header that is looked at.
const LONGEST: usize = 8 << 10;
/// What was found out about passwords so far.
pub(super) struct Credentials {
    /// With keys that nobody knows: what takes longer to compare tells nothing about a secret.
    keys: (u64, u64),
    known: Mutex<HashSet<u128>>,
    checks: Arc<Semaphore>,
    rate: Mutex<CallRate>,
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Basic { user: String, password: Vec<u8> },
    Bearer(Vec<u8>),
}

impl Default for Credentials {
    fn default() -> Self {
        let random = || RandomState::new().build_hasher().finish();
        Self {
            keys: (random(), random()),
            known: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            rate: Mutex::new(CallRate::new(WRONG_OF_ONE)),
        }
    }
}

impl Credentials {
    /// Whether these headers show one who may come in. A password that is not known to be good is
    /// checked, which takes its time.
    pub(super) async fn check(
        &self,
        auth: &Auth,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<(), Failure> {
        let refused = || Failure::Unauthorized {
            basic: !auth.users.is_empty(),
            bearer: !auth.tokens.is_empty(),
        };
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let header = all.next().filter(|_| all.next().is_none()).ok_or_else(refused)?;
        match shown(header).ok_or_else(refused)? {
            Shown::Bearer(token) => {
                let digest = self.digest(&[&token]);
                let is_it = |secret: &[u8]| self.digest(&[secret]) == digest;
                let found = auth.tokens.iter().filter(|secret| is_it(secret.expose())).count();
                if found > 0 { Ok(()) } else { Err(refused()) }
            }
            Shown::Basic { user, password } => {
                let hash = auth.users.get(&user);
                let kept = hash.map_or(&b""[..], |hash| hash.as_bytes());
                let digest = self.digest(&[user.as_bytes(), &password, kept]);
                if hash.is_some() && self.known().contains(&digest) {
                    return Ok(());
                }
                self.heard(client, 0)?;
                // Who names no user waits as long as one who does.
                let compared = hash.or_else(|| dearest(auth)).ok_or_else(refused)?.clone();
                let is_it = self.verify(digest, compared, password, client).await?;
                if hash.is_some() && is_it { Ok(()) } else { Err(refused()) }
            }
        }
    }

    /// Whether a password is that of a hash.
    async fn verify(
        &self,
        digest: u128,
        hash: String,
        password: Vec<u8>,
        client: IpAddr,
    ) -> Result<bool, Failure> {
        let place = Arc::clone(&self.checks).acquire_owned();
        let place = tokio::time::timeout(PATIENCE, place).await;
        let Ok(Ok(place)) = place else { return Err(Failure::Busy(Busy::Credentials)) };
        // The same client shows it on each of its connections at once.
        if self.known().contains(&digest) {
            return Ok(true);
        }
        let check = move || {
            let _place = place;
            bcrypt::verify(password, &hash).unwrap_or(false)
        };
        let checked = tokio::task::spawn_blocking(check).await.map_err(|_| Failure::Internal)?;
        if checked {
            let mut known = self.known();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(digest);
        } else {
            self.heard(client, 1)?;
        }
        Ok(checked)
    }

    /// Counts so many wrong passwords of a client, or says how long it is not heard.
    fn heard(&self, client: IpAddr, wrong: u32) -> Result<(), Failure> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let client = ClientNet::of(client);
        let taken = match wrong {
            0 => rate.could_take(client, 1, Instant::now()),
            wrong => rate.take(client, wrong, Instant::now()),
        };
        taken.map_err(Failure::Guesses)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = SipHasher24::new_with_keys(self.keys.0, self.keys.1);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish128().as_u128()
    }
}

/// The hash that takes longest to compare with.
fn dearest(auth: &Auth) -> Option<&String> {
    auth.users
        .values()
        .max_by_key(|hash| hash.parse::<bcrypt::HashParts>().map_or(0, |parts| parts.get_cost()))
}

/// What a header shows (RFC 7617, RFC 6750); nothing where it is none of both.
fn shown(header: &HeaderValue) -> Option<Shown> {
    let bytes = header.as_bytes();
    if bytes.len() > LONGEST {
        return None;
    }
    let at = bytes.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = bytes.split_at(at);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Shown::Bearer(rest.to_vec()));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let plain = STANDARD.decode(rest).ok()?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, password) = plain.split_at(colon);
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some(Shown::Basic { user, password: password.get(1..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::net::Ipv4Addr;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn auth(users: &[(&str, &str)], tokens: &[&str]) -> (tempfile::TempDir, Auth) {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let hash = |password: &str| bcrypt::hash(password, 4).expect("a hash");
        let lines: Vec<_> =
            users.iter().map(|(user, word)| format!("{user}:{}", hash(word))).collect();
        let mut parts = Vec::new();
        if !users.is_empty() {
            parts
                .push(format!("basic: {{htpasswd_file: '{}'}}", write("users", &lines.join("\n"))));
        }
        let files: Vec<_> = tokens.iter().map(|token| write(token, token)).collect();
        if !tokens.is_empty() {
            parts.push(format!("bearer: {{token_files: ['{}']}}", files.join("', '")));
        }
        let text = format!(
            "auth: {{{}}}\ntarget_groups: [{{group: g, static_targets: {{targets: ['a:1']}}}}]",
            parts.join(", ")
        );
        (directory, config::parse(&text).expect("good").auth.expect("there"))
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().expect("a value"));
        }
        headers
    }

    fn basic(plain: &str) -> String {
        format!("Basic {}", STANDARD.encode(plain))
    }

    #[tokio::test]
    async fn who_shows_a_password_or_a_token_comes_in() {
        let (_files, auth) = auth(&[("ann", "p:w"), ("bob", "")], &["secret", "other"]);
        for (values, expected) in [
            (vec![basic("ann:p:w")], true),
            (vec![basic("bob:")], true),
            (vec![basic("ann:p:x")], false),
            (vec![basic("ann:")], false),
            (vec![basic("eve:p:w")], false),
            (vec![basic("ann")], false),
            (vec!["Basic !".to_owned()], false),
            (vec!["bearer secret".to_owned()], true),
            (vec!["Bearer other".to_owned()], true),
            (vec!["Bearer secret2".to_owned()], false),
            (vec!["Bearer ".to_owned()], false),
            (vec!["Digest secret".to_owned()], false),
            (vec!["secret".to_owned()], false),
            (vec!["Bearer secret".to_owned(), "Bearer secret".to_owned()], false),
            (vec![], false),
        ] {
            // Each of another client, so that none is one too many.
            let credentials = Credentials::default();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let checked = credentials.check(&auth, &headers(&values), CLIENT).await;
            assert_eq!(checked.is_ok(), expected, "{values:?}");
            if !expected {
                let refusal = Failure::Unauthorized { basic: true, bearer: true };
                assert_eq!(checked, Err(refusal), "{values:?}");
            }
        }
    }

    #[tokio::test]
    async fn guesses_are_bounded_and_who_is_known_is_not_held_up() {
        let (_files, auth) = auth(&[("ann", "right")], &[]);
        let credentials = Credentials::default();
        let good = headers(&[&basic("ann:right")]);
        credentials.check(&auth, &good, CLIENT).await.expect("right");
        let mut refused = 0;
        for guess in 0..20 {
            let guess = headers(&[&basic(&format!("ann:{guess}"))]);
            let checked = credentials.check(&auth, &guess, CLIENT).await;
            refused += usize::from(matches!(checked, Err(Failure::Guesses(_))));
        }
        assert!(refused >= 10, "{refused} of 20");
        credentials.check(&auth, &good, CLIENT).await.expect("it was good before");
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let wrong = headers(&[&basic("ann:wrong")]);
        let checked = credentials.check(&auth, &wrong, other).await;
        assert!(matches!(checked, Err(Failure::Unauthorized { .. })), "another client's guess");
    }

    #[tokio::test]
    async fn another_password_ends_what_was_known() {
        let credentials = Credentials::default();
        let (_files, before) = auth(&[("ann", "old")], &[]);
        let (_others, after) = auth(&[("ann", "new")], &[]);
        let old = headers(&[&basic("ann:old")]);
        credentials.check(&before, &old, CLIENT).await.expect("good");
        assert!(credentials.check(&after, &old, CLIENT).await.is_err());
        credentials.check(&after, &headers(&[&basic("ann:new")]), CLIENT).await.expect("good");
    }

    /// All connections of a client that has the right password come in at once.
    #[tokio::test]
    async fn a_right_password_is_no_guess() {
        let (_files, auth) = auth(&[("ann", "right")], &[]);
        let credentials = Credentials::default();
        let good = headers(&[&basic("ann:right")]);
        let all = (0..50).map(|_| credentials.check(&auth, &good, CLIENT));
        for checked in futures_of(all).await {
            assert_eq!(checked, Ok(()));
        }
    }

    /// Runs futures side by side.
    async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut all: Vec<_> = all.map(Box::pin).collect();
        let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            let mut pending = false;
            for (future, done) in all.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(output) => *done = Some(output),
                    std::task::Poll::Pending => pending = true,
                }
            }
            if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        })
        .await;
        done.into_iter().flatten().collect()
    }

    #[test]
    fn who_names_nobody_is_compared_with_what_takes_longest() {
        let (_files, mut auth) = auth(&[("ann", "a"), ("bob", "b")], &[]);
        let dear = bcrypt::hash("b", 5).expect("a hash");
        auth.users.insert("bob".to_owned(), dear.clone());
        assert_eq!(dearest(&auth), Some(&dear));
    }
}
