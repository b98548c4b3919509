//! A tree as ko's images: which programs, each with its commands, base and extras.
//!
//! Equal inputs give equal images. Names and tags of images are not decided here; nothing is started.

use std::collections::BTreeMap;

use super::command::Command;
use super::config::{self, BuildEntry, KoConfig};
use super::constraint::Target;
use super::errors::{KoError, shown_dir};
use super::extras::KoWishes;
use super::facts::Facts;
use super::mains::{self, Main, main_in, main_package};
use super::modules::{Module, Versions, Workspace, module_of};
use super::recipe::{self, RECIPE};
use super::reference;
use super::yaml::At;
use crate::kinds::errors::shown;
use crate::kinds::{BUILD_CONFIG, By, KindError};
use crate::model::tree::clean_path;
use crate::model::{
    Attestations, EntryKind, GoCompile, KoData, KoImage, Platform, SourceRules, Tree, TreeError,
};

const LIMIT_CONFIG_BYTES: u64 = 64 * 1024;

/// What images are made of, beside the tree's own files.
pub struct Input<'a> {
    pub tree: &'a dyn Tree,
    /// Asked for by the app's settings or `build-config.yaml`; empty: ko's file or the recipe says.
    pub platforms: &'a [Platform],
    /// The app's build arguments: variables of the compiler's environment.
    pub arguments: &'a BTreeMap<String, String>,
    pub facts: &'a Facts,
    /// Names the app's cache mounts.
    pub cache_namespace: &'a str,
    pub sources: &'a SourceRules,
    /// Which secrets the app has for private modules.
    pub netrc: bool,
    pub ssh: bool,
    pub no_cache: bool,
    pub pull: bool,
    /// The one program that a command names; what build-config.yaml says is not asked then.
    pub program: Option<Program<'a>>,
}

/// A program as it was named, and where: the place is for messages.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    pub path: &'a str,
    pub place: &'a str,
}

/// The images, and what the pusher should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub images: Vec<KoImage>,
    /// Kubernetes YAML that is to name them.
    pub resolve: Vec<At<String>>,
    pub notes: Vec<String>,
}

/// An entry of `builds` with the directory of its program.
struct Entry<'a> {
    at: &'a At<BuildEntry>,
    /// Where `go` runs.
    dir: String,
    main: String,
}

/// What is known once the files are read.
struct Plan<'a> {
    input: &'a Input<'a>,
    config: &'a KoConfig,
    wishes: &'a KoWishes,
    entries: Vec<Entry<'a>>,
    platforms: Vec<Platform>,
    notes: Vec<String>,
}

/// Every image of the tree.
pub fn images(input: &Input<'_>) -> Result<Images, KindError> {
    let wishes = match input.program {
        Some(_) => KoWishes::default(),
        None => {
            let text = input.tree.read(BUILD_CONFIG, LIMIT_CONFIG_BYTES)?.unwrap_or_default();
            KoWishes::parse(&String::from_utf8_lossy(&text))?
        }
    };
    let config = read_config(input.tree, &wishes)?;
    let entries = entries(input.tree, &config)?;
    let platforms = platforms(input, &config)?;
    let mut plan =
        Plan { input, config: &config, wishes: &wishes, entries, platforms, notes: config.notes.clone() };
    let programs = plan.programs()?;
    let mut images = Vec::new();
    for program in &programs {
        images.push(plan.image(program)?);
    }
    if images.len() > 1 && !wishes.extras.destinations.is_empty() {
        let problem =
            "destinations are for one image, and several are built: name one with import_path".to_owned();
        let file = BUILD_CONFIG.to_owned();
        return Err(KoError::Config { file, line: 1, column: 1, problem }.into());
    }
    Ok(Images { images, notes: plan.notes, resolve: wishes.resolve })
}

fn read_config(tree: &dyn Tree, wishes: &KoWishes) -> Result<KoConfig, KindError> {
    if let Some(said) = &wishes.config {
        let place = || format!("{BUILD_CONFIG}:{}", said.line);
        let outside =
            |cause| KindError::Path { by: By::Config { line: said.line }, key: "ko_config.config", cause };
        let path = clean_path(&said.value).map_err(outside)?;
        return match tree.entry(&path)?.map(|entry| entry.kind) {
            Some(EntryKind::Dir) => KoConfig::read(tree, &format!("{path}/.ko.yaml")),
            Some(_) => KoConfig::read(tree, &path),
            None => Err(KoError::NoConfig { place: place(), path }.into()),
        };
    }
    match config::find(tree)? {
        Some(path) => KoConfig::read(tree, path),
        None => Ok(KoConfig::default()),
    }
}

