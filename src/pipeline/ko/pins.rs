//! What one build of a program is pinned to before it begins: base, toolchain, and what git says of the commit.

use std::sync::Arc;

use super::failure;
use crate::assemble::base::{Base, Chosen, look_up, resolve};
use crate::assemble::ko::{BasePlatform, Platforms};
use crate::event::{BuildEvent, Failure, plain_line};
use crate::model::{Digest, GoTarget, KoImage, Sha};
use crate::pipeline::{Making, Pipeline, RefBuild, blocking, internal};
use crate::solve::DirSource;
use crate::solve::git_dir::{GitDir, GitView, git_dir};

pub(super) struct Pins {
    pub base: Base,
    /// What of the base images are put on, each with what is compiled for it.
    pub chosen: Vec<Chosen>,
    pub targets: Vec<GoTarget>,
    /// With its digest.
    pub toolchain: String,
    pub git: Arc<GitDir>,
    /// Of what git says: commit, tags, tree.
    pub git_id: Digest,
}

impl Pipeline {
    pub(super) async fn ko_pins(&self, making: &Making<'_>, program: &KoImage) -> Result<Pins, Failure> {
        let (base, toolchain, git) = tokio::try_join!(
            async { resolve(&self.registry, &program.base).await.map_err(failure) },
            self.pinned(&program.compile.toolchain),
            self.git_dir(making.job, &making.plan.commit),
        )?;
        let targets = &program.compile.targets;
        let platforms: Vec<_> = targets.iter().map(|target| target.platform.clone()).collect();
        let chosen = base.choose(&platforms).map_err(failure)?;
        let targets =
            chosen.iter().map(|chosen| target(targets, &chosen.platform)).collect::<Result<_, _>>()?;
        let text = format!("on {} ({}), compiled with {toolchain}", base.reference, base.digest);
        making.events.emit(BuildEvent::Note { text: plain_line(&text) });
        if git.is_cut() {
            let text = "the history is too long to be looked through for tags: the program's version may lack an old one";
            making.events.emit(BuildEvent::Note { text: text.to_owned() });
        }
        let git_id = id(&*git)?;
        Ok(Pins { base, chosen, targets, toolchain, git, git_id })
    }

    /// An image's name with the digest that it has now.
    async fn pinned(&self, name: &str) -> Result<String, Failure> {
        if name.contains('@') {
            return Ok(name.to_owned());
        }
        let (_, manifest) = look_up(&self.registry, name).await.map_err(failure)?;
        Ok(format!("{name}@{}", manifest.digest))
    }

    async fn git_dir(&self, job: &RefBuild, commit: &Sha) -> Result<Arc<GitDir>, Failure> {
        let (repository, tip) = (job.repository.clone(), commit.clone());
        let (reference, pushed) = (job.update.name.to_string(), pushed(job));
        blocking(move || {
            let view = GitView { repository: &repository, tip: &tip, reference: &reference, pushed: &pushed };
            git_dir(&view).map(Arc::new).map_err(failure)
        })
        .await
    }
}

/// Refs that come with the same push.
pub(in crate::pipeline) fn pushed(job: &RefBuild) -> Vec<(String, Sha)> {
    let news = job.push.updates.iter().filter(|update| !update.is_delete());
    news.map(|update| (update.name.to_string(), update.new.clone())).collect()
}

/// What is compiled for an entry of the base: the target that names it most exactly.
fn target(targets: &[GoTarget], of: &BasePlatform) -> Result<GoTarget, Failure> {
    let fits = |target: &&GoTarget| {
        let wanted = target.platform.to_string().parse::<Platforms>();
        wanted.is_ok_and(|wanted| wanted.matches(Some(of)))
    };
    let found = targets.iter().filter(fits).max_by_key(|target| target.platform.variant.is_some());
    found
        .cloned()
        .ok_or_else(|| internal(format!("the base was chosen for {of}, which nothing is compiled for")))
}

/// Of a directory whose times say what is in its files.
fn id(dir: &dyn DirSource) -> Result<Digest, Failure> {
    let entries = dir.entries().map_err(internal)?;
    let mut text = Vec::new();
    for entry in entries.iter() {
        text.extend_from_slice(&entry.path);
        text.extend_from_slice(format!("\0{} {}\n", entry.size, entry.mtime_ns).as_bytes());
    }
    Ok(Digest::of(&text))
}
