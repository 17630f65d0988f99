//! What a fetch that clients share costs, beside the origin alone, over loopback, as ratios.
//!
//! Every measurement has an origin of its own, which answers as an Agave node does, and an edge
//! whose cache is empty. A round is this, over HTTP/1.1 and over HTTP/2:
//!
//! - A client takes the archive from the origin, which sends 200 MB/s. Then one takes 1 MB/s of it
//!   from an edge, and a second one, which comes right behind it, all that it gets: how long does
//!   the fetch take, and how long the second client?
//! - Eight clients at once take an archive that the edge has to fetch, from an origin that sends as
//!   fast as it can, and then the same from the cache: how much processor time does the edge need?
//!   What it does until the archive is in the cache counts as a part of the fetch.
//!
//! ```text
//! cargo bench --bench shared_fill -- [--rounds N] [--mib N] [--program PROGRAM]
//! ```
//!
//! `--rounds` is 3 unless it is given, `--mib`, the size of the archive, is 400, and `--program`
//! names another build of snapedge that is measured in place of this one. Nothing is done again
//! when others disturb it: the last column shows how much of the machine they took.

mod archive;
mod client;
#[path = "../hit_vs_nginx/directory.rs"]
mod directory;
mod edge;
mod origin;
#[path = "../hit_vs_nginx/process.rs"]
#[allow(dead_code, reason = "some of it is for the other benchmark alone")]
mod process;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::timeout;

use archive::Archive;
use client::{Download, Protocol, Speed};
use edge::{COLLAPSED, Edge, HIT, STORED};
use origin::Origin;
use report::{Figures, Report, Round};

/// What the origin sends in a second when it is not to send all that it can.
const RATE: u32 = 200_000_000;
/// What the slow client takes in a second.
const SLOW: u32 = 1_000_000;
/// Clients whose cost is measured.
const CLIENTS: u32 = 8;
/// Longest that one measurement may take, for each started GiB of the archive.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command line.
struct Options {
    rounds: u32,
    mib: u32,
    program: PathBuf,
}

impl Options {
    /// Reads the arguments. `cargo bench` passes its own and those for other benchmarks, too.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_snapedge"));
        let mut options = Self { rounds: 3, mib: 400, program };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse().context("`--rounds`")?,
                "--mib" => options.mib = value()?.parse().context("`--mib`")?,
                "--program" => options.program = value()?.into(),
                _ => {}
            }
        }
        ensure!(options.rounds > 0, "`--rounds` must be at least 1");
        // With less, the archive is in the cache before all clients are there.
        ensure!((64..=4000).contains(&options.mib), "`--mib` must be 64 to 4000");
        Ok(options)
    }
}

/// What all measurements are made with.
struct Bench {
    archive: Arc<Archive>,
    program: PathBuf,
    patience: Duration,
}

// Its future runs on the first thread, which is where `Edge::start` has to be called.
#[tokio::main]
async fn main() -> Result<()> {
    let Options { rounds, mib, program } = Options::parse(std::env::args().skip(1))?;
    let archive = Arc::new(Archive::new(mib));
    let processors = std::thread::available_parallelism()?;
    println!(
        "shared fetches of {mib} MiB from an origin that sends {} MB/s, over loopback, \
         {processors} processors",
        RATE / 1_000_000
    );
    let mut report = Report::begin(archive.length());
    let bench = Bench { archive, program, patience: PATIENCE * mib.div_ceil(1 << 10) };
    for _ in 0..rounds {
        report.round(&bench.round().await?);
    }
    report.end();
    Ok(())
}

