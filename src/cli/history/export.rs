//! `lemnos buildkit history export`: records as a .dockerbuild file. The file appears whole or not at all.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::record::{Kept, Shelf, Word};
use crate::buildkit::{ExportError, Record};
use crate::cli::builder::{BuilderArgs, Chosen};
use crate::error::{Kind, Report};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The builds, which have ended: references or their beginnings, or ^N for the Nth before the newest [default: the
    /// newest].
    #[arg(value_name = "REF")]
    builds: Vec<Word>,
    /// The file to write [default: standard output, where that is no terminal].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// All builds that have ended.
    #[arg(long, conflicts_with = "builds")]
    all: bool,
    /// Have the builder write down first what it keeps back for some minutes: the trace.
    #[arg(long)]
    finalize: bool,
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(
            Report::user("an export is no text for a terminal").hint("name a file with --output FILE")
        );
    }
    let builders = builder.connect().await?;
    let shelf = Shelf::of(&builders).await?.ended();
    let (from, records) = chosen(args, &shelf)?;
    let records = if args.finalize { finalized(from, records).await? } else { records };
    match &args.output {
        Some(path) => to_file(from, records, path).await?,
        None => {
            let out = from.client.export_history(records, std::io::stdout()).await.map_err(report)?;
            let mut out = out;
            out.flush().map_err(|e| Report::internal(format!("writing to standard output: {e}")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The records, and the one builder that keeps them.
fn chosen<'a>(args: &Args, shelf: &Shelf<'a>) -> Result<(&'a Chosen, Vec<Record>), Report> {
    let newest = [Word::default()];
    let words = if args.builds.is_empty() { &newest[..] } else { &args.builds };
    let kept: Vec<&Kept<'a>> = match args.all {
        true => shelf.all().iter().collect(),
        false => words.iter().map(|word| shelf.find(word)).collect::<Result<_, _>>()?,
    };
    let Some(first) = kept.first() else {
        return Err(report(ExportError::Nothing));
    };
    if kept.iter().any(|other| other.builder.name != first.builder.name) {
        return Err(Report::user("the builds are of several builders")
            .hint("export each builder's with --builder ADDR"));
    }
    let mut records: Vec<Record> = Vec::new();
    for one in &kept {
        if records.iter().all(|record| record.reference != one.record.reference) {
            records.push(one.record.clone());
        }
    }
    Ok((first.builder, records))
}

/// The records with their traces.
async fn finalized(builder: &Chosen, records: Vec<Record>) -> Result<Vec<Record>, Report> {
    let mut all = Vec::new();
    for record in records {
        all.push(match record.trace {
            Some(_) => record,
            None => {
                builder.client.finalize_history(&record.reference).await?;
                builder.client.history_record(&record.reference).await?
            }
        });
    }
    Ok(all)
}

/// Written beside the file, and renamed onto it.
async fn to_file(builder: &Chosen, records: Vec<Record>, path: &Path) -> Result<(), Report> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |cause: std::io::Error| {
        Report::user(format!("writing {}: {cause}", path.display()))
            .hint("name a file in a directory that can be written")
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::Permissions::from_mode(0o644);
    let file = tempfile::Builder::new().permissions(mode).tempfile_in(dir).map_err(failed)?;
    let file = builder.client.export_history(records, file).await.map_err(report)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn report(error: ExportError) -> Report {
    match error {
        ExportError::Daemon(error) => error.into(),
        ExportError::Nothing => Report::new(Kind::NotFound, error.to_string())
            .hint("`lemnos buildkit history ls` lists the builds"),
        ExportError::Blob { .. } => Report::new(Kind::Unavailable, error.to_string())
            .hint("the builder may have dropped it: export the other builds by their references"),
        ExportError::Write(_) => Report::internal(error.to_string()).hint("look for room on the disk"),
    }
}
