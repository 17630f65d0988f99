//! The program: arguments in, exit code out.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind;

use snapedge::cli::{self, Cli, Command, EXIT_START, EXIT_USAGE};
use snapedge::status::command::{self, Address};
use snapedge::{app, config, demo, logging};

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
    if let Some(Command::Status(options)) = &cli.command {
        return match whom(options) {
            Ok(address) => ExitCode::from(status(options, address)),
            Err(error) => {
                eprintln!("snapedge: {error:#}");
                ExitCode::from(EXIT_USAGE)
            }
        };
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snapedge: {error:#}");
            let usage = error.is::<config::ConfigError>();
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_START })
        }
    }
}

/// Whom `snapedge status` asks.
fn whom(options: &cli::Status) -> anyhow::Result<Address> {
    if let Some(address) = &options.connect {
        return Ok(address.clone());
    }
    let listen = match &options.conf {
        Some(path) => config::load(path)?.internal_listen,
        None => config::InternalListen::Default,
    };
    Ok(Address::of_listener(listen.address())?)
}

fn status(options: &cli::Status, address: Address) -> u8 {
    let cli::Status { watch, json, .. } = *options;
    command::run(&command::Options { address, watch, json })
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Some(Command::Demo(options)) => return demo::run(&options),
        Some(Command::Completions { shell }) => {
            cli::complete(shell, &mut std::io::stdout());
            return Ok(());
        }
        Some(Command::Man { directory }) => {
            let shown = directory.display().to_string();
            let written = cli::write_manual(&directory);
            return written.with_context(|| format!("cannot write manual pages into `{shown}`"));
        }
        Some(Command::Upgrade { conf }) => {
            return app::upgrade(&config::load(&conf)?).map_err(anyhow::Error::msg);
        }
        // Answered before.
        Some(Command::Status(_)) | None => {}
    }
    // Clap has made sure that one of the two is there.
    let path = cli.conf.context("no configuration file, give one with `-c`")?;
    let config = config::load(&path)?;
    if cli.test {
        for message in config.certificates_out_of_time() {
            eprintln!("snapedge: {message}");
        }
        println!("the configuration `{}` is good", path.display());
        return Ok(());
    }
    logging::start(&config.log)?;
    let start = if cli.upgrade { app::Start::TakingOver } else { app::Start::Alone };
    let ended = app::run(&config, &path, start);
    logging::flush();
    Ok(ended?)
}
