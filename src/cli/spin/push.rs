//! `lemnos spin push`: the artifact of an application that is built already, or is built first, goes to a registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::application::{Application, ApplicationArgs, screen, tell};
use super::build::{build, watched};
use crate::assemble::spin::{Places, Sources, artifact, fetched, gather, publish};
use crate::cli::build::CANCELLED;
use crate::cli::build::screen::Screen;
use crate::cli::builder::BuilderArgs;
use crate::cli::serve::wiring;
use crate::config::{self, Config, Environment, Layer};
use crate::error::Report;
use crate::failpoint::Failpoints;
use crate::fetch::{FetchConfig, Fetcher};
use crate::model::{Digest, ImageName, SourceRules, SpinPlan, Tag};
use crate::receive::tree::DirTree;
use crate::registry::Registry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it goes; the tag is `latest` where there is none.
    #[arg(value_name = "HOST/PATH[:TAG]")]
    reference: String,
    #[command(flatten)]
    application: ApplicationArgs,
    #[command(flatten)]
    builder: BuilderArgs,
    /// Build the components first; without it they are pushed as they stand in the directory.
    #[arg(long)]
    build: bool,
    /// Speak to the registry in plain http.
    #[arg(short = 'k', long)]
    insecure: bool,
    /// Keep what is fetched by digest here, and take it from here.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// An annotation of the manifest; again for others.
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// How progress is shown on standard error: auto, none, plain, quiet, rawjson or tty.
    #[arg(long, value_name = "HOW", default_value = "auto", env = "BUILDKIT_PROGRESS", hide_env = true)]
    progress: String,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let screen = screen(&args.progress, &environment)?;
    let (image, tag) = reference(&args.reference)?;
    let annotations = annotations(&args.annotations, environment.get("SOURCE_DATE_EPOCH"))?;
    let mut config = config::resolve(args.builder.data_dir(), None, Layer::default(), &environment)?;
    if args.insecure {
        config.plain_http_hosts.push(image.host().to_owned());
    }
    let application = Application::open(&args.application)?;
    let plan = application.plan(args.build)?;
    let push = Push { args: &args, config: &config, application: &application, plan: &plan, screen: &screen };
    crate::cli::block_on(async {
        let outcome = watched(&screen, push.run(&image, &tag, &annotations)).await;
        screen.finish(false);
        match outcome? {
            Some(digest) => {
                println!("Pushed with digest {digest}");
                Ok(ExitCode::SUCCESS)
            }
            None => Ok(ExitCode::from(CANCELLED)),
        }
    })
}

struct Push<'a> {
    args: &'a Args,
    config: &'a Config,
    application: &'a Application,
    plan: &'a SpinPlan,
    screen: &'a Screen,
}

impl Push<'_> {
    async fn run(
        &self,
        image: &ImageName,
        tag: &Tag,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Digest, Report> {
        let registry = Registry::new(wiring::registry(self.config))?;
        let scratch =
            tempfile::tempdir().map_err(|cause| Report::internal(format!("making a directory: {cause}")))?;
        let fetcher = Fetcher::new(FetchConfig {
            plain_http: self.config.plain_http_hosts.clone(),
            ..FetchConfig::default()
        })?;
        let sources = Sources {
            fetcher: &fetcher,
            registry: &registry,
            // whoever pushes from here fetches what they could fetch by themselves
            rules: &SourceRules::default(),
            into: scratch.path(),
            cache: self.args.cache_dir.as_deref(),
        };
        let files = fetched(&self.plan.fetches, sources).await?;
        let built = match self.plan.steps.is_empty() {
            true => None,
            false => {
                Some(build(self.application, self.plan, self.config, &self.args.builder, self.screen).await?)
            }
        };
        let dir: &Path = built.as_ref().map_or(&self.application.dir, |built| built.path());
        let tree = DirTree::new(dir);
        let places = Places { dir, tree: &tree, fetched: &files, scratch: scratch.path() };
        let gathered = gather(&self.plan.app, places)?;
        if built.is_some() {
            gathered.notes.iter().for_each(|note| tell(note));
        }
        let made = artifact(&self.plan.app, &gathered.contents, gathered.archives.as_ref(), annotations)?;
        let pushing = async {
            publish(&registry, image, &made, &gathered, &Failpoints::default())
                .await
                .map_err(Report::from)?;
            registry
                .put_manifest(image, &tag.clone().into(), made.media_type, made.manifest.clone())
                .await
                .map_err(Report::from)
        };
        self.screen.step(&format!("pushing {image}:{tag}"), pushing).await
    }
}

/// An image's name and tag.
fn reference(text: &str) -> Result<(ImageName, Tag), Report> {
    if text.contains('@') {
        return Err(Report::user(format!("{text:?} names a digest, which the push makes")).hint("name a tag"));
    }
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    };
    Ok((name.parse::<ImageName>()?, tag.parse::<Tag>()?))
}

/// What is asked for, and the time where one is given: the clock's would make every push another artifact.
fn annotations(given: &[String], epoch: Option<&str>) -> Result<BTreeMap<String, String>, Report> {
    let mut all = BTreeMap::new();
    if let Some(text) = epoch.filter(|text| !text.is_empty()) {
        let time = text.parse().ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        let written = time.and_then(|time| time.format(&Rfc3339).ok()).ok_or_else(|| {
            Report::user(format!("SOURCE_DATE_EPOCH is {text:?}")).hint("give seconds since 1970, or nothing")
        })?;
        all.insert("org.opencontainers.image.created".to_owned(), written);
    }
    for text in given {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                all.insert(key.to_owned(), value.to_owned());
            }
            _ => return Err(Report::user(format!("--annotation {text:?} is not KEY=VALUE"))),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_name_and_a_tag() {
        let read = |text: &str| reference(text).map(|(name, tag)| format!("{name} {tag}")).ok();
        assert_eq!(read("localhost:5000/a/b").as_deref(), Some("localhost:5000/a/b latest"));
        assert_eq!(read("ghcr.io/a/b:v1").as_deref(), Some("ghcr.io/a/b v1"));
        assert_eq!(read("a/b@sha256:00"), None);
        assert_eq!(read("b"), None);
    }

    #[test]
    fn a_time_is_given_or_is_not_there() {
        let of = |epoch| annotations(&["a=b=c".to_owned()], epoch).map(|all| format!("{all:?}")).ok();
        assert_eq!(of(None).as_deref(), Some(r#"{"a": "b=c"}"#));
        assert!(of(Some("0")).unwrap().contains("1970-01-01T00:00:00Z"));
        assert_eq!(of(Some("today")), None);
        assert!(annotations(&["nothing".to_owned()], None).is_err());
    }
}
