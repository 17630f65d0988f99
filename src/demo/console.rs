//! What the demo prints: what to try, and then a line for everything that happens.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use env_logger::{Env, Target};
use log::{Level, LevelFilter};

use crate::clock::Now;
use crate::logging::{ACCESS, NOISY_MODULE};

/// Prints the log to standard output, short and without the framework's own chatter. `RUST_LOG`
/// says otherwise where it is set.
pub(super) fn start_log(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let filter = format!("warn,{NOISY_MODULE}=off,{ACCESS}={level},snapedge={level}");
    env_logger::Builder::from_env(Env::new().default_filter_or(filter))
        .target(Target::Stdout)
        .format(|out, record| {
            let now = jiff::Timestamp::try_from(Now::read().wall).unwrap_or_default();
            write!(out, "{} ", now.strftime("%H:%M:%SZ"))?;
            match record.level() {
                Level::Info => writeln!(out, "{}", record.args()),
                level => writeln!(out, "{}: {}", level.as_str().to_lowercase(), record.args()),
            }
        })
        .try_init()
}

/// Prints what to try, with commands that work as they are.
pub(super) fn introduce(listen: SocketAddr, internal: Option<SocketAddr>) {
    say(&introduction(reachable(listen), internal));
}

/// Prints to standard output. That nobody reads it, as in `snapedge demo | head -1`, is no reason
/// to stop.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An address that a client on this machine can use: the unspecified one is for listening only.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn introduction(address: SocketAddr, internal: Option<SocketAddr>) -> String {
    let (full, incremental) = ("snapshot.tar.bz2", "incremental-snapshot.tar.bz2");
    let url = format!("http://{address}");
    let look = internal.map_or_else(String::new, |internal| {
        format!("  snapedge status --connect {internal}    # or http://{internal}/ in a browser\n")
    });
    format!(
        "
An edge on {url}, in front of two nodes and a sidecar. One of the nodes lags, and all
of them write a new incremental archive every 30 seconds. It caches the best pair: the second
download of an archive is a `hit`. In another terminal, try

  curl -sI {url}/{full}
  curl -sIL {url}/{full} | grep cache-status
  curl -sSL -o s.tar.zst {url}/{full} && zstd -t s.tar.zst
  curl -sSL -o i.tar.zst {url}/{incremental} && zstd -t i.tar.zst
  wget --trust-server-names {url}/{full}
  aria2c -x4 -Z {url}/{full} {url}/{incremental}
  curl -s '{url}/v1/best_snapshots?max=3'
{look}
ctrl-c stops
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, expected: &str) {
        let internal = "127.0.0.1:4".parse().unwrap();
        let text = introduction(reachable(listen.parse().unwrap()), Some(internal));
        assert!(text.contains("  snapedge status --connect 127.0.0.1:4 "), "{text}");
        assert!(text.contains(&format!("curl -sI {expected}/snapshot.tar.bz2\n")), "{text}");
    }

    #[test]
    fn commands_name_an_address_that_works() {
        check("127.0.0.1:8458", "http://127.0.0.1:8458");
        check("0.0.0.0:8458", "http://127.0.0.1:8458");
        check("[::]:8458", "http://[::1]:8458");
        check("10.0.0.1:80", "http://10.0.0.1:80");
    }
}
