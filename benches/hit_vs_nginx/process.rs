//! The servers as processes, and what the kernel has counted for them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The step in which the kernel tells CPU time, of user space's hertz: the same on every
/// architecture that Rust has a standard library for.
const TICK: Duration = Duration::from_millis(10);

/// Time in which a server has to stop.
const STOPPING: Duration = Duration::from_secs(20);

/// The fields of `/proc/stat` that are nobody's time: idle, and idle with a disk at work.
const IDLE: [usize; 2] = [3, 4];

/// A running server, stopped when it is dropped and when this process ends in another way.
pub(super) struct Process(Child);

/// What a process, or several, have used so far.
pub(super) struct Used {
    /// User and system time.
    pub(super) cpu: Duration,
    /// Bytes that came from a disk.
    pub(super) read: u64,
}

impl Process {
    pub(super) fn start(program: &Path, arguments: &[&OsStr]) -> Result<Self> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args(arguments)
            .spawn()
            .context("`setpriv` of util-linux")?;
        Ok(Self(child))
    }

    /// What the process and its children have used.
    pub(super) fn used(&self) -> Result<Used> {
        sum(|id, parent| [id, parent].contains(&self.0.id()))
    }
}

/// What this process has used.
pub(super) fn used_here() -> Result<Used> {
    sum(|id, _| id == std::process::id())
}

/// What everybody has used, the kernel included, and the host that runs other machines meanwhile.
pub(super) fn used_by_all() -> Result<Used> {
    let stat = fs::read_to_string("/proc/stat")?;
    let times = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let mut ticks = 0;
    // Behind these are parts of the first two.
    for (at, text) in times.context("`/proc/stat`")?.split_whitespace().take(8).enumerate() {
        if !IDLE.contains(&at) {
            ticks += text.parse::<u32>()?;
        }
    }
    Ok(Used { cpu: TICK * ticks, read: 0 })
}

/// The sums over processes that `wanted` accepts by their own and their parent's number, with all
/// of their threads, those that have ended included.
fn sum(wanted: impl Fn(u32, u32) -> bool) -> Result<Used> {
    let mut used = Used { cpu: Duration::ZERO, read: 0 };
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let id = path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
        let Some(id) = id else { continue };
        // Others come and go.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let (parent, ticks) = parse(&stat).context("`/proc/PID/stat`")?;
        if wanted(id, parent) {
            used.cpu += TICK * ticks;
            used.read += read(&path).context("`/proc/PID/io`")?;
        }
    }
    Ok(used)
}

/// The parent, and the ticks of user and system time. The second field is a name in parentheses,
/// which may contain anything.
fn parse(stat: &str) -> Option<(u32, u32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u32>().ok();
    Some((number(4)?, number(14)? + number(15)?))
}

fn read(process: &Path) -> Result<u64> {
    let text = fs::read_to_string(process.join("io"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(value.context("no `read_bytes`")?.parse()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        // A signal that lets nginx take its workers along.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let deadline = Instant::now() + STOPPING;
        while !self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
