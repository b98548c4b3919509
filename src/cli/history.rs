//! `lemnos buildkit history`: the records that builders keep of their builds. One file a subcommand; `record` finds the record
//! that a word means.

mod attachment;
mod export;
mod filter;
mod inspect;
mod logs;
mod ls;
mod name;
mod pin;
mod record;
mod rm;

use std::process::ExitCode;

use super::builder::BuilderArgs;
use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    builder: BuilderArgs,
    #[command(subcommand)]
    command: Command,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Pretty,
    Json,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List builds, those that run first.
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Print what a build said, and what it says until its end.
    Logs(logs::Args),
    /// Tell of one build: how it ended, what it was given, what it was made of, and why it failed.
    Inspect(inspect::Args),
    /// Write records of builds to a .dockerbuild file, which Docker Desktop and buildx import.
    Export(export::Args),
    /// Keep records of builds from going with age.
    Pin(pin::Args),
    /// Let records that were kept go with age again.
    Unpin(pin::Args),
    /// Remove records of builds that have ended, with their logs.
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let builder = &args.builder;
    super::block_on(async {
        match &args.command {
            Command::Ls(args) => ls::run(args, builder).await,
            Command::Logs(args) => logs::run(args, builder).await,
            Command::Inspect(args) => inspect::run(args, builder).await,
            Command::Export(args) => export::run(args, builder).await,
            Command::Pin(args) => pin::run(args, builder, true).await,
            Command::Unpin(args) => pin::run(args, builder, false).await,
            Command::Rm(args) => rm::run(args, builder).await,
        }
    })
}
