//! `lemnos ko …`: what ko's commands do, on a local tree, without ko, Go or a server: a BuildKit daemon compiles, lemnos
//! assembles and publishes.
//!
//! Invariants: a flag of ko's is followed or refused with a reason; nothing is published before every program is compiled and
//! assembled. Standard output has what ko prints and nothing else. The table of flags is docs/reference/ko.md.

use std::process::ExitCode;

use crate::config::Environment;
use crate::error::Report;

mod archive;
mod args;
mod compile;
mod deliver;
mod facts;
mod files;
mod layout;
mod lent;
mod manifests;
mod names;
mod program;
mod project;
mod resolve;

pub use args::{BuildArgs, KoFlags};
pub use program::Programs;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compile Go programs, make images of them, push these and print their references.
    #[command(visible_alias = "publish")]
    Build(BuildArgs),
    /// Build the programs that ko:// names in Kubernetes YAML, and print the YAML with their images in its place.
    Resolve(resolve::ResolveArgs),
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    match args.command {
        Command::Build(args) => build(args),
        Command::Resolve(args) => resolve::run(args),
    }
}

fn build(args: BuildArgs) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let paths = if args.import_paths.is_empty() { vec![".".to_owned()] } else { args.import_paths };
    let references = super::block_on(async {
        let programs = Programs::open(&args.flags, &environment)?;
        programs.published(&paths).await
    })?;
    let mut text = String::new();
    for reference in &references {
        text.push_str(reference);
        text.push('\n');
    }
    super::terminal::print_text(&text)?;
    Ok(ExitCode::SUCCESS)
}
