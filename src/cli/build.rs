//! `lemnos build`: what `docker buildx build` does, flag by flag, on the BuildKit client itself.
//!
//! Invariants: a flag is followed or refused; nothing is written before the build has succeeded, but what an exporter
//! streams; a build that is interrupted is cancelled. The table of flags is docs/reference/build.md. A push of a tree, with
//! its detection of kinds and its tags, is the server's, and not done here.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};

use crate::buildkit::gateway::CallResult;
use crate::buildkit::join::Joined;
use crate::buildkit::solve::Platform;
use crate::buildkit::{AuthProvider, DockerConfig, SolveError, SolveErrorKind, SolveRequest};
use crate::config::{Config, Environment};
use crate::error::{Kind, Report};
use crate::model::Digest;
use crate::registry::Registry;

mod args;
mod aws;
mod builders;
mod call;
pub(super) mod docker;
mod excerpt;
mod inputs;
mod metadata;
mod options;
mod outputs;
mod request;
pub(super) mod screen;
mod several;
mod stdin;
mod vcs;

pub use args::Args;
use builders::{Share, Sources};
use docker::Docker;
use inputs::{Inputs, Place};
use options::Options;
use outputs::{Outputs, Surroundings};
use request::Builds;
use screen::Screen;

/// What shells have for a command that Ctrl-C ended, and what buildx exits with.
pub(super) const CANCELLED: u8 = 130;

/// How a build ended that did not succeed.
enum Failed {
    /// Before, after or beside the solve.
    Report(Report),
    Solve(Box<SolveError>),
    Interrupted,
}

impl From<Report> for Failed {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

impl From<SolveError> for Failed {
    fn from(error: SolveError) -> Self {
        Self::Solve(Box::new(error))
    }
}

/// Everything that is known before a daemon is asked.
struct Command {
    args: Args,
    environment: Environment,
    options: Options,
    docker: Docker,
    config: Config,
    place: Place,
}

pub fn run(args: Args) -> Result<ExitCode, Report> {
    let environment = Environment::of_process();
    let mut options = Options::read(&args, &environment)?;
    aws::fill(options.cache_from.iter_mut().chain(&mut options.cache_to), &environment)?;
    let place = Place::read(&args.context)?;
    policies(&args, &options, &place)?;
    let docker = Docker::read(&environment)?;
    let config = builders::settings(&args, &environment)?;
    if let Some(path) = &args.iidfile {
        metadata::remove_id(path)?;
    }
    let screen = Screen::new(options.mode, &environment)
        .map_err(|cause| Report::user(cause.to_string()).hint("--progress plain shows every line"))?;
    let command = Command { args, environment, options, docker, config, place };
    super::block_on(command.run(&screen))
}

/// A policy beside the Dockerfile is for a builder that evaluates it: built without it, the file would protect nobody.
fn policies(args: &Args, options: &Options, place: &Place) -> Result<(), Report> {
    let file = match (&args.file, place) {
        (Some(file), _) if file != "-" && !file.contains("://") => file.clone(),
        (None, Place::Directory(dir)) => dir.join("Dockerfile").display().to_string(),
        _ => return Ok(()),
    };
    let policy = format!("{file}.rego");
    if options.policy_disabled || !std::path::Path::new(&policy).exists() {
        return Ok(());
    }
    Err(Report::user(format!("{policy} is a policy in Rego, which is not evaluated here"))
        .hint("--policy disabled=true builds without it"))
}

impl Command {
    async fn run(self, screen: &Screen) -> Result<ExitCode, Report> {
        let outcome = tokio::select! {
            outcome = self.build(screen) => outcome,
            never = screen.draw() => match never {},
            interrupted = interrupted() => Err(interrupted.map_or_else(Failed::Report, |()| Failed::Interrupted)),
        };
        screen.finish(self.args.debug);
        match outcome {
            Ok(code) => Ok(code),
            Err(Failed::Report(report)) => Err(report),
            Err(Failed::Interrupted) => {
                complain("error: the build was interrupted: context canceled\n");
                Ok(ExitCode::from(CANCELLED))
            }
            Err(Failed::Solve(error)) => Ok(self.failed(&error)),
        }
    }

    /// Tells of a failed solve: the place in the Dockerfile, then the error.
    fn failed(&self, error: &SolveError) -> ExitCode {
        let excerpt = error.source.as_deref().map(excerpt::of).unwrap_or_default();
        let report = Report::new(Kind::Build, format!("failed to build: failed to solve: {}", error.message));
        let report = match hint(error) {
            Some(hint) => report.hint(hint),
            None => report,
        };
        complain(&format!("{excerpt}{report}\n"));
        ExitCode::from(match (error.kind, error.code) {
            (SolveErrorKind::Canceled, _) => CANCELLED,
            (_, tonic::Code::Internal) => 100,
            (_, tonic::Code::ResourceExhausted) => 102,
            _ => 1,
        })
    }

