//! Programs from import path to image: each planned as a push plans it, compiled, and put together, several at once.
//!
//! Invariant: whoever interrupts finds nothing tagged, or all that was to be.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use futures::future::try_join_all;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::args::KoFlags;
use super::compile::{self, Compiler, cache_namespace};
use super::deliver::{Deliver, Made};
use super::facts::facts;
use super::files::Worktree;
use super::lent::Lent;
use super::names;
use super::project::Project;
use crate::assemble::base::{self, Base, Chosen};
use crate::assemble::ko::{
    self, BaseImage, Capabilities, Epoch, Image, ImageOptions, KoError, Platforms, Product,
};
use crate::assemble::layers::{self, Binary};
use crate::assemble::publish::LayerFile;
use crate::buildkit::{Client, DockerConfig, Mode};
use crate::cli::build::interrupted;
use crate::cli::build::screen::Screen;
use crate::cli::serve::wiring;
use crate::config::{self, Config, Environment, Layer};
use crate::error::{Kind, Report};
use crate::kinds::ko::{Facts, Input, KoConfig, Program, debugger, full_reference, images};
use crate::model::{DEBUGGER, KoImage, Platform, SourceRules};
use crate::registry::Registry;

/// What of the environment is Go's, and reaches the compiler.
const GO_VARIABLES: [&str; 15] = [
    "CGO_ENABLED",
    "GO111MODULE",
    "GOAMD64",
    "GOARM",
    "GOEXPERIMENT",
    "GOFLAGS",
    "GOGC",
    "GOINSECURE",
    "GOMEMLIMIT",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "GOWORK",
];

/// Longest wait for tags that are on their way when somebody interrupts.
const LAST_TAGS: Duration = Duration::from_secs(5);

/// Everything that is known before a daemon is asked: what `lemnos ko build` and whatever else builds references has.
pub struct Programs<'a> {
    flags: &'a KoFlags,
    environment: &'a Environment,
    project: Project,
    config: Config,
    facts: Facts,
    arguments: BTreeMap<String, String>,
    registry: Registry,
    deliver: Deliver,
    lent: Lent,
}

impl<'a> Programs<'a> {
    /// Reads flags, environment and the project that the command was given in.
    pub fn open(flags: &'a KoFlags, environment: &'a Environment) -> Result<Self, Report> {
        let repository = environment.get("KO_DOCKER_REPO").filter(|name| !name.is_empty());
        flags.refusal(repository)?;
        let deliver = Deliver::read(flags, repository, environment)?;
        let lent = Lent::read(flags, environment)?;
        let mut layer = Layer::default().flag("--mirror", flags.mirror.clone());
        if let (true, Some(repository)) = (flags.insecure_registry, repository) {
            let host = repository.split('/').next().unwrap_or(repository);
            layer = layer.flag("--plain-http", vec![host.to_owned()]);
        }
        let config = config::resolve(None, None, layer, environment)?;
        let project = Project::find(environment)?;
        let facts = facts(&project.source, environment)?;
        let named = project.named_variables();
        let known = GO_VARIABLES.into_iter().chain(named.iter().map(String::as_str));
        let arguments =
            known.filter_map(|name| Some((name.to_owned(), environment.get(name)?.to_owned()))).collect();
        let registry = Registry::new(wiring::registry(&config))?;
        Ok(Self { flags, environment, project, config, facts, arguments, registry, deliver, lent })
    }

    /// Builds and publishes the programs at these import paths; the references that stand for them, in their order.
    pub async fn published(&self, import_paths: &[String]) -> Result<Vec<String>, Report> {
        self.deliver.ready().await?;
        let builders = self.flags.builder.builders()?;
        let builder = builders.first().ok_or_else(|| Report::internal("no builder was found"))?;
        let client = Client::connect(&builder.endpoint, std::time::Duration::from_secs(30)).await?;
        let mode = if self.flags.verbose { Mode::Plain } else { Mode::Auto };
        let screen = Screen::new(mode, self.environment).map_err(|cause| Report::user(cause.to_string()))?;
        let jobs = match self.flags.jobs {
            Some(jobs) => usize::try_from(jobs).unwrap_or(usize::MAX),
            None => available_parallelism().map_or(1, NonZero::get),
        };
        let compiler = Compiler {
            client: &client,
            screen: &screen,
            project: &self.project,
            auth: Arc::new(self.docker_config()?),
            lent: &self.lent,
            platform: compile::platform(&client).await?,
            turns: Semaphore::new(jobs.min(Semaphore::MAX_PERMITS)),
        };
        let work = async {
            let made = self.all(import_paths, &compiler).await?;
            let delivered = self.deliver.content(&self.registry, &made).await?;
            Ok((made, delivered))
        };
        let built = tokio::select! {
            built = work => built,
            never = screen.draw() => match never {},
            asked = interrupted() => Err(asked.err().unwrap_or_else(canceled)),
        };
        screen.finish(false);
        let (made, delivered) = built?;
        let tags = self.deliver.tags(&self.registry, &made, &delivered);
        tokio::pin!(tags);
        tokio::select! {
            tagged = &mut tags => tagged,
            _ = interrupted() => tokio::time::timeout(LAST_TAGS, tags).await.unwrap_or_else(|_| Err(canceled())),
        }?;
        self.deliver.references(&delivered)
    }

