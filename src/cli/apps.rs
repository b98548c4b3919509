//! `lemnos apps`.

use std::process::ExitCode;

use crate::error::Report;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<ExitCode, Report> {
    Err(Report::internal("`lemnos apps` is not built in this commit"))
}
