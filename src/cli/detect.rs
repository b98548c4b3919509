//! `lemnos detect`: which kind of build a tree is, and why; offline, on the code that a push runs.

use std::process::ExitCode;

use super::plan::read_settings;
use super::source::Source;
use crate::error::Report;
use crate::event::plain_text;
use crate::plan::{BuildConfig, describe};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, or GITDIR@COMMIT with a branch, tag or commit id.
    #[arg(value_name = "PATH|GITDIR@COMMIT", default_value = ".")]
    source: String,
    /// The app's settings as JSON, `-` for standard input; the defaults without it.
    #[arg(long, value_name = "FILE")]
    settings: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let settings = read_settings(args.settings.as_deref())?;
    let source = Source::open(&args.source)?;
    let config = BuildConfig::read(source.tree.as_ref())?;
    let detected = crate::detect::detect(source.tree.as_ref(), &settings, config.as_ref())?;
    if args.json {
        println!("{}", super::plan::json(&detected)?);
    } else {
        println!("{}", plain_text(&describe::detected(&detected)));
    }
    Ok(ExitCode::SUCCESS)
}