fn entries<'a>(tree: &dyn Tree, config: &'a KoConfig) -> Result<Vec<Entry<'a>>, KindError> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for at in &config.builds {
        let wrong = |problem: String| KoError::Config {
            file: config.file.clone(),
            line: at.line,
            column: at.column,
            problem,
        };
        let path = |text: &str| clean_path(text).map_err(|cause| wrong(cause.to_string()));
        let dir = path(&at.value.dir)?;
        let joined = if dir.is_empty() { at.value.main.clone() } else { format!("{dir}/{}", at.value.main) };
        let mut main = path(&joined)?;
        // a Go file stands for its directory
        match tree.entry(&main)?.map(|entry| entry.kind) {
            Some(EntryKind::Dir) => {}
            Some(EntryKind::File { .. }) => {
                main = main.rsplit_once('/').map_or(String::new(), |(above, _)| above.to_owned());
            }
            _ => return Err(wrong(format!("there is no {} in the tree", shown_dir(&main))).into()),
        }
        if let Some(other) = entries.iter().find(|other| other.main == main) {
            let problem =
                format!("{} is built by the entry of line {} already", shown_dir(&main), other.at.line);
            return Err(wrong(problem).into());
        }
        entries.push(Entry { at, dir, main });
    }
    Ok(entries)
}

