//! `lemnos doctor`: every check with its remedy; exit status 1 where one fails.

use std::process::ExitCode;

use super::block_on;
use super::serve::{self, wiring};
use super::terminal::{print_json, print_text};
use crate::config::Environment;
use crate::doctor::{self, Finding, Level};
use crate::error::Report;

/// Check the installation, also while the server runs, and say what to do about what is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: serve::Args,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let findings = match args.serve.resolve(&environment) {
        Ok(config) => {
            let subject = wiring::doctor(&config, &environment);
            let mut findings = vec![Finding::ok("configuration", about(&config))];
            findings.extend(block_on(async { Ok(doctor::examine(&subject).await) })?);
            findings
        }
        Err(report) => {
            let remedy =
                report.hint.unwrap_or_else(|| "mend it; `lemnos config` shows what is in effect".to_owned());
            vec![Finding::fail("configuration", report.message, remedy)]
        }
    };
    if args.json {
        print_json(&findings)?
    } else {
        print_text(&text(&findings))?
    }
    Ok(ExitCode::from(u8::from(doctor::worst(&findings) == Level::Fail)))
}

fn about(config: &crate::config::Config) -> String {
    match &config.file {
        Some(file) => format!("{} is understood", file.display()),
        None => "no file; flags, environment and defaults are understood".to_owned(),
    }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        out.push_str(&format!("{:<5} {}: {}\n", finding.level.as_str(), finding.check, finding.says));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("      hint: {remedy}\n"));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    out.push_str(&format!(
        "{} checks, {} warnings, {} failures\n",
        findings.len(),
        count(Level::Warn),
        count(Level::Fail)
    ));
    out
}
