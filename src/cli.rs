//! The command line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::status::command::Address;

/// Bad usage or configuration, `EX_USAGE` of sysexits.
pub const EXIT_USAGE: u8 = 64;
/// The process could not start.
pub const EXIT_START: u8 = 1;

/// The address that everybody knows the edge by.
const DEMO_LISTEN: &str = "127.0.0.1:8458";

/// An edge proxy for Solana snapshot archives.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do instead of running from a file.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file.
    #[arg(short, long = "conf", visible_alias = "config", value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Check the configuration file and exit: 0 when it is good, 64 with every error when not.
    #[arg(short, long, requires = "conf")]
    pub test: bool,
    /// Take over from the process that runs by this configuration, which goes on where this one
    /// does not come about.
    #[arg(short, long, requires = "conf", conflicts_with = "test")]
    pub upgrade: bool,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an edge with embedded origins and generated archives on loopback.
    Demo(Demo),
    /// Have the process that runs by a configuration start another one in its place, as after an
    /// update of the program: nobody is refused, and what is under way ends as it began. Returns
    /// once the new one is ready; where it is not going to be the old one goes on, and this fails.
    Upgrade {
        /// Configuration file.
        #[arg(short, long = "conf", visible_alias = "config", value_name = "FILE")]
        conf: PathBuf,
    },
    /// Say how a running edge is: exit code 0 healthy, 1 not, 2 when it cannot be asked.
    Status(Status),
    /// Print what completes these arguments in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory, which has to be there.
        directory: PathBuf,
    },
}

/// Prints what completes the arguments in a shell.
pub fn complete(shell: Shell, out: &mut impl Write) {
    clap_complete::generate(shell, &mut Cli::command(), "snapedge", out);
}

/// Writes the manual pages of the program and its subcommands into a directory.
pub fn write_manual(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), directory)
}

/// Whom `snapedge status` asks, and how it tells.
#[derive(Debug, Args)]
pub struct Status {
    /// Configuration file, whose `internal_listen` is asked.
    #[arg(
        short,
        long = "conf",
        visible_alias = "config",
        value_name = "FILE",
        conflicts_with = "connect"
    )]
    pub conf: Option<PathBuf>,
    /// Internal listener that is asked, host and port; `127.0.0.1:8457` where nothing else is said.
    #[arg(long, value_name = "ADDRESS")]
    pub connect: Option<Address>,
    /// Ask again every 2 seconds, until ctrl-c.
    #[arg(long)]
    pub watch: bool,
    /// Print the JSON of the answer as it is.
    #[arg(long)]
    pub json: bool,
}

/// Options of the demo.
#[derive(Debug, Args)]
pub struct Demo {
    /// Address of the edge.
    #[arg(long, default_value = DEMO_LISTEN)]
    pub listen: SocketAddr,
    /// Number from which the archives are generated.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Configuration of the edge; its targets are replaced by the embedded origins.
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
}
