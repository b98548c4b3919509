//! `lemnos buildkit history pin` and `unpin`: records that are not to go with age, or may again. Of several words all are
//! understood before anything changes.

use std::process::ExitCode;

use super::record::{Kept, Shelf, Word};
use crate::cli::builder::BuilderArgs;
use crate::cli::terminal::print_text;
use crate::error::Report;
use crate::event::plain_line;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The builds: references or their beginnings, or ^N for the Nth before the newest.
    #[arg(value_name = "REF", required = true)]
    builds: Vec<Word>,
}

pub async fn run(args: &Args, builder: &BuilderArgs, pinned: bool) -> Result<ExitCode, Report> {
    let builders = builder.connect().await?;
    let shelf = Shelf::of(&builders).await?;
    let found: Vec<&Kept<'_>> = args.builds.iter().map(|word| shelf.find(word)).collect::<Result<_, _>>()?;
    for kept in found {
        kept.builder.client.pin_history(&kept.record.reference, pinned).await?;
        print_text(&format!("{}\n", plain_line(&kept.record.reference)))?;
    }
    Ok(ExitCode::SUCCESS)
}
