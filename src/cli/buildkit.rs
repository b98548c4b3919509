//! `lemnos buildkit`: what BuildKit daemons hold and say, one file a subcommand.

use std::process::ExitCode;

use super::{du, dump_llb, history, prune, workers};
use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what a builder's cache holds, and what it comes to.
    Du(du::Args),
    /// Throw away what a builder's cache does not need.
    Prune(prune::Args),
    /// Look at, export and remove the records of builds that a builder keeps.
    History(history::Args),
    /// Print an LLB definition as JSON, an operation a line, or as a graph; needs no builder.
    DumpLlb(dump_llb::Args),
    /// Say what a BuildKit daemon is: its version and its workers' labels.
    Info(workers::InfoArgs),
    /// List a BuildKit daemon's workers: their platforms, labels and collection rules.
    Workers(workers::Args),
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    match args.command {
        Command::Du(args) => du::run(args),
        Command::Prune(args) => prune::run(args),
        Command::History(args) => history::run(args),
        Command::DumpLlb(args) => dump_llb::run(args),
        Command::Info(args) => workers::info(args),
        Command::Workers(args) => workers::run(args),
    }
}