    async fn build(&self, screen: &Screen) -> Result<ExitCode, Failed> {
        let sources = Sources { args: &self.args, environment: &self.environment, docker: &self.docker };
        let found = sources.find(&self.config)?;
        let mut shares = builders::share(found, &self.options.dockerfile.platforms).await?;
        if self.options.call.is_some() {
            // a question is one builder's to answer
            shares.truncate(1);
        }
        let Some(first) = shares.first() else { return Err(Report::internal("no builder was found").into()) };
        let fetched = match self.args.file.as_deref() {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                Some(inputs::fetch(&first.client, url).await?)
            }
            _ => None,
        };
        let mut inputs = Inputs::open(&self.place, self.args.file.as_deref(), fetched).await?;
        if shares.len() > 1 {
            inputs.for_several().await?;
        }
        if let Some(call) = &self.options.call {
            let (request, _, _) = self.prepare(&mut inputs, first, false, screen).await?;
            let answer = first.client.call(request, &call.call, |event| screen.show(event)).await?;
            screen.finish(self.args.debug);
            return Ok(self.answer(call, &answer, &inputs.shown)?);
        }
        self.warn_of_no_output(first, screen);
        let attrs = match shares.len() {
            1 => self.alone(&mut inputs, first, screen).await?,
            _ => self.together(&mut inputs, &shares, screen).await?,
        };
        screen.finish(self.args.debug);
        self.tell(&attrs, screen)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The request for one builder; and whether docker names the image by its manifest.
    async fn prepare(
        &self,
        inputs: &mut Inputs,
        share: &Share,
        one_of_several: bool,
        screen: &Screen,
    ) -> Result<(SolveRequest, Joined, bool), Report> {
        let (prepared, _) = self.prepare_with(inputs, share, one_of_several, screen, |_| Ok(())).await?;
        Ok(prepared)
    }

    async fn prepare_with<T>(
        &self,
        inputs: &mut Inputs,
        share: &Share,
        one_of_several: bool,
        screen: &Screen,
        change: impl FnOnce(&mut Outputs) -> Result<T, Report>,
    ) -> Result<((SolveRequest, Joined, bool), T), Report> {
        let docker = match &share.builder.endpoint.address {
            crate::buildkit::Address::Docker(host) => {
                self.docker.at(host, share.builder.endpoint.tls.as_ref())
            }
            _ => self.docker.clone(),
        };
        let in_docker = share.builder.is_docker();
        let features = match in_docker || outputs::needs_docker(&self.options) {
            true if in_docker => Some(docker.features().await?),
            true => Some(docker.in_context(outputs::loaded_into(&self.options))?.features().await?),
            false => None,
        };
        let around = Surroundings {
            in_docker,
            docker: &docker,
            features,
            plain_http: &self.config.plain_http_hosts,
            default_load: !self.says("BUILDX_NO_DEFAULT_LOAD"),
        };
        let mut outputs = Outputs::plan(&self.options, &around)?;
        let changed = change(&mut outputs)?;
        let by_manifest = outputs.by_manifest;
        let builds = Builds {
            options: &self.options,
            inputs,
            outputs,
            docker: &docker,
            environment: &self.environment,
            auth: self.credentials()?,
            in_docker: features.filter(|_| in_docker),
            platforms: share.platforms.clone(),
            one_of_several,
            gateway: request::host_gateway(&self.options, &share.client).await?,
        };
        let (request, joined) = builds.request()?;
        for warning in &joined.warnings {
            screen.say(&format!("warning: {warning}\n"));
        }
        Ok(((request, joined, by_manifest), changed))
    }

    /// One builder makes everything.
    async fn alone(
        &self,
        inputs: &mut Inputs,
        share: &Share,
        screen: &Screen,
    ) -> Result<BTreeMap<String, String>, Failed> {
        let (request, joined, by_manifest) = self.prepare(inputs, share, false, screen).await?;
        let result = share.client.solve(request, |event| screen.show(event)).await?;
        joined.record(&result).map_err(Report::from)?;
        let mut attrs = result.attrs;
        if by_manifest {
            attrs.remove("containerimage.config.digest");
        }
        attrs.insert("buildx.build.ref".to_owned(), share.builder.reference(&result.reference));
        let noted = metadata::Noted::of(&self.environment);
        if self.args.metadata_file.is_some() && noted != metadata::Noted::Nothing {
            let asked = metadata::provenance(&share.client, &result.reference, noted);
            attrs.extend(screen.step("resolving provenance for metadata file", asked).await?);
        }
        Ok(attrs)
    }

