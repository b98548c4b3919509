//! `lemnos plan`: what a push of a tree would build; offline, on the code that a push runs.

use std::process::ExitCode;

use super::source::Source;
use crate::error::Report;
use crate::event::{plain_json, plain_text};
use crate::model::closest::closest;
use crate::model::{AppName, AppSettings, ImageName, PushOptions, RefName, SourcePolicy, SourceRules};
use crate::plan::{BuildConfig, FetchSecrets, PlanInput, WhichRef, builds, default_frontends, describe};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, or GITDIR@COMMIT with a branch, tag or commit id.
    #[arg(value_name = "PATH|GITDIR@COMMIT", default_value = ".")]
    source: String,
    /// The app's name; after the directory without it.
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,
    /// The ref that is pushed: a branch, or a full name; the one that the commit is named by, else the main branch.
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// The image's name; localhost:5000/APP without it.
    #[arg(long, value_name = "HOST/PATH")]
    image: Option<ImageName>,
    /// The app's settings as JSON, `-` for standard input; the defaults without it.
    #[arg(long, value_name = "FILE")]
    settings: Option<String>,
    /// Platforms in place of the settings' ones.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<crate::model::Platform>,
    /// A push option, as `git push -o` takes it.
    #[arg(short = 'o', long = "option", value_name = "OPTION")]
    options: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let mut settings = read_settings(args.settings.as_deref())?;
    if !args.platforms.is_empty() {
        settings.platforms = args.platforms;
    }
    let options = PushOptions::parse(args.options.iter().map(String::as_str))
        .map_err(|e| Report::user(e.to_string()))?;
    let source = Source::open(&args.source)?;
    let app = match args.app.or_else(|| source.app_name()) {
        Some(app) => app,
        None => "app".parse::<AppName>()?,
    };
    let reference = match (args.reference, &source.reference) {
        (Some(text), _) => parse_ref(&text)?,
        (None, Some(reference)) => reference.clone(),
        (None, None) => parse_ref(&settings.main_branch)?,
    };
    let image = match args.image.or_else(|| settings.image.clone()) {
        Some(image) => image,
        None => format!("localhost:5000/{app}").parse::<ImageName>()?,
    };
    let config = BuildConfig::read(source.tree.as_ref())?;
    let detected = crate::detect::detect(source.tree.as_ref(), &settings, config.as_ref())?;
    let try_id = if source.commit.sha.is_zero() { "local" } else { source.commit.sha.short(12) };
    let mut plan = crate::plan::plan(&PlanInput {
        tree: source.tree.as_ref(),
        detected: &detected,
        config: config.as_ref(),
        app: &app,
        app_id: app.as_str(),
        settings: &settings,
        secrets: FetchSecrets::default(),
        image: &image,
        commit: source.commit.clone(),
        reference: Some(&reference),
        options: &options,
        frontends: &default_frontends(),
        policy: &SourcePolicy::default(),
        sources: &SourceRules::open(image.clone()),
        destinations: None,
        sbom_generator: None,
        source_url: None,
        try_id,
    })?;
    if let WhichRef::NotBuilt(why) = builds(&settings, &reference) {
        plan.notes.push(format!("a push of {reference} would not build: {why}"));
    }
    if args.json {
        println!("{}", json(&plan)?);
    } else {
        println!("{}", plain_text(&describe::plan(&plan)));
    }
    Ok(ExitCode::SUCCESS)
}

/// `main` is the branch; `refs/tags/v1` is itself.
fn parse_ref(text: &str) -> Result<RefName, Report> {
    let full = if text.starts_with("refs/") { text.to_owned() } else { format!("refs/heads/{text}") };
    Ok(full.parse::<RefName>()?)
}

/// Settings as `lemnos apps show APP --json` prints them, alone or within the app, in full or in part.
pub(super) fn read_settings(file: Option<&str>) -> Result<AppSettings, Report> {
    let Some(file) = file else { return Ok(AppSettings::default()) };
    let text = match file {
        "-" => std::io::read_to_string(std::io::stdin()),
        path => std::fs::read_to_string(path),
    };
    let text = text.map_err(|e| {
        Report::user(format!("reading {file}: {e}"))
            .hint("`lemnos apps show APP --json > FILE` on the server makes one")
    })?;
    let wrong = |e: serde_json::Error| {
        Report::user(format!("{file}: {e}")).hint("the form is that of `lemnos apps show APP --json`")
    };
    let mut value: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
    if let Some(inner) = value.get_mut("settings") {
        value = inner.take();
    }
    // a record may lack what a newer version added, but a misspelt name must not pass for the default
    let known = serde_json::to_value(AppSettings::default()).map_err(wrong)?;
    let known: Vec<&str> = known.as_object().into_iter().flat_map(|o| o.keys()).map(String::as_str).collect();
    for key in value.as_object().into_iter().flat_map(|o| o.keys()) {
        if !known.contains(&key.as_str()) {
            let hint = match closest(key, known.iter().copied()) {
                Some(close) => format!("did you mean {close}?"),
                None => format!("known ones: {}", known.join(", ")),
            };
            return Err(Report::user(format!("{file}: unknown setting {key:?}")).hint(hint));
        }
    }
    serde_json::from_value(value).map_err(wrong)
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Report> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| plain_json(&text)).map_err(|e| Report::internal(format!("writing JSON: {e}")))
}
