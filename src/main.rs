//! The program: arguments in, exit code out.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;

use snapedge::cli::{Cli, Command, EXIT_START, EXIT_USAGE};
use snapedge::{app, config, demo};

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
    let mut logger = env_logger::Builder::new();
    logger.filter_level(config.log_level);
    if config.log_level < log::LevelFilter::Debug {
        for module in app::UNBOUNDED_MODULES {
            logger.filter_module(module, log::LevelFilter::Off);
        }
        for module in app::BOUNDED_MODULES {
            logger.filter_module(module, config.log_level);
        }
    }
    logger
        .filter_module(app::NOISY_MODULE, log::LevelFilter::Off)
        .parse_default_env()
        // After what `RUST_LOG` says, so that it cannot be turned on.
        .filter_module(app::TELLING_MODULE, config.log_level.min(log::LevelFilter::Debug))
        .init();
    app::run(&config)?;
    Ok(())
}
