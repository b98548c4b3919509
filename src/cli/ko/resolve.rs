//! `lemnos ko resolve`: Kubernetes YAML with the images of its `ko://` references.
//!
//! Every file is read, and every reference known to be a program, before anything is built; a program is built once however
//! often and by whichever name it stands there. Printed is all or nothing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::args::KoFlags;
use super::manifests::{self, Text};
use super::program::Programs;
use crate::cli::terminal::print_text;
use crate::config::Environment;
use crate::error::Report;
use crate::kinds::ko::resolve::{Manifest, Selector};

#[derive(Debug, clap::Args)]
pub struct ResolveArgs {
    /// Files, directories of *.yaml and *.json, or - for standard input; again for each one, or with commas.
    #[arg(short, long, value_name = "FILE", value_delimiter = ',', required = true)]
    filename: Vec<String>,
    /// Directories with all that is below them.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Only the objects whose labels are so, as kubectl has it: app=web,tier!=cache.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    #[command(flatten)]
    flags: KoFlags,
}

/// A file with what its references stand for.
struct Read {
    manifest: Manifest,
    /// `ko://…` to the whole import path.
    programs: BTreeMap<String, String>,
}

pub fn run(args: ResolveArgs) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let selector = args.selector.as_deref().filter(|text| !text.trim().is_empty());
    let selector = selector.map(str::parse::<Selector>).transpose()?;
    let programs = Programs::open(&args.flags, &environment)?;
    let mut files = Vec::new();
    for text in manifests::read(&args.filename, args.recursive)? {
        files.push(read(&programs, &text, selector.as_ref())?);
    }
    let mut wanted: Vec<String> = Vec::new();
    for path in files.iter().flat_map(|file| file.programs.values()) {
        if !wanted.contains(path) {
            wanted.push(path.clone());
        }
    }
    let built = if wanted.is_empty() {
        Vec::new()
    } else {
        crate::cli::block_on(async { programs.published(&wanted).await })?
    };
    let images: BTreeMap<String, String> = wanted.into_iter().zip(built).collect();
    let mut text = String::new();
    for file in &files {
        let image = |(reference, path): (&String, &String)| {
            images.get(path).map(|image| (reference.clone(), image.clone()))
        };
        let images = file.programs.iter().filter_map(image).collect();
        text.push_str(&file.manifest.written(&images)?);
    }
    print_text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn read(programs: &Programs<'_>, text: &Text, selector: Option<&Selector>) -> Result<Read, Report> {
    let manifest = Manifest::read(&text.file, &text.text, selector)?;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for reference in manifest.references() {
        if known.contains_key(&reference.text) {
            continue;
        }
        let place = format!("{}:{}: {}", text.file, reference.line, reference.text);
        let path = programs.find(&reference.text, &place)?;
        known.insert(reference.text.clone(), path);
    }
    Ok(Read { manifest, programs: known })
}
