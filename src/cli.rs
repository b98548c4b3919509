//! The command line: one file a command, each an `Args` and a `run`. Errors are `Report`s, printed by `main`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Report;

pub mod backup;
pub mod build;
mod builder;
pub mod buildkit;
pub mod config;
mod control;
mod desk;
pub mod detect;
pub mod doctor;
pub mod du;
pub mod dump_llb;
pub mod engine;
mod figures;
pub mod history;
pub mod hook;
pub mod ko;
pub mod plan;
pub mod prune;
pub mod serve;
pub mod source;
pub mod spin;
mod telemetry;
mod terminal;
pub mod workers;

/// A git-push builder: push over SSH, and a multi-arch image stands in a registry.
#[derive(Debug, Parser)]
#[command(name = "lemnos", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: SSH, HTTP, and the engines that are not configured elsewhere.
    Serve(serve::Args),
    /// What the SSH door can do too.
    #[command(flatten)]
    Verb(desk::Local),
    /// Say which kind of build a tree is, and why.
    Detect(detect::Args),
    /// Print what a push of a tree would build, without building.
    Plan(plan::Args),
    /// Build with BuildKit, with the flags of `docker buildx build`.
    Build(Box<build::Args>),
    /// Build a spin application and push its artifact, with the flags of `spin build` and `spin registry push`.
    Spin(spin::Args),
    /// Build Go programs as ko does, with ko's flags, and without ko or Go.
    Ko(Box<ko::Args>),
    /// Look at and look after BuildKit daemons: cache, records of builds, workers, definitions.
    Buildkit(buildkit::Args),
    /// Print the effective configuration and where each value came from.
    Config(config::Args),
    Doctor(doctor::Args),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    /// What git's hooks call; not for people.
    #[command(hide = true)]
    Hook(hook::Args),
    /// Runs one engine so that it dies with the server; not for people.
    #[command(hide = true)]
    EngineChild(engine::Args),
}

impl Cli {
    /// Runs the command; the only place that knows them all.
    pub fn run(self) -> Result<ExitCode, Report> {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Verb(verb) => verb.run(),
            Command::Detect(args) => detect::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Build(args) => build::run(*args),
            Command::Spin(args) => spin::run(args),
            Command::Ko(args) => ko::run(*args),
            Command::Buildkit(args) => buildkit::run(args),
            Command::Config(args) => config::run(args),
            Command::Doctor(args) => doctor::run(args),
            Command::Backup(args) => backup::backup(args),
            Command::Restore(args) => backup::restore(args),
            Command::Hook(args) => hook::run(args),
            Command::EngineChild(args) => engine::run(args),
        }
    }
}

/// Runs a command's future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = Result<T, Report>>) -> Result<T, Report> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Report::internal(format!("starting the async runtime: {e}")))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn without_text(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        if command.is_hide_set() {
            return;
        }
        if command.get_about().is_none() {
            found.push(path.clone());
        }
        for argument in command.get_arguments().filter(|a| a.get_help().is_none() && !a.is_hide_set()) {
            found.push(format!("{path} {}", argument.get_id()));
        }
        for inner in command.get_subcommands() {
            without_text(inner, &path, found);
        }
    }

    #[test]
    fn every_command_and_argument_says_what_it_is_for() {
        Cli::command().debug_assert();
        let mut found = Vec::new();
        without_text(&Cli::command(), "", &mut found);
        assert!(found.is_empty(), "no help text: {found:?}");
    }
}
