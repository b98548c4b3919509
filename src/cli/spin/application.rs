//! The application that a command speaks of: its directory, its plan, and its build on one builder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buildkit::session::filesend::Export;
use crate::buildkit::{
    AuthProvider, DockerConfig, Exporter, Mode, Session, SolveError, SolveErrorKind, SolveRequest,
};
use crate::cli::build::screen::Screen;
use crate::cli::builder::Chosen;
use crate::config::{Config, Environment};
use crate::error::{Kind, Report};
use crate::event::plain_line;
use crate::kinds::KindError;
use crate::kinds::spin::{Place, SpinConfig, excluded, plan, plan_as_built};
use crate::model::{Digest, SourceRules, SpinPlan};
use crate::receive::tree::DirTree;
use crate::solve::spin::{CONTEXT, Steering, steer};

const MANIFEST: &str = "spin.toml";
/// What a builder is never sent of a local directory.
const NEVER_SENT: [&str; 2] = [".git", ".spin"];

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(super) struct ApplicationArgs {
    /// The application: its spin.toml, or the directory of it [default: the nearest spin.toml, from here upwards].
    #[arg(short, long, visible_aliases = ["file"], value_name = "PATH")]
    from: Option<PathBuf>,
    /// The profile that is taken of components which have it.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The image that a component is built in, or all that are not named otherwise; again for other components
    /// [default: spin_config in build-config.yaml, else the one that is known for the language].
    #[arg(long = "image", value_name = "[COMPONENT=]IMAGE")]
    images: Vec<String>,
}

/// A directory with a manifest.
pub(super) struct Application {
    pub dir: PathBuf,
    pub tree: DirTree,
    place: Place,
    config: SpinConfig,
}

impl Application {
    pub fn open(args: &ApplicationArgs) -> Result<Self, Report> {
        let manifest = manifest(args.from.as_deref())?;
        let name = manifest.file_name().and_then(|name| name.to_str()).unwrap_or(MANIFEST).to_owned();
        let dir = match manifest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let tree = DirTree::new(&dir);
        let mut config = SpinConfig::read(&tree).map_err(KindError::from)?;
        if args.profile.is_some() {
            config.profile.clone_from(&args.profile);
        }
        for text in &args.images {
            match text.split_once('=') {
                Some((component, image)) => {
                    config.images.insert(component.to_owned(), image.to_owned());
                }
                None => config.image = Some(text.clone()),
            }
        }
        Ok(Self { dir, tree, place: Place { root: String::new(), manifest: name }, config })
    }

    /// What is to be done, with notes printed; `builds`: whether components are built or are there.
    pub fn plan(&self, builds: bool) -> Result<SpinPlan, Report> {
        let rules = SourceRules::default();
        let planned = match builds {
            true => plan(&self.tree, &self.place, &self.config, &rules),
            false => plan_as_built(&self.tree, &self.place, &self.config, &rules),
        };
        let (plan, notes) = planned.map_err(KindError::from)?;
        notes.iter().for_each(|note| tell(note));
        Ok(plan)
    }

    /// Runs the steps of `plan` on a builder; what they made stands in `out`.
    pub async fn build(
        &self,
        plan: SpinPlan,
        config: &Config,
        builder: &Chosen,
        out: &Path,
        screen: &Screen,
    ) -> Result<(), Report> {
        // the same directory finds what it sent before, and its caches
        let here = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        let key = Digest::of(format!("lemnos spin {}", here.display()).as_bytes());
        let key: String = key.as_str().chars().skip("sha256:".len()).take(32).collect();
        let excluded = self.excluded()?;
        let session = Session::builder(&key)
            .local_dir(CONTEXT, &self.dir)
            .auth(credentials(config)?)
            .export(0, Export::dir(out))
            .build()
            .map_err(|error| Report::user(error.to_string()))?;
        let request = SolveRequest {
            exporters: vec![Exporter { kind: "local".to_owned(), attrs: BTreeMap::new() }],
            session,
            ..SolveRequest::default()
        };
        let steering = Steering { shared_key: key.clone(), cache_namespace: key, excluded };
        let function = |gateway| steer(gateway, plan, steering);
        let built = builder.client.build(request, function, |event| screen.show(event)).await;
        built.map(drop).map_err(|error| failed(&error))
    }

    /// Patterns of what stays here.
    fn excluded(&self) -> Result<Vec<String>, Report> {
        let mut excluded = excluded(&self.tree, "").map_err(KindError::from)?;
        excluded.extend(NEVER_SENT.map(str::to_owned));
        Ok(excluded)
    }
}

/// The manifest that is meant.
fn manifest(from: Option<&Path>) -> Result<PathBuf, Report> {
    let missing = |shown: String| {
        Report::new(Kind::NotFound, format!("there is no {shown}"))
            .hint("--from names a spin.toml, or the directory of one")
    };
    if let Some(path) = from {
        let path = if path.is_dir() { path.join(MANIFEST) } else { path.to_owned() };
        return if path.is_file() { Ok(path) } else { Err(missing(path.display().to_string())) };
    }
    let here = std::env::current_dir()
        .map_err(|cause| Report::internal(format!("finding the current directory: {cause}")))?;
    let found = here.ancestors().map(|dir| dir.join(MANIFEST)).find(|path| path.is_file());
    found.ok_or_else(|| missing(format!("{MANIFEST} in {} or above it", here.display())))
}

fn credentials(config: &Config) -> Result<Arc<dyn AuthProvider>, Report> {
    let read = match &config.docker_config {
        Some(path) => DockerConfig::read(path),
        None => DockerConfig::parse(b"{}"),
    };
    Ok(Arc::new(read.map_err(|e| Report::user(e.to_string()))?))
}

fn failed(error: &SolveError) -> Report {
    let report = Report::new(Kind::Build, format!("the build failed: {}", error.message));
    match error.kind {
        SolveErrorKind::Infrastructure => report.hint("this is not the build's fault; see buildkitd's log"),
        _ => report,
    }
}

/// Something the user should know.
pub(super) fn tell(note: &str) {
    eprintln!("note: {}", plain_line(note));
}

/// The screen of a build, in the mode that was asked for.
pub(super) fn screen(mode: &str, environment: &Environment) -> Result<Screen, Report> {
    let bad = |cause: String| Report::user(cause).hint("--progress plain shows every line");
    let mode = match mode {
        "none" => Mode::Quiet,
        text => text.parse::<Mode>().map_err(|cause| bad(format!("--progress: {cause}")))?,
    };
    Screen::new(mode, environment).map_err(|cause| bad(cause.to_string()))
}
