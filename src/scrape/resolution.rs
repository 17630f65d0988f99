//! Name resolution for targets, with bounds on its threads.
//!
//! The system resolves names, in threads that nobody can stop. So there is a bound on them, at most
//! one of them for each target, and names that let wait share a few, so that they hold up neither
//! each other's betters nor whatever else needs a thread. What resolved before goes on being asked
//! at the addresses of before, while there is no news of them.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::ClientError;
use crate::config::HostPort;

/// Threads for names of which nothing bad is known.
const MAX_LOOKUPS: usize = 64;
/// Threads for names that let wait.
const MAX_SLOW_LOOKUPS: usize = 16;
/// Most addresses of one name that are asked; more of it is better told by `dns_targets`.
const MAX_ADDRESSES: usize = 64;
/// How long news of a name that has resolved before are waited for.
const BRIEF: Duration = Duration::from_millis(200);
/// How long the addresses of before are good without news.
const STALE: Duration = Duration::from_secs(300);

/// How a name is resolved: by what may take long, in a thread of its own.
type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What all look-ups share.
#[derive(Clone)]
pub(super) struct Lookups {
    resolve: Arc<Resolve>,
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Lookups {
    /// Look-ups by the system.
    pub(super) fn new() -> Self {
        Self::by(|host, port| {
            let found = (host, port).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    /// Look-ups by whatever this is.
    pub(super) fn by(
        resolve: impl Fn(&str, u16) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let quick = Arc::new(Semaphore::new(MAX_LOOKUPS));
        let slow = Arc::new(Semaphore::new(MAX_SLOW_LOOKUPS));
        Self { resolve: Arc::new(resolve), quick, slow }
    }

    /// What a name resolves to, and whether that took long.
    async fn look_up(self, target: HostPort, is_slow: bool) -> io::Result<Found> {
        let share = if is_slow { self.slow } else { self.quick };
        let permit = share.acquire_owned().await.map_err(io::Error::other)?;
        let found = tokio::task::spawn_blocking(move || {
            // For as long as the thread is held up, whoever has given it up meanwhile.
            let _permit = permit;
            let begun = Instant::now();
            let addresses = (self.resolve)(target.host(), target.port());
            Found { addresses, is_slow: begun.elapsed() > BRIEF }
        });
        found.await.map_err(io::Error::other)
    }
}

struct Found {
    addresses: io::Result<Vec<IpAddr>>,
    is_slow: bool,
}

/// The addresses of one target.
pub(super) struct Resolution {
    target: HostPort,
    lookups: Lookups,
    /// The one that is under way.
    running: JoinSet<io::Result<Found>>,
    /// What the last one found, in the system's order, and when.
    known: Vec<IpAddr>,
    since: Option<Instant>,
    /// Whether the last one let wait.
    is_slow: bool,
}

impl Resolution {
    pub(super) fn new(target: HostPort, lookups: Lookups) -> Self {
        let (running, known) = (JoinSet::new(), Vec::new());
        Self { target, lookups, running, known, since: None, is_slow: false }
    }

    /// All addresses, each once, the one that the system would take first at the front. May be
    /// dropped before its end and called again.
    pub(super) async fn addresses(&mut self) -> Result<Vec<IpAddr>, ClientError> {
        if let Some(address) = self.target.address() {
            return Ok(vec![address]);
        }
        if self.running.is_empty() {
            let look_up = self.lookups.clone().look_up(self.target.clone(), self.is_slow);
            self.running.spawn(look_up);
        }
        let good = self.since.is_some_and(|since| since.elapsed() < STALE);
        let ended = match tokio::time::timeout(BRIEF, self.running.join_next()).await {
            Err(_) if good => return Ok(self.known.clone()),
            Err(_) => self.running.join_next().await,
            Ok(ended) => ended,
        };
        let found = match ended {
            Some(Ok(Ok(found))) => {
                self.is_slow = found.is_slow;
                found.addresses
            }
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(io::Error::other(panic)),
            None => Err(io::Error::other("nothing was looked up")),
        };
        match found {
            Ok(found) if !found.is_empty() => {
                self.known = distinct(found);
                self.since = Some(Instant::now());
            }
            Ok(_) | Err(_) if good => {}
            Ok(_) => return Err(self.failed(None)),
            Err(error) => return Err(self.failed(Some(error))),
        }
        Ok(self.known.clone())
    }

    fn failed(&self, source: Option<io::Error>) -> ClientError {
        ClientError::Resolve { host: self.target.host().to_owned(), source }
    }
}

/// Each address once, in their order.
fn distinct(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for address in found {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;
    use crate::config::Scheme;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
    const B: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn named(text: &str, lookups: &Lookups) -> Resolution {
        Resolution::new(HostPort::parse(text, Scheme::Http).expect("a target"), lookups.clone())
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let lookups = Lookups::by(|_, _| Err(io::Error::other("never asked")));
        assert_eq!(named("127.0.0.3:1", &lookups).addresses().await.expect("one"), [A]);
        assert_eq!(named("[::1]:1", &lookups).addresses().await.expect("one"), [B]);
    }

    #[tokio::test]
    async fn all_addresses_of_a_name_are_found_once_and_in_order() {
        let lookups = Lookups::by(|_, _| Ok(vec![B, A, B, A]));
        assert_eq!(named("node.example:1", &lookups).addresses().await.expect("two"), [B, A]);
    }

    #[tokio::test]
    async fn what_resolved_before_is_good_while_there_is_no_news() {
        // Each look-up takes one of these, and waits for it.
        let (answers, next) = mpsc::channel::<io::Result<Vec<IpAddr>>>();
        let next = Mutex::new(next);
        let lookups = Lookups::by(move |_, _| next.lock().unwrap().recv().expect("an answer"));
        let mut name = named("node.example:1", &lookups);
        answers.send(Err(io::Error::other("no such name"))).expect("taken");
        let error = name.addresses().await.expect_err("it never resolved");
        assert_eq!(error.to_string(), "cannot resolve `node.example`");
        answers.send(Ok(vec![A])).expect("taken");
        assert_eq!(name.addresses().await.expect("one"), [A]);
        for trouble in [Ok(vec![]), Err(io::Error::other("try again"))] {
            answers.send(trouble).expect("taken");
            assert_eq!(name.addresses().await.expect("of before"), [A]);
        }
        assert_eq!(name.addresses().await.expect("of before"), [A], "the look-up hangs");
        answers.send(Ok(vec![B])).expect("taken");
        assert_eq!(name.addresses().await.expect("one"), [B]);
        assert!(name.is_slow, "it was waited for");
        answers.send(Ok(vec![A])).expect("taken");
        assert_eq!(name.addresses().await.expect("one"), [A]);
        assert!(!name.is_slow);
    }

    #[tokio::test]
    async fn names_that_hang_take_few_threads_and_hold_up_no_other() {
        let (release, held) = mpsc::channel::<()>();
        let (held, hanging) = (Mutex::new(held), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&hanging);
        let lookups = Lookups::by(move |host, _| {
            if host.starts_with("hang") {
                *count.lock().unwrap() += 1;
                // Until the end of the test.
                let _ = held.lock().unwrap().recv();
            }
            Ok(vec![A])
        });
        let mut names: Vec<_> =
            (0..200).map(|at| named(&format!("hang{at}.example:1"), &lookups)).collect();
        for name in &mut names {
            name.is_slow = true;
        }
        let mut asking = JoinSet::new();
        for mut name in names {
            asking.spawn(async move {
                // Given up and asked again, as by probes.
                loop {
                    let asked = name.addresses();
                    let _ = tokio::time::timeout(Duration::from_millis(20), asked).await;
                }
            });
        }
        let started = Instant::now();
        while *hanging.lock().unwrap() < MAX_SLOW_LOOKUPS {
            assert!(started.elapsed() < Duration::from_secs(10), "they are looked up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for at in 0..20 {
            let mut living = named(&format!("node{at}.example:1"), &lookups);
            assert_eq!(living.addresses().await.expect("one"), [A]);
        }
        assert_eq!(*hanging.lock().unwrap(), MAX_SLOW_LOOKUPS);
        asking.shutdown().await;
        drop(release);
    }
}