/// Of the settings, else of ko's file, else of the recipe.
fn platforms(input: &Input<'_>, config: &KoConfig) -> Result<Vec<Platform>, KindError> {
    let mut platforms: Vec<Platform> = Vec::new();
    let place =
        |line: u64| if line == 0 { "platforms".to_owned() } else { format!("{}:{line}", config.file) };
    let mut asked: Vec<(u64, Platform)> =
        input.platforms.iter().map(|platform| (0, platform.clone())).collect();
    if asked.is_empty() {
        for said in config
            .default_platforms
            .iter()
            .flat_map(|said| said.value.split(',').map(move |text| (said.line, text)))
        {
            let (line, text) = said;
            if text == "all" {
                let problem = "defaultPlatforms: \"all\" depends on what the base image has just then: name the platforms".to_owned();
                return Err(KoError::Config { file: config.file.clone(), line, column: 1, problem }.into());
            }
            let parsed =
                text.trim().parse().map_err(|problem| KoError::Value { place: place(line), problem })?;
            asked.push((line, parsed));
        }
    }
    if asked.is_empty() {
        asked = RECIPE.platforms.iter().map(|platform| (0, platform.clone())).collect();
    }
    for (line, platform) in asked {
        if platform.os != "linux" || !RECIPE.architectures.contains(&platform.arch) {
            let why = "images of Go programs are made for Linux, for architectures that Go knows";
            return Err(KoError::Platform { place: place(line), platform, why }.into());
        }
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

impl Plan<'_> {
    fn entry(&self, dir: &str) -> Option<&Entry<'_>> {
        self.entries.iter().find(|entry| entry.main == dir)
    }

    fn command(&self, dir: &str) -> Command<'_> {
        Command {
            config: self.config,
            entry: self.entry(dir).map(|entry| &entry.at.value),
            arguments: self.input.arguments,
            facts: self.input.facts,
        }
    }

    /// What decides which files are built in `dir` for a platform.
    fn target(&self, dir: &str, platform: &Platform) -> Result<Target, KindError> {
        let command = self.command(dir);
        let cgo = command.env(platform)?.iter().any(|(name, value)| name == "CGO_ENABLED" && value == "1");
        let minor = recipe::minor(&self.version(dir)?);
        Ok(Target { platform: platform.clone(), cgo, tags: command.tags(), minor })
    }

    fn version(&self, dir: &str) -> Result<String, KindError> {
        if let Some(said) = &self.wishes.go_version {
            return Ok(said.value.clone());
        }
        let workspace = Workspace::read(self.input.tree)?.map(|workspace| workspace.versions);
        let module = module_of(self.input.tree, dir)?.map(|module| module.versions);
        let known: Vec<&Versions> = workspace.iter().chain(&module).collect();
        Ok(recipe::version(&known))
    }

    /// There is always one: those of the recipe stand where no other was named.
    fn first_platform(&self) -> Platform {
        let first = self.platforms.first().or(RECIPE.platforms.first());
        first.cloned().expect("a test of the recipe sees that it has platforms")
    }

    /// The program in `dir`, for every platform.
    fn main(&self, dir: &str, place: &str) -> Result<Main, KindError> {
        for platform in &self.platforms {
            main_in(self.input.tree, dir, &self.target(dir, platform)?, place)?;
        }
        main_in(self.input.tree, dir, &self.target(dir, &self.first_platform())?, place)
    }

    /// The programs that get an image: the one that was named; all; the only one of `builds`; the only one of the tree.
    fn programs(&mut self) -> Result<Vec<Main>, KindError> {
        if let Some(Program { path, place }) = self.input.program {
            let why = |dir: &str, cause: TreeError| self.not_main(place, dir, cause.to_string());
            return Ok(vec![self.named(path, place, why)?]);
        }
        if let Some(said) = &self.wishes.import_path {
            let by = By::Config { line: said.line };
            let cause = |_: &str, cause| KindError::Path { by, key: "ko_config.import_path", cause };
            return Ok(vec![self.named(&said.value, &by.to_string(), cause)?]);
        }
        let listed: Vec<(String, String)> = self
            .entries
            .iter()
            .map(|e| (e.main.clone(), format!("{}:{}", self.config.file, e.at.line)))
            .collect();
        if self.wishes.all && !listed.is_empty() || listed.len() == 1 {
            return listed.iter().map(|(dir, place)| self.main(dir, place)).collect();
        }
        if listed.len() > 1 {
            return Err(
                KoError::SeveralMains { dirs: listed.into_iter().map(|(dir, _)| dir).collect() }.into()
            );
        }
        let first = self.first_platform();
        let found = mains::mains(self.input.tree, &self.target("", &first)?)?;
        let only = found.len() == 1 || self.wishes.all;
        if only && !found.is_empty() {
            let place = "the tree's main package";
            return found.iter().map(|main| self.main(&main.dir, place)).collect();
        }
        if found.is_empty() {
            return Err(KoError::NoMain { platform: first }.into());
        }
        let root = found.iter().find(|main| main.dir.is_empty());
        if let (Some(root), false) = (root, self.config.file.is_empty()) {
            // as `ko build` does without an argument
            self.notes.push(format!("of {} main packages the one at the root is built; ko_config.import_path in {BUILD_CONFIG} chooses another, ko_config.all builds every one", found.len()));
            return Ok(vec![self.main(&root.dir, "the root")?]);
        }
        Err(KoError::SeveralMains { dirs: found.into_iter().map(|main| main.dir).collect() }.into())
    }

    fn not_main(&self, place: &str, dir: &str, why: String) -> KindError {
        let (place, dir) = (place.to_owned(), dir.to_owned());
        KoError::NotMain { place, dir, platform: self.first_platform(), why }.into()
    }

    /// The program of `./cmd/app` or of a whole import path, that stands at `place`.
    fn named(
        &self,
        path: &str,
        place: &str,
        outside: impl Fn(&str, TreeError) -> KindError,
    ) -> Result<Main, KindError> {
        let text = path.strip_prefix("ko://").unwrap_or(path);
        if text == "." || text.starts_with("./") {
            return self.main(&clean_path(text).map_err(|cause| outside(text, cause))?, place);
        }
        let mut modules = mains::modules(self.input.tree)?;
        for entry in &self.entries {
            modules.extend(module_of(self.input.tree, &entry.main)?);
        }
        // the module of the longest path is the one that has it
        modules.sort_by_key(|module| std::cmp::Reverse(module.path.len()));
        for module in &modules {
            let inside = match text.strip_prefix(module.path.as_str()) {
                Some("") => Some(""),
                Some(rest) => rest.strip_prefix('/'),
                None => None,
            };
            if let Some(inside) = inside {
                let dir = format!("{}/{inside}", module.dir);
                return self.main(dir.trim_matches('/'), place);
            }
        }
        if let Some(main) = self.vendored(text, &modules, place)? {
            return Ok(main);
        }
        let why = format!(
            "no module of the tree has {:?}, and it is not vendored; directories are written ./cmd/app",
            shown(text)
        );
        Err(self.not_main(place, text, why))
    }

    /// A dependency's program, which `go` builds under its own path where it is vendored. One that is not is nowhere to be
    /// seen before the build.
    fn vendored(&self, path: &str, modules: &[Module], place: &str) -> Result<Option<Main>, KindError> {
        // a workspace's is at the root
        for root in modules.iter().map(|module| module.dir.as_str()).chain([""]) {
            let vendor = if root.is_empty() { "vendor".to_owned() } else { format!("{root}/vendor") };
            let Ok(dir) = clean_path(&format!("{vendor}/{path}")) else { continue };
            let listed = format!("{vendor}/modules.txt");
            if self.input.tree.entry(&listed)?.is_none() || self.input.tree.entry(&dir)?.is_none() {
                continue;
            }
            for platform in &self.platforms {
                main_package(self.input.tree, &dir, &self.target(&dir, platform)?, place)?;
            }
            return Ok(Some(Main { dir, import_path: path.to_owned() }));
        }
        Ok(None)
    }

    fn image(&self, program: &Main) -> Result<KoImage, KindError> {
        let version = self.version(&program.dir)?;
        let command = self.command(&program.dir);
        let mut targets = Vec::new();
        for platform in &self.platforms {
            targets.push(command.target(platform, &version)?);
        }
        let toolchain = match &self.wishes.toolchain {
            Some(said) => self.allowed(&said.value, &format!("{BUILD_CONFIG}:{}", said.line))?,
            None => self.allowed(&recipe::toolchain(&version), "the Go toolchain")?,
        };
        let entry = self.entry(&program.dir);
        let capabilities =
            entry.map(|entry| entry.at.value.linux_capabilities.iter().map(|c| c.value.clone()));
        Ok(KoImage {
            base: self.base(program)?,
            program: program_name(&program.import_path),
            kodata: self.kodata(&program.dir)?,
            capabilities: capabilities.into_iter().flatten().collect(),
            extras: self.wishes.extras.clone(),
            attest: Attestations::default(),
            compile: GoCompile {
                toolchain,
                import_path: program.import_path.clone(),
                dir: entry.map(|entry| entry.dir.clone()).unwrap_or_default(),
                targets,
                cache_namespace: self.input.cache_namespace.to_owned(),
                netrc: self.input.netrc,
                ssh: self.input.ssh,
                no_cache: self.input.no_cache,
                pull: self.input.pull,
            },
        })
    }

    /// An override by import path in lower case, else the default one, else the recipe's.
    fn base(&self, program: &Main) -> Result<String, KindError> {
        if let Some(said) = &self.wishes.base_image {
            return self.allowed(&said.value, &format!("{BUILD_CONFIG}:{}", said.line));
        }
        let own = self.config.base_image_overrides.get(&program.import_path.to_lowercase());
        match own.or(self.config.default_base_image.as_ref()) {
            Some(said) => self.allowed(&said.value, &format!("{}:{}", self.config.file, said.line)),
            None => self.allowed(&RECIPE.base, "the base image"),
        }
    }

    /// The image, written out, where the app may build on it.
    fn allowed(&self, image: &str, place: &str) -> Result<String, KindError> {
        let full = reference::full(image).unwrap_or_else(|_| image.to_owned());
        match self.input.sources.refuses(&format!("docker-image://{full}")) {
            None => Ok(full),
            Some(refusal) => {
                Err(KoError::Image { place: place.to_owned(), image: shown(image), refusal: refusal.clone() }
                    .into())
            }
        }
    }

    fn kodata(&self, dir: &str) -> Result<Option<KoData>, KindError> {
        let path = if dir.is_empty() { "kodata".to_owned() } else { format!("{dir}/kodata") };
        let entry = self.input.tree.entry(&path)?.filter(|entry| entry.kind == EntryKind::Dir);
        Ok(entry.map(|entry| KoData { path, tree: entry.id }))
    }
}

/// The last element of an import path, as ko names the program.
fn program_name(import_path: &str) -> String {
    match import_path.rsplit('/').next() {
        Some(name) if !name.is_empty() && name != "." => name.to_owned(),
        _ => "ko-app".to_owned(),
    }
}
