//! Domain names whose records are targets: addresses with a port from the configuration, or `SRV`
//! records, which name host and port. The names in `SRV` records stay names, and are resolved as
//! those that the configuration names; of their priorities and weights nothing is made.
//!
//! The only module that knows the DNS library. A resolver is made for each look-up, so that a
//! change of `resolv.conf` is seen, and nothing is remembered longer than the records want.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::answer::Answer;
use super::error::DiscoveryError;
use super::gathering::{Gathering, Named};
use crate::config::{DnsTargets, Records, Scheme};

/// Shortest and longest that records are believed, whatever they say themselves.
const LEAST_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(3600);
/// Tries of one look-up after the first one, which share its time.
const RETRIES: u32 = 2;

/// One name of a group.
pub(super) struct DnsSource {
    targets: DnsTargets,
    scheme: Scheme,
    timeout: Duration,
}

impl DnsSource {
    /// Looks for targets of this scheme. `timeout` is the time of one look-up.
    pub(super) const fn new(targets: DnsTargets, scheme: Scheme, timeout: Duration) -> Self {
        Self { targets, scheme, timeout }
    }

    pub(super) fn name(&self) -> &str {
        &self.targets.name
    }

    pub(super) async fn ask(&self) -> Result<Answer, DiscoveryError> {
        let DnsTargets { name, records, server } = &self.targets;
        let (server, pause) = (*server, self.timeout / (RETRIES + 1));
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| DiscoveryError::Dns {
            name: name.clone(),
            kind: kind(*records),
            source,
        };
        // It reads a file.
        let made = tokio::task::spawn_blocking(move || resolver(server, pause)).await;
        let resolver = made.map_err(|error| failed(error.into()))?;
        let resolver = resolver.map_err(|error| failed(error.into()))?;
        let parsed = Name::from_ascii(name).map_err(|error| failed(error.into()))?;
        let found = resolver.lookup(parsed, record_type(*records)).await;
        let found = found.map_err(|error| match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => {
                DiscoveryError::NoRecords { name: name.clone(), kind: kind(*records) }
            }
            error => failed(error.into()),
        })?;
        let named = targets(found.answers(), *records, self.scheme);
        let named = named.map_err(DiscoveryError::Answer)?.ok_or_else(|| {
            DiscoveryError::NoRecords { name: name.clone(), kind: kind(*records) }
        })?;
        Ok(Answer { named, again: lifetime(found.answers()) })
    }
}

const fn kind(records: Records) -> &'static str {
    match records {
        Records::A(_) => "A",
        Records::Aaaa(_) => "AAAA",
        Records::Srv => "SRV",
    }
}

const fn record_type(records: Records) -> RecordType {
    match records {
        Records::A(_) => RecordType::A,
        Records::Aaaa(_) => RecordType::AAAA,
        Records::Srv => RecordType::SRV,
    }
}

