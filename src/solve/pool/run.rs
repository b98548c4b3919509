//! A plan's solves over the pool: each waits for its builder; one whose builder is lost goes once to another, and one
//! whose builder has no room is tried once more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;

use super::super::progress::Translator;
use super::request::{explain, files_request, lacking, request, sole};
use super::room::{Full, full, step_is_full};
use super::roster::{Id, Turn, Want};
use super::{BuilderConfig, CONNECT_TIMEOUT, ContextDirs, FileGraph, FileSolve, ImageSolve, Pool};
use crate::buildkit::session::filesync::TransferStats;
use crate::buildkit::{Client, SolveErrorKind};
use crate::event::{BuildEvent, EventSink, Failure, plain_line};
use crate::model::{Digest, Platform};

/// What a build's solves are to give.
#[derive(Clone, Copy)]
pub(super) enum Goal<'a> {
    /// Images by a frontend, pushed by digest.
    Images(&'a ImageSolve<'a>),
    /// Files here, of a graph.
    Files(&'a FileSolve<'a>),
}

/// What one solve gave: a digest where images were its goal, and for which platforms.
pub(super) type Done = (Option<Digest>, Vec<Platform>);

pub(super) struct Run<'a> {
    pub pool: &'a Pool,
    pub app: &'a str,
    pub goal: Goal<'a>,
    pub context: &'a ContextDirs,
    pub events: &'a EventSink,
    /// Whether builders are worth naming.
    pub named: bool,
    /// Numbers the steps of all solves.
    pub numbers: Arc<AtomicU32>,
}

/// As `failure` words it that a registry misses a layer of an image.
const UNKNOWN_BLOB: &str = "did not take the image: blob unknown";

/// What the same platforms have been through already.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    without: BTreeSet<Id>,
    /// Whether a builder was lost in the middle of it.
    lost: bool,
    /// Whether a builder had no room for it.
    pub full: bool,
}

/// Why one solve came to nothing.
pub(super) enum Fault {
    /// The tree's: no other builder would do better.
    Build(Failure),
    /// The machinery's, and the builder is there: its registry, its disk.
    Machinery(Failure),
    /// The builder could not be reached, or was lost in the middle of it.
    Builder { failure: Failure, cause: String, began: bool },
    /// The builder has no room for it.
    Full(Full),
}

struct Broken {
    failure: Failure,
    /// Whether the tree is to blame.
    of_build: bool,
}

