//! `lemnos buildkit dump-llb`: an LLB definition for people, byte for byte as `buildctl debug dump-llb` prints it.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::terminal::print_text;
use crate::buildkit::llb::Definition;
use crate::error::{Kind, Report};
use crate::event::plain_json;

/// Largest definition that is read.
const SIZE_LIMIT: u64 = 256 << 20;
const WHAT_TO_GIVE: &str =
    "give what an LLB client marshals, and what `buildctl build` takes on its standard input";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The marshalled definition; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Print a graph for graphviz.
    #[arg(long)]
    dot: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let name =
        if args.file == Path::new("-") { "standard input".into() } else { args.file.display().to_string() };
    let bytes = read(&args.file, &name)?;
    let definition = Definition::from_bytes(&bytes);
    let text = definition.and_then(|d| if args.dot { d.to_dot() } else { d.to_json_lines() });
    let text = text.map_err(|error| Report::user(format!("{name}: {error}")).hint(WHAT_TO_GIVE))?;
    // graphviz quotes what does not print; JSON may have some of it, and only a terminal minds
    let escaped = !args.dot && std::io::stdout().is_terminal();
    print_text(&if escaped { plain_json(&text) } else { text })?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path, name: &str) -> Result<Vec<u8>, Report> {
    let failed = |cause: std::io::Error| {
        let kind = if cause.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::User };
        Report::new(kind, format!("reading {name}: {cause}")).hint(WHAT_TO_GIVE)
    };
    let mut input: Box<dyn std::io::Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    input.by_ref().take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(Report::user(format!("{name} has more than {SIZE_LIMIT} bytes")).hint(WHAT_TO_GIVE));
    }
    Ok(bytes)
}