    async fn all(&self, import_paths: &[String], compiler: &Compiler<'_>) -> Result<Vec<Made>, Report> {
        let mut paths: Vec<String> = Vec::new();
        for given in import_paths {
            let path = names::import_path(given, given, &self.project.here_below)?;
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        try_join_all(paths.iter().map(|path| self.one(path, compiler))).await
    }

    /// The whole import path of a program that is named at `place`, under which it is built once whatever it is called; an
    /// error says why there is no program to build.
    pub fn find(&self, given: &str, place: &str) -> Result<String, Report> {
        let path = names::import_path(given, place, &self.project.here_below)?;
        let any = "linux/amd64".parse::<Platform>()?;
        let program = Program { path: &path, place };
        Ok(self.plan(program, std::slice::from_ref(&any))?.compile.import_path)
    }

    /// The program as it is planned for these platforms.
    fn plan(&self, program: Program<'_>, platforms: &[Platform]) -> Result<KoImage, Report> {
        let tree = self.project.tree();
        let namespace = cache_namespace(&self.project.source);
        let planned = images(&Input {
            tree: &tree,
            platforms,
            arguments: &self.arguments,
            facts: &self.facts,
            cache_namespace: &namespace,
            sources: &SourceRules::default(),
            netrc: self.lent.netrc(),
            ssh: self.lent.ssh(),
            no_cache: false,
            pull: false,
            program: Some(program),
        })?;
        let mut images = planned.images.into_iter();
        let mut image = images.next().ok_or_else(|| Report::internal("nothing was planned"))?;
        if let Some(named) = &self.flags.toolchain {
            image.compile.toolchain = full_reference(named).map_err(|problem| {
                Report::user(format!("--toolchain: {problem}")).hint("for example --toolchain golang:1.26")
            })?;
        }
        for target in &mut image.compile.targets {
            // what was optimized, a debugger cannot follow
            if self.flags.disable_optimizations || self.flags.debug {
                target.args.push("-gcflags".to_owned());
                target.args.push("all=-N -l".to_owned());
            }
            if !self.flags.ldflags.is_empty() {
                target.args.retain(|arg| !arg.starts_with("-ldflags="));
                target.args.push(format!("-ldflags={}", self.flags.ldflags.join(" ")));
            }
        }
        let dirs = [self.project.root_below.as_str(), image.compile.dir.as_str()];
        let dirs: Vec<&str> = dirs.into_iter().filter(|dir| !dir.is_empty()).collect();
        image.compile.dir = dirs.join("/");
        if let Some(kodata) = &mut image.kodata
            && !self.project.root_below.is_empty()
        {
            kodata.path = format!("{}/{}", self.project.root_below, kodata.path);
        }
        Ok(image)
    }

    /// Flag, environment, configuration, what ko takes otherwise.
    fn platforms(&self, config: &KoConfig) -> Result<Platforms, Report> {
        let set = |name: &str| self.environment.get(name).filter(|text| !text.is_empty());
        let text = if !self.flags.platform.is_empty() {
            self.flags.platform.join(",")
        } else if let Some(text) = set("KO_DEFAULTPLATFORMS") {
            text.to_owned()
        } else if !config.default_platforms.is_empty() {
            config.default_platforms.iter().map(|at| at.value.as_str()).collect::<Vec<_>>().join(",")
        } else {
            let (os, arch) = (set("GOOS").unwrap_or("linux"), set("GOARCH").unwrap_or("amd64"));
            match set("GOARM").filter(|_| arch == "arm") {
                Some(level) => format!("{os}/{arch}/v{level}"),
                None => format!("{os}/{arch}"),
            }
        };
        Ok(text.parse::<Platforms>()?)
    }

    async fn one(&self, import_path: &str, compiler: &Compiler<'_>) -> Result<Made, Report> {
        let tree = self.project.tree();
        let asked = Program { path: import_path, place: import_path };
        let config = match self.project.has_config() {
            true => KoConfig::read(&tree, ".ko.yaml")?,
            false => KoConfig::default(),
        };
        let wanted = self.platforms(&config)?;
        // which base it is, is known before which platforms it has
        let any = "linux/amd64".parse::<Platform>()?;
        let first = self.plan(asked, std::slice::from_ref(&any))?;
        let own = config.base_image_overrides.contains_key(&first.compile.import_path.to_lowercase());
        let named = self.environment.get("KO_DEFAULTBASEIMAGE").filter(|name| !name.is_empty() && !own);
        let base = base::resolve(&self.registry, named.unwrap_or(&first.base)).await?;
        let chosen = self.chosen(&base, &wanted).await?;
        let platforms: Result<Vec<Platform>, Report> =
            chosen.iter().map(|chosen| names::platform(&chosen.platform)).collect();
        let targets: Vec<_> = chosen.iter().map(|chosen| &chosen.platform).collect();
        self.deliver.takes(import_path, &targets, base.index().is_some() && chosen.len() > 1)?;
        let mut program = self.plan(asked, &platforms?)?;
        if program.compile.targets.len() != chosen.len() {
            let message = format!("the base image {} has one platform twice", base.reference);
            return Err(Report::user(message).hint("name the variant: linux/arm64/v8"));
        }
        if self.flags.debug {
            self.debugged(&mut program, &chosen, compiler)?;
        }
        let scratch = scratch()?;
        let out = scratch.path().join("out");
        let compiled = compiler.compile(&program, &out);
        let bases = async { Ok::<_, Report>(base.images(&self.registry, &chosen).await?) };
        let ((), bases) = tokio::try_join!(compiled, bases)?;
        self.assembled(program, base, bases, chosen, scratch).await
    }

    /// Asks for a debugger wherever there is one, and says where there is none.
    fn debugged(
        &self,
        program: &mut KoImage,
        chosen: &[Chosen],
        compiler: &Compiler<'_>,
    ) -> Result<(), Report> {
        let path = &program.compile.import_path;
        if ko::app_name(path) == DEBUGGER {
            let message =
                format!("--debug: {path} has the name of the debugger that it would be started under");
            return Err(Report::user(message).hint("build it without --debug, or rename its directory"));
        }
        let package = debugger(&program.compile.toolchain);
        for (target, chosen) in program.compile.targets.iter_mut().zip(chosen) {
            if chosen.platform.debuggable() {
                target.debugger = Some(package.clone());
            } else {
                let platform = &chosen.platform;
                compiler
                    .screen
                    .say(&format!("{path}: no debugger for {platform}, whose image is made without\n"));
            }
        }
        Ok(())
    }

    async fn chosen(&self, base: &Base, wanted: &Platforms) -> Result<Vec<Chosen>, Report> {
        let Some(index) = base.index() else {
            let alone = Chosen { entry: None, platform: ko::BasePlatform::default() };
            let images = base.images(&self.registry, std::slice::from_ref(&alone)).await?;
            let image = images.first().ok_or_else(|| Report::internal("the base image is gone"))?;
            return Ok(vec![Chosen { entry: None, platform: wanted.of_image(image)? }]);
        };
        let entries = wanted.choose(index)?.into_iter();
        Ok(entries
            .filter_map(|entry| {
                Some(Chosen { platform: entry.platform.clone()?, entry: Some(entry.clone()) })
            })
            .collect())
    }

    fn docker_config(&self) -> Result<DockerConfig, Report> {
        let read = match &self.config.docker_config {
            Some(path) => DockerConfig::read(path),
            None => DockerConfig::parse(b"{}"),
        };
        read.map_err(|error| Report::user(error.to_string()))
    }

    fn options(&self, program: &KoImage) -> Result<ImageOptions, Report> {
        let epoch = |name: &str| -> Result<Option<Epoch>, Report> {
            let text = self.environment.get(name).filter(|text| !text.is_empty());
            Ok(text.map(str::parse::<Epoch>).transpose()?)
        };
        Ok(ImageOptions {
            import_path: program.compile.import_path.clone(),
            created: epoch("SOURCE_DATE_EPOCH")?,
            kodata_created: epoch("KO_DATA_DATE_EPOCH")?,
            labels: names::pairs("--image-label", &self.flags.image_label)?,
            annotations: names::pairs("--image-annotation", &self.flags.image_annotation)?,
            user: self.flags.image_user.clone(),
            ..ImageOptions::default()
        })
    }

    /// Layers, images, and the index over them.
    async fn assembled(
        &self,
        program: KoImage,
        base: Base,
        bases: Vec<BaseImage>,
        chosen: Vec<Chosen>,
        scratch: TempDir,
    ) -> Result<Made, Report> {
        let options = self.options(&program)?;
        let Layers { kodata, binaries, debuggers } =
            self.written(&program, scratch.path(), options.kodata_created).await?;
        let mut images: Vec<Image> = Vec::new();
        let own = binaries.iter().zip(&debuggers);
        for ((image, chosen), (binary, debugger)) in bases.iter().zip(&chosen).zip(own) {
            let layers = ko::Layers {
                kodata: kodata.layer.clone(),
                binary: binary.file.layer.clone(),
                debugger: debugger.as_ref().map(|debugger| debugger.layer.clone()),
            };
            images.push(ko::image(image, &base.reference, chosen.entry.as_ref(), &layers, &options)?);
        }
        let entries: Option<Vec<_>> = chosen.iter().map(|chosen| chosen.entry.as_ref()).collect();
        let product = match (base.index(), entries) {
            (Some(index), Some(entries)) => {
                let over = entries.into_iter().zip(images.clone()).collect();
                ko::product(index, &base.reference, over, &options)?
            }
            _ => {
                Product::Image(images.first().cloned().ok_or_else(|| Report::internal("no image was made"))?)
            }
        };
        let import_path = program.compile.import_path;
        Ok(Made { import_path, base, bases, images, product, kodata, binaries, debuggers, scratch })
    }

    /// All layers at once, each on a thread of its own.
    async fn written(&self, program: &KoImage, dir: &Path, time: Option<Epoch>) -> Result<Layers, Report> {
        let capabilities = Capabilities::parse(&program.capabilities)?;
        let worktree = Worktree(self.project.source.clone());
        let path = program.kodata.as_ref().map(|kodata| kodata.path.clone());
        let file = dir.join("kodata.layer");
        let kodata = blocking(move || layers::kodata(&worktree, path.as_deref(), file, time));
        let name = ko::app_name(&program.compile.import_path).to_owned();
        let binaries = try_join_all(program.compile.targets.iter().map(|target| {
            let compiled = dir.join("out").join(target.directory()).join(&program.program);
            let file = dir.join(format!("{}.layer", target.directory()));
            let name = name.clone();
            blocking(move || layers::binary(&compiled, &name, capabilities.as_ref(), file))
        }));
        let debuggers = try_join_all(program.compile.targets.iter().map(|target| {
            let wanted = target.debugger.is_some();
            let compiled = dir.join("out").join(target.debugger_file());
            let file = dir.join(format!("{}.debugger.layer", target.directory()));
            blocking(move || {
                wanted.then(|| layers::debugger(&compiled, capabilities.as_ref(), file)).transpose()
            })
        }));
        let (kodata, binaries, debuggers) = tokio::try_join!(kodata, binaries, debuggers)?;
        Ok(Layers { kodata, binaries, debuggers })
    }
}

fn scratch() -> Result<TempDir, Report> {
    let made = tempfile::Builder::new().prefix("lemnos-ko-").tempdir();
    let made = made.and_then(|dir| std::fs::create_dir(dir.path().join("out")).map(|()| dir));
    made.map_err(|error| Report::internal(format!("a directory for the build: {error}")))
}

struct Layers {
    kodata: LayerFile,
    binaries: Vec<Binary>,
    debuggers: Vec<Option<LayerFile>>,
}

/// Runs what reads and packs files off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KoError> + Send + 'static,
) -> Result<T, Report> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Report::internal(error.to_string()))??)
}

fn canceled() -> Report {
    Report::new(Kind::Interrupted, "the build was interrupted: context canceled")
}
