//! `lemnos spin build`: components are built on a builder, and come back to where spin.toml says that they are.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use super::application::{Application, ApplicationArgs, screen};
use crate::cli::build::screen::Screen;
use crate::cli::build::{CANCELLED, interrupted};
use crate::cli::builder::{BuilderArgs, Chosen};
use crate::config::{self, Config, Environment, Layer};
use crate::error::Report;
use crate::kinds::spin::mounted_files;
use crate::model::closest::closest;
use crate::model::{SpinPlan, SpinSource};
use crate::receive::tree::DirTree;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    application: ApplicationArgs,
    #[command(flatten)]
    builder: BuilderArgs,
    /// Build this component only; again for others.
    #[arg(short, long = "component-id", value_name = "COMPONENT")]
    components: Vec<String>,
    /// How progress is shown on standard error: auto, none, plain, quiet, rawjson or tty.
    #[arg(long, value_name = "HOW", default_value = "auto", env = "BUILDKIT_PROGRESS", hide_env = true)]
    progress: String,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let screen = screen(&args.progress, &environment)?;
    let config = config::resolve(args.builder.data_dir(), None, Layer::default(), &environment)?;
    let application = Application::open(&args.application)?;
    let mut plan = application.plan(true)?;
    only(&mut plan, &args.components)?;
    if plan.steps.is_empty() {
        println!("None of the components has a build command.");
        return Ok(ExitCode::SUCCESS);
    }
    let work = build(&application, &plan, &config, &args.builder, &screen);
    crate::cli::block_on(async {
        let outcome = watched(&screen, work).await;
        screen.finish(false);
        match outcome? {
            Some(_) => {
                println!("Finished building all Spin components");
                Ok(ExitCode::SUCCESS)
            }
            None => Ok(ExitCode::from(CANCELLED)),
        }
    })
}

/// Leaves the steps of the components that were named.
fn only(plan: &mut SpinPlan, components: &[String]) -> Result<(), Report> {
    let ids: BTreeSet<String> = plan.app.components.iter().map(|component| component.id.clone()).collect();
    for named in components {
        if !ids.contains(named) {
            let report = Report::user(format!("the application has no component {named:?}"));
            return Err(report.hint(match closest(named, ids.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("it has {}", ids.into_iter().collect::<Vec<_>>().join(", ")),
            }));
        }
    }
    if !components.is_empty() {
        plan.steps.retain(|step| components.contains(&step.component));
        plan.app.components.retain(|component| components.contains(&component.id));
        plan.wanted.files = plan
            .app
            .components
            .iter()
            .filter_map(|component| match &component.source {
                SpinSource::Path(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
    }
    Ok(())
}

/// `work`, while its progress is drawn; none where somebody wanted it to end.
pub(super) async fn watched<T>(
    screen: &Screen,
    work: impl Future<Output = Result<T, Report>>,
) -> Result<Option<T>, Report> {
    tokio::select! {
        done = work => done.map(Some),
        never = screen.draw() => match never {},
        asked = interrupted() => asked.map(|()| None),
    }
}

/// Builds, and puts what was made into the application's directory. What was made stands in the directory that comes back.
pub(super) async fn build(
    application: &Application,
    plan: &SpinPlan,
    config: &Config,
    builder: &BuilderArgs,
    screen: &Screen,
) -> Result<tempfile::TempDir, Report> {
    let chosen: Chosen = builder.connect_first().await?;
    let out =
        tempfile::tempdir().map_err(|cause| Report::internal(format!("making a directory: {cause}")))?;
    application.build(plan.clone(), config, &chosen, out.path(), screen).await?;
    let built = DirTree::new(out.path());
    for component in &plan.app.components {
        if let SpinSource::Path(path) = &component.source {
            bring(out.path(), &application.dir, path)?;
        }
        for file in mounted_files(&built, "", component).map_err(crate::kinds::KindError::from)? {
            bring(out.path(), &application.dir, &file.source)?;
        }
    }
    Ok(out)
}

/// Copies a file that differs from the one that is there.
fn bring(out: &Path, dir: &Path, path: &str) -> Result<(), Report> {
    let (from, to) = (out.join(path), dir.join(path));
    let failed = |cause: std::io::Error| Report::user(format!("writing {}: {cause}", to.display()));
    let made = match std::fs::symlink_metadata(&from) {
        Ok(made) if made.is_file() => made,
        // whoever reads it tells what is wrong
        _ => return Ok(()),
    };
    let same_size = std::fs::metadata(&to).is_ok_and(|there| there.is_file() && there.len() == made.len());
    if same_size && std::fs::read(&to).map_err(failed)? == std::fs::read(&from).map_err(failed)? {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::copy(&from, &to).map(drop).map_err(failed)
}
