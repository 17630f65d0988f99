//! What being seen costs: CPU seconds of the edge for short forms, without an access log and with
//! one, with `/metrics` scraped each second, as a ratio.
//!
//! The edges run side by side and take turns at the same clients, which keep their connections, so
//! that whatever else the machine does meets all of them. A turn during which other processes took
//! a part of the machine is done again, as long as that happens rarely.
//!
//! ```text
//! cargo bench --bench observing -- [--rounds N] [--requests N] [--beside PROGRAM]...
//! ```
//!
//! `--rounds` is 7 unless it is given, `--requests` (of each turn) 100000, and `--beside` names
//! other builds of snapedge that take part in every round, such as one from before the metrics.

#[path = "../hit_vs_nginx/directory.rs"]
mod directory;
#[path = "../hit_vs_nginx/origin.rs"]
mod origin;
#[path = "../hit_vs_nginx/process.rs"]
mod process;
#[path = "../hit_vs_nginx/start.rs"]
mod start;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use directory::Directory;
use origin::Origin;
use process::{Process, Used};
use start::{free_address, wait};

/// Bytes of the archive, which nobody fetches here.
const LENGTH: u32 = 1 << 20;
/// The archive.
const NAME: &str = "snapshot-300000000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
/// Clients, each with a connection of its own.
const CLIENTS: u32 = 8;
/// Share of the processors' time that others may take in a turn that counts.
const MAX_OTHERS: f64 = 0.05;
/// Turns that are done again, at most, before disturbed ones count too.
const MAX_REPEATS: u32 = 60;

/// The command line.
struct Options {
    rounds: u32,
    requests: u32,
    beside: Vec<PathBuf>,
}

impl Options {
    /// Reads the arguments. `cargo bench` passes its own and those for other benchmarks, too.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { rounds: 7, requests: 100_000, beside: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse().context("`--rounds`")?,
                "--requests" => options.requests = value()?.parse().context("`--requests`")?,
                "--beside" => options.beside.push(value()?.into()),
                _ => {}
            }
        }
        ensure!(options.rounds > 0 && options.requests > 0, "at least one of each");
        Ok(options)
    }
}

/// An edge that takes part.
struct Contender {
    label: String,
    process: Process,
    address: SocketAddr,
    /// Where it is scraped, if it is.
    metrics: Option<SocketAddr>,
}

impl Contender {
    /// Starts an edge with these keys of `log`.
    fn start(
        (label, program): (String, &Path),
        log: &str,
        is_scraped: bool,
        origin: &Origin,
        directory: &Directory,
    ) -> Result<Self> {
        let (address, internal) = (free_address()?, free_address()?);
        let config = format!(
            "listen: ['{address}']\ninternal_listen: '{internal}'\nscrape_interval: 10s\n\
             log: {{{log}}}\nserver: {{grace_period: 0s}}\ntarget_groups: [{{group: bench, \
             kind: sidecar, static_targets: {{targets: ['{}']}}}}]\n",
            origin.address(),
        );
        let path = directory.path().join(format!("{}.yaml", address.port()));
        fs::write(&path, config)?;
        let process = Process::start(program, &["-c".as_ref(), path.as_os_str()])?;
        wait(
            "a short form is answered",
            || Ok(ask_once(address).is_ok_and(|status| status == 303)),
        )
        .with_context(|| label.clone())?;
        Ok(Self { label, process, address, metrics: is_scraped.then_some(internal) })
    }

    /// All requests once. The CPU time that the edge took, and whether nobody else took any.
    fn turn(&self, requests: u32) -> Result<(Duration, bool)> {
        let all = || -> Result<[Used; 3]> {
            Ok([self.process.used()?, process::used_here()?, process::used_by_all()?])
        };
        let (before, began) = (all()?, Instant::now());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let over = &over;
            let scraper = self.metrics.map(|metrics| scope.spawn(move || scrape(metrics, over)));
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| ask_often(self.address, requests / CLIENTS)))
                .collect();
            let asked: Result<Vec<()>> =
                clients.into_iter().map(|client| client.join().unwrap_or(Ok(()))).collect();
            over.store(true, Ordering::Relaxed);
            if let Some(scraper) = scraper {
                scraper.join().unwrap_or(Ok(()))?;
            }
            asked.map(drop)
        })?;
        let (wall, after) = (began.elapsed(), all()?);
        let used = |at: usize| after[at].cpu.saturating_sub(before[at].cpu);
        let [edge, client, machine] = [0, 1, 2].map(used);
        let others = machine.saturating_sub(edge + client).as_secs_f64();
        let processors = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?);
        Ok((edge, others <= MAX_OTHERS * wall.as_secs_f64() * processors))
    }
}