/// A resolver that asks this server, or those of the system, and remembers nothing. One try of a
/// look-up takes at most `patience`.
fn resolver(server: Option<SocketAddr>, patience: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(address) => {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|way| way.port = address.port());
            let config = ResolverConfig::from_name_servers(vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    // What is asked for is what DNS says.
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = patience;
    options.attempts = RETRIES as usize;
    builder.build()
}

/// The targets that records of the wanted type name; `None` where there is no such record. An `SRV`
/// record for `.` says that there is no target, and so leaves none.
fn targets(records: &[Record], wanted: Records, scheme: Scheme) -> Result<Option<Named>, String> {
    let mut found = None::<Gathering>;
    for (record, number) in records.iter().zip(1_usize..) {
        let gathering = || Gathering::new(scheme);
        let target = match (&record.data, wanted) {
            (RData::A(address), Records::A(port)) => format!("{}:{port}", address.0),
            (RData::AAAA(address), Records::Aaaa(port)) => format!("[{}]:{port}", address.0),
            (RData::SRV(srv), Records::Srv) if srv.target.is_root() => {
                found.get_or_insert_with(gathering);
                continue;
            }
            (RData::SRV(srv), Records::Srv) => {
                let host = srv.target.to_ascii();
                format!("{}:{}", host.trim_end_matches('.'), srv.port)
            }
            // An alias on the way to what is wanted.
            _ => continue,
        };
        let found = found.get_or_insert_with(gathering);
        found.take(|| format!("record {number}"), Ok(&target))?;
    }
    found.map(Gathering::end).transpose()
}

/// How long all of the records hold.
fn lifetime(records: &[Record]) -> Duration {
    let least = records.iter().map(|record| record.ttl).min().unwrap_or(0);
    Duration::from_secs(least.into()).clamp(LEAST_TTL, MAX_TTL)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{CNAME, SRV};

    use super::*;
    use crate::scrape::discovery::gathering::check;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn record(ttl: u32, data: RData) -> Record {
        Record::from_rdata(name("x.example."), ttl, data)
    }

    fn a(text: &str) -> RData {
        RData::A(text.parse::<std::net::Ipv4Addr>().expect("an address").into())
    }

    fn aaaa(text: &str) -> RData {
        RData::AAAA(text.parse::<std::net::Ipv6Addr>().expect("an address").into())
    }

    fn srv(port: u16, target: &str) -> RData {
        RData::SRV(SRV::new(1, 1, port, name(target)))
    }

    #[test]
    fn records() {
        let alias = || RData::CNAME(CNAME(name("y.example.")));
        let check = |data: &[RData], wanted, expected: Result<Option<&[&str]>, &str>| {
            let records: Vec<Record> = data.iter().map(|data| record(60, data.clone())).collect();
            let text = format!("{data:?}");
            match (targets(&records, wanted, Scheme::Http).transpose(), expected) {
                (None, Ok(None)) => {}
                (Some(found), Ok(Some(expected))) => check(&text, found, Ok(expected)),
                (Some(found), Err(expected)) => check(&text, found, Err(expected)),
                (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
            }
        };
        let v4 = [alias(), a("10.0.0.2"), a("10.0.0.1"), a("10.0.0.1"), aaaa("fd00::1")];
        check(&v4, Records::A(8899), Ok(Some(&["10.0.0.1:8899", "10.0.0.2:8899"])));
        check(&v4, Records::Aaaa(80), Ok(Some(&["[fd00::1]:80"])));
        check(&v4, Records::Srv, Ok(None));
        check(&[], Records::A(1), Ok(None));
        check(&[alias()], Records::A(1), Ok(None));
        let two = [srv(2, "b.example."), srv(1, "A.example."), srv(1, "b.example.")];
        let expected = ["a.example:1", "b.example:1", "b.example:2"];
        check(&two, Records::Srv, Ok(Some(&expected)));
        check(&[srv(0, ".")], Records::Srv, Ok(Some(&[])));
        check(&[srv(0, "."), srv(1, "a.")], Records::Srv, Ok(Some(&["a:1"])));
        // A part that is wrong costs that part.
        check(&[srv(1, "a."), srv(0, "b.")], Records::Srv, Ok(Some(&["a:1"])));
        check(&[srv(0, "b.")], Records::Srv, Err("record 1: `b:0` has a bad port"));
        let odd = Name::from_labels([&b"a b"[..]]).expect("a name");
        let odd = RData::SRV(SRV::new(1, 1, 1, odd));
        check(&[odd], Records::Srv, Err("is not a host and port"));
    }

    #[test]
    fn the_record_that_ends_first_ends_the_answer_within_bounds() {
        let lives = |ttls: &[u32]| {
            let records: Vec<Record> = ttls.iter().map(|ttl| record(*ttl, a("10.0.0.1"))).collect();
            lifetime(&records).as_secs()
        };
        assert_eq!(lives(&[60, 30, 90]), 30);
        assert_eq!(lives(&[0, 30]), 1);
        assert_eq!(lives(&[]), 1);
        assert_eq!(lives(&[u32::MAX]), 3600);
    }
}
