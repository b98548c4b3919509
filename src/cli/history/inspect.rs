//! `lemnos buildkit history inspect`: all that is known of one build. `gather` asks the builder, `print` tells it to people; as
//! JSON it has the names that buildx gives to the same.

mod gather;
mod print;

use std::process::ExitCode;

use serde::Serialize;

use super::record::{self, Kept, Word};
use super::{Format, attachment};
use crate::buildkit::Moment;
use crate::cli::builder::BuilderArgs;
use crate::cli::terminal::{print_json, print_text};
use crate::error::Report;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The build: its reference or the beginning of it, or ^N for the Nth before the newest [default: the newest].
    #[arg(value_name = "REF")]
    build: Option<Word>,
    /// How it is printed.
    #[arg(long, value_enum, default_value = "pretty")]
    format: Format,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print one attachment: its provenance, its SBOM, its image's manifest.
    Attachment(attachment::Args),
}

/// One build, by buildx's names.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    r#ref: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    context: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    dockerfile: String,
    #[serde(rename = "VCSRepository", skip_serializing_if = "String::is_empty")]
    repository: String,
    #[serde(rename = "VCSRevision", skip_serializing_if = "String::is_empty")]
    revision: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platform: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    named_contexts: Vec<Pair>,
    started_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Moment>,
    /// Nanoseconds.
    duration: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failed>,
    num_completed_steps: i32,
    num_total_steps: i32,
    num_cached_steps: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    build_args: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<Pair>,
    /// What else the frontend was given, by the frontend's names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    materials: Vec<Material>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attached>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Material {
    #[serde(rename = "URI")]
    uri: String,
    #[serde(rename = "Digests")]
    digests: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attached {
    digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    r#type: String,
}

/// Why it failed.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    code: i32,
    message: String,
    /// The step.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// What the step said last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<String>,
    /// The lines of the definition file around the place.
    #[serde(skip_serializing_if = "String::is_empty")]
    sources: String,
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    if let Some(Command::Attachment(args)) = &args.command {
        return attachment::run(args, builder).await;
    }
    let inspected = record::one(builder, args.build.as_ref(), async |kept: &Kept<'_>| {
        gather::gather(&kept.builder.client, kept.record.clone()).await
    })
    .await?;
    match args.format {
        Format::Json => print_json(&inspected)?,
        Format::Pretty => print_text(&print::text(&inspected))?,
    }
    Ok(ExitCode::SUCCESS)
}