impl Run<'_> {
    pub async fn all(&self, platforms: &[Platform]) -> Result<Vec<Done>, Failure> {
        let mut parts = self.platforms(platforms.to_vec(), Past::default()).await.map_err(|b| b.failure)?;
        // whichever was done first: the result is in the plan's order
        parts.sort_by_key(|(_, done)| {
            let first = done.first();
            platforms.iter().position(|platform| Some(platform) == first)
        });
        Ok(parts)
    }

    fn platforms<'s>(
        &'s self,
        platforms: Vec<Platform>,
        past: Past,
    ) -> BoxFuture<'s, Result<Vec<Done>, Broken>> {
        async move {
            let want = Want { platforms, without: past.without.clone() };
            let groups = self.pool.split(&want).await;
            let groups = groups.map_err(|failure| Broken { failure, of_build: false })?;
            let mut solves: FuturesUnordered<_> =
                groups.into_iter().map(|platforms| self.group(platforms, past.clone())).collect();
            let (mut parts, mut broken) = (Vec::new(), None);
            while let Some(solved) = solves.next().await {
                match solved {
                    Ok(solved) => parts.extend(solved),
                    Err(failed) if failed.of_build => return Err(failed),
                    Err(failed) => {
                        if !solves.is_empty() {
                            let text =
                                format!("{}; the rest is finished, for the next push", failed.failure.reason);
                            self.note(&text);
                        }
                        broken = broken.or(Some(failed));
                    }
                }
            }
            broken.map_or(Ok(parts), Err)
        }
        .boxed()
    }

    async fn group(&self, platforms: Vec<Platform>, mut past: Past) -> Result<Vec<Done>, Broken> {
        let want = Want { platforms: platforms.clone(), without: past.without.clone() };
        let (slot, turn) = self.pool.turn(self.app, want, self.events).await;
        let Turn::Builder { id, config } = turn else {
            drop(slot);
            return self.platforms(platforms, past).await;
        };
        match self.attempt_until_pushed(id, &config, &platforms, &mut past).await {
            Ok(part) => Ok(vec![part]),
            Err(Fault::Build(failure)) => Err(Broken { failure, of_build: true }),
            Err(Fault::Machinery(failure)) => Err(Broken { failure, of_build: false }),
            Err(Fault::Builder { failure, cause, began }) => {
                // before the slot is free: nobody else shall get it
                self.pool.heard(id, &config.name, Err(cause));
                drop(slot);
                let broken = Broken { failure, of_build: false };
                if began && past.lost {
                    return Err(broken);
                }
                past.lost |= began;
                self.elsewhere(id, platforms, past, broken).await
            }
            Err(Fault::Full(full)) => {
                drop(slot);
                let broken = Broken { failure: full.failure, of_build: false };
                self.elsewhere(id, platforms, past, broken).await
            }
        }
    }

    /// A registry may not find a layer for an instant while another builder pushes the same one to the same repository: what is
    /// built is pushed once more.
    async fn attempt_until_pushed(
        &self,
        id: Id,
        builder: &BuilderConfig,
        platforms: &[Platform],
        past: &mut Past,
    ) -> Result<Done, Fault> {
        match self.attempt_with_room(id, builder, platforms, past).await {
            Err(Fault::Build(failure) | Fault::Machinery(failure))
                if failure.cause.contains(UNKNOWN_BLOB) =>
            {
                tracing::warn!(builder = %builder.name, cause = %failure.cause, "the image is pushed once more");
                self.note("the registry did not find a layer that it has: the image is pushed once more");
                self.attempt_with_room(id, builder, platforms, past).await
            }
            other => other,
        }
    }

    /// The same on another builder than this one, if there is one that is up.
    async fn elsewhere(
        &self,
        id: Id,
        platforms: Vec<Platform>,
        mut past: Past,
        broken: Broken,
    ) -> Result<Vec<Done>, Broken> {
        past.without.insert(id);
        let want = Want { platforms: platforms.clone(), without: past.without.clone() };
        if self.pool.split(&want).await.is_err() {
            return Err(broken);
        }
        self.note(&format!("{}: another builder takes over", broken.failure.reason));
        self.platforms(platforms, past).await
    }

    pub(super) async fn attempt(
        &self,
        builder: &BuilderConfig,
        platforms: Vec<Platform>,
    ) -> Result<Done, Fault> {
        let name = &builder.name;
        if self.named {
            let (builder, platforms) = (plain_line(name), platforms.clone());
            self.events.emit(BuildEvent::SolveStarted { builder, platforms });
        }
        let client = Client::connect(&builder.endpoint, CONNECT_TIMEOUT).await.map_err(|error| {
            let cause = plain_line(&error.to_string());
            let failure = Failure::new(format!("builder {name} does not answer"), cause.clone()).with_remedy(
                "push again; if it stays, the operator looks at the builder (lemnos builders list)",
            );
            Fault::Builder { failure, cause, began: false }
        })?;
        let only = sole(&platforms);
        let path = self.dockerfile().to_owned();
        let mut translator = Translator::new(self.events.clone(), self.numbers.clone(), path, only.clone())
            .with_tail(self.context.log_tail_lines)
            .masked(self.context.secrets.masker());
        let transfers = Arc::new(TransferStats::default());
        if let Goal::Files(files) = self.goal {
            // what another try left would pass for this one's
            match tokio::fs::remove_dir_all(files.out).await {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    let cause = format!("{}: {cause}", files.out.display());
                    let failure = Failure::new("server error: no place for files", cause);
                    return Err(Fault::Machinery(failure.with_remedy("tell the operator")));
                }
                _ => {}
            }
        }
        let request = match self.goal {
            Goal::Images(images) => request(images, &platforms, self.context, &transfers),
            Goal::Files(files) => {
                files_request(files, &platforms, self.context, &transfers).map_err(Fault::Machinery)?
            }
        };
        let result = match self.goal {
            Goal::Files(FileSolve { graph: FileGraph::Steered(steer), .. }) => {
                client.build(request, steer, |event| translator.take(event)).await
            }
            _ => client.solve(request, |event| translator.take(event)).await,
        };
        if let Some(failure) = lacking(&transfers.concerns()) {
            // also where the solve failed: what was not there is the likelier cause
            return Err(Fault::Build(failure));
        }
        let solved = result.map_err(|error| {
            if error.lost {
                translator.abandon(&format!("builder {name} lost"));
                return lost(name, &platforms, &self.context.secrets.masker().text(&error.message));
            }
            if error.full {
                let message = self.context.secrets.masker().text(&error.message);
                return Fault::Full(full(name, &platforms, &message));
            }
            let (of_build, of_step) = (error.kind == SolveErrorKind::Build, error.exit_code.is_some());
            let failure =
                explain(error, &mut translator, self.dockerfile(), self.context, transfers.failure(), only);
            if of_step && step_is_full(&failure.log_tail) {
                return Fault::Full(Full { failure, of_step });
            }
            if of_build { Fault::Build(failure) } else { Fault::Machinery(failure) }
        })?;
        if let Goal::Files(_) = self.goal {
            return Ok((None, platforms));
        }
        let digest = solved.attrs.get("containerimage.digest").and_then(|d| d.parse().ok());
        let digest = digest.ok_or_else(|| {
            let cause = format!("builder {name} ended the solve without telling the image's digest");
            Fault::Machinery(Failure::new("builder failed: no digest", cause).with_remedy("push again"))
        })?;
        Ok((Some(digest), platforms))
    }

    /// The file that errors with a line are about; none of a graph.
    fn dockerfile(&self) -> &str {
        match self.goal {
            Goal::Images(images) => &images.spec.dockerfile_path,
            Goal::Files(_) => "",
        }
    }

    pub(super) fn note(&self, text: &str) {
        self.events.emit(BuildEvent::Note { text: plain_line(text) });
    }
}

fn lost(name: &str, platforms: &[Platform], message: &str) -> Fault {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    let cause = plain_line(message);
    let told = format!("builder {name} was lost while it built {}: {cause}", names.join(", "));
    let failure = Failure::new(format!("builder {name} lost"), told).with_remedy(
        "this is not your commit's fault: push again; if it stays, the operator looks at the builder (lemnos builders list)",
    );
    Fault::Builder { failure, cause, began: true }
}
