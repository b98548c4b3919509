//! `lemnos buildkit history rm`: records of ended builds thrown away, with their logs. Of several words all are understood before
//! anything goes.

use std::process::ExitCode;

use super::record::{Kept, Shelf, Word};
use crate::buildkit::State;
use crate::cli::builder::BuilderArgs;
use crate::cli::terminal::print_text;
use crate::error::{Kind, Report};
use crate::event::plain_line;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The builds: references or their beginnings, or ^N for the Nth before the newest.
    #[arg(value_name = "REF", required_unless_present = "all")]
    builds: Vec<Word>,
    /// All builds that have ended.
    #[arg(long, conflicts_with = "builds")]
    all: bool,
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    let builders = builder.connect().await?;
    let shelf = Shelf::of(&builders).await?;
    let mut going: Vec<&Kept<'_>> = Vec::new();
    if args.all {
        going.extend(shelf.all().iter().filter(|kept| kept.record.state() != State::Running));
    }
    for word in &args.builds {
        let kept = shelf.find(word)?;
        if kept.record.state() == State::Running {
            let message = format!("build {} runs still", kept.record.reference);
            return Err(Report::new(Kind::Conflict, message)
                .hint("wait for its end; `lemnos buildkit history logs` shows it"));
        }
        if !going.iter().any(|other| std::ptr::eq(*other, kept)) {
            going.push(kept);
        }
    }
    for kept in going {
        kept.builder.client.delete_history(&kept.record.reference).await?;
        print_text(&format!("{}\n", plain_line(&kept.record.reference)))?;
    }
    Ok(ExitCode::SUCCESS)
}
