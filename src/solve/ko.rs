//! A Go program's compile as one LLB graph: every target beside the others, on the builder's own platform, nothing emulated.
//!
//! Equal inputs give equal bytes. The result holds a directory for each target (`linux_arm_v7/NAME`), where wanted one with its
//! debugger, and nothing else, for a local export. The source lies at `/src`, and its `.git` in it, as `go` writes the commit into programs. Each run has an
//! environment that is said whole; caches are the ref's own.

use std::io::Read;
use std::sync::Arc;

use crate::buildkit::llb::{
    CacheSharing, Constraints, Copy, Definition, FileActions, Image, LlbError, Local, MakeDir, Mount,
    Platform, ResolveMode, Run, Secret, Ssh, State, merge,
};
use crate::buildkit::session::filesync::{DirSource, Entry, SourceError, mode};
use crate::model::{DEBUGGER, GoCompile, GoTarget};

/// The names under which the session serves what is compiled.
pub const SOURCE: &str = "source";
/// A builder's platform as graphs name it.
pub fn platform(of: &crate::model::Platform) -> Platform {
    Platform { variant: of.variant.clone().unwrap_or_default(), ..Platform::new(&of.os, &of.arch) }
}

/// What belongs into `.git`.
pub const GIT: &str = "git";

const SRC: &str = "/src";
const OUT: &str = "/out";

/// The graph. `program`: what the compiled file is called. `builder`: the platform that the compiler runs on.
pub fn compile(
    compile: &GoCompile,
    program: &str,
    builder: &Platform,
    has_git: bool,
) -> Result<Definition, LlbError> {
    let toolchain = toolchain(compile, builder);
    let source = Source::of(has_git);
    let built = compile.targets.iter().map(|target| build(compile, program, target, &toolchain, &source));
    let debuggers = compile.targets.iter().filter_map(|target| {
        target.debugger.as_ref().map(|package| debugger(compile, package, target, &toolchain, builder))
    });
    let built: Vec<State> = built.chain(debuggers).collect();
    // laid on top of each other, as they share no name: copies of programs take longer than that
    let result = merge(&built, Constraints::new().custom_name("gather the programs"));
    // the session's directories are told apart by the ref's name space: a random id would make every graph another one
    let ground = Constraints::new().platform(builder.clone()).local_unique_id(&compile.cache_namespace);
    result.marshal(&ground)
}

fn toolchain(compile: &GoCompile, builder: &Platform) -> State {
    let mode = if compile.pull { ResolveMode::ForcePull } else { ResolveMode::Default };
    Image::new(&compile.toolchain).resolve_mode(mode).platform(builder.clone()).state()
}

/// The tree, and what git knows of it.
struct Source {
    tree: State,
    git: Option<State>,
}

impl Source {
    fn of(has_git: bool) -> Self {
        let local = |name: &str, text: &str| {
            let named = Constraints::new().custom_name(format!("[source] {text}"));
            Local::new(name).shared_key_hint(name).constraints(named).state()
        };
        let git = has_git.then(|| local(GIT, "the commit's history"));
        Self { tree: local(SOURCE, "the commit's files"), git }
    }

    /// Mounted, never laid on top of each other: the daemon would keep nothing of a directory on which something lies, and
    /// ask for all of it each time.
    fn mounted(&self, run: Run) -> Run {
        let run = run.mount(Mount::bind(SRC, &self.tree).readonly());
        match &self.git {
            Some(git) => run.mount(Mount::bind(format!("{SRC}/.git"), git).readonly()),
            None => run,
        }
    }
}

/// A commit's files with an empty directory where its history is mounted: a step cannot make one in what it may not change.
pub struct WithGitDir<D>(pub D);

impl<D: DirSource> DirSource for WithGitDir<D> {
    fn entries(&self) -> Result<Arc<[Entry]>, SourceError> {
        let mut entries = self.0.entries()?.to_vec();
        let first = |entry: &Entry| entry.path.split(|b| *b == b'/').next().unwrap_or_default().to_vec();
        let place = entries.partition_point(|entry| first(entry).as_slice() < b".git".as_slice());
        let dir = Entry { path: b".git".to_vec(), mode: mode::DIR | 0o755, ..Entry::default() };
        entries.insert(place, dir);
        Ok(entries.into())
    }

    fn open(&self, entry: &Entry) -> Result<Box<dyn Read + Send>, SourceError> {
        self.0.open(entry)
    }
}