    /// Several builders make a part each.
    async fn together(
        &self,
        inputs: &mut Inputs,
        shares: &[Share],
        screen: &Screen,
    ) -> Result<BTreeMap<String, String>, Failed> {
        let mut prepared = Vec::new();
        let mut targets = Vec::new();
        for share in shares {
            let ready = self.prepare_with(inputs, share, true, screen, several::push_by_digest).await?;
            prepared.push((share, ready.0.0));
            targets = ready.1;
        }
        let solved = try_join_all(prepared.into_iter().map(async |(share, request)| {
            let result = share.client.solve(request, |event| screen.show(event)).await?;
            let digest = result.attrs.get("containerimage.digest").cloned().unwrap_or_default();
            let digest: Digest = digest.parse().map_err(Report::from)?;
            Ok::<(Digest, Vec<Platform>), Failed>((digest, share.platforms.clone()))
        }))
        .await?;
        let registry = Registry::new(super::serve::wiring::registry(&self.config)).map_err(Report::from)?;
        Ok(several::join(&registry, &targets, &solved, &self.options, screen).await?)
    }

    /// Writes the id, the metadata, and what the build wants to say.
    fn tell(&self, attrs: &BTreeMap<String, String>, screen: &Screen) -> Result<(), Report> {
        let mut out = std::io::stdout();
        if self.options.quiet {
            // a reader that went away has the image all the same
            let _ = writeln!(out, "{}", metadata::image_id(attrs));
        }
        if let Some(path) = &self.args.iidfile {
            metadata::write_id(path, attrs)?;
        }
        if let Some(path) = &self.args.metadata_file {
            let warnings = screen.warnings_json().filter(|_| metadata::with_warnings(&self.environment));
            metadata::write(path, attrs, warnings)?;
        }
        if let Some(message) = attrs.get("frontend.result.inlinemessage") {
            let _ = writeln!(out, "\n{}", crate::event::plain_text(message));
        }
        Ok(())
    }

    /// What a frontend answered, printed, and written where a file is named.
    fn answer(
        &self,
        call: &crate::buildkit::flags::CallFlag,
        result: &CallResult,
        dockerfile: &str,
    ) -> Result<ExitCode, Report> {
        let text =
            |(key, value): (&String, &Vec<u8>)| (key.clone(), String::from_utf8_lossy(value).into_owned());
        let attrs: BTreeMap<String, String> = result.metadata.iter().map(text).collect();
        if let Some(path) = &self.args.metadata_file {
            metadata::write(path, &attrs, None)?;
        }
        let answer = call::answer(call, result, dockerfile)?;
        super::terminal::print_text(&answer.text)?;
        if let Some(error) = answer.error {
            complain(&format!("error: {error}"));
        }
        Ok(ExitCode::from(answer.code))
    }

    fn warn_of_no_output(&self, share: &Share, screen: &Screen) {
        let options = &self.options;
        let none = options.outputs.is_empty() && !options.push && !options.load;
        if none && !share.builder.is_docker() && !self.says("BUILDX_NO_DEFAULT_LOAD") {
            screen.say(
                "warning: no output is named: the result stays in the build cache; --push pushes the image, --load \
                 loads it into docker\n",
            );
        }
    }

    fn says(&self, variable: &str) -> bool {
        self.environment.get(variable).is_some_and(options::yes)
    }

    fn credentials(&self) -> Result<Arc<dyn AuthProvider>, Report> {
        let read = match &self.config.docker_config {
            Some(path) => DockerConfig::read(path),
            None => DockerConfig::parse(b"{}"),
        };
        Ok(Arc::new(read.map_err(|e| Report::user(e.to_string()))?))
    }
}

fn hint(error: &SolveError) -> Option<&'static str> {
    if error.message.contains("unsupported frontend capability moby.buildkit.frontend.contexts") {
        return Some(
            "the Dockerfile's frontend is older than --build-context: `# syntax=docker/dockerfile:1` names a newer one",
        );
    }
    if error.message.contains("unsupported frontend capability moby.buildkit.frontend.gitquerystring") {
        return Some(
            "the Dockerfile's frontend is older than git addresses with ?…: write ADDRESS#REF:DIRECTORY",
        );
    }
    match error.kind {
        SolveErrorKind::Infrastructure if error.temporary => Some("this is not the build's fault; try again"),
        SolveErrorKind::Infrastructure => Some("this is not the build's fault; see buildkitd's log"),
        _ => None,
    }
}

fn complain(text: &str) {
    // nobody listens any more: the exit code tells
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Ends with the first signal that asks to end.
pub(super) async fn interrupted() -> Result<(), Report> {
    let failed = |e: std::io::Error| Report::internal(format!("waiting for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
