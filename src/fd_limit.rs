//! The files and sockets that the process has open: how many there may be, and what can
//! only be said to the system by their numbers.
//!
//! Each connection takes one, and a service is commonly started with 1024. Where they run out, no
//! connection can be accepted and no target reached, so the process takes what it may have, and
//! says where that is not enough for its configuration.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open,
    setrlimit,
};

use crate::config::Config;

/// Descriptors for everything that is neither a client nor asked of a target: the log, the
/// runtime, listeners, files of the cache, sources of targets, questions to nodes.
const OTHERS: u64 = 256;

/// Raises the number of open files and sockets as far as the process may; tells how many there
/// may be then.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No number means that there is no bound.
    let unbounded = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if unbounded(current) < unbounded(maximum)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn!("cannot have more than {} files open: {error}", unbounded(current));
    }
    unbounded(getrlimit(Resource::Nofile).current)
}

/// Raises it, and warns where the configuration may need more.
pub fn provide(config: &Config) {
    let (have, need) = (raise(), needed(config));
    if have < need {
        log::warn!(
            "{need} files and sockets may be needed and {have} may be open: lower \
             `limits.max_connections` or raise the hard limit (`LimitNOFILE`, `ulimit -Hn`)"
        );
    }
}

/// Descriptors that a process with this configuration may need: each client has a connection,
/// each transfer one to a target, and so has each probe.
fn needed(config: &Config) -> u64 {
    let limits = &config.limits;
    let counts = [limits.max_connections, limits.max_transfers, limits.probe_concurrency];
    counts.iter().fold(OTHERS, |sum, count| sum.saturating_add(*count as u64))
}

/// Has the system forget what was written to a socket and not taken, as soon as the socket is
/// closed. Otherwise it would keep megabytes for a client that takes nothing, for minutes and out
/// of every count, and the client would never learn that the connection is over.
///
/// Pingora shows no more of a socket than its number, so a second descriptor is made by that. The
/// socket must be open until this returns.
pub fn reset_when_closed(socket: RawFd) -> io::Result<()> {
    Ok(set_socket_linger(second_of(socket)?, Some(Duration::ZERO))?)
}

/// A second descriptor of what is open under a number.
pub fn second_of(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        // What is nothing of the system has such a number.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_was_not_taken_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        for reset in [false, true] {
            let mut client = TcpStream::connect(address).expect("connected");
            let (mut server, _) = listener.accept().expect("a client");
            server.write_all(b"something").expect("written");
            if reset {
                reset_when_closed(server.as_raw_fd()).expect("the system can do that");
            }
            drop(server);
            let mut rest = Vec::new();
            let end = client.read_to_end(&mut rest).map_err(|error| error.kind());
            assert_eq!(end.is_err(), reset, "{end:?}");
        }
        assert!(reset_when_closed(-1).is_err());
    }

    #[test]
    fn what_clients_transfers_and_probes_take_is_counted() {
        let config = |limits: &str| {
            let group = "target_groups: [{group: a, static_targets: {targets: ['a:1']}}]";
            crate::config::parse(&format!("limits: {{{limits}}}\n{group}")).expect("valid")
        };
        assert_eq!(needed(&config("")), 4096 + 1000 + 64 + 256);
        let small = "max_connections: 10, max_transfers: 5, probe_concurrency: 1";
        assert_eq!(needed(&config(small)), 10 + 5 + 1 + 256);
    }

    #[test]
    fn all_that_may_be_is_taken() {
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!(raise(), most);
        assert_eq!(raise(), most, "and again");
    }
}
