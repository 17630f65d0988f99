//! `snapedge demo`: an edge and three origins with generated archives, in one process on loopback.
//!
//! The edge is the real one, built as the program builds it. The origins are small and answer as
//! what they stand for does (`rpc.rs`, `sidecar.rs`); the archives are real ones with nothing
//! useful in them (`archive.rs`). All of it lives in one Pingora server and one temporary
//! directory, and goes away with them.

mod answer;
mod archive;
mod console;
mod fleet;
mod origin;
mod producer;
mod rpc;
mod shelf;
mod sidecar;
mod workspace;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use pingora::server::{
    RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch,
};
use pingora::services::background::background_service;
use pingora::services::listening::Service;

use crate::app::{self, Services};
use crate::cli;
use crate::config::{
    self, Config, ConfigError, HostPort, InternalListen, Listen, Scheme, Sources, TargetKind,
};
use crate::drain::Opening;
use crate::listener::{Bound, Inherited};
use fleet::Fleet;
use origin::Origin;
use producer::{Alarm, Producer};
use workspace::Workspace;

/// The configuration that runs where none is given.
const CONF: &str = include_str!("../../conf/demo.yaml");
/// What that configuration is called in messages.
const CONF_PATH: &str = "conf/demo.yaml";

/// Runs the demo until a signal ends it.
pub fn run(options: &cli::Demo) -> anyhow::Result<()> {
    let mut config = read(options.conf.as_deref())?;
    console::start_log(config.log.level)?;
    let workspace = Arc::new(Workspace::new().context("cannot make a temporary directory")?);
    let fleet = Arc::new(Fleet::new(options.seed, Arc::clone(&workspace))?);
    let origins = bind(&fleet)?;
    config.listen = vec![Listen::plain(options.listen)];
    // On any port, so that it is in nobody's way.
    config.internal_listen = InternalListen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    aim(&mut config, &origins)?;
    config.cache_dir.get_or_insert_with(|| workspace.path().join("cache"));
    let mut server = app::new_server(&config);
    let services = Services::new(&config, None).map_err(|error| advise(error.into()))?;
    let alarm = Arc::new(Alarm::default());
    compose(&mut server, services, origins, fleet, &alarm);
    console::say("generating archives ...");
    server.run(RunArgs { shutdown_signal: Box::new(Stop(Arc::clone(&alarm))) });
    workspace.remove().context("cannot remove the temporary directory")?;
    match alarm.take_error() {
        Some(error) => Err(error).context("cannot generate the archives"),
        None => Ok(()),
    }
}

fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    match path {
        Some(path) => config::load(path),
        None => config::parse(CONF)
            .map_err(|problems| ConfigError::Invalid { path: CONF_PATH.into(), problems }),
    }
}

/// One listener for each origin, on a port that is free.
fn bind(fleet: &Fleet) -> anyhow::Result<Vec<Bound<Origin>>> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |(name, origin): (&str, Origin)| {
        let mut service = Service::new(name.to_owned(), origin);
        service.threads = Some(1);
        Ok(Bound::new(
            service,
            &[any_port],
            &mut Inherited::default(),
            Arc::default(),
            Opening::new(true),
        )?)
    };
    fleet.origins().map(bind).collect()
}

/// Makes the origins the only targets there are.
fn aim(config: &mut Config, origins: &[Bound<Origin>]) -> anyhow::Result<()> {
    let addresses = origins.iter().flat_map(Bound::addresses);
    let targets: Result<Vec<HostPort>, String> =
        addresses.map(|address| HostPort::parse(&address.to_string(), Scheme::Http)).collect();
    let targets = targets.map_err(anyhow::Error::msg)?;
    for group in &mut config.groups {
        group.sources = Sources { static_targets: targets.clone(), ..Sources::default() };
        group.scheme = Scheme::Http;
        group.credentials = None;
        group.kind = TargetKind::Auto;
        group.api_path.clear();
    }
    Ok(())
}

/// Says what to do about an address that is taken.
fn advise(error: anyhow::Error) -> anyhow::Error {
    let taken = error.chain().any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
    });
    if !taken {
        return error;
    }
    error.context(
        "the address of the demo is in use, give another port, or `--listen 127.0.0.1:0` for any",
    )
}

/// Puts everything into the server, in the order in which it can be of use: the edge asks the
/// origins when they have something, and its clients wait that long instead of being told 404.
fn compose(
    server: &mut Server,
    services: Services,
    origins: Vec<Bound<Origin>>,
    fleet: Arc<Fleet>,
    alarm: &Arc<Alarm>,
) {
    let producer = Producer {
        fleet,
        alarm: Arc::clone(alarm),
        published: Arc::clone(&services.published),
        addresses: services.addresses(),
        internal: services.internal.iter().flat_map(Bound::addresses).next(),
    };
    for origin in origins {
        server.add_service(origin);
    }
    let producer = server.add_service(background_service("producer", producer));
    server.add_service(services.public).add_dependency(&producer);
    server.add_service(services.scraper).add_dependency(&producer);
    server.add_service(services.trials);
    server.add_service(services.observer);
    if let Some(fetcher) = services.fetcher {
        server.add_service(fetcher);
    }
    if let Some(internal) = services.internal {
        server.add_service(internal);
    }
}

/// What ends the demo, and always at once: a signal, or that there is nothing to show.
struct Stop(Arc<Alarm>);

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        tokio::select! {
            _ = UnixShutdownSignalWatch.recv() => {}
            () = self.0.raised() => {}
        }
        ShutdownSignal::FastShutdown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_configuration_is_good_and_does_not_wait() {
        let config = read(None).unwrap();
        assert!(config.listen.iter().all(|listen| listen.address.ip().is_loopback()));
        assert!(config.server.grace_period.is_zero());
    }

    #[test]
    fn the_origins_become_the_only_targets() {
        let text = "target_groups:\n\
                    - {group: a, kind: rpc, api_path: /x, static_targets: {targets: [h:1]}}\n\
                    - {group: b, file_targets: {path: /nowhere}}\n";
        let mut config = config::parse(text).unwrap();
        let workspace = Arc::new(Workspace::new().unwrap());
        let fleet = Fleet::new(1, Arc::clone(&workspace)).unwrap();
        let origins = bind(&fleet).unwrap();
        aim(&mut config, &origins).unwrap();
        let mut expected: Vec<String> =
            origins.iter().flat_map(Bound::addresses).map(|address| address.to_string()).collect();
        expected.sort();
        for group in &config.groups {
            let mut targets: Vec<String> =
                group.sources.static_targets.iter().map(ToString::to_string).collect();
            targets.sort();
            assert_eq!(targets, expected);
            assert_eq!((group.kind, group.api_path.as_str()), (TargetKind::Auto, ""));
            let others = Sources { static_targets: Vec::new(), ..group.sources.clone() };
            assert_eq!(others, Sources::default());
        }
        workspace.remove().unwrap();
    }

    #[test]
    fn a_taken_address_names_the_way_out() {
        let taken = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let message = format!("{:#}", advise(anyhow::Error::new(taken).context("cannot listen")));
        assert!(message.contains("`--listen 127.0.0.1:0`"), "{message}");
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert!(!format!("{:#}", advise(other.into())).contains("--listen"));
    }
}
