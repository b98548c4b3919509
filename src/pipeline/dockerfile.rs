//! A Dockerfile's image: BuildKit builds and pushes the children, and the index over them is made here.

use std::sync::Arc;

use super::context::{Dirs, unless_stopped};
use super::earlier::Reusable;
use super::{Making, Pipeline, RefBuild, blocking, from_report, internal};
use crate::assemble::{self, Child};
use crate::error::Report;
use crate::event::{BuildEvent, EventSink, Failure};
use crate::failpoint::Point;
use crate::metrics::{self, Stage};
use crate::model::{Digest, Form, ImagePlan, Platform, Publication, SolveSpec};
use crate::solve::context::GitContext;
use crate::solve::dockerfile::{self, CONTEXT, Definition, INPUT};
use crate::solve::{ContextDirs, DirSource, ImageSolve};

impl Pipeline {
    pub(super) async fn dockerfile(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        solves: &[SolveSpec],
    ) -> Result<Publication, Failure> {
        let Making { job, events, .. } = *making;
        let fingerprint = fingerprint(image, solves);
        if let Some(earlier) = self.reusable(job, &image.name, fingerprint.as_ref()).await {
            match self.serve_again(job, image, earlier, events).await {
                Ok(publication) => return Ok(publication),
                Err(error) if error.may_lack_children() => events.emit(BuildEvent::Note {
                    text: "the registry no longer has all of them: building after all".to_owned(),
                }),
                Err(error) => return Err(from_report(Report::from(error))),
            }
        }
        let children = self.solve(making, image, solves).await?;
        let flat: Vec<Child> = children.iter().flatten().cloned().collect();
        let remember = self.keep(making.plan, &image.name, fingerprint.as_ref(), &flat);
        let ((), assembled) = tokio::join!(remember, self.assemble(job, image, children, events));
        assembled.map_err(|e| from_report(Report::from(e)))
    }

    async fn serve_again(
        &self,
        job: &RefBuild,
        image: &ImagePlan,
        earlier: Reusable,
        events: &EventSink,
    ) -> Result<Publication, assemble::AssembleError> {
        earlier.tell(events);
        self.assemble(job, image, vec![earlier.children], events).await
    }

    async fn solve(
        &self,
        making: &Making<'_>,
        image: &ImagePlan,
        solves: &[SolveSpec],
    ) -> Result<Vec<Vec<Child>>, Failure> {
        let _timing = metrics::time(Stage::Solve);
        let Making { job, events, .. } = *making;
        let mut pushed: Vec<(Digest, Option<Platform>)> = Vec::new();
        let mut ledgers = Vec::new();
        for spec in solves {
            let beside = place(&spec.dockerfile_path).0.to_owned();
            let served = move |context: &GitContext| served(context, &beside);
            let opened = self.open_context(making, &image.name, &spec.context_path, served).await?;
            let dockerfile = with_request(spec, &opened.dirs).await?;
            self.pass(Point::AfterContext).await?;
            let insecure = self.settings.plain_http.iter().any(|host| host == image.name.host());
            let app = job.push.app.name.as_str();
            let spec = self.with_caches_that_stand(spec, &image.name).await;
            let images =
                ImageSolve { spec: &spec, image: &image.name, insecure, dockerfile: dockerfile.as_ref() };
            let solving = self.builders.solve(app, &images, &opened.dirs, events);
            let parts = match unless_stopped(job, solving).await {
                Ok(parts) => parts,
                Err(failure) => {
                    self.keep_ledger(opened.ledger, &opened.key).await;
                    return Err(failure);
                }
            };
            ledgers.push((opened.ledger, opened.key));
            pushed.extend(parts.into_iter().map(|part| {
                let only = match part.platforms.as_slice() {
                    [only] => Some(only.clone()),
                    _ => None,
                };
                (part.digest, only)
            }));
        }
        self.pass(Point::AfterSolve).await?;
        // one waits for the disk, the other for the registry
        let keep = async {
            for (ledger, key) in ledgers {
                self.keep_ledger(ledger, &key).await;
            }
        };
        tracing::info!(build = %job.build, parts = pushed.len(), "solved");
        let ((), fetched) = tokio::join!(keep, assemble::fetch(&self.registry, &image.name, &pushed));
        fetched.map_err(|e| from_report(Report::from(e)))
    }

    async fn assemble(
        &self,
        job: &RefBuild,
        image: &ImagePlan,
        children: Vec<Vec<Child>>,
        events: &EventSink,
    ) -> Result<Publication, assemble::AssembleError> {
        let _timing = metrics::time(Stage::Assemble);
        let platforms = image.work.platforms();
        let index = assemble::index(&platforms, children, &image.annotations)?;
        let digest = assemble::push(&self.registry, &image.name, &index, &self.failpoints).await?;
        tracing::info!(build = %job.build, image = %image.name, %digest, "assembled");
        events.emit(BuildEvent::Assembled {
            image: image.name.clone(),
            digest: digest.clone(),
            platforms: platforms.clone(),
            indexed: true,
        });
        Ok(Publication {
            build: job.build.clone(),
            image: image.name.clone(),
            digest,
            media_type: index.media_type,
            form: Form::Index,
            platforms,
            bytes: index.bytes,
            tags: image.tags.clone(),
            unshared: image.unshared,
        })
    }
}

/// The context, and the directory that the Dockerfile is in.
fn served(context: &GitContext, beside: &str) -> Result<Dirs, Failure> {
    let dockerfile = context.at(beside).map_err(|e| from_report(Report::from(e)))?;
    Ok(Dirs::from([
        (CONTEXT.to_owned(), Arc::new(context.clone()) as Arc<dyn DirSource>),
        (INPUT.to_owned(), Arc::new(dockerfile)),
    ]))
}

/// A file's directory and its name in it.
fn place(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// What goes with the request for the daemon's own frontend, which looks there first; one of somebody else's may not. Where the
/// build is attested the frontend asks: the graph's files would be published with it, and pass for a build's result.
async fn with_request(spec: &SolveSpec, served: &ContextDirs) -> Result<Option<Definition>, Failure> {
    if spec.frontend_image.is_some() || !spec.attest.is_none() {
        return Ok(None);
    }
    let (Some(beside), Some(context)) = (served.dirs.get(INPUT), served.dirs.get(CONTEXT)) else {
        return Ok(None);
    };
    let (path, beside, context) = (spec.dockerfile_path.clone(), beside.clone(), context.clone());
    blocking(move || dockerfile::definition(&*beside, place(&path).1, &*context).map_err(internal)).await
}

/// What decides the images' content, where they have one solve and a tree with an id.
fn fingerprint(image: &ImagePlan, solves: &[SolveSpec]) -> Option<Digest> {
    match solves {
        [only] => only.fingerprint(&image.name),
        _ => None,
    }
}
