//! Parse, run, print the error, exit. No more.

use std::process::ExitCode;

use clap::Parser;
use lemnos::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(report) => {
            eprintln!("{report}");
            report.exit_code()
        }
    }
}