const ASK: &[u8] = b"GET /snapshot.tar.bz2 HTTP/1.1\r\nhost: edge\r\nuser-agent: bench\r\n\r\n";

fn ask_once(edge: SocketAddr) -> Result<u16> {
    let mut stream = TcpStream::connect(edge)?;
    stream.write_all(ASK)?;
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..count]);
    Ok(text.split(' ').nth(1).unwrap_or_default().parse()?)
}

/// So many requests on one connection, one after the other.
fn ask_often(edge: SocketAddr, times: u32) -> Result<()> {
    let mut stream = TcpStream::connect(edge)?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(4096);
    for _ in 0..times {
        stream.write_all(ASK)?;
        answer.clear();
        loop {
            let mut piece = [0; 2048];
            let count = stream.read(&mut piece)?;
            ensure!(count > 0, "the connection ended");
            answer.extend_from_slice(&piece[..count]);
            if is_whole(&answer)? {
                break;
            }
        }
        ensure!(answer.starts_with(b"HTTP/1.1 303"), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// Whether all of an answer is there.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("a length")?.trim().parse()?;
    Ok(answer.len() >= end + 4 + length)
}

/// Scrapes as Prometheus does, and more often, until it is over.
fn scrape(metrics: SocketAddr, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(metrics)?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.contains("snapedge_requests_total"), "no metrics: {text}");
        let pause = Instant::now() + Duration::from_secs(1);
        while Instant::now() < pause && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let (origin, directory) = (Origin::start()?, Directory::new()?);
    let contenders = contenders(&options, &origin, &directory)?;
    println!("CPU microseconds of the edge for one short form, and the ratio to the first column");
    let labels: Vec<String> = contenders.iter().map(|of| format!("{:>22}", of.label)).collect();
    println!("round {}", labels.concat());
    let (mut rounds, mut repeated, mut disturbed) = (Vec::new(), 0, 0);
    for number in 1..=options.rounds {
        let mut round = Vec::new();
        for contender in &contenders {
            let used = loop {
                let (used, calm) = contender.turn(options.requests)?;
                if calm || repeated >= MAX_REPEATS {
                    disturbed += u32::from(!calm);
                    break used;
                }
                repeated += 1;
            };
            round.push(used.as_secs_f64() * 1e6 / f64::from(options.requests));
        }
        let shown = round.iter().map(|micros| {
            let text = format!("{micros:.2} x{:.3}", micros / round[0]);
            format!("{text:>22}")
        });
        println!("{number:>5} {}", shown.collect::<String>());
        rounds.push(round);
    }
    for (at, contender) in contenders.iter().enumerate().skip(1) {
        let mut ratios: Vec<f64> = rounds.iter().map(|round| round[at] / round[0]).collect();
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        println!(
            "ratio of {} to {}: min {:.3}, median {:.3}, max {:.3}",
            contender.label,
            contenders[0].label,
            ratios[0],
            f64::midpoint(low, high),
            ratios[ratios.len() - 1]
        );
    }
    println!("{repeated} turns were done again, {disturbed} count although others disturbed them");
    Ok(())
}

/// The edge without an access log and with one in either form, and the other builds.
fn contenders(options: &Options, origin: &Origin, directory: &Directory) -> Result<Vec<Contender>> {
    let own = Path::new(env!("CARGO_BIN_EXE_snapedge"));
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (text, json) = (file("text.log"), file("json.log"));
    let start = |label: &str, program, log: &str, is_scraped| {
        Contender::start((label.to_owned(), program), log, is_scraped, origin, directory)
    };
    let mut contenders = vec![
        start("off", own, "level: warn, access: off", false)?,
        start("metrics", own, "level: warn, access: off", true)?,
        start("metrics, text", own, &format!("level: warn, access: '{text}'"), true)?,
        start("metrics, json", own, &format!("level: warn, format: json, access: '{json}'"), true)?,
    ];
    for program in &options.beside {
        let label = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // One of before knows no such key, and writes no requests at this level.
        let knows_access = {
            let path = directory.path().join("probe.yaml");
            let text = "log: {access: off}\ntarget_groups: [{group: a, static_targets: \
                        {targets: ['127.0.0.1:1']}}]\n";
            fs::write(&path, text)?;
            let checked = Command::new(program).arg("-t").arg("-c").arg(&path).output()?;
            checked.status.success()
        };
        let log = if knows_access { "level: warn, access: off" } else { "level: warn" };
        contenders.push(start(&label, program, log, false)?);
    }
    Ok(contenders)
}
