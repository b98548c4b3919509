//! `lemnos build`: what a push does, for a tree at hand: detect, plan, solve, assemble, tag. Without a server and its store.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use super::serve::wiring;
use super::source::Source;
use crate::assemble;
use crate::buildkit::session::filesync::LocalDir;
use crate::config::{self, Environment, Layer};
use crate::detect;
use crate::error::Report;
use crate::event::{BuildEvent, Failure};
use crate::failpoint::Failpoints;
use crate::model::{
    AppName, AppSettings, BuildPlan, Digest, ImageName, ImagePlan, Platform, PushOptions, Sha, SolveSpec,
    SourcePolicy, SourceRules,
};
use crate::pipeline::from_report;
use crate::plan::{self, BuildConfig, PlanInput};
use crate::registry::Registry;
use crate::solve::context::{GitContext, Ledger, shared_key};
use crate::solve::{BuildSecrets, ContextDirs, DirSource, Pool, RegistryAuth};

mod screen;
mod target;

use screen::{Progress, Screen};
use target::Target;

/// Lines of a failing step that are shown again.
const LOG_TAIL_LINES: usize = 30;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory, or GITDIR@COMMIT.
    #[arg(value_name = "PATH|GITDIR@COMMIT", default_value = ".")]
    source: String,
    /// Where the image goes: HOST[:PORT]/PATH[:TAG]; again for further tags.
    #[arg(short, long = "tag", value_name = "REF", required = true)]
    tags: Vec<Target>,
    /// Platforms, separated by commas [default: linux/amd64,linux/arm64].
    #[arg(long = "platform", value_delimiter = ',', value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// A build argument; again for each one.
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,
    /// The Dockerfile, from the root of the tree.
    #[arg(short, long = "file", value_name = "PATH")]
    dockerfile: Option<String>,
    /// The stage to build.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run every step again.
    #[arg(long)]
    no_cache: bool,
    /// Look base images up again.
    #[arg(long)]
    pull: bool,
    /// How progress is shown, on standard error; the image's digest goes to standard output.
    #[arg(long, value_enum, default_value = "auto")]
    progress: Progress,
    /// A BuildKit daemon, as `lemnos serve --builder` takes it [default: BUILDKIT_HOST, else those of the server that
    /// runs on the data directory].
    #[arg(long, value_name = "ADDR[,platform=P]…")]
    builder: Vec<String>,
    /// A registry to speak plain http to, besides loopback; again for each one.
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// Data directory of a running server [env: LEMNOS_DATA].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Everything that a build of a tree at hand needs.
struct Bench {
    pool: Pool,
    registry: Registry,
    plain_http: Vec<String>,
    git: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let flags = Layer::default()
        .flag("--builder", args.builder.clone())
        .flag("--plain-http", args.plain_http.clone());
    let config = config::resolve(args.data.as_deref(), None, flags, &environment)?;
    let source = Source::open(&args.source)?;
    let plan = plan_tree(&args, &source)?;
    let bench = Bench {
        pool: Pool::new(super::builder::builders(&config)?),
        registry: Registry::new(wiring::registry(&config))?,
        plain_http: config.plain_http_hosts.clone(),
        git: super::serve::find_git(&environment),
    };
    super::block_on(build(&args, &source, &plan, &bench))
}

/// The same plan that a push of this tree would get, its tags apart.
fn plan_tree(args: &Args, source: &Source) -> Result<BuildPlan, Report> {
    let first = args.tags.first().ok_or_else(|| Report::user("no --tag"))?;
    if args.tags.iter().any(|t| t.image != first.image) {
        return Err(Report::user("all --tag must name one image").hint("build once for each image name"));
    }
    let settings = AppSettings {
        platforms: args.platforms.clone(),
        build_args: build_args(&args.build_args)?,
        dockerfile_path: args.dockerfile.clone(),
        target: args.target.clone(),
        ..AppSettings::default()
    };
    let app: AppName = match source.app_name() {
        Some(name) => name,
        None => "local".parse()?,
    };
    let config = BuildConfig::read(source.tree.as_ref())?;
    let detected = detect::detect(source.tree.as_ref(), &settings, config.as_ref())?;
    Ok(plan::plan(&PlanInput {
        tree: source.tree.as_ref(),
        detected: &detected,
        config: config.as_ref(),
        app: &app,
        app_id: &format!("local-{app}"),
        settings: &settings,
        image: &first.image,
        commit: source.commit.clone(),
        reference: source.reference.as_ref(),
        options: &PushOptions { no_cache: args.no_cache, rebuild: args.pull, ..PushOptions::default() },
        frontends: &plan::default_frontends(),
        policy: &SourcePolicy::default(),
        sources: &SourceRules::open(first.image.clone()),
        sbom_generator: None,
        source_url: None,
        try_id: "local",
    })?)
}

fn build_args(pairs: &[String]) -> Result<BTreeMap<String, String>, Report> {
    let one = |pair: &String| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Report::user(format!("--build-arg {pair:?} is not NAME=VALUE"))),
    };
    pairs.iter().map(one).collect()
}

