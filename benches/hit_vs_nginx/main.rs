//! What a hit costs, beside nginx with `sendfile on`: CPU seconds of the server per GB of one large
//! archive that is in the page cache, over loopback, as a ratio.
//!
//! Both servers run side by side, one worker process of nginx and snapedge with as many threads as
//! it is told, and serve the very same file: the archive that snapedge has cached. They take turns
//! at the same client, so that whatever else the machine does meets both. A round is several turns
//! of each, since the kernel tells CPU time in steps of ten milliseconds. A turn during which other
//! processes took a part of the machine, or the disk was read, is done again, as long as that
//! happens rarely.
//!
//! ```text
//! cargo bench --bench hit_vs_nginx -- [--rounds N] [--threads N] [--beside PROGRAM]...
//! ```
//!
//! `--rounds` is 5 unless it is given, `--threads` is snapedge's own default, and `--beside` names
//! other builds of snapedge that take part in every round. Without nginx nothing is measured.

mod client;
mod directory;
mod origin;
mod process;
mod report;
mod start;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use client::Check;
use directory::Directory;
use origin::Origin;
use process::{Process, Used};
use report::{Report, Sample};
use start::{free_address, wait};

/// Bytes of the archive.
const LENGTH: u32 = 2 << 30;
/// Turns of each server in one round, in each of which it sends the archive once.
const TURNS: u32 = 3;
/// The archive.
const NAME: &str = "snapshot-300000000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
/// Share of the processors' time that others may take in a turn that counts: who competes for them
/// and their caches makes another figure.
const MAX_OTHERS: f64 = 0.05;
/// Turns that are done again, at most, before disturbed ones count too.
const MAX_REPEATS: u32 = 40;
/// Pause before a turn is done again.
const PAUSE: Duration = Duration::from_secs(1);

/// Where Debian has it, which is not in everybody's `PATH`.
const NGINX: &str = "/usr/sbin/nginx";

/// The command line.
struct Options {
    rounds: u32,
    threads: Option<u32>,
    programs: Vec<PathBuf>,
}

impl Options {
    /// Reads the arguments. `cargo bench` passes its own and those for other benchmarks, too.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let own = PathBuf::from(env!("CARGO_BIN_EXE_snapedge"));
        let mut options = Self { rounds: 5, threads: None, programs: vec![own] };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse().context("`--rounds`")?,
                "--threads" => options.threads = Some(value()?.parse().context("`--threads`")?),
                "--beside" => options.programs.push(value()?.into()),
                _ => {}
            }
        }
        ensure!(options.rounds > 0, "`--rounds` must be at least 1");
        Ok(options)
    }
}

/// A server that takes part.
struct Contender {
    label: String,
    process: Process,
    address: SocketAddr,
}

impl Contender {
    /// Sends the archive once. Also says whether that went undisturbed: from memory, on a machine
    /// that nobody else used.
    fn turn(&self) -> Result<(Sample, bool)> {
        let all = || -> Result<[Used; 3]> {
            Ok([self.process.used()?, process::used_here()?, process::used_by_all()?])
        };
        let before = all()?;
        let began = Instant::now();
        client::download(self.address, Check::Length)?;
        let wall = began.elapsed();
        let after = all()?;
        let used = |at: usize| after[at].cpu.saturating_sub(before[at].cpu);
        let [server, client, machine] = [0, 1, 2].map(used);
        let others = machine.saturating_sub(server + client).as_secs_f64();
        let processors = f64::from(u32::try_from(std::thread::available_parallelism()?.get())?);
        let calm = others <= MAX_OTHERS * wall.as_secs_f64() * processors;
        let calm = calm && after[0].read == before[0].read;
        Ok((Sample { cpu: server, wall }, calm))
    }
}

/// Turn by turn, and round by round.
struct Measurement {
    contenders: Vec<Contender>,
    /// Turns that were done again.
    repeated: u32,
    /// Turns that count although others disturbed them.
    disturbed: u32,
}

impl Measurement {
    /// All turns of one round, added up for each contender.
    fn round(&mut self) -> Result<Vec<Sample>> {
        let mut sums = vec![Sample::default(); self.contenders.len()];
        for _ in 0..TURNS {
            for (at, sum) in sums.iter_mut().enumerate() {
                let sample = self.turn(at)?;
                sum.cpu += sample.cpu;
                sum.wall += sample.wall;
            }
        }
        Ok(sums)
    }