/// What one `go build` leaves: the target's directory with the program in it.
fn build(compile: &GoCompile, program: &str, target: &GoTarget, toolchain: &State, source: &Source) -> State {
    let mut args = vec!["go".to_owned()];
    args.extend(target.args.iter().cloned());
    let directory = target.directory();
    args.extend(["-o".to_owned(), format!("{OUT}/{directory}/{program}"), compile.import_path.clone()]);
    let mut constraints =
        Constraints::new().custom_name(format!("[{}] go build {}", target.platform, compile.import_path));
    if compile.no_cache {
        constraints = constraints.ignore_cache();
    }
    let dir = if compile.dir.is_empty() { SRC.to_owned() } else { format!("{SRC}/{}", compile.dir) };
    let made = FileActions::new().mkdir(MakeDir::new(format!("/{directory}"), 0o755).created(0));
    let out = State::scratch()
        .file(made, Constraints::new().custom_name(format!("[{}] /{directory}", target.platform)));
    let mut run = Run::args(args).dir(dir).constraints(constraints);
    for (name, value) in &target.env {
        run = run.env(name, value);
    }
    run = equipped(source.mounted(run), compile, target).mount(Mount::bind(OUT, &out));
    toolchain.run(run).mount(OUT).unwrap_or_else(State::scratch)
}

/// What one `go install` leaves of a target's debugger: its file, in a directory of its own. The step reads nothing of the
/// source, so that it is done once and not with each commit.
fn debugger(
    compile: &GoCompile,
    package: &str,
    target: &GoTarget,
    toolchain: &State,
    builder: &Platform,
) -> State {
    let named = |what: &str| Constraints::new().custom_name(format!("[{}] {what}", target.platform));
    let args = ["go", "install", "-trimpath", "-ldflags=-s -w", package].map(str::to_owned);
    let mut run = Run::args(args).dir("/").constraints(named(&format!("go install {package}")));
    for (name, value) in &target.env {
        run = run.env(name, value);
    }
    // the app's own flags and workspace are not the debugger's; programs for other platforms go nowhere but below GOPATH
    for (name, value) in
        [("CGO_ENABLED", "0"), ("GOBIN", ""), ("GOFLAGS", ""), ("GOPATH", OUT), ("GOWORK", "off")]
    {
        run = run.env(name, value);
    }
    let run = equipped(run, compile, target).mount(Mount::bind(OUT, &State::scratch()));
    let made = toolchain.run(run).mount(OUT).unwrap_or_else(State::scratch);
    let Platform { os, architecture, .. } = builder;
    let own = (os.as_str(), architecture.as_str()) == (&target.platform.os, &target.platform.arch);
    let subdirectory =
        if own { String::new() } else { format!("{}_{}/", target.platform.os, target.platform.arch) };
    let file = target.debugger_file();
    let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let kept = FileActions::new()
        .mkdir(MakeDir::new(format!("/{directory}"), 0o755).created(0))
        .copy(Copy::new(&made, format!("/bin/{subdirectory}{DEBUGGER}"), format!("/{file}")));
    State::scratch().file(kept, named(&format!("/{directory}")))
}

/// The ref's caches and the app's secrets: what every run of Go has beside its environment.
fn equipped(mut run: Run, compile: &GoCompile, target: &GoTarget) -> Run {
    for (variable, name) in [("GOCACHE", "go-build"), ("GOMODCACHE", "go-modules")] {
        // Go's caches are made for several at once; somewhere else is wherever the app said
        if let Some((_, path)) =
            target.env.iter().find(|(known, path)| known == variable && path.starts_with('/'))
        {
            let id = format!("{}/{name}", compile.cache_namespace);
            run = run.mount(Mount::cache(path, id, CacheSharing::Shared));
        }
    }
    // BuildKit leaves the caches' names out of a step's key; a host name stands in it and in no program
    let host = format!("{}.cache.invalid", compile.cache_namespace);
    run = run.extra_host(host, std::net::Ipv4Addr::LOCALHOST.into());
    if compile.netrc {
        let home = target.env.iter().find(|(name, _)| name == "HOME").map_or("/root", |(_, value)| value);
        run = run.secret(Secret::file(format!("{home}/.netrc")).id("netrc"));
    }
    if compile.ssh {
        run = run.ssh(Ssh::default().id("default"));
    }
    run
}