async fn build(args: &Args, source: &Source, plan: &BuildPlan, bench: &Bench) -> Result<ExitCode, Report> {
    let screen = Screen::new(args.progress);
    let began = Instant::now();
    let elapsed_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match publish(args, source, plan, bench, &screen).await {
        Ok(digest) => {
            screen.emit(BuildEvent::Succeeded { duration_ms: elapsed_ms() });
            // a reader that went away has seen the tag in the registry all the same
            let _ = writeln!(std::io::stdout(), "{digest}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            screen.emit(BuildEvent::Failed { failure, duration_ms: elapsed_ms() });
            Ok(ExitCode::from(1))
        }
    }
}

/// Solve, assemble, tag. The tags move after the index stands, in the order given.
async fn publish(
    args: &Args,
    source: &Source,
    plan: &BuildPlan,
    bench: &Bench,
    screen: &Screen,
) -> Result<Digest, Failure> {
    let failed = |report: Report| from_report(report);
    let [image] = plan.images.as_slice() else {
        return Err(failed(Report::internal(format!("a plan of {} images", plan.images.len()))));
    };
    announce(plan, image, screen);
    let platforms: Vec<Platform> = image.solves.iter().flat_map(|s| s.platforms.clone()).collect();
    let insecure = bench.plain_http.iter().any(|host| host == image.name.host());
    let mut pushed = Vec::new();
    for spec in &image.solves {
        let dirs = context(source, &plan.commit, spec, &image.name, bench).map_err(failed)?;
        for part in bench.pool.solve("local", spec, &image.name, insecure, &dirs, &screen.sink()).await? {
            let only = if part.platforms.len() == 1 { part.platforms.first().cloned() } else { None };
            pushed.push((part.digest, only));
        }
    }
    let children =
        assemble::fetch(&bench.registry, &image.name, &pushed).await.map_err(|e| failed(e.into()))?;
    let index = assemble::index(&platforms, children, &image.annotations).map_err(|e| failed(e.into()))?;
    let digest = assemble::push(&bench.registry, &image.name, &index, &Failpoints::default())
        .await
        .map_err(|e| failed(e.into()))?;
    screen.emit(BuildEvent::Assembled { image: image.name.clone(), digest: digest.clone(), platforms });
    for target in &args.tags {
        bench
            .registry
            .put_manifest(&image.name, &target.tag.clone().into(), &index.media_type, index.bytes.clone())
            .await
            .map_err(|e| failed(e.into()))?;
        screen.emit(BuildEvent::Tagged {
            image: image.name.clone(),
            tag: target.tag.clone(),
            digest: digest.clone(),
        });
    }
    Ok(digest)
}

fn announce(plan: &BuildPlan, image: &ImagePlan, screen: &Screen) {
    screen.emit(BuildEvent::Detected { kind: plan.detected.kind, evidence: plan.detected.evidence.clone() });
    for note in &plan.notes {
        screen.emit(BuildEvent::Note { text: crate::event::plain_line(note) });
    }
    let platforms = image.solves.iter().flat_map(|s| s.platforms.clone()).collect();
    screen.emit(BuildEvent::Planned { image: image.name.clone(), platforms, tags: Vec::new() });
}

/// The commit's objects, or the directory as it stands.
fn context(
    source: &Source,
    commit: &Sha,
    spec: &SolveSpec,
    image: &ImageName,
    bench: &Bench,
) -> Result<ContextDirs, Report> {
    let beside = spec.dockerfile_path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let path = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
    let (context, dockerfile): (Arc<dyn DirSource>, Arc<dyn DirSource>) = if commit.is_zero() {
        let open = |dir: &str| {
            LocalDir::open(&path.join(dir))
                .map_err(|e| Report::user(format!("the build context {}: {e}", path.join(dir).display())))
        };
        (Arc::new(open(&spec.context_path)?), Arc::new(open(beside)?))
    } else {
        let now_s = crate::store::now_ms().div_euclid(1000);
        // no state is kept outside of a server: every file goes over once more, and nothing is ever stale
        let context = GitContext::open(&path, commit, &spec.context_path, &mut Ledger::default(), now_s)?;
        let context = match &bench.git {
            Some(git) => context.streaming_with(git.clone()),
            None => context,
        };
        let dockerfile = context.at(beside)?;
        (Arc::new(context), Arc::new(dockerfile))
    };
    // whoever builds here runs the builder: nothing is kept from them
    let rules = Arc::new(SourceRules::open(image.clone()));
    let auth = RegistryAuth::new(
        bench.registry.clone(),
        bench.plain_http.clone(),
        None,
        image.clone(),
        rules.clone(),
    );
    Ok(ContextDirs {
        shared_key: shared_key("local", &path.display().to_string(), &spec.context_path),
        dirs: BTreeMap::from([("context".to_owned(), context), ("dockerfile".to_owned(), dockerfile)]),
        auth: Some(Arc::new(auth)),
        rules,
        secrets: BuildSecrets::default(),
        log_tail_lines: LOG_TAIL_LINES,
    })
}
