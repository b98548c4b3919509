//! `lemnos spin`: what `spin build` and `spin registry push` do with an application's directory, without Spin and without a
//! server. The table of flags is docs/reference/spin.md.

mod application;
mod build;
mod push;

use std::process::ExitCode;

use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build an application's components, each in its toolchain image, and put them where spin.toml says that they are.
    Build(build::Args),
    /// Push an application as the artifact that Spin's runtimes take.
    #[command(visible_alias = "publish")]
    Push(push::Args),
    /// What Spin has under this name.
    Registry(RegistryArgs),
}

#[derive(Debug, clap::Args)]
struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RegistryCommand {
    /// The same as `lemnos spin push`.
    Push(push::Args),
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    match args.command {
        Command::Build(args) => build::run(args),
        Command::Push(args) | Command::Registry(RegistryArgs { command: RegistryCommand::Push(args) }) => {
            push::run(args)
        }
    }
}