    fn turn(&mut self, at: usize) -> Result<Sample> {
        loop {
            let (sample, calm) = self.contenders[at].turn()?;
            if calm {
                return Ok(sample);
            }
            if self.repeated == MAX_REPEATS {
                self.disturbed += 1;
                return Ok(sample);
            }
            self.repeated += 1;
            std::thread::sleep(PAUSE);
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let nginx = if Path::new(NGINX).exists() { Path::new(NGINX) } else { Path::new("nginx") };
    let Ok(version) = version_of(nginx) else {
        println!(
            "hit_vs_nginx: skipped, there is no nginx; on Debian: apt-get install nginx-light"
        );
        return Ok(());
    };
    let origin = Origin::start()?;
    let directory = Directory::new()?;
    let contenders = contenders(&options, nginx, &origin, &directory)?;

    let processors = std::thread::available_parallelism()?;
    println!(
        "hits of {} MiB from the page cache over loopback, {processors} processors",
        LENGTH >> 20
    );
    println!("{version}, one worker process, `sendfile on`");
    for contender in &contenders {
        // Once for the page cache, and for certainty about what is measured.
        client::download(contender.address, Check::Bytes)
            .with_context(|| format!("what {} serves", contender.label))?;
    }
    let labels = contenders.iter().map(|contender| contender.label.clone());
    let mut report = Report::begin(labels.collect());
    let mut measurement = Measurement { contenders, repeated: 0, disturbed: 0 };
    for _ in 0..options.rounds {
        report.round(measurement.round()?);
    }
    report.end();
    let Measurement { repeated, disturbed, .. } = measurement;
    println!("{repeated} turns were done again, {disturbed} count although others disturbed them");
    Ok(())
}

/// What a program says of itself, if it is there.
fn version_of(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("-v").output()?;
    ensure!(output.status.success());
    Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// nginx, and every build of snapedge, ready to be asked. All of them serve one file.
fn contenders(
    options: &Options,
    nginx: &Path,
    origin: &Origin,
    directory: &Directory,
) -> Result<Vec<Contender>> {
    let mut contenders = Vec::new();
    let cache = |at: usize| directory.path().join(format!("cache-{at}"));
    for (at, program) in options.programs.iter().enumerate() {
        if at > 0 {
            link(&cache(0), &cache(at)).context("cannot lend the archive to another cache")?;
        }
        let label = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let threads = options.threads.map_or_else(|| "null".to_owned(), |count| count.to_string());
        let address = free_address()?;
        // One of before may know no such key, and writes no requests at this level.
        let log = if at == 0 { "level: warn, access: off" } else { "level: warn" };
        let config = format!(
            "listen: ['{address}']\nproxy_snapshot_cache_dir: '{}'\n\
             cache: {{min_free_space: 0B, verify: length}}\nlog: {{{log}}}\n\
             server: {{threads: {threads}, grace_period: 0s}}\ntarget_groups: [{{group: bench, \
             kind: sidecar, static_targets: {{targets: ['{}']}}}}]\n",
            cache(at).display(),
            origin.address(),
        );
        let path = directory.path().join(format!("snapedge-{at}.yaml"));
        fs::write(&path, config)?;
        let process = Process::start(program, &["-c".as_ref(), path.as_os_str()])?;
        until_cached(address).with_context(|| format!("`{}`", program.display()))?;
        contenders.push(Contender { label, process, address });
    }
    let address = free_address()?;
    let path = directory.path().join("nginx.conf");
    fs::write(&path, nginx_config(address, &cache(0), directory.path()))?;
    let process = Process::start(nginx, &["-c".as_ref(), path.as_os_str()])?;
    wait("nginx answers", || Ok(client::head(address).is_ok_and(|head| head.status == 200)))?;
    contenders.insert(0, Contender { label: "nginx".to_owned(), process, address });
    Ok(contenders)
}

/// One worker, `sendfile`, no access log, everything else as it comes.
fn nginx_config(address: SocketAddr, root: &Path, scratch: &Path) -> String {
    let (root, scratch) = (root.display(), scratch.display());
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = kinds.map(|kind| format!("    {kind}_temp_path '{scratch}/{kind}';\n")).concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid '{scratch}/nginx.pid';\n\
         error_log stderr error;\nevents {{}}\nhttp {{\n{paths}    sendfile on;\n    \
         access_log off;\n    server {{\n        listen {address};\n        root '{root}';\n    \
         }}\n}}\n"
    )
}

/// Has the archive cached, where it is not yet.
fn until_cached(address: SocketAddr) -> Result<()> {
    wait(
        "the archive is known",
        || Ok(client::head(address).is_ok_and(|head| head.status == 200)),
    )?;
    let hit = || Ok(client::head(address)?.cache_status == "snapedge; hit");
    if !hit()? {
        let head = client::download(address, Check::Bytes)?;
        ensure!(head.cache_status.ends_with("stored"), "not cached: `{}`", head.cache_status);
    }
    wait("the archive is cached", hit)
}

/// The archive and its record under the same names in another cache, the bytes not copied.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    fs::hard_link(from.join(NAME), to.join(NAME))?;
    let record = format!("{NAME}.snapedge");
    fs::copy(from.join(&record), to.join(&record))?;
    Ok(())
}
