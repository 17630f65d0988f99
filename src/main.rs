//! The program: arguments in, exit code out.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;

use snapedge::cli::{Cli, Command, EXIT_START, EXIT_USAGE};
use snapedge::{app, config, demo, log_level};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Failing to print the usage leaves nobody to tell it to.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snapedge: {error:#}");
            let usage = error.is::<config::ConfigError>();
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_START })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(Command::Demo(options)) = cli.command {
        return demo::run(&options);
    }
    // Clap has made sure that one of the two is there.
    let path = cli.conf.context("no configuration file, give one with `-c`")?;
    let config = config::load(&path)?;
    if cli.test {
        println!("the configuration `{}` is good", path.display());
        return Ok(());
    }
    log_level::start(config.log_level).context("there is a log already")?;
    app::run(&config, &path)?;
    Ok(())
}
