//! The LLB of a spin build: each component's commands in its toolchain image, one after the other, over one tree.
//!
//! The application is a local source of the session; it is mounted at one place in every step, and what a step writes there the
//! next one finds, as it would in a checkout. Only that mount goes on: what a command does to its image stays with the
//! component. The result holds the components and whatever files may be mounted, at their own paths, for a local export. Equal
//! plans give equal bytes. Must not run a command outside of a container, nor decide which image builds what.

use std::collections::BTreeMap;

use crate::buildkit::gateway::{Gateway, GatewayError, GatewayResult, GatewaySolve, ResolveOptions};
use crate::buildkit::llb::{
    CacheSharing, Constraints, Copy, Definition, FileActions, Image, ImageConfig, LlbError, Local, Mount,
    ResolveMode, Run, State,
};
use crate::buildkit::solve;
use crate::model::{SpinPlan, SpinStep};

/// The name of the session's directory.
pub const CONTEXT: &str = "context";
/// Where steps find the application.
const APP_DIR: &str = "/app";

/// What a solve gives besides the plan.
#[derive(Debug, Clone, Copy)]
pub struct SpinSolve<'a> {
    /// Under which the daemon keeps its copy of the tree.
    pub shared_key: &'a str,
    /// Keeps cache directories of different apps, or refs, apart.
    pub cache_namespace: &'a str,
    /// The configurations of the steps' images, by name.
    pub images: &'a BTreeMap<String, ImageConfig>,
    /// What of the directory is not sent, as patterns of `.dockerignore`.
    pub excluded: &'a [String],
}