impl Bench {
    async fn round(&self) -> Result<Round> {
        let used = || -> Result<_> { Ok([process::used_by_all()?.cpu, process::used_here()?.cpu]) };
        let (began, before) = (Instant::now(), used()?);
        let direct = self.within("a client of the origin", self.direct()).await?;
        let figures = [self.figures(Protocol::Http1).await?, self.figures(Protocol::Http2).await?];
        let (wall, after) = (began.elapsed(), used()?);
        let [all, here] = [0, 1].map(|at| after[at].saturating_sub(before[at]));
        let edges: Duration = figures.iter().map(|figures| figures.edges).sum();
        let processors = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?);
        let others = all.saturating_sub(here + edges).as_secs_f64();
        Ok(Round { direct, figures, others: others / (wall.as_secs_f64() * processors) })
    }

    /// Both measurements over one protocol.
    async fn figures(&self, protocol: Protocol) -> Result<Figures> {
        let mut figures = Figures::default();
        let slow = self.slow_first(protocol, &mut figures);
        self.within(&format!("a slow first client of {protocol:?}"), slow).await?;
        let many = self.many(protocol, &mut figures);
        self.within(&format!("{CLIENTS} clients of {protocol:?}"), many).await?;
        Ok(figures)
    }

    async fn within<T>(&self, what: &str, measure: impl Future<Output = Result<T>>) -> Result<T> {
        let result = timeout(self.patience, measure).await;
        result
            .with_context(|| format!("{what}: not done in {:?}", self.patience))?
            .context(what.to_owned())
    }

    /// The origin alone.
    async fn direct(&self) -> Result<Duration> {
        let origin = Origin::start(&self.archive, Some(RATE)).await?;
        let began = Instant::now();
        self.begin(Protocol::Http1, origin.address()).await?.take(Speed::Full).await?;
        Ok(began.elapsed())
    }

    /// A fetch that a slow client began.
    async fn slow_first(&self, protocol: Protocol, figures: &mut Figures) -> Result<()> {
        let origin = Origin::start(&self.archive, Some(RATE)).await?;
        let edge = Edge::start(&self.program, origin.address()).await?;
        let began = Instant::now();
        let first = self.begin(protocol, edge.address).await?;
        ensure!(first.head.cache_status() == STORED, "first: {}", first.head.cache_status());
        let mut slow = JoinSet::new();
        slow.spawn(first.take(Speed::Limited(SLOW)));
        let second = async {
            let began = Instant::now();
            let second = self.begin(protocol, edge.address).await?;
            let status = second.head.cache_status();
            ensure!(status == COLLAPSED, "second: {status}");
            second.take(Speed::Full).await?;
            Ok(began.elapsed())
        };
        let sent;
        (sent, figures.second) = tokio::try_join!(origin.sent(), second)?;
        figures.fetch = sent.duration_since(began);
        figures.edges += edge.cpu()?;
        ensure!(origin.fetches() == 1, "the origin sent it {} times", origin.fetches());
        // It is to have more of it to come, and to have had no trouble.
        match slow.try_join_next() {
            Some(ended) => ended?.and_then(|()| bail!("the first client was not slow")),
            None => Ok(()),
        }
    }

    /// Many clients of an archive that is fetched, and then of the same from the cache.
    async fn many(&self, protocol: Protocol, figures: &mut Figures) -> Result<()> {
        let origin = Origin::start(&self.archive, None).await?;
        let edge = Edge::start(&self.program, origin.address()).await?;
        let start = edge.cpu()?;
        let found = self.clients(protocol, edge.address).await?;
        let is_shared = |status: &String| [STORED, COLLAPSED].contains(&&**status);
        ensure!(found.iter().all(is_shared), "not shared: {found:?}");
        edge.caches().await?;
        let middle = edge.cpu()?;
        let found = self.clients(protocol, edge.address).await?;
        ensure!(found.iter().all(|status| status == HIT), "not from the cache: {found:?}");
        let end = edge.cpu()?;
        ensure!(origin.fetches() == 1, "the origin sent it {} times", origin.fetches());
        figures.shared = middle.saturating_sub(start);
        figures.hits = end.saturating_sub(middle);
        figures.edges += end;
        Ok(())
    }

    /// Clients at once, all of whom take everything. Returns what the edge told them of its cache.
    async fn clients(&self, protocol: Protocol, edge: SocketAddr) -> Result<Vec<String>> {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let download = Download::begin(protocol, edge, Arc::clone(&self.archive));
            clients.spawn(async {
                let download = download.await?;
                let status = download.head.cache_status().to_owned();
                download.take(Speed::Full).await?;
                anyhow::Ok(status)
            });
        }
        let mut found = Vec::new();
        while let Some(ended) = clients.join_next().await {
            found.push(ended??);
        }
        Ok(found)
    }

    async fn begin(&self, protocol: Protocol, server: SocketAddr) -> Result<Download> {
        Download::begin(protocol, server, Arc::clone(&self.archive)).await
    }
}