/// What a build that is steered from here gives besides the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steering {
    pub shared_key: String,
    pub cache_namespace: String,
    pub excluded: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpinSolveError {
    #[error("the configuration of the image {image} was not looked up")]
    NoConfig { image: String },
    #[error("describing the build to BuildKit: {0}")]
    Llb(#[from] LlbError),
}

/// Steers a build of `plan` in a frontend's place: looks the toolchain images up, pins them to what they are now, and solves.
pub async fn steer(
    gateway: Gateway,
    mut plan: SpinPlan,
    steering: Steering,
) -> Result<GatewayResult, GatewayError> {
    let mode = if plan.terms.pull { solve::ResolveMode::Pull } else { solve::ResolveMode::Default };
    let mut images = BTreeMap::new();
    let mut pinned: BTreeMap<String, String> = BTreeMap::new();
    for step in &mut plan.steps {
        let name = match pinned.get(&step.image) {
            Some(name) => name.clone(),
            None => {
                let log_name = format!("[internal] load metadata for {}", step.image);
                let options = ResolveOptions { mode, log_name, ..ResolveOptions::default() };
                let found = gateway.image_config(&step.image, &options).await?;
                let config = ImageConfig::parse(&found.config)
                    .map_err(|error| GatewayError::Failed(format!("the image {}: {error}", step.image)))?;
                let name = match step.image.contains('@') || found.digest.is_empty() {
                    true => step.image.clone(),
                    false => format!("{}@{}", step.image, found.digest),
                };
                images.insert(name.clone(), config);
                pinned.insert(step.image.clone(), name.clone());
                name
            }
        };
        step.image = name;
    }
    let solve = SpinSolve {
        shared_key: &steering.shared_key,
        cache_namespace: &steering.cache_namespace,
        images: &images,
        excluded: &steering.excluded,
    };
    let made = definition(&plan, &solve, &Constraints::new());
    let made = made.map_err(|error| GatewayError::Failed(error.to_string()))?;
    gateway.solve(GatewaySolve { definition: Some(made.to_pb()), ..GatewaySolve::default() }).await
}

/// The graph whose result is exported.
pub fn definition(
    plan: &SpinPlan,
    solve: &SpinSolve<'_>,
    constraints: &Constraints,
) -> Result<Definition, SpinSolveError> {
    let source = Local::new(CONTEXT)
        .shared_key_hint(solve.shared_key)
        .exclude_patterns(solve.excluded.iter().cloned())
        // without it the daemon would take every solve's tree for another one
        .constraints(
            Constraints::new()
                .custom_name("[internal] load the application")
                .local_unique_id(solve.shared_key),
        )
        .state();
    let whole = Copy::new(&source, format!("/{}", plan.root), "/").contents_only();
    let mut tree = State::scratch().file(
        FileActions::new().copy(whole),
        Constraints::new().custom_name("[internal] lay out the application"),
    );
    for step in &plan.steps {
        tree = built(plan, step, &tree, solve)?;
    }
    let patterns = wanted(plan);
    let taken = Copy::new(&tree, "/", "/").contents_only().include_patterns(patterns);
    let result = State::scratch().file(
        FileActions::new().copy(taken),
        Constraints::new().custom_name("[internal] take out what was built"),
    );
    Ok(result.marshal(constraints)?)
}

/// The tree after one component's commands.
fn built(
    plan: &SpinPlan,
    step: &SpinStep,
    tree: &State,
    solve: &SpinSolve<'_>,
) -> Result<State, SpinSolveError> {
    let no_config = || SpinSolveError::NoConfig { image: step.image.clone() };
    let config = solve.images.get(&step.image).ok_or_else(no_config)?;
    let mode = if plan.terms.pull { ResolveMode::ForcePull } else { ResolveMode::Default };
    let from = Constraints::new().custom_name(format!("[{}] FROM {}", step.component, step.image));
    let mut root =
        Image::new(&step.image).resolve_mode(mode).constraints(from).state().with_image_config(config);
    if !config.user.is_empty() {
        root = root.user(&config.user);
    }
    let workdir =
        if step.workdir.is_empty() { APP_DIR.to_owned() } else { format!("{APP_DIR}/{}", step.workdir) };
    root = root.dir(workdir);
    let mut tree = tree.clone();
    for command in step.prepare.iter().chain(&step.commands) {
        let mut constraints = Constraints::new().custom_name(format!("[{}] {command}", step.component));
        if plan.terms.no_cache {
            constraints = constraints.ignore_cache();
        }
        // BuildKit leaves the caches' names out of a step's key; a host name stands in it and in nothing that is built
        let host = format!("{}.cache.invalid", solve.cache_namespace);
        let run = Run::args(["/bin/sh", "-c", command])
            .mount(Mount::bind(APP_DIR, &tree))
            .extra_host(host, std::net::Ipv4Addr::LOCALHOST.into())
            .constraints(constraints);
        let run = step.caches.iter().fold(run, |run, dir| {
            let id = format!("{}{dir}", solve.cache_namespace);
            run.mount(Mount::cache(dir, id, CacheSharing::Shared))
        });
        let exec = root.run(run);
        root = exec.root();
        tree = exec.mount(APP_DIR).unwrap_or(tree);
    }
    Ok(tree)
}

/// What is taken out, as patterns in which nothing but the plan's own paths is described. There is one always: without any,
/// all would be taken.
fn wanted(plan: &SpinPlan) -> Vec<String> {
    let all = plan.wanted.files.iter().chain(&plan.wanted.places);
    if all.clone().any(String::is_empty) {
        return Vec::new();
    }
    let mut patterns: Vec<String> = all.map(|path| literal(path)).collect();
    patterns.push("spin.toml".to_owned());
    patterns.sort();
    patterns.dedup();
    patterns
}

/// A pattern of one path. BuildKit compares a text without marks as it is, and makes an expression of any other, in which
/// every mark then has to be taken back.
fn literal(path: &str) -> String {
    if !path.starts_with('!') && !path.contains(['*', '?', '[', '\\']) {
        return path.to_owned();
    }
    path.chars().fold(String::with_capacity(path.len()), |mut pattern, c| {
        if "*?[]\\!^$+(){}|".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpinApp, SpinTerms, SpinWanted};

    fn step(component: &str, image: &str, workdir: &str) -> SpinStep {
        SpinStep {
            component: component.to_owned(),
            image: image.to_owned(),
            prepare: vec!["rustup target add wasm32-wasip1".to_owned()],
            caches: vec!["/usr/local/cargo/registry".to_owned()],
            commands: vec!["cargo build".to_owned(), "cp a b".to_owned()],
            workdir: workdir.to_owned(),
        }
    }

    fn plan() -> SpinPlan {
        SpinPlan {
            root: "web".to_owned(),
            app: SpinApp::default(),
            steps: vec![
                step("one", "docker.io/library/rust:1", "one"),
                step("two", "r.example.com/tools:2", ""),
            ],
            fetches: Vec::new(),
            wanted: SpinWanted {
                files: vec!["one/target/one.wasm".to_owned(), "two+[x].wasm".to_owned()],
                places: vec!["static".to_owned()],
            },
            terms: SpinTerms::default(),
        }
    }

    fn lines(plan: &SpinPlan) -> Result<String, SpinSolveError> {
        let config = |user: &str| ImageConfig {
            env: vec!["PATH=/usr/local/cargo/bin:/bin".to_owned()],
            working_dir: "/ignored".to_owned(),
            user: user.to_owned(),
            platform: None,
        };
        let images = BTreeMap::from([
            ("docker.io/library/rust:1".to_owned(), config("")),
            ("r.example.com/tools:2".to_owned(), config("builder")),
        ]);
        let solve = SpinSolve { shared_key: "key", cache_namespace: "app1", images: &images, excluded: &[] };
        let platform = crate::buildkit::llb::Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..Default::default()
        };
        Ok(definition(plan, &solve, &Constraints::new().platform(platform))?.to_json_lines()?)
    }

    #[test]
    fn steps_work_on_one_tree_and_the_result_is_what_is_wanted() {
        let text = lines(&plan()).unwrap();
        assert_eq!(lines(&plan()).unwrap(), text, "equal plans, equal bytes");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn commands_follow_each_other_in_the_order_of_the_plan() {
        let text = lines(&plan()).unwrap();
        let at = |what: &str| text.lines().position(|line| line.contains(what)).unwrap();
        assert!(at("[one] rustup") < at("[one] cargo build") && at("[one] cp") < at("[two] cargo build"));
    }

    #[test]
    fn everything_is_taken_where_everything_may_be_mounted() {
        let mut whole = plan();
        whole.wanted.places.push(String::new());
        assert!(!lines(&whole).unwrap().contains("include"));
        assert_eq!(literal("a+b"), "a+b");
        assert_eq!(literal("a+[b]"), r"a\+\[b\]");
        assert_eq!(literal("!a"), r"\!a");
    }

    #[test]
    fn an_image_that_was_not_looked_up_is_named() {
        let mut other = plan();
        other.steps[0].image = "docker.io/library/other:1".to_owned();
        let error = lines(&other).unwrap_err().to_string();
        assert_eq!(error, "the configuration of the image docker.io/library/other:1 was not looked up");
    }
}
